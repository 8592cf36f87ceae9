//! Whole boards, emulated: an image that `edge-flash image` made is started under QEMU, with an emulated camera in front of
//! it.
//!
//! The boards' own boot loaders are not emulated, so kernel, initramfs, device tree and command line are taken **out of
//! the image's FAT partition** and handed to QEMU: what is tested is what is flashed. The harness works on a copy of the
//! image and leaves its partitions alone. What it changes otherwise is told: see [`Rig::boot`].

mod guest;
pub mod steps;
pub mod user;

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use edge_system::board::Board;
use edge_system::disk::FileDisk;
use edge_system::layout::Layout;

use crate::console::{Console, Killed, tail};
use crate::cross::sets;
use crate::debian::Tree;
use crate::{apt, tools};

/// What the first process prints before anything else. Without it nothing has been written to the disk either.
const ALIVE: &str = "edge-init: ";

/// How long a board may take to its first process. The early boot of the emulated rpi4 stalls now and then.
const EARLY: Duration = Duration::from_secs(400);

/// QEMU's Raspberry Pis restart at once when their watchdog is started, however long it is set to.
const RPI_WATCHDOG: &str = "module_blacklist=bcm2835_wdt";

/// What the kernel says last. The emulated Raspberry Pis, without their watchdog, then stay on.
const LAST: [&str; 3] = ["reboot: Power down", "reboot: System halted", "reboot: Restarting system"];

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

/// QEMU and what it is given besides an image.
pub struct Rig {
    qemu: Tree,
    guest: Tree,
    device: Tree,
    tools: Tree,
    work: PathBuf,
}

/// How one start is to be.
pub struct Start<'a> {
    /// The board that the image is for.
    pub board: &'static Board,
    /// The disk, a copy of the image: it is written to.
    pub disk: &'a Path,
    /// The cpio archive that is appended to the initramfs.
    pub test: &'a [u8],
    /// More words for the kernel's command line.
    pub words: &'a str,
    /// When the emulator is killed.
    pub timeout: Duration,
}

/// What is taken out of the image.
struct Taken {
    kernel: PathBuf,
    initramfs: PathBuf,
    dtb: Option<PathBuf>,
    command_line: String,
}

impl Rig {
    /// Fetches what is missing (about 120 MB). `name` is of a folder to work in, so that two boards can run side by side.
    pub fn new(cache: &Path, name: &str) -> Result<Self> {
        let work = cache.join("boards").join(name);
        fs::create_dir_all(&work).with_context(|| format!("creating {}", work.display()))?;
        Ok(Self {
            qemu: Tree::fetch(cache, &sets::EMULATOR)?,
            guest: Tree::fetch(cache, &sets::GUEST)?,
            device: Tree::fetch(cache, &sets::DEVICE)?,
            tools: Tree::fetch(cache, &sets::TOOLS)?,
            work,
        })
    }

    /// A copy of an image for a board to work on. QEMU's cards have sizes that are powers of two, so the copy may be larger
    /// than the image, as any card is.
    pub fn card(&self, image: &Path, board: &Board, name: &str) -> Result<PathBuf> {
        let card = self.work.join(name);
        tools::run(Command::new("cp").arg("--sparse=always").arg(image).arg(&card))?;
        let length = fs::metadata(&card)?.len();
        let is_card = board.emulator.as_ref().is_some_and(|emulator| emulator.machine != "virt");
        if is_card && !length.is_power_of_two() {
            let padded = length.next_power_of_two();
            File::options().write(true).open(&card)?.set_len(padded)?;
            println!("difference: the card is {} MiB, the image {} MiB", padded >> 20, length >> 20);
        }
        Ok(card)
    }

    /// Starts a board from a disk and waits until it has switched off or started anew. Returns all that was printed.
    ///
    /// What differs from a real board is printed: the test's archive and more words for the kernel, and what is taken out
    /// of the device tree because QEMU has no such device. A board whose kernel prints nothing of its first process is
    /// started once more, which is told, too.
    pub fn boot(&self, start: &Start) -> Result<String> {
        let taken = self.take(start).context("taking the boot files out of the image")?;
        for attempt in 1..=2 {
            let (console, ended) = self.attempt(start, &taken)?;
            let log = self.work.join("console.txt");
            fs::write(&log, &console)?;
            match ended {
                Ended::Down => return Ok(console),
                Ended::NeverAlive if attempt == 1 => println!(
                    "the emulated {} printed nothing of its first process within {} s; it is started once more",
                    start.board.name,
                    EARLY.as_secs()
                ),
                Ended::NeverAlive => bail!("it did not start, twice; the console's end:\n{}", tail(&console)),
                Ended::Late => bail!(
                    "it did not switch off within {} s; its console is in {}; the end:\n{}",
                    start.timeout.as_secs(),
                    log.display(),
                    tail(&console)
                ),
            }
        }
        bail!("unreachable: both attempts have an end")
    }

    fn attempt(&self, start: &Start, taken: &Taken) -> Result<(String, Ended)> {
        let mut qemu = self.qemu(start, taken)?;
        let begin = Instant::now();
        let mut child = Killed(qemu.spawn().context("starting QEMU")?);
        let console = Console::read(&mut child.0)?;
        let mut alive = false;
        let mut down: Option<Instant> = None;
        let ended = loop {
            if child.0.try_wait()?.is_some() {
                break if console.has(ALIVE) { Ended::Down } else { Ended::NeverAlive };
            }
            alive = alive || console.has(ALIVE);
            // Everything is on the disk by then.
            if down.is_none() && LAST.iter().any(|text| console.has(text)) {
                down = Some(Instant::now());
            }
            if down.is_some_and(|down| down.elapsed() > Duration::from_secs(3)) {
                break Ended::Down;
            }
            if !alive && begin.elapsed() > EARLY {
                break Ended::NeverAlive;
            }
            if begin.elapsed() > start.timeout {
                break Ended::Late;
            }
            thread::sleep(Duration::from_millis(200));
        };
        drop(child); // Closes the console's pipe where QEMU still runs.
        Ok((console.finish(), ended))
    }

    fn qemu(&self, start: &Start, taken: &Taken) -> Result<Command> {
        let emulator =
            start.board.emulator.as_ref().with_context(|| format!("no emulator for {}", start.board.name))?;
        let disk = start.disk.to_str().context("the cache directory's path is not UTF-8")?.replace(',', ",,");
        let mut qemu = self.qemu.command("bin/qemu-system-aarch64", None)?;
        qemu.arg("-L").arg(self.qemu.path("share/qemu")?);
        qemu.args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-monitor", "none"]);
        qemu.args(["-machine", &emulator.machine, "-accel", "tcg,thread=multi"]);
        if let Some(cpu) = &emulator.cpu {
            qemu.args(["-cpu", cpu, "-smp", "2"]);
        }
        if let Some(memory) = emulator.memory_mib {
            qemu.args(["-m", &format!("{memory}M")]);
        }
        for _ in 0..emulator.serial {
            qemu.args(["-serial", "null"]);
        }
        qemu.args(["-serial", "stdio"]);
        if emulator.machine == "virt" {
            qemu.args(["-drive", &format!("if=none,id=disk,format=raw,file={disk}")]);
            qemu.args(["-device", "virtio-blk-pci,drive=disk,romfile="]);
            qemu.args(["-netdev", "user,id=net,restrict=on", "-device", "virtio-net-pci,netdev=net,romfile="]);
            qemu.args(["-device", "i6300esb"]);
        } else {
            qemu.args(["-drive", &format!("if=sd,format=raw,file={disk}")]);
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
    fn take(&self, start: &Start) -> Result<Taken> {
        let board = start.board;
        let image = board.image()?;
        let kernel = self.extract(start.disk, "vmlinuz")?;
        let initramfs = self.extract(start.disk, "initramfs.img")?;
        let mut archive = File::options().append(true).open(&initramfs)?;
        // The kernel looks for the next archive at a multiple of four.
        let length = archive.metadata()?.len();
        archive.write_all(&[0; 3][..(length.next_multiple_of(4) - length) as usize])?;
        archive.write_all(start.test)?;
        println!("difference: an archive of {} KiB with /test is appended to the initramfs", start.test.len() >> 10);
        let command_line = self.extract(start.disk, "cmdline.txt")?;
        let mut command_line = fs::read_to_string(command_line)?.trim().to_owned();
        let is_virt = board.emulator.as_ref().is_some_and(|emulator| emulator.machine == "virt");
        let watchdog = if is_virt { "" } else { RPI_WATCHDOG };
        let words = format!("{} {watchdog}", start.words);
        if !words.trim().is_empty() {
            println!("difference: the kernel is also given {:?}", words.trim());
            command_line += &format!(" {}", words.trim());
        }
        let dtb = match image.dtbs.first() {
            Some(dtb) => {
                let name = dtb.rsplit('/').next().unwrap_or(dtb);
                let path = self.extract(start.disk, name)?;
                if board.name == "rpi4" {
                    self.patch(&path)?;
                }
                Some(path)
            }
            None => None,
        };
        Ok(Taken { kernel, initramfs, dtb, command_line })
    }

    /// Copies a file of the image's FAT partition out of it.
    fn extract(&self, disk: &Path, name: &str) -> Result<PathBuf> {
        let layout = Layout::from_disk(&FileDisk::open(disk)?)?;
        let to = self.work.join(name);
        let mut mcopy = self.qemu.command("bin/mtools", Some("mcopy"))?;
        mcopy.arg("-n").arg("-o").arg("-i").arg(format!("{}@@{}", disk.display(), layout.boot.start));
        apt::text(mcopy.arg(format!("::{name}")).arg(&to))?;
        Ok(to)
    }

    /// Takes out of the Raspberry Pi 4's device tree what QEMU's machine does not have.
    fn patch(&self, dtb: &Path) -> Result<()> {
        let list = |node: &str| -> Result<Vec<String>> {
            let text = apt::text(self.qemu.command("bin/fdtget", None)?.arg("-l").arg(dtb).arg(node))?;
            Ok(text.lines().map(|line| format!("{}/{}", node.trim_end_matches('/'), line.trim())).collect())
        };
        let mut disabled = Vec::new();
        for node in list("/")?.into_iter().chain(list("/soc")?) {
            let name = node.rsplit('/').next().unwrap_or(&node);
            if RPI4_ABSENT.iter().any(|absent| name.starts_with(absent)) {
                let mut put = self.qemu.command("bin/fdtput", None)?;
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
            apt::text(self.qemu.command("bin/fdtput", None)?.arg("-d").arg(dtb).args([node, property]))?;
        }
        println!(
            "difference: the device tree goes without {}, and its cards without their supplies",
            disabled.join(", ")
        );
        Ok(())
    }
}

/// How a start ended.
enum Ended {
    /// Switched off, or started anew.
    Down,
    /// Nothing came of the first process.
    NeverAlive,
    /// Something came, and then no end.
    Late,
}
