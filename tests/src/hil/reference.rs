//! What is right: the package of the device, run on this machine by the code that host and device share.

use anyhow::{Context, Result, bail, ensure};
use edge_device::event::class_label;
use edge_device::golden::{allowed, tensor_digest};
use edge_device::{Classification, Classifier};
use edge_engine::LoadOptions;
use edge_link::{Classified, PictureData};
use edge_package::{Digest, TrustPolicy, VerifiedPackage, hex};
use edge_vision::{DecodeOptions, Mount, Picture, RawFrame};
use std::path::Path;

/// What a device should answer.
pub type Expected = Classified;

/// A package on this machine.
pub struct Reference {
    classifier: Classifier,
    digest: Digest,
}

impl Reference {
    /// Opens the package.
    ///
    /// # Errors
    ///
    /// Where it is none, or not for this machine.
    pub fn open(package: &Path) -> Result<Reference> {
        let verified = VerifiedPackage::open(package, &TrustPolicy::default());
        let verified = verified.with_context(|| package.display().to_string())?;
        let classifier = Classifier::from_package(&verified, &LoadOptions::default())?;
        Ok(Reference { classifier, digest: verified.digest() })
    }

    /// The package's digest.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// How many golden samples the package has.
    pub fn goldens(&self) -> usize {
        self.classifier.manifest().goldens.len()
    }

    /// How its files become pictures.
    pub fn decode_options(&self) -> DecodeOptions {
        self.classifier.decode_options()
    }

    /// What a camera that hangs straight should answer to this.
    ///
    /// # Errors
    ///
    /// Where it cannot be read.
    pub fn classify(&mut self, picture: &PictureData) -> Result<Expected> {
        let result = match picture {
            PictureData::File(bytes) => {
                let picture = edge_vision::decode(bytes, &self.classifier.decode_options())?;
                self.classifier.classify(&picture, 1)?
            }
            PictureData::Raw(frame) => self.classifier.classify_frame(&raw(frame), &Mount::default(), 1)?,
        };
        let Classification { top, decision, .. } = result;
        let labels = &self.classifier.manifest().labels;
        Ok(Classified {
            tensor: tensor_digest(self.classifier.tensor()),
            logits: self.classifier.logits().to_vec(),
            class: decision.map(|class| class as u32),
            decision: class_label(labels, decision),
            score: top.first().map_or(0.0, |(_, score)| *score),
        })
    }

    /// Fails, with what differs, where an answer is not as expected: the tensor bit for bit, the logits within the
    /// package's tolerance for what computes there ([`edge_link::Hello::tolerance`]). The largest difference of a logit.
    ///
    /// # Errors
    ///
    /// See above.
    pub fn agrees(&self, found: &Classified, expected: &Expected, computes_as: &str) -> Result<f32> {
        ensure!(
            found.tensor == expected.tensor,
            "the preprocessed tensor is another one ({}…, {}… on this machine)",
            &hex(&found.tensor)[..16],
            &hex(&expected.tensor)[..16]
        );
        ensure!(
            found.logits.len() == expected.logits.len(),
            "there are {} logits, {} on this machine",
            found.logits.len(),
            expected.logits.len()
        );
        let allowed = allowed(&expected.logits, self.classifier.manifest().tolerance_of(computes_as));
        let mut most = 0f32;
        for (class, (here, there)) in expected.logits.iter().zip(&found.logits).enumerate() {
            let delta = (here - there).abs();
            // A difference that is no number is none that may be.
            if delta.is_nan() || delta > allowed {
                bail!("logit {class} is {there}, {here} on this machine; {allowed} of difference is allowed");
            }
            most = most.max(delta);
        }
        ensure!(
            found.decision == expected.decision,
            "it decides for {:?}, this machine for {:?}",
            found.decision,
            expected.decision
        );
        Ok(most)
    }
}

fn raw(frame: &edge_link::RawFrame) -> RawFrame<'_> {
    RawFrame {
        format: frame.format,
        width: frame.width,
        height: frame.height,
        stride: frame.stride.map(|stride| stride as usize),
        color: frame.color,
        data: &frame.bytes,
    }
}

/// What is to be seen, for people.
///
/// # Errors
///
/// Where it cannot be read.
pub fn picture(data: &PictureData) -> Result<Picture> {
    Ok(match data {
        PictureData::File(bytes) => edge_vision::decode(bytes, &DecodeOptions::default())?,
        PictureData::Raw(frame) => edge_vision::to_picture(&raw(frame))?,
    })
}
