//! What a case works with: the device, what is right, and a place for what it found.

use super::dut::LOOK;
use super::tail::Tail;
use super::{Dut, Evidence, Expected, Figure, Options, Reference, picture};
use anyhow::{Context, Result, bail};
use edge_link::{Classified, LinkError, PictureData, RawFrame, Request, Response};
use edge_package::Digest;
use image::{ExtendedColorType, ImageFormat};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A photo whose class is known.
#[derive(Debug, Clone)]
pub struct Photo {
    /// What it is called.
    pub name: String,
    /// A JPEG or PNG file.
    pub bytes: Vec<u8>,
}

/// Photos of different things, in an order in which no neighbours are alike.
///
/// # Errors
///
/// Where the checkout has none.
pub fn photos() -> Result<Vec<Photo>> {
    let read = |name: &str| {
        let path = crate::examples().join(format!("{name}.jpg"));
        let bytes = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(Photo { name: name.into(), bytes })
    };
    ["chelsea", "coffee", "rocket"].into_iter().map(read).collect()
}

/// Frames of the camera that have delivered what was shown.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sight {
    /// The first one that is known of.
    pub first: u64,
    /// The last one before something else was shown.
    pub last: u64,
}

/// Bytes of an update in one message: a slow line is not to be silent for long.
const UPDATE: usize = 1 << 18;

/// Why the camera refused; an error where it did not, or where something else went wrong.
///
/// # Errors
///
/// See above.
pub fn refusal<T: std::fmt::Debug>(answer: Result<T>) -> Result<String> {
    match answer {
        Ok(answer) => {
            let answer: String = format!("{answer:?}").chars().take(200).collect();
            bail!("was not refused, but answered with {answer}")
        }
        Err(why) => match why.downcast_ref() {
            Some(LinkError::Refused(why)) => Ok(why.clone()),
            _ => Err(why.context("was to be refused, but went wrong otherwise")),
        },
    }
}

/// What a case works with.
pub struct Bench<'a> {
    /// The device.
    pub dut: &'a mut dyn Dut,
    /// Whether there is time.
    pub long: bool,
    /// What is left to chance is chosen by this.
    pub seed: u64,
    /// How long memory is looked at.
    pub soak: Duration,
    reference: Reference,
    folder: PathBuf,
    figures: Vec<Figure>,
    evidence: Vec<Evidence>,
    pictures: usize,
    tail: Tail,
}

impl<'a> Bench<'a> {
    /// With the package of the device as the reference; pictures go to `folder/pictures`.
    pub(super) fn new(dut: &'a mut dyn Dut, folder: &Path, options: &Options) -> Result<Bench<'a>> {
        let reference = Reference::open(&dut.files().package)?;
        let (folder, figures, evidence) = (folder.to_path_buf(), vec![], vec![]);
        let Options { long, seed, soak, .. } = *options;
        Ok(Bench { dut, long, seed, soak, reference, folder, figures, evidence, pictures: 0, tail: Tail::default() })
    }

    /// What is right.
    pub fn reference(&mut self) -> &mut Reference {
        &mut self.reference
    }

    /// How long an answer may take.
    pub fn patience(&self) -> Duration {
        self.dut.about().patience()
    }

    /// Asks the camera. A link that breaks is connected anew for the next question.
    pub fn ask(&mut self, request: &Request) -> Result<Response> {
        self.ask_for(request, self.patience())
    }

    /// The same, where an answer takes another time.
    pub fn ask_for(&mut self, request: &Request, patience: Duration) -> Result<Response> {
        match self.dut.link()?.ask(request, patience) {
            Ok(response) => Ok(response),
            Err(e) => {
                if !matches!(e, LinkError::Refused(_)) {
                    self.dut.lost();
                }
                Err(e.into())
            }
        }
    }

    /// What the camera says of a picture that is sent to it.
    pub fn classify(&mut self, picture: PictureData) -> Result<Classified> {
        match self.ask(&Request::Classify(picture))? {
            Response::Classified(classified) => Ok(classified),
            other => bail!("the camera answers {other:?} when asked to classify"),
        }
    }

    /// The camera takes the picture for its next frame.
    pub fn inject(&mut self, picture: PictureData) -> Result<Classified> {
        match self.ask(&Request::Inject(picture))? {
            Response::Classified(classified) => Ok(classified),
            other => bail!("the camera answers {other:?} when given a picture"),
        }
    }

    /// The figures of the camera program since it was started.
    pub fn statistics(&mut self) -> Result<Value> {
        match self.ask(&Request::Statistics)? {
            Response::Statistics(text) => serde_json::from_str(&text).context("the camera's statistics are no JSON"),
            other => bail!("the camera answers {other:?} when asked for its statistics"),
        }
    }

    /// The frame that the camera delivered last.
    pub fn last_frame(&mut self) -> Result<Option<PictureData>> {
        match self.ask(&Request::LastFrame)? {
            Response::LastFrame(frame) => Ok(frame),
            other => bail!("the camera answers {other:?} when asked for its last frame"),
        }
    }

    /// The last lines of the log.
    pub fn tail(&mut self) -> Result<Vec<Value>> {
        loop {
            let (length, part) = match self.ask(&self.tail.request()?)? {
                Response::Log { length, bytes } => (length, bytes),
                other => bail!("the camera answers {other:?} when asked for its log"),
            };
            if self.tail.take(length, part) {
                return self.tail.lines();
            }
        }
    }

    /// Shows a frame to the camera and waits until it is delivered, every byte of it, and then a while more.
    pub fn show(&mut self, shown: RawFrame) -> Result<Sight> {
        self.dut.show(&shown)?;
        let first = self.delivered("the camera delivers what is shown", &shown, None)?;
        // Another one may be under way that was shown before.
        let last = self.delivered("the camera delivers it once more", &shown, Some(first))?;
        Ok(Sight { first, last })
    }

    /// Waits until the camera delivers just this, in a frame after that number. The frame's number.
    pub fn delivered(&mut self, what: &str, shown: &RawFrame, after: Option<u64>) -> Result<u64> {
        let mut counted = None;
        self.wait_for(what, self.patience(), |bench| {
            // A frame is large: it is asked for only where there is another one.
            let frames = bench.statistics()?["frames"].as_u64();
            if frames == counted {
                return Ok(None);
            }
            counted = frames;
            let Some(PictureData::Raw(frame)) = bench.last_frame()? else { return Ok(None) };
            let same = (frame.format, frame.width, frame.height) == (shown.format, shown.width, shown.height);
            let new = after.is_none_or(|number| frame.number > number);
            Ok((same && new && frame.bytes == shown.bytes).then_some(frame.number))
        })
    }

    /// Waits until the log has come to a frame.
    pub fn wait_until_logged(&mut self, frame: u64) -> Result<()> {
        let patience = self.patience();
        self.wait_for("the log has come to what was shown", patience, |bench| {
            let newest = bench.tail()?.iter().filter_map(|line| line["frame"].as_u64()).next_back();
            Ok((newest >= Some(frame)).then_some(()))
        })
    }

    /// Sends an update, and waits for what comes of it.
    pub fn update(&mut self, bytes: &[u8], digest: Digest, patience: Duration) -> Result<String> {
        self.ask(&Request::UpdateBegin { length: bytes.len() as u64, digest })?;
        for (number, part) in bytes.chunks(UPDATE).enumerate() {
            self.ask(&Request::UpdateData { offset: (number * UPDATE) as u64, bytes: part.to_vec() })?;
        }
        match self.ask_for(&Request::UpdateEnd, patience)? {
            Response::Done(told) => Ok(told),
            other => bail!("the camera answers {other:?} to the end of an update"),
        }
    }

    /// Classified there as here: the tensor bit for bit, the logits within the package's tolerance, the same decision.
    /// The largest difference of a logit.
    pub fn same_as_here(&mut self, found: &Classified, picture: &PictureData) -> Result<f32> {
        let expected: Expected = self.reference.classify(picture)?;
        let patience = self.patience();
        let computes_as = self.dut.link()?.greet(patience)?.tolerance.clone();
        self.reference.agrees(found, &expected, &computes_as)
    }

    /// Looks until there is something, errors included: a camera that starts anew does not answer at once.
    pub fn wait_for<T>(
        &mut self,
        what: &str,
        patience: Duration,
        mut look: impl FnMut(&mut Bench) -> Result<Option<T>>,
    ) -> Result<T> {
        let end = Instant::now() + patience;
        loop {
            let last = match look(self) {
                Ok(Some(found)) => return Ok(found),
                Ok(None) => None,
                Err(e) => Some(e),
            };
            if Instant::now() >= end {
                let waited = format!("waited {} s in vain until {what}", patience.as_secs());
                return Err(match last {
                    Some(e) => e.context(waited),
                    None => anyhow::anyhow!(waited),
                });
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Keeps a number for the report.
    pub fn figure(&mut self, name: &str, value: f64, unit: &str) {
        self.figures.push(Figure { name: name.into(), value, unit: unit.into() });
    }

    /// Keeps a picture for the report.
    pub fn evidence(&mut self, caption: &str, data: &PictureData) -> Result<()> {
        let seen = picture(data)?;
        let file = format!("pictures/{:03}.png", self.pictures);
        let path = self.folder.join(&file);
        let written =
            std::fs::create_dir_all(self.folder.join("pictures")).map_err(anyhow::Error::from).and_then(|()| {
                let (width, height, colors) = (seen.width(), seen.height(), ExtendedColorType::Rgb8);
                Ok(image::save_buffer_with_format(&path, seen.pixels(), width, height, colors, ImageFormat::Png)?)
            });
        written.with_context(|| format!("cannot write {}", path.display()))?;
        self.pictures += 1;
        self.evidence.push(Evidence { caption: caption.into(), file });
        Ok(())
    }

    /// What was found since this was asked last.
    pub(super) fn found(&mut self) -> (Vec<Figure>, Vec<Evidence>) {
        (std::mem::take(&mut self.figures), std::mem::take(&mut self.evidence))
    }
}
