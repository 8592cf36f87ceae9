//! Values inside a network: what a classifier's base makes of a picture, or each layer's output.

use crate::runner::Runner;
use crate::{EngineError, LoadOptions, OnnxModel};
use edge_kernels::Float16;
use edge_package::InputSpec;

/// A network up to some of its values, in the kernels that classify: it computes them for one picture at a time.
pub struct Probe {
    runner: Runner,
    shapes: Vec<Vec<usize>>,
    values: Vec<Vec<f32>>,
}

impl Probe {
    /// Prepares `model` for pictures of the shape in `input`. `names` are the float values that are asked for, by the names that
    /// the file gives them; of a quantized network what a DequantizeLinear makes.
    pub fn load(
        model: &OnnxModel<'_>,
        input: &InputSpec,
        names: &[&str],
        options: &LoadOptions,
    ) -> Result<Probe, EngineError> {
        let runner = Runner::load(model, input, names, options, Float16::Never)?;
        let shapes: Vec<Vec<usize>> = (0..names.len()).map(|i| runner.shape(i)).collect::<Result<_, _>>()?;
        let values = shapes.iter().map(|s| vec![0.0; s.iter().product()]).collect();
        Ok(Probe { runner, shapes, values })
    }

    /// The dimensions of each value, in the order in which they were asked for, the batch of one first: (1,C,H,W), (1,H,W,C)
    /// or (1,K), as in the file.
    pub fn shapes(&self) -> &[Vec<usize>] {
        &self.shapes
    }

    /// Computes the values for one preprocessed picture of shape [`InputSpec::shape`].
    pub fn run(&mut self, tensor: &[f32]) -> Result<&[Vec<f32>], EngineError> {
        self.runner.run(tensor)?;
        self.runner.copy_all(tensor, &mut self.values)?;
        Ok(&self.values)
    }
}
