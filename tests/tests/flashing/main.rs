//! `edge-flash`: images, cards, updates, packages for systems that stay.
//!
//! The system that images are made of here is a stand-in of a few files: what is on the disk is the same, but nothing
//! starts from it. Images that start are the emulated boards' cases.

/// `run("edge-flash", [...])` with arguments of mixed types.
macro_rules! edge_flash {
    ($($arg:expr),* $(,)?) => { run("edge-flash", [$(AsRef::<std::ffi::OsStr>::as_ref(&$arg)),*]) };
}

mod cards;
mod doctor;
mod installing;
mod linked;
mod updates;

use edge_suite::*;
use edge_system::folder::{About, SystemFolder};
use edge_system::system::Component;
use serde_json::Value;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const MIB: u64 = 1 << 20;
/// Where things are on a card for `virt`: firmware/boards/virt.toml.
const BOOT: u64 = 16 * MIB;
const SYSTEM_A: u64 = BOOT + 128 * MIB;
const SYSTEM_B: u64 = SYSTEM_A + 96 * MIB;
const DATA: u64 = SYSTEM_B + 96 * MIB;
const END: u64 = DATA + 688 * MIB;

/// A scratch folder with a system and packages in it.
struct Workshop {
    scratch: Scratch,
    system: PathBuf,
}

impl Workshop {
    fn new() -> Workshop {
        let scratch = Scratch::small();
        let system = scratch.path("system");
        make_system(&system, "virt", 100);
        Workshop { scratch, system }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.scratch.path(name)
    }

    /// An image with this package; what `more` says comes on top.
    fn image(&self, name: &str, more: &[&str]) -> PathBuf {
        let image = self.path(name);
        self.try_image(&image, more).ok();
        image
    }

    fn try_image(&self, image: &Path, more: &[&str]) -> Ran {
        let words = ["image", "--board", "virt", "--package"].map(Into::into);
        let given = [self.scratch.package.clone(), "--system".into(), self.system.clone(), "-o".into(), image.into()];
        run("edge-flash", words.into_iter().chain(given).chain(more.iter().map(PathBuf::from)))
    }

    /// A package of the small model with this sequence number.
    fn package(&self, name: &str, sequence: &str, more: &[&str]) -> PathBuf {
        let package = self.path(name);
        let words = [small_model(), "-o".into(), package.clone(), "--sequence".into(), sequence.into()];
        run("edge-pack", words.into_iter().chain(more.iter().map(PathBuf::from))).ok();
        package
    }

    /// A system update with this sequence number.
    fn bundle(&self, name: &str, sequence: u64, more: &[&str]) -> PathBuf {
        let folder = self.path(&format!("system-{name}"));
        make_system(&folder, "virt", sequence);
        let bundle = self.path(name);
        let words = ["bundle".into(), "--board".into(), "virt".into(), "--system".into(), folder];
        let out = ["-o".into(), bundle.clone()];
        run("edge-flash", words.into_iter().chain(out).chain(more.iter().map(PathBuf::from))).ok();
        bundle
    }

    fn keys(&self, name: &str) -> (PathBuf, PathBuf) {
        let key = self.path(name);
        edge_pack!("keygen", key).ok();
        (key.clone(), self.path(&format!("{name}.pub")))
    }
}

/// What `cargo xtask cross` makes, as small as it gets.
fn make_system(folder: &Path, board: &str, sequence: u64) {
    let noise = |length: usize| (0..length).map(|i| (i * i / 7 + sequence as usize) as u8).collect::<Vec<_>>();
    let files = [
        ("system.squashfs", noise(3_000_000)),
        (
            "sbom.spdx.json",
            br#"{"spdxVersion":"SPDX-2.3","packages":[{"name":"busybox"}],"relationships":[]}"#.to_vec(),
        ),
        ("boot/vmlinuz", noise(500_000)),
        ("boot/overlays/one.dtbo", noise(100)),
        ("licences/GPL-2.txt", b"text".to_vec()),
    ];
    for (name, bytes) in files {
        let path = folder.join(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("a writable folder");
        std::fs::write(path, bytes).expect("a writable file");
    }
    let about = About {
        board: board.into(),
        version: format!("0.1.{sequence}"),
        sequence,
        minimum: 50,
        source_date: 1_700_000_000,
        kernel: "6.1.0-40-arm64".into(),
        runtime: "0.1.0".into(),
        components: vec![Component { name: "busybox".into(), version: "1.35".into(), licence: "GPL-2.0".into() }],
        files: vec![],
    };
    SystemFolder::describe(folder, about).expect("a described folder");
}

fn verified(place: &Path, code: i32) -> Value {
    let ran = edge_flash!("verify", place, "--json");
    assert_eq!(ran.code, Some(code), "{}{}", ran.stdout, ran.stderr);
    ran.json().remove(0)
}

/// Changes a byte of a file or device.
fn flip(path: &Path, at: u64) {
    let file = OpenOptions::new().read(true).write(true).open(path).expect("a writable file");
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).expect("a byte");
    file.write_all_at(&[byte[0] ^ 0x20], at).expect("a changed byte");
}

/// A file of an image's FAT partition, by mtools.
fn mtools(program: &str, image: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(program);
    command.env("MTOOLS_SKIP_CHECK", "1").arg("-i").arg(format!("{}@@{BOOT}", image.display())).args(args);
    command.output().expect("mtools")
}

/// The state of one region of `verify --json`.
fn region(verdict: &Value, at: u64) -> &Value {
    let regions = verdict["regions"].as_array().expect("regions");
    regions.iter().find(|r| r["from"] == at).unwrap_or_else(|| panic!("no region at {at}: {verdict}"))
}

#[test]
fn the_same_input_gives_the_same_image_and_every_byte_is_covered() {
    let shop = Workshop::new();
    let config = shop.scratch.write("my.toml", "rate = 2\n");
    let config = config.to_str().unwrap();
    let one = shop.image("one.img", &["--config", config, "--hostname", "camera-7"]);
    // FAT counts in two seconds, ext4 and everything else in less.
    std::thread::sleep(std::time::Duration::from_millis(2100));
    // By a user with other habits.
    let other = shop.path("other.img");
    let made = Command::new("sh")
        .args(["-c", "umask 077; exec \"$@\"", "sh"])
        .arg(program("edge-flash"))
        .args(["image", "--board", "virt", "--package"])
        .arg(&shop.scratch.package)
        .args(["--config", config, "--hostname", "camera-7", "--system"])
        .arg(&shop.system)
        .arg("-o")
        .arg(&other)
        .env("TZ", "Asia/Tokyo")
        .env("SOURCE_DATE_EPOCH", "5")
        .env("LC_ALL", "tr_TR.UTF-8")
        .output();
    Ran::from(made.unwrap()).ok();
    let same = Command::new("cmp").arg(&one).arg(&other).output().unwrap();
    assert!(same.status.success(), "{}", String::from_utf8_lossy(&same.stdout));
    let metadata = std::fs::metadata(&one).unwrap();
    assert_eq!(metadata.len(), END);
    assert!(metadata.blocks() * 512 < 64 * MIB, "{} bytes are stored", metadata.blocks() * 512);
    let left: Vec<_> = std::fs::read_dir(shop.path("")).unwrap().flatten().map(|e| e.file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().starts_with(".edge-flash")), "{left:?}");

    let verdict = verified(&one, 0);
    assert_eq!((&verdict["ok"], &verdict["fresh"]), (&true.into(), &true.into()));
    assert_eq!(verdict["packages"][0]["state"], "good");
    // Nothing is left out: wherever a byte changes, it is told.
    let gap = 3 * MIB;
    for at in
        [300, gap, 4 * MIB + 20, BOOT + 9, SYSTEM_A + 1000, SYSTEM_B + 1000, SYSTEM_A + 90 * MIB, SYSTEM_B - 40_000]
    {
        flip(&one, at);
        let ran = edge_flash!("verify", one, "--json");
        let told = ran.stdout.contains("\"fresh\":false") || ran.code == Some(1);
        assert!(told, "a changed byte at {at} is not told of: {}{}", ran.stdout, ran.stderr);
        flip(&one, at);
    }
    verified(&one, 0);

    // What is on it for people.
    let listing = String::from_utf8(mtools("mdir", &one, &["-/", "-b", "::"]).stdout).unwrap();
    for file in [
        "vmlinuz",
        "overlays/one.dtbo",
        "camera.toml",
        "hostname",
        "README.txt",
        "sbom.spdx.json",
        "licences/GPL-2.txt",
    ] {
        assert!(listing.contains(&format!("::/{file}")), "{file}: {listing}");
    }
    assert!(!listing.contains("trusted.pub"));
    let text = String::from_utf8(mtools("mtype", &one, &["::camera.toml"]).stdout).unwrap();
    assert!(text.starts_with("rate = 2\n") && text.contains("log-total"), "{text}");
    let list: Value = serde_json::from_slice(&std::fs::read(shop.path("one.img.spdx.json")).unwrap()).unwrap();
    let names: Vec<_> = list["packages"].as_array().unwrap().iter().map(|p| p["name"].as_str().unwrap()).collect();
    assert_eq!(names[0], "busybox");
    assert_eq!(names.len(), 2);
    assert_eq!(
        mtools("mtype", &one, &["::sbom.spdx.json"]).stdout,
        std::fs::read(shop.path("one.img.spdx.json")).unwrap()
    );
}

#[test]
fn what_an_image_cannot_be_made_of_is_named_and_the_old_image_stays() {
    let shop = Workshop::new();
    let image = shop.scratch.write("sd.img", "the old one");
    let old = |ran: Ran, what: &[&str]| {
        ran.fails(1, what);
        assert_eq!(std::fs::read(&image).unwrap(), b"the old one");
    };
    let of = |args: &[&str]| {
        let package = shop.scratch.package.to_str().unwrap();
        let system = shop.system.to_str().unwrap();
        let words = ["image", "--package", package, "--system", system, "-o", image.to_str().unwrap()];
        run("edge-flash", words.iter().chain(args))
    };
    old(of(&["--board", "rpi5"]), &["no image for rpi5", "no support for this board", "edge-flash install"]);
    old(of(&["--board", "rpi9"]), &["no board \"rpi9\"", "rpi4", "virt"]);
    old(of(&["--board", "rpi4"]), &["holds the system of board virt, not of rpi4"]);
    let try_with = |more: &[&str]| shop.try_image(&image, more);
    old(try_with(&["--config", "/no/such.toml"]), &["/no/such.toml"]);
    let bad = shop.scratch.write("bad.toml", "slots = \"/x\"\n");
    old(try_with(&["--config", bad.to_str().unwrap()]), &["bad.toml", "`slots`", "data partition"]);
    // The runtime's own reader, which lies beside edge-flash, has its say.
    let bad = shop.scratch.write("bad.toml", "thresold = 0.5\n");
    old(try_with(&["--config", bad.to_str().unwrap()]), &["bad.toml", "thresold", "did you mean"]);
    let (_, public) = shop.keys("mine");
    old(try_with(&["--trusted-key", public.to_str().unwrap()]), &["not signed", "trusted key"]);
    edge_flash!("image", "--board", "virt", "--package", shop.scratch.package, "-o", image, "--hostname", "Not A Name")
        .fails(2, &["a host's name"]);
    let empty = shop.path("empty");
    std::fs::create_dir_all(&empty).unwrap();
    let ran =
        edge_flash!("image", "--board", "virt", "--package", shop.scratch.package, "--system", empty, "-o", image);
    old(ran, &["cargo xtask cross --board virt"]);
    flip(&shop.system.join("boot/vmlinuz"), 77);
    old(try_with(&[]), &["boot/vmlinuz", "not what it was"]);
    make_system(&shop.system, "virt", 100);
    let other = shop.package("other.edgepack", "7", &["--board", "rpi3"]);
    let ran = edge_flash!("image", "--board", "virt", "--package", other, "--system", shop.system, "-o", image);
    old(ran, &["other.edgepack", "rpi3", "virt"]);
    // A package of which a byte is another is none.
    flip(&shop.scratch.package, 5000);
    old(try_with(&[]), &["model.edgepack", "damaged"]);
    // And without a program that is needed, its package is named.
    let shop = Workshop::new();
    let ran: Ran = Command::new(program("edge-flash"))
        .env("PATH", "/nonexistent")
        .args(["image", "--board", "virt", "--package"])
        .arg(&shop.scratch.package)
        .arg("--system")
        .arg(&shop.system)
        .arg("-o")
        .arg(shop.path("x.img"))
        .output()
        .unwrap()
        .into();
    ran.fails(1, &["mcopy", "sudo apt install"]);
    assert!(!shop.path("x.img").exists());
}

#[test]
fn a_log_is_read_off_an_image_with_the_oldest_line_first() {
    let shop = Workshop::new();
    let image = shop.image("sd.img", &[]);
    edge_flash!("log", image).fails(1, &["no log yet"]);
    edge_flash!("log", image, "--boot").fails(1, &["no log yet"]);
    for (name, text) in [
        ("class.jsonl.10", "{\"n\":1}\n"),
        ("class.jsonl.2", "{\"n\":2}\n{\"n\":3}\n"),
        ("class.jsonl.1", "{\"n\":4}\n"),
        ("class.jsonl", "{\"n\":5}\n{\"n\":"),
        ("class.jsonl.lock", "nothing of the log"),
        ("boot.log", "edge-init: slot a of the system (0.1.100)\n"),
    ] {
        put(&shop, &image, name, text);
    }
    let log = edge_flash!("log", image).ok();
    let numbers: Vec<_> = log.json().iter().map(|line| line["n"].as_u64().unwrap()).collect();
    assert_eq!(numbers, [1, 2, 3, 4, 5]);
    assert!(log.stderr.contains("5 bytes of a line that has no end"), "{}", log.stderr);
    assert_eq!(edge_flash!("log", image, "--boot").ok().stdout, "edge-init: slot a of the system (0.1.100)\n");
    // A card in use: everything but the data partition is covered, and its package is verified on its own.
    let verdict = verified(&image, 0);
    assert_eq!((&verdict["fresh"], &region(&verdict, DATA)["state"]), (&false.into(), &"not covered".into()));
    assert_eq!(verdict["packages"][0]["state"], "good");
    let told = edge_flash!("verify", image).ok().stdout;
    assert!(told.contains("in use: not covered by the list") && told.contains("every byte as packaged"), "{told}");
}

/// Writes a file to the log folder of an image, as a device would.
fn put(shop: &Workshop, image: &Path, name: &str, text: &str) {
    let file = shop.scratch.write("put", text);
    let run = format!("write {} /log/{name}", file.display());
    let target = format!("{}?offset={DATA}", image.display());
    let output = Command::new("debugfs").args(["-w", "-R", &run, &target]).output().expect("debugfs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.lines().count() == 1, "{said}");
}

#[test]
fn settings_may_be_edited_and_nothing_else() {
    let shop = Workshop::new();
    let image = shop.image("sd.img", &["--hostname", "a"]);
    let edited = shop.scratch.write("camera.toml", "rate = 5\n");
    let copied = mtools("mcopy", &image, &["-o", edited.to_str().unwrap(), "::camera.toml"]);
    assert!(copied.status.success(), "{}", String::from_utf8_lossy(&copied.stderr));
    let verdict = verified(&image, 0);
    assert_eq!((&verdict["ok"], &verdict["fresh"]), (&true.into(), &false.into()));
    assert_eq!(verdict["files"][0]["path"], "camera.toml");
    assert!(edge_flash!("verify", image).ok().stdout.contains("camera.toml: edited, as it may be"));
    let kernel = shop.scratch.write("vmlinuz", "another kernel");
    assert!(mtools("mcopy", &image, &["-o", kernel.to_str().unwrap(), "::vmlinuz"]).status.success());
    let verdict = verified(&image, 1);
    assert_eq!(verdict["ok"], false);
    let ran = edge_flash!("verify", image).fails(1, &["do not trust it"]);
    assert!(ran.stdout.contains("vmlinuz: DIFFERS"), "{}", ran.stdout);
}

#[test]
fn a_damaged_package_on_a_card_is_found() {
    let shop = Workshop::new();
    let image = shop.image("sd.img", &[]);
    let package = std::fs::read(&shop.scratch.package).unwrap();
    // Blocks of the file system are where the package's own bytes are.
    let needle = &package[4096..4096 + 512];
    let mut file = File::open(&image).unwrap();
    let mut data = vec![0; 64 * MIB as usize];
    file.seek(SeekFrom::Start(DATA)).unwrap();
    file.read_exact(&mut data).unwrap();
    let at = data.chunks(4096).position(|block| block.starts_with(needle)).expect("the package on the disk");
    flip(&image, DATA + at as u64 * 4096 + 5);
    let verdict = verified(&image, 1);
    assert_eq!(verdict["packages"][0]["state"], "refused");
    let ran = edge_flash!("verify", image).fails(1, &["do not trust it"]);
    assert!(ran.stdout.contains("package slot a: REFUSED"), "{}", ran.stdout);
}

#[test]
fn what_is_no_image_is_refused_in_words() {
    let shop = Workshop::new();
    for bytes in [
        vec![],
        vec![0; 100],
        vec![0; 4096],
        b"edge-flash: this card was not written to its end; write it again\n".to_vec(),
    ] {
        let file = shop.scratch.write("x.img", &bytes);
        for verb in ["verify", "log"] {
            let ran = edge_flash!(verb, file);
            ran.fails(1, &["x.img"]);
        }
    }
    edge_flash!("verify", "/no/such/thing").fails(1, &["/no/such/thing", "USER@HOST"]);
    edge_flash!("verify", "pi@camera").fails(1, &["cannot vouch for itself"]);
    edge_flash!("log", "/dev").fails(1, &["neither an image file nor a block device"]);
    edge_flash!("write", shop.scratch.package, "/dev/null").fails(1, &["not the partition table"]);
    edge_flash!("list").ok();
    for line in edge_flash!("list", "--json").ok().json() {
        assert!(line["device"].as_str().unwrap().starts_with("/dev/") && line["bytes"].as_u64().unwrap() > 0);
    }
}

#[test]
fn a_full_disk_is_told_and_leaves_nothing_behind() {
    let shop = Workshop::new();
    let folder = shop.path("full");
    std::fs::create_dir_all(&folder).unwrap();
    let (program, folder) = (program("edge-flash"), folder.as_os_str());
    let script = r#"mount -t tmpfs -o size=8m none "$1" && "$2" image --board virt --package "$3" --system "$4" -o "$1/sd.img"
        code=$?; ls -A "$1"; exit $code"#;
    let args = [folder, program.as_os_str(), shop.scratch.package.as_os_str(), shop.system.as_os_str()];
    let Some(ran) = with_mounts(script, args) else { return };
    let ran = ran.fails(1, &["sd.img was not made", "No space left on device"]);
    assert_eq!(ran.stdout, "");
}

#[test]
fn an_interrupted_image_leaves_nothing_behind() {
    let shop = Workshop::new();
    let folder = shop.path("out");
    std::fs::create_dir_all(&folder).unwrap();
    let mut child = Command::new(program("edge-flash"))
        .args(["image", "--board", "virt", "--package"])
        .arg(&shop.scratch.package)
        .arg("--system")
        .arg(&shop.system)
        .arg("-o")
        .arg(folder.join("sd.img"))
        .spawn()
        .unwrap();
    let left = || std::fs::read_dir(&folder).unwrap().flatten().collect::<Vec<_>>();
    while !left().iter().any(|entry| entry.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.len() == END))
    {
        assert!(child.try_wait().unwrap().is_none(), "it ended before it was seen to begin");
        std::thread::yield_now();
    }
    assert!(Command::new("kill").arg(child.id().to_string()).status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(128 + 15));
    assert!(left().is_empty(), "{:?}", left());
}
