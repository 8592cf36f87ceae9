//! What a system is made of: every Debian package and every crate in it, with its licence and its source.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use edge_rig::apt;
use edge_rig::debian::Tree;
use serde_json::Value;

use super::toolchain::TARGET;
use crate::tools;

/// A part of the system.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Part {
    /// What it is.
    pub kind: Kind,
    /// Its name there.
    pub name: String,
    /// Its version there.
    pub version: String,
    /// Its licence as an SPDX expression, or none where only the text says it.
    pub licence: Option<String>,
    /// Where its source is kept: a Debian source package with its version, or a registry.
    pub origin: String,
    /// The project's page.
    pub page: Option<String>,
    /// How it came into the system, where that isn't plain.
    pub note: Option<String>,
    /// The licence's text, where the expression isn't all of it.
    pub text: Option<String>,
}

/// Where a part comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A package of Debian.
    Debian,
    /// A crate.
    Crate,
    /// The compiler's own library.
    Rust,
    /// Weights.
    Model,
}

/// The packages of `names` in a directory of unpacked ones, as parts. A name may hold one `*`.
pub fn debian(tree: &Tree, names: &[&str], note: Option<&str>) -> Result<Vec<Part>> {
    let all = apt::control(&tree.root)?;
    let mut parts = Vec::new();
    for wanted in names {
        let fits = |name: &str| match wanted.split_once('*') {
            Some((start, end)) => name.starts_with(start) && name.ends_with(end),
            None => name == *wanted,
        };
        let before = parts.len();
        for package in all.iter().filter(|package| fits(&package.name)) {
            let path = tree.path(&format!("share/doc/{}/copyright", package.name))?;
            let text = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
            let mut notes: Vec<String> = note.iter().map(|note| (*note).to_owned()).collect();
            if !package.built_using.is_empty() {
                notes.push(format!("contains code of {}", package.built_using.join(", ")));
            }
            parts.push(Part {
                kind: Kind::Debian,
                name: package.name.clone(),
                version: package.version.clone(),
                licence: None,
                origin: format!("Debian source package {} {}", package.source, package.source_version),
                page: package.homepage.clone(),
                note: if notes.is_empty() { None } else { Some(notes.join("; ")) },
                text: Some(String::from_utf8_lossy(&text).into_owned()),
            });
        }
        ensure!(parts.len() > before, "no package {wanted} in {}", tree.root.display());
    }
    Ok(parts)
}

/// The crates whose code is in the device's programs, and Rust's standard library, as parts.
pub fn crates(programs: &[&str]) -> Result<Vec<Part>> {
    // `cargo tree` follows the features that the programs are built with; `cargo metadata` knows what a crate says of
    // itself, but follows those of the whole workspace.
    let mut tree = tools::cargo(&["tree", "--locked", "--edges", "normal,no-proc-macro", "--prefix", "none"])?;
    tree.args(["--target", TARGET, "--format", "{p}"]);
    for program in programs {
        tree.args(["--package", program]);
    }
    let tree = tools::output(&mut tree)?;
    // A line reads `name v1.2.3`, perhaps with a path, perhaps with a mark that it was shown before.
    let used: BTreeSet<(&str, &str)> = tree
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            Some((words.next()?, words.next()?.strip_prefix('v')?))
        })
        .collect();
    let mut metadata = tools::cargo(&["metadata", "--locked", "--format-version", "1"])?;
    let metadata: Value = serde_json::from_str(&tools::output(&mut metadata)?).context("reading cargo's metadata")?;
    let mut parts = Vec::new();
    for package in metadata["packages"].as_array().context("cargo's metadata has no packages")? {
        let field = |name: &str| package[name].as_str();
        let (Some(name), Some(version)) = (field("name"), field("version")) else { continue };
        if !used.contains(&(name, version)) {
            continue;
        }
        let folder = Path::new(field("manifest_path").context("a crate without a manifest")?).with_file_name("");
        let origin = match field("source") {
            Some(source) if source.starts_with("registry+") => "crates.io".to_owned(),
            Some(source) => source.to_owned(),
            None => "this project".to_owned(),
        };
        let text = if field("source").is_none() { Some(tools::root().join("LICENSE")) } else { None };
        parts.push(Part {
            kind: Kind::Crate,
            name: name.to_owned(),
            version: version.to_owned(),
            // The older way to write a choice.
            licence: field("license").map(|l| l.split('/').map(str::trim).collect::<Vec<_>>().join(" OR ")),
            origin,
            page: field("repository").map(str::to_owned),
            note: None,
            text: licence_text(text, &folder)?,
        });
    }
    ensure!(parts.len() >= used.len(), "cargo tree names {} crates, its metadata {}", used.len(), parts.len());
    parts.push(rust(None)?);
    parts.sort();
    Ok(parts)
}

/// Rust's standard library, which every program of ours contains.
pub fn rust(rustc: Option<&Path>) -> Result<Part> {
    let mut rustc = std::process::Command::new(rustc.unwrap_or(Path::new("rustc")));
    let version = tools::output(rustc.arg("--version"))?;
    let version = version.split_whitespace().nth(1).context("rustc does not tell its version")?.to_owned();
    Ok(Part {
        kind: Kind::Rust,
        name: "rust-std".into(),
        version,
        licence: Some("MIT OR Apache-2.0".into()),
        origin: "the Rust project".into(),
        page: Some("https://github.com/rust-lang/rust".into()),
        note: Some("the standard library, linked into every program".into()),
        text: None,
    })
}

/// The model that is part of edge-camera.
pub fn default_model() -> Result<Part> {
    let path = tools::root().join(crate::bench::DEFAULT).with_file_name("model.toml");
    let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let model: toml::Table = text.parse().with_context(|| format!("reading {}", path.display()))?;
    let field = |name: &str| model.get(name).and_then(|value| value.as_str()).map(str::to_owned);
    // Its digest is its version: it has no other.
    let digest = model.get("file").and_then(|file| file.get("sha256")).and_then(|digest| digest.as_str());
    Ok(Part {
        kind: Kind::Model,
        name: field("name").with_context(|| format!("no name in {}", path.display()))?,
        version: format!("sha256-{}", digest.with_context(|| format!("no digest in {}", path.display()))?),
        licence: field("licence"),
        origin: "converted by this project; models/*/model.toml names the weights".into(),
        page: None,
        note: Some("the default model, part of edge-camera".into()),
        text: None,
    })
}

/// The licence files of a crate, joined.
fn licence_text(only: Option<PathBuf>, folder: &Path) -> Result<Option<String>> {
    let mut files = match only {
        Some(file) => vec![file],
        None => {
            let entries = fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))?;
            let is_licence = |path: &PathBuf| {
                let name = path.file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
                let named = ["license", "licence", "copying", "copyright", "notice", "unlicense"];
                path.is_file() && named.iter().any(|start| name.starts_with(start))
            };
            entries.flatten().map(|entry| entry.path()).filter(is_licence).collect()
        }
    };
    files.sort();
    let mut texts = Vec::new();
    for file in files {
        let text = fs::read(&file).with_context(|| format!("reading {}", file.display()))?;
        texts.push(String::from_utf8_lossy(&text).replace('\r', "").trim_end().to_owned());
    }
    Ok(if texts.is_empty() { None } else { Some(texts.join("\n\n----\n\n")) })
}

/// The licence texts as files: one for each Debian package, and one for all crates, where a text that several share
/// stands once.
pub fn licence_files(parts: &[Part]) -> BTreeMap<String, String> {
    let mut files = BTreeMap::new();
    let mut shared: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for part in parts {
        match (part.kind, &part.text) {
            (Kind::Debian, Some(text)) => {
                files.insert(format!("{}.txt", part.name), text.clone());
            }
            (_, text) => {
                let text = text.as_deref().unwrap_or("(no text with it; see the expression)");
                let licence = part.licence.as_deref().unwrap_or("no expression given");
                shared.entry(text).or_default().push(format!("{} {} ({licence})", part.name, part.version));
            }
        }
    }
    let mut crates = String::from("The crates in edge-camera and edge-init, by the text of their licence.\n");
    let mut groups: Vec<_> = shared.into_iter().map(|(text, names)| (names, text)).collect();
    groups.sort();
    for (names, text) in groups {
        crates += &format!("\n{}\n{}\n\n{text}\n", "=".repeat(76), names.join("\n"));
    }
    files.insert("crates.txt".into(), crates);
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_programs_crates_are_found_with_licence_and_text() {
        let parts = crates(&["edge-camera"]).unwrap();
        let tract = parts.iter().find(|part| part.name == "tract-core").expect("tract-core");
        assert_eq!(tract.licence.as_deref(), Some("MIT OR Apache-2.0"));
        assert_eq!(tract.origin, "crates.io");
        // Compilers' helpers and test tools are no part of a program.
        for name in ["proptest", "thiserror-impl", "bindgen", "cc"] {
            assert!(!parts.iter().any(|part| part.name == name), "{name}");
        }
        for part in &parts {
            assert!(part.licence.is_some() || part.text.is_some(), "{} has no licence", part.name);
        }
        let files = licence_files(&parts);
        assert_eq!(files["crates.txt"].matches("\nedge-camera ").count(), 1);
    }
}
