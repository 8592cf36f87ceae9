//! The machine that this runs on: memory and disks, permissions, the clock, the camera.

use super::access::{User, may_read, may_write};
use super::boards::Row;
use super::config::Settings;
use super::engines::{self, Now};
use super::estimate::Machine;
use super::finding::{Finding, Severity};
use super::subject::Subject;
use crate::model;
use edge_engine::Isa;
use edge_package::{TrustPolicy, VerifiedPackage};
use edge_system::slot::{Slot, Slots};
use edge_system::{board, check};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// The service's user.
const SERVICE_USER: &str = "edge-camera";
/// Sets of instructions whose int8 kernels multiply by dot products.
const DOT_PRODUCTS: [&str; 3] = ["avx512vnni", "dotprod", "i8mm"];
/// Groups that the unit gives it.
const SERVICE_GROUPS: [&str; 1] = ["video"];

/// Who is asked about: `named`, else the service's user where root asks, else who asks.
pub fn user(named: Option<&str>) -> anyhow::Result<Option<User>> {
    let etc = Path::new("/etc");
    if let Some(name) = named {
        let found = User::find(etc, name, &[]);
        return found.map(Some).ok_or_else(|| anyhow::anyhow!("--user {name}: there is no such user in /etc/passwd"));
    }
    let root = std::fs::metadata("/proc/self").is_ok_and(|me| me.uid() == 0);
    Ok(if root { User::find(etc, SERVICE_USER, &SERVICE_GROUPS) } else { None })
}

/// Looks at this machine; what is said of it as a board. `files` are those that edge-camera reads when it starts.
pub fn look(
    subject: Option<&Subject>,
    settings: Option<&Settings>,
    files: &[PathBuf],
    user: Option<&User>,
    findings: &mut Vec<Finding>,
) -> anyhow::Result<Row> {
    let name = settings.and_then(|s| s.board.as_deref()).unwrap_or_else(|| board::this_board());
    let mut runs = true;
    if let Some(Err(e)) = subject.and_then(|s| s.manifest.as_ref()).map(|m| m.check_board(name)) {
        runs = false;
        findings.push(Finding::told(Severity::Error, "board", &e.to_string()).why("edge-camera refuses it here"));
    }
    clock(subject, findings);
    if let Some(trouble) = subject.and_then(|s| check::memory(s.file)) {
        findings.push(
            Finding::trouble(Severity::Warning, "memory", trouble)
                .why("the system may end the program when memory runs out"),
        );
    }
    if let Some(settings) = settings {
        log(settings, user, findings);
        slots(settings, subject, user, findings);
        camera(settings, name, user, findings);
    }
    readable(files, user, findings);
    let folder = settings.and_then(|s| s.engines.clone()).unwrap_or_else(|| engines::folder(user));
    let now = Now::here(packages(subject, settings));
    engines::backend(settings.and_then(|s| s.backend.as_deref()).unwrap_or("auto"), &now, findings);
    engines::look(&folder, user, &now, findings);
    let isa = Isa::chosen().map_err(anyhow::Error::msg)?;
    if subject.is_some_and(Subject::is_int8) && !DOT_PRODUCTS.contains(&isa.name()) {
        findings.push(
            Finding::new(Severity::Note, "dot-product", format!("the kernels for {isa} have no dot-product instructions"))
                .why("with them (dotprod, AVX-512 VNNI) int8 is multiplied 4 times as fast as float; it takes less memory all the same")
                .fix("nothing has to be done; a processor that has them is faster"),
        );
    }
    let threads = model::load_options(None).threads;
    let estimate = match subject.and_then(|s| s.cost.as_ref()) {
        Some(cost) => Some(Machine::here(threads)?.estimate(cost)),
        None => None,
    };
    let runs = runs && subject.is_none_or(Subject::loads);
    Ok(Row {
        name: format!("here ({name})"),
        processor: format!("{threads} threads, {isa}"),
        estimate,
        budget: None,
        runs,
    })
}

fn clock(subject: Option<&Subject>, findings: &mut Vec<Finding>) {
    let created = subject.and_then(|s| s.manifest.as_ref()).map_or(0, |m| m.created);
    // Of what bounds it anything else would be a guess.
    let created = SystemTime::UNIX_EPOCH + Duration::from_secs(created.min(u32::MAX.into()));
    let fix = "let it follow a time server (`timedatectl set-ntp true`), or set it (`sudo date -s …`)";
    if SystemTime::now() < created {
        findings.push(
            Finding::new(
                Severity::Warning,
                "clock",
                "the clock is not set: it is earlier than when the package was made",
            )
            .why("the log would have wrong times")
            .fix(fix),
        );
    } else if check::clock_synced() == Some(false) {
        findings.push(
            Finding::new(Severity::Note, "clock", "nothing keeps the clock right")
                .why("times in the log may be wrong; each line says so (\"clock_synced\": false)")
                .fix(fix),
        );
    }
}

/// What edge-camera reads when it starts, it has to be allowed to read: whoever looks at it here may be root.
fn readable(files: &[PathBuf], user: Option<&User>, findings: &mut Vec<Finding>) {
    for file in files.iter().filter(|file| !may_read(user, file).unwrap_or(true)) {
        findings.push(
            Finding::new(Severity::Error, "permission", format!("{} may not read {}", who(user), file.display()))
                .why("edge-camera reads it when it starts, and ends if it cannot")
                .fix(format!(
                    "`sudo chmod a+r {0}`, and `sudo chmod a+x` for each folder that it is in",
                    file.display()
                )),
        );
    }
}

/// Who is spoken of.
pub fn who(user: Option<&User>) -> String {
    user.map_or("this user".into(), |user| format!("the user {}", user.name))
}

/// The nearest of a path and the folders that it is in that there is.
fn nearest(path: &Path) -> &Path {
    path.ancestors().find(|p| p.exists()).unwrap_or(Path::new("/"))
}

fn log(settings: &Settings, user: Option<&User>, findings: &mut Vec<Finding>) {
    let Some(log) = &settings.log else { return };
    let folder = check::folder(log);
    if !folder.is_dir() {
        findings.push(
            Finding::new(Severity::Error, "log", format!("the folder of the log, {}, is not there", folder.display()))
                .why("edge-camera does not start without its log (exit code 5)")
                .fix(format!("make it: `sudo install -d -o edge-camera -g edge-camera {}`", folder.display())),
        );
        return;
    }
    // To begin a new file, the folder has to be writable, too.
    let wanted = [log.as_path(), folder];
    let wanted = &wanted[..if settings.log_total.is_some() { 2 } else { 1 }];
    for path in wanted.iter().map(|path| nearest(path)) {
        if !may_write(user, path).unwrap_or(false) {
            findings.push(
                Finding::new(Severity::Error, "log", format!("{} may not write to {}", who(user), path.display()))
                    .why("edge-camera does not start without its log (exit code 5)")
                    .fix(format!("`sudo chown edge-camera: {}`, or name another file with `log`", path.display())),
            );
            break;
        }
    }
    if let Some(trouble) = check::log_space(log, settings.log_total) {
        findings.push(
            Finding::trouble(Severity::Warning, "log-space", trouble)
                .why("lines that do not fit are left out of the log"),
        );
    }
}

fn slots(settings: &Settings, subject: Option<&Subject>, user: Option<&User>, findings: &mut Vec<Finding>) {
    let Some(folder) = &settings.slots else { return };
    if !folder.is_dir() {
        findings.push(
            Finding::new(Severity::Error, "slots", format!("the folder of the packages, {}, is not there", folder.display()))
                .why("edge-camera has no package to run")
                .fix(format!("make it (`sudo install -d -o edge-camera -g edge-camera {}`), then install a package: `edge-camera --config FILE --install PACKAGE`", folder.display())),
        );
        return;
    }
    if !may_write(user, folder).unwrap_or(false) {
        findings.push(
            Finding::new(Severity::Warning, "slots", format!("{} may not write to {}", who(user), folder.display()))
                .why("a new package could not be tried: its starts are counted there")
                .fix(format!("`sudo chown -R edge-camera: {}`", folder.display())),
        );
    }
    if let Some(trouble) = check::package_space(folder, subject.map_or(0, |s| s.file)) {
        findings.push(Finding::trouble(Severity::Warning, "card-space", trouble).why("the package cannot be updated"));
    }
}

fn camera(settings: &Settings, board: &str, user: Option<&User>, findings: &mut Vec<Finding>) {
    let Some(camera) = settings.source.strip_prefix("v4l2:") else { return };
    // What is found by a pattern or a name is looked for when it is opened.
    if camera.starts_with("name=") || camera.contains(['*', '?', '[']) {
        return;
    }
    let device = Path::new(camera);
    if !device.exists() {
        let hint = check::ribbon_cable(board).map_or(String::new(), |hint| format!("; {hint}"));
        findings.push(
            Finding::new(Severity::Error, "camera", format!("there is no camera {camera}"))
                .why("edge-camera does not start without its source (exit code 4)")
                .fix(format!("plug it in, or name another one with `source`{hint}")),
        );
        return;
    }
    if let Some(name) = check::video_name(Path::new("/sys"), device).filter(|name| check::is_ribbon_cable(name)) {
        let hint = check::ribbon_cable(board).unwrap_or("read it with the vendor's program, through `source = \"-\"`");
        findings.push(
            Finding::new(Severity::Error, "csi-camera", format!("{camera} ({name}) is on the ribbon cable"))
                .why("it delivers raw values of the sensor, no pictures")
                .fix(format!("{hint}; as a service with the drop-in /usr/share/doc/edge-camera/examples/csi.conf")),
        );
    }
    if !may_write(user, device).unwrap_or(false) {
        findings.push(
            Finding::trouble(Severity::Error, "camera", check::camera_denied(device))
                .why(format!("{} may not read and write it", who(user))),
        );
    }
}

/// Digests of the packages that may run here.
fn packages(subject: Option<&Subject>, settings: Option<&Settings>) -> Vec<[u8; 32]> {
    let slots = settings.and_then(|s| s.slots.as_deref()).map(Slots::new);
    let others = slots.iter().flat_map(|slots| Slot::BOTH.map(|slot| slots.package(slot)));
    let opened = others.filter_map(|path| VerifiedPackage::open(&path, &TrustPolicy::default()).ok());
    subject.and_then(|s| s.digest).into_iter().chain(opened.map(|p| p.digest())).collect()
}
