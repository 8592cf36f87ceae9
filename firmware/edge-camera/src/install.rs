//! `--install`: a package into the slots, on trial, after everything that can be wrong with it was looked at.

use crate::backend::Backend;
use crate::package;
use crate::settings::{Choice, Settings};
use crate::slots;
use crate::status::tell;
use crate::stop::Failure;
use anyhow::{Context, anyhow};
use edge_package::{VerifiedPackage, Version};
use edge_system::check;
use edge_system::slot::Slots;
use edge_system::update::{self, Device, UpdateError};
use std::io::Write;
use std::path::Path;
use std::time::Duration;

/// How long another installation is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

/// Checks the package, proves it here by its golden samples, and only then writes.
pub fn run(settings: &Settings, file: &Path) -> Result<(), Failure> {
    let Choice::Slots(folder) = &settings.package else {
        return Err(Failure::usage(anyhow!("--install needs `slots`, the folder of the two packages; set it")));
    };
    let refuse = |error: anyhow::Error| Failure::package(error.context(file.display().to_string()));
    let trust = package::trust(settings)?;
    let new = VerifiedPackage::open(file, &trust).map_err(|e| refuse(e.into()))?;
    let board = settings.board();
    let device = Device { board, runtime: Version::current(), trust: &trust };
    let slots = Slots::new(folder);
    let check = || {
        update::check_package(&slots, &new, &device).map_err(|e| match e {
            UpdateError::Io(_) | UpdateError::Write(_) => Failure::slots(e),
            _ => refuse(e.into()),
        })
    };
    // What takes no time first.
    check()?;
    let backend = Backend::choose(settings)?;
    tell(&backend.to_string());
    let proven = package::prove(&new, settings, &backend, &mut || ())
        .map_err(|e| Failure::of_package(e.context(file.display().to_string())))?;
    let about = proven.about.clone();
    // Its network is not needed any more, and the one that runs may need the memory.
    drop(proven);
    let cannot = |what: &str| format!("cannot {what} {}", folder.display());
    std::fs::create_dir_all(folder).with_context(|| cannot("make the folder")).map_err(Failure::slots)?;
    let held = slots::hold(folder, PATIENCE, &mut || ());
    let _lock = held.with_context(|| cannot("change the slots in")).map_err(Failure::slots)?;
    slots::clean(&slots, folder).map_err(Failure::slots)?;
    room(folder, new.file_len())?;
    // The other slots' state may have changed while the samples were classified.
    let plan = check()?;
    let slot = update::write_package(&slots, &plan, &new)
        .with_context(|| cannot("write the package into"))
        .map_err(Failure::slots)?;
    let sequence = new.manifest().sequence;
    let trial = slots.choice().trial.is_some();
    let what = match &plan.running {
        Some((name, sequence, _)) if trial => {
            let time = humantime::format_duration(settings.trial.time);
            format!(
                "it is on trial for {time}; before it: {name}, sequence number {sequence}, in slot {}",
                slot.other()
            )
        }
        _ => "there is no other package, so it is kept".into(),
    };
    let told = format!(
        "slot {slot}: {about}, sequence number {sequence}; {what}\n\
         a camera that runs takes it when it is told to (SIGHUP, systemctl reload edge-camera), else at its next start\n"
    );
    // It is installed, whoever reads this.
    let _ = std::io::stdout().write_all(told.as_bytes());
    Ok(())
}

/// Refuses what there is no space for, before anything is written: the old package and the new one are both there until
/// the new one is whole.
fn room(folder: &Path, bytes: u64) -> Result<(), Failure> {
    match check::package_space(folder, bytes) {
        None => Ok(()),
        Some(trouble) => Err(Failure::slots(anyhow!("{}; nothing was changed", trouble.what))),
    }
}
