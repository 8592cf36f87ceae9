//! Boards as data: `firmware/boards/*.toml`, which are part of this crate.

mod cost;

pub use cost::{BoardCost, DOT_PRODUCT};

use crate::MIB;
use edge_package::Manifest;
use serde::Deserialize;
use std::sync::LazyLock;

/// The kernel's file on the FAT partition.
pub const KERNEL: &str = "vmlinuz";
/// The initramfs' file on the FAT partition.
pub const INITRAMFS: &str = "initramfs.img";
/// Memory that a network takes, as a multiple of its model's file: weights packed once, which may be float16 in the
/// file, and what flows between layers. Measured: 3.0 for the default model, whose weights are float16.
pub const MEMORY_FACTOR: u64 = 3;
/// The smallest FAT32 that every tool makes has 65525 clusters of a sector.
const MIN_BOOT_MIB: u32 = 34;
/// 2 TiB less the room before the first partition.
const MAX_IMAGE_MIB: u64 = (2 << 20) - 16;

/// The files of `firmware/boards`, ordered by name. A test compares the list with the folder.
const FILES: [(&str, &str); 7] = [
    ("jetson-nano", include_str!("../../../firmware/boards/jetson-nano.toml")),
    ("jetson-orin", include_str!("../../../firmware/boards/jetson-orin.toml")),
    ("rpi-zero2w", include_str!("../../../firmware/boards/rpi-zero2w.toml")),
    ("rpi3", include_str!("../../../firmware/boards/rpi3.toml")),
    ("rpi4", include_str!("../../../firmware/boards/rpi4.toml")),
    ("rpi5", include_str!("../../../firmware/boards/rpi5.toml")),
    ("virt", include_str!("../../../firmware/boards/virt.toml")),
];

/// A board that the project knows.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Board {
    /// The name on command lines and in packages; also the file's name.
    pub name: String,
    /// The name for people.
    pub title: String,
    /// Beginnings of the device tree's `compatible` entries that mean this board.
    pub compatible: Vec<String>,
    /// What its processor runs.
    pub arch: Arch,
    /// What an image for it is made of; `None` where only installing on the vendor's system is possible.
    pub image: Option<Image>,
    /// Why there is no image, where there is none.
    pub why_no_image: Option<String>,
    /// How the runtime is installed on the vendor's system, where that is possible.
    pub install: Option<Install>,
    /// What fits.
    pub budget: Budget,
    /// What latency is estimated from; `None` for a machine that is emulated.
    pub cost: Option<BoardCost>,
    /// The machine that stands in for the board in tests.
    pub emulator: Option<Emulator>,
}

/// An instruction set with its Linux ABI.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Arch {
    /// 64-bit Arm.
    Aarch64,
}

impl Arch {
    /// Debian's name of the architecture.
    pub fn debian(self) -> &'static str {
        match self {
            Arch::Aarch64 => "arm64",
        }
    }

    /// Rust's name of the target.
    pub fn target(self) -> &'static str {
        match self {
            Arch::Aarch64 => "aarch64-unknown-linux-gnu",
        }
    }
}

/// What a bootable image for a board is made of.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Image {
    /// Debian's package that names the current kernel.
    pub kernel_package: String,
    /// Device trees, relative to the kernel package's folder of them, such as `broadcom/bcm2711-rpi-4-b.dtb`.
    pub dtbs: Vec<String>,
    /// The kernel's console with its speed, such as `ttyAMA0,115200`.
    pub console: String,
    /// What else is on the kernel's command line.
    pub cmdline: String,
    /// What the boot loader's firmware consists of.
    pub firmware: Vec<Firmware>,
    /// The text of `config.txt`, where the firmware reads one. It names [`KERNEL`] and [`INITRAMFS`].
    pub config: Option<String>,
    /// Kernel modules that the initramfs loads, each with its parameters after a space; what they depend on comes in
    /// by itself.
    pub modules: Vec<String>,
    /// Size of the FAT partition in MiB.
    pub boot_mib: u32,
    /// Size of each of the two system slots in MiB.
    pub system_mib: u32,
    /// Size of the data partition of a fresh image in MiB; it grows to the end of the card.
    pub data_mib: u32,
}

/// Files of a Debian package that go to the FAT partition as they are.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Firmware {
    /// The Debian package.
    pub package: String,
    /// The folder in it.
    pub folder: String,
    /// The files.
    pub files: Vec<String>,
}

/// How the runtime comes onto the vendor's system.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Install {
    /// The vendor's C library is too old for the dynamic program: the static one, without GPU, is installed.
    pub static_only: bool,
    /// What the user has to know.
    pub note: String,
}

/// What a package may take on a board.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Budget {
    /// Memory that the runtime may take, in MiB.
    pub memory_mib: u32,
    /// Size of the largest model, in MiB.
    pub model_mib: u32,
}

/// A QEMU machine.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Emulator {
    /// QEMU's `-M`.
    pub machine: String,
    /// QEMU's `-cpu`; `None` where the machine has one of its own.
    pub cpu: Option<String>,
    /// Memory in MiB; `None` where the machine has its own.
    pub memory_mib: Option<u32>,
    /// Which serial line the console is, counted from 0.
    pub serial: u32,
}

/// A model is too large for a board.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the model of package {name:?} has {:.1} MiB, and {board} takes up to {model_mib} MiB (in {memory_mib} MiB of memory); quantize it to int8 (`edge-pack quantize`), or use a smaller network",
    *length as f64 / MIB as f64
)]
pub struct OverBudget {
    /// The package.
    pub name: String,
    /// Size of its model in bytes.
    pub length: u64,
    /// The board.
    pub board: String,
    /// Size of the largest model, in MiB.
    pub model_mib: u32,
    /// Memory that the runtime may take, in MiB.
    pub memory_mib: u32,
}

impl Board {
    /// Reads a board's TOML.
    pub fn from_toml(text: &str) -> Result<Board, BoardError> {
        let board: Board = toml::from_str(text).map_err(|e| BoardError::Toml(e.to_string()))?;
        match board.fault() {
            None => Ok(board),
            Some(why) => Err(BoardError::Invalid { name: board.name, why }),
        }
    }

    /// What contradicts itself in the description.
    fn fault(&self) -> Option<String> {
        let name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if self.name.is_empty() || !self.name.chars().all(name) {
            return Some("the name is not of a-z, 0-9 and -".into());
        }
        if self.compatible.is_empty() || self.compatible.iter().any(String::is_empty) {
            return Some("`compatible` names no device tree".into());
        }
        match (&self.image, &self.why_no_image) {
            (Some(_), Some(_)) => return Some("there is an image, and `why-no-image`".into()),
            (None, None) => return Some("there is neither an image nor `why-no-image`".into()),
            (None, Some(_)) if self.install.is_none() => {
                return Some("there is neither an image nor a way to install".into());
            }
            _ => {}
        }
        let Budget { memory_mib, model_mib } = self.budget;
        if model_mib == 0 || u64::from(model_mib) * MEMORY_FACTOR > u64::from(memory_mib) {
            return Some(format!("a model of {model_mib} MiB takes more than the memory of {memory_mib} MiB"));
        }
        let cost = self.cost.as_ref().and_then(BoardCost::fault);
        cost.or_else(|| self.image.as_ref().and_then(|image| image.fault(model_mib)))
    }

    /// Refuses a package whose model is larger than the board takes.
    pub fn check_budget(&self, manifest: &Manifest) -> Result<(), OverBudget> {
        self.check_model(&manifest.name, manifest.parts.first().map_or(0, |model| model.length))
    }

    /// Refuses a model of `length` bytes, called `name`, that is larger than the board takes.
    pub fn check_model(&self, name: &str, length: u64) -> Result<(), OverBudget> {
        let allowed = u64::from(self.budget.model_mib) * MIB;
        if length <= allowed {
            return Ok(());
        }
        Err(OverBudget {
            name: name.into(),
            length,
            board: self.name.clone(),
            model_mib: self.budget.model_mib,
            memory_mib: self.budget.memory_mib,
        })
    }

    /// What an image for this board is made of, or why there is none.
    pub fn image(&self) -> Result<&Image, BoardError> {
        self.image.as_ref().ok_or_else(|| BoardError::NoImage {
            name: self.name.clone(),
            title: self.title.clone(),
            why: self.why_no_image.clone().unwrap_or_default(),
        })
    }
}

impl Image {
    fn fault(&self, model_mib: u32) -> Option<String> {
        if self.boot_mib < MIN_BOOT_MIB {
            return Some(format!("boot-mib is less than {MIN_BOOT_MIB}, the least that FAT32 takes"));
        }
        if self.system_mib == 0 {
            return Some("system-mib is 0".into());
        }
        // Two slots, and a third file while one of them is replaced.
        if self.data_mib < 3 * model_mib.min(u32::MAX / 3) {
            return Some(format!("data-mib is too small for three models of {model_mib} MiB"));
        }
        let sizes = [self.boot_mib, self.system_mib, self.system_mib, self.data_mib];
        if sizes.iter().map(|mib| u64::from(*mib)).sum::<u64>() > MAX_IMAGE_MIB {
            return Some("the partitions are larger together than a table of 32-bit sector numbers can say".into());
        }
        let words = |text: &str| text.is_ascii() && !text.contains(|c: char| c.is_ascii_control());
        if !words(&self.console) || self.console.is_empty() || !words(&self.cmdline) {
            return Some("console and cmdline are one line of ASCII each".into());
        }
        let config = self.config.as_deref();
        if config.is_some_and(|text| ![KERNEL, INITRAMFS].iter().all(|file| text.contains(file))) {
            return Some(format!("config does not name {KERNEL} and {INITRAMFS}"));
        }
        None
    }
}

/// A board's file says something impossible, or an image is not possible.
#[derive(Debug, thiserror::Error)]
pub enum BoardError {
    /// Not the TOML of a board.
    #[error("not a board's description: {0}")]
    Toml(String),
    /// Contradicts itself.
    #[error("the description of board {name:?} is not valid: {why}")]
    Invalid {
        /// The board.
        name: String,
        /// What is wrong.
        why: String,
    },
    /// No image can be made.
    #[error("there is no image for {name} ({title}): {why}")]
    NoImage {
        /// The board.
        name: String,
        /// Its name for people.
        title: String,
        /// The reason, and what can be done instead.
        why: String,
    },
    /// There is no such board.
    #[error("there is no board {name:?}; there are {known}")]
    Unknown {
        /// What was asked for.
        name: String,
        /// The boards there are, comma separated.
        known: String,
    },
}

/// All boards, ordered by name.
pub fn boards() -> &'static [Board] {
    static BOARDS: LazyLock<Vec<Board>> = LazyLock::new(|| {
        let read = |(name, text): &(&str, &str)| match Board::from_toml(text) {
            Ok(board) => board,
            // Part of the program, and a test reads every one.
            Err(e) => unreachable!("firmware/boards/{name}.toml: {e}"),
        };
        FILES.iter().map(read).collect()
    });
    &BOARDS
}

/// The board of this name.
pub fn by_name(name: &str) -> Result<&'static Board, BoardError> {
    boards().iter().find(|b| b.name == name).ok_or_else(|| {
        let known: Vec<&str> = boards().iter().map(|b| b.name.as_str()).collect();
        BoardError::Unknown { name: name.into(), known: known.join(", ") }
    })
}

/// The name of this board from its device tree; `host` on machines that have none or an unknown one.
pub fn this_board() -> &'static str {
    std::fs::read("/proc/device-tree/compatible").map_or("host", |bytes| from_compatible(&bytes))
}

/// The board named by a device tree's `compatible` property: strings, each ended by a zero byte.
pub fn from_compatible(bytes: &[u8]) -> &'static str {
    let entries = bytes.split(|b| *b == 0).filter_map(|e| std::str::from_utf8(e).ok());
    entries
        .filter(|e| !e.is_empty())
        .find_map(|e| boards().iter().find(|b| b.compatible.iter().any(|prefix| e.starts_with(prefix.as_str()))))
        .map_or("host", |board| &board.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_of_the_folder_is_a_board_of_the_list() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../firmware/boards");
        let mut files: Vec<(String, String)> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .map(|path| (path.file_stem().unwrap().to_str().unwrap().into(), std::fs::read_to_string(path).unwrap()))
            .collect();
        files.sort();
        assert_eq!(files, FILES.map(|(name, text)| (name.into(), text.into())));
        for (name, text) in files {
            let board = Board::from_toml(&text).unwrap_or_else(|e| panic!("{name}.toml: {e}"));
            assert_eq!(board.name, name);
            assert_eq!(by_name(&name).unwrap(), &board);
        }
        // What is emulated has no speed of its own.
        assert!(boards().iter().all(|b| b.cost.is_some() == (b.name != "virt")));
        let with_image: Vec<&str> = boards().iter().filter(|b| b.image.is_some()).map(|b| b.name.as_str()).collect();
        assert_eq!(with_image, ["rpi-zero2w", "rpi3", "rpi4", "virt"]);
    }

    #[test]
    fn no_two_boards_mean_one_device_tree() {
        for (i, one) in boards().iter().enumerate() {
            for other in &boards()[i + 1..] {
                let same = |a: &String| other.compatible.iter().any(|b| a.starts_with(b.as_str()) || b.starts_with(a));
                assert!(!one.compatible.iter().any(same), "{} and {}", one.name, other.name);
            }
        }
    }

    #[test]
    fn what_contradicts_itself_is_no_board() {
        let good = FILES.iter().find(|(name, _)| *name == "rpi4").unwrap().1;
        let cases = [
            ("name = \"rpi4\"", "name = \"Rpi 4\"", "the name is not of"),
            ("boot-mib = 128", "boot-mib = 16", "the least that FAT32 takes"),
            ("data-mib = 688", "data-mib = 64", "data-mib is too small"),
            ("data-mib = 688", "data-mib = 2097152", "32-bit sector numbers"),
            ("model-mib = 200", "model-mib = 400", "takes more than the memory"),
            ("kernel=vmlinuz", "kernel=kernel8.img", "config does not name"),
            ("[budget]", "[budget]\nmodel-mb = 1", "unknown field `model-mb`"),
            ("arch = \"aarch64\"", "arch = \"aarch64\"\nwhy-no-image = \"x\"", "there is an image, and"),
            ("mhz = 1500", "mhz = 0", "`cost` has a 0"),
            ("arch = \"aarch64\"", "arch = \"mips\"", "unknown variant `mips`"),
            ("compatible = [\"raspberrypi,4-model-b\"]", "compatible = []", "names no device tree"),
        ];
        for (from, to, wanted) in cases {
            assert!(good.contains(from), "{from}");
            let message = Board::from_toml(&good.replace(from, to)).unwrap_err().to_string();
            assert!(message.contains(wanted), "{wanted:?} is not in {message:?}");
        }
    }

    #[test]
    fn boards_by_compatible() {
        assert_eq!(from_compatible(b"raspberrypi,3-model-b-plus\0brcm,bcm2837\0"), "rpi3");
        assert_eq!(from_compatible(b"nvidia,p3768-0000+p3767-0005\0nvidia,tegra234\0"), "jetson-orin");
        assert_eq!(from_compatible(b"\xff\0acme,toaster\0"), "host");
    }

    #[test]
    fn without_an_image_the_reason_is_said() {
        let message = by_name("rpi5").unwrap().image().unwrap_err().to_string();
        assert!(message.contains("no support for this board") && message.contains("edge-flash install"), "{message}");
        let message = by_name("rpi6").unwrap_err().to_string();
        assert!(message.contains("rpi5, virt"), "{message}");
    }
}
