//! `edge-pack inspect`: what a package says of itself.

use crate::recipe::RecipeArgs;
use crate::{model, out};
use anyhow::{Context, bail};
use edge_device::Classifier;
use edge_engine::Part;
use edge_package::{
    CPU_FLOAT16, Manifest, Resize, Signed, Tolerance, TrustPolicy, VerifiedPackage, hex, label_json, number_json,
    preprocess_json, resize_json,
};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(clap::Args)]
pub struct Args {
    /// The package; with --plan an ONNX or Keras file, too
    package: PathBuf,

    /// Which node of the network runs where on this machine, and why
    #[arg(long)]
    plan: bool,

    /// Threads that compute (default: all cores)
    #[arg(long, value_name = "N", requires = "plan")]
    threads: Option<usize>,

    #[command(flatten)]
    recipe: RecipeArgs,

    /// One JSON object on standard output
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let options = model::load_options(args.threads);
    if !model::is_package(&args.package)? {
        if !args.plan {
            bail!(
                "{} is not a package; `edge-pack {0}` makes one of an ONNX model, and --plan shows how a model would run",
                args.package.display()
            );
        }
        let value = plan(&model::load(&args.package, &args.recipe, &options)?);
        return show(args, &value, plan_table);
    }
    if let Some(flag) = args.recipe.first_given() {
        bail!("{}: {flag} is for ONNX and Keras files; a package brings its own", args.package.display());
    }
    let package = model::open_package(&args.package, &TrustPolicy::default())?;
    let mut value = describe(&package);
    if args.plan {
        let classifier =
            Classifier::from_package(&package, &options).with_context(|| args.package.display().to_string())?;
        if let (Value::Object(value), Value::Object(plan)) = (&mut value, plan(&classifier)) {
            value.extend(plan);
        }
    }
    show(args, &value, |value| table(value, package.manifest()))
}

fn show(args: &Args, value: &Value, table: impl Fn(&Value) -> anyhow::Result<()>) -> anyhow::Result<ExitCode> {
    match args.json {
        true => out::json(value)?,
        false => table(value)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Which node runs where.
fn plan(classifier: &Classifier) -> Value {
    let row = |p: &Part| json!({"nodes": p.nodes, "by": p.by, "what": p.what, "macs": p.macs});
    let rows: Vec<Value> = classifier.parts().iter().map(row).collect();
    json!({"backend": classifier.description().to_string(), "plan": rows})
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(s) => s.clone(),
        Value::Null => "-".into(),
        other => other.to_string(),
    }
}

fn plan_table(value: &Value) -> anyhow::Result<()> {
    let Some(plan) = value["plan"].as_array() else { return Ok(()) };
    out::line(format_args!("{:18} {}", "backend", plain(&value["backend"])))?;
    for part in plan {
        let nodes: Vec<String> = part["nodes"].as_array().into_iter().flatten().map(plain).collect();
        let (by, what) = (plain(&part["by"]), plain(&part["what"]));
        out::line(format_args!("{:18} {by}: {what} <- {}", "plan", nodes.join(" + ")))?;
    }
    Ok(())
}

fn describe(package: &VerifiedPackage) -> Value {
    let m = package.manifest();
    let signer = match package.signed() {
        Signed::No => None,
        Signed::ByUnknown(key) | Signed::ByTrusted(key) => Some(hex(&key.to_bytes())),
    };
    let resize = Resize {
        policy: m.resize.policy,
        interpolation: m.resize.interpolation,
        size: Some((m.resize.width, m.resize.height)),
    };
    let tolerance = |backend| match m.tolerance_of(backend) {
        Tolerance::Float { relative } => json!({"kind": "float", "relative": number_json(relative)}),
        Tolerance::Int8 { steps, step } => json!({"kind": "int8", "steps": steps, "step": number_json(step)}),
    };
    json!({
        "name": m.name,
        "digest": hex(&package.digest()),
        "bytes": package.file_len(),
        "signer": signer,
        "sequence": m.sequence,
        "created": m.created,
        "boards": m.boards,
        "minimum_runtime": m.minimum_runtime.to_string(),
        "model": {"opset": m.model.opset, "precision": m.model.precision, "output": m.model.output},
        "input": {"name": m.input.name, "shape": m.input.shape(), "layout": m.input.layout},
        "resize": resize_json(&resize),
        "exif_orientation": m.exif_orientation,
        "preprocess": preprocess_json(&m.preprocess),
        "activation": m.activation,
        "threshold": m.threshold.map(number_json),
        "classes": m.labels.len(),
        "labels": m.labels.iter().map(label_json).collect::<Vec<_>>(),
        "goldens": m.goldens.iter().map(|g| json!({"name": g.name, "tensor": hex(&g.tensor)})).collect::<Vec<_>>(),
        "tolerance": tolerance("cpu"),
        "tolerance_tensorrt": tolerance("tensorrt"),
        // Where it is null, nothing is computed in float16 arithmetic.
        "tolerance_float16": m.allows_float16().then(|| tolerance(CPU_FLOAT16)),
        "provenance": m.provenance.iter().cloned().collect::<std::collections::BTreeMap<_, _>>(),
        "parts": m.parts.iter().map(|p| json!({
            "name": p.name, "offset": p.offset, "length": p.length, "digest": hex(&p.digest),
        })).collect::<Vec<_>>(),
    })
}

fn table(value: &Value, manifest: &Manifest) -> anyhow::Result<()> {
    for key in [
        "name",
        "digest",
        "bytes",
        "signer",
        "sequence",
        "created",
        "boards",
        "minimum_runtime",
        "model",
        "input",
        "resize",
        "preprocess",
        "activation",
        "threshold",
        "tolerance",
        "tolerance_tensorrt",
        "tolerance_float16",
        "provenance",
    ] {
        out::line(format_args!("{key:18} {}", plain(&value[key])))?;
    }
    let shown: Vec<&str> = manifest.labels.iter().take(10).map(|l| l.label.as_str()).collect();
    let more = manifest.labels.len().saturating_sub(shown.len());
    let rest = if more > 0 { format!(", and {more} more") } else { String::new() };
    out::line(format_args!("{:18} {}: {}{rest}", "labels", manifest.labels.len(), shown.join(", ")))?;
    let goldens: Vec<&str> = manifest.goldens.iter().map(|g| g.name.as_str()).collect();
    out::line(format_args!("{:18} {}: {}", "goldens", goldens.len(), goldens.join(", ")))?;
    plan_table(value)?;
    for part in &manifest.parts {
        out::line(format_args!("{:18} {} ({} bytes)", "part", part.name, part.length))?;
    }
    Ok(())
}
