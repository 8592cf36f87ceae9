//! The second stage: process 1 of the system that was chosen. It mounts, sets clock and names, and watches over the camera.
//!
//! Whatever fails here is told and left out, as long as a camera can run without it.

use crate::camera::{CAMERA_GROUP, CAMERA_USER, Camera};
use crate::child::{self, Child};
use crate::cmdline::Options;
use crate::control::Control;
use crate::devices::Devices;
use crate::first::{PLAIN, mount_boot};
use crate::keeper::{Exit, Limits};
use crate::say::{self, say};
use crate::supervise::{Signals, Supervisor};
use crate::watchdog::Watchdog;
use crate::wishes::Wishes;
use crate::{block, down, ext4, first, hooks, network, time};
use anyhow::Context;
use edge_system::disk::FileDisk;
use edge_system::layout::Layout;
use rustix::fs::{AtFlags, CWD, Gid, Mode, Uid, chmod, chownat, statat};
use rustix::mount::{MountFlags, mount};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Of the boot log and the one before it, in bytes.
const BOOT_LOG: u64 = 256 << 10;
/// Lines of e2fsck that are told: a broken file system has thousands.
const CHECKED: usize = 30;

/// The words that the first stage calls the second one with, `NAME=VALUE`. Others are for other versions.
#[derive(Debug, Default, PartialEq)]
struct Words {
    disk: Option<PathBuf>,
    slot: String,
    trial: bool,
    created: u64,
    watchdog: Option<i32>,
}

impl Words {
    fn parse(words: impl Iterator<Item = String>) -> Words {
        let mut parsed = Words::default();
        for word in words {
            match word.split_once('=') {
                Some(("disk", value)) => parsed.disk = Some(value.into()),
                Some(("slot", value)) => parsed.slot = value.into(),
                Some(("trial", value)) => parsed.trial = value == "yes",
                Some(("created", value)) => parsed.created = value.parse().unwrap_or(0),
                Some(("watchdog", value)) => parsed.watchdog = value.parse().ok(),
                _ => {}
            }
        }
        parsed
    }
}

/// Does not come back: the machine is switched off or starts anew.
pub fn run(words: impl Iterator<Item = String>) -> ! {
    down::on_panic();
    let words = Words::parse(words);
    // SAFETY: the first stage left the descriptor to this process, and nothing has been opened by its number since.
    let mut watchdog = words.watchdog.and_then(|descriptor| unsafe { Watchdog::kept(descriptor) });
    if let Err(why) = say::log_to(Path::new(first::EARLY_LOG), 1 << 16) {
        say(&format!("{}: {why}", first::EARLY_LOG));
    }
    if watchdog.is_none() {
        // Some appear only after a while.
        watchdog = Watchdog::open(Path::new("/dev/watchdog"));
    }
    let ended = Signals::listen().and_then(|signals| {
        let supervisor = prepare(&words, &mut watchdog);
        Supervisor { watchdog: watchdog.take(), ..supervisor }.run(signals)
    });
    match ended {
        Ok((ending, watchdog)) => down::go(ending, watchdog),
        Err(why) => down::give_up(&why, watchdog),
    }
}

/// Everything before the camera is started.
fn prepare(words: &Words, watchdog: &mut Option<Watchdog>) -> Supervisor {
    let mut feed = || {
        if let Some(watchdog) = watchdog {
            watchdog.feed(say::uptime());
        }
    };
    let options = Options::read();
    harden();
    let disk = words.disk.clone().unwrap_or_default();
    let layout = FileDisk::open(&disk).map_err(anyhow::Error::from).and_then(|d| Ok(Layout::from_disk(&d)?));
    let layout = layout.with_context(|| disk.display().to_string());
    match layout.as_ref() {
        Ok(layout) => {
            let boot = block::partition(&disk, 1, layout.boot.start).and_then(|part| Ok(mount_boot(&part)?));
            told("the boot partition cannot be mounted", boot);
            let data = block::partition(&disk, 4, layout.data.start);
            if data.and_then(|part| mount_data(&part, &mut feed)).map_err(|why| say(&format!("{why:#}"))).is_err() {
                scratch();
            }
        }
        Err(why) => {
            say(&format!("{why:#}"));
            scratch();
        }
    }
    feed();
    told("/data cannot be prepared", own_data());
    told("there is no boot log on the disk", say::log_to(Path::new("/data/log/boot.log"), BOOT_LOG));
    let now = match time::floor(words.created, Path::new("/data/log")) {
        Some(time) => {
            format!("the clock is set to the earliest time that it can be, {}", humantime::format_rfc3339_seconds(time))
        }
        None => format!("the clock says {}", humantime::format_rfc3339_seconds(std::time::SystemTime::now())),
    };
    say(&now);
    let hostname = hostname(&std::fs::read_to_string("/boot/hostname").unwrap_or_default());
    told("the host's name cannot be set", rustix::system::sethostname(hostname.as_bytes()));
    let trusted = layout.as_ref().map(|layout| trusted(&disk, layout)).unwrap_or_default();
    let busybox = busybox();
    network::prepare(&busybox);
    hooks::run(Path::new("/test"), &busybox, &mut feed);
    let devices = Devices::listen(Path::new("/sys"));
    let program = std::env::current_exe().unwrap_or_else(|_| "/system/bin/edge-init".into());
    let helpers =
        if options.ntp.is_empty() { vec![] } else { vec![network::time(&program, &options.ntp, words.created)] };
    let config = PathBuf::from("/boot/camera.toml");
    let slot = words.slot.clone();
    let wishes = Wishes::read(&config);
    let control = wishes.control.then(|| {
        let running = layout.is_ok().then(|| (disk.clone(), slot.clone()));
        Control::open(Path::new("/run/edge-init/control"), Some(CAMERA_USER), running)
    });
    let control = control.transpose().map_err(|why| say(&format!("no orders are taken: {why:#}"))).ok().flatten();
    Supervisor {
        camera: Camera {
            program: "/system/bin/edge-camera".into(),
            config: Some(config).filter(|config| config.exists()),
            slots: Some("/data/packages".into()),
            log: "/data/log/class.jsonl".into(),
            trusted,
            hang: Limits::default().hang,
            control: control.as_ref().map(|control| control.path().into()),
            user: Some((CAMERA_USER, CAMERA_GROUP)),
            environment: hooks::environment(Path::new("/test")),
            arguments: vec![],
        },
        limits: Limits::default(),
        trial: words.trial.then(|| options.trial()),
        commit: Box::new(move || keep(&disk, &slot)),
        watchdog: None,
        helpers,
        network: Some(Box::new(move |card| network::client(card, &busybox, &hostname))),
        devices: devices.map_err(|why| say(&format!("no news of devices: {why}"))).ok(),
        control,
        lines: wishes.lines,
        run: "/run/edge-init".into(),
    }
}

/// Writes to the boot state that the system on trial is kept.
pub fn keep(disk: &Path, slot: &str) -> anyhow::Result<String> {
    let mut disk = FileDisk::open_writable(disk)?;
    let layout = Layout::from_disk(&disk)?;
    edge_system::boot::keep(&mut disk, &layout)?;
    Ok(format!("system slot {slot} is kept"))
}

fn told<T, E: std::fmt::Display>(what: &str, result: Result<T, E>) {
    if let Err(why) = result {
        say(&format!("{what}: {why:#}"));
    }
}

/// What no program may do from now on.
fn harden() {
    // Nothing here gains rights by being run: there is nobody to log in.
    let _ = rustix::thread::set_no_new_privs(true);
    // The camera's user owns folders that this process works in: its links must not lead anywhere else.
    for (name, value) in [
        ("fs/protected_symlinks", "1"),
        ("fs/protected_hardlinks", "1"),
        ("fs/protected_fifos", "2"),
        ("fs/protected_regular", "2"),
        ("kernel/kptr_restrict", "2"),
        ("kernel/dmesg_restrict", "1"),
        ("kernel/sysrq", "0"),
    ] {
        let _ = std::fs::write(Path::new("/proc/sys").join(name), value);
    }
}

/// Mounts the data partition, checked where that is needed, and grown to its partition's size.
fn mount_data(partition: &Path, feed: &mut dyn FnMut()) -> anyhow::Result<()> {
    let _ = rustix::fs::mkdir("/data", Mode::from_raw_mode(0o755));
    let flags = PLAIN | MountFlags::NOATIME;
    let mounted = || mount(partition, "/data", "ext4", flags, Some(c"errors=remount-ro"));
    let errors = ext4::Superblock::read(partition).is_ok_and(|superblock| superblock.errors);
    if errors {
        say("the data partition has errors");
    }
    if errors || mounted().is_err() {
        // What can be mended without a loss first, then whatever it takes: what is lost is packages and log, not the device.
        let whole = check(partition, "-p", feed) || check(partition, "-y", feed);
        if !whole {
            say("the data partition cannot be mended");
        }
        mounted().with_context(|| format!("{}: the data partition cannot be mounted", partition.display()))?;
    }
    match ext4::grow(partition, Path::new("/data")) {
        Ok(Some(bytes)) => say(&format!("the data partition has grown to {} MiB", bytes >> 20)),
        Ok(None) => {}
        Err(why) => say(&format!("the data partition does not grow: {why:#}")),
    }
    Ok(())
}

/// Whether e2fsck leaves a whole file system.
fn check(partition: &Path, how: &str, feed: &mut dyn FnMut()) -> bool {
    let mut command = Command::new("/system/bin/e2fsck");
    command.arg(how).arg(partition).env_clear();
    let mut child = match Child::start(&mut command) {
        Ok(child) => child,
        Err(why) => {
            say(&format!("/system/bin/e2fsck: {why}"));
            return false;
        }
    };
    let mut printed = 0;
    let exit = loop {
        let ended = child::ended().into_iter().find(|(pid, _)| *pid == child.pid);
        for line in child.lines(ended.is_some()) {
            printed += 1;
            if printed <= CHECKED {
                say::forward(&format!("e2fsck: {line}"));
            }
        }
        if let Some((_, exit)) = ended {
            break exit;
        }
        feed();
        std::thread::sleep(Duration::from_millis(20));
    };
    say(&format!("e2fsck {how} of the data partition: {exit:?}, {printed} lines"));
    // 1: mended; 2: mended, and a mounted one would have to be mounted anew.
    matches!(exit, Exit::Code(code) if code & !3 == 0)
}

/// A place for the log where there is no data partition.
fn scratch() {
    say("there is no data partition: packages cannot be had, and the log is lost when the power goes");
    let _ = rustix::fs::mkdir("/data", Mode::from_raw_mode(0o755));
    told("not even a place in memory", mount("tmpfs", "/data", "tmpfs", PLAIN, Some(c"mode=755,size=25%")));
}

/// The folders of the data partition and whose they are. In both the camera's user makes files, and replaces and removes
/// what is its own (the log, the choice of the package); the boot log and the packages stay this process's.
fn own_data() -> anyhow::Result<()> {
    for folder in ["/data/log", "/data/packages"].map(Path::new) {
        std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        give(folder, None)?;
        // Sticky: who may write to it may still not rename or remove what is another's.
        chmod(folder, Mode::from_raw_mode(0o1775)).with_context(|| folder.display().to_string())?;
        for entry in std::fs::read_dir(folder)?.flatten() {
            let ours = entry.file_name().to_string_lossy().starts_with("boot.log");
            if entry.file_type().is_ok_and(|kind| kind.is_file()) && !ours {
                give(&entry.path(), Some(CAMERA_USER))?;
            }
        }
    }
    Ok(())
}

/// Gives a file or folder to a user, or to root, and to the camera's group.
fn give(path: &Path, user: Option<u32>) -> anyhow::Result<()> {
    let (user, group) = (Uid::from_raw(user.unwrap_or(0)), Gid::from_raw(CAMERA_GROUP));
    let state = statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW)?;
    if (state.st_uid, state.st_gid) != (user.as_raw(), group.as_raw()) {
        chownat(CWD, path, Some(user), Some(group), AtFlags::SYMLINK_NOFOLLOW)
            .with_context(|| path.display().to_string())?;
    }
    Ok(())
}

/// Files with the keys of which one must have signed what is run.
fn trusted(disk: &Path, layout: &Layout) -> Vec<PathBuf> {
    let keys = match FileDisk::open(disk) {
        Ok(open) => first::trust(&open, layout, disk).policy.trusted,
        Err(_) => vec![],
    };
    if keys.is_empty() {
        say("updates are accepted unsigned");
    }
    let mut files = vec![];
    for (number, key) in keys.into_iter().enumerate() {
        let path = PathBuf::from(format!("/run/edge-init/trusted-{number}.pub"));
        told("a trusted key cannot be given to the camera", std::fs::write(&path, key.to_file_text()));
        // Also where it is not there: the camera must not run without it.
        files.push(path);
    }
    files
}

/// What the file says, if a host may be called so.
fn hostname(text: &str) -> String {
    let name = text.trim();
    let label = |c: char| c.is_ascii_alphanumeric() || c == '-';
    let fits =
        (1..=63).contains(&name.len()) && name.chars().all(label) && !name.starts_with('-') && !name.ends_with('-');
    if !fits && !name.is_empty() {
        say(&format!("/boot/hostname: {name:?} is no name for a host: letters, digits and - between them, 63 at most"));
    }
    if fits { name.into() } else { "edge-camera".into() }
}

/// The system's busybox, else that of the initramfs.
fn busybox() -> PathBuf {
    let places = ["/system/bin/busybox", "/bin/busybox"].map(PathBuf::from);
    let found = places.iter().find(|place| place.exists());
    found.unwrap_or(&places[0]).clone()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_other_versions_are_passed_over() {
        let words = ["disk=/dev/vda", "color=red", "slot=b", "trial=yes", "created=17", "watchdog=5", "run", "="];
        let expected =
            Words { disk: Some("/dev/vda".into()), slot: "b".into(), trial: true, created: 17, watchdog: Some(5) };
        assert_eq!(Words::parse(words.into_iter().map(String::from)), expected);
        assert_eq!(Words::parse(std::iter::empty()), Words::default());
        let odd = ["created=soon", "watchdog=x", "trial=1"].into_iter().map(String::from);
        assert_eq!(Words::parse(odd), Words::default());
    }

    #[test]
    fn a_host_has_a_proper_name() {
        assert_eq!(hostname("kitchen-2\n"), "kitchen-2");
        for text in ["", "a b", "-a", "a-", "käse", "a.b", &"x".repeat(64)] {
            assert_eq!(hostname(text), "edge-camera", "{text}");
        }
    }
}
