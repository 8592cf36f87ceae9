//! May the service's user read and write that? Asked of the kernel for whoever runs this, worked out of owner and mode for
//! somebody else: access lists are not seen then.

use rustix::fs::Access;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// A user of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// The name.
    pub name: String,
    /// The number.
    pub id: u32,
    /// The numbers of the groups that the user is in.
    pub groups: Vec<u32>,
}

impl User {
    /// The user of this name in the files of `etc`. `more` are groups that a service is given.
    pub fn find(etc: &Path, name: &str, more: &[&str]) -> Option<User> {
        let passwd = std::fs::read_to_string(etc.join("passwd")).ok()?;
        let fields = passwd.lines().map(|l| l.split(':').collect::<Vec<_>>()).find(|f| f.first() == Some(&name))?;
        let (id, own) = (fields.get(2)?.parse().ok()?, fields.get(3)?.parse().ok()?);
        let mut groups = vec![own];
        for line in std::fs::read_to_string(etc.join("group")).unwrap_or_default().lines() {
            let fields: Vec<&str> = line.split(':').collect();
            let [group, _, number, members] = fields[..] else { continue };
            if more.contains(&group) || members.split(',').any(|member| member == name) {
                groups.extend(number.parse::<u32>());
            }
        }
        Some(User { name: name.into(), id, groups })
    }

    /// Whether the bits of a mode allow it, of what this user and group own.
    fn allowed(&self, (owner, group, mode): (u32, u32, u32), bits: u32) -> bool {
        let shift = match (owner == self.id, self.groups.contains(&group)) {
            (true, _) => 6,
            (_, true) => 3,
            _ => 0,
        };
        self.id == 0 || (mode >> shift) & bits == bits
    }
}

/// Whether `user`, or who runs this, may read a file, or see what is in a folder.
pub fn may_read(user: Option<&User>, path: &Path) -> io::Result<bool> {
    may(user, path, READ)
}

/// Whether `user`, or who runs this, may read and write a file, or make files in a folder.
pub fn may_write(user: Option<&User>, path: &Path) -> io::Result<bool> {
    may(user, path, READ | WRITE)
}

/// Bits of a mode, of one of its three parts.
const READ: u32 = 4;
const WRITE: u32 = 2;
const EXECUTE: u32 = 1;

fn may(user: Option<&User>, path: &Path, wanted: u32) -> io::Result<bool> {
    // A folder is gone through; to make files in one nobody has to see the others.
    let bits = match std::fs::metadata(path)?.is_dir() {
        true if wanted & WRITE != 0 => WRITE | EXECUTE,
        true => wanted | EXECUTE,
        false => wanted,
    };
    let Some(user) = user else {
        let each = [(READ, Access::READ_OK), (WRITE, Access::WRITE_OK), (EXECUTE, Access::EXEC_OK)];
        let asked = each.into_iter().filter(|(bit, _)| bits & bit != 0).fold(Access::EXISTS, |all, (_, one)| all | one);
        return match rustix::fs::access(path, asked) {
            Ok(()) => Ok(true),
            Err(rustix::io::Errno::ACCESS | rustix::io::Errno::ROFS | rustix::io::Errno::PERM) => Ok(false),
            Err(e) => Err(e.into()),
        };
    };
    let real = std::fs::canonicalize(path)?;
    let look = |path: &Path, bits: u32| {
        let about = std::fs::metadata(path)?;
        Ok::<_, io::Error>(user.allowed((about.uid(), about.gid(), about.mode()), bits))
    };
    for folder in real.ancestors().skip(1) {
        if !look(folder, EXECUTE)? {
            return Ok(false);
        }
    }
    look(&real, bits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn users_and_their_groups_are_found() {
        let etc = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(etc.path().join(name), text).unwrap();
        write("passwd", "root:x:0:0::/root:/bin/sh\nedge-camera:x:990:991::/:/usr/sbin/nologin\n");
        write("group", "video:x:44:pi,edge-camera\nspi:x:45:pi\nrender:x:46:\nodd\n");
        let user = User::find(etc.path(), "edge-camera", &["render"]).unwrap();
        assert_eq!(user, User { name: "edge-camera".into(), id: 990, groups: vec![991, 44, 46] });
        assert_eq!(User::find(etc.path(), "edge", &[]), None);
    }

    #[test]
    fn modes_are_read_as_the_kernel_reads_them() {
        let user = User { name: "u".into(), id: 990, groups: vec![991, 44] };
        assert!(user.allowed((0, 44, 0o660), 6) && !user.allowed((0, 45, 0o660), 6));
        // The first that fits decides, even where it allows less.
        assert!(!user.allowed((990, 44, 0o077), 6) && user.allowed((990, 0, 0o600), 6));
        assert!(user.allowed((0, 0, 0o666), 6) && !user.allowed((0, 0, 0o664), 6));
        let root = User { name: "root".into(), id: 0, groups: vec![] };
        assert!(root.allowed((7, 7, 0), 6));
    }

    #[test]
    fn a_folder_on_the_way_that_is_closed_closes_what_is_in_it() {
        let folder = tempfile::tempdir().unwrap();
        let (inner, file) = (folder.path().join("inner"), folder.path().join("inner/file"));
        std::fs::create_dir(&inner).unwrap();
        std::fs::write(&file, "").unwrap();
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o666)).unwrap();
        std::fs::set_permissions(&inner, PermissionsExt::from_mode(0o750)).unwrap();
        let nobody = User { name: "n".into(), id: u32::MAX - 2, groups: vec![] };
        assert!(!may_write(Some(&nobody), &file).unwrap());
        assert!(!may_write(Some(&nobody), &inner).unwrap());
        // Open to everyone, in folders that are, too.
        assert!(may_write(Some(&nobody), Path::new("/dev/null")).unwrap());
        assert!(may_write(None, &file).unwrap() && may_write(None, &inner).unwrap());
        assert!(may_write(None, Path::new("/no/such/file")).is_err());
    }

    #[test]
    fn what_may_be_read_need_not_be_written() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        let mode = |path: &Path, mode| std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
        std::fs::write(&file, "").unwrap();
        mode(folder.path(), 0o755);
        mode(&file, 0o644);
        let nobody = User { name: "n".into(), id: u32::MAX - 2, groups: vec![] };
        assert!(may_read(Some(&nobody), &file).unwrap() && !may_write(Some(&nobody), &file).unwrap());
        assert!(may_read(Some(&nobody), folder.path()).unwrap() && !may_write(Some(&nobody), folder.path()).unwrap());
        mode(&file, 0o640);
        assert!(!may_read(Some(&nobody), &file).unwrap() && may_read(None, &file).unwrap());
        // Seen from outside, nothing in a folder that may not be gone through.
        mode(&file, 0o644);
        mode(folder.path(), 0o744);
        assert!(!may_read(Some(&nobody), &file).unwrap());
    }
}
