//! The weights of a matrix product as the file has them: those that are small there stay small in memory.

use super::constant::Constants;
use super::graph::Filter;
use edge_kernels::{Float16, Isa, Small, Weights};

/// So few weights become float32 once, on a processor that multiplies nothing smaller: half a megabyte of memory at most, where
/// they would be decoded for every strip of a picture's many. What is simulated stays as small as it is.
const FEW: usize = if cfg!(target_arch = "x86_64") { 1 << 17 } else { 0 };

/// Weights and a factor for each output.
pub struct Matrix {
    kept: Kept,
    factor: Vec<f32>,
}

enum Kept {
    Floats(Vec<f32>),
    Halves(Vec<u16>),
    Bytes(Vec<i8>),
}

impl Matrix {
    /// The weights of a filter for so many outputs, which are the dimension `axis` of its constant.
    pub fn read(constants: &Constants<'_>, filter: &Filter, outputs: usize, axis: usize) -> Result<Matrix, String> {
        let mut factor = filter.scale.clone().unwrap_or_else(|| vec![1.0; outputs]);
        let kept = if let Some(halves) = constants.halves(&filter.name) {
            Kept::Halves(halves)
        } else if let Some((bytes, scale)) = bytes(constants, &filter.name, outputs, axis) {
            factor.iter_mut().zip(scale).for_each(|(f, s)| *f *= s);
            Kept::Bytes(bytes)
        } else {
            Kept::Floats(constants.values(&filter.name)?)
        };
        match factor.len() == outputs && factor.iter().all(|f| f.is_finite()) {
            true => Ok(Matrix { kept, factor }),
            false => Err(format!("the constant {:?} has not one finite factor per output", filter.name)),
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        match &self.kept {
            Kept::Floats(values) => values.len(),
            Kept::Halves(values) => values.len(),
            Kept::Bytes(values) => values.len(),
        }
    }

    /// Those of float32, with their factors; none where they are smaller.
    pub fn floats(&self) -> Option<(&[f32], &[f32])> {
        match &self.kept {
            Kept::Floats(values) => Some((values, &self.factor)),
            _ => None,
        }
    }

    /// Packs a matrix of `k` rows, whose value in a row and of an output is the one at that place, or zero. Products with
    /// float16 weights are computed as `float16` says.
    pub fn pack(
        &self,
        isa: Isa,
        float16: Float16,
        k: usize,
        runs: usize,
        place: impl Fn(usize, usize) -> Option<usize>,
    ) -> Weights {
        let factor = &self.factor;
        match &self.kept {
            Kept::Floats(values) => Weights::pack(isa, k, factor.len(), runs, |row, o| {
                place(row, o).map_or(0.0, |at| values[at] * factor[o])
            }),
            Kept::Halves(values) if values.len() <= FEW && float16 != Float16::Simulated => {
                let value = |at: usize| half::f16::from_bits(values[at]).to_f32();
                let value = |row: usize, o: usize| place(row, o).map_or(0.0, |at| value(at) * factor[o]);
                Weights::pack(isa, k, factor.len(), runs, value).widened()
            }
            Kept::Bytes(values) if values.len() <= FEW => {
                let value = |row: usize, o: usize| place(row, o).map_or(0.0, |at| f32::from(values[at]) * factor[o]);
                Weights::pack(isa, k, factor.len(), runs, value)
            }
            Kept::Halves(values) => {
                let value = |row: usize, o: usize| place(row, o).map_or(0, |at| values[at]);
                Weights::pack_small(isa, k, factor, runs, Small::Halves(&value)).in_float16(float16)
            }
            Kept::Bytes(values) => {
                let value = |row: usize, o: usize| place(row, o).map_or(0, |at| values[at]);
                Weights::pack_small(isa, k, factor, runs, Small::Bytes(&value))
            }
        }
    }
}

/// A constant of signed bytes, their zero point taken off, with a scale for each output.
fn bytes(constants: &Constants<'_>, name: &str, outputs: usize, axis: usize) -> Option<(Vec<i8>, Vec<f32>)> {
    let whole = constants.bytes(name)?;
    let values = whole.values.iter().map(|v| i8::try_from(*v).ok()).collect::<Option<Vec<_>>>()?;
    let scale = match whole.scale[..] {
        [one] => vec![one; outputs],
        _ if whole.axis == axis && whole.scale.len() == outputs => whole.scale,
        _ => return None,
    };
    Some((values, scale))
}
