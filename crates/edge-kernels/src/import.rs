//! The picture as kernels want it: pixel by pixel, zeros around it, as float32 or as bytes.

use crate::im2col::Strides;
use crate::simd::{Simd, kernel};
use crate::{Isa, Plain};
use std::ops::Range;

/// Channels of a picture.
const CHANNELS: usize = 3;
/// Pixels converted at a time.
const SOME: usize = 64;

/// How a picture of three channels is laid out anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Import {
    /// How it lies: pixels after each other and in them the channels, or one channel after the other.
    pub strides: Strides,
    /// Height and width.
    pub size: [usize; 2],
    /// Values from a pixel to the next in what is made; those beyond the channels are as outside the picture.
    pub pixel: usize,
    /// Rows and columns of zeros before the picture.
    pub before: [usize; 2],
    /// Rows and columns of zeros after it.
    pub after: [usize; 2],
}

impl Import {
    /// Rows and columns of what is made.
    pub fn made(&self) -> [usize; 2] {
        [0, 1].map(|i| self.before[i] + self.size[i] + self.after[i])
    }

    /// Values of what is made.
    pub fn len(&self) -> usize {
        self.made()[0] * self.made()[1] * self.pixel
    }

    /// Whether nothing is made.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Lays some rows of what is made out as float32.
    ///
    /// # Panics
    /// Where the lengths do not belong together.
    pub fn run(&self, isa: Isa, picture: &[f32], rows: Range<usize>, out: &mut [f32]) {
        self.check(picture.len(), &rows, out.len());
        // SAFETY: plain Rust; only the features are the caller's to have, and an Isa has them.
        unsafe { floats(isa, self, picture, rows, &Keep, out) }
    }

    /// Lays some rows of what is made out as float32, each channel multiplied by `mul` and `add` added; around the picture
    /// there are zeros as ever.
    ///
    /// # Panics
    /// Where the lengths do not belong together.
    pub fn run_scaled(
        &self,
        isa: Isa,
        picture: &[f32],
        mul: [f32; CHANNELS],
        add: [f32; CHANNELS],
        rows: Range<usize>,
        out: &mut [f32],
    ) {
        self.check(picture.len(), &rows, out.len());
        let lie = |by: [f32; CHANNELS]| match self.strides.column == 1 {
            true => std::array::from_fn(|i| by[i / SOME]),
            false => std::array::from_fn(|i| by[i % CHANNELS]),
        };
        // SAFETY: as above.
        unsafe { scaled(isa, self, picture, rows, &Scale { mul: lie(mul), add: lie(add) }, out) }
    }

    /// Lays some rows of what is made out as bytes, as ONNX' QuantizeLinear makes them: value / `scale`, rounded half to even, plus `zero`.
    ///
    /// # Panics
    /// Where the lengths do not belong together.
    pub fn run_bytes(&self, isa: Isa, picture: &[f32], scale: f32, zero: u8, rows: Range<usize>, out: &mut [u8]) {
        self.check(picture.len(), &rows, out.len());
        // SAFETY: as above.
        unsafe { bytes(isa, self, picture, rows, &Quantize { scale, zero }, out) }
    }

    fn check(&self, picture: usize, rows: &Range<usize>, out: usize) {
        assert!(picture == self.size[0] * self.size[1] * CHANNELS && self.pixel >= CHANNELS);
        assert!(rows.end <= self.made()[0] && out == rows.len() * self.made()[1] * self.pixel);
        let [h, w] = self.size;
        let pixels = Strides { row: w * CHANNELS, column: CHANNELS, channel: 1 };
        assert!(self.strides == pixels || self.strides == Strides { row: w, column: 1, channel: h * w });
    }
}

kernel! {
    fn floats(layer: &Import, picture: &[f32], rows: Range<usize>, into: &Keep, out: &mut [f32]) = body
}
kernel! {
    fn scaled(layer: &Import, picture: &[f32], rows: Range<usize>, into: &Scale, out: &mut [f32]) = body
}
kernel! {
    fn bytes(layer: &Import, picture: &[f32], rows: Range<usize>, into: &Quantize, out: &mut [u8]) = body
}

/// What becomes of a value.
trait Into<T> {
    /// That; `at` is its place among the values that are converted together.
    fn of(&self, at: usize, value: f32) -> T;
    /// What is outside the picture.
    fn outside(&self) -> T;
}

/// Nothing.
struct Keep;

impl Into<f32> for Keep {
    #[inline(always)]
    fn of(&self, _: usize, value: f32) -> f32 {
        value
    }
    fn outside(&self) -> f32 {
        0.0
    }
}

/// Factors and offsets, one of each for every value that is converted together.
struct Scale {
    mul: [f32; SOME * CHANNELS],
    add: [f32; SOME * CHANNELS],
}

impl Into<f32> for Scale {
    #[inline(always)]
    fn of(&self, at: usize, value: f32) -> f32 {
        value * self.mul[at] + self.add[at]
    }
    fn outside(&self) -> f32 {
        0.0
    }
}

/// Bytes of a scale and a zero point.
struct Quantize {
    scale: f32,
    zero: u8,
}

impl Into<u8> for Quantize {
    #[inline(always)]
    fn of(&self, _: usize, value: f32) -> u8 {
        // Divided rather than multiplied with the inverse: pictures of bytes lie halfway between two steps more often than not.
        let zero = f32::from(self.zero);
        let value = (value / self.scale).round_ties_even();
        // Adding the zero point to a whole number that fits is exact. NaN becomes 0.
        let value = value.max(-zero).min(255.0 - zero) + zero;
        // SAFETY: 0…255.
        unsafe { value.to_int_unchecked::<i32>() as u8 }
    }
    fn outside(&self) -> u8 {
        self.zero
    }
}

#[inline(always)]
unsafe fn body<S: Simd, T: Plain, I: Into<T>>(
    _: S,
    layer: &Import,
    picture: &[f32],
    rows: Range<usize>,
    into: &I,
    out: &mut [T],
) {
    let ([h, w], pixel) = (layer.size, layer.pixel);
    let outside = into.outside();
    for (at, row) in rows.zip(out.chunks_exact_mut(layer.made()[1] * pixel)) {
        let y = at.wrapping_sub(layer.before[0]);
        if y >= h {
            row.fill(outside);
            continue;
        }
        let (left, rest) = row.split_at_mut(layer.before[1] * pixel);
        let (middle, right) = rest.split_at_mut(w * pixel);
        left.fill(outside);
        right.fill(outside);
        for (first, out) in (0..w).step_by(SOME).zip(middle.chunks_mut(SOME * pixel)) {
            // Converted first, moved then: so that the compiler makes vectors of each.
            let mut values = [outside; SOME * CHANNELS];
            let count = out.len() / pixel;
            let planes = layer.strides.column == 1;
            let convert = |to: &mut [T], from: &[f32], place: usize| {
                to.iter_mut().zip(from).enumerate().for_each(|(i, (t, f))| *t = into.of(place + i, *f));
            };
            if planes {
                for (channel, values) in values.chunks_exact_mut(SOME).enumerate() {
                    let from = &picture[channel * layer.strides.channel + y * w + first..][..count];
                    convert(values, from, channel * SOME);
                }
            } else {
                let from = &picture[(y * w + first) * CHANNELS..][..count * CHANNELS];
                convert(&mut values, from, 0);
            }
            let value = |i: usize| match planes {
                true => [values[i], values[SOME + i], values[2 * SOME + i]],
                false => [values[3 * i], values[3 * i + 1], values[3 * i + 2]],
            };
            match pixel {
                3 => out.as_chunks_mut::<3>().0.iter_mut().enumerate().for_each(|(i, p)| *p = value(i)),
                4 => out.as_chunks_mut::<4>().0.iter_mut().enumerate().for_each(|(i, p)| {
                    let [a, b, c] = value(i);
                    *p = [a, b, c, outside];
                }),
                _ => out.chunks_exact_mut(pixel).enumerate().for_each(|(i, p)| {
                    p.fill(outside);
                    p[..CHANNELS].copy_from_slice(&value(i));
                }),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test::noise;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 2 } else { 64 }))]
        #[test]
        fn every_value_lies_where_it_should(
            size in [1..9_usize, 1..140_usize], before in [0..3_usize, 0..3_usize], after in [0..3_usize, 0..3_usize],
            pixel in prop::sample::select(vec![3, 4, 8, 16]), planes: bool, zero: u8, seed in 0..99_u64,
        ) {
            let [h, w] = size;
            let strides = match planes {
                true => Strides { row: w, column: 1, channel: h * w },
                false => Strides { row: w * 3, column: 3, channel: 1 },
            };
            let import = Import { strides, size, pixel, before, after };
            let picture = noise(seed, h * w * 3);
            let mut wanted = vec![(0.0, zero); import.len()];
            for (y, x, c) in (0..h).flat_map(|y| (0..w).flat_map(move |x| (0..3).map(move |c| (y, x, c)))) {
                let value = picture[y * strides.row + x * strides.column + c * strides.channel];
                let byte = (value / 0.005).round_ties_even() as i32 + i32::from(zero);
                wanted[((before[0] + y) * import.made()[1] + before[1] + x) * pixel + c] = (value, byte.clamp(0, 255) as u8);
            }
            for isa in Isa::available() {
                let (mut floats, mut bytes) = (vec![f32::NAN; import.len()], vec![7; import.len()]);
                let row = import.made()[1] * pixel;
                for (at, (floats, bytes)) in floats.chunks_mut(3 * row).zip(bytes.chunks_mut(3 * row)).enumerate() {
                    let rows = 3 * at..3 * at + floats.len() / row;
                    import.run(isa, &picture, rows.clone(), floats);
                    import.run_bytes(isa, &picture, 0.005, zero, rows, bytes);
                }
                prop_assert!(floats.iter().zip(&wanted).all(|(f, w)| *f == w.0));
                import.run_scaled(isa, &picture, [2.0, 4.0, 8.0], [0.0; 3], 0..import.made()[0], &mut floats);
                let by = |at: usize| 2.0 * f32::from(1_u8 << (at % pixel).min(2));
                prop_assert!(floats.iter().zip(&wanted).enumerate().all(|(at, (f, w))| *f == w.0 * by(at)));
                import.run_scaled(isa, &picture, [0.0; 3], [1.0, 2.0, 3.0], 0..import.made()[0], &mut floats);
                let inside = |at: usize| {
                    let (pixel_at, channel) = (at / pixel, at % pixel);
                    let (y, x) = (pixel_at / import.made()[1], pixel_at % import.made()[1]);
                    (before[0]..before[0] + h).contains(&y) && (before[1]..before[1] + w).contains(&x) && channel < 3
                };
                let offset = |at: usize| if inside(at) { (at % pixel) as f32 + 1.0 } else { 0.0 };
                prop_assert!(floats.iter().enumerate().all(|(at, f)| *f == offset(at)));
                prop_assert!(bytes.iter().zip(&wanted).all(|(b, w)| *b == w.1));
            }
        }
    }
}
