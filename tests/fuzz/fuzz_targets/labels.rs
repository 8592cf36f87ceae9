//! Label files and the `edgepack.*` properties of ONNX files.
#![no_main]
use edge_package::{Metadata, parse_labels};
use libfuzzer_sys::fuzz_target;
use std::collections::BTreeMap;

fuzz_target!(|text: &str| {
    let _ = parse_labels(text);
    for key in ["labels", "preprocess", "resize", "activation"] {
        let properties = BTreeMap::from([(format!("edgepack.{key}"), text.to_string())]);
        if let Ok(metadata) = Metadata::from_properties(&properties) {
            let again = Metadata::from_properties(&metadata.to_properties());
            assert!(again.is_ok_and(|again| again == metadata));
        }
    }
});
