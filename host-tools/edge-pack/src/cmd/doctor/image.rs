//! An image, or a card: is it what was built, what runs on it, and is there room?

use super::config::Settings;
use super::finding::{Finding, Severity};
use super::subject::{self, Subject};
use anyhow::Context;
use edge_package::{Signed, TrustPolicy};
use edge_system::board::{self, Board};
use edge_system::flashed::{Flashed, is_unfinished};
use edge_system::seal::{FileState, RegionState, Seal, Verdict};
use edge_system::size::Size;
use edge_system::slot::Slot;
use indicatif::ProgressBar;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// What an image is.
pub struct Image {
    /// The board that it is for.
    pub board: Option<&'static Board>,
    /// What its settings say.
    pub settings: Option<Settings>,
    /// The package that runs.
    pub subject: Option<Subject>,
}

/// Whether a file begins as a disk does, or as a card that was not written to its end.
pub fn is_image(path: &Path) -> anyhow::Result<bool> {
    let mut first = Vec::new();
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    file.take(512).read_to_end(&mut first).with_context(|| format!("cannot read {}", path.display()))?;
    let named = path.extension().is_some_and(|e| e == "img");
    // A boot sector's end; its code is zeros here, which no model's file begins with.
    let sector = first.len() == 512 && first.ends_with(&[0x55, 0xAA]) && first[..64].iter().all(|b| *b == 0);
    Ok(named || sector || is_unfinished(&first))
}

/// Looks at an image.
pub fn look(path: &Path, findings: &mut Vec<Finding>) -> anyhow::Result<Image> {
    let nothing = Image { board: None, settings: None, subject: None };
    let flashed = match Flashed::open(path) {
        Ok(flashed) => flashed,
        Err(e) => {
            let text = format!("{:#}", anyhow::Error::from(e));
            findings.push(
                Finding::told(Severity::Error, "image", &text)
                    .why("no board starts from it")
                    .or_fix("build the image again with `edge-flash image`, or copy it again"),
            );
            return Ok(nothing);
        }
    };
    let sealed = match Seal::read(&flashed.disk, &flashed.layout, &TrustPolicy::default()) {
        Ok(sealed) => sealed,
        Err(e) => {
            findings.push(damaged(&e.to_string()));
            return Ok(nothing);
        }
    };
    let seal = &sealed.seal;
    let bar = ProgressBar::new(flashed.layout.end());
    let verdict = seal.verify(&flashed.disk, &flashed.layout, &mut |bytes| bar.inc(bytes));
    bar.finish_and_clear();
    verdict_of(&verdict.with_context(|| format!("cannot read {}", path.display()))?, findings);
    let trust = seal.policy();
    if !trust.trusted.is_empty() && sealed.signed == Signed::No {
        findings.push(
            Finding::new(Severity::Note, "signature", "the list of digests is not signed")
                .why("who can write to the card can change the list, too; updates are checked all the same")
                .fix("build the image with `--sign KEY`"),
        );
    }
    let board = board::by_name(&seal.board).ok();
    let settings = settings(&flashed, findings)?;
    let settings = settings.map(|s| Settings { board: Some(seal.board.clone()), ..s });
    let subject = packages(&flashed, &trust, findings);
    let data = flashed.layout.data.end - flashed.layout.data.start;
    let log = settings.as_ref().and_then(|s| s.log_total).unwrap_or_default();
    let taken = subject.as_ref().map_or(0, |s| s.file).saturating_mul(3).saturating_add(log);
    if taken > data {
        findings.push(
            Finding::new(
                Severity::Warning,
                "card-space",
                format!("the data partition has {}, and two packages, a third while one is replaced, and the log take {}", Size(data), Size(taken)),
            )
            .why("it grows to the end of the card at the first start; on a card that is no larger an update or the log would not fit")
            .fix("use a larger card, a smaller model, or a smaller `log-total`"),
        );
    }
    findings.push(
        Finding::new(Severity::Note, "card", format!("a card of at least {} is needed", Size(flashed.layout.end())))
            .why("the image is written whole")
            .fix("`edge-flash write` refuses a smaller one before it writes"),
    );
    Ok(Image { board, settings, subject })
}

/// That an image is asked to start on a board that it is not for.
pub fn not_for(asked: &Board, board: &Board) -> Finding {
    Finding::new(Severity::Error, "board", format!("the image is for {}, not for {}", board.name, asked.name))
        .why("it holds that board's boot loader, device tree and drivers")
        .fix(format!("build one with `edge-flash image --board {}`", asked.name))
        .on(&asked.name)
}

fn damaged(what: &str) -> Finding {
    Finding::new(Severity::Error, "image", what)
        .why("it is not what was built; what starts from it cannot be trusted")
        .fix("build the image again, or write the card again with `edge-flash write`")
}

fn verdict_of(verdict: &Verdict, findings: &mut Vec<Finding>) {
    for region in &verdict.regions {
        if let RegionState::Differs(what) = &region.state {
            findings.push(damaged(&format!("{} differs: {what}", region.name)));
        }
    }
    for file in &verdict.files {
        let state = match file.state {
            FileState::Differs => "differs from the image's",
            FileState::Missing => "is missing",
            FileState::Foreign => "was not in the image, and no PC puts such a file there by itself",
            FileState::Edited | FileState::New => continue,
        };
        findings.push(damaged(&format!("the file {} {state}", file.path)));
    }
}

/// `camera.toml` of the FAT partition, as the runtime reads it.
fn settings(flashed: &Flashed, findings: &mut Vec<Finding>) -> anyhow::Result<Option<Settings>> {
    let text = match flashed.settings() {
        Ok(Some(text)) => text,
        Ok(None) => return Ok(None),
        Err(e) => {
            findings.push(damaged(&format!("the boot partition cannot be read: {e}")));
            return Ok(None);
        }
    };
    if !super::config::is_there() {
        findings.push(
            Finding::new(Severity::Note, "settings", "camera.toml of the image was not looked at")
                .why("edge-camera, which reads it, is neither beside this program nor in PATH")
                .fix("build or install edge-camera, too"),
        );
        return Ok(None);
    }
    let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
    let file = folder.path().join("camera.toml");
    std::fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
    Settings::read(&file, findings)
}

/// The packages of both slots; the one that runs.
fn packages(flashed: &Flashed, trust: &TrustPolicy, findings: &mut Vec<Finding>) -> Option<Subject> {
    let found = match flashed.packages(trust) {
        Ok(found) => found,
        Err(e) => {
            findings.push(damaged(&format!("{:#}", anyhow::Error::from(e))));
            return None;
        }
    };
    let active = flashed.active().unwrap_or(Slot::A);
    let mut runs = None;
    for (slot, content) in found {
        match content {
            None => {}
            Some(Err(e)) => {
                let finding = subject::damaged(&e);
                let what = format!("the package in slot {slot}: {}", finding.what);
                findings.push(Finding { what, ..finding });
            }
            Some(Ok(package)) if slot == active => runs = Some(subject::verified(&package, findings)),
            Some(Ok(_)) => {}
        }
    }
    if runs.is_none() {
        findings.push(
            Finding::new(Severity::Error, "package", format!("there is no package that runs in slot {active}"))
                .why("the camera would have nothing to classify with")
                .fix("put one there: `edge-flash update IMAGE --package FILE.edgepack`"),
        );
    }
    runs
}
