//! `edge-flash verify`: is it what was built, and if not, where not?

use crate::place::{Flashed, Place};
use crate::{out, progress};
use anyhow::{Context, Result, bail};
use edge_package::{PackageError, PublicKey, Signed, TrustPolicy, VerifiedPackage, hex};
use edge_system::seal::{FileState, RegionState, Seal, Sealed, Verdict};
use edge_system::slot::Slot;
use edge_system::state::BootState;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

#[derive(clap::Args)]
pub struct Args {
    /// An image, or a card such as /dev/sdX
    #[arg(value_name = "IMAGE|DEVICE")]
    place: String,

    /// Require that the list of digests is signed by this key; may be repeated
    #[arg(long, value_name = "FILE.pub")]
    trusted_key: Vec<PathBuf>,

    /// One JSON object on standard output
    #[arg(long)]
    json: bool,
}

/// What is in a package slot.
enum Package {
    None,
    Good { name: String, sequence: u64, digest: String },
    Bad(String),
}

pub fn run(args: &Args) -> Result<ExitCode> {
    let path = match Place::find(&args.place)? {
        Place::Link(link) => bail!("{link}: what runs cannot vouch for itself; verify its card in this machine"),
        Place::Remote(host) => bail!("{host}: what runs cannot vouch for itself; verify its card in this machine"),
        Place::Image(path) | Place::Device(path) => path,
    };
    let trusted = args.trusted_key.iter().map(|p| PublicKey::read(p)).collect::<Result<_, _>>()?;
    let flashed = Flashed::open(&path)?;
    let shown = || path.display().to_string();
    let sealed = Seal::read(&flashed.disk, &flashed.layout, &TrustPolicy { trusted }).with_context(shown)?;
    let bar = progress::bytes(flashed.layout.end(), "verifying");
    let verdict = sealed.seal.verify(&flashed.disk, &flashed.layout, &mut |bytes| bar.inc(bytes));
    bar.finish_and_clear();
    let verdict = verdict.with_context(|| format!("cannot read {}", path.display()))?;
    let packages = packages(&flashed, &sealed.seal.policy());
    let sound = packages.as_ref().is_ok_and(|slots| slots.iter().all(|(_, p)| !matches!(p, Package::Bad(_))));
    let good = verdict.is_good() && sound;
    let state = BootState::read(&flashed.disk, &flashed.layout).ok().and_then(|found| found.state);
    let report = Report { path: &path, sealed: &sealed, verdict: &verdict, packages: &packages, state, good };
    if args.json {
        report.json()?
    } else {
        report.text()?
    }
    if !good {
        out::tell(format_args!("edge-flash: {}: not what it was built as; do not trust it", path.display()));
    }
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The packages of both slots, each verified on its own.
fn packages(flashed: &Flashed, trust: &TrustPolicy) -> Result<Vec<(Slot, Package)>> {
    let told = |content: Option<Result<VerifiedPackage, PackageError>>| match content {
        None => Package::None,
        Some(Ok(package)) => Package::Good {
            name: package.manifest().name.clone(),
            sequence: package.manifest().sequence,
            digest: hex(&package.digest()),
        },
        Some(Err(e)) => Package::Bad(e.to_string()),
    };
    Ok(flashed.packages(trust)?.into_iter().map(|(slot, content)| (slot, told(content))).collect())
}

/// What there is to say.
struct Report<'a> {
    path: &'a Path,
    sealed: &'a Sealed,
    verdict: &'a Verdict,
    packages: &'a Result<Vec<(Slot, Package)>>,
    state: Option<BootState>,
    good: bool,
}

impl Report<'_> {
    fn signed(&self) -> (&'static str, Option<PublicKey>) {
        match self.sealed.signed {
            Signed::No => ("no", None),
            Signed::ByUnknown(key) => ("by a key that nobody vouched for", Some(key)),
            Signed::ByTrusted(key) => ("by a trusted key", Some(key)),
        }
    }

    fn text(&self) -> Result<()> {
        let seal = &self.sealed.seal;
        out::line(format_args!(
            "{}: image for {}, system {}, kernel {}, list of digests {}",
            self.path.display(),
            seal.board,
            seal.version,
            seal.kernel,
            &hex(&self.sealed.digest)[..16]
        ))?;
        let (signed, key) = self.signed();
        let key = key.map_or(String::new(), |key| format!(" ({})", hex(&key.to_bytes())));
        out::line(format_args!("list signed: {signed}{key}"))?;
        match seal.trusted.as_slice() {
            [] => out::line("updates: accepted unsigned, from whoever can write to the card")?,
            keys => {
                let keys: Vec<_> = keys.iter().map(|key| hex(key)).collect();
                out::line(format_args!("updates: only those signed by {}", keys.join(", ")))?;
            }
        }
        for region in &self.verdict.regions {
            let told = match &region.state {
                RegionState::Same => continue,
                RegionState::Changed(what) => format!("changed since: {what}"),
                RegionState::NotCovered => "in use: not covered by the list".into(),
                RegionState::Differs(what) => format!("DIFFERS: {what}"),
            };
            out::line(format_args!("{} (bytes {} to {}): {told}", region.name, region.range.start, region.range.end))?;
        }
        for file in &self.verdict.files {
            out::line(format_args!("{}: {}", file.path, state(file.state)))?;
        }
        if let Some(state) = self.state {
            let trial = state.choice.trial.map_or(String::new(), |trial| format!(", {} on trial", trial.slot));
            out::line(format_args!("system slot {} runs{trial}", state.choice.active))?;
        }
        match self.packages {
            Err(e) => out::line(format_args!("packages: CANNOT BE READ: {e:#}"))?,
            Ok(packages) => {
                for (slot, package) in packages {
                    match package {
                        Package::None => out::line(format_args!("package slot {slot}: empty"))?,
                        Package::Good { name, sequence, digest } => out::line(format_args!(
                            "package slot {slot}: {name} (sequence {sequence}), every byte as packaged, digest {}",
                            &digest[..16]
                        ))?,
                        Package::Bad(why) => out::line(format_args!("package slot {slot}: REFUSED: {why}"))?,
                    }
                }
            }
        }
        out::line(match (self.good, self.verdict.is_fresh()) {
            (true, true) => "every byte is as it was built",
            (true, false) => "as it was built, but for what a device in use changes: see above",
            (false, _) => "NOT as it was built",
        })
    }

    fn json(&self) -> Result<()> {
        let seal = &self.sealed.seal;
        let (signed, key) = self.signed();
        let regions: Vec<_> = self
            .verdict
            .regions
            .iter()
            .map(|region| {
                let (state, what) = match &region.state {
                    RegionState::Same => ("same", None),
                    RegionState::Changed(what) => ("changed", Some(what)),
                    RegionState::NotCovered => ("not covered", None),
                    RegionState::Differs(what) => ("differs", Some(what)),
                };
                json!({
                    "name": region.name, "from": region.range.start, "to": region.range.end,
                    "state": state, "what": what,
                })
            })
            .collect();
        let files = self.verdict.files.iter().map(|f| json!({ "path": f.path, "state": state(f.state) }));
        let packages = self.packages.iter().flatten().map(|(slot, package)| match package {
            Package::None => json!({ "slot": slot.name(), "state": "empty" }),
            Package::Good { name, sequence, digest } => {
                json!({ "slot": slot.name(), "state": "good", "name": name, "sequence": sequence, "digest": digest })
            }
            Package::Bad(why) => json!({ "slot": slot.name(), "state": "refused", "why": why }),
        });
        let packages: Vec<_> = packages.collect();
        out::json(&json!({
            "ok": self.good,
            "fresh": self.verdict.is_fresh(),
            "board": seal.board,
            "version": seal.version,
            "kernel": seal.kernel,
            "digest": hex(&self.sealed.digest),
            "signed": signed,
            "signer": key.map(|key| hex(&key.to_bytes())),
            "accepts_unsigned": seal.trusted.is_empty(),
            "regions": regions,
            "files": files.collect::<Vec<_>>(),
            "system_slot": self.state.map(|state| state.choice.active.name()),
            "system_trial": self.state.and_then(|state| state.choice.trial).map(|trial| trial.slot.name()),
            "packages": packages,
            "packages_error": self.packages.as_ref().err().map(|e| format!("{e:#}")),
        }))
    }
}

fn state(state: FileState) -> &'static str {
    match state {
        FileState::Edited => "edited, as it may be",
        FileState::Differs => "DIFFERS from the image's",
        FileState::Missing => "MISSING",
        FileState::New => "was not in the image; nothing reads it",
        FileState::Foreign => "FOREIGN: was not in the image, and no PC puts such a file there by itself",
    }
}
