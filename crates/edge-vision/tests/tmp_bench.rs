use edge_vision::*;
use std::time::Instant;
#[test]
fn bench() {
    for format in [PixelFormat::Yuyv, PixelFormat::Nv12] {
        let data = synthetic(1, 1280, 720).into_pixels();
        let frame = RawFrame { format, width: 1280, height: 720, stride: None, color: ColorSpace::default(), data: &data };
        let mut p = Picture::blank(1280, 720).unwrap();
        let mut best = f64::MAX;
        for _ in 0..15 {
            let t = Instant::now();
            to_picture_into(&frame, &mut p).unwrap();
            best = best.min(t.elapsed().as_secs_f64() * 1e3);
        }
        println!("BENCH {format}: {best:.3} ms");
    }
}
