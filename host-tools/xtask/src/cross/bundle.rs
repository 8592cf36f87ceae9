//! The folder that a board's image is made of. The same packages and the same source give the same bytes.

use std::fs::{self, File};
use std::io::BufWriter;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use edge_rig::debian::Tree;
use edge_rig::kernel::Kernel;
use edge_rig::system::{copy, copy_program, write};
use edge_rig::{apt, cpio, sets, squashfs};
use edge_system::board::{Board, Image};
use edge_system::folder::{self, About, SystemFolder};
use edge_system::system::{Component, SQUASHFS};
use object::LittleEndian;
use object::elf::{FileHeader64, PT_INTERP};
use object::read::elf::{FileHeader, ProgramHeader};

use super::parts::{self, Kind, Part};
use super::sbom;
use crate::tools;

/// What bundles are made of, fetched once for all boards.
pub struct Materials {
    device: Tree,
    tools: Tree,
    kernel: Kernel,
    /// The static programs: edge-camera and edge-init.
    programs: Vec<(&'static str, PathBuf)>,
    /// What the programs contain.
    linked: Vec<Part>,
    source_date: u64,
}

impl Materials {
    /// Fetches the packages. `gcc` is where the C library lies that the static `programs` were linked with.
    pub fn fetch(cache: &Path, gcc: &Path, programs: Vec<(&'static str, PathBuf)>) -> Result<Self> {
        let device = Tree::fetch(cache, &sets::DEVICE)?;
        let tools = Tree::fetch(cache, &sets::TOOLS)?;
        let names: Vec<&str> = programs.iter().map(|(name, _)| *name).collect();
        let mut linked = parts::crates(&names)?;
        let note = "linked into edge-camera and edge-init";
        let gcc = Tree { root: gcc.to_owned() };
        linked.extend(parts::debian(&gcc, &["libc6-dev-arm64-cross", "libgcc-*-dev-arm64-cross"], Some(note))?);
        linked.push(parts::default_model()?);
        Ok(Self {
            kernel: Kernel::find(&device, &tools)?,
            device,
            tools,
            programs,
            linked,
            source_date: source_date()?,
        })
    }

    /// Makes the folder of `board` at `to`, replacing what is there only when the new one is complete.
    pub fn bundle(&self, board: &Board, to: &Path) -> Result<SystemFolder> {
        let image = board.image()?;
        let partial = to.with_extension("partial");
        apt::remove_dir(&partial)?;
        fs::create_dir_all(&partial).with_context(|| format!("creating {}", partial.display()))?;
        self.boot(image, &partial.join(folder::BOOT))?;

        let in_system = self.in_system()?;
        let mut all = in_system.clone();
        all.extend(parts::debian(&self.device, &[&format!("linux-image-{}", self.kernel.release)], None)?);
        for firmware in &image.firmware {
            all.extend(parts::debian(&self.device, &[&firmware.package], Some("the boot loader's firmware"))?);
        }
        all.sort();
        self.squashfs(&in_system, &partial)?;

        let version = env!("CARGO_PKG_VERSION");
        let about = sbom::About { board: &board.name, version, source_date: self.source_date };
        write(&partial.join(folder::SBOM), sbom::spdx(&about, &all)?.as_bytes())?;
        for (name, text) in parts::licence_files(&all) {
            write(&partial.join(folder::LICENCES).join(name), text.as_bytes())?;
        }
        let about = About {
            board: board.name.clone(),
            version: version.to_owned(),
            // A later source is a newer system.
            sequence: self.source_date,
            minimum: 0,
            source_date: self.source_date,
            kernel: self.kernel.release.clone(),
            runtime: version.to_owned(),
            components: in_system.iter().map(component).collect(),
            files: vec![],
        };
        SystemFolder::describe(&partial, about)?;
        apt::remove_dir(to)?;
        fs::rename(&partial, to).with_context(|| format!("renaming {}", partial.display()))?;
        Ok(SystemFolder::open(to)?)
    }

    /// The files of the FAT partition.
    fn boot(&self, image: &Image, boot: &Path) -> Result<()> {
        fs::create_dir_all(boot).with_context(|| format!("creating {}", boot.display()))?;
        copy(&self.kernel.image()?, &boot.join("vmlinuz"))?;
        self.initramfs(image, &boot.join("initramfs.img")).context("making the initramfs")?;
        // The firmware looks for device trees beside the kernel, by their names alone.
        for dtb in &image.dtbs {
            let from = self.kernel.device_tree(dtb)?;
            copy(&from, &boot.join(file_name(&from)?))?;
        }
        for firmware in &image.firmware {
            for file in &firmware.files {
                copy(&self.device.root.join(&firmware.folder).join(file), &boot.join(file))?;
            }
        }
        if let Some(config) = &image.config {
            let text = config.replace("{kernel}", "vmlinuz").replace("{initramfs}", "initramfs.img");
            write(&boot.join("config.txt"), text.as_bytes())?;
        }
        write(&boot.join("cmdline.txt"), command_line(image).as_bytes())
    }

    /// The first process, and the modules that it loads. Not compressed: the firmware reads faster than a small
    /// processor unpacks.
    fn initramfs(&self, image: &Image, path: &Path) -> Result<()> {
        let out = File::create(path).with_context(|| format!("creating {}", path.display()))?;
        let mut archive = cpio::Archive::new(BufWriter::new(out));
        for directory in ["bin", "boot", "data", "dev", "proc", "run", "sys", "system", "tmp"] {
            archive.directory(directory)?;
        }
        // The kernel opens it for the first process before anything is mounted.
        archive.character_device("/dev/console", 5, 1)?;
        if let Some((_, init)) = self.programs.iter().find(|(name, _)| *name == "edge-init") {
            archive.file("/init", init, true)?;
        }
        let wanted: Vec<(&str, &str)> =
            image.modules.iter().map(|module| module.split_once(' ').unwrap_or((module, ""))).collect();
        let names: Vec<&str> = wanted.iter().map(|(name, _)| *name).collect();
        let mut order = String::new();
        for (name, bytes) in self.kernel.modules(&names)? {
            let same = |module: &str| module.replace('-', "_") == name.replace('-', "_");
            let options = wanted.iter().find(|(module, _)| same(module)).map_or("", |(_, options)| options);
            order += format!("{name} {options}").trim_end();
            order.push('\n');
            archive.bytes(&format!("/modules/{name}.ko"), &bytes, false)?;
        }
        archive.bytes("/modules/order", order.as_bytes(), false)?;
        archive.finish()?;
        Ok(())
    }

    /// What is in the squashfs.
    fn in_system(&self) -> Result<Vec<Part>> {
        let mut parts = parts::debian(&self.device, &["busybox-static", "e2fsck-static"], None)?;
        parts.extend(self.linked.iter().cloned());
        parts.sort();
        Ok(parts)
    }

    /// The read-only system.
    fn squashfs(&self, parts: &[Part], folder: &Path) -> Result<()> {
        let stage = folder.join("stage");
        for (name, from) in &self.programs {
            copy_program(from, &stage.join("bin").join(name))?;
        }
        copy_program(&self.device.path("bin/busybox")?, &stage.join("bin/busybox"))?;
        copy_program(&self.device.path("sbin/e2fsck.static")?, &stage.join("bin/e2fsck"))?;
        // The DHCP client calls it; busybox' own place for it is that of no slot.
        copy_program(&tools::root().join("firmware/image/udhcpc.script"), &stage.join("etc/udhcpc.script"))?;
        for (name, text) in parts::licence_files(parts) {
            write(&stage.join("share/licences").join(name), text.as_bytes())?;
        }
        squashfs::make(&self.tools, &stage, &folder.join(SQUASHFS), self.source_date)?;
        apt::remove_dir(&stage)
    }
}

/// The kernel's command line. The console named last is the one that the first process writes to.
fn command_line(image: &Image) -> String {
    let screen = if image.firmware.is_empty() { "" } else { "console=tty0 " };
    format!("{screen}console={} {}\n", image.console, image.cmdline)
}

/// How a part stands in the system's manifest.
fn component(part: &Part) -> Component {
    let licence = match (&part.licence, part.kind) {
        (Some(licence), _) => licence.clone(),
        (None, Kind::Debian) => format!("LicenseRef-{}", part.name),
        (None, _) => "NOASSERTION".to_owned(),
    };
    Component { name: part.name.clone(), version: part.version.clone(), licence }
}

/// When the source was last changed: `SOURCE_DATE_EPOCH`, else the date of the checkout's last commit.
fn source_date() -> Result<u64> {
    if let Some(date) = std::env::var_os("SOURCE_DATE_EPOCH").filter(|date| !date.is_empty()) {
        let date = date.to_str().and_then(|date| date.parse().ok());
        return date.context("SOURCE_DATE_EPOCH is not a number of seconds");
    }
    let mut git = std::process::Command::new("git");
    let text = tools::output(git.current_dir(tools::root()).args(["log", "-1", "--format=%ct"]))
        .context("without a checkout, set SOURCE_DATE_EPOCH to the date of the source in seconds since 1970")?;
    text.trim().parse().with_context(|| format!("git told no date but {text:?}"))
}

fn file_name(path: &Path) -> Result<&str> {
    path.file_name().and_then(|name| name.to_str()).with_context(|| format!("{} has no plain name", path.display()))
}

/// Whether a program needs nothing but the kernel. Read from the file itself, as the linker may have been told in vain.
pub fn check_static(path: &Path) -> Result<()> {
    let bytes = fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    let bytes = bytes.as_slice();
    let header = FileHeader64::<LittleEndian>::parse(bytes).and_then(|header| Ok((header, header.endian()?)));
    let (header, endian) = header.with_context(|| format!("{} is no 64-bit ELF file", path.display()))?;
    // This segment names the loader of a dynamic program.
    if header.program_headers(endian, bytes)?.iter().any(|segment| segment.p_type(endian) == PT_INTERP) {
        bail!("{} needs a loader and libraries", path.display());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_test_is_a_dynamic_program_and_a_script_is_none() {
        let own = std::env::current_exe().unwrap();
        assert!(check_static(&own).unwrap_err().to_string().contains("needs a loader"));
        let script = tools::root().join("Cargo.toml");
        assert!(check_static(&script).unwrap_err().to_string().contains("no 64-bit ELF"));
    }

    #[test]
    fn every_board_has_a_command_line_of_one_line() {
        for board in edge_system::board::boards() {
            if let Ok(image) = board.image() {
                let line = command_line(image);
                assert_eq!(line.matches('\n').count(), 1, "{line:?}");
                assert!(line.contains(&format!("console={} ", image.console)), "{line:?}");
            }
        }
    }
}
