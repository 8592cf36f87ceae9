//! `edge-camera` on this machine.
//!
//! It runs under `edge-init supervise`, the loop that watches over it on a flashed camera, so that what is killed or hangs is
//! started again by the code that does it there. The package is signed and lies in slots. Its camera is a stream on its
//! standard input: a picture that is shown is written to it again and again, in the format and size that it has; another
//! format or size is another camera, so the program is ended and started again with it.

use super::programs::{built, group, output, wait};
use crate::interrupt;
use anyhow::{Context, Result, bail, ensure};
use edge_link::{Address, Client, RawFrame, Stream};
use edge_suite::hil::{Capability, Dut, DutFile, Files, Host, Size, first_class, frame, photos};
use edge_vision::{ColorMatrix, ColorRange, PixelFormat};
use rustix::process::Signal;
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long anything but classifying may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Starts the program with its camera. The frames' writer ends with their reader. Nothing is on the path under the
/// supervisor.
const CAMERA: &str = r#"#!/bin/sh
PATH=/usr/local/bin:/usr/bin:/bin
here=$(dirname "$0")
. "$here/shown"
pipe="$here/frames.$$"
mkfifo "$pipe" || exit 1
( exec >"$pipe"; rm -f "$pipe"; while cat "$here/$frame"; do sleep "$pause"; done ) 2>/dev/null &
exec "$program" "$@" --raw "$raw" <"$pipe"
"#;

/// What `edge-camera` is called where processes are listed.
const NAME: &str = "edge-camera";

/// The device.
pub struct HostDut {
    about: DutFile,
    files: Files,
    host: Host,
    folder: TempDir,
    console: PathBuf,
    program: PathBuf,
    shown: Option<String>,
    client: Option<Client>,
    supervisor: Option<Child>,
}

impl HostDut {
    /// Packages the model and puts it into the slots.
    pub fn new(about: DutFile, host: Host, results: &Path) -> Result<HostDut> {
        ensure!(
            about.capabilities.contains(&Capability::Show) && !about.formats.is_empty() && !about.sizes.is_empty(),
            "{}: a [host] has the capability show, with formats and sizes",
            about.name
        );
        // Short, since the path of a socket may have 108 bytes only.
        let folder = tempfile::Builder::new().prefix("edge-hil-").tempdir_in("/tmp");
        let folder = folder.context("cannot make a folder in /tmp")?;
        interrupt::removed_too(folder.path());
        let path = |name: &str| folder.path().join(name);
        let (edge_pack, program) = (built("edge-pack")?, built(NAME)?);
        let (key, package) = (path("release.key"), path("device.edgepack"));
        output(Command::new(&edge_pack).arg("keygen").arg(&key), b"", PATIENCE)?;
        let mut pack = Command::new(&edge_pack);
        pack.arg(&host.model).arg("-o").arg(&package).arg("--sign").arg(&key);
        output(pack.args(["--sequence", "1", "--name", "device"]), b"", PATIENCE * 5)?;
        let control = about.capabilities.contains(&Capability::Control);
        std::fs::write(
            path("camera.toml"),
            format!(
                "source = \"-\"\ntrusted-key = [\"release.key.pub\"]\nlink = [\"unix:{}\"]\nlink-control = {control}\n\
                 trial = \"5s\"\ntrial-latency = 1e9\n",
                path("link").display()
            ),
        )?;
        let mut install = Command::new(&program);
        install
            .arg("--config")
            .arg(path("camera.toml"))
            .arg("--slots")
            .arg(path("slots"))
            .arg("--install")
            .arg(&package);
        output(&mut install, b"", PATIENCE * 5)?;
        let camera = path("camera");
        std::fs::write(&camera, CAMERA)?;
        std::fs::set_permissions(&camera, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        let files = Files { package, key: Some(key), system: None };
        let console = results.join("console.txt");
        File::create(&console).with_context(|| format!("cannot write {}", console.display()))?;
        let mut dut =
            HostDut { about, files, host, folder, console, program, shown: None, client: None, supervisor: None };
        let first = photos()?.into_iter().next().context("there are no photos")?;
        let (format, size) = (dut.about.formats[0], dut.about.sizes[0]);
        dut.set(&frame(&first.bytes, format, size)?)?;
        Ok(dut)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn link_address(&self) -> Address {
        Address::Unix(self.path("link"))
    }

    /// What the camera is to deliver; whether it is another camera than before.
    fn set(&mut self, picture: &RawFrame) -> Result<bool> {
        let raw = as_raw(picture)?;
        let file = format!("{}.raw", raw.replace(':', "-"));
        let whole = |name: &str, bytes: &[u8]| edge_package::replace_file(&self.path(name), bytes, 0o644);
        whole(&file, &picture.bytes)?;
        let pause = 1.0 / self.host.rate;
        let program = self.program.display();
        whole("shown", format!("raw={raw}\nframe={file}\npause={pause:.3}\nprogram='{program}'\n").as_bytes())?;
        Ok(self.shown.replace(raw.clone()).is_some_and(|before| before != raw))
    }
}

/// What `--raw` calls such frames.
fn as_raw(picture: &RawFrame) -> Result<String> {
    let Size { width, height } = Size { width: picture.width, height: picture.height };
    if picture.stride.is_some() {
        bail!("a stream has no bytes between its rows");
    }
    let format = match picture.format {
        PixelFormat::Yuyv => "yuyv",
        PixelFormat::Nv12 => "nv12",
        PixelFormat::Yu12 => "yuv420",
        PixelFormat::Rgb3 => "rgb24",
        PixelFormat::Bgr3 => "bgr24",
        PixelFormat::Grey => "gray",
        PixelFormat::Mjpeg => bail!("a stream of JPEGs is not raw"),
    };
    let matrix = match picture.color.matrix {
        ColorMatrix::Bt601 => "bt601",
        ColorMatrix::Bt709 => "bt709",
        ColorMatrix::Bt2020 => "bt2020",
    };
    let range = if picture.color.range == ColorRange::Full { "full" } else { "limited" };
    Ok(format!("{width}x{height}:{format}:{matrix}:{range}"))
}

impl Dut for HostDut {
    fn about(&self) -> &DutFile {
        &self.about
    }

    fn files(&self) -> &Files {
        &self.files
    }

    fn boot(&mut self) -> Result<Option<f64>> {
        if self.supervisor.is_some() {
            return Ok(None);
        }
        let begin = Instant::now();
        let console = File::options().append(true).open(&self.console)?;
        let mut init = Command::new(built("edge-init")?);
        init.arg("supervise").arg("--camera").arg(self.path("camera")).arg("--config").arg(self.path("camera.toml"));
        init.arg("--slots").arg(self.path("slots")).arg("--log").arg(self.path("class.jsonl"));
        init.arg("--run").arg(self.folder.path()).args(["--pause", "0.2", "--hang", &self.host.hang_s.to_string()]);
        init.stdin(Stdio::null()).stdout(console.try_clone()?).stderr(console).process_group(0);
        let supervisor = init.spawn().context("cannot start edge-init")?;
        interrupt::ends_too(supervisor.id());
        self.supervisor = Some(supervisor);
        first_class(self)?;
        Ok(Some(begin.elapsed().as_secs_f64()))
    }

    fn link(&mut self) -> Result<&mut Client> {
        if self.client.is_none() {
            let mut client = Client::over(self.wire()?);
            client.greet(self.about.patience())?;
            self.client = Some(client);
        }
        self.client.as_mut().context("a link that was just made")
    }

    fn lost(&mut self) {
        self.client = None;
    }

    fn wire(&mut self) -> Result<Stream> {
        self.client = None;
        Ok(self.link_address().connect(self.about.patience())?)
    }

    fn shell(&mut self, script: &str, patience: Duration) -> Result<String> {
        output(Command::new("sh").args(["-c", script]), b"", patience)
    }

    fn push(&mut self, bytes: &[u8], path: &str) -> Result<()> {
        std::fs::write(path, bytes).with_context(|| format!("cannot write {path}"))
    }

    fn show(&mut self, picture: &RawFrame) -> Result<()> {
        let about = &self.about;
        let size = Size { width: picture.width, height: picture.height };
        ensure!(
            about.formats.contains(&picture.format) && about.sizes.contains(&size),
            "the camera of {} has no {size} {}",
            about.name,
            picture.format
        );
        if self.set(picture)? && self.supervisor.is_some() {
            let before = self.camera()?;
            self.shell(&format!("kill -TERM {before}"), PATIENCE)?;
            self.lost();
            let end = Instant::now() + self.about.first_class();
            while self.camera().is_ok_and(|pid| pid == before) {
                ensure!(Instant::now() < end, "edge-camera does not end when it is told to");
                std::thread::sleep(Duration::from_millis(20));
            }
            first_class(self)?;
        }
        Ok(())
    }

    fn console(&mut self) -> Result<String> {
        Ok(String::from_utf8_lossy(&std::fs::read(&self.console)?).into_owned())
    }

    /// The supervisor's child of that name: others may run on this machine.
    fn camera(&mut self) -> Result<u32> {
        let supervisor = self.supervisor.as_ref().map(Child::id).context("nothing runs")?;
        for entry in std::fs::read_dir("/proc")?.flatten() {
            let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
            // PID (NAME) STATE PARENT …
            let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
            let Some((before, after)) = stat.rsplit_once(") ") else { continue };
            let mut fields = after.split(' ');
            let (state, parent) = (fields.next(), fields.next().and_then(|parent| parent.parse::<u32>().ok()));
            let named = before.split_once('(').is_some_and(|(_, name)| name == NAME);
            if named && state != Some("Z") && parent == Some(supervisor) {
                return Ok(pid);
            }
        }
        bail!("edge-camera does not run")
    }
}

impl Drop for HostDut {
    fn drop(&mut self) {
        let camera = self.camera().ok();
        self.client = None;
        let Some(mut supervisor) = self.supervisor.take() else { return };
        group(&supervisor, Signal::TERM);
        if wait(&mut supervisor, Duration::from_secs(30)).is_none() {
            // One that is stopped does not hear of it.
            if let Some(camera) = camera {
                let _ = Command::new("kill").args(["-9", &format!("-{camera}")]).stderr(Stdio::null()).status();
            }
            group(&supervisor, Signal::KILL);
            let _ = supervisor.wait();
        }
        interrupt::has_ended(supervisor.id());
    }
}
