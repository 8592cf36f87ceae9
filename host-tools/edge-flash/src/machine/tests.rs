use super::*;
use std::os::unix::fs::symlink;

/// Rebuilds a machine's files: a line is `path -> target` for a link, `path = text` for a file, `path/` for a folder.
fn machine(recorded: &str) -> (tempfile::TempDir, Machine) {
    let dir = tempfile::tempdir().unwrap();
    for line in recorded.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let at = |path: &str| {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            path
        };
        if let Some((path, target)) = line.split_once(" -> ") {
            symlink(target, at(path)).unwrap();
        } else if let Some((path, text)) = line.split_once(" = ") {
            fs::write(at(path), text.replace("\\n", "\n") + "\n").unwrap();
        } else {
            fs::create_dir_all(at(line)).unwrap();
        }
    }
    let machine = Machine::at(dir.path()).unwrap();
    (dir, machine)
}

fn names(disks: &[Disk]) -> Vec<&str> {
    disks.iter().map(|disk| disk.name.as_str()).collect()
}

#[test]
fn a_laptop_with_an_encrypted_system_and_a_card_reader() {
    let (_dir, laptop) = machine(include_str!("laptop.txt"));
    let disks = laptop.removable().unwrap();
    // Neither the NVMe disk nor the reader without a card, the loop device or what is built on other disks.
    assert_eq!(names(&disks), ["mmcblk0", "sda"]);
    let card = &disks[0];
    assert_eq!((card.model.as_str(), card.bus, card.size), ("SD32G", Bus::Sd, 31_914_983_424));
    assert_eq!(card.serial.as_deref(), Some("0x1a2b3c4d"));
    assert!(card.uses.is_empty());
    let stick = &disks[1];
    assert_eq!((stick.model.as_str(), stick.bus), ("SanDisk Ultra", Bus::Usb));
    assert_eq!(stick.serial.as_deref(), Some("4C530001230815117432"));
    let uses: Vec<_> = stick.uses.iter().map(ToString::to_string).collect();
    assert_eq!(uses, ["sda1 is mounted at /media/anna/My Photos"]);
    assert!(!stick.uses[0].is_system());

    let disks = laptop.disks().unwrap();
    let system = disks.iter().find(|disk| disk.name == "nvme0n1").unwrap();
    assert!(!system.removable);
    let uses: Vec<_> = system.uses.iter().map(ToString::to_string).collect();
    // Through the encrypted partition and the logical volumes on it.
    assert_eq!(
        uses,
        [
            "dm-0 is part of vg-root (dm-1)",
            "dm-0 is part of vg-swap (dm-2)",
            "dm-1 is mounted at /",
            "dm-2 is swap space",
            "nvme0n1p1 is mounted at /boot/efi",
            "nvme0n1p2 is part of crypt (dm-0)",
        ]
    );
    assert_eq!(system.uses.iter().filter(|u| u.is_system()).count(), 3);
}

#[test]
fn a_pi_runs_from_the_card_that_can_be_taken_out() {
    let (_dir, pi) = machine(include_str!("pi.txt"));
    let disks = pi.removable().unwrap();
    assert_eq!(names(&disks), ["mmcblk0", "sda"]);
    let uses: Vec<_> = disks[0].uses.iter().map(ToString::to_string).collect();
    assert_eq!(uses, ["mmcblk0p1 is mounted at /boot/firmware", "mmcblk0p2 is mounted at /"]);
    assert!(disks[0].uses.iter().all(Use::is_system));
    // A stick with btrfs, whose mounts have device numbers of their own.
    let uses: Vec<_> = disks[1].uses.iter().map(ToString::to_string).collect();
    assert_eq!(uses, ["sda1 is mounted at /srv"]);
}

#[test]
fn an_emmc_is_no_card() {
    let (_dir, board) = machine(
        "proc/self/mountinfo = \n\
         sys/block/mmcblk1 -> ../devices/mmc1/mmc1:0001/block/mmcblk1\n\
         sys/class/block/mmcblk1 -> ../../devices/mmc1/mmc1:0001/block/mmcblk1\n\
         sys/devices/mmc1/mmc1:0001/type = MMC\n\
         sys/devices/mmc1/mmc1:0001/name = DG4016\n\
         sys/devices/mmc1/mmc1:0001/block/mmcblk1/size = 30777344\n\
         sys/devices/mmc1/mmc1:0001/block/mmcblk1/removable = 0\n\
         sys/devices/mmc1/mmc1:0001/block/mmcblk1/device -> ../../../mmc1:0001\n",
    );
    assert_eq!(board.removable().unwrap(), []);
    assert_eq!(board.disks().unwrap()[0].model, "DG4016");
}

#[test]
fn octal_escapes_are_read() {
    assert_eq!(unescaped("/media/My\\040Card\\134x\\9"), "/media/My Card\\x\\9");
}

#[test]
fn this_machine_is_listed() {
    let here = Machine::at(Path::new("/")).unwrap();
    // Whatever runs this test runs on something: no disk that holds the system may count as free.
    for disk in here.disks().unwrap() {
        let mounted_root = disk.uses.iter().any(|u| u.how == How::Mounted("/".into()));
        assert!(!mounted_root || disk.uses.iter().any(Use::is_system));
    }
}
