//! Photos to calibrate with and to compare on, as the device would see them.

use crate::{out, progress};
use anyhow::bail;
use edge_model::quantize::Pictures;
use edge_package::{Label, Manifest};
use edge_vision::{DecodeOptions, Layout, Picture, Preprocess, Resizer, picture_paths};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Photos at the size of the network's input.
pub struct Photos {
    /// Where they came from.
    pub paths: Vec<PathBuf>,
    /// The class that the folder is named after.
    pub truth: Vec<Option<usize>>,
    pictures: Vec<Picture>,
    preprocess: Preprocess,
    layout: Layout,
    values: usize,
}

impl Pictures for Photos {
    fn len(&self) -> usize {
        self.pictures.len()
    }

    fn tensor(&self, at: usize) -> Result<Vec<f32>, String> {
        let mut tensor = vec![0.0; self.values];
        let done = self.preprocess.apply(&self.pictures[at], self.layout, &mut tensor);
        done.map_err(|e| format!("{}: {e}", self.paths[at].display()))?;
        Ok(tensor)
    }
}

/// The photos under a folder, at most `most` of them, evenly spread over the sorted list.
pub fn listed(folder: &Path, flag: &str) -> anyhow::Result<Vec<PathBuf>> {
    let listing = picture_paths(folder);
    if let Some(error) = listing.unreadable.first() {
        bail!("{flag}: {error}");
    }
    if listing.pictures.is_empty() {
        bail!(
            "{flag} {}: there are no photos (.jpg, .jpeg, .png); 100 to 300 are enough, labelled or not",
            folder.display()
        );
    }
    Ok(listing.pictures)
}

/// `count` of them, evenly spread, and the others.
pub fn spread(all: &[PathBuf], count: usize) -> (Vec<PathBuf>, Vec<PathBuf>) {
    let count = count.min(all.len());
    let taken: Vec<usize> = (0..count).map(|i| i * all.len() / count).collect();
    let (mut picked, mut rest) = (vec![], vec![]);
    for (i, path) in all.iter().enumerate() {
        if taken.binary_search(&i).is_ok() { picked.push(path.clone()) } else { rest.push(path.clone()) }
    }
    (picked, rest)
}

/// Reads photos with all cores. What cannot be read is told and left out.
pub fn read(
    paths: Vec<PathBuf>,
    root: &Path,
    manifest: &Manifest,
    what: &'static str,
    stop: &AtomicBool,
) -> anyhow::Result<Photos> {
    let decode = DecodeOptions { exif_orientation: manifest.exif_orientation };
    let bar = progress::bar(paths.len(), what, "photos");
    let next = AtomicUsize::new(0);
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
    let mut found: Vec<(usize, Result<Picture, String>)> = std::thread::scope(|scope| {
        let work = || {
            let mut own = vec![];
            let mut resizer = Resizer::new(manifest.resize).map_err(|e| e.to_string());
            while let Some((at, path)) =
                Some(next.fetch_add(1, Ordering::Relaxed)).and_then(|i| Some((i, paths.get(i)?)))
            {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let picture = edge_vision::load(path, &decode).map_err(|e| e.to_string());
                let resized = picture.and_then(|p| {
                    let resizer = resizer.as_mut().map_err(|e| e.clone())?;
                    resizer.resize(&p).cloned().map_err(|e| format!("{}: {e}", path.display()))
                });
                own.push((at, resized));
                bar.inc(1);
            }
            own
        };
        let all: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        all.into_iter().flat_map(|t| t.join().unwrap_or_default()).collect()
    });
    bar.finish_and_clear();
    if stop.load(Ordering::Relaxed) {
        bail!("interrupted; nothing was written");
    }
    found.sort_by_key(|f| f.0);
    let mut photos = Photos {
        paths: vec![],
        truth: vec![],
        pictures: vec![],
        preprocess: manifest.preprocess,
        layout: manifest.input.layout,
        values: manifest.input.len(),
    };
    let mut unreadable = 0;
    for (at, picture) in found {
        match picture {
            Ok(picture) => {
                photos.truth.push(class(&paths[at], root, &manifest.labels));
                photos.paths.push(paths[at].clone());
                photos.pictures.push(picture);
            }
            Err(why) => {
                unreadable += 1;
                out::tell(format_args!("edge-pack: {why}"));
            }
        }
    }
    if photos.pictures.is_empty() {
        bail!("none of the {unreadable} photos under {} can be read", root.display());
    }
    Ok(photos)
}

/// The class whose label (or id) is the name of the folder that a photo lies in, under `root`.
fn class(path: &Path, root: &Path, labels: &[Label]) -> Option<usize> {
    let folder = path.strip_prefix(root).ok()?.components().next()?.as_os_str().to_str()?;
    labels.iter().position(|l| l.label == folder || l.id.as_deref() == Some(folder))
}

/// Whether pictures differ at all: of blank ones nothing can be learnt.
pub fn are_blank(photos: &Photos) -> bool {
    let blank = |p: &Picture| p.pixels().chunks_exact(3).all(|x| x == &p.pixels()[..3]);
    photos.pictures.iter().all(blank)
}
