use super::*;
use ext4_view::Ext4;
use std::os::unix::fs::FileExt;
use tempfile::TempDir;

const CAMERA: Owner = Owner { uid: 990, gid: 44 };
const LENGTH: u64 = 64 << 20;

fn file_system(folder: &TempDir) -> Editable {
    let fs = Editable::new(folder.path(), "fs", 1_700_000_000);
    fs.make(LENGTH, "edge-data", &[7; 32]).unwrap();
    std::fs::write(folder.path().join("content"), vec![b'x'; 10_000]).unwrap();
    fs.script(&(make_folder("log", CAMERA) + &make_file("content", "log/a file", CAMERA))).unwrap();
    fs
}

fn opened(fs: &Editable) -> Result<Ext4> {
    Ok(read(&File::open(fs.path()).unwrap(), 0..LENGTH)?)
}

#[test]
fn what_is_written_is_read_by_another_implementation() {
    let folder = tempfile::tempdir().unwrap();
    let fs = file_system(&folder);
    let seen = opened(&fs).unwrap();
    assert_eq!(content(&seen, "/log/a file").unwrap().unwrap(), vec![b'x'; 10_000]);
    assert_eq!(content(&seen, "/log/no file").unwrap(), None);
    let (dir, file) = (seen.metadata("/log").unwrap(), seen.metadata("/log/a file").unwrap());
    assert_eq!((dir.uid(), dir.gid(), dir.mode() & 0o7777), (990, 44, 0o755));
    assert_eq!((file.uid(), file.gid(), file.mode() & 0o7777), (990, 44, 0o644));
    // And as part of a larger file, as a partition is.
    let image = tempfile::tempfile().unwrap();
    image.write_all_at(&std::fs::read(fs.path()).unwrap(), 12_345_678).unwrap();
    let seen = read(&image, 12_345_678..12_345_678 + LENGTH).unwrap();
    assert_eq!(content(&seen, "/log/a file").unwrap().unwrap().len(), 10_000);
}

#[test]
fn the_same_content_gives_the_same_bytes_at_any_time() {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let a = file_system(&one);
    std::thread::sleep(std::time::Duration::from_millis(1100));
    let b = file_system(&other);
    assert!(std::fs::read(a.path()).unwrap() == std::fs::read(b.path()).unwrap());
}

#[test]
fn a_script_that_fails_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let fs = file_system(&folder);
    for (script, what) in [
        (make_folder("log", CAMERA), "already exists"),
        (make_file("no such file", "log/b", CAMERA), "No such file"),
        ("frobnicate".into(), "Command not found"),
    ] {
        let said = fs.script(&script).unwrap_err().to_string();
        assert!(said.contains(what), "{said}");
    }
}

#[test]
fn a_journal_that_was_not_completed_counts() {
    let folder = tempfile::tempdir().unwrap();
    let fs = file_system(&folder);
    // A transaction that was committed to the journal, and to nothing else: what a power cut leaves.
    let mut debugfs = DEBUGFS.command().unwrap();
    let found = tools::run(debugfs.args(["-R", "blocks \"log/a file\""]).arg(fs.path())).unwrap();
    let blocks = String::from_utf8(found.stdout).unwrap();
    let first = blocks.split_whitespace().next().unwrap();
    std::fs::write(folder.path().join("block"), vec![b'y'; 4096]).unwrap();
    fs.script(&format!("journal_open -c\njournal_write -b {first} block\njournal_close\n")).unwrap();

    let mut expected = vec![b'x'; 10_000];
    expected[..4096].fill(b'y');
    let raw = |fs: &Editable| {
        let at = first.parse::<u64>().unwrap() * 4096;
        let mut byte = [0];
        File::open(fs.path()).unwrap().read_exact_at(&mut byte, at).unwrap();
        byte[0]
    };
    assert_eq!(raw(&fs), b'x');
    assert_eq!(content(&opened(&fs).unwrap(), "/log/a file").unwrap().unwrap(), expected);
    // Reading wrote nothing; replaying does.
    assert_eq!(raw(&fs), b'x');
    fs.replay().unwrap();
    assert_eq!(raw(&fs), b'y');
    assert_eq!(content(&opened(&fs).unwrap(), "/log/a file").unwrap().unwrap(), expected);
}

#[test]
fn what_is_no_file_system_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("zeros");
    File::create(&path).unwrap().set_len(LENGTH).unwrap();
    let said = format!("{:#}", read(&File::open(&path).unwrap(), 0..LENGTH).err().unwrap());
    assert!(said.contains("no ext4 file system"), "{said}");
    // A partition table that cuts the file system short is told, too.
    let fs = file_system(&folder);
    assert!(read(&File::open(fs.path()).unwrap(), 0..1000).is_err());
    assert!(Editable::new(folder.path(), "zeros", 0).replay().is_err());
}
