//! Systems that are updated over a camera's link: by the init that watches over it, on the disk that it was started from.

use super::*;
use edge_link::{Address, Client, Power, Request, Response};
use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(120);

/// `edge-init supervise` with the real camera program, as it would be process 1 of this image.
struct Card {
    init: Running,
    address: Address,
}

impl Card {
    fn start(shop: &Workshop, image: &Path) -> Card {
        let slots = shop.path("packages");
        let package = shop.package("first.edgepack", "1", &[]);
        edge_camera!("--slots", slots, "--install", package).ok();
        let address = Address::Unix(shop.path("link"));
        let mut init = Command::new(program("edge-init"));
        init.arg("supervise").arg("--camera").arg(program("edge-camera")).arg("--slots").arg(&slots);
        init.arg("--log").arg(shop.path("class.jsonl")).arg("--run").arg(shop.path("")).arg("--control");
        init.arg("--disk").arg(image).args(["--slot", "a", "--kept"]);
        init.args(["--", "--source", "pattern", "--rate", "5", "--link-control", "--link", &address.to_string()]);
        // What it says is read, so that it can say it.
        let mut child = init.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let said = BufReader::new(child.stderr.take().unwrap());
        std::thread::spawn(move || said.lines().map_while(Result::ok).for_each(|line| println!("{line}")));
        Card { init: Running(child), address }
    }

    fn update(&self, bundle: &Path, more: &[&str]) -> Ran {
        let device = self.address.to_string();
        run(
            "edge-flash",
            ["update", bundle.to_str().unwrap(), "--device", &device].into_iter().chain(more.iter().copied()),
        )
    }
}

#[test]
fn a_system_is_updated_over_the_link_and_started_anew() {
    let shop = Workshop::new();
    let (mine, public) = shop.keys("mine");
    let mine = mine.to_str().unwrap();
    let package = shop.package("signed.edgepack", "7", &["--sign", mine]);
    let image = shop.path("sd.img");
    let words = ["image", "--board", "virt", "--package"].map(PathBuf::from);
    let given = [package, "--system".into(), shop.system.clone(), "-o".into(), image.clone()];
    let keys = ["--trusted-key".into(), public, "--sign".into(), mine.into()];
    run("edge-flash", words.into_iter().chain(given).chain(keys)).ok();
    let mut card = Card::start(&shop, &image);
    let mut client = Client::connect(&card.address, PATIENCE).unwrap();

    // Whose it is, and whether it is newer, is for the card to say; nothing is written then.
    let before = verified(&image, 0);
    card.update(&shop.bundle("a.edgesys", 101, &[]), &[]).fails(1, &["the camera refuses: ", "not signed"]);
    card.update(&shop.bundle("b.edgesys", 100, &["--sign", mine]), &[]).fails(1, &["sequence number is 100"]);
    assert_eq!(verified(&image, 0), before);
    // The clock is process 1's to set, which this is not.
    let why = client.ask(&Request::SetTime { unix_ns: 1 }, PATIENCE).unwrap_err().to_string();
    assert!(why.contains("only the first process sets the clock"), "{why}");

    let good = shop.bundle("c.edgesys", 101, &["--sign", mine]);
    let said = card.update(&good, &["--restart"]).ok().stdout;
    assert!(
        said.contains("slot b has system 0.1.101, on trial from the next start on; the device starts anew"),
        "{said}"
    );
    // It ends in order, for whoever starts it again.
    assert_eq!(card.init.0.wait().unwrap().code(), Some(0));
    let after = verified(&image, 0);
    assert!(after["ok"] == true && after["fresh"] == false, "{after}");
    let trial = after.to_string();
    assert!(trial.contains("0.1.101"), "{trial}");
}

#[test]
fn a_camera_is_switched_off_through_its_link() {
    let shop = Workshop::new();
    let image = shop.image("sd.img", &[]);
    let mut card = Card::start(&shop, &image);
    let mut client = Client::connect(&card.address, PATIENCE).unwrap();
    assert_eq!(
        client.ask(&Request::Power(Power::Off), PATIENCE).unwrap(),
        Response::Done("the device is switched off".into())
    );
    assert_eq!(card.init.0.wait().unwrap().code(), Some(0));
}

#[test]
fn the_key_of_a_link_is_on_the_boot_partition() {
    let shop = Workshop::new();
    let key = shop.path("my.key");
    edge_flash!("link-key", key).ok();
    let config = shop.scratch.write("my.toml", "link = \"tcp:0.0.0.0:7070,key=link.key\"\nlink-control = true\n");
    let (config, given) = (config.to_str().unwrap(), key.to_str().unwrap());
    let image = shop.path("sd.img");
    let told = shop.try_image(&image, &["--config", config, "--link-key", given]).ok().stdout;
    assert!(told.contains("its key is in the image"), "{told}");
    let text = String::from_utf8(mtools("mtype", &image, &["::link.key"]).stdout).unwrap();
    assert_eq!(text, std::fs::read_to_string(&key).unwrap());
    verified(&image, 0);
    shop.try_image(&image, &["--config", config]).fails(1, &["edge-flash link-key", "--link-key"]);
    shop.try_image(&image, &["--link-key", given]).fails(1, &["--link-key is for a link over TCP"]);
}
