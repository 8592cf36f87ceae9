//! Times a 1280x720 YUYV frame on its way to a 299x299 float32 tensor; `cargo xtask bench --frames` runs it beside
//! Pillow and OpenCV.
//!
//!     frames FRAME.yuyv INTERPOLATION RUNS [TENSOR.f32]
//!
//! prints the least and the median time in milliseconds as JSON, and writes the tensor where that is asked for.

use std::error::Error;
use std::time::Instant;

use edge_vision::{
    ColorSpace, Interpolation, Layout, Mount, Picture, PixelFormat, Preprocess, RawFrame, ResizePolicy, ResizeSpec,
    Resizer, to_picture_into,
};

const SIDE: u32 = 299;

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [frame, interpolation, runs, ..] = args.as_slice() else { return Err("see the source".into()) };
    let data = std::fs::read(frame)?;
    let interpolation: Interpolation = interpolation.parse()?;
    let raw = RawFrame {
        format: PixelFormat::Yuyv,
        width: 1280,
        height: 720,
        stride: None,
        color: ColorSpace::default(),
        data: &data,
    };
    let spec = ResizeSpec { width: SIDE, height: SIDE, policy: ResizePolicy::Squash, interpolation };
    let (mut resizer, mut picture) = (Resizer::new(spec)?, Picture::blank(1, 1)?);
    let mut tensor = vec![0.0_f32; (SIDE * SIDE * 3) as usize];
    let mut times = Vec::new();
    for _ in 0..runs.parse::<usize>()?.max(1) {
        let start = Instant::now();
        let resized = if resizer.takes_frames(&raw, &Mount::default())? {
            resizer.resize_frame(&raw, &Mount::default())?
        } else {
            to_picture_into(&raw, &mut picture)?;
            resizer.resize(&picture)?
        };
        Preprocess::Tf.apply(resized, Layout::Nhwc, &mut tensor)?;
        times.push(start.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    println!("{{\"min_ms\": {:.4}, \"median_ms\": {:.4}}}", times[0], times[times.len() / 2]);
    if let Some(path) = args.get(3) {
        std::fs::write(path, tensor.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>())?;
    }
    Ok(())
}
