//! Layers that resample a picture, exactly as Keras' backends do: half-pixel centres, no antialiasing unless it is
//! asked for.
//!
//! `nearest` gathers rows and columns; every other filter is two matrices, one per side, so that no runtime's own idea
//! of resizing comes in. Sources: Keras 3.15 `backend/jax/image.py`, `jax.image.scale_and_translate`;
//! `layers/reshaping/up_sampling2d.py`, `layers/preprocessing/image_preprocessing/{resizing,center_crop}.py`.

use super::shape::crop;
use crate::graph::int;
use crate::keras::cx::Cx;
use crate::keras::value::{Picture, Value, elements};

/// The filters that there are.
pub const FILTERS: [&str; 5] = ["nearest", "bilinear", "bicubic", "lanczos3", "lanczos5"];

/// `UpSampling2D`.
pub fn up_sampling(cx: &mut Cx<'_>, value: &Value) -> Result<Value, String> {
    let format = cx.format()?;
    let [by_h, by_w] = cx.pair("size", Some(2))?;
    let filter = cx.word("interpolation", "nearest").to_string();
    let picture = cx.picture(value, format)?;
    let size = |a: usize, b: usize| a.checked_mul(b).filter(|n| *n > 0).ok_or("the size is not possible");
    let (height, width) = (size(picture.height, by_h)?, size(picture.width, by_w)?);
    let made = resample(cx, picture, height, width, &filter, false)?;
    Value::of_picture(made, format)
}

/// `Resizing`.
pub fn resizing(cx: &mut Cx<'_>, value: &Value) -> Result<Value, String> {
    let format = cx.format()?;
    let (height, width) = (cx.count("height")?, cx.count("width")?);
    let filter = cx.word("interpolation", "bilinear").to_string();
    let antialias = cx.flag("antialias", false);
    let mut picture = cx.picture(value, format)?;
    let (h, w) = (picture.height, picture.width);
    if cx.flag("crop_to_aspect_ratio", false) {
        picture = crop_to_ratio(cx, picture, height, width)?;
    } else if cx.flag("pad_to_aspect_ratio", false) {
        // As Keras does it: the same on both sides, also where the difference is odd, and the width only where the height
        // has enough.
        let size = |a: usize, b: usize, c: usize| a.checked_mul(b).map(|n| n / c).ok_or("the size is not possible");
        let top = size(w, height, width)?.saturating_sub(h) / 2;
        let left = if top > 0 { 0 } else { size(h, width, height)?.saturating_sub(w) / 2 };
        let (tall, wide) = (h + 2 * top, w + 2 * left);
        elements(&[picture.channels, tall, wide])?;
        let pads = [0, 0, top, left, 0, 0, top, left].map(|n| n as i64);
        let pads = cx.longs("pads", &pads);
        let fill = cx.number("fill_value", 0.0)?;
        let fill = cx.scalar("fill", fill);
        let name = cx.op("Pad", "Pad", &[&picture.name, &pads, &fill], vec![])?;
        picture = Picture { name, height: tall, width: wide, ..picture };
    }
    let made = resample(cx, picture, height, width, &filter, antialias)?;
    Value::of_picture(made, format)
}

/// The largest window in the middle that has the ratio of height to width.
fn crop_to_ratio(cx: &mut Cx<'_>, picture: Picture, height: usize, width: usize) -> Result<Picture, String> {
    let (h, w) = (picture.height, picture.width);
    let size = |a: usize, b: usize, c: usize| a.checked_mul(b).map(|n| n / c).ok_or("the size is not possible");
    let (tall, wide) = (size(w, height, width)?.min(h), size(h, width, height)?.min(w));
    if tall == 0 || wide == 0 {
        return Err("nothing would be left of the picture".into());
    }
    crop(cx, picture, (h - tall) / 2, (w - wide) / 2, tall, wide)
}

/// `RandomCrop` at inference. Keras 3 does nothing then, although it declares the smaller size; Keras 2 resizes the largest
/// window of the right shape. Source: tf.keras 2.15 `layers/preprocessing/image_preprocessing.py`.
pub fn random_crop(cx: &mut Cx<'_>, value: &Value) -> Result<Value, String> {
    if !cx.old {
        return Ok(value.clone());
    }
    let format = cx.format()?;
    let (height, width) = (cx.count("height")?, cx.count("width")?);
    let picture = cx.picture(value, format)?;
    let picture = crop_to_ratio(cx, picture, height, width)?;
    let made = resample(cx, picture, height, width, "bilinear", false)?;
    Value::of_picture(made, format)
}

/// `CenterCrop`: the middle where the picture is large enough, else the largest window of the right shape, resized.
pub fn center_crop(cx: &mut Cx<'_>, value: &Value) -> Result<Value, String> {
    let format = cx.format()?;
    let (height, width) = (cx.count("height")?, cx.count("width")?);
    let picture = cx.picture(value, format)?;
    let (h, w) = (picture.height, picture.width);
    let made = if h >= height && w >= width {
        crop(cx, picture, (h - height) / 2, (w - width) / 2, height, width)?
    } else {
        let picture = crop_to_ratio(cx, picture, height, width)?;
        resample(cx, picture, height, width, "bilinear", false)?
    };
    Value::of_picture(made, format)
}

/// Resamples a picture to another size.
pub fn resample(
    cx: &mut Cx<'_>,
    picture: Picture,
    height: usize,
    width: usize,
    filter: &str,
    antialias: bool,
) -> Result<Picture, String> {
    elements(&[picture.channels, height, width])?;
    let mut name = picture.name.clone();
    for (side, from, to) in [("rows", picture.height, height), ("columns", picture.width, width)] {
        if from == to {
            continue;
        }
        let axis = if side == "rows" { 2 } else { 3 };
        if filter == "nearest" {
            cx.graph.room(to, 8)?;
            let index: Vec<i64> = (0..to).map(|i| nearest(i, from, to) as i64).collect();
            let index = cx.longs(side, &index);
            name = cx.op("Gather", "Gather", &[&name, &index], vec![int("axis", axis)])?;
            continue;
        }
        // A matrix of the size of what it is to make; larger ones are a mistake in the file.
        if from.saturating_mul(to) > 1 << 26 {
            return Err(format!("resampling {from} to {to} pixels is not possible"));
        }
        cx.room(from * to)?;
        let weights = matrix(from, to, filter, antialias)?;
        if axis == 2 {
            let left = cx.floats(side, &[to, from], &weights);
            name = cx.op("MatMul", "rows", &[&left, &name], vec![])?;
        } else {
            let turned: Vec<f32> = (0..from * to).map(|i| weights[i % to * from + i / to]).collect();
            let right = cx.floats(side, &[from, to], &turned);
            name = cx.op("MatMul", "columns", &[&name, &right], vec![])?;
        }
    }
    Ok(Picture { name, height, width, ..picture })
}

/// The pixel under the centre of pixel `i`.
fn nearest(i: usize, from: usize, to: usize) -> usize {
    // floor((i + 0.5) · from / to), in whole numbers.
    ((2 * i + 1) * from / (2 * to)).min(from - 1)
}

/// (to, from): what each new pixel takes from each old one.
fn matrix(from: usize, to: usize, filter: &str, antialias: bool) -> Result<Vec<f32>, String> {
    let kernel: fn(f64) -> f64 = match filter {
        "bilinear" => |x| (1.0 - x).max(0.0),
        "bicubic" => cubic,
        "lanczos3" => |x| lanczos(x, 3.0),
        "lanczos5" => |x| lanczos(x, 5.0),
        other => return Err(format!("interpolation {other:?} is not possible; {} are", FILTERS.join(", "))),
    };
    let step = from as f64 / to as f64;
    let wide = if antialias { step.max(1.0) } else { 1.0 };
    let mut weights = vec![0.0; to * from];
    for (i, row) in weights.chunks_exact_mut(from).enumerate() {
        let centre = (i as f64 + 0.5) * step - 0.5;
        let values: Vec<f64> = (0..from).map(|j| kernel((centre - j as f64).abs() / wide)).collect();
        let sum: f64 = values.iter().sum();
        for (weight, value) in row.iter_mut().zip(values) {
            *weight = (value / sum) as f32;
        }
    }
    Ok(weights)
}

/// Keys' cubic with a = -0.5.
fn cubic(x: f64) -> f64 {
    match x {
        x if x < 1.0 => (1.5 * x - 2.5) * x * x + 1.0,
        x if x < 2.0 => ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0,
        _ => 0.0,
    }
}

fn lanczos(x: f64, radius: f64) -> f64 {
    let sinc = |x: f64| if x == 0.0 { 1.0 } else { (std::f64::consts::PI * x).sin() / (std::f64::consts::PI * x) };
    if x < radius { sinc(x) * sinc(x / radius) } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_a_matrix_sum_to_one() {
        for filter in &FILTERS[1..] {
            for (from, to) in [(5, 10), (10, 4), (7, 7), (1, 3)] {
                for antialias in [false, true] {
                    for row in matrix(from, to, filter, antialias).unwrap().chunks(from) {
                        assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-6);
                    }
                }
            }
        }
        assert!(matrix(3, 4, "area", false).is_err());
    }

    #[test]
    fn nearest_takes_the_pixel_under_the_centre() {
        assert_eq!((0..6).map(|i| nearest(i, 3, 6)).collect::<Vec<_>>(), [0, 0, 1, 1, 2, 2]);
        assert_eq!((0..2).map(|i| nearest(i, 5, 2)).collect::<Vec<_>>(), [1, 3]);
    }
}
