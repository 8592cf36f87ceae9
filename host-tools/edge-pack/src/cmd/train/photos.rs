//! Photos to features: reading, splitting, looking, and what the base makes of them.

use super::args::{Args, Resolved};
use crate::model;
use edge_engine::EngineError;
use edge_package::{InputSpec, Resize, preprocess_json, resize_json};
use edge_train::TrainError;
use edge_train::base::Base;
use edge_train::features::{Cache, Convert, Id, Kind, Target, extract};
use edge_train::fit::{Set, logits};
use edge_train::head::Head;
use edge_train::history::Prediction;
use edge_train::photos::{self, Options, Photo, Source};
use edge_train::sheet::View;
use edge_train::tail::{self, Tail};
use edge_vision::{Augment, DecodeOptions, Picture, Preprocess, ResizeSpec, Resizer, Transform};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

/// The photos, split.
pub struct Data {
    pub classes: Vec<String>,
    pub train: Vec<Photo>,
    pub validation: Vec<Photo>,
    pub findings: Vec<String>,
    pub corrupt: Vec<(PathBuf, String)>,
}

impl Data {
    /// A weight for each class, the mean over photos 1; none where they are not asked for.
    pub fn class_weights(&self, resolved: &Resolved) -> Vec<f32> {
        if !resolved.balanced {
            return vec![];
        }
        let mut counts = vec![0; self.classes.len()];
        self.train.iter().flat_map(|p| &p.truth).for_each(|c| counts[*c] += 1);
        let mean = self.train.len() as f32 / self.classes.len() as f32;
        counts.into_iter().map(|count: usize| mean / count.max(1) as f32).collect()
    }
}

/// Reads the collections, and splits where there is one only.
pub fn read(args: &Args, resolved: &Resolved, input: &InputSpec, stop: &AtomicBool) -> anyhow::Result<Data> {
    let options = |classes: Option<Vec<String>>| Options {
        classes,
        multi_label: args.multi_label,
        strict: args.strict,
        threads: model::load_options(args.threads).threads,
        decode: resolved.decode,
        input: Some((input.width, input.height)),
        memory: Some(resolved.cache.join("photos.looks")),
    };
    let collection = |path: &Path, classes: Option<Vec<String>>| {
        let csv = path.extension().is_some_and(|e| e.eq_ignore_ascii_case("csv"));
        let source = if csv { Source::Csv(path.into()) } else { Source::Folder(path.into()) };
        let bar = crate::progress::bar(0, "reading", "photos");
        let mut progress = |done: usize, all: usize| {
            bar.set_length(all as u64);
            bar.set_position(done as u64);
        };
        let read = photos::read(&source, &options(classes), &mut progress, stop).map_err(TrainError::from);
        bar.finish_and_clear();
        read
    };
    let given = (!args.classes.is_empty()).then(|| args.classes.clone());
    let own = collection(&args.data, given)?;
    let (classes, mut findings, mut corrupt) = (own.classes, own.findings, own.corrupt);
    let (train, validation) = match &args.validation {
        None => photos::split(own.photos, args.split, args.seed).map_err(TrainError::from)?,
        Some(path) => {
            let other = collection(path, Some(classes.clone()))?;
            findings.extend(other.findings);
            corrupt.extend(other.corrupt);
            (own.photos, other.photos)
        }
    };
    findings.extend(photos::between(&classes, &train, &validation));
    Ok(Data { classes, train, validation, findings: findings.iter().map(|f| f.to_string()).collect(), corrupt })
}

/// How the base sees a photo.
pub struct Look<'a> {
    pub input: &'a InputSpec,
    pub preprocess: Preprocess,
    pub resize: Resize,
    pub decode: DecodeOptions,
}

impl Look<'_> {
    /// A photo at the network's size.
    fn picture(&self, path: &Path) -> Result<Picture, TrainError> {
        let fail = |why: String| TrainError::Photo { path: path.into(), why };
        let picture = edge_vision::load(path, &self.decode).map_err(|e| fail(e.to_string()))?;
        let spec = ResizeSpec {
            width: self.input.width,
            height: self.input.height,
            policy: self.resize.policy,
            interpolation: self.resize.interpolation,
        };
        let mut resizer = Resizer::new(spec).map_err(|e| fail(e.to_string()))?;
        let resized = resizer.resize(&picture).map_err(|e| fail(e.to_string()))?;
        Ok(resized.clone())
    }

    /// The network's input.
    fn tensor(&self, path: &Path, change: Option<&Transform>) -> Result<Vec<f32>, TrainError> {
        let picture = self.picture(path)?;
        let mut tensor = vec![0.0; self.input.len()];
        let layout = self.input.layout;
        let size = (picture.width(), picture.height());
        match change {
            None => self.preprocess.apply(&picture, layout, &mut tensor),
            Some(change) => self.preprocess.apply_floats(size, &change.apply(&picture), layout, &mut tensor),
        }
        .map_err(|e| TrainError::Photo { path: path.into(), why: e.to_string() })?;
        Ok(tensor)
    }

    /// A photo as it is, and what augmentation makes of it.
    pub fn views(&self, photo: &Photo, augment: &Augment, seed: u64, count: usize) -> anyhow::Result<Vec<View>> {
        let picture = self.picture(&photo.path)?;
        let (width, height) = (picture.width(), picture.height());
        let plain = picture.pixels().iter().map(|b| f32::from(*b)).collect();
        let changed = (1..count).map(|view| augment.draw(view_seed(seed, photo, view), width, height).apply(&picture));
        Ok([plain].into_iter().chain(changed).map(|pixels| View { width, height, pixels }).collect())
    }
}

/// What a random view of a photo is drawn from: the photo itself, wherever it lies.
fn view_seed(seed: u64, photo: &Photo, view: usize) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&photo.digest).update(&seed.to_le_bytes()).update(&(view as u64).to_le_bytes());
    hasher.finalize().as_bytes().first_chunk().map_or(0, |b| u64::from_le_bytes(*b))
}

/// Which photos.
#[derive(Clone, Copy)]
pub enum Part {
    Train,
    Validation,
}

/// Feature vectors of all photos.
pub struct Features {
    classes: usize,
    /// Views of each training photo, the photo as it is first.
    views: usize,
    train: Vec<f32>,
    train_wanted: Vec<f32>,
    validation: Vec<f32>,
    validation_wanted: Vec<f32>,
    /// Where there is a tail to train.
    activations: Option<Activations>,
}

/// What the unfrozen tail reads of each photo.
struct Activations {
    train: Cache,
    /// In float32, so that what is told of the validation photos is what the model that is written says of them.
    validation: Cache,
    /// Each photo's views one after the other, as in [`Features`].
    train_ids: Vec<Id>,
    validation_ids: Vec<Id>,
}

impl Features {
    /// Takes from the cache what is there, computes the rest.
    pub fn compute(
        args: &Args,
        resolved: &Resolved,
        onnx: &[u8],
        base: &mut Base,
        look: &Look<'_>,
        data: &Data,
        stop: &AtomicBool,
    ) -> anyhow::Result<Features> {
        let views = 1 + resolved.augment.as_ref().map_or(0, |_| args.augment_views);
        // Every photo as it is, then the random views of those that are trained on.
        let plain = data.train.iter().chain(&data.validation).map(|photo| (photo, 0));
        let random = data.train.iter().flat_map(|photo| (1..views).map(move |view| (photo, view)));
        let jobs: Vec<(&Photo, usize)> = plain.chain(random).collect();
        let id = |(photo, view): &(&Photo, usize)| -> Id {
            let mut hasher = blake3::Hasher::new();
            hasher.update(&photo.digest);
            if let (Some(augment), true) = (&resolved.augment, *view > 0) {
                hasher
                    .update(augment.to_string().as_bytes())
                    .update(&view_seed(args.augment_seed, photo, *view).to_le_bytes());
            }
            *hasher.finalize().as_bytes()
        };
        let ids: Vec<Id> = jobs.iter().map(id).collect();
        let (trained, all) = (data.train.len(), data.train.len() + data.validation.len());
        // A training photo's views one after the other.
        let view_of = |photo: usize, view: usize| match view {
            0 => photo,
            _ => all + photo * (views - 1) + view - 1,
        };
        let train_ids: Vec<Id> = (0..trained)
            .flat_map(|photo| (0..views).map(move |view| (photo, view)))
            .map(|(p, v)| ids[view_of(p, v)])
            .collect();
        let validation_ids = ids[trained..all].to_vec();
        let key = |more: Value| {
            let mut key = json!({
                "engine": env!("CARGO_PKG_VERSION"),
                "base": blake3::hash(onnx).to_hex().to_string(),
                "cut": base.cut,
                "input": [look.input.width, look.input.height],
                "preprocess": preprocess_json(&look.preprocess),
                "resize": resize_json(&look.resize),
                "exif": look.decode.exif_orientation,
            });
            if let (Value::Object(key), Value::Object(more)) = (&mut key, more) {
                key.extend(more);
            }
            blake3::hash(key.to_string().as_bytes())
        };
        let open = |kind, width, more: Value, wanted: &[Id]| {
            Cache::open(&resolved.cache, key(more).as_bytes(), kind, width, wanted.iter().copied().collect())
        };
        let mut cache = open(Kind::Features, base.width(), json!({}), &ids)?;
        let mut activations = match &base.tail {
            None => None,
            Some(tail) => {
                let width = base.tail_shape().iter().product();
                let named = |stored: &str| json!({"cut": tail.value, "stored": stored});
                Some(Activations {
                    train: open(Kind::HalfActivations, width, named("float16"), &train_ids)?,
                    validation: open(Kind::Activations, width, named("float32"), &validation_ids)?,
                    train_ids: train_ids.clone(),
                    validation_ids: validation_ids.clone(),
                })
            }
        };
        let bar = crate::progress::bar(0, "computing features", "pictures");
        let prepare = |job: usize| {
            let (photo, view) = jobs[job];
            let change = resolved.augment.as_ref().filter(|_| view > 0).map(|augment| {
                augment.draw(view_seed(args.augment_seed, photo, view), look.input.width, look.input.height)
            });
            look.tensor(&photo.path, change.as_ref())
        };
        let (pooling, activation): (Convert, Convert) = (Box::new(base.pooling()), Box::new(base.tail_layout()));
        let mut targets = vec![Target { cache: &mut cache, value: 0, convert: &pooling }];
        if let Some(activations) = &mut activations {
            for cache in [&mut activations.train, &mut activations.validation] {
                targets.push(Target { cache, value: 1, convert: &activation });
            }
        }
        let progress = |done: usize, all: usize| {
            bar.set_length(all as u64);
            bar.set_position(done as u64);
        };
        let done = extract(&mut targets, &mut base.probe, &ids, prepare, stop, progress);
        bar.finish_and_clear();
        done?;
        let vector = |id: &Id| -> anyhow::Result<&[f32]> {
            Ok(cache.get(id).ok_or_else(|| EngineError::Run("a feature vector is missing".into()))?)
        };
        let mut train = Vec::with_capacity(train_ids.len() * base.width());
        for id in &train_ids {
            train.extend(vector(id)?);
        }
        let mut validation = vec![];
        for id in &validation_ids {
            validation.extend(vector(id)?);
        }
        let classes = data.classes.len();
        Ok(Features {
            classes,
            views,
            train,
            train_wanted: wanted(&data.train, classes),
            validation,
            validation_wanted: wanted(&data.validation, classes),
            activations,
        })
    }

    /// Views of each training photo.
    pub fn views(&self) -> usize {
        self.views
    }

    /// What is trained on.
    pub fn train(&self) -> Set<'_> {
        Set { features: &self.train, views: self.views, wanted: &self.train_wanted }
    }

    /// What is validated with.
    pub fn validation(&self) -> Set<'_> {
        Set { features: &self.validation, views: 1, wanted: &self.validation_wanted }
    }

    /// What the tail reads of training and validation photos, where there is one.
    pub fn activations(&self, part: Part) -> Option<tail::Activations<'_>> {
        let all = self.activations.as_ref()?;
        let (cache, ids, views, wanted) = match part {
            Part::Train => (&all.train, &all.train_ids, self.views, &self.train_wanted),
            Part::Validation => (&all.validation, &all.validation_ids, 1, &self.validation_wanted),
        };
        Some(tail::Activations { cache, ids, views, wanted })
    }

    /// What a head, and a tail where there is one, says of photos.
    pub fn predictions(
        &self,
        (tail, head): (Option<&Tail>, &Head),
        photos: &[Photo],
        part: Part,
        args: &Args,
    ) -> anyhow::Result<Vec<Prediction>> {
        let activation =
            if args.multi_label { edge_package::Activation::Sigmoid } else { edge_package::Activation::Softmax };
        let set = match part {
            Part::Train => self.train(),
            Part::Validation => self.validation(),
        };
        let all = match (tail, self.activations(part)) {
            (Some(tail), Some(activations)) => {
                tail::logits(tail, head, activations, model::load_options(args.threads).threads)?
            }
            _ => logits(head, set, self.classes),
        };
        let prediction = |(photo, logits): (&Photo, &[f32])| {
            let mut scores = vec![];
            edge_engine::decision::scores(activation, logits, &mut scores);
            Prediction { photo: photo.path.clone(), truth: photo.truth.first().copied().unwrap_or_default(), scores }
        };
        Ok(photos.iter().zip(all.chunks_exact(self.classes)).map(prediction).collect())
    }
}

fn wanted(photos: &[Photo], classes: usize) -> Vec<f32> {
    let mut wanted = vec![0.0; photos.len() * classes];
    for (photo, row) in photos.iter().zip(wanted.chunks_exact_mut(classes)) {
        photo.truth.iter().for_each(|class| row[*class] = 1.0);
    }
    wanted
}
