//! What is looked at: a package, a model's file, or what an image holds.

use super::finding::{Finding, Severity};
use crate::model;
use crate::recipe::RecipeArgs;
use anyhow::Context;
use edge_device::{Classifier, ClassifyError, RecipeError, golden};
use edge_engine::{Cost, EngineError, OnnxModel, Part, UnsupportedOp};
use edge_package::{Manifest, PackageError, Precision, Signed, TrustPolicy, VerifiedPackage, hex};
use std::collections::BTreeMap;
use std::path::Path;

/// A network that was looked at.
pub struct Subject {
    /// What it says of itself; `None` where it could not be read so far.
    pub manifest: Option<Manifest>,
    /// Whether and by whom it is signed; of a package.
    pub signed: Option<&'static str>,
    /// Digest of a package.
    pub digest: Option<[u8; 32]>,
    /// Bytes of the ONNX file.
    pub model: u64,
    /// Bytes of the whole file.
    pub file: u64,
    /// Which node runs where, where it can be loaded.
    pub parts: Vec<Part>,
    /// What a picture costs, where that was counted.
    pub cost: Option<Cost>,
    /// What computes.
    pub backend: Option<String>,
    /// All operators that cannot be run.
    pub unsupported: Vec<UnsupportedOp>,
}

impl Subject {
    fn new(file: u64, model: u64) -> Subject {
        Subject {
            manifest: None,
            signed: None,
            digest: None,
            model,
            file,
            parts: vec![],
            cost: None,
            backend: None,
            unsupported: vec![],
        }
    }

    /// Whether its network computes with bytes.
    pub fn is_int8(&self) -> bool {
        self.manifest.as_ref().is_some_and(|m| m.model.precision == Precision::Int8)
    }

    /// Whether it could be loaded: whatever else is wrong, what cannot be loaded here runs nowhere.
    pub fn loads(&self) -> bool {
        self.backend.is_some()
    }

    fn loaded(&mut self, classifier: &Classifier) {
        self.manifest = Some(classifier.manifest().clone());
        (self.parts, self.cost) = (classifier.parts(), classifier.cost());
        self.backend = Some(classifier.description().to_string());
    }

    /// Why it cannot be loaded: of operators all of them, each with its nodes.
    fn refused(&mut self, error: &anyhow::Error, findings: &mut Vec<Finding>) {
        let engine = error.chain().find_map(|e| match e.downcast_ref::<RecipeError>() {
            Some(RecipeError::Engine(e)) => Some(e),
            _ => match e.downcast_ref::<ClassifyError>() {
                Some(ClassifyError::Engine(e)) => Some(e),
                _ => e.downcast_ref::<EngineError>(),
            },
        });
        match engine {
            Some(EngineError::Unsupported(all)) => self.cannot_run(all.clone(), findings),
            _ => findings.push(unreadable(error)),
        }
    }

    fn cannot_run(&mut self, all: Vec<UnsupportedOp>, findings: &mut Vec<Finding>) {
        let mut by_type: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for op in &all {
            by_type.entry(&op.operator).or_default().push(op.node.clone());
        }
        for (operator, nodes) in by_type {
            let what = format!("the operator {operator} is not supported, at {} node(s)", nodes.len());
            let fix = match operator.contains("::") {
                true => "export the model with operators of ONNX's own domain in its place",
                false => {
                    "build the model with another layer, or export it so that this one is made of simpler operators"
                }
            };
            findings.push(
                Finding::new(Severity::Error, "unsupported-operator", what)
                    .why("neither this project's kernels nor tract run it, on any board")
                    .fix(fix)
                    .nodes(nodes),
            );
        }
        self.unsupported = all;
    }
}

/// Looks at a package's file.
pub fn package(path: &Path, trust: &TrustPolicy, findings: &mut Vec<Finding>) -> Subject {
    let file = std::fs::metadata(path).map_or(0, |m| m.len());
    let opened = match VerifiedPackage::open(path, trust) {
        Err(e) if is_distrust(&e) => {
            findings.push(distrusted(&e));
            VerifiedPackage::open(path, &TrustPolicy::default())
        }
        other => other,
    };
    match opened {
        Ok(package) => verified(&package, findings),
        Err(e) => {
            findings.push(damaged(&e));
            Subject::new(file, 0)
        }
    }
}

/// A package that may not be read: damaged, or none.
pub fn damaged(error: &PackageError) -> Finding {
    Finding::told(Severity::Error, "package", &error.to_string())
        .why("edge-camera refuses it")
        .or_fix("package the model again, or copy the package again")
}

/// A model that cannot be loaded.
fn unreadable(error: &anyhow::Error) -> Finding {
    Finding::told(Severity::Error, "model", &format!("{error:#}"))
        .why("no board can load it")
        .or_fix("export the model again so that this does not hold; `edge-pack MODEL` says when it can be packaged")
}

fn is_distrust(error: &PackageError) -> bool {
    matches!(error, PackageError::Unsigned | PackageError::UntrustedSigner { .. })
}

/// A package that is whole, but not of whom the settings trust.
fn distrusted(error: &PackageError) -> Finding {
    Finding::told(Severity::Error, "signature", &error.to_string())
        .why("the settings name a trusted key, so edge-camera refuses every package that it did not sign")
        .fix("package the model again with `--sign KEY`, the secret key of the trusted one; or take `trusted-key` out of the settings")
}

/// Looks at a package that is whole.
pub fn verified(package: &VerifiedPackage, findings: &mut Vec<Finding>) -> Subject {
    let mut subject = Subject::new(package.file_len(), package.model().len() as u64);
    subject.manifest = Some(package.manifest().clone());
    subject.digest = Some(package.digest());
    subject.signed = Some(match package.signed() {
        Signed::No => "no",
        Signed::ByUnknown(_) => "by a key that was not asked for",
        Signed::ByTrusted(_) => "by a trusted key",
    });
    let mut classifier = match Classifier::from_package(package, &model::load_options(None)) {
        Ok(classifier) => classifier,
        Err(e) => {
            subject.refused(&e.into(), findings);
            return subject;
        }
    };
    subject.loaded(&classifier);
    for failed in golden::replay(&mut classifier, package).iter().filter(|o| o.failure.is_some()) {
        let why = failed.failure.as_ref().map(ToString::to_string).unwrap_or_default();
        findings.push(
            Finding::new(
                Severity::Error,
                "golden-sample",
                format!("golden sample {:?} fails here: {why}", failed.name),
            )
            .why("it would classify differently here than where it was made")
            .fix("package the model again with this version of edge-pack"),
        );
    }
    subject
}

/// Looks at a model's file.
pub fn model(path: &Path, recipe: &RecipeArgs, findings: &mut Vec<Finding>) -> anyhow::Result<Subject> {
    let file = std::fs::metadata(path).with_context(|| format!("cannot open {}", path.display()))?.len();
    let mut subject = Subject::new(file, file);
    let onnx = match model::read_onnx(path, recipe) {
        Ok(onnx) => onnx,
        Err(e) => {
            findings.push(unreadable(&e));
            return Ok(subject);
        }
    };
    subject.model = onnx.len() as u64;
    // What is said of the options is an error of the command line rather than of the model.
    let recipe = edge_device::Recipe { numbered_labels: true, ..recipe.resolve(model::name_of(path))? };
    let loaded = OnnxModel::parse(&onnx).map_err(anyhow::Error::from).and_then(|model| {
        let unsupported = model.unsupported();
        if !unsupported.is_empty() {
            return Err(EngineError::Unsupported(unsupported).into());
        }
        Ok(recipe.prepare(&onnx, &model::load_options(None))?)
    });
    match loaded {
        Ok(prepared) => {
            subject.loaded(&prepared.classifier);
            let labels = &prepared.classifier.manifest().labels;
            if labels.iter().enumerate().all(|(i, label)| label.label == i.to_string()) {
                findings.push(
                    Finding::new(Severity::Warning, "labels", "the model carries no labels")
                        .why("it cannot be packaged so: the log would have numbers for classes")
                        .fix(
                            "give them when it is packaged, with `--labels FILE` (one per line, in the model's order)",
                        ),
                );
            }
        }
        Err(e) => subject.refused(&e, findings),
    }
    Ok(subject)
}

/// What the plan says: what does not run in this project's kernels, and what of an int8 network is float.
pub fn plan(subject: &Subject, findings: &mut Vec<Finding>) {
    let groups = Groups::of(subject);
    if !groups.stock.is_empty() {
        let whys: Vec<String> = groups.stock.iter().map(|(node, why)| format!("{node}: {why}")).collect();
        findings.push(
            Finding::new(
                Severity::Warning,
                "stock",
                match groups.fused_steps {
                    0 => "the whole network runs in tract".to_string(),
                    _ => format!("{} node(s) run in tract rather than in kernels of this project", groups.stock.len()),
                },
            )
            .why(format!("they take longer and are not in the estimates ({})", shown(&whys, 3)))
            .fix("nothing has to be done; a model of convolutions, ReLU, pooling and dense layers runs in the kernels as a whole")
            .nodes(groups.stock.iter().map(|(node, _)| node.clone()).collect()),
        );
    }
    if subject.is_int8() && !groups.float.is_empty() {
        findings.push(
            Finding::new(
                Severity::Note,
                "float",
                format!("{} node(s) of this int8 network compute in float", groups.float.len()),
            )
            .why("the quantizer leaves layers in float that would cost accuracy, or the file has no scales for them")
            .fix("nothing has to be done; the report of `edge-pack quantize --report FILE.html` says what each layer would cost")
            .nodes(groups.float),
        );
    }
}

/// The first few of many, for people.
pub fn shown(all: &[String], few: usize) -> String {
    let first = all.iter().take(few).map(String::as_str).collect::<Vec<_>>().join(", ");
    match all.len() - all.len().min(few) {
        0 => first,
        more => format!("{first}, and {more} more"),
    }
}

/// Which nodes run how.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Groups {
    /// In the project's kernels, in bytes.
    pub int8: Vec<String>,
    /// In the project's kernels, in float.
    pub float: Vec<String>,
    /// In tract, and why.
    pub stock: Vec<(String, String)>,
    /// Steps in the project's kernels.
    pub fused_steps: usize,
}

impl Groups {
    /// Of a network that was loaded.
    pub fn of(subject: &Subject) -> Groups {
        let mut groups = Groups::default();
        let mut costs = subject.cost.iter().flat_map(|c| &c.steps);
        for part in &subject.parts {
            if part.by == "tract" {
                groups.stock.extend(part.nodes.iter().map(|node| (node.clone(), part.what.clone())));
                continue;
            }
            groups.fused_steps += 1;
            let int8 = costs.next().is_some_and(|step| step.int8);
            let group = match int8 {
                true => &mut groups.int8,
                false => &mut groups.float,
            };
            // The picture is laid out for a node by a step of its own.
            for node in &part.nodes {
                if !group.contains(node) {
                    group.push(node.clone());
                }
            }
        }
        groups
    }
}

/// Its digest, short, for people.
pub fn short(digest: &[u8; 32]) -> String {
    hex(digest)[..16].into()
}
