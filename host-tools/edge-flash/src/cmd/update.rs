//! `edge-flash update`: a package or a system goes where it shall run, after everything about it has been checked.

use crate::card;
use crate::ext4::Editable;
use crate::out::{self, Output};
use crate::place::{Flashed, Place};
use crate::storage::Unmounted;
use crate::tools::{self, DEBUGFS, E2FSCK};
use crate::{linked, machine, mount, progress, remote, sparse};
use anyhow::{Context, Result, bail};
use edge_link::Address;
use edge_package::{PackageError, Storage, TrustPolicy, VerifiedPackage, Version, hex};
use edge_system::disk::FileDisk;
use edge_system::flashed::PACKAGES;
use edge_system::layout::Layout;
use edge_system::seal::Seal;
use edge_system::slot::Slots;
use edge_system::system::SystemBundle;
use edge_system::update::{self, Device, UpdateError};
use serde_json::{Value, json};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

#[derive(clap::Args)]
pub struct Args {
    /// The package (.edgepack) or the system (.edgesys)
    #[arg(value_name = "FILE")]
    update: PathBuf,

    /// Where it goes: an image, a card such as /dev/sdX (with root's rights), USER@HOST, or the link of a camera that
    /// runs: serial:/dev/ttyUSB0[,115200], tcp:HOST:PORT,key=FILE, unix:PATH or ssh:USER@HOST
    #[arg(long, value_name = "IMAGE|DEVICE|USER@HOST|LINK")]
    device: String,

    /// Have the camera at the other end of a link start anew afterwards
    #[arg(long)]
    restart: bool,

    /// One JSON object on standard output
    #[arg(long)]
    json: bool,
}

/// An update that is whole. Whose signature it bears is looked at when the device is known.
enum Update {
    Package(Box<VerifiedPackage>),
    System(Box<SystemBundle>),
}

pub fn run(args: &Args) -> Result<ExitCode> {
    let shown = args.update.display();
    let update = open(&args.update).with_context(|| shown.to_string())?;
    let place = Place::find(&args.device)?;
    if args.restart && !matches!(place, Place::Link(_)) {
        bail!("--restart is for a camera that is updated over its link");
    }
    let told = match (&place, &update) {
        (Place::Remote(host), Update::Package(package)) => {
            remote::Host::new(host)?.update(&args.update)?;
            json!({ "package": package.manifest().name, "sequence": package.manifest().sequence })
        }
        (Place::Link(address), update) => linked(address, update, args.restart)?,
        (Place::Remote(host), Update::System(_)) => bail!(
            "{shown} is a system of a flashed card, and {host} is reached by ssh, which no flashed card has; its programs are updated with `edge-flash install {host}`"
        ),
        (Place::Image(path), update) => image(path, update).with_context(|| refused(&args.update, path))?,
        (Place::Device(path), update) => device(path, update).with_context(|| refused(&args.update, path))?,
    };
    if args.json {
        let mut told = told;
        told["device"] = args.device.clone().into();
        told["update"] = shown.to_string().into();
        out::json(&told)?;
    } else if let Some(said) = told["said"].as_str() {
        out::line(format_args!("{}: {said}", args.device))?;
    } else {
        let word = |key: &str| told[key].as_str().map_or_else(|| told[key].to_string(), str::to_owned);
        let what = match &update {
            Update::Package(_) => format!("package {} (sequence {})", word("package"), word("sequence")),
            Update::System(_) => format!("system {} (sequence {})", word("system"), word("sequence")),
        };
        let slot = told["slot"]
            .as_str()
            .map_or(String::new(), |slot| format!(" in slot {slot}, on trial from the next start on"));
        out::line(format_args!("{}: {what}{slot}", args.device))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn refused(update: &Path, place: &Path) -> String {
    format!("{} was not put on {}", update.display(), place.display())
}

fn open(path: &Path) -> Result<Update> {
    let any = TrustPolicy::default();
    match VerifiedPackage::open(path, &any) {
        Ok(package) => Ok(Update::Package(Box::new(package))),
        Err(PackageError::NotAPackage { .. }) => match SystemBundle::open(path, &any) {
            Err(PackageError::NotAPackage { .. }) => {
                bail!("it is neither a package (.edgepack) nor a system (.edgesys)")
            }
            other => Ok(Update::System(Box::new(other?))),
        },
        Err(e) => Err(e.into()),
    }
}

/// To a camera that runs, which checks everything itself.
fn linked(address: &Address, update: &Update, restart: bool) -> Result<Value> {
    Ok(match update {
        Update::Package(package) => {
            let said = linked::update(address, package.bytes(), restart)?;
            json!({ "package": package.manifest().name, "sequence": package.manifest().sequence, "said": said })
        }
        Update::System(system) => {
            let said = linked::update(address, system.bytes(), restart)?;
            json!({ "system": system.manifest().version, "sequence": system.manifest().sequence, "said": said })
        }
    })
}

/// On a copy of the image, which takes its place when everything is done.
fn image(path: &Path, update: &Update) -> Result<Value> {
    let flashed = Flashed::open(path)?;
    match update {
        Update::System(system) => {
            let bar = progress::bytes(3 * system.file_len(), "updating");
            let plan = update::check_system(&flashed.disk, system, None, &mut |bytes| bar.inc(bytes))?;
            let output = Output::begin(path)?;
            sparse::copy_file(&flashed.file, output.file(), path)?;
            let mut disk = FileDisk::from_file(output.file().try_clone()?)?;
            update::write_system(&mut disk, &plan, system, &mut |bytes| bar.inc(bytes))?;
            bar.finish_and_clear();
            output.keep()?;
            Ok(system_told(system, plan.target.name()))
        }
        Update::Package(package) => {
            tools::need(&[DEBUGFS, E2FSCK])?;
            let output = Output::begin(path)?;
            let work = output.work()?;
            // The partition is taken out, changed, and put back: its own programs know whole files best.
            let data = flashed.layout.data.clone();
            let fs = Editable::new(work.path(), "data", newest(&flashed, package)?);
            let part = File::create(fs.path())?;
            part.set_len(data.end - data.start)?;
            sparse::copy_part(&flashed.file, data.clone(), &part, 0)?;
            fs.replay().context("the data partition")?;
            let slots = Slots::over(Unmounted::new(&fs), Path::new(PACKAGES));
            let told = put(&flashed, &slots, package)?;
            let length = flashed.file.metadata()?.len();
            output.file().set_len(length)?;
            for range in [0..data.start, data.end..length] {
                sparse::copy_part(&flashed.file, range.clone(), output.file(), range.start)?;
            }
            sparse::copy(&File::open(fs.path())?, output.file(), data.end - data.start, data.start)?;
            output.keep()?;
            Ok(told)
        }
    }
}

/// The date of what is written: that of the list or of the package, whichever is later, so that equal input gives equal bytes.
fn newest(flashed: &Flashed, package: &VerifiedPackage) -> Result<u64> {
    let sealed = Seal::read(&flashed.disk, &flashed.layout, &TrustPolicy::default())?;
    Ok(sealed.seal.created.max(package.manifest().created))
}

/// On a card in this machine: as the device itself does it.
fn device(path: &Path, update: &Update) -> Result<Value> {
    let disk = machine::Machine::at(Path::new("/"))?.disk_of(path)?;
    if !disk.uses.is_empty() {
        let uses: Vec<_> = disk.uses.iter().map(ToString::to_string).collect();
        bail!("{} is in use ({}); unmount it first", path.display(), uses.join(", "));
    }
    let flashed = Flashed::open(path)?;
    match update {
        Update::System(system) => {
            let bar = progress::bytes(3 * system.file_len(), "updating");
            let plan = update::check_system(&flashed.disk, system, None, &mut |bytes| bar.inc(bytes))?;
            let mut disk = FileDisk::from_file(card::exclusively(path)?)?;
            update::write_system(&mut disk, &plan, system, &mut |bytes| bar.inc(bytes))?;
            bar.finish_and_clear();
            Ok(system_told(system, plan.target.name()))
        }
        Update::Package(package) => {
            let mounted = mount::Mounted::new(&disk.name, 4)?;
            let told = put(&flashed, &Slots::new(&mounted.path().join(PACKAGES)), package)?;
            mounted.unmount()?;
            Ok(told)
        }
    }
}

/// Checks a package against the device, then installs it.
fn put<S: Storage>(flashed: &Flashed, slots: &Slots<S>, package: &VerifiedPackage) -> Result<Value> {
    let sealed = Seal::read(&flashed.disk, &flashed.layout, &TrustPolicy::default())?;
    let trust = sealed.seal.policy();
    let device = Device { board: &sealed.seal.board, runtime: runtime(flashed, &sealed.seal), trust: &trust };
    let plan = update::check_package(slots, package, &device)?;
    let slot = update::write_package(slots, &plan, package)?;
    // What is handed over is read back as the device will read it.
    let back = slots.read(slot).map_err(UpdateError::Io)?;
    let back = VerifiedPackage::from_bytes(back, &trust).context("the package does not read back as it was written")?;
    Ok(json!({
        "package": back.manifest().name,
        "sequence": back.manifest().sequence,
        "digest": hex(&back.digest()),
        "slot": slot.name(),
        "replaces": plan.running.map(|(name, sequence, _)| json!({ "package": name, "sequence": sequence })),
    }))
}

/// The runtime that the device will start next: of the slots that verify, the active one's.
fn runtime(flashed: &Flashed, seal: &Seal) -> Version {
    use edge_system::state::BootState;
    use edge_system::system::read_slot;
    let (disk, layout): (&FileDisk, &Layout) = (&flashed.disk, &flashed.layout);
    let state = BootState::read(disk, layout).ok().and_then(|found| found.state).unwrap_or(BootState::first());
    let active = state.choice.active;
    let slots = [active, active.other()].into_iter();
    let mut good = slots.filter_map(|slot| read_slot(disk, layout.slot(slot), &seal.trust(), &mut |_| {}).ok());
    good.next().map_or(Version::oldest_reader(), |slot| slot.manifest.runtime)
}

fn system_told(system: &SystemBundle, slot: &str) -> Value {
    let manifest = system.manifest();
    json!({
        "system": manifest.version,
        "sequence": manifest.sequence,
        "digest": hex(&system.digest()),
        "slot": slot,
    })
}
