//! `edge-flash image`: a bootable image out of a board's system and a package. The same input gives the same bytes.

use crate::image::fat::{Files, Source};
use crate::image::{self, config, data, sbom};
use crate::out::Output;
use crate::tools::{self, DEBUGFS, MCOPY, MKFS_EXT4, MKFS_FAT, MMD};
use crate::{machine, out, progress, sparse};
use anyhow::{Context, Result, bail};
use edge_package::{Digest, LinkKey, PublicKey, SecretKey, Signed, TrustPolicy, VerifiedPackage, hex};
use edge_system::board::{self, Board};
use edge_system::disk::{Disk, FileDisk};
use edge_system::folder::{BOOT, LICENCES, SBOM, SystemFolder};
use edge_system::layout::Layout;
use edge_system::seal::{Facts, Seal};
use edge_system::slot::Slot;
use edge_system::state::BootState;
use edge_system::system::{self, SQUASHFS, SystemBundle};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

#[derive(clap::Args)]
pub struct Args {
    /// The board that it is for
    #[arg(long)]
    board: String,

    /// The package that the camera runs
    #[arg(long, value_name = "FILE.edgepack")]
    package: PathBuf,

    /// Settings of the camera, as for `edge-camera --config`; they can be edited on the card
    #[arg(long, value_name = "FILE.toml")]
    config: Option<PathBuf>,

    /// Accept only packages and systems signed by this key, this package included
    #[arg(long, value_name = "FILE.pub")]
    trusted_key: Option<PathBuf>,

    /// The key of a link over TCP, which the configuration names as key=link.key; whoever has the image or the card has it
    #[arg(long, value_name = "FILE")]
    link_key: Option<PathBuf>,

    /// Name of the device in the network
    #[arg(long, value_parser = config::hostname)]
    hostname: Option<String>,

    /// Sign the list of digests, and the system, with this secret key
    #[arg(long, value_name = "KEY")]
    sign: Option<PathBuf>,

    /// The folder that `cargo xtask cross` made (default: the project's cache)
    #[arg(long, value_name = "DIR")]
    system: Option<PathBuf>,

    /// The image to write
    #[arg(short, value_name = "FILE")]
    out: PathBuf,

    /// One JSON object on standard output
    #[arg(long)]
    json: bool,
}

/// Everything that an image is made of, checked.
struct Parts {
    board: &'static Board,
    layout: Layout,
    folder: SystemFolder,
    package: VerifiedPackage,
    system: SystemBundle,
    key: Option<SecretKey>,
    trusted: Option<PublicKey>,
    config: String,
    sbom: String,
    link_key: Option<LinkKey>,
    hostname: Option<String>,
    /// Decides everything that would be random: digest of all of the above.
    identity: Digest,
}

pub fn run(args: &Args) -> Result<ExitCode> {
    let parts = Parts::gather(args)?;
    tools::need(&[MKFS_FAT, MMD, MCOPY, MKFS_EXT4, DEBUGFS])?;
    let keys = [args.trusted_key.as_ref(), args.sign.as_ref(), args.link_key.as_ref()];
    let inputs = [Some(&args.package), args.config.as_ref()].into_iter().chain(keys);
    out::not_an_input(&args.out, inputs.flatten().map(PathBuf::as_path))?;
    let list = beside(&args.out);
    let output = Output::begin(&args.out)?;
    let digest = parts.assemble(&output).with_context(|| format!("{} was not made", args.out.display()))?;
    let stored = stored(&output)?;
    output.keep()?;
    out::write_file(&list, parts.sbom.as_bytes(), 0o644)?;
    parts.tell(args, &list, &digest, stored)?;
    Ok(ExitCode::SUCCESS)
}

impl Parts {
    /// Reads and checks all input, before anything is written.
    fn gather(args: &Args) -> Result<Parts> {
        let board = board::by_name(&args.board)?;
        let layout = Layout::of(board.image()?);
        let trusted = args.trusted_key.as_deref().map(PublicKey::read).transpose()?;
        let key = args.sign.as_deref().map(SecretKey::read).transpose()?;
        let policy = TrustPolicy { trusted: trusted.into_iter().collect() };
        let shown = || args.package.display().to_string();
        let package = VerifiedPackage::open(&args.package, &policy).with_context(shown)?;
        package.manifest().check_board(&board.name).with_context(shown)?;
        board.check_budget(package.manifest()).with_context(shown)?;
        let folder = image::folder(board, args.system.as_deref())?;
        let manifest = folder.manifest();
        package.manifest().check_runtime(manifest.runtime).with_context(shown)?;
        let config = config::text(args.config.as_deref(), layout.data.end - layout.data.start)?;
        let link_key = args.link_key.as_deref().map(LinkKey::read).transpose()?;
        config::check_key(&config, link_key.is_some())?;
        let squashfs = folder.path(SQUASHFS);
        let squashfs = std::fs::read(&squashfs).with_context(|| format!("cannot read {}", squashfs.display()))?;
        let system = system::bundle(manifest, squashfs, key.as_ref())?;
        let system = SystemBundle::from_bytes(system, &TrustPolicy::default()).context("internal check")?;
        let sbom = sbom::text(&folder.path(SBOM), &package)?;
        let mut parts = Parts {
            board,
            layout,
            folder,
            package,
            system,
            key,
            trusted,
            config,
            sbom,
            link_key,
            hostname: args.hostname.clone(),
            identity: [0; 32],
        };
        parts.identity = parts.digest();
        Ok(parts)
    }

    fn digest(&self) -> Digest {
        let mut hasher = blake3::Hasher::new();
        let mut add = |bytes: &[u8]| {
            hasher.update(&(bytes.len() as u64).to_le_bytes()).update(bytes);
        };
        for file in &self.folder.about().files {
            add(file.path.as_bytes());
            add(file.digest.as_bytes());
        }
        add(&self.package.digest());
        add(&self.system.digest());
        add(self.config.as_bytes());
        add(self.hostname.as_deref().unwrap_or_default().as_bytes());
        add(&self.trusted.map_or([0; 32], PublicKey::to_bytes));
        add(&self.key.as_ref().map_or([0; 32], |key| key.public().to_bytes()));
        if let Some(key) = &self.link_key {
            add(key.bytes());
        }
        *hasher.finalize().as_bytes()
    }

    fn date(&self) -> u64 {
        self.folder.about().source_date
    }

    /// Puts the image together and reads it back as its receiver will; the digest of its list.
    fn assemble(&self, output: &Output) -> Result<Digest> {
        let cannot = || format!("cannot write {}", output.place().display());
        let (file, layout) = (output.file(), &self.layout);
        let random = |at: usize| u32::from_le_bytes(std::array::from_fn(|i| self.identity[at + i])).max(1);
        file.set_len(layout.end()).with_context(cannot)?;
        let work = output.work()?;

        let bar = progress::bytes(4 * layout.end(), "putting together");
        let length = layout.boot.end - layout.boot.start;
        let fat = self.boot_files()?.make(work.path(), "fat", length, self.date(), random(0))?;
        sparse::copy(&std::fs::File::open(fat)?, file, length, layout.boot.start).with_context(cannot)?;
        let length = layout.data.end - layout.data.start;
        let data = data::make(work.path(), "data", length, &self.package, self.date(), &self.identity)?;
        sparse::copy(&std::fs::File::open(data)?, file, length, layout.data.start).with_context(cannot)?;
        bar.inc(layout.end());

        let mut disk = FileDisk::from_file(file.try_clone()?).with_context(cannot)?;
        disk.write_at(&layout.table(random(4)).encode(), 0).with_context(cannot)?;
        BootState::first().write(&mut disk, layout).with_context(cannot)?;
        for slot in Slot::BOTH {
            system::write_slot(&mut disk, layout.slot(slot), &self.system, &mut |bytes| bar.inc(bytes))?;
        }
        let about = self.folder.about();
        let facts = Facts {
            board: about.board.clone(),
            version: about.version.clone(),
            created: about.source_date,
            kernel: about.kernel.clone(),
            trusted: self.policy(),
            factory: self.system.digest(),
        };
        let seal = Seal::make(&disk, layout, facts, &mut |bytes| bar.inc(bytes))?;
        seal.write(&mut disk, layout, self.key.as_ref())?;
        let trust = TrustPolicy { trusted: self.key.iter().map(SecretKey::public).collect() };
        let sealed = Seal::read(&disk, &Layout::from_disk(&disk)?, &trust)?;
        if !sealed.seal.verify(&disk, layout, &mut |bytes| bar.inc(bytes))?.is_fresh() {
            bail!("the image does not read back as it was written; the disk it is on may be failing");
        }
        bar.finish_and_clear();
        Ok(sealed.digest)
    }

    fn policy(&self) -> TrustPolicy {
        TrustPolicy { trusted: self.trusted.into_iter().collect() }
    }

    /// What the boot loader and people find.
    fn boot_files(&self) -> Result<Files> {
        let mut files = Files::default();
        for path in self.folder.below(BOOT) {
            files.add(path, Source::File(self.folder.path(&format!("{BOOT}/{path}"))))?;
        }
        for path in self.folder.below(LICENCES) {
            let path = format!("{LICENCES}/{path}");
            files.add(&path, Source::File(self.folder.path(&path)))?;
        }
        let mut text = |path: &str, text: String| files.add(path, Source::Bytes(text.into_bytes()));
        text("camera.toml", self.config.clone())?;
        text(SBOM, self.sbom.clone())?;
        text("README.txt", self.readme())?;
        if let Some(name) = &self.hostname {
            text("hostname", format!("{name}\n"))?;
        }
        if let Some(key) = self.trusted {
            text("trusted.pub", key.to_file_text())?;
        }
        if let Some(key) = &self.link_key {
            text(config::LINK_KEY, key.to_file_text())?;
        }
        Ok(files)
    }

    /// For whoever puts the card into a PC.
    fn readme(&self) -> String {
        let about = self.folder.about();
        format!(
            "This card starts a camera that logs what it sees: {} ({}), system {}, kernel {}.\n\
             \n\
             camera.toml may be edited here; it counts from the next start on. So may hostname, one line.\n\
             Everything else on this partition is covered by the card's list of digests: `edge-flash verify` tells\n\
             what was changed. The log is on the card's last partition (ext4): `edge-flash log /dev/sdX` prints it.\n\
             \n\
             {SBOM} lists every part with its version and licence; {LICENCES} has their texts.\n",
            self.board.title, self.board.name, about.version, about.kernel
        )
    }

    fn tell(&self, args: &Args, list: &Path, digest: &Digest, stored: u64) -> Result<()> {
        let (about, manifest) = (self.folder.about(), self.package.manifest());
        let shown = args.out.display();
        if args.json {
            return out::json(&json!({
                "path": shown.to_string(),
                "sbom": list.display().to_string(),
                "board": self.board.name,
                "system": about.version,
                "system_sequence": about.sequence,
                "kernel": about.kernel,
                "package": manifest.name,
                "package_sequence": manifest.sequence,
                "package_digest": hex(&self.package.digest()),
                "bytes": self.layout.end(),
                "bytes_stored": stored,
                "digest": hex(digest),
                "signed": self.key.is_some(),
                "link_key": self.link_key.is_some(),
                "trusted_key": self.trusted.map(|key| hex(&key.to_bytes())),
                "accepts_unsigned": self.trusted.is_none(),
            }));
        }
        out::line(format_args!(
            "{shown}: {} ({}), system {}, kernel {}, {} ({} of data)",
            self.board.title,
            self.board.name,
            about.version,
            about.kernel,
            machine::size(self.layout.end()),
            machine::size(stored)
        ))?;
        let signed = match self.package.signed() {
            Signed::No => "not signed",
            Signed::ByUnknown(_) => "signed by a key that is not asked for",
            Signed::ByTrusted(_) => "signed by the trusted key",
        };
        out::line(format_args!(
            "package: {} (sequence {}), digest {}, {signed}",
            manifest.name,
            manifest.sequence,
            self.package.short_digest()
        ))?;
        match self.trusted {
            Some(key) => out::line(format_args!("updates: only those signed by {}", hex(&key.to_bytes())))?,
            None => out::line(
                "updates: accepted unsigned, from whoever can write to the card; --trusted-key KEY.pub accepts only your own",
            )?,
        }
        if self.link_key.is_some() {
            out::line("link: over TCP; its key is in the image, which is a secret with it")?;
        }
        match &self.key {
            Some(key) => out::line(format_args!(
                "list of digests: {}, signed by {}",
                &hex(digest)[..16],
                hex(&key.public().to_bytes())
            ))?,
            None => {
                out::line(format_args!("list of digests: {}, not signed; --sign KEY signs it", &hex(digest)[..16]))?
            }
        }
        out::line(format_args!("parts: {}", list.display()))
    }
}

/// `sd.img` → `sd.img.spdx.json`.
fn beside(image: &Path) -> PathBuf {
    let mut name = image.as_os_str().to_owned();
    name.push(".spdx.json");
    name.into()
}

/// What the image takes on this machine's disk, in bytes.
fn stored(output: &Output) -> Result<u64> {
    let file = output.file();
    let ranges = sparse::stored(file, file.metadata()?.len())?;
    Ok(ranges.iter().map(|range| range.end - range.start).sum())
}
