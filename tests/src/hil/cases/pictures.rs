//! Cases with pictures: what is classified there is classified as it is here.

use crate::hil::bench::{Sight, refusal};
use crate::hil::{Bench, Expected, Photo, Size, frame, photos};
use crate::root;
use anyhow::{Context, Result, bail, ensure};
use edge_link::{PictureData, RawFrame};
use edge_vision::{ColorMatrix, ColorRange, ColorSpace, PixelFormat};
use image::{ImageFormat, RgbImage, imageops};
use serde_json::Value;
use std::io::Cursor;

/// Files that decoders disagree on, of the golden pictures; with `--long` all of them are sent.
const FILES: [&str; 16] = [
    "1x1.jpg",
    "40x1-interlaced.png",
    "9x17.jpg",
    "420.jpg",
    "440.jpg",
    "cmyk.jpg",
    "cmyk-no-adobe.jpg",
    "grey.jpg",
    "grey16.png",
    "la8.png",
    "orientation-6.jpg",
    "palette1-trns.png",
    "no-huffman-tables.jpg",
    "apng.png",
    "bad-crc.png",
    "empty.jpg",
];

/// Photos, each another one.
fn ten() -> Result<Vec<Photo>> {
    let whole = photos()?;
    let mut ten = whole.clone();
    for number in whole.len()..10 {
        let from = &whole[number % whole.len()];
        let picture = image::load_from_memory(&from.bytes).or_else(|_| decoded(&from.bytes).map(Into::into))?.to_rgb8();
        // Larger and larger parts of it, from its upper left on.
        let share = |side: u32| side * (6 + number as u32 / 2) / 12;
        let window = imageops::crop_imm(&picture, 0, 0, share(picture.width()), share(picture.height())).to_image();
        let mut bytes = Cursor::new(vec![]);
        window.write_to(&mut bytes, ImageFormat::Png)?;
        ten.push(Photo { name: format!("part {number} of {}", from.name), bytes: bytes.into_inner() });
    }
    Ok(ten)
}

fn decoded(bytes: &[u8]) -> Result<RgbImage> {
    let picture = edge_vision::decode(bytes, &Default::default())?;
    let (width, height) = (picture.width(), picture.height());
    RgbImage::from_raw(width, height, picture.into_pixels()).context("a picture has its pixels")
}

/// What stands in the log for a frame is what this machine says of it.
pub fn last_frame(bench: &mut Bench) -> Result<()> {
    let patience = bench.patience();
    let picture = bench.wait_for("there is a last frame", patience, |bench| bench.last_frame())?;
    // Files have no number; of these there may be more than one in a folder.
    let line = match &picture {
        PictureData::Raw(RawFrame { number, .. }) => {
            // At once: over a slow line the log has gone far beyond it once the frame was sent back.
            Some(bench.wait_for("the last frame is in the log", patience, |bench| {
                Ok(bench.tail()?.into_iter().rfind(|line| line["frame"] == *number))
            })?)
        }
        PictureData::File(_) => None,
    };
    let expected = bench.reference().classify(&picture)?;
    bench.evidence(&format!("delivered: decided for {}, {:.3}", expected.decision, expected.score), &picture)?;
    let found = bench.classify(picture.clone())?;
    bench.same_as_here(&found, &picture)?;
    if let Some(line) = line.filter(|line| line["decision"] != expected.decision.as_str()) {
        bail!("this machine decides for {:?}, in the log is {line}", expected.decision);
    }
    Ok(())
}

/// Files and raw frames that are easily got wrong.
pub fn awkward(bench: &mut Bench) -> Result<()> {
    let (mut most, mut same, mut refused) = (0f32, 0, 0);
    for (name, picture) in files(bench.long)?.into_iter().chain(raw_frames()?) {
        let answer = bench.classify(picture.clone());
        match bench.reference().classify(&picture) {
            Ok(_) => {
                let delta = answer.and_then(|found| bench.same_as_here(&found, &picture)).context(name)?;
                (most, same) = (most.max(delta), same + 1);
            }
            Err(why) => {
                refusal(answer).with_context(|| format!("{name} cannot be read here ({why:#}), but there"))?;
                refused += 1;
            }
        }
    }
    ensure!(same > 0 && refused > 0, "{same} pictures could be read, {refused} could not");
    bench.figure("pictures alike", f64::from(same), "");
    bench.figure("pictures refused", f64::from(refused), "");
    bench.figure("largest difference of a logit", most.into(), "");
    Ok(())
}

fn files(all: bool) -> Result<Vec<(String, PictureData)>> {
    let folder = root().join("tests/goldens/vision");
    let mut names: Vec<String> = FILES.map(String::from).into();
    if all {
        let entries = std::fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?;
        names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.retain(|name| name.ends_with(".jpg") || name.ends_with(".png"));
        names.sort();
    }
    let read = |name: String| {
        let path = folder.join(&name);
        let bytes = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok((name, PictureData::File(bytes)))
    };
    names.into_iter().map(read).collect()
}

/// Frames whose rows have bytes between them, whose colours are coded otherwise, of formats that share colours between rows,
/// and one that ends too early.
fn raw_frames() -> Result<Vec<(String, PictureData)>> {
    let photo = photos()?.into_iter().next_back().context("there are no photos")?.bytes;
    let small = Size { width: 322, height: 242 };
    let mut frames = vec![];
    for format in [PixelFormat::Yuyv, PixelFormat::Nv12, PixelFormat::Grey] {
        let plain = frame(&photo, format, small)?;
        let padded = padded(&plain, 62)?;
        let colors = ColorSpace { matrix: ColorMatrix::Bt709, range: ColorRange::Full };
        let colored = RawFrame { color: colors, ..plain.clone() };
        let mut short = plain.clone();
        short.bytes.truncate(short.bytes.len() / 2);
        frames.push((format!("{format} 322x242"), plain));
        frames.push((format!("{format} with bytes between its rows"), padded));
        frames.push((format!("{format} by BT.709 with full range"), colored));
        frames.push((format!("{format} cut off"), short));
    }
    Ok(frames.into_iter().map(|(name, frame)| (name, PictureData::Raw(frame))).collect())
}

/// The same with `more` bytes after each row.
fn padded(frame: &RawFrame, more: usize) -> Result<RawFrame> {
    let row = match frame.format {
        PixelFormat::Yuyv => frame.width as usize * 2,
        PixelFormat::Nv12 | PixelFormat::Grey => frame.width as usize,
        other => bail!("frames of {other} are not made here"),
    };
    let mut bytes = vec![];
    for part in frame.bytes.chunks(row) {
        bytes.extend_from_slice(part);
        bytes.extend(std::iter::repeat_n(0xa5, more));
    }
    Ok(RawFrame { stride: Some((row + more) as u32), bytes, ..frame.clone() })
}

/// Ten photos through the link.
pub fn ten_put_in(bench: &mut Bench) -> Result<()> {
    let mut before = newest(&bench.tail()?);
    let mut numbers = vec![];
    let patience = bench.patience();
    for photo in ten()? {
        let picture = PictureData::File(photo.bytes);
        let found = bench.inject(picture.clone())?;
        bench.same_as_here(&found, &picture).with_context(|| photo.name.clone())?;
        // Each at once: over a slow line the log has gone far beyond the first one when the last one was sent.
        let since = |line: &Value| line["source"] == "link" && line["monotonic_s"].as_f64() > before;
        let logged = bench.wait_for(&format!("{} is in the log", photo.name), patience, |bench| {
            let logged: Vec<Value> = bench.tail()?.into_iter().filter(since).collect();
            Ok((!logged.is_empty()).then_some(logged))
        })?;
        let decisions: Vec<&str> = logged.iter().filter_map(|line| line["decision"].as_str()).collect();
        ensure!(
            decisions == [&found.decision],
            "{}: the answer was {:?}, in the log is {decisions:?}",
            photo.name,
            found.decision
        );
        numbers.extend(logged[0]["frame"].as_u64());
        before = newest(&logged);
        let decided = format!("decided for {}, {:.3}", found.decision, found.score);
        bench.evidence(&format!("{}, put in: {decided}", photo.name), &picture)?;
    }
    ensure!(numbers.is_sorted_by(|a, b| a < b), "the frames' numbers do not go on: {numbers:?}");
    // None is in the log once more.
    let again =
        bench.tail()?.into_iter().find(|line| line["source"] == "link" && line["monotonic_s"].as_f64() > before);
    ensure!(again.is_none(), "one frame more than was put in is in the log: {again:?}");
    Ok(())
}

/// When the last line was written.
fn newest(lines: &[Value]) -> Option<f64> {
    lines.last().and_then(|line| line["monotonic_s"].as_f64())
}

/// Ten photos in front of the camera.
pub fn ten_shown(bench: &mut Bench) -> Result<()> {
    let about = bench.dut.about();
    let (Some(format), Some(size)) = (about.formats.first().copied(), about.sizes.first().copied()) else {
        bail!("{} does not say what formats and sizes its camera has", about.name);
    };
    let photos = ten()?;
    // The camera shows the last one beforehand, so that the first one is news as the others are.
    let last = photos.last().context("there are ten")?;
    bench.show(frame(&last.bytes, format, size)?)?;
    let mut seen: Vec<(Photo, Expected, Sight)> = vec![];
    for photo in photos {
        let shown = frame(&photo.bytes, format, size)?;
        let picture = PictureData::Raw(shown.clone());
        let expected = bench.reference().classify(&picture)?;
        let sight = bench.show(shown).with_context(|| photo.name.clone())?;
        let last = sight.last;
        bench.wait_until_logged(last).with_context(|| photo.name.clone())?;
        let decided = format!("decided for {}, {:.3}", expected.decision, expected.score);
        bench.evidence(&format!("{}, shown and delivered byte for byte: {decided}", photo.name), &picture)?;
        seen.push((photo, expected, sight));
    }
    let lines = bench.tail()?;
    for (photo, expected, Sight { first, last }) in &seen {
        let of = lines.iter().filter(|line| (*first..=*last).contains(&line["frame"].as_u64().unwrap_or(u64::MAX)));
        let decisions: Vec<&str> = of.filter_map(|line| line["decision"].as_str()).collect();
        ensure!(!decisions.is_empty(), "{}: frames {first} to {last} are not in the log", photo.name);
        ensure!(
            decisions.iter().all(|decision| *decision == expected.decision),
            "{}: the log has {decisions:?} for frames {first} to {last}, this machine decides for {:?}",
            photo.name,
            expected.decision
        );
    }
    Ok(())
}
