//! Pictures that need no file: golden samples and a test camera.

use crate::frame::Picture;
use crate::random::split_mix;

/// A picture (height, width, 3) with gradients, blobs, an edge and a little noise, chosen by `seed`.
///
/// Only integers are used, so that every architecture gives the same bytes. A side of zero counts as one.
///
/// # Panics
///
/// Where the picture would not fit into memory; sizes come from the program, never from a file.
#[must_use]
pub fn synthetic(seed: u64, width: u32, height: u32) -> Picture {
    struct Blob {
        x: i64,
        y: i64,
        radius2: i64,
        color: [i64; 3],
    }
    let (w, h) = (i64::from(width.max(1)), i64::from(height.max(1)));
    let mut state = seed;
    let mut below = |n: i64| (split_mix(&mut state) >> 33) as i64 % n.max(1);
    // Per channel a level and two slopes; slopes are in levels across the whole picture.
    let gradient: [[i64; 3]; 3] = std::array::from_fn(|_| [40 + below(120), below(160) - 80, below(160) - 80]);
    let side = w.min(h);
    let blobs: [Blob; 6] = std::array::from_fn(|_| {
        let radius = 1 + side / 12 + below(side / 4);
        Blob { x: below(w), y: below(h), radius2: radius * radius, color: std::array::from_fn(|_| below(320) - 160) }
    });
    let (edge_at, edge_slope, edge_step) = (below(w), below(200) - 100, 20 + below(50));
    let mut noise = seed ^ 0xA5A5_5A5A_1234_4321;
    let mut pixels = Vec::with_capacity(w as usize * h as usize * 3);
    for y in 0..h {
        for x in 0..w {
            let mut px: [i64; 3] = std::array::from_fn(|c| {
                let [level, slope_x, slope_y] = gradient[c];
                level + slope_x * x / w + slope_y * y / h
            });
            for blob in &blobs {
                let (dx, dy) = (x - blob.x, y - blob.y);
                let d2 = dx * dx + dy * dy;
                if d2 < blob.radius2 {
                    // The blob fades to its rim, so that both smooth and sharp places are in the picture.
                    let weight = 256 - d2 * 256 / blob.radius2;
                    for (p, c) in px.iter_mut().zip(blob.color) {
                        *p += c * weight / 256;
                    }
                }
            }
            if x > edge_at + (y - h / 2) * edge_slope / 100 {
                px[0] += edge_step;
                px[2] -= edge_step;
            }
            let bits = split_mix(&mut noise);
            for (c, p) in px.iter().enumerate() {
                let n = ((bits >> (8 * c)) & 15) as i64 - 8;
                pixels.push((p + n).clamp(0, 255) as u8);
            }
        }
    }
    match Picture::new(w as u32, h as u32, pixels) {
        Ok(picture) => picture,
        Err(e) => unreachable!("the loop wrote width * height pixels: {e}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_differ_and_repeat() {
        assert_eq!(synthetic(1, 40, 30), synthetic(1, 40, 30));
        assert_ne!(synthetic(1, 40, 30), synthetic(2, 40, 30));
        assert_eq!(synthetic(9, 0, 0).pixels().len(), 3);
    }

    #[test]
    fn bytes_are_fixed() {
        // Golden samples in published packages depend on these bytes; a change needs a new function.
        use sha2::Digest;
        let digest = sha2::Sha256::digest(synthetic(42, 299, 211).pixels());
        let hex: String = digest.iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hex, "77c13334ac5f4b63a6d42d079144ac64e9d410e7a09535b10915d1634d4ba23e");
    }
}
