//! Cameras that misbehave, each a shell script in place of the process that would hold one.

use super::*;
use edge_device::capture::write;
use edge_vision::{ColorSpace, PixelFormat};
use std::fs;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tempfile::TempDir;

/// Descriptors and children are those of all threads: one test at a time.
static ALONE: Mutex<()> = Mutex::new(());

const SHORT: Patience = Patience {
    open: Duration::from_secs(20),
    stall: Duration::from_millis(100),
    silence: Duration::from_millis(300),
    first_pause: Duration::from_millis(1),
    last_pause: Duration::from_millis(20),
};

/// What scripts say: a camera that opened, a frame of 2x1 GREY, and a failure.
struct Scripts {
    dir: TempDir,
    _alone: MutexGuard<'static, ()>,
}

impl Scripts {
    fn new() -> Scripts {
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let dir = tempfile::tempdir().unwrap();
        let save = |name: &str, message: &Message, bytes: &[u8]| {
            let mut file = fs::File::create(dir.path().join(name)).unwrap();
            write(&mut file, message, bytes).unwrap();
        };
        let (about, device) = ("/dev/fake 2x1 GREY".to_string(), "/dev/fake".to_string());
        save("opened", &Message::Opened { about, device, interval_ns: 0 }, &[]);
        let header = FrameHeader {
            number: 3,
            // Later than any clock shows: it counts as captured when it came.
            monotonic_ns: u64::MAX,
            format: PixelFormat::Grey,
            width: 2,
            height: 1,
            stride: None,
            color: ColorSpace::default(),
            length: 2,
        };
        save("frame", &Message::Frame(header), &[9, 8]);
        save("failed", &Message::Failed("it was unplugged".into()), &[]);
        fs::write(dir.path().join("nonsense"), [0xFF; 100]).unwrap();
        Scripts { dir, _alone: alone }
    }

    /// A camera held by `script`, in which `say NAME` says something and `asked` waits to be asked.
    fn open(&self, script: &str) -> anyhow::Result<Camera> {
        self.open_until(script, false, &|| false)
    }

    fn open_until(&self, script: &str, patient: bool, stop: &dyn Fn() -> bool) -> anyhow::Result<Camera> {
        let script = format!(
            "say() {{ cat \"$1\"; }}; asked() {{ [ \"$(head -c 1)\" = n ] || exit; }}; once() {{ mkdir \"$1\" 2>/dev/null; }}; {script}"
        );
        let dir = self.dir.path().to_path_buf();
        let command = move || {
            let mut command = Command::new("sh");
            command.arg("-c").arg(&script).current_dir(&dir);
            command
        };
        Camera::start("fake", Box::new(command), SHORT, patient, stop)
    }
}

/// What comes until there are `frames` frames: their numbers, and the names of events.
fn take(camera: &mut Camera, frames: usize) -> (Vec<u64>, Vec<&'static str>) {
    let (mut numbers, mut events) = (vec![], vec![]);
    let deadline = Instant::now() + Duration::from_secs(60);
    while numbers.len() < frames {
        assert!(Instant::now() < deadline, "{numbers:?} {events:?}");
        match camera.next(Instant::now() + Duration::from_millis(10)).unwrap() {
            Grab::Frame(frame) => {
                assert_eq!(frame.source, "v4l2:/dev/fake");
                assert!(frame.at <= Instant::now());
                let Payload::Raw { bytes, width: 2, height: 1, .. } = &frame.payload else { panic!() };
                assert_eq!(bytes[..], [9, 8]);
                numbers.push(frame.number);
            }
            Grab::Notice { event, .. } => events.push(event),
            Grab::Waiting(_) => {}
            Grab::End => panic!("a camera does not end"),
        }
    }
    (numbers, events)
}

fn count(folder: impl AsRef<Path>) -> usize {
    fs::read_dir(folder).unwrap().count()
}

/// Processes whose parent this is, zombies among them.
fn children() -> usize {
    let of_ours = |stat: String| {
        let parent = stat.rsplit(')').next()?.split_whitespace().nth(1)?.parse::<u32>().ok()?;
        Some(parent == std::process::id())
    };
    let stats = fs::read_dir("/proc").unwrap().flatten().map(|e| fs::read_to_string(e.path().join("stat")));
    stats.flatten().filter(|stat| of_ours(stat.clone()) == Some(true)).count()
}

#[test]
fn a_camera_that_cannot_be_opened_is_waited_for_where_that_is_asked_for() {
    let scripts = Scripts::new();
    // Unplugged at first, then there.
    let script = "if once tried; then say failed; else say opened; asked; say frame; exec sleep 1000; fi";
    let mut camera = scripts.open_until(script, true, &|| false).unwrap();
    assert_eq!(camera.describe(), "camera fake");
    assert_eq!(take(&mut camera, 1), (vec![3], vec!["camera_lost", "camera_back"]));
    assert_eq!(camera.describe(), "camera /dev/fake 2x1 GREY");
}

#[test]
fn a_stall_is_told_and_its_end() {
    let scripts = Scripts::new();
    // Silent for longer than is passed over, and shorter than is put up with.
    let mut camera = scripts
        .open("say opened; asked; say frame; asked; sleep 0.2; say frame; while asked; do say frame; done")
        .unwrap();
    assert_eq!(camera.describe(), "camera /dev/fake 2x1 GREY");
    let (numbers, events) = take(&mut camera, 3);
    // Where this machine is busy the silence may grow, and the camera be opened anew.
    assert!(numbers == [3, 3, 3] || numbers == [3, 7, 7], "{numbers:?}");
    assert!(events.starts_with(&["camera_stalled"]) && events.ends_with(&["camera_back"]), "{events:?}");
}

#[test]
fn a_camera_stuck_within_its_driver_is_killed_and_opened_anew() {
    let scripts = Scripts::new();
    let mut camera = scripts
        .open("say opened; asked; say frame; once stuck && exec sleep 1000; while asked; do say frame; done")
        .unwrap();
    let (numbers, events) = take(&mut camera, 3);
    assert_eq!(numbers[..2], [3, 7], "numbers grow over an opening");
    assert_eq!(events, ["camera_stalled", "camera_lost", "camera_back"]);
}

#[test]
fn a_camera_that_fails_or_talks_nonsense_is_waited_for() {
    for end in ["say failed", "exit", "kill -9 $$", "say nonsense; exec sleep 1000"] {
        let scripts = Scripts::new();
        // The first process delivers one frame and ends; the second finds no camera; the third one does.
        let script = format!(
            "if once first; then say opened; asked; say frame; {end}; exit; fi; once second && {{ say failed; exit; }}; \
             say opened; while asked; do say frame; done"
        );
        let mut camera = scripts.open(&script).unwrap();
        let (numbers, events) = take(&mut camera, 3);
        assert_eq!(numbers[..2], [3, 7], "{end}");
        assert!(events.starts_with(&["camera_lost"]) && events.ends_with(&["camera_back"]), "{end}: {events:?}");
    }
}

#[test]
fn a_camera_that_is_not_there_at_the_start_is_an_error() {
    let scripts = Scripts::new();
    let why = |script: &str| format!("{:#}", scripts.open(script).err().unwrap());
    assert_eq!(why("say failed"), "cannot open the camera fake: it was unplugged");
    assert_eq!(why("exit 3"), "cannot open the camera fake: its process ended");
    assert!(why("say nonsense").contains("its process failed"));
    assert_eq!(children(), 0);
}

#[test]
fn a_camera_that_does_not_answer_at_the_start_keeps_nobody_from_stopping() {
    let scripts = Scripts::new();
    drop(scripts.open_until("exec sleep 1000", false, &|| true).unwrap());
    assert_eq!(children(), 0);
}

#[test]
fn nothing_is_left_of_many_openings() {
    let scripts = Scripts::new();
    let mut camera = scripts.open("say opened; asked; say frame").unwrap();
    take(&mut camera, 3);
    let before = (count("/proc/self/fd"), count("/proc/self/task"));
    let (numbers, events) = take(&mut camera, 40);
    assert!(numbers.is_sorted_by(|a, b| a < b));
    assert!(events.len() > 40, "{}", events.len());
    let after = (count("/proc/self/fd"), count("/proc/self/task"));
    // A test beside this one may start or end a thread.
    assert!(after.0 <= before.0 + 3 && after.1 <= before.1 + 2, "{before:?} {after:?}");
    assert!(children() <= 1, "{}", children());
    drop(camera);
    assert_eq!(children(), 0);
}
