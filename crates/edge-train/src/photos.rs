//! A labelled photo collection: what Keras' `flow_from_directory` and `flow_from_dataframe` read.
//!
//! ```text
//! class folders ──┐
//!                 ├─ read: decode, digest, look ── Photos ── split ── train, validation ── between: findings
//! CSV of labels ──┘
//! ```
//!
//! Every photo is decoded once before anything is trained on it, so that a broken file is told of in the first minute
//! and not in the middle of the night, and what would make a result look better or worse than it is becomes a
//! [`Finding`].
//!
//! Copies are found by the BLAKE3 digest of the file's bytes. Pictures that look the same (saved again, made smaller)
//! are found by [`Photo::hash`], then confirmed by [`Photo::thumb`]: see [`Photo::looks_like`].

mod findings;
mod look;
mod memory;
mod source;
mod split;
#[cfg(test)]
mod tests;

pub use findings::{FEW, Finding, IMBALANCE, Labelled, Pair, between};
pub use look::{CLOSE, THUMB};
pub use split::split;

use edge_vision::{DecodeOptions, FolderError, decode, read_file};
use look::Lens;
use memory::{Key, Memory};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;

/// Threads beyond this many are not started, whatever was asked for.
const MAX_THREADS: usize = 256;

/// Where labelled photos come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A folder with a folder for each class, named after it; pictures lie anywhere below. Links are followed to class
    /// folders and to pictures, but not to folders below a class, and names that begin with a dot are skipped.
    Folder(PathBuf),
    /// A CSV (RFC 4180, UTF-8) of two columns, `file` (or `filename`, `Id`) and `label` (or `class`), named in its
    /// first line. Files are relative to the CSV's folder; absolute paths are taken as they are.
    Csv(PathBuf),
}

/// How photos are read.
#[derive(Debug, Clone)]
pub struct Options {
    /// The classes in the order of the network's outputs; another folder is left out, another label is an error.
    /// Without them, the classes are all that are found, in byte-wise order of their names, as Keras has them.
    pub classes: Option<Vec<String>>,
    /// A photo of a CSV may have many labels, separated by `|` or `;`, or none. Class folders give one each, with or
    /// without this.
    pub multi_label: bool,
    /// The first photo or folder that can't be read is an error.
    pub strict: bool,
    /// Threads that decode, each of which holds one picture at a time; at least one is started.
    pub threads: usize,
    /// How files become pictures; the same as in training.
    pub decode: DecodeOptions,
    /// Width and height that the network reads; smaller photos are a finding.
    pub input: Option<(u32, u32)>,
    /// A file that remembers what was seen of photos, so that those that have not changed are not decoded again.
    pub memory: Option<PathBuf>,
}

impl Default for Options {
    /// All classes, one label for each photo, broken photos skipped, every processor used.
    fn default() -> Self {
        Self {
            classes: None,
            multi_label: false,
            strict: false,
            threads: thread::available_parallelism().map_or(1, |n| n.get()),
            decode: DecodeOptions::default(),
            input: None,
            memory: None,
        }
    }
}

/// A photo that can be decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Photo {
    /// Its file.
    pub path: PathBuf,
    /// Its class by its place among the classes; in increasing order, and any number of them where many are allowed.
    pub truth: Vec<usize>,
    /// BLAKE3 of the file's bytes.
    pub digest: [u8; 32],
    /// Difference hash (dHash): the picture as 9x8 grey means, and a bit for each pixel that is brighter than its left
    /// neighbour, row by row, the first the most significant.
    pub hash: u64,
    /// The picture as [`THUMB`] x [`THUMB`] grey means, row by row.
    pub thumb: [u8; THUMB * THUMB],
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
}

/// A collection that was read.
#[derive(Debug)]
pub struct Photos {
    /// Names of the classes, in the order of the network's outputs.
    pub classes: Vec<String>,
    /// The photos that can be decoded: class by class, each sorted by path, from folders; line by line from a CSV.
    pub photos: Vec<Photo>,
    /// What should be known before training.
    pub findings: Vec<Finding>,
    /// What was skipped because it can't be read, and why.
    pub corrupt: Vec<(PathBuf, String)>,
}

impl Photos {
    /// How many photos each class has.
    #[must_use]
    pub fn counts(&self) -> Vec<usize> {
        counts(self.classes.len(), &self.photos)
    }
}

/// Why a collection can't be used.
#[derive(Debug, thiserror::Error)]
pub enum PhotosError {
    /// The folder can't be listed.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The folder has no class folders.
    #[error(
        "{} has no class folders; put the pictures of each class into a folder of their own that is named after it",
        path.display()
    )]
    NoClassFolders {
        /// The collection.
        path: PathBuf,
    },
    /// The folders are parts of a split.
    #[error(
        "the folders of {} ({}) look like parts of a collection, not like classes; name one of them, such as {}",
        path.display(), folders.join(", "), path.join(&folders[0]).display()
    )]
    SplitFolders {
        /// The collection.
        path: PathBuf,
        /// Its folders.
        folders: Vec<String>,
    },
    /// A folder's name can't be a class.
    #[error("the name of the folder {} is not UTF-8, so it can't name a class; rename it", path.display())]
    FolderName {
        /// The folder.
        path: PathBuf,
    },
    /// A class that was asked for has no folder.
    #[error("there is no class folder {class:?} in {}; its folders are {}", path.display(), folders.join(", "))]
    NoSuchFolder {
        /// The collection.
        path: PathBuf,
        /// The class.
        class: String,
        /// The folders there are.
        folders: Vec<String>,
    },
    /// A class folder has no pictures.
    #[error(
        "the class folder {} has no pictures (.jpg, .jpeg, .png); \
         put some into it, or name the other classes with --classes",
        path.display()
    )]
    EmptyFolder {
        /// The folder.
        path: PathBuf,
    },
    /// The classes asked for can't be told apart.
    #[error("the class {class:?} is named twice; name every class once")]
    ClassTwice {
        /// The class.
        class: String,
    },
    /// A class asked for has no name.
    #[error("a class has an empty name; name classes as in hat,skirt,shoes")]
    NamelessClass,
    /// There is nothing to tell apart.
    #[error("at least two classes are needed, and {} has only {}", path.display(), classes.join(", "))]
    OneClass {
        /// The collection.
        path: PathBuf,
        /// The class, if there is one.
        classes: Vec<String>,
    },
    /// The CSV can't be read.
    #[error("can't read {}: {why}", path.display())]
    Csv {
        /// The CSV.
        path: PathBuf,
        /// What the system said. Part of the message, so not its source.
        why: io::Error,
    },
    /// The CSV's columns aren't named as they should be.
    #[error(
        "{}: the first line must name two columns, file,label (or filename,class or Id,label); it is {found:?}",
        path.display()
    )]
    Header {
        /// The CSV.
        path: PathBuf,
        /// The first line.
        found: String,
    },
    /// A line of the CSV is wrong.
    #[error("{} line {line}: {why}", path.display())]
    Line {
        /// The CSV.
        path: PathBuf,
        /// The line, counted from 1, on which the row begins.
        line: usize,
        /// What is wrong with it, and what to do.
        why: String,
    },
    /// The CSV names no photos.
    #[error("{} has no lines after the names of its columns, so no photos", path.display())]
    NoRows {
        /// The CSV.
        path: PathBuf,
    },
    /// A photo can't be read, and none may be skipped.
    #[error("{}: {why}; repair or remove it, or leave --strict out to skip it", path.display())]
    Corrupt {
        /// The photo or folder.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// No photo of a class can be read.
    #[error("no photo of the class {class:?} can be read, such as {}: {why}", path.display())]
    UnreadableClass {
        /// The class.
        class: String,
        /// One of its photos.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// No line of the CSV has a class that was asked for.
    #[error(
        "no photo of {} has the label {class:?}; add some, or name the other classes with --classes",
        path.display()
    )]
    UnusedClass {
        /// The CSV.
        path: PathBuf,
        /// The class.
        class: String,
    },
    /// The share of validation photos is no share.
    #[error("the share of photos for validation must lie between 0 and 1, such as 0.2; it is {0}")]
    Fraction(
        /// What was asked for.
        f64,
    ),
    /// Told to stop.
    #[error("interrupted while reading photos; nothing was changed")]
    Interrupted,
}

/// Reads the photos of `source` and checks each by decoding it, calling `progress` with the photos done and all that
/// there are, from this thread, until all are done or `stop` is set.
///
/// # Errors
///
/// [`PhotosError`] says what is wrong with the collection and what to do; a photo that can't be read is an error only
/// with [`Options::strict`], and where its class has no other.
pub fn read(
    source: &Source,
    options: &Options,
    progress: &mut dyn FnMut(usize, usize),
    stop: &AtomicBool,
) -> Result<Photos, PhotosError> {
    let (path, listed) = match source {
        Source::Folder(path) => (path, source::folder(path, options)?),
        Source::Csv(path) => (path, source::csv(path, options)?),
    };
    let source::Listed { classes, photos: listed, mut findings, unreadable: mut corrupt } = listed;
    if options.strict
        && let Some((path, why)) = corrupt.first()
    {
        return Err(PhotosError::Corrupt { path: path.clone(), why: why.clone() });
    }
    let looks = examine(&listed, options, progress, stop)?;
    let mut photos = Vec::new();
    let mut broken: Vec<Option<usize>> = vec![None; classes.len()];
    for ((path, truth), look) in listed.into_iter().zip(looks) {
        match look {
            Ok(Look { digest, hash, thumb, width, height }) => {
                photos.push(Photo { path, truth, digest, hash, thumb, width, height });
            }
            Err(why) => {
                truth.iter().for_each(|&class| broken[class] = broken[class].or(Some(corrupt.len())));
                corrupt.push((path, why));
            }
        }
    }
    for ((class, count), broken) in classes.iter().zip(counts(classes.len(), &photos)).zip(broken) {
        let class = class.clone();
        match broken {
            _ if count > 0 => {}
            Some(at) => {
                let (path, why) = corrupt[at].clone();
                return Err(PhotosError::UnreadableClass { class, path, why });
            }
            None => return Err(PhotosError::UnusedClass { path: path.clone(), class }),
        }
    }
    findings.extend(findings::within(&classes, &photos, options.input, stop)?);
    Ok(Photos { classes, photos, findings, corrupt })
}

/// What is seen of a photo's file.
#[derive(Clone)]
struct Look {
    digest: [u8; 32],
    hash: u64,
    thumb: [u8; THUMB * THUMB],
    width: u32,
    height: u32,
}

/// Looks at every photo; a reason instead of a look is of a photo that can't be read.
fn examine(
    listed: &[(PathBuf, Vec<usize>)],
    options: &Options,
    progress: &mut dyn FnMut(usize, usize),
    stop: &AtomicBool,
) -> Result<Vec<Result<Look, String>>, PhotosError> {
    let mut memory = Memory::open(options);
    // As they are before they are read: what changes meanwhile is another file.
    let keys: Vec<Option<Key>> = listed.iter().map(|(path, _)| memory.key(path, options)).collect();
    let known = |key: &Option<Key>| memory.get(key.as_ref()?).cloned().map(Ok);
    let mut looks: Vec<Option<Result<Look, String>>> = keys.iter().map(known).collect();
    let missing: Vec<usize> = (0..listed.len()).filter(|at| looks[*at].is_none()).collect();
    let total = missing.len();
    let (next, abandon) = (AtomicUsize::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        let threads = options.threads.clamp(1, MAX_THREADS).min(total);
        // Bounded, so that no thread runs far ahead of what `progress` was told, and a stop is a stop.
        let (sender, receiver) = mpsc::sync_channel(threads);
        for _ in 0..threads {
            let (sender, next, abandon, missing) = (sender.clone(), &next, &abandon, &missing);
            scope.spawn(move || {
                let mut lens = Lens::new();
                while !stop.load(Ordering::Relaxed) && !abandon.load(Ordering::Relaxed) {
                    let Some(at) = missing.get(next.fetch_add(1, Ordering::Relaxed)).copied() else { break };
                    let (path, _) = &listed[at];
                    if sender.send((at, look(path, &options.decode, &mut lens))).is_err() {
                        break;
                    }
                }
            });
        }
        drop(sender);
        for (done, (at, look)) in receiver.into_iter().enumerate() {
            if options.strict && look.is_err() {
                abandon.store(true, Ordering::Relaxed);
            }
            if let (Some(key), Ok(look)) = (keys[at], &look) {
                memory.insert(key, look.clone());
            }
            looks[at] = Some(look);
            progress(done + 1, total);
        }
    });
    memory.save();
    if options.strict {
        // Photos are taken in order and what was taken is finished, so this is the first, whoever found it.
        for ((path, _), look) in listed.iter().zip(&looks) {
            if let Some(Err(why)) = look {
                return Err(PhotosError::Corrupt { path: path.clone(), why: why.clone() });
            }
        }
    }
    // A photo that nobody looked at is one that came after the stop.
    looks.into_iter().collect::<Option<_>>().ok_or(PhotosError::Interrupted)
}

fn look(path: &Path, options: &DecodeOptions, lens: &mut Lens) -> Result<Look, String> {
    let bytes = read_file(path).map_err(|e| e.to_string())?;
    let picture = decode(&bytes, options).map_err(|e| e.to_string())?;
    let digest = *blake3::hash(&bytes).as_bytes();
    drop(bytes);
    let (hash, thumb) = lens.look(&picture).map_err(|e| e.to_string())?;
    Ok(Look { digest, hash, thumb, width: picture.width(), height: picture.height() })
}

fn counts(classes: usize, photos: &[Photo]) -> Vec<usize> {
    let mut counts = vec![0; classes];
    photos.iter().flat_map(|photo| &photo.truth).for_each(|&class| counts[class] += 1);
    counts
}
