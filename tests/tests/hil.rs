//! `edge-hil`: the device cases on this machine, on a device far away, and where something is wrong.

use edge_suite::hil::{CASES, Outcome, Run, Verdict};
use edge_suite::*;
use quick_junit::{Report, TestCaseStatus};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// What a run left in its folder, and what it said.
struct Done {
    ran: Ran,
    run: Run,
    junit: Report,
    page: String,
}

impl Done {
    fn of(ran: Ran, folder: &Path) -> Done {
        let read = |name: &str| {
            std::fs::read_to_string(folder.join(name)).unwrap_or_else(|e| panic!("{name}: {e}: {}", ran.stderr))
        };
        let run: Run = serde_json::from_str(&read("last.json")).unwrap();
        let junit = Report::deserialize_from_str(&read("junit.xml")).unwrap();
        let page = read("report.html");
        Done { ran, run, junit, page }
    }

    fn case(&self, name: &str) -> &Outcome {
        self.run.cases.iter().find(|case| case.name == name).unwrap_or_else(|| panic!("{name} was not run"))
    }

    /// The XML says of every case what the JSON does.
    fn agrees(&self) {
        let cases = &self.junit.test_suites[0].test_cases;
        assert_eq!(cases.len(), self.run.cases.len() + usize::from(self.run.broken.is_some()));
        for case in &self.run.cases {
            let found = cases.iter().find(|found| found.name.as_str() == case.name).unwrap();
            let fits = match &found.status {
                TestCaseStatus::Success { .. } => case.verdict == Verdict::Passed,
                TestCaseStatus::NonSuccess { message, .. } => {
                    case.verdict == Verdict::Failed && message.as_ref().map(|text| text.as_str()) == case.why.as_deref()
                }
                TestCaseStatus::Skipped { message, .. } => {
                    case.verdict == Verdict::Skipped
                        && message.as_ref().map(|text| text.as_str()) == case.why.as_deref()
                }
            };
            assert!(fits, "{case:?} {found:?}");
        }
        assert_eq!(self.junit.failures, self.run.count(Verdict::Failed));
    }
}

fn hil(dut: &Path, folder: &Path, more: &[&str]) -> Done {
    let mut hil = Command::new(program("edge-hil"));
    hil.arg("run").arg("--dut").arg(dut).arg("-o").arg(folder).args(more);
    Done::of(hil.output().unwrap().into(), folder)
}

fn dut(name: &str) -> PathBuf {
    root().join("tests/duts").join(name)
}

#[test]
fn all_cases_pass_on_this_machine() {
    let scratch = Scratch::small();
    let folder = scratch.path("hil");
    let done = hil(&dut("host.toml"), &folder, &["--soak", "10", "--seed", "7"]);
    assert_eq!(done.ran.code, Some(0), "{}{}", done.ran.stdout, done.ran.stderr);
    done.agrees();
    assert!(done.run.passed() && done.run.seed == 7 && done.run.cases.len() == CASES.len());
    // What is skipped says what this machine has not, and the list says the same beforehand.
    let listed = run("edge-hil", ["list", "--json", "--dut", dut("host.toml").to_str().unwrap()]).ok();
    for (line, case) in listed.json().iter().zip(&done.run.cases) {
        assert_eq!(line["name"], case.name.as_str());
        assert_eq!(line["skipped"].as_str(), case.why.as_deref());
        assert_eq!(case.verdict == Verdict::Skipped, line["skipped"].is_string());
    }
    // Photos were shown, and the page has every one of them.
    let pictures: Vec<_> = done.run.cases.iter().flat_map(|case| &case.evidence).collect();
    assert!(pictures.len() > 20, "{}", pictures.len());
    assert_eq!(done.page.matches("<img src=\"data:image/jpeg;base64,").count(), pictures.len());
    assert!(done.page.contains("Egyptian cat") && !done.page.contains("What failed"));
    for picture in pictures {
        image::open(folder.join(&picture.file)).unwrap();
    }
    let console = std::fs::read_to_string(folder.join("console.txt")).unwrap();
    assert!(console.contains("the camera hangs") && console.contains("was ended by signal 9"), "{console}");
    // The page can be made again.
    let again = scratch.path("again.html");
    let last = folder.join("last.json");
    run("edge-hil", ["report".as_ref(), last.as_os_str(), "-o".as_ref(), again.as_os_str()]).ok();
    assert_eq!(std::fs::read_to_string(again).unwrap(), done.page);
}

#[test]
fn a_link_without_control_is_held_to_that() {
    let scratch = Scratch::small();
    let only = ["--case", "may only read", "--case", "put in"];
    let done = hil(&dut("host-read-only.toml"), &scratch.path("hil"), &only);
    assert_eq!(done.ran.code, Some(0), "{}{}", done.ran.stdout, done.ran.stderr);
    assert_eq!(done.case("a link that may only read refuses to change").verdict, Verdict::Passed);
    let skipped = done.case("ten photos put in, each right");
    assert_eq!(skipped.why.as_deref(), Some("host, read-only has no control"));
}

/// `edge-camera` by itself, and the file of it as a device that is far away.
fn far_away(scratch: &Scratch, more: &[&str], capabilities: &str) -> (Running, PathBuf) {
    let link = scratch.path("link");
    let mut command = camera();
    command.arg("--package").arg(&scratch.package).args(["--source", "pattern:64x48", "--rate", "20", "--log"]);
    command.arg(scratch.path("log.jsonl")).arg("--link").arg(format!("unix:{}", link.display())).args(more);
    let running = Running::start(&mut command);
    let text = format!(
        "name = \"far away\"\ncapabilities = [{capabilities}]\nformats = [\"rgb3\"]\nsizes = [\"64x48\"]\n\
         [remote]\nlink = \"unix:{}\"\npackage = \"model.edgepack\"\n",
        link.display()
    );
    (running, scratch.write("far.toml", text))
}

#[test]
fn what_is_wrong_on_the_device_fails_here() {
    let scratch = Scratch::small();
    // The same package, but the camera sees everything mirrored: no golden sample and no test of its own tells.
    let (_camera, file) = far_away(&scratch, &["--flip", "h"], "\"link\", \"read-only\"");
    let done = hil(&file, &scratch.path("hil"), &["--soak", "1"]);
    assert_eq!(done.ran.code, Some(1), "{}{}", done.ran.stdout, done.ran.stderr);
    done.agrees();
    for name in ["awkward pictures give the same tensor", "the last frame is classified as it is here"] {
        let case = done.case(name);
        assert_eq!(case.verdict, Verdict::Failed);
        let why = case.why.as_deref().unwrap();
        assert!(why.contains("the preprocessed tensor is another one"), "{why}");
        assert!(done.page.contains("What failed") && done.ran.stdout.contains(why), "{}", done.ran.stdout);
    }
    for name in ["golden samples pass on the device", "the camera says who it is", "the log is whole and in order"] {
        assert_eq!(done.case(name).verdict, Verdict::Passed, "{:?}", done.case(name));
    }
}

#[test]
fn another_package_than_the_one_that_is_compared_with_is_found_out() {
    let scratch = Scratch::small();
    let (_camera, file) = far_away(&scratch, &[], "\"link\"");
    wait_until("it listens", || scratch.path("link").exists());
    edge_pack!(small_model(), "-o", scratch.path("other.edgepack"), "--name", "other", "--sequence", "9").ok();
    let text = std::fs::read_to_string(&file).unwrap().replace("model.edgepack", "other.edgepack");
    let file = scratch.write("far.toml", text);
    let done = hil(&file, &scratch.path("hil"), &["--case", "who it is"]);
    assert_eq!(done.ran.code, Some(1), "{}", done.ran.stdout);
    let why = done.case("the camera says who it is").why.as_deref().unwrap();
    assert!(why.contains("it runs package"), "{why}");
}

#[test]
fn a_device_that_does_not_answer_is_an_error_and_not_a_pass() {
    let scratch = Scratch::small();
    let text = "name = \"nobody\"\ncapabilities = [\"link\"]\npatience-s = 1\nfirst-class-s = 1\n\
                [remote]\nlink = \"unix:/nowhere/link\"\npackage = \"model.edgepack\"\n";
    let file = scratch.write("nobody.toml", text);
    let done = hil(&file, &scratch.path("hil"), &[]);
    assert_eq!(done.ran.code, Some(1), "{}", done.ran.stdout);
    done.agrees();
    let why = done.run.broken.as_deref().unwrap();
    assert!(why.contains("nobody has classified nothing within 1 s") && why.contains("/nowhere/link"), "{why}");
    assert!(done.page.contains("/nowhere/link") && done.junit.errors == 1);
}

/// The part of a device's file for this machine, and for an emulated board.
fn host(model: &Path) -> String {
    format!("formats = [\"yuyv\"]\nsizes = [\"640x480\"]\n[host]\nmodel = {model:?}\nrate = 10\nhang-s = 10\n")
}

fn qemu(board: &str) -> String {
    format!("formats = [\"yuyv\"]\nsizes = [\"640x480\"]\n[qemu]\nboard = \"{board}\"\nmodel = {:?}\n", small_model())
}

#[test]
fn files_and_words_that_make_no_sense_are_usage_errors() {
    let scratch = Scratch::small();
    let remote = "[remote]\nlink = \"unix:/x\"\npackage = \"model.edgepack\"\n";
    let folder = scratch.path("hil");
    for (text, part) in [
        ("name = \"x\"\ncapabilities = []\n".into(), "one of [host], [remote] and [qemu]"),
        (format!("name = \"x\"\ncapabilities = [\"levitation\"]\n{remote}"), "levitation"),
        (format!("name = \"x\"\ncapabilities = []\nsizes = [\"641x480\"]\n{remote}"), "641x480"),
        (format!("name = \"x\"\ncapabilities = []\n{remote}pakage = 1\n"), "pakage"),
        (format!("name = \"x\"\ncapabilities = [\"shell\"]\n{remote}"), "shell needs ssh"),
        (format!("name = \"x\"\ncapabilities = [\"power-cut\"]\n{remote}"), "needs power-on and power-off"),
        (format!("name = \"x\"\ncapabilities = [\"show\"]\n{remote}"), "cannot have the capability show"),
        (
            format!("name = \"x\"\ncapabilities = []\n{remote}").replace("unix:/x", "carrier pigeon"),
            "no camera's address",
        ),
        (format!("name = \"x\"\ncapabilities = []\n{remote}").replace("model.", "no."), "there is no"),
        (format!("name = \"x\"\ncapabilities = [\"power-cut\"]\n{}", host(&small_model())), "cannot have"),
        (format!("name = \"x\"\ncapabilities = [\"show\"]\n{}", host("no.onnx".as_ref())), "no.onnx"),
        (format!("name = \"x\"\ncapabilities = []\n{}", qemu("rpi9")), "rpi9"),
        (format!("name = \"x\"\ncapabilities = [\"shell\"]\n{}", qemu("rpi3")), "shell needs a virtio port"),
    ] {
        let file = scratch.write("dut.toml", text);
        let words = ["run".as_ref(), "--dut".as_ref(), file.as_os_str(), "-o".as_ref(), folder.as_os_str()];
        run("edge-hil", words).fails(2, &[part]);
    }
    let file = scratch.write("dut.toml", format!("name = \"x\"\ncapabilities = []\n{remote}"));
    let file = file.to_str().unwrap();
    // Two runs would leave each other's pictures in one report.
    let taken = std::fs::File::open(&folder).unwrap();
    taken.lock().unwrap();
    let words = ["run", "--dut", file, "-o", folder.to_str().unwrap(), "--case", "who it is"];
    run("edge-hil", words).fails(2, &["another run leaves its results"]);
    drop(taken);
    run("edge-hil", ["run", "--dut", file, "-o", folder.to_str().unwrap(), "--case", "flies"])
        .fails(2, &["flies", "edge-hil list"]);
    run("edge-hil", ["run", "--dut", "/no/such/file.toml"]).fails(2, &["/no/such/file.toml"]);
    run("edge-hil", ["report", file, "-o", "x.html"]).fails(2, &["no last.json"]);
    let all = run("edge-hil", ["list"]).ok().stdout;
    assert!(CASES.iter().all(|case| all.contains(case.name)));
}

#[test]
fn what_was_recorded_is_replayed_and_compared() {
    let scratch = Scratch::small();
    for name in ["chelsea.jpg", "rocket.jpg"] {
        scratch.copy(&examples().join(name), &format!("photos/{name}"));
    }
    let script = scratch.write(
        "script.toml",
        "pictures = \"photos\"\neach-s = 1\nfor-s = 3\n[[fault]]\nat-s = 1.5\nsize = \"320x240\"\n",
    );
    let file = format!("name = \"x\"\ncapabilities = [\"link\", \"show\"]\n{}", host(&small_model()));
    let dut = scratch.write("dut.toml", file.replace("\"640x480\"", "\"640x480\", \"320x240\""));
    let (trace, folder) = (scratch.path("trace.jsonl"), scratch.path("hil"));
    let camera = |more: [&Path; 3]| {
        let mut hil = Command::new(program("edge-hil"));
        hil.arg("camera").arg("--dut").arg(&dut).arg("-o").arg(&folder);
        Ran::from(hil.args(more.iter().filter(|word| !word.as_os_str().is_empty())).output().unwrap())
    };
    let none = Path::new("");
    camera([&script, "--record".as_ref(), &trace]).ok();
    let text = std::fs::read_to_string(&trace).unwrap();
    assert_eq!((text.matches("\"show\"").count(), text.matches("\"decided\"").count()), (4, 4), "{text}");
    let same = camera(["--replay".as_ref(), &trace, none]).ok();
    assert!(same.stdout.contains("the same as recorded, in 8 things done and seen"), "{}", same.stdout);
    // The same pictures, of which another thing was decided when they were recorded.
    let (before, after) = text.split_once("\"decided\":\"").unwrap();
    scratch.write("trace.jsonl", format!("{before}\"decided\":\"not {after}"));
    let other = camera(["--replay".as_ref(), &trace, none]);
    assert_eq!(other.code, Some(1), "{}{}", other.stdout, other.stderr);
    assert!(other.stdout.contains("DIFFERENT from what was recorded, after \"show chelsea.jpg"), "{}", other.stdout);
    // What this camera cannot do is told before anything is started; so is a trace that is none.
    let fault = "{\"at_s\":9.0,\"fault\":\"stall\"}\n";
    scratch.write("trace.jsonl", text.clone() + fault);
    camera(["--replay".as_ref(), &trace, none]).fails(2, &["x has no camera-faults"]);
    scratch.write("trace.jsonl", text + "{}\n");
    camera(["--replay".as_ref(), &trace, none]).fails(2, &["trace.jsonl line 9"]);
}

/// Where `edge-hil` keeps what is its own: a folder that a child of it has for an argument.
fn folder_of(hil: &Child) -> Option<PathBuf> {
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let read = |name: &str| std::fs::read_to_string(entry.path().join(name)).unwrap_or_default();
        let stat = read("stat");
        let parent = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1)?.parse().ok());
        let line = read("cmdline");
        let mut words = line.split('\0');
        if parent == Some(hil.id()) && words.next().is_some_and(|program| program.ends_with("edge-init")) {
            return words.find_map(|word| word.strip_suffix("/camera.toml")).map(PathBuf::from);
        }
    }
    None
}

#[test]
fn an_interrupted_run_leaves_nothing_behind() {
    let scratch = Scratch::small();
    let mut hil = Command::new(program("edge-hil"));
    hil.arg("run").arg("--dut").arg(dut("host.toml")).arg("-o").arg(scratch.path("hil"));
    let running = Running::start(&mut hil);
    let mut folder = None;
    wait_until("a camera runs", || {
        folder = folder.take().or_else(|| folder_of(&running.0));
        folder.as_ref().is_some_and(|folder| folder.join("class.jsonl").exists())
    });
    let folder = folder.unwrap();
    running.signal("INT");
    assert_eq!(running.end().code, Some(130));
    assert!(!folder.exists());
    let name = folder.to_str().unwrap();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        assert!(!line.contains(name), "{line}");
    }
}

#[test]
fn the_devices_that_are_shipped_can_be_read() {
    let mut count = 0;
    for entry in std::fs::read_dir(root().join("tests/duts")).unwrap() {
        let path = entry.unwrap().path();
        run("edge-hil", ["list", "--dut", path.to_str().unwrap()]).ok();
        count += 1;
    }
    assert!(count >= 3, "{count}");
}

/// A way to run programs as another machine would: ssh to an sshd that is started for each connection, without a port.
fn ssh(scratch: &Scratch) -> Option<PathBuf> {
    let whole =
        |script: &str| Command::new("sh").args(["-c", script]).stderr(Stdio::null()).status().unwrap().success();
    if !whole(
        "[ \"$(id -u)\" = 0 ] && [ -x /usr/sbin/sshd ] && command -v ssh ssh-keygen && unshare --mount mount -t tmpfs tmpfs /run",
    ) {
        println!("SKIPPED: sshd, ssh or the right to mount is missing");
        return None;
    }
    let here = scratch.path("");
    let here = here.display();
    for name in ["host", "user"] {
        let made =
            Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(scratch.path(name)).status();
        assert!(made.unwrap().success());
    }
    let binaries = program("edge-camera").parent().unwrap().display().to_string();
    scratch.write(
        "sshd_config",
        format!(
            "HostKey {here}/host\nAuthorizedKeysFile {here}/user.pub\nStrictModes no\nUsePAM no\nPermitRootLogin yes\n\
             SetEnv PATH={binaries}:/usr/bin:/bin\n"
        ),
    );
    // sshd wants a folder of its own in /run, which the processes of its namespace get.
    scratch.write(
        "sshd",
        format!(
            "mount -t tmpfs tmpfs /run && mkdir -m 755 /run/sshd && exec /usr/sbin/sshd -i -f {here}/sshd_config\n"
        ),
    );
    scratch.write(
        "ssh_config",
        format!(
            "Host board\nUser root\nProxyCommand unshare --mount sh {here}/sshd\nIdentityFile {here}/user\nIdentitiesOnly yes\n\
             UserKnownHostsFile {here}/known\nStrictHostKeyChecking accept-new\nLogLevel ERROR\n"
        ),
    );
    let wrapper = scratch.write("bin/ssh", format!("#!/bin/sh\nexec /usr/bin/ssh -F {here}/ssh_config \"$@\"\n"));
    std::fs::set_permissions(&wrapper, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    Some(scratch.path("bin"))
}

/// A camera that is a service of its own, reached by ssh for everything, and switched by a command.
#[test]
fn a_board_over_ssh_with_a_power_switch() {
    let scratch = Scratch::small();
    let Some(bin) = ssh(&scratch) else { return };
    let here = scratch.path("");
    let here = here.display();
    let edge_camera = program("edge-camera");
    scratch.write(
        "camera.toml",
        "package = \"model.edgepack\"\nsource = \"pattern:64x48\"\nrate = 20\nlog = \"log.jsonl\"\nlink-control = true\n",
    );
    // What a relay does: at once, and without a word.
    scratch.write(
        "power",
        format!(
            "cd {here}\ncase $1 in\n\
             on) kill -0 \"$(cat pid)\" && exit\n\
             setsid {} --config camera.toml --link unix:{here}/link </dev/null >camera.txt 2>&1 & echo $! >pid ;;\n\
             off) kill -9 \"$(cat pid)\" ;;\nesac\n",
            edge_camera.display()
        ),
    );
    let file = scratch.write(
        "board.toml",
        format!(
            "name = \"board\"\ncapabilities = [\"link\", \"control\", \"shell\", \"power-cut\"]\n\
             [remote]\nlink = \"unix:{here}/link\"\npackage = \"model.edgepack\"\nssh = \"board\"\n\
             power-on = [\"sh\", \"{here}/power\", \"on\"]\npower-off = [\"sh\", \"{here}/power\", \"off\"]\n"
        ),
    );
    let folder = scratch.path("hil");
    let mut hil = Command::new(program("edge-hil"));
    hil.arg("run").arg("--dut").arg(&file).arg("-o").arg(&folder);
    hil.args(["--case", "who it is", "--case", "bench", "--case", "put in", "--case", "power", "--case", "the log is"]);
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let ran = Ran::from(hil.env("PATH", path).output().unwrap());
    let off = Command::new("sh").arg(scratch.path("power")).arg("off").status().unwrap();
    let done = Done::of(ran, &folder);
    assert_eq!(done.ran.code, Some(0), "{}{}", done.ran.stdout, done.ran.stderr);
    assert!(off.success());
    let case = done.case("the power is cut, and it starts again");
    assert!(case.figures.iter().any(|figure| figure.name == "cuts" && figure.value >= 1.0), "{case:?}");
    let log: Vec<Value> = log_lines(&scratch.path("log.jsonl"));
    assert!(log.iter().any(|line| line["source"] == "link"));
}
