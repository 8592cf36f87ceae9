//! Photos to look at: the worst mistakes and what may be labelled wrongly.

use std::fmt::Write as _;
use std::io;
use std::panic::catch_unwind;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use edge_vision::{DecodeOptions, Interpolation, Picture, ResizePolicy, ResizeSpec, Resizer};
use mozjpeg::{ColorSpace, Compress};

use super::metrics::is_counted;
use super::page::{class_name, count, escape, isolated, percent};
use crate::history::Prediction;

/// Photos shown in each of the two parts.
const MOST: usize = 12;
/// Length of a thumbnail's sides in pixels.
const SIDE: u32 = 96;
/// Of libjpeg's 100; a thumbnail takes some 3 kB.
const QUALITY: f32 = 80.0;
/// A label the network believes less than this may be wrong…
const DOUBTED: f32 = 0.05;
/// …if it believes another one more than this.
const BELIEVED: f32 = 0.9;

/// Makes thumbnails.
pub struct Thumbnails {
    resizer: Result<Resizer, String>,
    decode: DecodeOptions,
}

impl Thumbnails {
    /// For photos that are read as `decode` says.
    #[must_use]
    pub fn new(decode: DecodeOptions) -> Self {
        let policy = ResizePolicy::FitShortest { shortest: SIDE };
        let spec = ResizeSpec { width: SIDE, height: SIDE, policy, interpolation: Interpolation::Bilinear };
        Self { resizer: Resizer::new(spec).map_err(|why| why.to_string()), decode }
    }

    /// The middle of a photo as JPEG.
    fn jpeg(&mut self, photo: &Path) -> Result<Vec<u8>, String> {
        let picture = edge_vision::load(photo, &self.decode).map_err(|why| why.to_string())?;
        let resizer = self.resizer.as_mut().map_err(|why| why.clone())?;
        encode(resizer.resize(&picture).map_err(|why| why.to_string())?)
    }

    /// An element that shows the photo, or says that it can't be read.
    pub fn element(&mut self, photo: &Path, alt: &str) -> String {
        match self.jpeg(photo) {
            Ok(bytes) => {
                let data = STANDARD.encode(bytes);
                let alt = escape(alt);
                format!("<img src=\"data:image/jpeg;base64,{data}\" width=\"{SIDE}\" height=\"{SIDE}\" alt=\"{alt}\">")
            }
            Err(why) => format!("<span class=\"gone\" title=\"{}\">can't be read any more</span>", escape(&why)),
        }
    }
}

/// Encodes a picture as JPEG; libjpeg's errors unwind, as in edge-vision.
///
/// # Errors
///
/// Where libjpeg does not take it, and why.
pub fn encode(picture: &Picture) -> Result<Vec<u8>, String> {
    let compress = || -> io::Result<Vec<u8>> {
        let mut compress = Compress::new(ColorSpace::JCS_RGB);
        compress.set_size(picture.width() as usize, picture.height() as usize);
        compress.set_quality(QUALITY);
        let mut compress = compress.start_compress(Vec::new())?;
        compress.write_scanlines(picture.pixels())?;
        compress.finish()
    };
    match catch_unwind(compress) {
        Ok(bytes) => bytes.map_err(|why| why.to_string()),
        Err(_) => Err("it can't be encoded".to_owned()),
    }
}

/// The score of a class; none is as good as zero.
fn score(prediction: &Prediction, class: usize) -> f32 {
    prediction.scores.get(class).copied().filter(|s| s.is_finite()).unwrap_or(0.0)
}

/// A photo and the set it is of.
type Shown<'a> = (&'a Prediction, &'static str);

/// What the network is surest of first, and of equals by name, so that nothing depends on the photos' order.
fn surest_first(photos: &mut [Shown<'_>]) {
    photos.sort_by(|(a, _), (b, _)| {
        let (of_a, of_b) = (score(a, a.class()), score(b, b.class()));
        of_b.total_cmp(&of_a).then_with(|| a.photo.cmp(&b.photo))
    });
}

/// The validation photos that are predicted wrongly, the most confident first.
pub(super) fn mistakes(classes: &[String], validation: &[Prediction], thumbnails: &mut Thumbnails) -> String {
    let wrong = |p: &&Prediction| is_counted(classes.len(), p) && p.class() != p.truth;
    let mut photos: Vec<Shown<'_>> = validation.iter().filter(wrong).map(|p| (p, "validation")).collect();
    if photos.is_empty() {
        return "<p>No validation photo is predicted wrongly.</p>\n".to_owned();
    }
    surest_first(&mut photos);
    let shown = photos.len().min(MOST);
    let mut out = match photos.len() {
        1 => "<p>One validation photo is predicted wrongly.</p>\n".to_owned(),
        n if n == shown => format!("<p>The {n} validation photos that are predicted wrongly, the surest first.</p>\n"),
        n => format!("<p>Of {n} validation photos that are predicted wrongly, the {shown} it is surest of.</p>\n"),
    };
    cards(classes, &photos[..shown], false, thumbnails, &mut out);
    out
}

/// A bound in percent.
fn whole(bound: f32) -> String {
    format!("{:.0}\u{a0}%", bound * 100.0)
}

/// Photos whose label the network denies and is sure of another one.
pub(super) fn suspects(
    classes: &[String],
    (validation, train): (&[Prediction], &[Prediction]),
    thumbnails: &mut Thumbnails,
) -> String {
    let suspect = |p: &&Prediction| {
        let class = p.class();
        is_counted(classes.len(), p) && class != p.truth && score(p, p.truth) < DOUBTED && score(p, class) > BELIEVED
    };
    let of = |photos: &'static str| move |p| (p, photos);
    let mut photos: Vec<Shown<'_>> = validation.iter().filter(suspect).map(of("validation")).collect();
    photos.extend(train.iter().filter(suspect).map(of("training")));
    let looked = if train.is_empty() { "validation photo" } else { "validation or training photo" };
    if photos.is_empty() {
        return format!(
            "<p>None: no {looked} has a score below {} for its label and above {} for another class.</p>\n",
            whole(DOUBTED),
            whole(BELIEVED)
        );
    }
    surest_first(&mut photos);
    let shown = photos.len().min(MOST);
    let mut out = format!(
        "<p>{} with a score below {} for the label and above {} for another class{}. Look whether the label or the \
         network is wrong: a photo in the wrong folder teaches what is wrong, and counts as a mistake where it is \
         none.</p>\n",
        count(photos.len(), looked),
        whole(DOUBTED),
        whole(BELIEVED),
        if photos.len() > shown { format!("; the {shown} surest are shown") } else { String::new() }
    );
    cards(classes, &photos[..shown], true, thumbnails, &mut out);
    out
}

/// A list of photos; with the whole `path` where somebody will want to move the file.
fn cards(classes: &[String], photos: &[Shown<'_>], path: bool, thumbnails: &mut Thumbnails, out: &mut String) {
    out.push_str("<ul class=\"photos\">\n");
    for (p, set) in photos {
        let (label, class) = (class_name(classes, p.truth), class_name(classes, p.class()));
        let picture = thumbnails.element(&p.photo, &format!("photo labelled {label}, predicted as {class}"));
        let score_of = |class| p.scores.get(class).map_or_else(|| "-".to_owned(), |s| percent(*s));
        let path_name = p.photo.display().to_string();
        let name = p.photo.file_name().map_or_else(|| path_name.clone(), |name| Path::new(name).display().to_string());
        let file = if path { format!("{set}: {}", isolated(&path_name)) } else { isolated(&name) };
        let _ = writeln!(
            out,
            "<li>{picture}<div><span>predicted <strong>{}</strong> {}</span><span>labelled <strong>{}</strong> {}\
             </span><span class=\"file\">{file}</span></div></li>",
            isolated(&class),
            score_of(p.class()),
            isolated(&label),
            score_of(p.truth)
        );
    }
    out.push_str("</ul>\n");
}
