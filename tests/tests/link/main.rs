//! A host that talks to a running camera, over every way there is.

mod updates;
mod ways;

use edge_link::{Address, Classified, Client, LinkError, PictureData, Power, RawFrame, Request, Response, Stream};
use edge_suite::*;
use edge_vision::PixelFormat;
use serde_json::Value;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(60);

/// A camera that logs into the scratch folder and is reached through a socket there.
struct Linked {
    running: Running,
    address: Address,
}

impl Linked {
    fn start(scratch: &Scratch, more: &[&str]) -> Linked {
        let package = scratch.package.to_str().unwrap();
        let words = ["--source", "pattern", "--rate", "20", "--package", package];
        Linked::with(scratch, &[&words, more].concat())
    }

    fn with(scratch: &Scratch, words: &[&str]) -> Linked {
        let (socket, log) = (scratch.path("link"), scratch.path("log.jsonl"));
        let address = Address::Unix(socket);
        let mut command = camera();
        command.args(words).arg("--link").arg(address.to_string()).arg("--log").arg(&log);
        Linked { running: Running::start(&mut command), address }
    }

    fn connect(&self) -> Client {
        Client::connect(&self.address, PATIENCE).unwrap()
    }
}

fn statistics(client: &mut Client) -> Value {
    match client.ask(&Request::Statistics, PATIENCE).unwrap() {
        Response::Statistics(text) => serde_json::from_str(&text).unwrap(),
        other => panic!("{other:?}"),
    }
}

fn classified(client: &mut Client, request: Request) -> Classified {
    match client.ask(&request, PATIENCE).unwrap() {
        Response::Classified(classified) => classified,
        other => panic!("{other:?}"),
    }
}

fn refused(client: &mut Client, request: Request) -> String {
    match client.ask(&request, PATIENCE) {
        Err(LinkError::Refused(why)) => why,
        other => panic!("{other:?}"),
    }
}

/// The whole of the log, part by part.
fn log(client: &mut Client) -> Vec<Value> {
    let mut text = vec![];
    loop {
        let request = Request::Log { file: 0, from: text.len() as i64, length: 1000 };
        match client.ask(&request, PATIENCE).unwrap() {
            Response::Log { bytes, .. } if bytes.is_empty() => break,
            Response::Log { bytes, .. } => text.extend(bytes),
            other => panic!("{other:?}"),
        }
    }
    let whole = text.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
    let lines = std::str::from_utf8(&text[..whole]).unwrap().lines();
    lines.map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn example(name: &str) -> PictureData {
    PictureData::File(std::fs::read(examples().join(name)).unwrap())
}

#[test]
fn a_host_asks_what_there_is_to_know() {
    let scratch = Scratch::small();
    let camera = Linked::start(&scratch, &[]);
    let mut client = camera.connect();
    let hello = client.hello().unwrap().clone();
    assert_eq!((hello.backend.as_str(), hello.control), ("cpu", false));
    assert!(hello.source.contains("synthetic pattern 640x480") && hello.about.contains("golden sample"), "{hello:?}");
    wait_until("there are frames", || statistics(&mut client)["frames"].as_u64() > Some(5));
    let figures = statistics(&mut client);
    assert!(figures["rss_kib"].as_u64() > Some(1000) && figures["uptime_s"].as_f64() > Some(0.0), "{figures}");
    assert!(figures["latency_ms"]["total"]["p50"].as_f64() > Some(0.0) && figures["fps"].as_f64() > Some(0.0));
    assert!(figures["boot_to_first_class_s"].as_f64() > Some(0.0) && figures["dropped"] == 0, "{figures}");
    assert!(figures.as_object().unwrap().contains_key("temperature_c"));
    // The frame as the source gave it, which anybody can make again.
    let Response::LastFrame(Some(PictureData::Raw(frame))) = client.ask(&Request::LastFrame, PATIENCE).unwrap() else {
        panic!("no frame")
    };
    assert_eq!((frame.format, frame.width, frame.height), (PixelFormat::Rgb3, 640, 480));
    assert!(frame.bytes == edge_vision::synthetic(frame.number, 640, 480).pixels());
    // What it was classified as stands in the log, and is what it is classified as again.
    wait_until("it is logged", || log(&mut client).iter().any(|line| line["frame"] == frame.number));
    let lines = log(&mut client);
    let line = lines.iter().find(|line| line["frame"] == frame.number).unwrap();
    let again = classified(&mut client, Request::Classify(PictureData::Raw(frame)));
    assert_eq!(
        (line["decision"].as_str(), line["class"].as_u64()),
        (Some(&*again.decision), again.class.map(u64::from))
    );
    let Response::Goldens(goldens) = client.ask(&Request::Goldens, PATIENCE).unwrap() else { panic!() };
    assert!(!goldens.is_empty() && goldens.iter().all(|golden| golden.failure.is_none()), "{goldens:?}");
    // No more than what is known is told, and no question of a host appears in the log.
    assert!(log(&mut client).iter().all(|line| line["source"] != "link"));
    camera.running.signal("TERM");
    camera.running.end().ok();
}

/// The same picture gives the same numbers here and there, and a frame that is put in is a frame of the log.
#[test]
fn pictures_of_a_host_are_classified_as_frames_are() {
    let scratch = Scratch::of(&default_model());
    let package = scratch.package.to_str().unwrap();
    let camera =
        Linked::with(&scratch, &["--source", "pattern:64x64", "--rate", "2", "--package", package, "--link-control"]);
    let mut client = camera.connect();
    for name in ["chelsea.jpg", "coffee.jpg", "rocket.jpg"] {
        let local = edge_pack!("run", scratch.package, examples().join(name), "--json").ok().json();
        let beside = classified(&mut client, Request::Classify(example(name)));
        let put_in = classified(&mut client, Request::Inject(example(name)));
        assert_eq!(
            (&put_in.tensor, &put_in.logits, &put_in.decision),
            (&beside.tensor, &beside.logits, &beside.decision)
        );
        assert_eq!(local[0]["decision"], beside.decision);
        let logits: Vec<f32> = serde_json::from_value(local[0]["logits"].clone()).unwrap();
        let most = logits.iter().zip(&beside.logits).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(logits.len() == 1000 && most < 1e-4, "{name}: {most}");
    }
    let lines = log(&mut client);
    let ours: Vec<&Value> = lines.iter().filter(|line| line["source"] == "link").collect();
    assert_eq!(ours.len(), 3, "{lines:?}");
    let decided: Vec<&str> = ours.iter().filter_map(|line| line["decision"].as_str()).collect();
    assert_eq!(decided, ["Egyptian cat", "espresso", "missile"]);
    let numbers: Vec<u64> = lines.iter().filter_map(|line| line["frame"].as_u64()).collect();
    assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]), "{numbers:?}");
    assert_eq!(statistics(&mut client)["dropped"], 0);
    // What cannot be read is said, of either kind.
    let broken = PictureData::File(b"no picture".to_vec());
    assert!(!refused(&mut client, Request::Classify(broken.clone())).is_empty());
    assert!(!refused(&mut client, Request::Inject(broken)).is_empty());
    let short = RawFrame {
        number: 0,
        format: PixelFormat::Yuyv,
        width: 8000,
        height: 8000,
        stride: None,
        color: Default::default(),
        bytes: vec![1; 10],
    };
    assert!(!refused(&mut client, Request::Classify(PictureData::Raw(short))).is_empty());
    wait_until("frames go on", || log(&mut client).last().is_some_and(|line| line["source"] == "pattern"));
}

/// A camera that waits for its own camera is asked what is the matter, and classifies what it is given.
#[test]
fn without_its_camera_it_answers_too() {
    let scratch = Scratch::small();
    let package = scratch.package.to_str().unwrap();
    let camera = Linked::with(&scratch, &["--source", "v4l2:/dev/video97", "--package", package, "--link-control"]);
    let mut client = camera.connect();
    assert_eq!(client.ask(&Request::LastFrame, PATIENCE).unwrap(), Response::LastFrame(None));
    assert_eq!(statistics(&mut client)["boot_to_first_class_s"], Value::Null);
    wait_until("it is logged", || !notices(&log(&mut client), "camera_lost").is_empty());
    classified(&mut client, Request::Inject(example("coffee.jpg")));
    let Response::LastFrame(Some(frame)) = client.ask(&Request::LastFrame, PATIENCE).unwrap() else { panic!() };
    assert_eq!(frame, example("coffee.jpg"));
    assert_eq!(log(&mut client).iter().filter(|line| line["source"] == "link").count(), 1);
}

#[test]
fn without_control_a_host_changes_nothing() {
    let scratch = Scratch::small();
    let camera = Linked::start(&scratch, &[]);
    let mut client = camera.connect();
    for request in [
        Request::Inject(example("coffee.jpg")),
        Request::SetTime { unix_ns: 0 },
        Request::SwitchSlot,
        Request::Power(Power::Reboot),
        Request::UpdateBegin { length: 1, digest: [0; 32] },
        Request::UpdateEnd,
    ] {
        let why = refused(&mut client, request);
        assert!(why.contains("--link-control"), "{why}");
    }
}

#[test]
fn what_is_the_systems_is_refused_where_the_system_does_not_listen() {
    let scratch = Scratch::small();
    let camera = Linked::start(&scratch, &["--link-control"]);
    let mut client = camera.connect();
    for (request, what) in [
        (Request::SetTime { unix_ns: 0 }, "setting the clock"),
        (Request::Power(Power::Reboot), "starting the device anew"),
        (Request::Power(Power::Off), "switching the device off"),
    ] {
        let why = refused(&mut client, request);
        assert!(why.starts_with(what) && why.contains("is for the system to do"), "{why}");
    }
    // One package alone has no other slot.
    assert!(refused(&mut client, Request::SwitchSlot).contains("`slots`"));
    assert!(refused(&mut client, Request::UpdateBegin { length: 1, digest: [0; 32] }).contains("`slots`"));
}

#[test]
fn hosts_that_are_slow_or_mean_keep_nobody_waiting() {
    let scratch = Scratch::small();
    let camera = Linked::start(&scratch, &["--link-control"]);
    let Address::Unix(path) = &camera.address else { unreachable!() };
    let mut client = camera.connect();
    wait_until("there are frames", || statistics(&mut client)["frames"].as_u64() > Some(3));
    let before = statistics(&mut client);
    // One that never ends its message, and one that asks for pictures and takes none; each as often as it can.
    let mut endless = UnixStream::connect(path).unwrap();
    let mut deaf = UnixStream::connect(path).unwrap();
    for stream in [&endless, &deaf] {
        stream.set_write_timeout(Some(Duration::from_millis(200))).unwrap();
    }
    let megabyte = [7; 1 << 20];
    for _ in 0..40 {
        endless.write_all(&megabyte).unwrap();
    }
    // Question 0, LastFrame, as its bytes are on the wire.
    let question = edge_link::encode(&[0, 3]);
    let asked = (0..100_000).take_while(|_| deaf.write_all(&question).is_ok()).count();
    assert!(asked > 0);
    // Frames go on, others are answered, and memory is bounded.
    let frames = before["frames"].as_u64().unwrap();
    wait_until("frames go on", || statistics(&mut client)["frames"].as_u64() > Some(frames + 20));
    let [old, new] = [&before, &statistics(&mut client)].map(|s| s["rss_kib"].as_u64().unwrap());
    assert!(new < old + (48 << 10), "{old} KiB before, {new} KiB now");
    // The endless one is understood as soon as it makes sense.
    endless.write_all(&edge_link::encode(&[9, 0, 1])).unwrap();
    let mut answer = [0; 2];
    endless.set_read_timeout(Some(PATIENCE)).unwrap();
    endless.read_exact(&mut answer).unwrap();
    assert_eq!(answer[0], 0);
    // There is room for four; the next one is heard when another has gone.
    let third = camera.connect();
    let waiting = UnixStream::connect(path).unwrap();
    drop((endless, deaf, third));
    let mut fifth = Client::over(Stream::of_socket(waiting).unwrap());
    fifth.greet(PATIENCE).unwrap();
}
