//! Updates that come over the link: bytes into a file beside the slots, and then the way that every update goes. A package
//! is installed as by `edge-camera --install`, which this program calls for it; a system is handed to the system that runs.

use super::{Ask, Shared, control};
use crate::units::Size;
use edge_link::{Reply, Response};
use edge_package::Digest;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Name of the file while its bytes come, in the folder of the slots.
const PART: &str = ".link.part";
/// The longest update, in bytes: more than any board has room for.
const LONGEST: u64 = 1 << 30;
/// The most bytes in one message.
const STEP: usize = 1 << 20;
/// Space that is left to the file system, in bytes.
const MARGIN: u64 = 64 << 10;
/// A host from which nothing has come for so long has given its update up, and another one may begin.
const GIVEN_UP: Duration = Duration::from_secs(60);
/// How long an installation may take: to prove a large package on a small board takes minutes.
const INSTALLATION: Duration = Duration::from_secs(15 * 60);
/// How often it is looked whether the installation has ended.
const TICK: Duration = Duration::from_millis(50);
/// What a system bundle begins with, after one byte that no text has.
const SYSTEM: &[u8] = b"EDGESY\n";

/// The update that is under way; one at a time.
#[derive(Default)]
pub enum Upload {
    /// None.
    #[default]
    None,
    /// Its bytes come.
    Coming(Coming),
    /// They are all there and being installed.
    Installing,
}

/// An update whose bytes come. The file goes with it.
pub struct Coming {
    host: u64,
    file: File,
    path: PathBuf,
    length: u64,
    digest: Digest,
    /// Bytes that came, from the beginning on.
    came: u64,
    heard: Instant,
}

impl Drop for Coming {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Removes what a run before this one left behind.
pub fn clean(shared: &Shared) {
    if let Some(folder) = &shared.lock().slots {
        let _ = std::fs::remove_file(folder.join(PART));
    }
}

/// The folder that updates go to.
fn folder(shared: &Shared) -> Result<PathBuf, String> {
    let folder = shared.lock().slots.clone();
    folder.ok_or_else(|| "this camera runs one package and has no slots for another; `slots` of its configuration names a folder for two".into())
}

/// A host that updates; what it has not finished when it hangs up is given up.
pub struct Host<'a> {
    shared: &'a Shared,
    number: u64,
}

impl Drop for Host<'_> {
    fn drop(&mut self) {
        let mut upload = self.lock();
        if matches!(&*upload, Upload::Coming(coming) if coming.host == self.number) {
            *upload = Upload::None;
        }
    }
}

impl Host<'_> {
    /// One that has just connected.
    pub fn new(shared: &Shared) -> Host<'_> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        Host { shared, number: COUNT.fetch_add(1, Ordering::Relaxed) }
    }

    fn lock(&self) -> MutexGuard<'_, Upload> {
        self.shared.upload.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A file of `length` bytes is going to come.
    pub fn begin(&self, length: u64, digest: Digest) -> Reply {
        let folder = folder(self.shared)?;
        if !(1..=LONGEST).contains(&length) {
            return Err(format!("an update has 1 to {LONGEST} bytes, and this one {length}"));
        }
        let mut upload = self.lock();
        match &*upload {
            Upload::Coming(coming) if coming.host != self.number && coming.heard.elapsed() < GIVEN_UP => {
                return Err("another host is sending an update".into());
            }
            Upload::Installing => return Err("another update is being installed".into()),
            _ => *upload = Upload::None,
        }
        room(&folder, length)?;
        *upload = Upload::Coming(self.open(&folder, length, digest).map_err(|e| cannot(&folder, &e))?);
        Ok(Response::Done(format!("{} can come", Size(length))))
    }

    fn open(&self, folder: &Path, length: u64, digest: Digest) -> io::Result<Coming> {
        std::fs::create_dir_all(folder)?;
        let path = folder.join(PART);
        if let Err(e) = std::fs::remove_file(&path)
            && e.kind() != io::ErrorKind::NotFound
        {
            return Err(e);
        }
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
        Ok(Coming { host: self.number, file, path, length, digest, came: 0, heard: Instant::now() })
    }

    /// The next bytes, or some that came already: an answer may have been lost on its way.
    pub fn data(&self, offset: u64, bytes: &[u8]) -> Reply {
        let mut upload = self.lock();
        let Upload::Coming(coming) = &mut *upload else { return Err(nothing_begun()) };
        if coming.host != self.number {
            return Err(nothing_begun());
        }
        let end = offset.checked_add(bytes.len() as u64).filter(|end| *end <= coming.length);
        let Some(end) = end.filter(|_| offset <= coming.came && bytes.len() <= STEP) else {
            return Err(format!(
                "{} bytes at {offset} do not fit: {} of {} have come, and at most {STEP} may come at once",
                bytes.len(),
                coming.came,
                coming.length
            ));
        };
        if offset == 0 && is_system(bytes) && !control::available() {
            *upload = Upload::None;
            return Err(no_systems());
        }
        if let Err(e) = coming.file.write_all_at(bytes, offset) {
            let why = cannot(coming.path.parent().unwrap_or(Path::new(".")), &e);
            *upload = Upload::None;
            return Err(why);
        }
        coming.came = coming.came.max(end);
        coming.heard = Instant::now();
        Ok(Response::Done(format!("{} of {} bytes", coming.came, coming.length)))
    }

    /// That was all. `ask` has the loop take what was installed.
    pub fn end(&self, ask: &dyn Fn(Ask) -> Option<Reply>) -> Option<Reply> {
        let mut upload = self.lock();
        match &*upload {
            Upload::Coming(coming) if coming.host == self.number => {
                if coming.came < coming.length {
                    return Some(Err(format!("{} of {} bytes have come yet", coming.came, coming.length)));
                }
            }
            _ => return Some(Err(nothing_begun())),
        }
        let Upload::Coming(mut coming) = std::mem::replace(&mut *upload, Upload::Installing) else { return None };
        // Others are told that something is being installed, and need not wait for that to end.
        drop(upload);
        let done = finish(self.shared, &mut coming, ask);
        drop(coming);
        *self.lock() = Upload::None;
        done
    }
}

fn finish(shared: &Shared, coming: &mut Coming, ask: &dyn Fn(Ask) -> Option<Reply>) -> Option<Reply> {
    let mut start = [0; 8];
    let read = |coming: &mut Coming, start: &mut [u8]| -> io::Result<Digest> {
        let mut hasher = blake3::Hasher::new();
        coming.file.rewind()?;
        hasher.update_reader(&mut coming.file)?;
        coming.file.rewind()?;
        let count = coming.file.read(start)?;
        coming.file.rewind()?;
        start[count..].fill(0);
        Ok(*hasher.finalize().as_bytes())
    };
    match read(coming, &mut start) {
        Ok(digest) if digest == coming.digest => {}
        Ok(_) => return Some(Err("what came is not what was announced: the digests differ; send it again".into())),
        Err(e) => return Some(Err(format!("{}: {e}", coming.path.display()))),
    }
    if is_system(&start) {
        return Some(if control::available() { control::system(coming.file.as_fd()) } else { Err(no_systems()) });
    }
    let installed = match install(shared, &coming.path) {
        Ok(installed) => installed,
        Err(why) => return Some(Err(why)),
    };
    match ask(Ask::Reload)? {
        Ok(Response::Done(reloaded)) => Some(Ok(Response::Done(format!("{installed}; {reloaded}")))),
        Ok(other) => Some(Ok(other)),
        Err(why) => Some(Err(format!("{installed}, but it does not run: {why}"))),
    }
}

/// Installs a package as somebody at a terminal would, in a process of its own: whatever the package does to that, the camera
/// goes on.
fn install(shared: &Shared, package: &Path) -> Result<String, String> {
    let failed = |e: io::Error| format!("the installation cannot be started: {e}");
    let mut command = Command::new("/proc/self/exe");
    command.arg0("edge-camera").args(shared.words.iter().skip(1)).arg("--install").arg(package);
    command.env_remove("NOTIFY_SOCKET").env_remove("WATCHDOG_USEC").env_remove("WATCHDOG_PID");
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().map_err(failed)?;
    let begun = Instant::now();
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if begun.elapsed() < INSTALLATION => std::thread::sleep(TICK),
            _ => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("the installation took longer than {} s and was ended", INSTALLATION.as_secs()));
            }
        }
    };
    let text = |pipe: Option<&mut dyn Read>| {
        let mut text = vec![];
        let _ = pipe.map(|pipe| pipe.take(STEP as u64).read_to_end(&mut text));
        String::from_utf8_lossy(&text).into_owned()
    };
    if status.success() {
        let said = text(child.stdout.as_mut().map(|pipe| pipe as _));
        return Ok(said.lines().next().unwrap_or("it is installed").into());
    }
    let said = text(child.stderr.as_mut().map(|pipe| pipe as _));
    let lines: Vec<&str> = said.lines().map(|line| line.trim_start_matches("edge-camera: ")).collect();
    match lines.as_slice() {
        [] => Err(format!("the installation failed: {status}")),
        // The name of the file says nothing to whoever sent it.
        lines => Err(lines.join("; ").replace(&format!("{}: ", package.display()), "")),
    }
}

fn is_system(bytes: &[u8]) -> bool {
    bytes.get(1..).is_some_and(|rest| rest.starts_with(SYSTEM))
}

fn nothing_begun() -> String {
    "no update of this host is under way; it begins with its length and digest".into()
}

fn no_systems() -> String {
    "this is a system of a flashed card, and this camera runs on another system; its package alone can be updated"
        .into()
}

fn cannot(folder: &Path, e: &io::Error) -> String {
    format!("the update cannot be written to {}: {e}", folder.display())
}

/// Refuses what there is no space for before any of it comes.
fn room(folder: &Path, bytes: u64) -> Result<(), String> {
    // The nearest folder that is there already.
    let Some(disk) = folder.ancestors().find_map(|folder| rustix::fs::statvfs(folder).ok()) else { return Ok(()) };
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    if free >= bytes.saturating_add(MARGIN) {
        return Ok(());
    }
    Err(format!(
        "too little space in {}: {} free, and the update has {}; nothing was changed",
        folder.display(),
        Size(free),
        Size(bytes)
    ))
}
