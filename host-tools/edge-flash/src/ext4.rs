//! ext4 file systems in files, without mounting them: made and changed by e2fsprogs, read by [`edge_system::flashed`].

use crate::tools::{self, DEBUGFS, E2FSCK, MKFS_EXT4};
use anyhow::{Context, Result, bail};
pub use edge_system::flashed::{content, read};
use std::fs::File;
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

#[cfg(test)]
mod tests;
