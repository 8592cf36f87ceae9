//! An emulated board that runs: QEMU, started from a disk.
//!
//! The boards' own boot loaders are not emulated, so kernel, initramfs, device tree and command line are taken **out of
//! the image's FAT partition** and handed to QEMU: what is tested is what is flashed. What differs from a real board beyond
//! that is told: [`Machine::start`] gives it in words.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use edge_rig::apt;
use edge_rig::console::{Console, Killed};
use edge_rig::debian::Tree;
use edge_rig::sets;
use edge_system::board::Board;
use edge_system::disk::FileDisk;
use edge_system::layout::Layout;

use crate::interrupt;

/// What the first process prints before anything else. Without it nothing has been written to the disk either.
const ALIVE: &str = "edge-init: ";

/// QEMU's Raspberry Pis restart at once when their watchdog is started, however long it is set to.
const RPI_WATCHDOG: &str = "module_blacklist=bcm2835_wdt";

/// What the kernel says last. The emulated Raspberry Pis, without their watchdog, then stay on.
const LAST: [&str; 3] = ["reboot: Power down", "reboot: System halted", "reboot: Restarting system"];

/// From the kernel's last words to the end of an emulator that does not end by itself. Everything is on the disk by then.
const AFTER: Duration = Duration::from_secs(3);

/// What hangs at the Raspberry Pis' first serial line.
const BLUETOOTH: &str = "/soc/serial@7e201000/bluetooth";

/// Nodes of the Raspberry Pi 4's device tree that QEMU's machine has no devices for, by the beginning of their names; the
/// kernel waits for them in vain.
const RPI4_ABSENT: [&str; 8] = [
    "interrupt-controller@7ef00100",
    "clock@7ef00000",
    "hdmi@",
    "i2c@7ef04500",
    "i2c@7ef09500",
    "hvs@",
    "pixelvalve@",
    "vec@",
];

/// QEMU, and what it is given besides an image. Fetched once (about 120 MB).
pub struct Emulator {
    /// QEMU and the tools that images are read with.
    pub qemu: Tree,
    /// Programs for tests, for the boards' processor.
    pub guest: Tree,
    /// The kernel.
    pub device: Tree,
    /// Programs that read kernel packages.
    pub tools: Tree,
}

impl Emulator {
    /// Fetches what is missing.
    pub fn fetch(cache: &Path) -> Result<Emulator> {
        Ok(Emulator {
            qemu: Tree::fetch(cache, &sets::EMULATOR)?,
            guest: Tree::fetch(cache, &sets::GUEST)?,
            device: Tree::fetch(cache, &sets::DEVICE)?,
            tools: Tree::fetch(cache, &sets::TOOLS)?,
        })
    }
}

/// How a board is started.
pub struct Start<'a> {
    /// Which one.
    pub board: &'static Board,
    /// The disk, a copy of an image: it is written to.
    pub disk: &'a Path,
    /// The cpio archive that is appended to the initramfs.
    pub test: &'a [u8],
    /// More words for the kernel's command line.
    pub words: &'a str,
    /// A folder for the files taken out of the image.
    pub work: &'a Path,
    /// A folder with a short path for sockets.
    pub sockets: &'a Path,
}

/// The virtio port that the test's shell listens on.
pub const SHELL_PORT: &str = "test.shell";
/// The virtio port that the camera's link is on.
pub const LINK_PORT: &str = "edge.link";

/// How a machine ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It was switched off, or stands still.
    Off,
    /// It starts anew, or would have: by itself or through its watchdog.
    Again,
}

/// A board that runs. It is killed when this is dropped, as by a power cut: what it had not written is lost.
pub struct Machine {
    child: Killed,
    begun: Instant,
    console: Console,
    last: Option<Instant>,
    end: Option<End>,
    /// What differs from a real board, in words.
    pub differences: Vec<String>,
}

impl Machine {
    /// Starts a board from a disk.
    pub fn start(emulator: &Emulator, start: &Start) -> Result<Machine> {
        let mut differences = Vec::new();
        let taken = take(emulator, start, &mut differences).context("taking the boot files out of the image")?;
        let mut qemu = command(emulator, start, &taken)?;
        let mut child = Killed(qemu.process_group(0).spawn().context("starting QEMU")?);
        interrupt::ends_too(child.0.id());
        let console = Console::read(&mut child.0)?;
        Ok(Machine { child, begun: Instant::now(), console, last: None, end: None, differences })
    }

    /// What was printed so far.
    pub fn printed(&self) -> String {
        self.console.text()
    }

    /// Whether its first process has begun.
    pub fn alive(&self) -> bool {
        self.console.has(ALIVE)
    }

    /// How long it has had power.
    pub fn age(&self) -> Duration {
        self.begun.elapsed()
    }

    /// How it ended, if it did.
    pub fn ended(&mut self) -> Result<Option<End>> {
        if self.end.is_none() {
            let gone = self.child.0.try_wait()?.is_some();
            if !gone && self.last.is_none() && LAST.iter().any(|text| self.console.has(text)) {
                self.last = Some(Instant::now());
            }
            if gone || self.last.is_some_and(|last| last.elapsed() > AFTER) {
                let off = LAST[..2].iter().any(|text| self.console.has(text));
                self.end = Some(if off { End::Off } else { End::Again });
            }
        }
        Ok(self.end)
    }

    /// Ends the emulator at once, and gives all that was printed.
    pub fn kill(self) -> String {
        interrupt::has_ended(self.child.0.id());
        drop(self.child); // Closes the console's pipe where QEMU still runs.
        self.console.finish()
    }
}

/// What is taken out of the image.
struct Taken {
    kernel: PathBuf,
    initramfs: PathBuf,
    dtb: Option<PathBuf>,
    command_line: String,
}

/// Whether a board is QEMU's own, which has all that QEMU has.
pub fn is_virt(board: &Board) -> bool {
    board.emulator.as_ref().is_some_and(|emulator| emulator.machine == "virt")
}

fn command(emulator: &Emulator, start: &Start, taken: &Taken) -> Result<Command> {
    let about = start.board.emulator.as_ref().with_context(|| format!("no emulator for {}", start.board.name))?;
    let text = |path: &Path| -> Result<String> {
        Ok(path.to_str().with_context(|| format!("{} is not UTF-8", path.display()))?.replace(',', ",,"))
    };
    let disk = text(start.disk)?;
    let mut qemu = emulator.qemu.command("bin/qemu-system-aarch64", None)?;
    qemu.arg("-L").arg(emulator.qemu.path("share/qemu")?);
    qemu.args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-monitor", "none"]);
    qemu.args(["-machine", &about.machine, "-accel", "tcg,thread=multi"]);
    if let Some(cpu) = &about.cpu {
        qemu.args(["-cpu", cpu, "-smp", "2"]);
    }
    if let Some(memory) = about.memory_mib {
        qemu.args(["-m", &format!("{memory}M")]);
    }
    // Sockets that QEMU listens on; the guest does not wait for whom they are for.
    let socket = |name: &str| -> Result<String> {
        let path = start.sockets.join(name);
        match fs::remove_file(&path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                Err(e).with_context(|| format!("removing {}", path.display()))
            }
            _ => Ok(format!("socket,id={name},path={},server=on,wait=off", text(&path)?)),
        }
    };
    for number in 0..about.serial {
        if number == 0 {
            // The line before the console's is the link's.
            qemu.args(["-chardev", &socket(LINK_PORT)?, "-serial", &format!("chardev:{LINK_PORT}")]);
        } else {
            qemu.args(["-serial", "null"]);
        }
    }
    qemu.args(["-serial", "stdio"]);
    if is_virt(start.board) {
        // What the board has written outlives QEMU, which is all that a power cut ends: nothing has to reach this machine's disk.
        qemu.args(["-drive", &format!("if=none,id=disk,format=raw,cache=unsafe,file={disk}")]);
        qemu.args(["-device", "virtio-blk-pci,drive=disk,romfile="]);
        qemu.args(["-netdev", "user,id=net,restrict=on", "-device", "virtio-net-pci,netdev=net,romfile="]);
        qemu.args(["-device", "i6300esb", "-device", "virtio-serial-pci"]);
        for port in [SHELL_PORT, LINK_PORT] {
            qemu.args(["-chardev", &socket(port)?]);
            qemu.args(["-device", &format!("virtserialport,chardev={port},name={port}")]);
        }
    } else {
        qemu.args(["-drive", &format!("if=sd,format=raw,cache=unsafe,file={disk}")]);
    }
    qemu.arg("-kernel").arg(&taken.kernel).arg("-initrd").arg(&taken.initramfs);
    if let Some(dtb) = &taken.dtb {
        qemu.arg("-dtb").arg(dtb);
    }
    qemu.args(["-append", &taken.command_line]);
    qemu.stdout(Stdio::piped()).stderr(Stdio::piped());
    Ok(qemu)
}

/// Takes the boot files out of the image and adds the test's.
fn take(emulator: &Emulator, start: &Start, differences: &mut Vec<String>) -> Result<Taken> {
    let board = start.board;
    let image = board.image()?;
    let kernel = extract(emulator, start, "vmlinuz")?;
    let initramfs = extract(emulator, start, "initramfs.img")?;
    let mut archive = File::options().append(true).open(&initramfs)?;
    // The kernel looks for the next archive at a multiple of four.
    let length = archive.metadata()?.len();
    archive.write_all(&[0; 3][..(length.next_multiple_of(4) - length) as usize])?;
    archive.write_all(start.test)?;
    differences.push(format!("an archive of {} KiB with /test is appended to the initramfs", start.test.len() >> 10));
    let command_line = extract(emulator, start, "cmdline.txt")?;
    let mut command_line = fs::read_to_string(command_line)?.trim().to_owned();
    let watchdog = if is_virt(board) { "" } else { RPI_WATCHDOG };
    let words = format!("{} {watchdog}", start.words);
    if !words.trim().is_empty() {
        differences.push(format!("the kernel is also given {:?}", words.trim()));
        command_line += &format!(" {}", words.trim());
    }
    let dtb = match image.dtbs.first() {
        Some(dtb) => {
            let name = dtb.rsplit('/').next().unwrap_or(dtb);
            let path = extract(emulator, start, name)?;
            apt::text(emulator.qemu.command("bin/fdtput", None)?.arg("-r").arg(&path).arg(BLUETOOTH))?;
            differences.push("nothing hangs at the first serial line, so that it can be the link's".into());
            if board.name == "rpi4" {
                patch(emulator, &path, differences)?;
            }
            Some(path)
        }
        None => None,
    };
    Ok(Taken { kernel, initramfs, dtb, command_line })
}

/// Copies a file of the image's FAT partition out of it.
fn extract(emulator: &Emulator, start: &Start, name: &str) -> Result<PathBuf> {
    let layout = Layout::from_disk(&FileDisk::open(start.disk)?)?;
    let to = start.work.join(name);
    let mut mcopy = emulator.qemu.command("bin/mtools", Some("mcopy"))?;
    mcopy.arg("-n").arg("-o").arg("-i").arg(format!("{}@@{}", start.disk.display(), layout.boot.start));
    apt::text(mcopy.arg(format!("::{name}")).arg(&to))?;
    Ok(to)
}

/// Takes out of the Raspberry Pi 4's device tree what QEMU's machine does not have.
fn patch(emulator: &Emulator, dtb: &Path, differences: &mut Vec<String>) -> Result<()> {
    let list = |node: &str| -> Result<Vec<String>> {
        let text = apt::text(emulator.qemu.command("bin/fdtget", None)?.arg("-l").arg(dtb).arg(node))?;
        Ok(text.lines().map(|line| format!("{}/{}", node.trim_end_matches('/'), line.trim())).collect())
    };
    let mut disabled = Vec::new();
    for node in list("/")?.into_iter().chain(list("/soc")?) {
        let name = node.rsplit('/').next().unwrap_or(&node);
        if RPI4_ABSENT.iter().any(|absent| name.starts_with(absent)) {
            let mut put = emulator.qemu.command("bin/fdtput", None)?;
            apt::text(put.args(["-t", "s"]).arg(dtb).args([&node, "status", "disabled"]))?;
            disabled.push(name.to_owned());
        }
    }
    ensure!(!disabled.is_empty(), "no node of {} is one that QEMU lacks", dtb.display());
    for (node, property) in [
        ("/emmc2bus/mmc@7e340000", "vqmmc-supply"),
        ("/emmc2bus/mmc@7e340000", "vmmc-supply"),
        ("/soc/mmc@7e300000", "mmc-pwrseq"),
    ] {
        apt::text(emulator.qemu.command("bin/fdtput", None)?.arg("-d").arg(dtb).args([node, property]))?;
    }
    differences
        .push(format!("the device tree goes without {}, and its cards without their supplies", disabled.join(", ")));
    Ok(())
}
