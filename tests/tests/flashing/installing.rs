//! Packages for systems that stay.

use super::*;

#[test]
fn a_deb_is_built_the_same_each_time_and_holds_what_it_should() {
    let shop = Workshop::new();
    let arch = if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" };
    let programs = shop.path("programs");
    std::fs::create_dir_all(&programs).unwrap();
    // A smaller program of this machine stands in where its C library is old enough, and shows the refusal where not.
    std::fs::copy(program("edge-flash"), programs.join("edge-camera")).unwrap();
    let build = |folder: &str| -> Ran {
        Command::new(program("edge-flash"))
            .env("SOURCE_DATE_EPOCH", "1700000000")
            .args(["install", "--deb-only", "--json", "--arch", arch, "--programs"])
            .arg(&programs)
            .arg("-o")
            .arg(shop.path(folder))
            .output()
            .unwrap()
            .into()
    };
    let symbols = Command::new("objdump").arg("-T").arg(programs.join("edge-camera")).output();
    let symbols = String::from_utf8(symbols.expect("objdump").stdout).unwrap();
    let newest = symbols
        .split("GLIBC_2.")
        .skip(1)
        .filter_map(|s| s.split(|c: char| !c.is_ascii_digit()).next().and_then(|n| n.parse::<u32>().ok()));
    if newest.max().expect("symbols of the C library") > 35 {
        build("one").fails(1, &["edge-camera", "GLIBC_2.", "JetPack 6"]);
        assert!(!shop.path("one").exists() || std::fs::read_dir(shop.path("one")).unwrap().count() == 0);
        return;
    }
    let told = build("one").ok().json().remove(0);
    let deb = PathBuf::from(told["path"].as_str().unwrap());
    assert_eq!(deb.file_name().unwrap().to_str().unwrap(), format!("edge-camera_0.1.0_{arch}.deb"));
    std::thread::sleep(std::time::Duration::from_millis(1100));
    build("other").ok();
    assert!(std::fs::read(&deb).unwrap() == std::fs::read(shop.path("other").join(deb.file_name().unwrap())).unwrap());
    let shown = |args: &[&str]| {
        let output = Command::new("dpkg-deb").args(args).arg(&deb).output().expect("dpkg-deb");
        String::from_utf8(output.stdout).unwrap()
    };
    let fields = shown(&["--field"]);
    assert!(fields.contains(&format!("Architecture: {arch}")) && fields.contains("libc6 (>= 2.35)"), "{fields}");
    assert!(!fields.contains('{'), "{fields}");
    let content = shown(&["--contents"]);
    assert!(content.contains("-rwxr-xr-x root/root") && content.contains("./usr/bin/edge-camera"), "{content}");
    assert!(content.contains("2023-11-14") && !content.contains("20260"), "{content}");
}

#[test]
fn what_cannot_be_installed_is_named() {
    let shop = Workshop::new();
    let out = shop.path("debs");
    let programs = shop.path("programs");
    edge_flash!("install", "--deb-only", "-o", out, "--programs", programs)
        .fails(1, &["edge-camera", "cargo xtask cross"]);
    edge_flash!("install", "--deb-only", "-o", out, "--board", "virt")
        .fails(1, &["no vendor's system", "edge-flash image"]);
    edge_flash!("install", "--deb-only", "-o", out, "--board", "rpi5", "--arch", "amd64")
        .fails(1, &["arm64, not amd64"]);
    std::fs::create_dir_all(&programs).unwrap();
    std::fs::write(programs.join("edge-camera"), "#!/bin/sh\n").unwrap();
    edge_flash!("install", "--deb-only", "-o", out, "--programs", programs).fails(1, &["no program of a 64-bit Linux"]);
    // jetson-nano gets the static program, so that is what is missing.
    edge_flash!("install", "--deb-only", "-o", out, "--programs", programs, "--board", "jetson-nano")
        .fails(1, &["edge-camera-static"]);
    edge_flash!("install", "--deb-only", "pi@host", "-o", out).fails(2, &["cannot be used with"]);
    edge_flash!("install").fails(2, &["USER@HOST"]);
    edge_flash!("install", "nobody").fails(2, &["USER@HOST is needed"]);
}
