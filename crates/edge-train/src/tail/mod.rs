//! The tail of a base, unfrozen: its layers forward and back, trained together with the head.
//!
//! ```text
//! cut.rs: where it begins ── read.rs: ONNX nodes to layers ── ops.rs, conv.rs, pool.rs: forward and back
//!                                                                   │
//!              the base's file with other weights ── write.rs ── tune.rs: epochs
//! ```
//!
//! A value is a batch of pictures (N,H,W,C), whatever the file's layout is, and a vector is a picture of one pixel. Normalization
//! keeps the statistics that it has, as Keras' layers with `training=False`: on the few photos of a fine-tuning those of a batch
//! cost points (DESIGN.md). The products run in the kernels that classify.

mod conv;
mod cut;
mod ops;
mod pool;
mod read;
mod tune;
mod write;

pub use cut::Part;
pub use tune::{Activations, Tuned, Tuning, evaluate, logits, seconds, tune};
pub(crate) use write::write;

use conv::Packed;
use ops::{Op, add_to};

/// Height, width, channels.
pub type Shape = [usize; 3];

/// The layers of a tail, in the order of computation.
#[derive(Debug, Clone)]
pub struct Tail {
    /// Of each value; the first is what the tail reads, the last the features.
    shapes: Vec<Shape>,
    layers: Vec<Layer>,
    parameters: Vec<Parameter>,
}

#[derive(Debug, Clone)]
struct Layer {
    op: Op,
    /// Values, by number.
    inputs: Vec<usize>,
    output: usize,
}

/// Weights that are trained.
#[derive(Debug, Clone, PartialEq)]
pub struct Parameter {
    /// The value of the file that they are.
    pub name: String,
    /// As there.
    pub dims: Vec<usize>,
    /// As there.
    pub values: Vec<f32>,
}

/// What a pass forward leaves for the pass back: every value of a batch.
pub struct Trace(Vec<Vec<f32>>);

impl Trace {
    /// The features, photo by photo.
    pub fn features(&self) -> &[f32] {
        self.0.last().map_or(&[], Vec::as_slice)
    }
}

/// A tail's weights, as the kernels read them. Made anew after each step.
pub struct Ready(Vec<Packed>);

impl Tail {
    /// What is trained.
    pub fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }

    /// It, to change; lengths must stay.
    pub fn parameters_mut(&mut self) -> &mut [Parameter] {
        &mut self.parameters
    }

    /// Values of a feature vector.
    pub fn width(&self) -> usize {
        self.shapes.last().map_or(0, |s| s.iter().product())
    }

    /// Values of a photo that a pass forward and back holds, about.
    pub fn values(&self) -> usize {
        2 * self.shapes.iter().map(|s| s.iter().product::<usize>()).sum::<usize>()
    }

    /// Lays the weights out for the kernels; `back` also for the pass back.
    pub fn ready(&self, back: bool) -> Ready {
        let pack = |layer: &Layer| Packed::of(&layer.op, &self.parameters, back && layer.inputs != [0]);
        Ready(self.layers.iter().map(pack).collect())
    }

    /// Features of photos from what the tail reads of them.
    pub fn forward(&self, ready: &Ready, input: Vec<f32>) -> Trace {
        let count = input.len() / self.shapes[0].iter().product::<usize>().max(1);
        let mut values = vec![input];
        for (layer, packed) in self.layers.iter().zip(&ready.0) {
            let inputs: Vec<(&[f32], Shape)> =
                layer.inputs.iter().map(|i| (values[*i].as_slice(), self.shapes[*i])).collect();
            let mut out = vec![0.0; count * self.shapes[layer.output].iter().product::<usize>()];
            layer.op.forward(packed, &self.parameters, &inputs, self.shapes[layer.output], &mut out);
            values.push(out);
        }
        Trace(values)
    }

    /// Adds the gradients of the weights, laid out as [`Tail::parameters`], for the slope of the loss at each feature.
    pub fn backward(&self, ready: &Ready, trace: Trace, slopes: Vec<f32>, gradients: &mut [Vec<f32>]) {
        let mut values = trace.0;
        let mut at_values: Vec<Option<Vec<f32>>> = vec![None; values.len()];
        if let Some(last) = at_values.last_mut() {
            *last = Some(slopes);
        }
        for (layer, packed) in self.layers.iter().zip(&ready.0).rev() {
            // What nobody reads has no slope.
            let Some(slopes) = at_values[layer.output].take() else { continue };
            for place in 0..layer.inputs.len() {
                let from = layer.inputs[place];
                let inputs: Vec<(&[f32], Shape)> =
                    layer.inputs.iter().map(|i| (values[*i].as_slice(), self.shapes[*i])).collect();
                let out = (values[layer.output].as_slice(), self.shapes[layer.output]);
                if place == 0 {
                    layer.op.weigh(&self.parameters, &inputs, &slopes, gradients);
                }
                // What the tail reads is frozen.
                if from > 0 {
                    let before = layer.op.back(packed, &self.parameters, &inputs, place, out, &slopes);
                    match &mut at_values[from] {
                        Some(sum) => add_to(sum, &before),
                        none => *none = Some(before),
                    }
                }
            }
            values[layer.output] = vec![];
        }
    }
}

#[cfg(test)]
mod tests;
