//! The FAT partition, which the boot loader reads and people may edit.

use crate::machine;
use crate::tools::{self, MCOPY, MKFS_FAT, MMD};
use anyhow::{Context, Result, bail};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The name that a PC shows.
const LABEL: &str = "EDGE-BOOT";
/// What a cluster is taken for when room is counted, in bytes: mkfs.fat takes smaller ones for such partitions.
const CLUSTER: u64 = 4096;

/// Where a file's content comes from.
pub enum Source {
    /// A file of this machine.
    File(PathBuf),
    /// Bytes.
    Bytes(Vec<u8>),
}

/// The files of the partition, by path.
#[derive(Default)]
pub struct Files(BTreeMap<String, Source>);

impl Files {
    /// Adds a file; a path may be given once.
    pub fn add(&mut self, path: &str, source: Source) -> Result<()> {
        let odd = |c: char| c.is_control() || r#""*/:<>?\|"#.contains(c);
        if path
            .split('/')
            .any(|part| part.is_empty() || part.len() > 200 || part.starts_with('.') || part.contains(odd))
        {
            bail!("a file of the boot partition can't be called {path:?}");
        }
        if self.0.insert(path.into(), source).is_some() {
            bail!("there are two files {path} for the boot partition");
        }
        Ok(())
    }

    /// The whole tree below `stage`, as files that mcopy can be given.
    fn stage(&self, stage: &Path) -> Result<u64> {
        let mut needed = 0;
        for (path, source) in &self.0 {
            let place = stage.join(path);
            let cannot = || format!("cannot write {}", place.display());
            if let Some(folder) = place.parent() {
                std::fs::create_dir_all(folder).with_context(cannot)?;
            }
            let length = match source {
                Source::File(from) => {
                    std::fs::copy(from, &place).with_context(|| format!("cannot copy {}", from.display()))?
                }
                Source::Bytes(bytes) => {
                    std::fs::write(&place, bytes).map(|()| bytes.len() as u64).with_context(cannot)?
                }
            };
            needed += length.next_multiple_of(CLUSTER) + CLUSTER;
        }
        Ok(needed)
    }

    /// Makes the partition of `length` bytes as the file `name` in `work`. The same files, `date` (seconds since 1970) and
    /// `id` give the same bytes.
    pub fn make(&self, work: &Path, name: &str, length: u64, date: u64, id: u32) -> Result<PathBuf> {
        let stage = work.join("boot");
        let needed = self.stage(&stage)?;
        // The two tables of 4 bytes a cluster of 512, at most, and the reserved sectors.
        let room = length.saturating_sub(2 * 4 * (length / 512) + (32 << 9));
        if needed > room {
            bail!(
                "the boot partition has room for {}, but its files take {}; make `boot-mib` of the board's file larger",
                machine::size(room),
                machine::size(needed)
            );
        }
        let image = work.join(name);
        let cannot = || format!("cannot write {}", image.display());
        File::create(&image).and_then(|file| file.set_len(length)).with_context(cannot)?;
        let mut mkfs = MKFS_FAT.command()?;
        mkfs.args(["-F", "32", "-n", LABEL, "--invariant", "-i", &format!("{id:08X}")]);
        tools::run(mkfs.arg(&image))?;

        // Several programs' runs, since mcopy alone takes a folder's files in the order in which they happen to lie.
        let mtools = |mut command: Command| {
            command.env("TZ", "UTC").env("SOURCE_DATE_EPOCH", date.to_string()).env("MTOOLSRC", "/dev/null");
            command.env("MTOOLS_SKIP_CHECK", "1").current_dir(&stage).arg("-i").arg(&image);
            command
        };
        let mut folders: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for path in self.0.keys() {
            let (folder, _) = path.rsplit_once('/').unwrap_or(("", path));
            folders.entry(folder).or_default().push(path);
        }
        let parents: BTreeSet<&str> = folders.keys().flat_map(|folder| ancestors(folder)).collect();
        for folder in parents {
            tools::run(mtools(MMD.command()?).arg(format!("::/{folder}")))?;
        }
        for (folder, files) in &folders {
            // No -m: the files' own dates are those of this run, not of their content.
            tools::run(mtools(MCOPY.command()?).args(files).arg(format!("::/{folder}")))?;
        }
        Ok(image)
    }
}

/// `a/b/c` → `a`, `a/b`, `a/b/c`.
fn ancestors(folder: &str) -> Vec<&str> {
    let ends = folder.match_indices('/').map(|(at, _)| at).chain((!folder.is_empty()).then_some(folder.len()));
    ends.map(|end| &folder[..end]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LENGTH: u64 = 64 << 20;

    fn files(more: usize) -> Files {
        let mut files = Files::default();
        files.add("kernel.img", Source::Bytes(vec![1; 100_000])).unwrap();
        files.add("overlays/deep/a long name.dtbo", Source::Bytes(vec![2; 5])).unwrap();
        files.add("licences/x", Source::Bytes(vec![3; more])).unwrap();
        files
    }

    #[test]
    fn the_same_files_give_the_same_bytes_at_any_time() {
        let make = || {
            let work = tempfile::tempdir().unwrap();
            std::fs::read(files(7).make(work.path(), "fat", LENGTH, 1_700_000_000, 0x1234_ABCD).unwrap()).unwrap()
        };
        let one = make();
        // FAT counts in two seconds.
        std::thread::sleep(std::time::Duration::from_millis(2100));
        assert!(one == make());
    }

    #[test]
    fn what_does_not_fit_and_odd_names_are_refused() {
        let work = tempfile::tempdir().unwrap();
        let said = files(70 << 20).make(work.path(), "fat", LENGTH, 0, 0).unwrap_err().to_string();
        assert!(said.contains("boot-mib"), "{said}");
        let mut files = files(1);
        for odd in ["", "a//b", "/a", "a/..", ".", "a\nb", "a:b", "kernel.img"] {
            assert!(files.add(odd, Source::Bytes(vec![])).is_err(), "{odd:?}");
        }
        assert_eq!(ancestors("a/b/c"), ["a", "a/b", "a/b/c"]);
        assert!(ancestors("").is_empty());
    }
}
