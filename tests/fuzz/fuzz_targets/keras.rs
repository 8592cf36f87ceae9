//! A Keras file's bytes, or a config.json beside good weights → ONNX → contract.
#![no_main]
use edge_engine::{InputHint, OnnxModel};
use edge_model::keras::{Architecture, ImportOptions, import, is_keras};
use libfuzzer_sys::fuzz_target;
use std::io::{Cursor, Read, Write};
use std::sync::LazyLock;
use zip::write::SimpleFileOptions;

/// The weights of a small network with one of each kind of variable.
static WEIGHTS: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../goldens/keras/nested.keras");
    let file = std::fs::read(path).expect("the reference files are there");
    let mut zip = zip::ZipArchive::new(Cursor::new(file)).expect("a zip");
    let mut weights = vec![];
    zip.by_name("model.weights.h5").expect("weights").read_to_end(&mut weights).expect("whole");
    weights
});

/// A zip checks its contents, which no chance gets past: a config.json alone is put into one.
fn archive(config: &[u8]) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(Cursor::new(vec![]));
    let stored = SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    for (name, bytes) in [("config.json", config), ("model.weights.h5", &WEIGHTS)] {
        zip.start_file(name, stored).expect("room");
        zip.write_all(bytes).expect("room");
    }
    zip.finish().expect("room").into_inner()
}

fuzz_target!(|bytes: &[u8]| {
    let file = if is_keras(bytes) { bytes.to_vec() } else { archive(bytes) };
    let weights_of = Architecture { name: "mobilenetv2".into(), top: bytes.len() % 2 == 0 };
    for (size, architecture) in [(None, None), (Some((16, 16)), None), (None, Some(weights_of))] {
        let options = ImportOptions { size, architecture, ..ImportOptions::default() };
        if let Ok(imported) = import(file.clone(), &options, &mut |_| {}) {
            // What is written can be read.
            let model = OnnxModel::parse(&imported.onnx).expect("the importer writes ONNX");
            let _ = model.contract(&InputHint::default());
        }
    }
});
