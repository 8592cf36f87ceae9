//! An emulated board as a device under test: an image that `edge-flash image` makes, under QEMU, with an emulated camera in
//! front of it.
//!
//! What is tested is what is flashed: see [`machine`] for what differs from a real board. The test's own means are an
//! archive beside the initramfs with a kernel module for the emulated camera and, on boards with virtio, a shell
//! ([`agent`]); the camera's link is a virtio port, or the serial line before the console's.

mod agent;
mod guest;
mod machine;
mod made;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use edge_link::{Address, Client, LinkError, RawFrame, Stream};
use edge_rig::apt;
use edge_rig::console::tail;
use edge_suite::hil::{CameraFault, Capability, Dut, DutFile, Files, Qemu, Size, frame, photos};
use edge_system::board::{self, Board};

use crate::cmd::Usage;
use crate::{interrupt, out};
use agent::Agent;
use machine::{Emulator, End, LINK_PORT, Machine, SHELL_PORT, Start, is_virt};
use made::Made;

/// How long a board may take to its first process. The early boot of the emulated Raspberry Pi 4 stalls now and then.
const EARLY: Duration = Duration::from_secs(300);

/// From power on to the first class by this machine's clock, beyond what it may take by the board's.
const SPARE: Duration = Duration::from_secs(600);

/// How long switching off in order may take.
const DOWN: Duration = Duration::from_secs(180);

/// How long a board is greeted before it is looked after.
const GREETING: Duration = Duration::from_secs(10);

/// How often a board is looked at while it is waited for.
const LOOK: Duration = Duration::from_millis(200);

/// What the console says when the camera has classified for the first time, before the class.
const FIRST_CLASS: &str = "edge-init: first class ";

/// Systems on trial are kept after having classified for so many seconds, so that a test need not wait for a minute.
const COMMIT: &str = "edge.commit=5";

/// Where the guest's half of the camera is.
const CAMERA: &str = ". /test/camera.sh\n";

/// What is done by the shell, which listens on a virtio port.
const BY_SHELL: [Capability; 3] = [Capability::Shell, Capability::Show, Capability::CameraFaults];

/// An emulated board.
pub struct QemuDut {
    about: DutFile,
    words: String,
    board: &'static Board,
    emulator: Emulator,
    made: Made,
    card: PathBuf,
    /// What is appended to the initramfs.
    test: Vec<u8>,
    machine: Option<Machine>,
    agent: Option<Agent>,
    client: Option<Client>,
    /// What earlier starts printed.
    printed: String,
    starts: u32,
    /// The last start stalled.
    stalled: bool,
    /// How many did.
    retries: u32,
    /// What was told of how this differs from a real board.
    told: Vec<String>,
    /// What the camera shows: its layout and size.
    shown: (String, Size),
    console: PathBuf,
    work: tempfile::TempDir,
    sockets: tempfile::TempDir,
}

impl QemuDut {
    /// Fetches QEMU and makes the image. `results` gets the console.
    pub fn new(about: DutFile, qemu: Qemu, results: &Path) -> Result<QemuDut> {
        let board = board::by_name(&qemu.board).map_err(|e| Usage(format!("{}: {e}", about.name)))?;
        let shell = BY_SHELL.into_iter().find(|capability| about.capabilities.contains(capability));
        if let Some(capability) = shell.filter(|_| !is_virt(board)) {
            let why = format!("{}: {capability} needs a virtio port, which {} has not", about.name, board.name);
            return Err(Usage(why).into());
        }
        let cache = apt::cache_dir()?;
        let emulator = Emulator::fetch(&cache)?;
        let boards = cache.join("boards");
        std::fs::create_dir_all(&boards).with_context(|| format!("creating {}", boards.display()))?;
        // The image is large, so it is made beside the cache; the path of a socket may have 108 bytes only.
        let folder = |prefix: &str, place: &Path| -> Result<tempfile::TempDir> {
            let folder = tempfile::Builder::new().prefix(prefix).tempdir_in(place);
            let folder = folder.with_context(|| format!("cannot make a folder in {}", place.display()))?;
            interrupt::removed_too(folder.path());
            Ok(folder)
        };
        let work = folder(&format!("{}-", board.name), &boards)?;
        let sockets = folder("edge-hil-", Path::new("/tmp"))?;
        let made = Made::make(&cache, board, &qemu, work.path())?;
        let (card, difference) = made.card()?;
        let first = photos()?.into_iter().next().context("there are no photos")?;
        let (Some(&format), Some(&size)) = (about.formats.first(), about.sizes.first()) else {
            bail!("{}: an emulated board has formats and sizes", about.name);
        };
        let shown = frame(&first.bytes, format, size)?;
        let test = guest::archive(&emulator, &shown)?;
        let mut dut = QemuDut {
            words: format!("{COMMIT} {}", qemu.words),
            board,
            emulator,
            made,
            card,
            test,
            machine: None,
            agent: None,
            client: None,
            printed: String::new(),
            starts: 0,
            stalled: false,
            retries: 0,
            told: vec![],
            shown: (format.to_string(), size),
            console: results.join("console.txt"),
            work,
            sockets,
            about,
        };
        dut.tell(difference.into_iter().collect());
        Ok(dut)
    }

    /// Tells what differs from a real board, each thing once.
    fn tell(&mut self, differences: Vec<String>) {
        for difference in differences {
            if !self.told.contains(&difference) {
                out::tell(format_args!("{}: difference: {difference}", self.about.name));
                self.told.push(difference);
            }
        }
    }

    /// Gives it power.
    fn start(&mut self) -> Result<()> {
        self.end()?;
        let start = Start {
            board: self.board,
            disk: &self.card,
            test: &self.test,
            words: self.words.trim(),
            work: self.work.path(),
            sockets: self.sockets.path(),
        };
        let machine = Machine::start(&self.emulator, &start)?;
        let differences = machine.differences.clone();
        self.machine = Some(machine);
        self.starts += 1;
        self.tell(differences);
        Ok(())
    }

    /// Ends the emulator, if it runs, and keeps what it printed.
    fn end(&mut self) -> Result<()> {
        (self.agent, self.client) = (None, None);
        if let Some(machine) = self.machine.take() {
            let printed = machine.kill();
            self.printed += &format!("--- start {}\n{}\n", self.starts, printed.trim_end());
            std::fs::write(&self.console, &self.printed)
                .with_context(|| format!("cannot write {}", self.console.display()))?;
        }
        Ok(())
    }

    /// Looks after the board: one that has started anew by itself does so, one whose start has stalled is started once more.
    /// An error where it is off, or has stalled twice.
    fn tend(&mut self) -> Result<&mut Machine> {
        let name = &self.about.name;
        let Some(machine) = &mut self.machine else { bail!("{name} is off") };
        let (alive, ended) = (machine.alive(), machine.ended()?);
        let stalled = match ended {
            _ if alive => None,
            Some(_) => Some("ended before its first process began".to_owned()),
            None if machine.age() > EARLY => {
                Some(format!("did not come to its first process in {} s", EARLY.as_secs()))
            }
            None => None,
        };
        if let Some(why) = stalled {
            let printed = machine.printed();
            if self.stalled {
                bail!("{name} {why}, twice; its console ends with:\n{}", tail(&printed));
            }
            out::tell(format_args!("{name} {why}; it is started once more"));
            (self.stalled, self.retries) = (true, self.retries + 1);
            self.start()?;
        } else if alive {
            self.stalled = false;
            match ended {
                None => {}
                Some(End::Again) => self.start()?,
                Some(End::Off) => {
                    self.end()?;
                    bail!("{} has switched itself off", self.about.name);
                }
            }
        }
        self.machine.as_mut().context("a board that runs")
    }

    fn port(&self, name: &str) -> PathBuf {
        self.sockets.path().join(name)
    }

    /// The shell; connected anew where it was lost.
    fn agent(&mut self) -> Result<&mut Agent> {
        let starts = self.starts;
        self.tend()?;
        if self.starts != starts {
            self.agent = None;
        }
        if self.agent.is_none() {
            self.agent = Some(Agent::connect(&self.port(SHELL_PORT))?);
        }
        self.agent.as_mut().context("a shell that was just connected")
    }

    /// Runs a script with the functions of the guest's camera.
    fn camera_shell(&mut self, script: &str) -> Result<()> {
        let patience = self.about.patience();
        self.shell(&format!("{CAMERA}{script}"), patience).map(drop)
    }

    /// Waits for the first class: when it came, in seconds of the board's clock.
    fn first_class(&mut self) -> Result<f64> {
        let begin = Instant::now();
        let all = self.about.first_class() + SPARE;
        loop {
            let machine = self.tend()?;
            if let Some(seconds) = first_class(&machine.printed()) {
                return Ok(seconds);
            }
            if begin.elapsed() > all {
                let printed = machine.printed();
                bail!(
                    "{} has classified nothing within {} s; its console ends with:\n{}",
                    self.about.name,
                    all.as_secs(),
                    tail(&printed)
                );
            }
            std::thread::sleep(LOOK);
        }
    }
}

/// When the first class came, in seconds of the board's clock: `edge-init: first class LABEL after S s`.
fn first_class(console: &str) -> Option<f64> {
    let line = console.lines().find_map(|line| line.split_once(FIRST_CLASS).map(|(_, rest)| rest))?;
    line.rsplit_once(" after ")?.1.trim().trim_end_matches('s').trim().parse().ok()
}

impl Dut for QemuDut {
    fn about(&self) -> &DutFile {
        &self.about
    }

    fn files(&self) -> &Files {
        &self.made.files
    }

    fn boot(&mut self) -> Result<Option<f64>> {
        if self.machine.is_some() && matches!(self.tend(), Ok(machine) if first_class(&machine.printed()).is_some()) {
            return Ok(None);
        }
        if self.machine.is_none() {
            self.start()?;
        }
        self.first_class().map(Some)
    }

    fn retries(&self) -> u32 {
        self.retries
    }

    fn link(&mut self) -> Result<&mut Client> {
        self.tend()?;
        if self.client.is_none() {
            let end = Instant::now() + self.about.patience();
            // A board without virtio goes down without hanging up, so it is looked after meanwhile.
            self.client = Some(loop {
                let mut client = Client::over(self.wire()?);
                match client.greet(GREETING) {
                    Ok(_) => break client,
                    Err(LinkError::Silent { .. }) if Instant::now() < end => {}
                    Err(why) => return Err(why.into()),
                }
            });
        }
        self.client.as_mut().context("a link that was just made")
    }

    fn lost(&mut self) {
        self.client = None;
    }

    fn wire(&mut self) -> Result<Stream> {
        self.client = None;
        self.tend()?;
        Ok(Address::Unix(self.port(LINK_PORT)).connect(self.about.patience())?)
    }

    fn power_cut(&mut self) -> Result<()> {
        self.end()
    }

    fn shell(&mut self, script: &str, patience: Duration) -> Result<String> {
        let ran = match self.agent()?.run(script, patience) {
            Ok(ran) => ran,
            Err(e) => {
                self.agent = None;
                return Err(e);
            }
        };
        let why = if ran.err.trim().is_empty() { &ran.out } else { &ran.err };
        ensure!(ran.status == 0, "a script ended with {} on {}: {}", ran.status, self.about.name, why.trim());
        Ok(ran.out)
    }

    fn push(&mut self, bytes: &[u8], path: &str) -> Result<()> {
        let pushed = self.agent()?.push(bytes, path);
        if pushed.is_err() {
            self.agent = None;
        }
        pushed
    }

    fn show(&mut self, picture: &RawFrame) -> Result<()> {
        let size = Size { width: picture.width, height: picture.height };
        ensure!(
            self.about.formats.contains(&picture.format) && self.about.sizes.contains(&size),
            "the camera of {} has no {size} {}",
            self.about.name,
            picture.format
        );
        let format = picture.format.to_string();
        self.push(&picture.bytes, "/run/test/picture.new")?;
        let (width, height) = (size.width, size.height);
        let mut script = format!(
            "mv /run/test/picture.new /run/test/picture\nshow_still {format} {width} {height} /run/test/picture\n"
        );
        if self.shown.0 != format {
            let camera = self.camera()?;
            script += &format!("format {camera} {size} {format}\n");
        }
        self.camera_shell(&script)?;
        self.shown = (format, size);
        Ok(())
    }

    fn fault(&mut self, fault: CameraFault) -> Result<()> {
        use edge_suite::hil::Failing::{Qbuf, Reqbufs, Streaming, Streamon};
        let fail = |what: &str| format!("v4l2-ctl -d $capture --set-ctrl inject_{what}_error=1");
        let script = match fault {
            CameraFault::Disconnect => "unplug".to_owned(),
            CameraFault::Reconnect => "replug".to_owned(),
            CameraFault::Stall => "drop 100".to_owned(),
            CameraFault::Resume | CameraFault::DropBuffers(0) => "rest".to_owned(),
            CameraFault::DropBuffers(percent) => format!("drop {}", percent.min(100)),
            CameraFault::Fail(Reqbufs) => fail("vidioc_reqbufs"),
            CameraFault::Fail(Qbuf) => fail("vidioc_qbuf"),
            CameraFault::Fail(Streaming) => fail("fatal_streaming"),
            CameraFault::Fail(Streamon) => fail("vidioc_streamon"),
        };
        self.camera_shell(&script)
    }

    fn console(&mut self) -> Result<String> {
        let now = self.machine.as_ref().map(Machine::printed).unwrap_or_default();
        Ok(format!("{}--- start {}\n{now}", self.printed, self.starts))
    }

    fn card(&mut self) -> Result<PathBuf> {
        if self.machine.is_some() {
            if is_virt(self.board) {
                self.shell("busybox poweroff", self.about.patience())?;
            } else {
                let patience = self.about.patience();
                self.link()?.ask(&edge_link::Request::Power(edge_link::Power::Off), patience)?;
            }
            let end = Instant::now() + DOWN;
            while self.machine.as_mut().map(Machine::ended).transpose()?.flatten() != Some(End::Off) {
                ensure!(Instant::now() < end, "{} does not switch off", self.about.name);
                std::thread::sleep(LOOK);
            }
            self.end()?;
        }
        Ok(self.card.clone())
    }

    fn system(&mut self, works: bool) -> Result<PathBuf> {
        self.made.system(works)
    }
}

impl Drop for QemuDut {
    fn drop(&mut self) {
        let _ = self.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_the_first_class_is_read() {
        let console =
            "x\n[ 1.0] edge-init: first class Egyptian cat after 24.8 s\nedge-init: first class b after 9 s\n";
        assert_eq!(first_class(console), Some(24.8));
        assert_eq!(first_class("edge-init: camera is ready\n"), None);
    }
}
