//! tmp
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

#[test]
fn share() {
    for format in [PixelFormat::Yuyv, PixelFormat::Nv12] {
      for matrix in [ColorMatrix::Bt601, ColorMatrix::Bt709, ColorMatrix::Bt2020] {
        for range in [ColorRange::Limited, ColorRange::Full] {
        // every Y, U, V with a step
        let (w, h) = (1280u32, 720u32);
        let mut hist = [0u64; 4]; let mut worst=0f64;
        for seed in 0..4 {
        let mut data = synthetic(seed, w, h).into_pixels();
        let mut x = seed.wrapping_mul(7919).wrapping_add(12345);
        for b in &mut data { x ^= x << 13; x ^= x >> 7; x ^= x << 17; *b = (x >> 24) as u8; }
        let color = ColorSpace { matrix, range };
        let frame = RawFrame { format, width: w, height: h, stride: None, color, data: &data };
        let p = to_picture(&frame).unwrap();
        let (w, h) = (w as usize, h as usize);
        for y in 0..h { for x in 0..w {
            let (l, u, v) = if format == PixelFormat::Nv12 { let uv = w * (h + y / 2) + x / 2 * 2; (data[w*y+x], data[uv], data[uv+1]) }
              else { let g = (w*y + x/2*2)*2; (data[g + x%2*2], data[g+1], data[g+3]) };
            let e = rgb(color, l, u, v);
            for (g, e) in p.pixels()[(y*w+x)*3..][..3].iter().zip(e) {
                let d = (f64::from(*g) - e.round()).abs() as usize; hist[d.min(3)] += 1; worst = worst.max((f64::from(*g)-e).abs());
            }
        }}}
        let n: u64 = hist.iter().sum();
        println!("SHARE {format} {matrix:?} {range:?} exact {:.3}% {hist:?} worst {worst:.3}", hist[0] as f64 / n as f64 * 100.0);
      }}
    }
}
fn rgb(color: ColorSpace, y: u8, u: u8, v: u8) -> [f64; 3] {
    let (kr, kb) = match color.matrix { ColorMatrix::Bt601 => (0.299, 0.114), ColorMatrix::Bt709 => (0.2126, 0.0722), ColorMatrix::Bt2020 => (0.2627, 0.0593) };
    let (black, ys, us) = match color.range { ColorRange::Limited => (16.0, 219.0, 224.0), ColorRange::Full => (0.0, 255.0, 255.0) };
    let luma = (f64::from(y).max(black) - black) * 255.0 / ys;
    let (cb, cr) = ((f64::from(u) - 128.0) * 255.0 / us, (f64::from(v) - 128.0) * 255.0 / us);
    [luma + 2.0 * (1.0 - kr) * cr, luma - (2.0 * kr * (1.0 - kr) * cr + 2.0 * kb * (1.0 - kb) * cb) / (1.0 - kr - kb), luma + 2.0 * (1.0 - kb) * cb].map(|c| c.clamp(0.0, 255.0))
}

#[test]
fn tails() {
    // Which columns treat Y below 16 as 16?
    for format in [PixelFormat::Yuyv, PixelFormat::Nv12] {
        let (w, h) = (75u32, 2u32);
        let data: Vec<u8> = if format == PixelFormat::Yuyv { [0u8, 90, 0, 240].repeat(38 * 2) } else { [vec![0u8; 76 * 2], [90u8, 240].repeat(38)].concat() };
        let stride = if format == PixelFormat::Yuyv { None } else { Some(76) };
        let p = to_picture(&RawFrame { format, width: w, height: h, stride, color: ColorSpace::default(), data: &data }).unwrap();
        let red: Vec<u8> = p.pixels().chunks(3).map(|p| p[0]).collect();
        println!("TAIL {format} {:?}", red);
    }
}
