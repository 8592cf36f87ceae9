//! How long a picture would take on a machine that is not here, and how much memory: an estimate, never a measurement.
//!
//! A roofline without overlap: of each step the multiplications at a share of what the processor can at most, then the bytes
//! at a share of what memory can at most. What is counted comes from the plan of this machine
//! ([`edge_engine::Cost`]); what a machine can, from `firmware/boards/*.toml`, where the figures are published ones, or from
//! a measurement where it is this machine. Vectors of another width pad channels differently; that is not seen. What
//! tract computes is not counted, nor a camera's conversion, nor a processor that gets too hot.

use edge_engine::{Cost, Isa, peak, peak_bytes};
use edge_system::board::BoardCost;
use std::hint::black_box;
use std::time::Instant;

/// Of the most multiplications per second, what a matrix product reaches; seen with `edge-pack bench --layers`.
const MATRIX: f64 = 0.85;
/// Of the most in float32, what a depthwise convolution reaches, in float32 and in bytes, which it makes into float32.
const DEPTHWISE: [f64; 2] = [0.55, 0.35];
/// Of the most that memory delivers, what a program sees of it.
const MEMORY: f64 = 0.5;
/// Bytes of the program, its libraries and what it keeps beside the network.
const PROGRAM: f64 = 14e6;

/// What a machine can.
#[derive(Debug, Clone, PartialEq)]
pub struct Machine {
    /// Multiplications of float32 per second, each with an addition, all cores together, at most.
    pub float: f64,
    /// The same of float16.
    pub float16: f64,
    /// The same of int8.
    pub int8: f64,
    /// Bytes per second between memory and cores.
    pub memory: f64,
    /// Bytes that a weight of an int8 network has once it is packed.
    pub int8_weight: f64,
}

/// An estimate for a machine.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimate {
    /// Seconds from tensor to logits.
    pub seconds: f64,
    /// Bytes of memory that the runtime takes.
    pub memory: f64,
}

impl Machine {
    /// From published figures.
    pub fn of_board(cost: &BoardCost) -> Machine {
        let cycles = f64::from(cost.cores) * f64::from(cost.mhz) * 1e6;
        Machine {
            float: cycles * f64::from(cost.float_macs),
            // Vectors have twice as many of them.
            float16: cycles * f64::from(cost.float_macs) * if cost.has_float16() { 2.0 } else { 1.0 },
            int8: cycles * f64::from(cost.int8_macs),
            memory: f64::from(cost.memory_mb_per_s) * 1e6 * MEMORY,
            // The kernels of aarch64 keep bytes, with dot products or without.
            int8_weight: 1.0,
        }
    }

    /// This machine, measured for a moment.
    pub fn here(threads: usize) -> anyhow::Result<Machine> {
        let isa = Isa::chosen().map_err(anyhow::Error::msg)?;
        let all = threads as f64 * 1e9;
        Ok(Machine {
            float: peak(isa) * all,
            float16: peak(isa) * all * if isa.has_float16() { 2.0 } else { 1.0 },
            int8: peak_bytes(isa) * all,
            memory: bytes_per_second(threads),
            // By fours they stay bytes; by pairs they become int16.
            int8_weight: if isa.has_quads() { 1.0 } else { 2.0 },
        })
    }

    /// What a picture takes on it.
    pub fn estimate(&self, cost: &Cost) -> Estimate {
        let weight = |step: &edge_engine::StepCost| match (step.int8, step.half_weights) {
            (true, _) => self.int8_weight,
            (false, true) => 2.0,
            (false, false) => 4.0,
        };
        let seconds = |step: &edge_engine::StepCost| {
            let rate = match (step.int8, step.float16) {
                (true, _) => self.int8,
                (false, true) => self.float16,
                (false, false) => self.float,
            };
            let bytes = step.moved as f64 + step.weights as f64 * weight(step);
            step.matrix as f64 / (rate * MATRIX)
                + step.depthwise as f64 / (self.float * DEPTHWISE[usize::from(step.int8)])
                + bytes / self.memory
        };
        let weights: f64 = cost.steps.iter().map(|s| s.weights as f64 * weight(s)).sum();
        Estimate { seconds: cost.steps.iter().map(seconds).sum(), memory: PROGRAM + weights + cost.buffers as f64 }
    }
}

/// What is read from memory per second by so many threads at once, the best of a few tries.
fn bytes_per_second(threads: usize) -> f64 {
    // More than caches hold.
    const VALUES: usize = 4 << 20;
    let memory: Vec<Vec<u64>> = (0..threads).map(|_| vec![1; VALUES]).collect();
    let once = |_| {
        let start = Instant::now();
        std::thread::scope(|scope| {
            for part in &memory {
                scope.spawn(move || black_box(black_box(part).iter().fold(0_u64, |sum, v| sum.wrapping_add(*v))));
            }
        });
        (threads * VALUES * 8) as f64 / start.elapsed().as_secs_f64().max(1e-9)
    };
    (0..3).map(once).fold(0.0, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;
    use edge_engine::StepCost;

    const MACHINE: Machine = Machine { float: 1e9, float16: 2e9, int8: 4e9, memory: 1e9, int8_weight: 1.0 };

    fn cost(step: StepCost) -> Cost {
        Cost { steps: vec![step], buffers: 1_000_000, uncounted: 0 }
    }

    #[test]
    fn each_thing_that_a_step_does_takes_its_time() {
        let seconds = |step| MACHINE.estimate(&cost(step)).seconds;
        let near = |found: f64, wanted: f64| assert!((found / wanted - 1.0).abs() < 1e-9, "{found} {wanted}");
        let none = StepCost::default();
        near(seconds(StepCost { matrix: 850_000_000, ..none }), 1.0);
        near(seconds(StepCost { matrix: 850_000_000, int8: true, ..none }), 0.25);
        near(seconds(StepCost { matrix: 850_000_000, float16: true, ..none }), 0.5);
        near(seconds(StepCost { weights: 500_000_000, half_weights: true, ..none }), 1.0);
        near(seconds(StepCost { depthwise: 550_000_000, ..none }), 1.0);
        near(seconds(StepCost { weights: 250_000_000, ..none }), 1.0);
        near(seconds(StepCost { weights: 250_000_000, int8: true, ..none }), 0.25);
        near(seconds(StepCost { moved: 1_000_000_000, ..none }), 1.0);
        near(MACHINE.estimate(&cost(StepCost { weights: 1_000_000, ..none })).memory, PROGRAM + 5e6);
    }

    #[test]
    fn a_faster_board_is_estimated_to_be_faster() {
        let board = |name: &str| edge_system::board::by_name(name).unwrap().cost.clone().unwrap();
        let none = StepCost::default();
        let step =
            StepCost { int8: true, matrix: 1 << 30, depthwise: 1 << 24, weights: 1 << 22, moved: 1 << 24, ..none };
        let seconds = |name: &str| Machine::of_board(&board(name)).estimate(&cost(step)).seconds;
        let order = ["rpi-zero2w", "rpi3", "rpi4", "rpi5"];
        assert!(order.windows(2).all(|two| seconds(two[0]) > seconds(two[1])));
        // With dot products.
        assert!(seconds("rpi4") > 3.0 * seconds("rpi5"));
    }

    #[test]
    fn this_machine_can_do_something() {
        let here = Machine::here(1).unwrap();
        assert!(here.float > 1e6 && here.int8 > 1e6 && here.memory > 1e6, "{here:?}");
    }
}
