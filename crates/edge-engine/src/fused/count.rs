//! What steps cost, counted.

use super::plan::Plan;
use super::step::{Input, Step, Work};
use crate::StepCost;

/// What a step costs; whether float16 weights may be multiplied in `float16`.
pub fn cost(step: &Step, float16: bool) -> StepCost {
    let (int8, weights) = match &step.work {
        Work::Conv { weights, .. } => (false, weights.k() * weights.n()),
        Work::Winograd { layer, .. } => (false, 16 * layer.channels() * layer.n()),
        Work::Conv8 { weights, .. } => (true, weights.k() * weights.n()),
        Work::Depthwise { depthwise, .. } => {
            let [h, w] = depthwise.window().kernel;
            (matches!(step.out, Input::Bytes(_)), h * w * depthwise.channels())
        }
        _ => (matches!(step.out, Input::Bytes(_)), 0),
    };
    let half_weights = matches!(&step.work, Work::Conv { weights, .. } if weights.are_halves());
    // 16 multiplications where there were 36.
    let saved = if matches!(step.work, Work::Winograd { .. }) { (4, 9) } else { (1, 1) };
    let made = match &step.work {
        Work::Concat { parts, .. } => parts.iter().map(|p| p.channels).sum(),
        _ => step.among.channels,
    };
    let size = if matches!(step.out, Input::Bytes(_)) { 1 } else { size_of::<f32>() };
    let written = step.size / step.among.pitch * made * size;
    StepCost {
        int8,
        half_weights,
        float16: half_weights && float16,
        matrix: (step.macs - step.depthwise) as u64 * saved.0 / saved.1,
        depthwise: step.depthwise as u64,
        weights: weights as u64,
        moved: (step.read + written) as u64,
    }
}

/// Memory beside the weights, in bytes.
pub fn buffers(plan: &Plan) -> u64 {
    let floats = plan.memory.floats.iter().map(|b| b.len()).sum::<usize>();
    let bytes = plan.memory.bytes.iter().map(|b| b.len()).sum::<usize>();
    let strip = |s: &super::step::Scratch| 4 * s.floats.len() + 2 * s.shorts.len() + s.bytes.len();
    (4 * floats + bytes + plan.scratch.iter().map(strip).sum::<usize>()) as u64
}
