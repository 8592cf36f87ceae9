//! Depthwise filters on bytes as [`crate::fours`] and [`crate::twos`] multiply them, and the pixels that they see.
//!
//! Neighbouring pixels of a row are interleaved, so that the values of a channel lie together and some taps of a filter's row are
//! one instruction; of two neighbouring positions, which see the same pixels or most of them, each has the filter shifted to
//! its place. Where the window leaves the picture it reads a pixel of zero points, so borders cost nothing of their own.
//! What the zero point adds to a channel is the same for every position, so sums begin with its negative: whole numbers, exact.
//!
//! Interleaving leaves the sums of a chunk's channels in an order that the instructions which narrow them undo; filter,
//! factors and offsets are packed in that order.

use crate::gemm8::Scale;
use crate::{Buffer, Isa, Plain, Window};

/// Pixels that a row of the window spans at most, for two positions, in fours.
const MOST_QUADS: usize = 2;
/// Rows of a window at most.
const MOST_ROWS: usize = 7;
/// Pairs of positions computed together at most.
pub(crate) const PAIRS: usize = 2;
/// Pairs of pixels in a row that they see at most: two fours, and two pairs of positions two pixels apart.
pub(crate) const MOST_HALVES: usize = 2 * MOST_QUADS + (PAIRS - 1) * 2;

/// A tap of a filter, as an instruction takes it.
pub(crate) trait Tap: Plain + Into<i32> {
    /// Taps that it takes of a channel.
    const GROUP: usize;
    /// Channels in a chunk.
    const CHUNK: usize;
    /// Whether the set has that instruction, and none that is better.
    fn able(isa: Isa) -> bool;
    /// What the kernel takes off pixels before it multiplies them.
    const SHIFT: i32 = 0;
    /// A whole number of its range.
    fn of(value: f32) -> Option<Self>;
    /// The channel of a chunk whose sum lies at a place.
    fn channel(place: usize) -> usize;
}

/// A depthwise convolution on bytes.
#[derive(Clone)]
pub(crate) struct Interleaved<T: Tap> {
    /// Channels in memory.
    pub channels: usize,
    /// Fours of pixels in a row of the window, for two positions.
    pub quads: usize,
    /// (chunk, row, group of pixels, position of a pair, channel, tap).
    pub filter: Buffer<T>,
    /// (chunk, channel), as all that follow.
    pub begin: Buffer<i32>,
    pub factor: Buffer,
    pub offset: Buffer,
    /// A pixel outside the picture.
    pub outside: Buffer<u8>,
    /// Limits of what is written, its zero point taken off.
    pub limits: [i16; 2],
    pub zero: i16,
}

impl<T: Tap> Interleaved<T> {
    /// Packs `filter(tap, channel)`, taps row by row, for bytes whose zero point is `zero`. `None` where the machine has no
    /// such instructions, or the window or a value is none of theirs.
    pub fn pack(
        isa: Isa,
        window: &Window,
        channels: usize,
        filter: impl Fn(usize, usize) -> f32,
        zero: u8,
        scale: &Scale<'_>,
    ) -> Option<Interleaved<T>> {
        let ([rows, columns], stride) = (window.kernel, window.stride[1]);
        let quads = (columns + stride).div_ceil(4);
        if !T::able(isa) || window.dilation != [1, 1] || stride > 2 || quads > MOST_QUADS || rows > MOST_ROWS {
            return None;
        }
        let chunks = channels.div_ceil(T::CHUNK);
        // A vector for each group of pixels and each position of a pair.
        let (groups, vector) = (4 * quads / T::GROUP, T::GROUP * T::CHUNK);
        let block = rows * groups * 2 * vector;
        let limit = |l: f32| (l.round_ties_even() as i32).clamp(-scale.zero, 255 - scale.zero) as i16;
        let mut made = Interleaved {
            channels,
            quads,
            filter: Buffer::new(chunks * block),
            begin: Buffer::new(chunks * T::CHUNK),
            factor: Buffer::new(chunks * T::CHUNK),
            offset: Buffer::new(chunks * T::CHUNK),
            outside: Buffer::new(chunks * T::CHUNK),
            zero: i16::from(u8::try_from(scale.zero).ok()?),
            limits: scale.limits.map(limit),
        };
        made.outside.fill(zero);
        for (at, (chunk, place)) in (0..chunks).flat_map(|c| (0..T::CHUNK).map(move |p| (c, p))).enumerate() {
            let channel = chunk * T::CHUNK + T::channel(place);
            let (Some(factor), Some(offset)) = (scale.factor.get(channel), scale.offset.get(channel)) else { continue };
            let (mut sum, mut most) = (0, 0);
            for tap in 0..rows * columns {
                let value = T::of(filter(tap, channel))?;
                let whole: i32 = value.into();
                (sum, most) = (sum + whole, most + 255 * whole.abs());
                let (row, column) = (tap / columns, tap % columns);
                for shift in 0..2 {
                    let pixel = column + shift * stride;
                    let first = ((row * groups + pixel / T::GROUP) * 2 + shift) * vector;
                    made.filter[chunk * block + first + place * T::GROUP + pixel % T::GROUP] = value;
                }
            }
            // So that nothing is lost on the way to int32.
            let largest = most as f32 * factor.abs() + offset.abs();
            if largest.is_nan() || largest > 1e9 {
                return None;
            }
            let begin = (T::SHIFT - i32::from(zero)) * sum;
            (made.begin[at], made.factor[at], made.offset[at]) = (begin, *factor, *offset);
        }
        Some(made)
    }
}

/// For each row of a window the pixels that some neighbouring positions see.
pub(crate) type Pixels = [[*const u8; 2 * MOST_HALVES]; MOST_ROWS];
/// None yet.
pub(crate) const NO_PIXELS: Pixels = [[std::ptr::null(); 2 * MOST_HALVES]; MOST_ROWS];

/// Finds the first `seen` pixels of each row of the window at position `at`; `outside` is one that lies outside the picture.
///
/// # Safety
/// `input` holds the window's picture of so many channels; there are no more rows and pixels than there is room for.
#[inline(always)]
pub(crate) unsafe fn look(
    w: &Window,
    channels: usize,
    input: *const u8,
    outside: *const u8,
    at: usize,
    seen: usize,
    pixels: &mut Pixels,
) {
    let (y, x) = (at / w.output[1], at % w.output[1]);
    let left = (x * w.stride[1]).wrapping_sub(w.before[1]);
    for (row, pixels) in pixels[..w.kernel[0]].iter_mut().enumerate() {
        let from = w.source(0, y, row);
        for (column, pixel) in pixels[..seen].iter_mut().enumerate() {
            let column = left.wrapping_add(column);
            *pixel = match from {
                // SAFETY: a pixel of the picture, by the caller's promise.
                Some(row) if column < w.input[1] => unsafe { input.add((row * w.input[1] + column) * channels) },
                _ => outside,
            };
        }
    }
}

/// The walk over positions of a layer by fours: as many at a time as a block takes, by `$block::<P, Q, S>` of `P` pairs of them, `Q`
/// fours of pixels in a row of the window for a pair, `S` pixels apart. It stands where the set's features are enabled.
///
/// Safety: `$input` holds the window's picture, `$out` points to room for the positions, which are the window's.
macro_rules! walk_fours {
    ($layer:ident, $w:ident, $input:ident, $positions:ident, $out:ident, $block:ident) => {{
        let (width, stride, rows) = ($w.output[1], $w.stride[1], $w.kernel[0]);
        let mut pixels = $crate::interleaved::NO_PIXELS;
        let (mut at, mut out) = ($positions.start, $out);
        while at < $positions.end {
            let count = ($positions.end - at).min(width - at % width).min(2 * $crate::interleaved::PAIRS);
            let pairs = count.div_ceil(2);
            let seen = 4 * $layer.quads + 2 * (pairs - 1) * stride;
            let outside = $layer.outside.as_ptr();
            // SAFETY: the caller's promise.
            unsafe { $crate::interleaved::look($w, $layer.channels, $input, outside, at, seen, &mut pixels) };
            // SAFETY: the pixels are those of so many pairs; there is room for every position.
            unsafe {
                match (pairs, $layer.quads, stride) {
                    (1, 1, 1) => $block::<1, 1, 1>($layer, rows, &pixels, count, out),
                    (1, 1, _) => $block::<1, 1, 2>($layer, rows, &pixels, count, out),
                    (1, _, 1) => $block::<1, 2, 1>($layer, rows, &pixels, count, out),
                    (1, _, _) => $block::<1, 2, 2>($layer, rows, &pixels, count, out),
                    (_, 1, 1) => $block::<2, 1, 1>($layer, rows, &pixels, count, out),
                    (_, 1, _) => $block::<2, 1, 2>($layer, rows, &pixels, count, out),
                    (_, _, 1) => $block::<2, 2, 1>($layer, rows, &pixels, count, out),
                    (_, _, _) => $block::<2, 2, 2>($layer, rows, &pixels, count, out),
                }
                out = out.add(count * $layer.channels);
            }
            at += count;
        }
    }};
}
pub(crate) use walk_fours;
