//! Runs a network some times over made-up pixels, in this engine or in tract as it comes: what
//! `cargo xtask instructions` counts the instructions of.
//!
//!     passes FILE.onnx PASSES [--stock]

use anyhow::{Context, Result};
use edge_engine::{Backend, CpuBackend, Float16, InputHint, LoadOptions, OnnxModel};
use tract_onnx::prelude::*;

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().collect();
    let [_, file, passes, rest @ ..] = &args[..] else { anyhow::bail!("passes FILE.onnx PASSES [--stock]") };
    let bytes = std::fs::read(file).with_context(|| format!("cannot read {file}"))?;
    let passes: usize = passes.parse().context("PASSES is a number")?;
    let model = OnnxModel::parse(&bytes)?;
    let contract = model.contract(&InputHint::default())?;
    let picture: Vec<f32> =
        (0..contract.input.len() as u64).map(|i| (i * 2_654_435_761 % 1000) as f32 / 500.0 - 1.0).collect();
    let logits = if rest.iter().any(|a| a == "--stock") {
        let shape = contract.input.shape();
        let model = tract_onnx::onnx().model_for_path(file)?.with_input_fact(0, f32::fact(shape).into())?;
        let plan = model.into_optimized()?.into_runnable()?;
        let tensor = Tensor::from_shape(&shape, &picture)?;
        let mut logits = vec![];
        for _ in 0..passes {
            let outputs = plan.run(tvec!(tensor.clone().into_tvalue()))?;
            logits = outputs[0].try_as_plain_ram()?.as_slice::<f32>()?.to_vec();
        }
        logits
    } else {
        let options = LoadOptions { threads: 1 };
        let mut engine = CpuBackend::load_in(Float16::Native, &model, &contract.input, &contract.output, &options)?;
        eprintln!("{}", engine.description());
        let mut logits = vec![0.0; engine.description().classes];
        for _ in 0..passes {
            engine.classify(&picture, &mut logits)?;
        }
        logits
    };
    // What is computed is used.
    println!("greatest: {:?}", logits.iter().copied().enumerate().max_by(|a, b| a.1.total_cmp(&b.1)));
    Ok(())
}
