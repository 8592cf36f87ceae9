//! Products of bytes where the two of a pair are added in 16 bits (`pmaddubsw` of AVX2), without saturating.
//!
//! 255 times the sum of two weights of one sign has to fit, so they may add up to 128. Where they would to more, which is so for one
//! or two pairs in a hundred of a trained network's weights, the four values of k that the pair is part of are paired otherwise:
//! `pshufb` brings the bytes of A into the order of each column. Where no order helps, what is too much is taken off the larger
//! weight, and the four is multiplied once more with that. Either way the sum is what it is in whole numbers.
//!
//! Weights that lie evenly in their range, as before training, have so many such fours that products of int16
//! ([`crate::Weights8`]) are faster.

use crate::Buffer;
use crate::gemm::Places;
use crate::gemm8::{Scale, Sink, write};
use crate::simd::Avx2;
use std::arch::x86_64::*;

/// Columns of a vector.
const LANES: usize = 8;
/// Vectors of a panel.
const WIDTH: usize = 2;
/// The weights of a pair may add up to that many, either way: 255 times as many fit 16 bits.
const MOST: i32 = 128;
/// What a four in another order costs, where one as it is costs 1.
const TURNED: f32 = 1.4;
/// What the same products cost as int16.
const PAIRS: f32 = 1.3;

/// The ways to pair four values, the first one as they are.
const ORDERS: [[i8; 4]; 3] = [[0, 1, 2, 3], [0, 2, 1, 3], [0, 3, 1, 2]];

/// W, packed.
#[derive(Clone)]
pub(crate) struct Narrow {
    panels: Vec<Panel>,
    /// The run, and the value in it, that each four of rows begins with; panel by panel, those as they are first.
    places: Vec<[u32; 2]>,
    /// For each a four of every column; for those in another order that order, too.
    values: Buffer<i8>,
}

/// Some columns.
#[derive(Clone)]
struct Panel {
    /// Fours as they are.
    plain: usize,
    /// Those in another order.
    turned: usize,
}

/// What is packed of a panel so far.
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
}

impl Narrow {
    /// Packs `fours` fours of rows in runs of `run` of them: of `columns` columns, padded to whole vectors, panel by panel, in it four
    /// by four, in them column by column.
    pub fn pack(panels: &[[i8; 4]], fours: usize, run: usize, columns: usize) -> Narrow {
        let mut made = Narrow { panels: vec![], places: vec![], values: Buffer::new(0) };
        let mut values = Vec::with_capacity(panels.len());
        for (first, panel) in (0..columns).step_by(WIDTH * LANES).zip(panels.chunks(fours.max(1) * WIDTH * LANES)) {
            let width = (WIDTH * LANES).min(columns - first);
            let (mut plain, mut turned) = (0, Fours::default());
            for (four, weights) in panel.chunks_exact(width).enumerate() {
                let place = [(four / run) as u32, (four % run * 4) as u32];
                let mut keep = |weights: &[[i8; 4]]| {
                    made.places.push(place);
                    values.extend_from_slice(weights);
                    plain += 1;
                };
                if all_fit(weights) {
                    keep(weights);
                    continue;
                }
                let mut orders = [ORDERS[0]; WIDTH * LANES];
                let (mut here, mut kept) = ([[0; 4]; WIDTH * LANES], [[0; 4]; WIDTH * LANES]);
                here[..width].copy_from_slice(weights);
                for ((weights, order), kept) in here[..width].iter_mut().zip(&mut orders).zip(&mut kept) {
                    let other = |order: &[i8; 4]| order.map(|at| weights[at as usize]);
                    match ORDERS.iter().find(|order| fits(&other(order))) {
                        Some(found) => (*weights, *order) = (other(found), *found),
                        None => split(weights, kept),
                    }
                }
                turned.push(place, &here[..width]);
                turned.values.extend_from_slice(&orders[..width]);
                if kept != [[0; 4]; WIDTH * LANES] {
                    keep(&kept[..width]);
                }
            }
            made.panels.push(Panel { plain, turned: turned.places.len() });
            made.places.extend(turned.places);
            values.extend(turned.values);
        }
        made.values = Buffer::new(4 * values.len());
        made.values.copy_from_slice(values.as_flattened());
        made
    }

    /// Whether that is faster than products of int16 are.
    pub fn is_faster(&self, fours: usize) -> bool {
        let cost = |panel: &Panel| panel.plain as f32 + TURNED * panel.turned as f32;
        self.panels.iter().map(cost).sum::<f32>() < PAIRS * (fours * self.panels.len()) as f32
    }
}

/// Whether the pairs of a four add up to what fits.
fn fits(four: &[i8; 4]) -> bool {
    four.chunks_exact(2).all(|pair| (i32::from(pair[0]) + i32::from(pair[1])).abs() <= MOST)
}

/// The same for many; without a branch for each.
fn all_fit(fours: &[[i8; 4]]) -> bool {
    let most = fours.as_flattened().chunks_exact(2).map(|pair| (i16::from(pair[0]) + i16::from(pair[1])).abs());
    most.fold(0, i16::max) <= MOST as i16
}

/// Moves what is too much of the larger one of each pair.
fn split(four: &mut [i8; 4], kept: &mut [i8; 4]) {
    for (pair, kept) in four.chunks_exact_mut(2).zip(kept.chunks_exact_mut(2)) {
        let sum = i32::from(pair[0]) + i32::from(pair[1]);
        let too_much = sum - sum.clamp(-MOST, MOST);
        // Of two of one sign, the larger one is at least half of their sum, and no less than what is too much.
        let larger = usize::from(pair[1].unsigned_abs() > pair[0].unsigned_abs());
        kept[larger] = too_much as i8;
        pair[larger] = (i32::from(pair[larger]) - too_much) as i8;
    }
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
    let (n, mut places, mut values) = (begin.len(), w.places.as_ptr(), w.values.as_ptr());
    for (panel, column) in w.panels.iter().zip((0..n).step_by(WIDTH * LANES)) {
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
                                let sums = products::<$height, $v, $one>(panel, places, values, a, rows.pitch, begin);
                                write(Avx2::new(), sums, scale, column, c, n);
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
        let bytes = if wide { WIDTH } else { 1 } * LANES * 4;
        // SAFETY: what is packed of a panel.
        unsafe {
            places = places.add(panel.plain + panel.turned);
            values = values.add((panel.plain + 2 * panel.turned) * bytes);
        }
    }
}

/// The sums of `M` rows and `V` vectors of columns; of rows of one run, where `ONE`. Loops go over constant bounds, so that all is
/// unrolled and the sums stay in registers.
///
/// # Safety
/// All that lies where it should.
#[inline]
#[expect(clippy::needless_range_loop)]
#[target_feature(enable = "avx2,fma")]
unsafe fn products<const M: usize, const V: usize, const ONE: bool>(
    panel: &Panel,
    mut places: *const [u32; 2],
    mut values: *const i8,
    a: [*const u8; M],
    pitch: usize,
    begin: *const i32,
) -> [[__m256i; V]; M] {
    // SAFETY: the caller's promise.
    unsafe {
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
            ($sum:expr, $x:expr, $w:expr) => {
                $sum = _mm256_add_epi32($sum, _mm256_madd_epi16(_mm256_maddubs_epi16($x, $w), ones))
            };
        }
        macro_rules! plain {
            ($at:literal) => {
                let offset = offset(places.add($at));
                let w: [_; V] = std::array::from_fn(|j| load(values.add(($at * V + j) * 32)));
                for i in 0..M {
                    let x = four(i, offset);
                    for j in 0..V {
                        add!(sums[i][j], x, w[j]);
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
        for _ in 0..panel.turned {
            let offset = offset(places);
            for i in 0..M {
                let x = four(i, offset);
                for j in 0..V {
                    let (w, order) = (load(values.add(j * 32)), load(values.add((V + j) * 32)));
                    add!(sums[i][j], _mm256_shuffle_epi8(x, order), w);
                }
            }
            (places, values) = (places.add(1), values.add(2 * V * 32));
        }
        sums
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
    fn every_pair_fits_and_nothing_is_lost() {
        for pair in (i8::MIN..=i8::MAX).flat_map(|a| (i8::MIN..=i8::MAX).map(move |b| [a, b])) {
            let four = [pair[0], pair[1], 1, -1];
            assert_eq!(fits(&four), never_saturates(&four), "{pair:?}");
            assert_eq!(all_fit(&[[0; 4], four]), fits(&four), "{pair:?}");
            let (mut cut, mut kept) = (four, [0; 4]);
            split(&mut cut, &mut kept);
            assert!(never_saturates(&cut) && never_saturates(&kept), "{pair:?}: {cut:?} and {kept:?}");
            assert_eq!(kept == [0; 4], fits(&four), "{pair:?}");
            for i in 0..4 {
                assert_eq!(i32::from(cut[i]) + i32::from(kept[i]), i32::from(four[i]), "{pair:?}");
            }
        }
    }

    #[test]
    fn another_order_helps_before_anything_is_multiplied_twice() {
        let packed = |four: [i8; 4]| {
            let mut fours = [[1, 2, 3, 4]; 8];
            fours[3] = four;
            let Narrow { panels, values, .. } = Narrow::pack(&fours, 1, 1, 8);
            assert_eq!(panels.len(), 1);
            (panels[0].plain, panels[0].turned, values[12..16].to_vec())
        };
        assert_eq!(packed([127, 1, -128, 0]), (1, 0, vec![127, 1, -128, 0]));
        assert_eq!(packed([127, 2, 3, 4]).1, 1);
        assert_eq!(packed([100, 90, 1, 2]), (0, 1, vec![100, 1, 90, 2]));
        assert_eq!(packed([100, 90, 30, 20]), (0, 1, vec![100, 20, 90, 30]));
        let (again, once, rest) = packed([100, 90, 80, 70]);
        assert_eq!((again, once, rest), (1, 1, vec![62, 0, 22, 0]));
    }
}
