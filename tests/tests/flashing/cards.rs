//! Cards, for which loop devices stand in.

use super::*;

/// A loop device over a file, which stands in for a card.
struct Loop {
    path: PathBuf,
    file: PathBuf,
}

impl Loop {
    /// None, and said as SKIPPED, where this machine has none to give.
    fn new(file: &Path, length: u64) -> Option<Loop> {
        File::create(file).and_then(|f| f.set_len(length)).expect("a file");
        Loop::over(file)
    }

    fn over(file: &Path) -> Option<Loop> {
        let output = Command::new("losetup").args(["--find", "--show", "--partscan"]).arg(file).output();
        match output {
            Ok(output) if output.status.success() => {
                let path = String::from_utf8(output.stdout).expect("a path").trim().into();
                Some(Loop { path, file: file.into() })
            }
            Ok(output) => {
                println!("SKIPPED: losetup: {}", String::from_utf8_lossy(&output.stderr).trim());
                None
            }
            Err(e) => {
                println!("SKIPPED: losetup: {e}");
                None
            }
        }
    }

    fn write(&self, image: &Path, more: &[&str]) -> Ran {
        let size = std::fs::metadata(&self.file).unwrap().len().to_string();
        let words = ["write".into(), image.to_path_buf(), self.path.clone(), "--force-disk".into(), size.into()];
        run("edge-flash", words.into_iter().chain(more.iter().map(PathBuf::from)))
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("partx").arg("--delete").arg(&self.path).output();
        let _ = Command::new("losetup").arg("--detach").arg(&self.path).output();
    }
}

#[test]
fn an_image_is_written_to_a_card_grown_and_verified() {
    let shop = Workshop::new();
    let image = shop.image("sd.img", &[]);
    let length = END + 300 * MIB + 4096;
    let card = shop.path("card");
    // A card on which something else was.
    std::fs::write(&card, vec![0xA5; 200 * MIB as usize]).unwrap();
    OpenOptions::new().write(true).open(&card).unwrap().set_len(length).unwrap();
    let Some(card) = Loop::over(&card) else { return };
    // It is no card and no USB disk: only its size confirms that it is meant.
    edge_flash!("write", image, card.path).fails(1, &["no card and no USB disk", "--force-disk", &length.to_string()]);
    edge_flash!("write", image, card.path, "--force-disk", "123").fails(1, &["no card and no USB disk"]);
    let listed = edge_flash!("list", "--json").ok();
    assert!(!listed.stdout.contains(card.path.to_str().unwrap()), "{}", listed.stdout);
    let told = card.write(&image, &["--json"]).ok().json().remove(0);
    assert_eq!(told["verified"], true);
    assert_eq!(told["data_bytes"], (length - DATA) / MIB * MIB);
    let verdict = verified(&card.path, 0);
    assert_eq!(verdict["ok"], true);
    assert_eq!(region(&verdict, SYSTEM_A)["state"], "same");
    // Whatever was there before is gone: all but the table is the image.
    let (mut a, mut b) = (vec![0; 4 * MIB as usize], vec![0; 4 * MIB as usize]);
    let (image_file, card_file) = (File::open(&image).unwrap(), File::open(&card.file).unwrap());
    for at in (0..END).step_by(4 * MIB as usize) {
        image_file.read_exact_at(&mut a, at).unwrap();
        card_file.read_exact_at(&mut b, at).unwrap();
        let skip = if at == 0 { 512 } else { 0 };
        assert!(a[skip..] == b[skip..], "at {at}");
    }
    edge_flash!("log", card.path).fails(1, &["no log yet"]);
}

#[test]
fn cards_that_are_too_small_in_use_or_unfinished() {
    let shop = Workshop::new();
    let image = shop.image("sd.img", &[]);
    let Some(small) = Loop::new(&shop.path("small"), 64 * MIB) else { return };
    small.write(&image, &[]).fails(1, &["too small", "nothing was written"]);
    let mut bytes = vec![];
    File::open(&small.file).unwrap().take(4096).read_to_end(&mut bytes).unwrap();
    assert!(bytes.iter().all(|b| *b == 0));

    let Some(card) = Loop::new(&shop.path("card"), END) else { return };
    // A damaged image is not written.
    flip(&image, SYSTEM_A + 5000);
    card.write(&image, &[]).fails(1, &["sd.img is damaged", "nothing was written"]);
    flip(&image, SYSTEM_A + 5000);
    // Interrupted in the middle: the card says so, and can be written again.
    let mut child = Command::new(program("edge-flash"))
        .arg("write")
        .arg(&image)
        .arg(&card.path)
        .args(["--force-disk", &END.to_string()])
        .spawn()
        .unwrap();
    let begun = || {
        let mut first = [0; 10];
        File::open(&card.path).unwrap().read_exact(&mut first).unwrap();
        &first == b"edge-flash"
    };
    while !begun() {
        assert!(child.try_wait().unwrap().is_none(), "it ended before it was seen to begin");
        std::thread::yield_now();
    }
    child.kill().unwrap();
    child.wait().unwrap();
    edge_flash!("verify", card.path).fails(1, &["not written to its end", "not usable yet"]);
    edge_flash!("log", card.path).fails(1, &["not usable yet"]);
    card.write(&image, &[]).ok();
    verified(&card.path, 0);

    // A mounted one is refused, and says what is mounted.
    let folder = shop.path("mnt");
    std::fs::create_dir_all(&folder).unwrap();
    let partition = format!("{}p4", card.path.display());
    if !Path::new(&partition).exists() {
        // A kernel that reads no partition tables itself is told of them.
        let _ = Command::new("partx").arg("--add").arg(&card.path).output();
    }
    let mounted = Command::new("mount").arg(&partition).arg(&folder).output().unwrap();
    if !mounted.status.success() {
        println!("SKIPPED: mount: {}", String::from_utf8_lossy(&mounted.stderr).trim());
        return;
    }
    card.write(&image, &[]).fails(1, &["in use", "is mounted at", "mnt", "unmount"]);
    let package = shop.package("p.edgepack", "99999999999", &[]);
    edge_flash!("update", package, "--device", card.path).fails(1, &["in use", "unmount"]);
    // A log that the kernel wrote and did not bring to its end: taken from the running file system.
    std::fs::create_dir_all(folder.join("log")).unwrap();
    let mut log = File::create(folder.join("log/class.jsonl")).unwrap();
    log.write_all(b"{\"n\":1}\n").unwrap();
    log.sync_all().unwrap();
    std::fs::copy(&card.file, shop.path("pulled.img")).unwrap();
    let pulled = edge_flash!("log", shop.path("pulled.img")).ok();
    assert_eq!(pulled.stdout, "{\"n\":1}\n");
    // Updating it completes its journal first.
    edge_flash!("update", package, "--device", shop.path("pulled.img")).ok();
    assert_eq!(edge_flash!("log", shop.path("pulled.img")).ok().stdout, "{\"n\":1}\n");
    drop(log);
    assert!(Command::new("umount").arg(&folder).status().unwrap().success());
    // And now it can be updated, as a card.
    let told = edge_flash!("update", package, "--device", card.path, "--json").ok().json().remove(0);
    assert_eq!(told["slot"], "b");
    let system = shop.bundle("v2.edgesys", 101, &[]);
    edge_flash!("update", system, "--device", card.path).ok();
    let verdict = verified(&card.path, 0);
    assert_eq!((&verdict["packages"][1]["state"], &verdict["system_trial"]), (&"good".into(), &"b".into()));
    assert_eq!(edge_flash!("log", card.path).ok().stdout, "{\"n\":1}\n");
}

#[test]
fn a_card_that_fails_in_the_middle_says_that_it_is_not_usable() {
    let shop = Workshop::new();
    let image = shop.image("sd.img", &[]);
    // A file system of less than the image has data, and a card on it.
    let folder = shop.path("small");
    std::fs::create_dir_all(&folder).unwrap();
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=4m", "none"]).arg(&folder).output().unwrap();
    if !mounted.status.success() {
        println!("SKIPPED: mount: {}", String::from_utf8_lossy(&mounted.stderr).trim());
        return;
    }
    let card = Loop::new(&folder.join("card"), END);
    // Gone from here at once, and as a whole when the card is no longer there.
    assert!(Command::new("umount").arg("--lazy").arg(&folder).status().unwrap().success());
    let Some(card) = card else { return };
    let ran = run(
        "edge-flash",
        ["write".as_ref(), image.as_os_str(), card.path.as_os_str(), "--force-disk".as_ref(), END.to_string().as_ref()],
    );
    ran.fails(1, &[card.path.to_str().unwrap(), "not usable yet", "write it again"]);
    edge_flash!("verify", card.path).fails(1, &["not written to its end"]);
}
