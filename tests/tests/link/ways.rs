//! Every way to a camera: a serial line, a network, another program's standard input and output; and ways that lead nowhere.

use super::*;
use edge_package::LinkKey;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Stdio};

/// A terminal: the end that a program writes to as it would to a serial line, and the other one.
fn terminal() -> (File, PathBuf) {
    use rustix::ioctl::{Getter, Setter, ioctl, opcode};
    let flags = (rustix::fs::OFlags::NOCTTY).bits() as i32;
    let other = File::options().read(true).write(true).custom_flags(flags).open("/dev/ptmx").unwrap();
    const UNLOCK: rustix::ioctl::Opcode = opcode::write::<i32>(b'T', 0x31);
    const NUMBER: rustix::ioctl::Opcode = opcode::read::<u32>(b'T', 0x30);
    // SAFETY: TIOCSPTLCK reads an int and TIOCGPTN writes an unsigned one (linux/tty.h), as they are given here.
    let number = unsafe {
        ioctl(&other, Setter::<UNLOCK, i32>::new(0)).unwrap();
        ioctl(&other, Getter::<NUMBER, u32>::new()).unwrap()
    };
    (other, format!("/dev/pts/{number}").into())
}

#[test]
fn a_serial_line_is_a_link_whatever_else_is_on_it() {
    let scratch = Scratch::small();
    let (other, path) = terminal();
    let line = format!("serial:{},115200", path.display());
    let _camera = Linked::start(&scratch, &["--link", &line]);
    let mut noise = other.try_clone().unwrap();
    let mut client = Client::over(Stream::of_file(other).unwrap());
    // What was sent before the camera had the line is lost, as on every line.
    client.greet(PATIENCE).unwrap();
    for garbage in [&b"raspberrypi login: \r\n"[..], &[0; 50], &[0xff; 3000], b"\0\x05\x01\0"] {
        noise.write_all(garbage).unwrap();
        assert!(statistics(&mut client)["frames"].is_u64());
    }
    let Response::LastFrame(Some(_)) = client.ask(&Request::LastFrame, PATIENCE).unwrap() else { panic!() };
}

/// The port that a camera tells that it listens at.
fn port(running: &mut Running) -> u16 {
    let mut lines = BufReader::new(running.0.stderr.take().unwrap()).lines();
    let port =
        lines.by_ref().map_while(Result::ok).find_map(|line| line.split("listens at port ").nth(1)?.parse().ok());
    // What else it says is read, so that it can say it.
    std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
    port.expect("a port")
}

fn key(path: &Path, byte: u8) {
    std::fs::write(path, LinkKey::from_bytes([byte; 32]).to_file_text()).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

#[test]
fn over_tcp_a_host_needs_the_key() {
    let scratch = Scratch::small();
    let made = scratch.path("link.key");
    run("edge-flash", [Path::new("link-key"), &made]).ok();
    assert_eq!(std::fs::metadata(&made).unwrap().permissions().mode() & 0o777, 0o600);
    run("edge-flash", [Path::new("link-key"), &made]).fails(1, &["never overwritten"]);
    // The key lies beside the configuration that names it.
    let config =
        scratch.write("camera.toml", "link = \"tcp:127.0.0.1:0,key=link.key\"\nsource = \"pattern\"\nrate = 20\n");
    let mut camera = camera();
    camera.arg("--config").arg(config).arg("--package").arg(&scratch.package);
    let mut running = Running::start(&mut camera);
    let host = format!("127.0.0.1:{}", port(&mut running));
    let with = |key: &Path| Address::Tcp { host: host.clone(), key: key.into() };
    let mut client = Client::connect(&with(&made), PATIENCE).unwrap();
    wait_until("there are frames", || statistics(&mut client)["frames"].as_u64() > Some(0));
    let other = scratch.path("other.key");
    key(&other, 7);
    assert!(Client::connect(&with(&other), PATIENCE).is_err());
    std::fs::set_permissions(&other, std::fs::Permissions::from_mode(0o644)).unwrap();
    let why = Client::connect(&with(&other), PATIENCE).err().unwrap().to_string();
    assert!(why.contains("other.key"), "{why}");
    // Strangers, as many as like, keep nobody out for good.
    let strangers: Vec<_> = (0..8).map(|_| std::net::TcpStream::connect(&host).unwrap()).collect();
    Client::connect(&with(&made), PATIENCE).unwrap();
    drop(strangers);
}

/// What ssh does: the camera's program on the other machine, with a pipe in and a pipe out.
#[test]
fn standard_input_and_output_lead_to_the_camera_that_runs() {
    let scratch = Scratch::small();
    let camera = Linked::start(&scratch, &[]);
    camera.connect();
    let mut bridge = Command::new(program("edge-camera"))
        .arg(format!("--link-stdio={}", camera.address))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (reader, writer) = (bridge.stdout.take().unwrap(), bridge.stdin.take().unwrap());
    let mut client = Client::over(Stream { reader: Box::new(reader), writer: Box::new(writer) });
    client.greet(PATIENCE).unwrap();
    assert!(statistics(&mut client)["frames"].is_u64());
    drop(client);
    assert!(bridge.wait().unwrap().success());
    // By the configuration's word, and without a camera there.
    let config = scratch.write("camera.toml", "link = \"unix:link\"\n");
    let asked = |config: &Path| {
        let mut command = edge_suite::camera();
        command.arg("--config").arg(config).arg("--link-stdio").stdin(Stdio::null());
        Ran::from(command.output().unwrap())
    };
    asked(&config).ok();
    let nowhere = scratch.write("nowhere.toml", "link = \"unix:nowhere\"\n");
    asked(&nowhere).fails(2, &["no camera that runs here", "nowhere"]);
    edge_camera!("--link-stdio=tcp:x:1,key=y").fails(2, &["unix:PATH"]);
}

#[test]
fn a_link_that_cannot_be_is_told_and_keeps_nothing_from_running() {
    let scratch = Scratch::small();
    let log = scratch.path("log.jsonl");
    let mut command = camera();
    command.arg("--package").arg(&scratch.package).arg("--log").arg(&log).args(["--source", "pattern", "--rate", "50"]);
    command.args(["--link", "unix:/nonexistent/link", "--link", "serial:/dev/nonexistent", "--frames", "40"]);
    command.args(["--link", "tcp:127.0.0.1:0,key=/nonexistent/key"]);
    let ran = Ran::from(command.output().unwrap()).ok();
    for part in ["link unix:/nonexistent/link: ", "link serial:/dev/nonexistent: ", "/nonexistent/key"] {
        assert_eq!(ran.stderr.matches(part).count().min(3), ran.stderr.matches(part).count(), "{}", ran.stderr);
        assert!(ran.stderr.contains(part), "{}", ran.stderr);
    }
    assert_eq!(lines(&log).len(), 40);
    edge_camera!("--link", "ssh:pi@camera").fails(2, &["a camera listens at"]);
    edge_camera!("--link", "tcp:0.0.0.0:7070").fails(2, &["names no key"]);
}
