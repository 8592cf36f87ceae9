//! The list of everything that is in an image, as SPDX 2.3 in JSON: the system's, with the package added to it.

use anyhow::{Context, Result};
use edge_package::{VerifiedPackage, hex};
use serde_json::{Value, json};
use std::path::Path;

/// Name of the element that stands for the package.
const PACKAGE: &str = "SPDXRef-package";

/// The text of the list; `system` is the file that the system came with.
pub fn text(system: &Path, package: &VerifiedPackage) -> Result<String> {
    let shown = system.display();
    let text = std::fs::read_to_string(system).with_context(|| format!("cannot read {shown}"))?;
    let mut list: Value = serde_json::from_str(&text).with_context(|| format!("{shown} is no JSON"))?;
    let manifest = package.manifest();
    let origin: Vec<_> = manifest.provenance.iter().map(|(key, value)| format!("{key}: {value}")).collect();
    let element = json!({
        "SPDXID": PACKAGE,
        "name": manifest.name,
        "versionInfo": manifest.sequence.to_string(),
        "downloadLocation": "NOASSERTION",
        "filesAnalyzed": false,
        "licenseConcluded": "NOASSERTION",
        "licenseDeclared": "NOASSERTION",
        "copyrightText": "NOASSERTION",
        "comment": format!("the .edgepack of the image; digest (BLAKE3-256 of its manifest) {}", hex(&package.digest())),
        "sourceInfo": origin.join("; "),
    });
    let relation = json!({
        "spdxElementId": "SPDXRef-DOCUMENT",
        "relationshipType": "DESCRIBES",
        "relatedSpdxElement": PACKAGE,
    });
    for (name, value) in [("packages", element), ("relationships", relation)] {
        let list = list.get_mut(name).and_then(Value::as_array_mut);
        list.with_context(|| format!("{shown} has no list {name:?}"))?.push(value);
    }
    Ok(serde_json::to_string_pretty(&list)? + "\n")
}
