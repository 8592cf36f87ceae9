//! `edge-pack import`: a Keras file becomes an ONNX file.

use crate::recipe::{parse_input_size, parse_layout};
use crate::{model, out};
use anyhow::{Context, bail};
use edge_model::keras::{Architecture, ImportOptions};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

#[derive(clap::Args)]
pub struct Args {
    /// The Keras model: .keras, whole-model .h5, or weights with --architecture
    model: PathBuf,

    /// The ONNX file to write (default: the model's name with .onnx)
    #[arg(short, value_name = "FILE")]
    out: Option<PathBuf>,

    /// Input size in pixels, N or WIDTHxHEIGHT, instead of the model's own
    #[arg(long, value_name = "N")]
    input_size: Option<String>,

    /// Order of the input: nhwc (as Keras) or nchw
    #[arg(long)]
    layout: Option<String>,

    /// The network of keras.applications that a file of weights belongs to, such as xception
    #[arg(long, value_name = "NAME")]
    architecture: Option<String>,

    /// The weights are of the network without its classifier
    #[arg(long, requires = "architecture")]
    no_top: bool,

    /// One JSON object about the ONNX file on standard output
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let path = &args.model;
    let options = ImportOptions {
        size: args.input_size.as_deref().map(parse_input_size).transpose()?,
        layout: args.layout.as_deref().map(parse_layout).transpose()?,
        architecture: args.architecture.clone().map(|name| Architecture { name, top: !args.no_top }),
    };
    let output = args.out.clone().unwrap_or_else(|| path.with_extension("onnx"));
    if output == Path::new("-") {
        bail!("-o -: the ONNX file cannot go to standard output; name a file");
    }
    if path.is_dir() {
        bail!(
            "{}: it is a directory; a Keras model is one file, as model.save(\"model.keras\") writes it",
            path.display()
        );
    }
    out::not_an_input(&output, std::iter::once(path.as_path()))?;
    let bytes = model::read_whole(path)?;
    let imported = model::import_keras(path, bytes, &options)?;
    model::tell(path, &imported.notes);
    out::write_file(&output, &imported.onnx, 0o644)?;
    if args.json {
        let preprocess = imported.metadata.preprocess.as_ref().map(edge_package::preprocess_json);
        out::json(&json!({
            "path": output.display().to_string(),
            "name": imported.name,
            "bytes": imported.onnx.len(),
            "nodes": imported.nodes,
            "parameters": imported.parameters,
            "preprocess": preprocess,
        }))
        .context("standard output")?;
    } else {
        out::line(format_args!(
            "{}: {} nodes, {:.1} million parameters, {:.1} MB",
            output.display(),
            imported.nodes,
            imported.parameters as f64 / 1e6,
            imported.onnx.len() as f64 / 1e6
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_standard_output_nor_directories() {
        let fail = |model: PathBuf, out: Option<&str>| {
            let args = Args {
                model,
                out: out.map(PathBuf::from),
                input_size: None,
                layout: None,
                architecture: None,
                no_top: false,
                json: false,
            };
            run(&args).unwrap_err().to_string()
        };
        assert!(fail("model.keras".into(), Some("-")).contains("standard output"));
        assert!(fail(std::env::temp_dir(), Some("never.onnx")).contains("directory"));
    }
}
