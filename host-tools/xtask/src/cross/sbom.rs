//! The list of parts as SPDX 2.3 in JSON.

use anyhow::{Context, Result};
use serde_json::{Map, Value, json};
use std::time::{Duration, UNIX_EPOCH};

use super::parts::{Kind, Part};

/// What the list is about.
pub struct About<'a> {
    /// The board's name.
    pub board: &'a str,
    /// The system's version.
    pub version: &'a str,
    /// Seconds since 1970; the list's own date, so that the same parts give the same bytes.
    pub source_date: u64,
}

/// The list, as the text of a file.
pub fn spdx(about: &About, parts: &[Part]) -> Result<String> {
    let system = format!("edge-pack-system-{}", about.board);
    let mut packages = vec![json!({
        "SPDXID": "SPDXRef-system",
        "name": system,
        "versionInfo": about.version,
        "downloadLocation": "NOASSERTION",
        "filesAnalyzed": false,
        "licenseConcluded": "NOASSERTION",
        "licenseDeclared": "NOASSERTION",
        "copyrightText": "NOASSERTION",
    })];
    let mut relationships = vec![relationship("SPDXRef-DOCUMENT", "DESCRIBES", "SPDXRef-system")];
    let mut texts = Vec::new();
    for part in parts {
        let id = identifier(part);
        let licence = match (&part.licence, &part.text) {
            (Some(licence), _) => licence.clone(),
            (None, Some(text)) => {
                let licence = format!("LicenseRef-{}", safe(&part.name));
                texts.push(json!({
                    "licenseId": licence,
                    "name": format!("The licences of {}, as its package states them", part.name),
                    "extractedText": text,
                }));
                licence
            }
            (None, None) => "NOASSERTION".to_owned(),
        };
        let mut package = Map::new();
        package.insert("SPDXID".into(), json!(format!("SPDXRef-{id}")));
        package.insert("name".into(), json!(part.name));
        package.insert("versionInfo".into(), json!(part.version));
        package.insert("downloadLocation".into(), json!(download(part)));
        package.insert("filesAnalyzed".into(), json!(false));
        package.insert("licenseConcluded".into(), json!("NOASSERTION"));
        package.insert("licenseDeclared".into(), json!(licence));
        package.insert("copyrightText".into(), json!("NOASSERTION"));
        package.insert("sourceInfo".into(), json!(part.origin));
        if let Some(page) = &part.page {
            package.insert("homepage".into(), json!(page));
        }
        if let Some(note) = &part.note {
            package.insert("comment".into(), json!(note));
        }
        if let Some(url) = package_url(part) {
            package.insert(
                "externalRefs".into(),
                json!([{
                    "referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": url,
                }]),
            );
        }
        packages.push(Value::Object(package));
        relationships.push(relationship("SPDXRef-system", "CONTAINS", &format!("SPDXRef-{id}")));
    }
    let date = UNIX_EPOCH.checked_add(Duration::from_secs(about.source_date)).context("the date is out of range")?;
    let document = json!({
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": system,
        "documentNamespace": format!("https://spdx.org/spdxdocs/{system}-{}-{}", safe(about.version), about.source_date),
        "creationInfo": {
            "created": humantime::format_rfc3339_seconds(date).to_string(),
            "creators": [format!("Tool: cargo-xtask-cross-{}", env!("CARGO_PKG_VERSION"))],
        },
        "documentDescribes": ["SPDXRef-system"],
        "packages": packages,
        "relationships": relationships,
        "hasExtractedLicensingInfos": texts,
    });
    Ok(serde_json::to_string_pretty(&document)? + "\n")
}

fn relationship(from: &str, kind: &str, to: &str) -> Value {
    json!({ "spdxElementId": from, "relationshipType": kind, "relatedSpdxElement": to })
}

/// SPDX' identifiers have letters, digits, points and strokes only.
fn safe(text: &str) -> String {
    text.chars().map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' }).collect()
}

fn identifier(part: &Part) -> String {
    let kind = match part.kind {
        Kind::Debian => "debian",
        Kind::Crate => "crate",
        Kind::Rust => "rust",
        Kind::Model => "model",
    };
    format!("{kind}-{}-{}", safe(&part.name), safe(&part.version))
}

fn download(part: &Part) -> String {
    match part.kind {
        Kind::Crate if part.origin == "crates.io" => {
            format!("https://static.crates.io/crates/{0}/{0}-{1}.crate", part.name, part.version)
        }
        _ => "NOASSERTION".to_owned(),
    }
}

fn package_url(part: &Part) -> Option<String> {
    // The percent sign first, as the others bring it.
    let version = part.version.replace('%', "%25").replace('+', "%2B").replace(':', "%3A").replace('~', "%7E");
    match part.kind {
        Kind::Debian => Some(format!("pkg:deb/debian/{}@{version}", part.name)),
        Kind::Crate if part.origin == "crates.io" => Some(format!("pkg:cargo/{}@{version}", part.name)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_are_unique_and_every_licence_is_named_or_quoted() {
        let part = |kind, version: &str, licence: Option<&str>| Part {
            kind,
            name: "one+two".into(),
            version: version.into(),
            licence: licence.map(str::to_owned),
            origin: "crates.io".into(),
            page: None,
            note: None,
            text: licence.is_none().then(|| "words".into()),
        };
        let parts = [part(Kind::Debian, "1:2.0~a+b", None), part(Kind::Crate, "1.0", Some("MIT"))];
        let about = About { board: "rpi4", version: "0.1.0", source_date: 86_400 };
        let text = spdx(&about, &parts).unwrap();
        assert_eq!(text, spdx(&about, &parts).unwrap());
        let document: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(document["creationInfo"]["created"], "1970-01-02T00:00:00Z");
        assert_eq!(document["packages"][1]["SPDXID"], "SPDXRef-debian-one-two-1-2.0-a-b");
        assert_eq!(document["packages"][1]["licenseDeclared"], "LicenseRef-one-two");
        assert_eq!(
            document["packages"][1]["externalRefs"][0]["referenceLocator"],
            "pkg:deb/debian/one+two@1%3A2.0%7Ea%2Bb"
        );
        assert_eq!(document["hasExtractedLicensingInfos"][0]["extractedText"], "words");
        assert_eq!(document["relationships"].as_array().unwrap().len(), 3);
    }
}
