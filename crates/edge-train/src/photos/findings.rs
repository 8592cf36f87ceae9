//! What should be known of a collection before it is trained on.

use super::look::Looks;
use super::{Photo, PhotosError, counts};
use serde::{Serialize, Serializer};
use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

/// Classes with fewer photos are a finding.
pub const FEW: usize = 20;

/// A largest class with more than this many times the photos of the smallest is a finding.
pub const IMBALANCE: usize = 10;

/// How many of many are named in a sentence.
const EXAMPLES: usize = 3;

/// What should be known of a collection; its [`Display`](fmt::Display) is a sentence, its serialized form has
/// everything.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Finding {
    /// Folders that are no class that was asked for.
    IgnoredFolders {
        /// The collection.
        #[serde(serialize_with = "lossy")]
        path: PathBuf,
        /// Names of the folders.
        folders: Vec<String>,
    },
    /// Pictures that lie beside the class folders, and so have no class.
    BesideFolders {
        /// The pictures.
        #[serde(serialize_with = "lossy_each")]
        photos: Vec<PathBuf>,
    },
    /// Files that a CSV lists once more with the labels they have already.
    ListedTwice {
        /// The CSV.
        #[serde(serialize_with = "lossy")]
        csv: PathBuf,
        /// The files, once for each line too many.
        #[serde(serialize_with = "lossy_each")]
        photos: Vec<PathBuf>,
    },
    /// Labels that look like many, read where a photo has one.
    JoinedLabels {
        /// The labels.
        labels: Vec<String>,
    },
    /// Classes with fewer than [`FEW`] photos.
    FewPhotos {
        /// The classes and their photos.
        classes: Vec<(String, usize)>,
    },
    /// A class with more than [`IMBALANCE`] times the photos of another.
    Imbalance {
        /// The largest class and its photos.
        largest: (String, usize),
        /// The smallest class and its photos.
        smallest: (String, usize),
    },
    /// Photos that are smaller than what the network reads.
    SmallPhotos {
        /// Width that the network reads.
        width: u32,
        /// Height that the network reads.
        height: u32,
        /// The photos.
        #[serde(serialize_with = "lossy_each")]
        photos: Vec<PathBuf>,
    },
    /// Files with the same bytes and the same labels.
    Duplicates {
        /// The files that are the same.
        #[serde(serialize_with = "lossy_groups")]
        groups: Vec<Vec<PathBuf>>,
    },
    /// Photos that are the same, or [look the same](Photo::looks_like), and have different labels.
    Contradictions {
        /// The photos that are the same.
        groups: Vec<Vec<Labelled>>,
    },
    /// Validation photos with the bytes of a training photo.
    SharedPhotos {
        /// A training photo for each.
        pairs: Vec<Pair>,
    },
    /// Validation photos that [look the same](Photo::looks_like) as a training photo.
    NearDuplicates {
        /// A training photo for each.
        pairs: Vec<Pair>,
    },
    /// Classes that no validation photo has.
    NotValidated {
        /// The classes.
        classes: Vec<String>,
    },
}

/// A photo and what is said of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Labelled {
    /// Its file.
    #[serde(serialize_with = "lossy")]
    pub photo: PathBuf,
    /// Its labels.
    pub labels: Vec<String>,
}

/// A photo on either side of a split.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Pair {
    /// The training photo.
    #[serde(serialize_with = "lossy")]
    pub train: PathBuf,
    /// The validation photo.
    #[serde(serialize_with = "lossy")]
    pub validation: PathBuf,
}

/// A path that isn't UTF-8 is no reason to write no report.
fn lossy<S: Serializer>(path: &Path, s: S) -> Result<S::Ok, S::Error> {
    s.serialize_str(&path.to_string_lossy())
}

fn lossy_each<S: Serializer>(paths: &[PathBuf], s: S) -> Result<S::Ok, S::Error> {
    s.collect_seq(paths.iter().map(|path| path.to_string_lossy()))
}

fn lossy_groups<S: Serializer>(groups: &[Vec<PathBuf>], s: S) -> Result<S::Ok, S::Error> {
    s.collect_seq(groups.iter().map(|group| group.iter().map(|path| path.to_string_lossy()).collect::<Vec<_>>()))
}

/// The first few of many, and how many more there are.
fn few<T>(all: &[T], between: &str, show: impl Fn(&T) -> String) -> String {
    let mut text = all.iter().take(EXAMPLES).map(show).collect::<Vec<_>>().join(between);
    if all.len() > EXAMPLES {
        text += &format!(" and {} more", all.len() - EXAMPLES);
    }
    text
}

fn names(all: &[String]) -> String {
    few(all, ", ", String::clone)
}

fn paths(all: &[PathBuf], between: &str) -> String {
    few(all, between, |path| path.display().to_string())
}

/// "1 photo is", "2 photos are".
fn number(count: usize, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::IgnoredFolders { path, folders } => {
                let what = number(folders.len(), "folder is", "folders are");
                write!(f, "{what} not among the classes and ignored in {}: {}", path.display(), names(folders))
            }
            Self::BesideFolders { photos } => {
                let what = number(photos.len(), "picture lies", "pictures lie");
                write!(f, "{what} beside the class folders and without a class, so ignored: {}", paths(photos, ", "))
            }
            Self::ListedTwice { csv, photos } => {
                let what = number(photos.len(), "line repeats an earlier one", "lines repeat earlier ones");
                write!(f, "{what} of {}, so ignored: {}", csv.display(), paths(photos, ", "))
            }
            Self::JoinedLabels { labels } => {
                let what = number(labels.len(), "label holds | or ; and is", "labels hold | or ; and are");
                let names = few(labels, ", ", |label| format!("{label:?}"));
                write!(f, "{what} taken whole, because a photo has one label here: {names}")
            }
            Self::FewPhotos { classes } => {
                let what = number(classes.len(), "class has", "classes have");
                let names = few(classes, ", ", |(class, count)| format!("{class} ({count})"));
                write!(f, "{what} fewer than {FEW} photos: {names}")
            }
            Self::Imbalance { largest: (large, most), smallest: (small, fewest) } => {
                write!(
                    f,
                    "the class {large} has {most} photos, more than {IMBALANCE} times those of {small} ({fewest})"
                )
            }
            Self::SmallPhotos { width, height, photos } => {
                let what = number(photos.len(), "photo is", "photos are");
                let names = paths(photos, ", ");
                write!(f, "{what} smaller than the {width}x{height} that the network reads, and enlarged: {names}")
            }
            Self::Duplicates { groups } => {
                let extra = groups.iter().map(|group| group.len() - 1).sum();
                let what = number(extra, "photo is a copy", "photos are copies");
                let names = few(groups, ", ", |group| paths(group, " = "));
                write!(f, "{what} of another one with the same label: {names}")
            }
            Self::Contradictions { groups } => {
                let what = number(groups.len(), "picture has", "pictures have");
                let labelled = |p: &Labelled| format!("{} ({})", p.photo.display(), p.labels.join(" and "));
                let names = few(groups, ", ", |group| few(group, " = ", labelled));
                write!(f, "{what} different labels in different files: {names}")
            }
            Self::SharedPhotos { pairs } => {
                let what = number(pairs.len(), "validation photo is a copy", "validation photos are copies");
                write!(
                    f,
                    "{what} of a training photo, so validation promises too much: {}",
                    few(pairs, ", ", Pair::shown)
                )
            }
            Self::NearDuplicates { pairs } => {
                let what = number(pairs.len(), "validation photo looks", "validation photos look");
                let names = few(pairs, ", ", Pair::shown);
                write!(f, "{what} the same as a training photo, so validation promises too much: {names}")
            }
            Self::NotValidated { classes } => {
                let what = number(classes.len(), "class has", "classes have");
                write!(f, "{what} no validation photo: {}", names(classes))
            }
        }
    }
}

impl Pair {
    fn shown(&self) -> String {
        format!("{} = {}", self.validation.display(), self.train.display())
    }
}

fn labelled(classes: &[String], photo: &Photo) -> Labelled {
    let name = |&class: &usize| classes.get(class).cloned().unwrap_or_default();
    let labels = photo.truth.iter().map(name).collect();
    Labelled { photo: photo.path.clone(), labels }
}

/// What is found in a collection by itself.
pub(super) fn within(
    classes: &[String],
    photos: &[Photo],
    input: Option<(u32, u32)>,
    stop: &AtomicBool,
) -> Result<Vec<Finding>, PhotosError> {
    let mut findings = Vec::new();
    let counts = counts(classes.len(), photos);
    let counted: Vec<(String, usize)> = classes.iter().cloned().zip(counts).collect();
    let few: Vec<(String, usize)> = counted.iter().filter(|(_, count)| *count < FEW).cloned().collect();
    if !few.is_empty() {
        findings.push(Finding::FewPhotos { classes: few });
    }
    // The first of equal ones, both times.
    let largest = counted.iter().rev().max_by_key(|(_, count)| *count);
    let smallest = counted.iter().min_by_key(|(_, count)| *count);
    if let (Some(largest), Some(smallest)) = (largest, smallest)
        && largest.1 > smallest.1.saturating_mul(IMBALANCE)
    {
        findings.push(Finding::Imbalance { largest: largest.clone(), smallest: smallest.clone() });
    }
    if let Some((width, height)) = input {
        let small = photos.iter().filter(|photo| photo.width < width || photo.height < height);
        let photos: Vec<PathBuf> = small.map(|photo| photo.path.clone()).collect();
        if !photos.is_empty() {
            findings.push(Finding::SmallPhotos { width, height, photos });
        }
    }
    let (mut duplicates, mut contradictions) = (Vec::new(), Vec::new());
    for group in same_bytes(photos) {
        if group.iter().all(|photo| photo.truth == group[0].truth) {
            duplicates.push(group.iter().map(|photo| photo.path.clone()).collect());
        } else {
            contradictions.push(group.iter().map(|photo| labelled(classes, photo)).collect());
        }
    }
    let looks = Looks::of(photos);
    for (at, photo) in photos.iter().enumerate() {
        if stop.load(Ordering::Relaxed) {
            return Err(PhotosError::Interrupted);
        }
        let other = |other: usize| photos[other].truth != photo.truth && photos[other].digest != photo.digest;
        if let Some(other) = looks.like(photo, at, other).next() {
            contradictions.push(vec![labelled(classes, &photos[other]), labelled(classes, photo)]);
        }
    }
    if !duplicates.is_empty() {
        findings.push(Finding::Duplicates { groups: duplicates });
    }
    if !contradictions.is_empty() {
        findings.push(Finding::Contradictions { groups: contradictions });
    }
    Ok(findings)
}

/// Photos of equal bytes, in the order of the first of each.
fn same_bytes(photos: &[Photo]) -> Vec<Vec<&Photo>> {
    let mut groups: Vec<Vec<&Photo>> = Vec::new();
    let mut places = HashMap::new();
    for photo in photos {
        let place = *places.entry(photo.digest).or_insert(groups.len());
        match groups.get_mut(place) {
            Some(group) => group.push(photo),
            None => groups.push(vec![photo]),
        }
    }
    groups.retain(|group| group.len() > 1);
    groups
}

/// What is found between the photos to train on and those to validate with, whether they were [`split`](super::split())
/// or come from two collections of the same `classes`.
#[must_use]
pub fn between(classes: &[String], train: &[Photo], validation: &[Photo]) -> Vec<Finding> {
    let (mut shared, mut near, mut contradictions) = (Vec::new(), Vec::new(), Vec::new());
    let mut by_digest: HashMap<[u8; 32], &Photo> = HashMap::new();
    for photo in train {
        by_digest.entry(photo.digest).or_insert(photo);
    }
    let looks = Looks::of(train);
    for photo in validation {
        let pairs = if by_digest.contains_key(&photo.digest) { &mut shared } else { &mut near };
        let like = || looks.like(photo, train.len(), |_| true).next().map(|at| &train[at]);
        let Some(known) = by_digest.get(&photo.digest).copied().or_else(like) else { continue };
        pairs.push(Pair { train: known.path.clone(), validation: photo.path.clone() });
        if known.truth != photo.truth {
            contradictions.push(vec![labelled(classes, known), labelled(classes, photo)]);
        }
    }
    let validated = counts(classes.len(), validation);
    let missing: Vec<String> =
        classes.iter().zip(validated).filter(|(_, count)| *count == 0).map(|(class, _)| class.clone()).collect();
    let mut findings = Vec::new();
    if !shared.is_empty() {
        findings.push(Finding::SharedPhotos { pairs: shared });
    }
    if !near.is_empty() {
        findings.push(Finding::NearDuplicates { pairs: near });
    }
    if !contradictions.is_empty() {
        findings.push(Finding::Contradictions { groups: contradictions });
    }
    if !missing.is_empty() {
        findings.push(Finding::NotValidated { classes: missing });
    }
    findings
}
