//! `edge-pack doctor` on images.

use super::*;

fn doctor(image: &Path) -> (Option<i32>, Value) {
    doctor_on(image, &[])
}

fn doctor_on(image: &Path, more: &[&str]) -> (Option<i32>, Value) {
    let args = ["doctor", "--json"].iter().chain(more).map(Path::new).chain([image]);
    let ran = run("edge-pack", args);
    assert!(!ran.stderr.contains("panicked"), "{}", ran.stderr);
    let value = ran.json().remove(0);
    (ran.code, value)
}

fn whats(value: &Value, code: &str) -> Vec<String> {
    let all = value["findings"].as_array().unwrap().iter().filter(|f| f["code"] == code);
    all.map(|f| format!("{} {}", f["severity"].as_str().unwrap(), f["what"].as_str().unwrap())).collect()
}

#[test]
fn the_doctor_looks_into_an_image() {
    let shop = Workshop::new();
    let image = shop.image("card", &[]);
    let (code, value) = doctor(&image);
    assert_eq!((code, &value["kind"], &value["ok"]), (Some(0), &"image".into(), &true.into()), "{value}");
    assert_eq!((&value["boards"][0]["board"], &value["network"]["precision"]), (&"virt".into(), &"float".into()));
    assert!(whats(&value, "card")[0].starts_with("note a card of at least"), "{value}");

    // Another board does not start from it.
    let (code, value) = doctor_on(&image, &["--board", "virt", "--board", "rpi4"]);
    assert_eq!((code, whats(&value, "board")), (Some(1), vec!["error the image is for virt, not for rpi4".to_owned()]));

    // One byte of what starts.
    let kernel = OpenOptions::new().read(true).write(true).open(&image).unwrap();
    kernel.write_all_at(b"x", SYSTEM_A + 1_000_000).unwrap();
    let (code, value) = doctor(&image);
    assert_eq!(code, Some(1));
    assert!(whats(&value, "image").iter().any(|w| w.starts_with("error system slot a differs")), "{value}");

    // A card that was not written to its end.
    std::fs::write(shop.path("cut"), unfinished()).unwrap();
    let (code, value) = doctor(&shop.path("cut"));
    assert_eq!(code, Some(1));
    assert!(whats(&value, "image")[0].contains("not written to its end"), "{value}");
}

/// What an interrupted writing leaves, and some of a card.
fn unfinished() -> Vec<u8> {
    let mut bytes = b"edge-flash: this card was not written to its end; write it again\n".to_vec();
    bytes.resize(1 << 20, 0);
    bytes
}
