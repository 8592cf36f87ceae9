use super::*;
use crate::machine::{Bus, How, Use};
use edge_system::flashed::is_unfinished;

fn disk() -> Disk {
    Disk {
        name: "sdz".into(),
        size: 32_000_000_000,
        model: "Reader".into(),
        serial: Some("0x42".into()),
        bus: Bus::Usb,
        removable: true,
        read_only: false,
        uses: vec![],
    }
}

fn used(how: How) -> Disk {
    Disk { uses: vec![Use { device: "sdz1".into(), how }], ..disk() }
}

#[test]
fn what_may_not_be_written_to_is_told_with_the_reason() {
    assert_eq!(refusal(&disk(), None), None);
    let fixed = Disk { removable: false, bus: Bus::Other, ..disk() };
    let cases = [
        (used(How::Mounted("/".into())), "holds the running system (sdz1 is mounted at /)"),
        (used(How::Swap), "holds the running system (sdz1 is swap space)"),
        (used(How::Mounted("/media/x".into())), "in use (sdz1 is mounted at /media/x); unmount it first"),
        (used(How::PartOf("vg-data (dm-3)".into())), "in use (sdz1 is part of vg-data (dm-3))"),
        (Disk { size: 0, ..disk() }, "no card in /dev/sdz"),
        (Disk { read_only: true, ..disk() }, "write-protected"),
        (fixed.clone(), "--force-disk 0x42 (its serial number) or 32000000000 (its size in bytes)"),
    ];
    for (disk, what) in cases {
        let why = refusal(&disk, None).unwrap();
        assert!(why.contains(what), "{why}");
        // Confirming a disk does not take away what is wrong with it.
        assert!(disk == fixed || refusal(&disk, Some("0x42")).is_some());
    }
    assert!(refusal(&fixed, Some("0x43")).is_some());
    assert_eq!(refusal(&fixed, Some("0x42")), None);
    assert_eq!(refusal(&fixed, Some("32000000000")), None);
}

/// An image of 9 MiB with a hole, and a "card" of 12 MiB on which something else was.
fn image_and_card(folder: &Path) -> (File, Card, Vec<u8>) {
    let length = 9 << 20;
    let image = tempfile::tempfile_in(folder).unwrap();
    image.set_len(length).unwrap();
    image.write_all_at(&[0xEE; 4096], 0).unwrap();
    image.write_all_at(b"in the middle", 5 << 20).unwrap();
    image.write_all_at(b"the end", length - 7).unwrap();
    let path = folder.join("card");
    std::fs::write(&path, vec![0x5A; 12 << 20]).unwrap();
    let mut bytes = vec![0; length as usize];
    image.read_exact_at(&mut bytes, 0).unwrap();
    let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
    (image, Card { path, file, length: 12 << 20 }, bytes)
}

fn silent(length: u64, _: &str) -> ProgressBar {
    ProgressBar::with_draw_target(Some(length), indicatif::ProgressDrawTarget::hidden())
}

#[test]
fn what_was_there_before_is_gone_and_the_first_sector_comes_last() {
    let folder = tempfile::tempdir().unwrap();
    let (image, card, mut expected) = image_and_card(folder.path());
    let first = [0xAB; SECTOR];
    card.write(&image, 9 << 20, &first, silent).unwrap();
    expected[..SECTOR].copy_from_slice(&first);
    let written = std::fs::read(&card.path).unwrap();
    assert!(written[..9 << 20] == expected[..]);
    // Behind the image: left alone, but for where another table could be.
    assert!(written[9 << 20..11 << 20].iter().all(|b| *b == 0x5A) && sparse::is_zero(&written[11 << 20..]));
}

#[test]
fn an_interrupted_card_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let (image, card, _) = image_and_card(folder.path());
    // The image ends early: what a pulled stick looks like.
    image.set_len(6 << 20).unwrap();
    assert!(card.write(&image, 9 << 20, &[0xAB; SECTOR], silent).is_err());
    let written = std::fs::read(&card.path).unwrap();
    assert!(is_unfinished(&written) && written[SECTOR - 2..SECTOR] != [0x55, 0xAA]);
    assert!(!is_unfinished(&[0xAB; SECTOR]));
}

#[test]
fn a_card_that_reads_back_something_else_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (image, card, _) = image_and_card(folder.path());
    let stored = sparse::stored(&image, 9 << 20).unwrap();
    card.write_all(&image, 9 << 20, &stored, &ProgressBar::hidden()).unwrap();
    card.verify(&image, 9 << 20, &ProgressBar::hidden()).unwrap();
    card.file.write_all_at(b"?", (7 << 20) + 3).unwrap();
    card.file.sync_all().unwrap();
    let said = card.verify(&image, 9 << 20, &ProgressBar::hidden()).unwrap_err().to_string();
    assert!(said.contains(&format!("byte {} does not read back", (7 << 20) + 3)), "{said}");
}

#[test]
fn errors_of_devices_are_told_in_words() {
    let path = Path::new("/dev/null");
    let error = |errno: Errno| io::Error::from(errno);
    assert!(interrupted(path, &error(Errno::NODEV)).contains("was unplugged; the card is not usable yet"));
    assert!(interrupted(Path::new("/dev/no-such"), &error(Errno::IO)).contains("was unplugged"));
    assert!(opening(path, &error(Errno::BUSY)).contains("unmount"));
    assert!(opening(path, &error(Errno::ACCESS)).contains("sudo"));
    assert!(opening(path, &error(Errno::ROFS)).contains("write-protected"));
}
