//! An emulated x86-64 machine for tests: boots Debian's kernel under QEMU, runs one script, brings its files back.
//!
//! The guest has no disk and no network. Everything it needs travels in its initramfs; what the script leaves in
//! `/result` is a directory of the host (virtio-9p). The processor is emulated (TCG): KVM is never chosen, because a
//! `/dev/kvm` that exists does not mean that it works, and because a test should run alike everywhere.

mod packages;

use std::fs::{self, File};
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use edge_rig::console::{Console, Killed, tail};
use edge_rig::{apt, cpio};

use packages::{Unpacked, file_name, libraries};

/// What the guest prints when it is set up and the script begins.
const READY: &str = "edge-guest: ready";

/// The script's exit status, in the result directory. The console would be no safe place: the kernel writes there too.
const STATUS: &str = ".status";

/// Modules every guest needs to reach the result directory.
const BASE_MODULES: [&str; 3] = ["virtio_pci", "9pnet_virtio", "9p"];

/// The first process. Any failure before the script leaves no status behind, which the host reports with the console.
const INIT: &str = r#"#!/bin/busybox sh
/bin/busybox mkdir -p /proc /sys /dev /tmp /run /result
/bin/busybox mount -t proc proc /proc
/bin/busybox --install -s /bin
export PATH=/usr/local/bin:/bin HOME=/tmp
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mount -t tmpfs tmpfs /tmp
. /environment
# The host kills the emulator when time is up. This is for a host that was killed itself.
(sleep "$DEADLINE"; poweroff -f) &
prepare() {
    while read -r module options; do
        insmod "/modules/$module.ko" $options || return 1
    done </modules/order
    mount -t 9p -o trans=virtio,version=9p2000.L,msize=131072 result /result
}
if prepare; then
    echo "edge-guest: ready"
    cd /tmp
    /bin/sh /script </dev/null
    status=$?
    # The script may have kept the kernel's errors off the console.
    [ $status = 0 ] || dmesg | tail -n 20
    sync
    # A rename is one step: the host never reads half a status.
    echo $status >/result/.status.new && mv /result/.status.new /result/.status
    # What the script left running may keep it busy; nothing is lost then, as nothing is cached.
    cd / && umount /result 2>/dev/null
fi
poweroff -f
"#;

/// An emulated machine being put together.
pub struct Guest {
    unpacked: Unpacked,
    runs: PathBuf,
    binaries: Vec<PathBuf>,
    tools: Vec<String>,
    files: Vec<(PathBuf, String)>,
    contents: Vec<(Vec<u8>, String)>,
    modules: Vec<(String, String)>,
    script: String,
    memory_mb: u32,
}

/// What a guest left behind after its script ended with 0.
pub struct GuestResult {
    /// Everything the guest printed.
    pub console: String,
    /// The files of `/result`: path relative to it, and contents.
    pub files: Vec<(String, Vec<u8>)>,
    /// From the start of QEMU to the script's first line.
    pub boot: Duration,
    /// From the start of QEMU to power-off.
    pub total: Duration,
}

impl GuestResult {
    /// A file of the result directory by its relative path.
    pub fn file(&self, name: &str) -> Result<&[u8]> {
        let found = self.files.iter().find(|(path, _)| path == name);
        let (_, data) =
            found.with_context(|| format!("the guest left no {name}; it printed:\n{}", tail(&self.console)))?;
        Ok(data)
    }
}

impl Guest {
    /// Fetches the emulator into `cache` if it is not there yet (about 110 MB). Fails with [`apt::Unavailable`] where
    /// this machine can't fetch it.
    pub fn new(cache: &Path) -> Result<Self> {
        Ok(Self {
            unpacked: Unpacked::fetch(cache)?,
            runs: cache.join("emulator"),
            binaries: Vec::new(),
            tools: Vec::new(),
            files: Vec::new(),
            contents: Vec::new(),
            modules: Vec::new(),
            script: String::new(),
            memory_mb: 512,
        })
    }

    /// Puts a binary of this machine, with the shared libraries it uses here, on the guest's path.
    pub fn with_binary(mut self, path: &Path) -> Self {
        self.binaries.push(path.to_owned());
        self
    }

    /// Puts a program of the emulator's packages (`bin/v4l2-ctl`) on the guest's path.
    pub fn with_tool(mut self, program: &str) -> Self {
        self.tools.push(program.to_owned());
        self
    }

    /// Copies a file into the guest.
    pub fn with_file(mut self, host: &Path, guest: &str) -> Self {
        self.files.push((host.to_owned(), guest.to_owned()));
        self
    }

    /// Makes a file with these bytes in the guest.
    pub fn with_bytes(mut self, bytes: Vec<u8>, guest: &str) -> Self {
        self.contents.push((bytes, guest.to_owned()));
        self
    }

    /// Inserts a kernel module, and those it depends on, before the script begins.
    pub fn with_module(mut self, name: &str, options: &str) -> Self {
        self.modules.push((name.to_owned(), options.to_owned()));
        self
    }

    /// Sets the busybox shell script to run. What it leaves in `/result` comes back; a status other than 0 is an error.
    pub fn script(mut self, script: &str) -> Self {
        script.clone_into(&mut self.script);
        self
    }

    /// Sets the memory. It holds the initramfs too, twice while it is unpacked.
    pub fn memory_mb(mut self, megabytes: u32) -> Self {
        self.memory_mb = megabytes;
        self
    }

    /// Boots, runs the script and waits for power-off. After `timeout` the emulator is killed.
    ///
    /// A failure shows the end of the console; all of it, and what the guest wrote so far, stays in a directory that
    /// the error names.
    pub fn run(self, timeout: Duration) -> Result<GuestResult> {
        static RUNS: AtomicU32 = AtomicU32::new(0);
        let number = RUNS.fetch_add(1, Ordering::Relaxed);
        let dir = self.runs.join(format!("{}-{number}", std::process::id()));
        let shared = dir.join("result");
        self.remove_abandoned()?;
        apt::remove_dir(&dir)?;
        fs::create_dir_all(&shared).with_context(|| format!("creating {}", shared.display()))?;

        let outcome = self.run_in(&dir, &shared, timeout);
        // It is large and can be made again; the rest is small and tells what happened.
        let _ = fs::remove_file(dir.join("initramfs"));
        match outcome {
            Ok(result) => {
                apt::remove_dir(&dir)?;
                Ok(result)
            }
            Err(error) => {
                // Only the latest failure is kept, so that failures don't fill the disk.
                let failed = self.runs.join("failed");
                apt::remove_dir(&failed)?;
                fs::rename(&dir, &failed).with_context(|| format!("renaming {}", dir.display()))?;
                Err(error.context(format!("the emulated machine failed; its console is in {}", failed.display())))
            }
        }
    }

    /// Removes what killed runs left: their directories are named after processes that are gone.
    fn remove_abandoned(&self) -> Result<()> {
        let Ok(entries) = fs::read_dir(&self.runs) else {
            return Ok(()); // The first run.
        };
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let process = name.split_once('-').and_then(|(process, _)| process.parse::<u32>().ok());
            if process.is_some_and(|process| !Path::new("/proc").join(process.to_string()).exists()) {
                apt::remove_dir(&entry.path())?;
            }
        }
        Ok(())
    }

    fn run_in(&self, dir: &Path, shared: &Path, timeout: Duration) -> Result<GuestResult> {
        let initramfs = dir.join("initramfs");
        self.write_initramfs(&initramfs, timeout).context("making the initramfs")?;

        let mut qemu = self.qemu(&initramfs, shared)?;
        let begin = Instant::now();
        let mut child = Killed(qemu.spawn().context("starting QEMU")?);
        let console = Console::read(&mut child.0)?;
        let mut ready = None;
        let ended = loop {
            if ready.is_none() && console.has(READY) {
                ready = Some(begin.elapsed());
            }
            if let Some(status) = child.0.try_wait()? {
                break Some(status);
            }
            if begin.elapsed() >= timeout {
                break None;
            }
            thread::sleep(Duration::from_millis(20));
        };
        let total = begin.elapsed();
        drop(child); // Closes the console's pipe where QEMU still runs.
        let text = console.finish();
        fs::write(dir.join("console.txt"), &text)?;

        let printed = format!("the console's end:\n{}", tail(&text));
        let Some(exit) = ended else {
            let phase = if ready.is_some() { "the script did not end" } else { "it did not boot" };
            bail!("{phase} within {} s; {printed}", timeout.as_secs());
        };
        ensure!(exit.success(), "QEMU ended with {exit}; {printed}");
        let Some(boot) = ready else { bail!("the guest stopped before its script; {printed}") };

        let mut files = Vec::new();
        collect(shared, shared, &mut files)?;
        let status = files.iter().position(|(path, _)| path == STATUS).map(|at| files.swap_remove(at).1);
        let status = status.map(|status| String::from_utf8_lossy(&status).trim().to_owned());
        match status.as_deref() {
            Some("0") => {}
            Some(status) => bail!("the script ended with {status}; {printed}"),
            None => bail!("the guest went down during its script; {printed}"),
        }
        files.sort();
        Ok(GuestResult { console: text, files, boot, total })
    }

    fn qemu(&self, initramfs: &Path, shared: &Path) -> Result<std::process::Command> {
        let mut qemu = self.unpacked.tree.command("bin/qemu-system-x86_64", None)?;
        for firmware in ["share/qemu", "share/seabios"] {
            qemu.arg("-L").arg(self.unpacked.tree.path(firmware)?);
        }
        let shared = shared.to_str().context("the cache directory's path is not UTF-8")?.replace(',', ",,");
        qemu.args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"]);
        qemu.args(["-machine", "q35", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2"]);
        qemu.args(["-m", &format!("{}M", self.memory_mb), "-nic", "none", "-monitor", "none", "-serial", "stdio"]);
        qemu.args(["-fsdev", &format!("local,id=result,security_model=none,path={shared}")]);
        qemu.args(["-device", "virtio-9p-pci,fsdev=result,mount_tag=result"]);
        qemu.arg("-kernel").arg(self.unpacked.kernel.image()?);
        qemu.arg("-initrd").arg(initramfs);
        // A panic restarts the machine, which `-no-reboot` turns into the end of QEMU: no need to wait for the time-out.
        qemu.args(["-append", "console=ttyS0 panic=-1 loglevel=5 mitigations=off"]);
        qemu.stdout(Stdio::piped()).stderr(Stdio::piped());
        Ok(qemu)
    }

    fn write_initramfs(&self, path: &Path, timeout: Duration) -> Result<()> {
        let out = File::create(path).with_context(|| format!("creating {}", path.display()))?;
        let mut archive = cpio::Archive::new(BufWriter::new(out));
        archive.character_device("/dev/console", 5, 1)?;
        archive.bytes("/init", INIT.as_bytes(), true)?;
        archive.file("/bin/busybox", &self.unpacked.tree.path("bin/busybox")?, true)?;
        archive.bytes("/script", self.script.as_bytes(), false)?;

        let mut wanted = BASE_MODULES.to_vec();
        wanted.extend(self.modules.iter().map(|(name, _)| name.as_str()));
        let mut order = String::new();
        for (name, bytes) in self.unpacked.kernel.modules(&wanted)? {
            let options = self.modules.iter().find(|(module, _)| *module == name).map_or("", |(_, options)| options);
            order += &format!("{name} {options}\n");
            archive.bytes(&format!("/modules/{name}.ko"), &bytes, false)?;
        }
        archive.bytes("/modules/order", order.as_bytes(), false)?;

        for tool in &self.tools {
            let (files, wrapper) = self.unpacked.tool(tool)?;
            for file in files {
                archive.file(&file.to, &file.from, true)?;
            }
            archive.bytes(&format!("/usr/local/bin/{}", file_name(Path::new(tool))?), wrapper.as_bytes(), true)?;
        }

        // Libraries keep their paths. The guest has no cache of the loader's, so their directories are named to it;
        // the tools above don't mind, as their loader is told its path.
        let mut directories: Vec<String> = Vec::new();
        for binary in &self.binaries {
            for library in libraries(binary)? {
                let place = library.to_str().context("a library's path is not UTF-8")?;
                archive.file(place, &library, true)?;
                let directory = place.rsplit_once('/').map_or("/", |(directory, _)| directory);
                if !directories.iter().any(|known| known == directory) {
                    directories.push(directory.to_owned());
                }
            }
            archive.file(&format!("/usr/local/bin/{}", file_name(binary)?), binary, true)?;
        }
        let environment =
            format!("export LD_LIBRARY_PATH='{}'\nDEADLINE={}\n", directories.join(":"), timeout.as_secs() + 10);
        archive.bytes("/environment", environment.as_bytes(), false)?;

        for (host, guest) in &self.files {
            archive.file(guest, host, false)?;
        }
        for (bytes, guest) in &self.contents {
            archive.bytes(guest, bytes, false)?;
        }
        archive.finish()?;
        Ok(())
    }
}

/// Reads the regular files below `dir` into `files`. The guest may have made links, which are not followed.
fn collect(base: &Path, dir: &Path, files: &mut Vec<(String, Vec<u8>)>) -> Result<()> {
    for entry in fs::read_dir(dir).with_context(|| format!("reading {}", dir.display()))? {
        let entry = entry?;
        let path = entry.path();
        let kind = entry.file_type()?;
        if kind.is_dir() {
            collect(base, &path, files)?;
        } else if kind.is_file() {
            let name = path.strip_prefix(base).unwrap_or(&path).to_string_lossy().into_owned();
            files.push((name, fs::read(&path).with_context(|| format!("reading {}", path.display()))?));
        }
    }
    Ok(())
}
