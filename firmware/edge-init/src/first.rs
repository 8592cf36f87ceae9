//! The first stage: process 1 of the initramfs. It finds the disk, chooses the system, checks it and becomes its init.
//!
//! This stage is changed by flashing only, so it does as little as it can.

use crate::camera::{CAMERA_GROUP, CAMERA_USER};
use crate::cmdline::Options;
use crate::say::{self, say};
use crate::watchdog::Watchdog;
use crate::{block, down, modules};
use anyhow::{Context, anyhow};
use edge_package::{PublicKey, TrustPolicy};
use edge_system::boot::{self, Started};
use edge_system::disk::{Disk, FileDisk};
use edge_system::layout::Layout;
use edge_system::seal::Seal;
use edge_system::slot::Slot;
use edge_system::system::Trust;
use rustix::fs::{Mode, OFlags};
use rustix::mount::{MountFlags, mount};
use std::cell::RefCell;
use std::convert::Infallible;
use std::ffi::CString;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

/// Where the second stage is, on the system that was chosen.
const NEXT: &str = "/system/bin/edge-init";

/// What was told before there was a disk to tell it to.
pub const EARLY_LOG: &str = "/run/edge-init/boot.log";

/// Mount options of what holds no programs.
pub const PLAIN: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV).union(MountFlags::NOEXEC);

/// Does not come back: it becomes the second stage, or the machine starts anew.
pub fn run() -> ! {
    down::on_panic();
    prepare();
    say(&format!("version {}", env!("CARGO_PKG_VERSION")));
    modules::load(Path::new("/modules"), &mut |text| say(text));
    let watchdog = Watchdog::open(Path::new("/dev/watchdog"));
    match &watchdog {
        Some(watchdog) => say(&format!("watchdog of {} s", watchdog.timeout().as_secs())),
        None => say("no watchdog"),
    }
    let watchdog = RefCell::new(watchdog);
    let Err(why) = start(&watchdog);
    down::give_up(&why, watchdog.into_inner());
}

/// The file systems of the kernel, the console, and what holds from now on.
fn prepare() {
    for (kind, folder, flags, data) in [
        ("proc", "/proc", PLAIN, None),
        ("sysfs", "/sys", PLAIN, None),
        ("devtmpfs", "/dev", MountFlags::NOSUID.union(MountFlags::NOEXEC), Some(c"mode=755")),
        ("tmpfs", "/run", PLAIN, Some(c"mode=755,size=16m")),
        ("tmpfs", "/tmp", PLAIN, Some(c"mode=1777,size=25%")),
    ] {
        let _ = rustix::fs::mkdir(folder, Mode::from_raw_mode(0o755));
        // A kernel that mounts /dev by itself has done so already.
        if let Err(why) = mount(kind, folder, kind, flags, data).or_else(busy) {
            say(&format!("{folder} cannot be mounted: {why}"));
        }
    }
    let _ = rustix::fs::mkdir("/run/edge-init", Mode::from_raw_mode(0o755));
    if let Ok(console) = rustix::fs::open("/dev/console", OFlags::RDWR | OFlags::NOCTTY, Mode::empty()) {
        let _ = rustix::stdio::dup2_stdin(&console);
        let _ = rustix::stdio::dup2_stdout(&console);
        let _ = rustix::stdio::dup2_stderr(&console);
    }
    if let Err(why) = say::log_to(Path::new(EARLY_LOG), 1 << 16) {
        say(&format!("{EARLY_LOG}: {why}"));
    }
    // Ctrl-Alt-Del asks this process instead of cutting everything off; a kernel that panics starts anew.
    let _ = rustix::system::reboot(rustix::system::RebootCommand::CadOff);
    let _ = std::fs::write("/proc/sys/kernel/panic", "10");
}

fn busy(why: rustix::io::Errno) -> rustix::io::Result<()> {
    if why == rustix::io::Errno::BUSY { Ok(()) } else { Err(why) }
}

fn start(watchdog: &RefCell<Option<Watchdog>>) -> anyhow::Result<Infallible> {
    let feed = || {
        if let Some(watchdog) = &mut *watchdog.borrow_mut() {
            watchdog.feed(say::uptime());
        }
    };
    let options = Options::read();
    for word in &options.refused {
        say(&format!("{word:?} on the kernel's command line is not understood"));
    }
    let device = block::find(options.disk.as_deref(), &feed)?;
    let place = device.display().to_string();
    let mut disk = FileDisk::open_writable(&device).or_else(|why| {
        say(&format!("{place} cannot be written: {why}"));
        FileDisk::open(&device)
    });
    let disk = disk.as_mut().map_err(|why| anyhow!("{place} cannot be opened: {why}"))?;
    let layout = Layout::from_disk(disk).with_context(|| place.clone())?;
    let trust = trust(disk, &layout, &device);
    let Started { slot, system, trial, notes, .. } = boot::choose(disk, &layout, &trust, &mut |_| feed())?;
    notes.iter().for_each(|note| say(note));
    let on_trial = if trial { ", on trial" } else { "" };
    say(&format!("slot {slot} of the system ({}){on_trial}", system.manifest.version));
    let number = match slot {
        Slot::A => 2,
        Slot::B => 3,
    };
    let partition = block::partition(&device, number, layout.slot(slot).start)?;
    let _ = rustix::fs::mkdir("/system", Mode::from_raw_mode(0o755));
    let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV;
    mount(&partition, "/system", "squashfs", flags, None)
        .with_context(|| format!("{} cannot be mounted as squashfs", partition.display()))?;
    feed();
    // The second stage may be of another version than this one: words are added, never changed, and those that are not known
    // are passed over.
    let mut next = Command::new(NEXT);
    next.arg("run").arg(format!("disk={place}")).arg(format!("slot={slot}"));
    next.arg(format!("trial={}", if trial { "yes" } else { "no" })).arg(format!("created={}", system.manifest.created));
    if let Some(descriptor) = watchdog.borrow().as_ref().and_then(Watchdog::keep) {
        next.arg(format!("watchdog={descriptor}"));
    }
    Err(next.exec()).with_context(|| format!("{NEXT} cannot be started"))
}

/// Whose systems are accepted: the keys in the list of digests; where that cannot be read, the one on the boot partition.
pub fn trust(disk: &dyn Disk, layout: &Layout, device: &Path) -> Trust {
    let why = match Seal::read(disk, layout, &TrustPolicy::default()) {
        Ok(sealed) => return sealed.seal.trust(),
        Err(why) => why,
    };
    say(&format!("{why}; the trusted key is looked for on the boot partition"));
    let key = block::partition(device, 1, layout.boot.start).and_then(|partition| {
        mount_boot(&partition)?;
        Ok(PublicKey::read(Path::new("/boot/trusted.pub"))?)
    });
    match key {
        Ok(key) => Trust { policy: TrustPolicy { trusted: vec![key] }, factory: None },
        Err(why) => {
            say(&format!("no trusted key: {why:#}"));
            Trust::default()
        }
    }
}

/// Mounts the boot partition, if it is not mounted yet; nothing is ever written to it. Its files are the camera's user's
/// alone, who reads the configuration and perhaps the key of a link there.
pub fn mount_boot(partition: &Path) -> io::Result<()> {
    let _ = rustix::fs::mkdir("/boot", Mode::from_raw_mode(0o755));
    let owner = CString::new(format!("uid={CAMERA_USER},gid={CAMERA_GROUP},fmask=0177,dmask=0077"))?;
    Ok(mount(partition, "/boot", "vfat", PLAIN | MountFlags::RDONLY, Some(owner.as_c_str())).or_else(busy)?)
}
