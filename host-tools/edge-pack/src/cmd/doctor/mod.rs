//! `edge-pack doctor`: what will run where, what is missing, and what to do about it.

mod access;
mod boards;
mod config;
mod device;
mod engines;
mod estimate;
mod finding;
mod image;
mod show;
mod subject;

use crate::model;
use crate::recipe::RecipeArgs;
use anyhow::bail;
use boards::Row;
use config::Settings;
use edge_package::{PublicKey, TrustPolicy};
use edge_system::board::{self, Board};
use finding::{Finding, Severity};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use subject::Subject;

#[derive(clap::Args)]
pub struct Args {
    /// A package, an ONNX or Keras file, or an image (with --device: default: the package that the settings name)
    #[arg(value_name = "FILE", required_unless_present = "device")]
    file: Option<PathBuf>,

    /// Look at how it does on this board; may be repeated (default: those that it is for, else all)
    #[arg(long, value_name = "NAME")]
    board: Vec<String>,

    /// Settings of edge-camera to look at beside it (with --device: default: those of the service)
    #[arg(long, value_name = "FILE.toml")]
    config: Option<PathBuf>,

    /// Look at the machine that this runs on, too
    #[arg(long)]
    device: bool,

    /// With --device: the user that edge-camera runs as (default: edge-camera, where root asks and there is one)
    #[arg(long, value_name = "NAME", requires = "device")]
    user: Option<String>,

    /// One JSON object on standard output
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    recipe: RecipeArgs,
}

/// Everything that was found.
struct Report {
    /// The file that was looked at.
    path: Option<PathBuf>,
    /// `package`, `model`, `image` or `device`.
    kind: &'static str,
    /// The network in it.
    subject: Option<Subject>,
    /// The boards.
    rows: Vec<Row>,
    /// What was found.
    findings: Vec<Finding>,
}

impl Report {
    /// Whether nothing prevents running.
    fn runs(&self) -> bool {
        self.findings.iter().all(|f| f.severity != Severity::Error)
    }
}

pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let asked = args.board.iter().map(|name| board::by_name(name)).collect::<Result<Vec<_>, _>>()?;
    let user = if args.device { device::user(args.user.as_deref())? } else { None };
    let mut findings = vec![];
    let file = settings_file(args);
    let mut settings = file.as_deref().map(|file| Settings::read(file, &mut findings)).transpose()?.flatten();
    let configured = settings.as_ref().and_then(Settings::runs).filter(|_| args.file.is_none());
    if let Some(missing) = configured.as_ref().filter(|path| !path.exists()) {
        findings.push(
            Finding::new(Severity::Error, "package", format!("there is no package {}", missing.display()))
                .why("edge-camera has nothing to classify with")
                .fix("install one: `edge-camera --config FILE --install PACKAGE`"),
        );
    }
    let path = args.file.clone().or(configured.filter(|path| path.exists()));
    let trust = trust(settings.as_ref(), &mut findings);
    let (kind, subject, of_image) = match &path {
        None => ("device", None, None),
        Some(path) => look(path, args, &trust, &mut settings, &mut findings)?,
    };
    if let Some(board) = of_image {
        findings.extend(asked.iter().filter(|b| b.name != board.name).map(|b| image::not_for(b, board)));
    }
    let mut rows = vec![];
    if let Some(subject) = &subject {
        subject::plan(subject, &mut findings);
        let named = settings.as_ref().and_then(|s| s.board.clone()).into_iter();
        let meant: Vec<String> = match (of_image, &subject.manifest) {
            (Some(board), _) => vec![board.name.clone()],
            (None, Some(manifest)) if !manifest.boards.is_empty() => manifest.boards.clone(),
            _ => named.collect(),
        };
        // Whoever looks at this machine asks about others by name.
        if !args.device || !asked.is_empty() {
            let (chosen, meant) = boards::choose(&asked, &meant);
            let settings = settings.as_ref().filter(|_| meant);
            rows.extend(chosen.iter().map(|b| boards::look(b, meant, subject, settings, &mut findings)));
        }
    }
    if args.device {
        let keys = settings.iter().flat_map(|s| s.trusted.clone());
        let package = settings.as_ref().and_then(Settings::runs);
        let files: Vec<PathBuf> = file.into_iter().chain(keys).chain(package).collect();
        rows.push(device::look(subject.as_ref(), settings.as_ref(), &files, user.as_ref(), &mut findings)?);
    }
    let report = Report { path, kind, subject, rows, findings };
    match args.json {
        true => show::json(&report)?,
        false => show::text(&report)?,
    }
    Ok(if report.runs() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The settings that are named, or those of this machine's service.
fn settings_file(args: &Args) -> Option<PathBuf> {
    let service = Some(PathBuf::from(config::SERVICE));
    let service = service.filter(|path| args.device && path.is_file() && config::is_there());
    args.config.clone().or(service)
}

/// Whose packages the settings accept.
fn trust(settings: Option<&Settings>, findings: &mut Vec<Finding>) -> TrustPolicy {
    let mut policy = TrustPolicy::default();
    for path in settings.iter().flat_map(|s| &s.trusted) {
        match PublicKey::read(path) {
            Ok(key) => policy.trusted.push(key),
            Err(e) => findings.push(
                Finding::told(Severity::Error, "trusted-key", &e.to_string())
                    .why("edge-camera does not start without the keys that its settings name (exit code 2)")
                    .fix("put the key there, or name another one with `trusted-key`"),
            ),
        }
    }
    policy
}

type Looked = (&'static str, Option<Subject>, Option<&'static Board>);

fn look(
    path: &Path,
    args: &Args,
    trust: &TrustPolicy,
    settings: &mut Option<Settings>,
    findings: &mut Vec<Finding>,
) -> anyhow::Result<Looked> {
    let package = model::is_package(path)?;
    let image = !package && image::is_image(path)?;
    if let Some(flag) = args.recipe.first_given().filter(|_| package || image) {
        bail!("{}: {flag} is for ONNX and Keras files; a package brings its own", path.display());
    }
    if package {
        return Ok(("package", Some(subject::package(path, trust, findings)), None));
    }
    if image {
        let found = image::look(path, findings)?;
        // An image has its own; those that were named are another camera's.
        if settings.is_none() {
            *settings = found.settings;
        }
        return Ok(("image", found.subject, found.board));
    }
    Ok(("model", Some(subject::model(path, &args.recipe, findings)?), None))
}
