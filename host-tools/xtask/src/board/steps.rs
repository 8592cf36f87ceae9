//! What is proved of a flashed camera on an emulated board.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use edge_system::board::{self, Board};
use edge_system::disk::{Disk, FileDisk};
use edge_system::folder::SystemFolder;
use edge_system::layout::Layout;
use edge_system::slot::Slot;
use serde_json::Value;

use super::{Rig, Start};
use crate::tools::{built, output};
use crate::{cross, vivid};

/// Frames that are classified before the board is switched off. Few, as the emulated processor is some hundred times
/// slower.
const CLASSIFIED: usize = 2;

/// When a board is given up. A kept processor does a start in a minute or two.
const PATIENCE: Duration = Duration::from_secs(1500);

/// Settings of the camera: the emulated one, on its HDMI input.
const CONFIG: &str = "source = \"v4l2:/dev/video0\"\ncamera-format = \"640x480@60:YUYV\"\n";

/// What a test is made of.
pub struct Case<'a> {
    /// The project's cache.
    pub cache: &'a Path,
    /// The photo: 640x480, red, green, blue.
    pub photo: &'a Path,
    /// The label that the host gives it.
    pub expected: &'a str,
    /// The model.
    pub onnx: &'a Path,
}

/// An image under test, with what it was made of.
struct Flashed<'a> {
    rig: Rig,
    board: &'static Board,
    case: &'a Case<'a>,
    work: PathBuf,
    image: PathBuf,
    key: PathBuf,
    yuyv: Vec<u8>,
}

/// The image of a board starts, classifies, logs, and switches off; `edge-flash log` then reads what it saw.
pub fn starts(case: &Case, name: &str) -> Result<String> {
    let flashed = Flashed::make(case, name)?;
    let card = flashed.rig.card(&flashed.image, flashed.board, "card.img")?;
    let first = flashed.classifies(&card, "", "slot a of the system")?;
    fs::remove_file(&card)?;
    Ok(format!("{name}: {first}"))
}

/// What happens to an image in its life, on QEMU's own board: a start, damage, updates that are kept and updates that
/// aren't.
pub fn life(case: &Case) -> Result<String> {
    let flashed = Flashed::make(case, "virt")?;
    let mut proved = Vec::new();
    let card = flashed.rig.card(&flashed.image, flashed.board, "card.img")?;
    proved.push(flashed.classifies(&card, "", "slot a of the system")?);
    proved.push(flashed.verify(&card)?);

    let sequence = SystemFolder::open(&cross::system(case.cache, flashed.board))?.about().sequence;
    let second = flashed.bundle(&cross::system(case.cache, flashed.board), sequence + 1, "v2.edgesys")?;
    flashed.update(&card, &second)?;
    let words = "edge.commit=5";
    let line =
        flashed.starts_with(&card, words, "slot b of the system", &["on trial", "edge-init: system slot b is kept"])?;
    proved.push(format!("a system update was tried in slot b and kept ({line})"));

    // One byte of the kept system.
    let layout = Layout::from_disk(&FileDisk::open(&card)?)?;
    flip(&card, layout.slot(Slot::B).start + 100_000)?;
    flashed.starts_with(&card, "", "slot a of the system", &[])?;
    proved.push("with a flipped byte in slot b the board started from slot a".into());

    let broken = flashed.broken(sequence + 2)?;
    flashed.update(&card, &broken)?;
    proved.push(flashed.gives_up(&card)?);

    proved.push(flashed.packages(&card)?);
    fs::remove_file(&card)?;
    Ok(proved.join("; "))
}

impl<'a> Flashed<'a> {
    /// Makes the image, from the board's system and a signed package of the model.
    fn make(case: &'a Case<'a>, name: &str) -> Result<Self> {
        let board = board::by_name(name)?;
        let rig = Rig::new(case.cache, name)?;
        let work = rig.work.clone();
        let key = work.join("test-key");
        for file in ["test-key", "test-key.pub"] {
            let _ = fs::remove_file(work.join(file));
        }
        output(Command::new(built("edge-pack")?).arg("keygen").arg(&key))?;
        let yuyv = vivid::rgb_to_yuyv(&vivid::read_photo(case.photo)?);
        let flashed = Self { rig, board, case, image: work.join(format!("{name}.img")), work, key, yuyv };
        let package = flashed.package(1)?;
        let config = flashed.work.join("camera.toml");
        fs::write(&config, CONFIG).with_context(|| format!("writing {}", config.display()))?;
        let mut image = Command::new(built("edge-flash")?);
        image.args(["image", "--board", name, "--package"]).arg(&package).arg("--config").arg(&config);
        image.arg("--system").arg(cross::system(case.cache, board)).arg("--sign").arg(&flashed.key);
        image.arg("--trusted-key").arg(flashed.work.join("test-key.pub"));
        print!("{}", output(image.arg("-o").arg(&flashed.image))?);
        Ok(flashed)
    }

    /// A package of the model with this number.
    fn package(&self, sequence: u64) -> Result<PathBuf> {
        let path = self.work.join(format!("{sequence}.edgepack"));
        let mut pack = Command::new(built("edge-pack")?);
        pack.arg(self.case.onnx).arg("--sequence").arg(sequence.to_string()).arg("--sign").arg(&self.key);
        output(pack.arg("-o").arg(&path))?;
        Ok(path)
    }

    /// A system update out of a folder.
    fn bundle(&self, folder: &Path, sequence: u64, name: &str) -> Result<PathBuf> {
        let path = self.work.join(name);
        let mut bundle = Command::new(built("edge-flash")?);
        bundle.args(["bundle", "--board", &self.board.name, "--system"]).arg(folder);
        bundle.args(["--sequence", &sequence.to_string(), "--sign"]).arg(&self.key);
        print!("{}", output(bundle.arg("-o").arg(&path))?);
        Ok(path)
    }

    fn update(&self, card: &Path, file: &Path) -> Result<()> {
        let mut update = Command::new(built("edge-flash")?);
        print!("{}", output(update.arg("update").arg(file).arg("--device").arg(card))?);
        Ok(())
    }

    /// `edge-flash verify` on a card that was used finds nothing changed, and a flipped byte when there is one.
    fn verify(&self, card: &Path) -> Result<String> {
        let mut verify = Command::new(built("edge-flash")?);
        output(verify.arg("verify").arg(card)).context("the used card does not verify")?;
        let layout = Layout::from_disk(&FileDisk::open(card)?)?;
        let at = layout.boot.start + (layout.boot.end - layout.boot.start) / 4;
        flip(card, at)?;
        let refused = Command::new(built("edge-flash")?).arg("verify").arg(card).output()?;
        ensure!(!refused.status.success(), "a flipped byte of the boot partition was not found");
        flip(card, at)?;
        output(Command::new(built("edge-flash")?).arg("verify").arg(card))?;
        Ok("the used card verifies, and with a flipped byte of its boot partition it does not".into())
    }

    /// Starts the board; its camera program must classify the photo rightly. Returns what was seen.
    fn classifies(&self, card: &Path, words: &str, slot: &str) -> Result<String> {
        self.starts_with(card, words, slot, &[])
    }

    /// As [`Self::classifies`]; the console must say `more`, too.
    fn starts_with(&self, card: &Path, words: &str, slot: &str, more: &[&str]) -> Result<String> {
        let before = self.log(card).map_or(0, |lines| lines.len());
        // Waits for what is asked for, and then a moment for what a trial has to say.
        let kept = if more.iter().any(|text| text.contains("is kept")) { "is kept" } else { "camera is ready" };
        let script = format!(
            "( until [ \"$(cat $log 2>/dev/null | grep -c '\"decision\"')\" -ge {} ] && grep -q '{kept}' /data/log/boot.log; \
             do sleep 1; done; poweroff ) &\n",
            before + CLASSIFIED
        );
        let console = self.boot(card, &script, words)?;
        let needed = [slot, "edge-init: camera is ready", "edge-init: first class "];
        for text in needed.iter().chain(more) {
            ensure!(console.contains(text), "the console does not say {text:?}:\n{console}");
        }
        let lines = self.log(card)?;
        ensure!(lines.len() >= before + CLASSIFIED, "{} classes were in the log, now {}", before, lines.len());
        for line in &lines[before..] {
            let label = line.pointer("/top/0/label").and_then(Value::as_str);
            ensure!(label == Some(self.case.expected), "the host says {:?}, the board: {line}", self.case.expected);
        }
        let first = console.lines().find_map(|line| line.split_once("edge-init: first class ")).map(|(_, rest)| rest);
        Ok(format!("first class {} of guest time", first.unwrap_or_default().trim()))
    }

    /// Starts the board with the emulated camera and this continuation of the test's script.
    fn boot(&self, card: &Path, script: &str, words: &str) -> Result<String> {
        let test = self.rig.test(&self.yuyv, script)?;
        self.rig.boot(&Start { board: self.board, disk: card, test: &test, words, timeout: PATIENCE })
    }

    /// The classes in the log, as `edge-flash log` reads them off a card.
    fn log(&self, card: &Path) -> Result<Vec<Value>> {
        let text = output(Command::new(built("edge-flash")?).arg("log").arg(card))?;
        let lines = text.lines().map(serde_json::from_str::<Value>).collect::<Result<Vec<_>, _>>()?;
        Ok(lines.into_iter().filter(|line| line.get("decision").is_some()).collect())
    }

    /// A system update whose camera program ends at once.
    fn broken(&self, sequence: u64) -> Result<PathBuf> {
        let from = cross::system(self.case.cache, self.board);
        let to = self.work.join("broken");
        cross::without_camera(self.case.cache, &from, &to)?;
        self.bundle(&to, sequence, "broken.edgesys")
    }

    /// A system on trial whose camera program never gets ready: the board starts anew, and comes back with the old system.
    fn gives_up(&self, card: &Path) -> Result<String> {
        let mut starts = 0;
        loop {
            starts += 1;
            ensure!(starts <= 6, "the board still tries the broken system");
            let script = "( sleep 600; poweroff ) &\n";
            let script = if starts == 1 { script.to_owned() } else { self.until_ready(card)? };
            let console = self.boot(card, &script, "")?;
            if console.contains("edge-init: camera is ready") {
                ensure!(console.contains("slot a of the system"), "not the old system:\n{console}");
                return Ok(format!(
                    "a system update whose camera program does not run was given up, and start {starts} was the old one's"
                ));
            }
            ensure!(console.contains("on trial"), "neither on trial nor ready:\n{console}");
        }
    }

    fn until_ready(&self, card: &Path) -> Result<String> {
        let before = self.log(card)?.len();
        Ok(format!(
            "( n=0; until [ \"$(cat $log | grep -c '\"decision\"')\" -gt {before} ] || [ $n -gt 600 ]; \
             do sleep 1; n=$((n+1)); done; poweroff ) &\n"
        ))
    }

    /// A newer package goes to slot b; damaged there, the board runs the old one.
    fn packages(&self, card: &Path) -> Result<String> {
        self.update(card, &self.package(2)?)?;
        // The card's partition is written as a file system, so that its own checks do not find the damage first.
        let script =
            "printf x | dd of=/data/packages/b/package.edgepack bs=1 seek=200000 conv=notrunc 2>/dev/null\nsync\n";
        let before = self.log(card)?.len();
        let until = format!(
            "{script}( until [ \"$(cat $log | grep -c '\"decision\"')\" -ge {} ]; do sleep 1; done; poweroff ) &\n",
            before + 1
        );
        let console = self.boot(card, &until, "")?;
        ensure!(console.contains("edge-init: camera is ready"), "with a damaged package b:\n{console}");
        let lines = self.log(card)?;
        ensure!(lines.len() > before, "nothing was classified with the old package");
        let told =
            console.lines().find(|line| line.contains("package") && line.contains('b') && !line.contains("hook"));
        Ok(format!("with a damaged package in slot b the old one classified ({})", told.unwrap_or("no line").trim()))
    }
}

/// Inverts the bits of one byte.
fn flip(path: &Path, at: u64) -> Result<()> {
    let mut disk = FileDisk::open_writable(path)?;
    let mut byte = [0];
    disk.read_at(&mut byte, at)?;
    byte[0] = !byte[0];
    disk.write_at(&byte, at)?;
    disk.flush()?;
    Ok(())
}
