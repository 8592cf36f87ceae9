//! Packages and systems on images, and whose.

use super::*;

#[test]
fn signatures_decide_whose_updates_an_image_takes() {
    let shop = Workshop::new();
    let (mine, public) = shop.keys("mine");
    let (theirs, their_public) = shop.keys("theirs");
    let (mine, public) = (mine.to_str().unwrap(), public.to_str().unwrap());
    let signed = shop.package("signed.edgepack", "7", &["--sign", mine]);
    let image = shop.path("sd.img");
    let made = edge_flash!(
        "image",
        "--board",
        "virt",
        "--package",
        signed,
        "--system",
        shop.system,
        "-o",
        image,
        "--trusted-key",
        public,
        "--sign",
        mine
    );
    let told = made.ok().stdout;
    assert!(told.contains("only those signed by") && told.contains("signed by the trusted key"), "{told}");
    let verdict = verified(&image, 0);
    assert_eq!((&verdict["accepts_unsigned"], &verdict["fresh"]), (&false.into(), &true.into()));
    edge_flash!("verify", image, "--trusted-key", public).ok();
    edge_flash!("verify", image, "--trusted-key", their_public).fails(1, &["not among the trusted keys"]);
    assert!(String::from_utf8(mtools("mtype", &image, &["::trusted.pub"]).stdout).unwrap().contains("public-key"));

    let before = std::fs::metadata(&image).unwrap().ino();
    let refused = |update: &Path, what: &[&str]| {
        edge_flash!("update", update, "--device", image).fails(1, what);
        assert_eq!(std::fs::metadata(&image).unwrap().ino(), before);
    };
    refused(&shop.package("a.edgepack", "8", &[]), &["a.edgepack", "not signed"]);
    refused(&shop.package("b.edgepack", "8", &["--sign", theirs.to_str().unwrap()]), &["not among the trusted keys"]);
    refused(&shop.package("c.edgepack", "7", &["--sign", mine]), &["sequence number is 7", "never goes back"]);
    refused(&shop.package("d.edgepack", "8", &["--sign", mine, "--board", "rpi3"]), &["rpi3", "virt"]);
    refused(&shop.bundle("a.edgesys", 101, &[]), &["not signed"]);
    refused(&shop.bundle("b.edgesys", 100, &["--sign", mine]), &["sequence number is 100"]);
    refused(&shop.bundle("c.edgesys", 101, &["--sign", mine, "--minimum", "101"]), &["101", "100"]);
    verified(&image, 0);

    let next = shop.package("next.edgepack", "8", &["--sign", mine]);
    let told = edge_flash!("update", next, "--device", image, "--json").ok().json().remove(0);
    assert_eq!((&told["slot"], &told["sequence"]), (&"b".into(), &8.into()));
    let verdict = verified(&image, 0);
    assert_eq!(verdict["packages"][1]["sequence"], 8);
    assert_eq!(verdict["packages"][0]["sequence"], 7);
}

#[test]
fn an_unsigned_image_says_so_and_takes_packages_and_systems() {
    let shop = Workshop::new();
    let image = shop.path("sd.img");
    let told = shop.try_image(&image, &[]).ok().stdout;
    assert!(told.contains("accepted unsigned") && told.contains("not signed; --sign KEY"), "{told}");
    assert!(edge_flash!("verify", image).ok().stdout.contains("accepted unsigned"));
    let next = shop.package("next.edgepack", "99999999999", &[]);
    let told = edge_flash!("update", next, "--device", image).ok().stdout;
    assert!(told.contains("in slot b, on trial"), "{told}");
    let system = shop.bundle("v2.edgesys", 101, &[]);
    let told = edge_flash!("update", system, "--device", image, "--json").ok().json().remove(0);
    assert_eq!((&told["slot"], &told["system"]), (&"b".into(), &"0.1.101".into()));
    let verdict = verified(&image, 0);
    assert_eq!((&verdict["system_slot"], &verdict["system_trial"]), (&"a".into(), &"b".into()));
    assert_eq!(region(&verdict, SYSTEM_B)["state"], "changed");
    assert_eq!(region(&verdict, SYSTEM_A)["state"], "same");
    assert!(std::fs::metadata(&image).unwrap().blocks() * 512 < 64 * MIB);
    // A flipped byte of what was put there is found.
    flip(&image, SYSTEM_B + 100_000);
    assert_eq!(region(&verified(&image, 1), SYSTEM_B)["state"], "differs");
    flip(&image, SYSTEM_B + 100_000);
    let junk = shop.scratch.write("junk", "nothing of ours");
    edge_flash!("update", junk, "--device", image).fails(1, &["junk", "neither a package"]);
    edge_flash!("update", next, "--device", junk).fails(1, &["junk", "was not put on"]);
    edge_flash!("update", system, "--device", "pi@nowhere").fails(1, &["system of a flashed card"]);
}
