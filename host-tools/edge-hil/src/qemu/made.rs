//! What an emulated board is made of: an image of its system with a package of a model, and updates of both.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use edge_rig::system;
use edge_suite::hil::{Files, Qemu};
use edge_system::board::Board;
use edge_system::folder::SystemFolder;

use super::machine::is_virt;
use crate::dut::programs::{built, output};

/// How long a tool may take: a system is compressed with care, by cores that may be busy.
const PATIENCE: Duration = Duration::from_secs(900);

/// Settings of the camera: the emulated one, on its HDMI input, and a link.
fn config(board: &Board, more: &Qemu) -> Result<String> {
    let link = if is_virt(board) { "serial:/dev/virtio-ports/edge.link" } else { "serial:/dev/ttyAMA0" };
    let mut table = toml::Table::new();
    for (key, value) in [
        ("source", "v4l2:/dev/video0".into()),
        ("camera-format", "640x480@60:YUYV".into()),
        ("link", toml::Value::Array(vec![link.into()])),
        ("link-control", true.into()),
    ] {
        table.insert(key.into(), value);
    }
    table.extend(more.config.clone());
    Ok(toml::to_string(&table)?)
}

/// An image and its key.
pub struct Made {
    /// The image.
    pub image: PathBuf,
    /// What it was made with.
    pub files: Files,
    cache: PathBuf,
    board: &'static Board,
    work: PathBuf,
    /// The number of the latest system.
    sequence: u64,
}

impl Made {
    /// Makes an image in the folder `work`.
    pub fn make(cache: &Path, board: &'static Board, qemu: &Qemu, work: &Path) -> Result<Made> {
        let folder = system::folder(cache, board);
        let about = SystemFolder::open(&folder).with_context(|| {
            format!("there is no system for {}; make it with: cargo xtask cross --board {0}", board.name)
        })?;
        let key = work.join("key");
        run(tool("edge-pack")?.arg("keygen").arg(&key))?;
        let package = work.join("1.edgepack");
        let mut pack = tool("edge-pack")?;
        if let Some(photos) = &qemu.calibration {
            pack.args(["--quantize", "int8", "--calibration"]).arg(photos);
        }
        run(pack.arg(&qemu.model).args(["--sequence", "1", "--sign"]).arg(&key).arg("-o").arg(&package))?;
        let settings = work.join("camera.toml");
        fs::write(&settings, config(board, qemu)?).with_context(|| format!("writing {}", settings.display()))?;
        let to = work.join("image.img");
        let mut image = tool("edge-flash")?;
        image.args(["image", "--board", &board.name, "--package"]).arg(&package).arg("--config").arg(&settings);
        image.arg("--system").arg(&folder).arg("--sign").arg(&key).arg("--trusted-key").arg(work.join("key.pub"));
        run(image.arg("-o").arg(&to))?;
        let sequence = about.about().sequence;
        let files = Files { package, key: Some(key), system: None };
        Ok(Made { image: to, files, cache: cache.into(), board, work: work.into(), sequence })
    }

    /// A copy of the image for a board to work on. QEMU's cards have sizes that are powers of two, so the copy may be larger
    /// than the image, as any card is; that is told in words.
    pub fn card(&self) -> Result<(PathBuf, Option<String>)> {
        let card = self.work.join("card.img");
        run(Command::new("cp").arg("--sparse=always").arg(&self.image).arg(&card))?;
        let length = fs::metadata(&card)?.len();
        if is_virt(self.board) || length.is_power_of_two() {
            return Ok((card, None));
        }
        let padded = length.next_power_of_two();
        File::options().write(true).open(&card)?.set_len(padded)?;
        Ok((card, Some(format!("the card is {} MiB, the image {} MiB", padded >> 20, length >> 20))))
    }

    /// A system update that is newer than all before it: the same system, or one whose camera program ends at once.
    pub fn system(&mut self, works: bool) -> Result<PathBuf> {
        let mut folder = system::folder(&self.cache, self.board);
        if !works {
            let broken = self.work.join("broken");
            system::without_camera(&self.cache, &folder, &broken)?;
            folder = broken;
        }
        self.sequence += 1;
        let path = self.work.join(format!("{}.edgesys", self.sequence));
        let mut bundle = tool("edge-flash")?;
        bundle.args(["bundle", "--board", &self.board.name, "--system"]).arg(folder);
        bundle.args(["--sequence", &self.sequence.to_string()]);
        if let Some(key) = &self.files.key {
            bundle.arg("--sign").arg(key);
        }
        run(bundle.arg("-o").arg(&path))?;
        Ok(path)
    }
}

fn tool(name: &str) -> Result<Command> {
    Ok(Command::new(built(name)?))
}

fn run(command: &mut Command) -> Result<()> {
    output(command, b"", PATIENCE).map(drop)
}
