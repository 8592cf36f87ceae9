//! ext4 file systems in files, without mounting them: made and changed by e2fsprogs, read by [`ext4_view`].

use crate::tools::{self, DEBUGFS, E2FSCK, MKFS_EXT4};
use anyhow::{Context, Result, bail};
use ext4_view::{Ext4, Ext4Error, Ext4Read};
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// What the file systems have: everything that Linux 5.4 and e2fsprogs 1.45 know, whatever this machine's defaults are.
const FEATURES: &str = "has_journal,ext_attr,resize_inode,dir_index,filetype,extent,64bit,flex_bg,sparse_super,\
                        large_file,huge_file,dir_nlink,extra_isize,metadata_csum";

/// An ext4 file system that a file consists of, which programs of e2fsprogs work on. (They take an offset, too, but forget
/// it when they have completed a journal.) Relative names in their scripts are looked up in the file's folder.
pub struct Editable {
    folder: PathBuf,
    name: String,
    /// Seconds since 1970 that everything is dated with.
    time: u64,
}

/// What a file or folder belongs to and may be done with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

impl Editable {
    /// The file system in the file `name` of `folder`; a name without blanks and the like.
    pub fn new(folder: &Path, name: &str, time: u64) -> Editable {
        Editable { folder: folder.into(), name: name.into(), time }
    }

    /// The file.
    pub fn path(&self) -> PathBuf {
        self.folder.join(&self.name)
    }

    /// Makes the file, with an empty file system of `length` bytes. `identity` decides everything that would be random.
    pub fn make(&self, length: u64, label: &str, identity: &[u8; 32]) -> Result<()> {
        let cannot = || format!("cannot write {}", self.path().display());
        File::create(self.path()).and_then(|file| file.set_len(length)).with_context(cannot)?;
        let config = self.folder.join("mke2fs.conf");
        std::fs::write(&config, "[defaults]\n\tbase_features = none\n[fs_types]\n\text4 = {\n\t}\n")?;
        let (uuid, seed) = (uuid(&identity[..16]), uuid(&identity[16..]));
        let mut mkfs = MKFS_EXT4.command()?;
        mkfs.env("MKE2FS_CONFIG", &config).env("E2FSPROGS_FAKE_TIME", self.time.to_string());
        mkfs.env_remove("SOURCE_DATE_EPOCH").args(["-q", "-F", "-t", "ext4", "-L", label, "-U", &uuid]);
        mkfs.args(["-b", "4096", "-I", "256", "-i", "65536", "-m", "1", "-J", "size=16", "-O"]).arg(FEATURES);
        // Everything is written now, since otherwise the camera would write zeros to its card at the first start.
        let extended = "lazy_itable_init=0,lazy_journal_init=0,nodiscard,root_owner=0:0";
        mkfs.arg("-E").arg(format!("hash_seed={seed},{extended}")).arg(&self.name).current_dir(&self.folder);
        tools::run(&mut mkfs).map(drop)
    }

    /// Brings a file system that was not unmounted into order, as mounting it would.
    pub fn replay(&self) -> Result<()> {
        let output =
            E2FSCK.command()?.args(["-p", "-E", "journal_only", &self.name]).current_dir(&self.folder).output()?;
        // 1 says that something was corrected.
        if output.status.code().is_none_or(|code| code > 1) {
            let said = [output.stdout, output.stderr].concat();
            bail!("e2fsck: {}", String::from_utf8_lossy(&said).trim());
        }
        Ok(())
    }

    /// Runs commands of debugfs, one a line, and fails when one of them does.
    pub fn script(&self, commands: &str) -> Result<()> {
        std::fs::write(self.folder.join("debugfs.script"), commands)?;
        let mut debugfs = DEBUGFS.command()?;
        debugfs.env("E2FSPROGS_FAKE_TIME", self.time.to_string()).env("DEBUGFS_PAGER", "cat").current_dir(&self.folder);
        let output = tools::run(debugfs.args(["-w", "-f", "debugfs.script", &self.name]))?;
        // It ends with 0 whatever happened; what it has to say comes behind its own name.
        let said = String::from_utf8_lossy(&output.stderr);
        let wrong: Vec<_> = said.lines().filter(|l| !l.starts_with("debugfs ") && !l.trim().is_empty()).collect();
        if !wrong.is_empty() {
            bail!("debugfs: {}", wrong.join("; "));
        }
        Ok(())
    }
}

/// A command that makes a folder.
pub fn make_folder(path: &str, owner: Owner) -> String {
    format!("mkdir \"{path}\"\n{}", attributes(path, owner, 0o040_755))
}

/// A command that copies `name`, a file of the script's folder.
pub fn make_file(name: &str, path: &str, owner: Owner) -> String {
    format!("write \"{name}\" \"{path}\"\n{}", attributes(path, owner, 0o100_644))
}

fn attributes(path: &str, owner: Owner, mode: u32) -> String {
    let set = |field: &str, value: String| format!("set_inode_field \"{path}\" {field} {value}\n");
    set("uid", owner.uid.to_string()) + &set("gid", owner.gid.to_string()) + &set("mode", format!("0{mode:o}"))
}

fn uuid(bytes: &[u8]) -> String {
    let mut bytes: [u8; 16] = std::array::from_fn(|i| bytes.get(i).copied().unwrap_or(0));
    // RFC 9562: version 8, of one's own making.
    bytes[6] = bytes[6] & 0x0F | 0x80;
    bytes[8] = bytes[8] & 0x3F | 0x80;
    let hex = edge_package::hex(&bytes);
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

/// A part of a file or device, read as a file system.
struct Part {
    file: File,
    range: Range<u64>,
}

impl Ext4Read for Part {
    fn read(&mut self, start: u64, bytes: &mut [u8]) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let fits = start.checked_add(bytes.len() as u64).is_some_and(|end| end <= self.range.end - self.range.start);
        if !fits {
            return Err("the file system is longer than its partition".into());
        }
        Ok(self.file.read_exact_at(bytes, self.range.start + start)?)
    }
}

/// Opens the file system in `range` for reading. One that was not unmounted is read as its journal says it should be;
/// nothing is written.
pub fn read(file: &File, range: Range<u64>) -> Result<Ext4> {
    let part = Part { file: file.try_clone()?, range };
    Ext4::load(Box::new(part)).context("the data partition holds no ext4 file system that can be read")
}

/// The content of a file, or none where there is no such file.
pub fn content(fs: &Ext4, path: &str) -> Result<Option<Vec<u8>>> {
    match fs.read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(Ext4Error::NotFound) => Ok(None),
        Err(e) => Err(e).with_context(|| format!("cannot read {path} on the data partition")),
    }
}

#[cfg(test)]
mod tests;
