//! Products of bytes where the two of a pair are added in 16 bits (`pmaddubsw` of AVX2), without saturating.
//!
//! 255 times the sum of two weights of one sign has to fit, so they may add up to 128. Four values of k where that is so in every
//! column of a panel are multiplied as they are. Where two such fours fit together, they are a couple: what their pairs make is
//! added in 16 bits and becomes 32 bits once (`pmaddwd`), three multiplications instead of four. The order of k is free, so a
//! partner is looked for among all fours of the panel. Of Xception's fours 70 of a hundred have one.
//!
//! The other fours have weights of 16 bits and no sums of that size: the bytes of A at even and at odd places are taken apart, and
//! each half is multiplied with its weights by `pmaddwd`. So a product is what it is in whole numbers whatever the weights are.
//!
//! Weights that lie evenly in their range, as before training, have so many of those that products of int16
//! ([`crate::Weights8`]) are faster.

use crate::Buffer;
use crate::gemm::Places;
use crate::gemm8::{Scale, Sink, write};
use crate::simd::Avx2;
use std::arch::{asm, x86_64::*};
use std::cmp::Reverse;

/// Columns of a vector.
const LANES: usize = 8;
/// Vectors of a panel.
const WIDTH: usize = 2;
/// The weights of a pair may add up to that many, either way: 255 times as many fit 16 bits.
const MOST: u8 = 128;
/// Fours that are looked at for a partner of one: most have one among the first ten.
const TRIES: usize = 512;
/// What a four of a couple costs, where one by itself costs 1.
const COUPLED: f32 = 0.83;
/// What one of 16 bits costs.
const WIDE: f32 = 1.43;
/// What the same products cost as int16.
const PAIRS: f32 = 1.25;

/// W, packed.
#[derive(Clone)]
pub(crate) struct Narrow(pub Vec<Panel>);

/// Some columns: how many fours of each kind there are, and all of them in that order.
#[derive(Clone)]
pub(crate) struct Panel {
    /// Couples of fours as they are.
    couples: usize,
    /// Fours as they are.
    plain: usize,
    /// Those of 16 bits.
    wide: usize,
    /// The run, and the value in it, that each begins with.
    places: Vec<[u32; 2]>,
    /// For each a four of every column; of those of 16 bits, the values at even places, as two bytes each, then those at odd ones.
    values: Buffer<i8>,
}

/// What is packed of a panel so far, of one kind.
#[derive(Default)]
struct Fours {
    places: Vec<[u32; 2]>,
    values: Vec<[i8; 4]>,
}

impl Fours {
    fn push(&mut self, place: [u32; 2], values: &[[i8; 4]]) {
        self.places.push(place);
        self.values.extend_from_slice(values);
    }

    /// Those of `width` columns that find a partner, couple by couple, and the rest.
    fn couple(&self, width: usize) -> (Fours, Fours) {
        let lines: Vec<&[[i8; 4]]> = self.values.chunks_exact(width).collect();
        let loads: Vec<Load> = lines.iter().map(|line| Load::of(line)).collect();
        // Those that are hardest to find one for come first.
        let mut left: Vec<usize> = (0..lines.len()).collect();
        left.sort_by_key(|at| Reverse(loads[*at].most()));
        let (mut couples, mut alone) = (Fours::default(), Fours::default());
        while !left.is_empty() {
            let first = left.remove(0);
            match left.iter().take(TRIES).position(|second| loads[first].fits(&loads[*second])) {
                Some(at) => {
                    for at in [first, left.remove(at)] {
                        couples.push(self.places[at], lines[at]);
                    }
                }
                None => alone.push(self.places[first], lines[first]),
            }
        }
        (couples, alone)
    }
}

/// What the positive and the negative weights of each pair of a four of columns add up to.
struct Load([[u8; WIDTH * LANES * 2]; 2]);

impl Load {
    fn of(line: &[[i8; 4]]) -> Load {
        let mut load = [[0; WIDTH * LANES * 2]; 2];
        for (at, pair) in line.as_flattened().chunks_exact(2).enumerate() {
            for weight in pair {
                load[usize::from(*weight < 0)][at] += weight.unsigned_abs();
            }
        }
        Load(load)
    }

    fn most(&self) -> u8 {
        self.0.as_flattened().iter().copied().fold(0, u8::max)
    }

    /// Whether both together fit.
    fn fits(&self, other: &Load) -> bool {
        let (ours, theirs) = (self.0.as_flattened(), other.0.as_flattened());
        ours.iter().zip(theirs).fold(0, |most, (a, b)| most.max(a.saturating_add(*b))) <= MOST
    }
}

impl Narrow {
    /// Whether that is faster than products of int16 are.
    pub fn is_faster(&self, fours: usize) -> bool {
        let cost = |panel: &Panel| 2.0 * COUPLED * panel.couples as f32 + panel.plain as f32 + WIDE * panel.wide as f32;
        self.0.iter().map(cost).sum::<f32>() < PAIRS * (fours * self.0.len()) as f32
    }
}

impl Panel {
    /// Packs fours of rows, in runs of `run` of them, of `width` columns: four by four, in them column by column.
    pub fn pack(fours: &[[i8; 4]], run: usize, width: usize) -> Panel {
        let (mut plain, mut wide) = (Fours::default(), Fours::default());
        for (four, weights) in fours.chunks_exact(width).enumerate() {
            let place = [(four / run) as u32, (four % run * 4) as u32];
            if fit(weights) {
                plain.push(place, weights);
            } else {
                wide.places.push(place);
                wide.values.extend([0, 1].into_iter().flat_map(|odd| widened(weights, odd)));
            }
        }
        let (couples, plain) = plain.couple(width);
        let kinds = [couples, plain, wide];
        let [paired, plain, wide] = kinds.each_ref().map(|fours| fours.places.len());
        let all: Vec<[i8; 4]> = kinds.iter().flat_map(|fours| fours.values.iter().copied()).collect();
        let mut values = Buffer::new(4 * all.len());
        values.copy_from_slice(all.as_flattened());
        let places = kinds.into_iter().flat_map(|fours| fours.places).collect();
        Panel { couples: paired / 2, plain, wide, places, values }
    }
}

/// Whether the pairs of fours add up to what fits; without a branch for each.
fn fit(fours: &[[i8; 4]]) -> bool {
    let most = fours.as_flattened().chunks_exact(2).map(|pair| (i16::from(pair[0]) + i16::from(pair[1])).abs());
    most.fold(0, i16::max) <= i16::from(MOST)
}

/// The values of fours at even places, or odd ones, in 16 bits.
fn widened(fours: &[[i8; 4]], odd: usize) -> impl Iterator<Item = [i8; 4]> {
    fours.iter().map(move |four| {
        let [first, second] = [four[odd], four[2 + odd]].map(|value| i16::from(value).to_le_bytes());
        [first[0], first[1], second[0], second[1]].map(|byte| byte as i8)
    })
}

/// Computes rows of C, of `begin.len()` columns each, from rows of A of `runs` runs.
///
/// # Safety
/// The machine has the instructions; every row of A lies within `a`; `c` has room for all rows, `scale` is for as many columns, and so
/// is `w`.
#[target_feature(enable = "avx2,fma")]
pub(crate) unsafe fn multiply<C: Sink>(
    w: &Narrow,
    begin: &[i32],
    runs: usize,
    a: &[u8],
    rows: Places<'_>,
    scale: &Scale<'_>,
    c: &mut [C],
) {
    let n = begin.len();
    for (panel, column) in w.0.iter().zip((0..n).step_by(WIDTH * LANES)) {
        let wide = n - column > LANES;
        let mut row = 0;
        macro_rules! take {
            ($($height:literal)*) => {
                $(while rows.starts.len() - row >= $height {
                    // SAFETY: so many rows are there; columns are whole vectors within C, W and the scales.
                    unsafe {
                        let a: [*const u8; $height] =
                            std::array::from_fn(|i| a.as_ptr().add(*rows.starts.get_unchecked(row + i) as usize));
                        let c = c.as_mut_ptr().add(row * n + column);
                        let begin = begin.as_ptr().add(column);
                        macro_rules! tile {
                            ($v:literal, $one:literal) => {{
                                tile::<C, $height, $v, $one>(
                                    panel, a, rows.pitch, begin, scale, column, c, n,
                                )
                            }};
                        }
                        match (wide, runs == 1) {
                            (true, true) => tile!(2, true),
                            (true, false) => tile!(2, false),
                            (false, true) => tile!(1, true),
                            (false, false) => tile!(1, false),
                        }
                    }
                    row += $height;
                })*
            };
        }
        take!(4 2 1);
    }
}

/// Computes `M` rows and `V` vectors of columns of C; of rows of one run, where `ONE`. Loops go over constant bounds, so that all
/// is unrolled and the sums stay in registers, as they did not where they were returned.
///
/// # Safety
/// All that lies where it should.
#[inline]
#[expect(clippy::needless_range_loop, clippy::too_many_arguments)]
#[target_feature(enable = "avx2,fma")]
unsafe fn tile<C: Sink, const M: usize, const V: usize, const ONE: bool>(
    panel: &Panel,
    a: [*const u8; M],
    pitch: usize,
    begin: *const i32,
    scale: &Scale<'_>,
    column: usize,
    c: *mut C,
    stride: usize,
) {
    // SAFETY: the caller's promise.
    unsafe {
        let (mut places, mut values) = (panel.places.as_ptr(), panel.values.as_ptr());
        let ones = _mm256_set1_epi16(1);
        let load = |p: *const i8| _mm256_loadu_si256(p.cast());
        let begin: [__m256i; V] = std::array::from_fn(|j| _mm256_loadu_si256(begin.add(j * LANES).cast()));
        let mut sums = [begin; M];
        let offset = |place: *const [u32; 2]| match ONE {
            true => (*place)[1] as usize,
            false => (*place)[0] as usize * pitch + (*place)[1] as usize,
        };
        let four = |i: usize, offset: usize| _mm256_set1_epi32(a[i].add(offset).cast::<i32>().read_unaligned());
        macro_rules! add {
            ($sum:expr, $pairs:expr) => {
                $sum = _mm256_add_epi32($sum, _mm256_madd_epi16($pairs, ones))
            };
        }
        for _ in 0..panel.couples {
            let offsets = [offset(places), offset(places.add(1))];
            let (kept, mut again) = ([0, V].map(|four| load(values.add(four * 32))), values);
            for i in 0..M {
                // What W has for the second vector is read for each row, or there would be too few registers.
                asm!("/* {} */", inout(reg) again, options(nostack, preserves_flags));
                let x = offsets.map(|offset| four(i, offset));
                for j in 0..V {
                    let w = if j == 0 { kept } else { [0, V].map(|four| load(again.add((four + j) * 32))) };
                    let pairs = [0, 1].map(|at| _mm256_maddubs_epi16(x[at], w[at]));
                    add!(sums[i][j], _mm256_add_epi16(pairs[0], pairs[1]));
                }
            }
            (places, values) = (places.add(2), values.add(2 * V * 32));
        }
        macro_rules! plain {
            ($at:literal) => {
                let offset = offset(places.add($at));
                let w: [_; V] = std::array::from_fn(|j| load(values.add(($at * V + j) * 32)));
                for i in 0..M {
                    let x = four(i, offset);
                    for j in 0..V {
                        add!(sums[i][j], _mm256_maddubs_epi16(x, w[j]));
                    }
                }
            };
        }
        // Two at a time go as fast as the machine can.
        for _ in 0..panel.plain / 2 {
            plain!(0);
            plain!(1);
            (places, values) = (places.add(2), values.add(2 * V * 32));
        }
        if panel.plain % 2 == 1 {
            plain!(0);
            (places, values) = (places.add(1), values.add(V * 32));
        }
        let even = _mm256_set1_epi16(0xff);
        for _ in 0..panel.wide {
            let offset = offset(places);
            let w: [_; V] = std::array::from_fn(|j| [0, V].map(|odd| load(values.add((odd + j) * 32))));
            for i in 0..M {
                let x = four(i, offset);
                let x = [_mm256_and_si256(x, even), _mm256_srli_epi16::<8>(x)];
                for j in 0..V {
                    for odd in 0..2 {
                        sums[i][j] = _mm256_add_epi32(sums[i][j], _mm256_madd_epi16(x[odd], w[j][odd]));
                    }
                }
            }
            (places, values) = (places.add(1), values.add(2 * V * 32));
        }
        write(Avx2::new(), sums, scale, column, c, stride);
    }
}

/// Additions of products to each of `N` sums, of the sums themselves: products that never change would be made once.
///
/// # Safety
/// The machine has the instructions.
#[target_feature(enable = "avx2,fma")]
pub(crate) unsafe fn repeated<const N: usize>(turns: usize, factor: [i8; 4]) -> i32 {
    let (x, ones) = (_mm256_set1_epi32(i32::from_le_bytes(factor.map(|b| b as u8))), _mm256_set1_epi16(1));
    let mut sums = [ones; N];
    for _ in 0..turns {
        for sum in &mut sums {
            *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(_mm256_maddubs_epi16(*sum, x), ones));
        }
    }
    sums.into_iter().fold(0, |total, sum| total.wrapping_add(_mm256_extract_epi32::<0>(sum)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The extremes of a sum of pairs with bytes.
    fn never_saturates(four: &[i8; 4]) -> bool {
        four.chunks_exact(2).all(|pair| {
            [1, -1].iter().all(|sign| {
                let most: i32 = pair.iter().map(|v| 255 * (sign * i32::from(*v)).max(0)).sum();
                i16::try_from(sign * most).is_ok()
            })
        })
    }

    #[test]
    fn what_fits_never_saturates() {
        for pair in (i8::MIN..=i8::MAX).flat_map(|a| (i8::MIN..=i8::MAX).map(move |b| [a, b])) {
            let four = [pair[0], pair[1], 1, -1];
            assert_eq!(fit(&[[0; 4], four]), never_saturates(&four), "{pair:?}");
        }
    }

    #[test]
    fn couples_are_of_fours_that_fit_together() {
        let packed = |fours: &[[i8; 4]]| {
            let columns: Vec<[i8; 4]> = fours.iter().flat_map(|four| [[1, 2, 3, 4], *four].repeat(4)).collect();
            let panel = Panel::pack(&columns, fours.len(), 8);
            let places: Vec<u32> = panel.places.iter().map(|place| place[1] / 4).collect();
            (panel.couples, panel.plain, panel.wide, places)
        };
        let (small, some, large) = ([1, -2, 3, -4], [100, 20, -100, -20], [100, 90, 80, 70]);
        assert_eq!(packed(&[small, large, small]), (1, 0, 1, vec![0, 2, 1]));
        assert_eq!(packed(&[some, small, some]), (1, 1, 0, vec![0, 1, 2]));
        assert_eq!(packed(&[some, [-100, -20, 100, 20]]), (1, 0, 0, vec![0, 1]));
        assert_eq!(packed(&[some, [8, 0, 0, 0]]), (1, 0, 0, vec![0, 1]));
        assert_eq!(packed(&[some, [9, 0, 0, 0]]), (0, 2, 0, vec![0, 1]));
    }
}
