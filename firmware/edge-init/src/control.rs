//! Orders of the camera program, where its configuration lets a host change things: the clock, the power, the system. They
//! come on a socket that only its user and root can open ([`edge_system::control`]), and nothing here waits for anybody.

use crate::child::Child;
use crate::keeper::{Ending, Exit};
use crate::{say, time};
use anyhow::{Context, bail, ensure};
use edge_package::TrustPolicy;
use edge_system::control::{MAX_TEXT, Order};
use edge_system::disk::{Disk, FileDisk};
use edge_system::layout::Layout;
use edge_system::slot::Slot;
use edge_system::system::SystemBundle;
use edge_system::update;
use rustix::event::{PollFd, PollFlags};
use rustix::fs::{Mode, Uid, chmod, chown};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendFlags, SocketAddrUnix,
    SocketFlags, SocketType, accept_with, bind, listen, recvmsg, send, socket_with, sockopt,
};
use rustix::process::{Pid, geteuid};
use std::io::{IoSliceMut, Read};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

/// Connections at once that have not asked yet; the oldest gives way.
const WAITING: usize = 4;

/// The socket, and what is under way.
pub struct Control {
    socket: OwnedFd,
    path: PathBuf,
    /// Whose orders are taken, besides root's.
    user: Uid,
    waiting: Vec<OwnedFd>,
    /// The disk, and the slot that this system was started from.
    disk: Option<(PathBuf, String)>,
    update: Option<Update>,
}

/// A system that is being written, by a process of its own.
struct Update {
    child: Child,
    /// Who waits for its end.
    asker: OwnedFd,
    last: String,
}

impl Control {
    /// Makes the socket at `path` for `user`, or for this process's own.
    pub fn open(path: &Path, user: Option<u32>, disk: Option<(PathBuf, String)>) -> anyhow::Result<Control> {
        let user = user.map_or_else(geteuid, Uid::from_raw);
        let open = || -> anyhow::Result<OwnedFd> {
            let _ = std::fs::remove_file(path);
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
            bind(&socket, &SocketAddrUnix::new(path)?)?;
            chmod(path, Mode::from_raw_mode(0o600))?;
            chown(path, Some(user), None)?;
            listen(&socket, 8)?;
            Ok(socket)
        };
        let socket = open().with_context(|| format!("cannot make the socket {}", path.display()))?;
        Ok(Control { socket, path: path.into(), user, waiting: vec![], disk, update: None })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where to look for news.
    pub fn polls(&self) -> impl Iterator<Item = PollFd<'_>> {
        let sockets = std::iter::once(&self.socket).chain(&self.waiting);
        let child = self.update.as_ref().and_then(|update| update.child.poll());
        sockets.map(|socket| PollFd::new(socket, PollFlags::IN)).chain(child)
    }

    /// Takes what orders there are; those that the whole device follows.
    pub fn orders(&mut self) -> Vec<Ending> {
        if let Some(update) = &mut self.update {
            update.tell(false);
        }
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        // Whoever connects without end is heard the next time.
        for _ in 0..WAITING {
            let Ok(asker) = accept_with(&self.socket, flags) else { break };
            let who = sockopt::socket_peercred(&asker);
            if who.is_ok_and(|who| who.uid == self.user || who.uid.is_root()) {
                self.waiting.push(asker);
            }
        }
        let more = self.waiting.len().saturating_sub(WAITING);
        self.waiting.drain(..more);
        let mut endings = vec![];
        for asker in std::mem::take(&mut self.waiting) {
            match heard(&asker) {
                Heard::Nothing => self.waiting.push(asker),
                Heard::Gone => {}
                Heard::Packet(text, file) => endings.extend(self.obey(&text, file, asker)),
            }
        }
        endings
    }

    fn obey(&mut self, text: &str, file: Option<OwnedFd>, asker: OwnedFd) -> Option<Ending> {
        let order = match text.parse() {
            Ok(order) => order,
            Err(why) => {
                answer(&asker, &Err(why));
                return None;
            }
        };
        match order {
            Order::Time { unix_ns } => {
                answer(&asker, &set_time(unix_ns));
                None
            }
            Order::Reboot => {
                say::say("a host wants the device to start anew");
                answer(&asker, &Ok("the device starts anew".into()));
                Some(Ending::Reboot)
            }
            Order::Off => {
                say::say("a host wants the device to be switched off");
                answer(&asker, &Ok("the device is switched off".into()));
                Some(Ending::PowerOff)
            }
            Order::System => {
                if let Err(why) = self.begin(file, &asker) {
                    answer(&asker, &Err(format!("{why:#}")));
                }
                None
            }
        }
    }

    /// Has a system checked and written.
    fn begin(&mut self, file: Option<OwnedFd>, asker: &OwnedFd) -> anyhow::Result<()> {
        ensure!(self.update.is_none(), "another update of the system is being written");
        let (disk, slot) = self.disk.as_ref().context("this system was started from no disk")?;
        let file = file.context("no bundle came along")?;
        let program = std::env::current_exe().unwrap_or_else(|_| "/system/bin/edge-init".into());
        let mut command = Command::new(program);
        command.arg("update").arg("--disk").arg(disk).args(["--running", slot]).env_clear();
        let asker = asker.try_clone()?;
        let child = Child::start_with(&mut command, Stdio::from(file)).context("the update cannot be started")?;
        say::say("a host sends an update of the system");
        self.update = Some(Update { child, asker, last: String::new() });
        Ok(())
    }

    /// Whether the process that ended is the one that writes a system.
    pub fn ended(&mut self, pid: Pid, exit: Exit) -> bool {
        let Some(mut update) = self.update.take_if(|update| update.child.pid == pid) else { return false };
        update.tell(true);
        let last = std::mem::take(&mut update.last);
        answer(
            &update.asker,
            &match (exit, last.is_empty()) {
                (Exit::Code(0), _) => Ok(last),
                (_, false) => Err(last),
                (exit, true) => Err(format!("the update ended without a word: {exit:?}")),
            },
        );
        true
    }
}

impl Update {
    fn tell(&mut self, end: bool) {
        for line in self.child.lines(end) {
            say::forward(&format!("update: {line}"));
            self.last = line;
        }
    }
}

enum Heard {
    Nothing,
    Gone,
    Packet(String, Option<OwnedFd>),
}

fn heard(asker: &OwnedFd) -> Heard {
    let mut text = [0; MAX_TEXT];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
    let message = match recvmsg(asker, &mut [IoSliceMut::new(&mut text)], &mut ancillary, flags) {
        Ok(message) if message.bytes > 0 && !message.flags.contains(ReturnFlags::TRUNC) => message,
        Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => return Heard::Nothing,
        _ => return Heard::Gone,
    };
    // What else came along is closed as it is dropped.
    let file = ancillary.drain().find_map(|part| match part {
        RecvAncillaryMessage::ScmRights(mut files) => files.next(),
        _ => None,
    });
    Heard::Packet(String::from_utf8_lossy(&text[..message.bytes]).into_owned(), file)
}

/// Whoever does not take its answer has none.
fn answer(asker: &OwnedFd, what: &Result<String, String>) {
    let mut text = match what {
        Ok(text) => format!("ok {text}"),
        Err(why) => format!("no {why}"),
    };
    while text.len() > MAX_TEXT {
        text.pop();
    }
    let _ = send(asker, text.as_bytes(), SendFlags::NOSIGNAL | SendFlags::DONTWAIT);
}

fn set_time(unix_ns: u64) -> Result<String, String> {
    if !crate::down::is_first() {
        return Err("only the first process sets the clock, and this one is not it".into());
    }
    let time = SystemTime::UNIX_EPOCH + Duration::from_nanos(unix_ns);
    time::set(time).map_err(|why| format!("the clock cannot be set: {why}"))?;
    let text = format!("the clock is set to {}", humantime::format_rfc3339_seconds(time));
    say::say(&format!("a host wants it: {text}"));
    Ok(text)
}

/// Checks the system bundle on standard input and puts it on trial in the slot that does not run. What it did is printed.
pub fn update(disk: &Path, running: &str) -> anyhow::Result<()> {
    let running = Slot::from_name(running).with_context(|| format!("{running:?} is no slot"))?;
    let mut disk = FileDisk::open_writable(disk).with_context(|| disk.display().to_string())?;
    let layout = Layout::from_disk(&disk)?;
    let room = layout.slot(running.other());
    let bytes = taken(std::io::stdin().lock(), room.end - room.start)?;
    let bundle = SystemBundle::from_bytes(bytes, &TrustPolicy::default())?;
    let text = put(&mut disk, &bundle, running)?;
    println!("{text}");
    Ok(())
}

/// All of it, into memory: its owner could change the file while it is looked at.
fn taken(mut file: impl Read, most: u64) -> anyhow::Result<Vec<u8>> {
    let mut bytes = vec![];
    file.by_ref().take(most + 1).read_to_end(&mut bytes).context("the bundle cannot be read")?;
    if bytes.len() as u64 > most {
        bail!("the bundle is longer than a slot, which has {most} bytes");
    }
    Ok(bytes)
}

fn put(disk: &mut dyn Disk, bundle: &SystemBundle, running: Slot) -> anyhow::Result<String> {
    let plan = update::check_system(disk, bundle, Some(running), &mut |_| {})?;
    let on_trial = plan.running.is_some();
    update::write_system(disk, &plan, bundle, &mut |_| {})?;
    let (slot, version) = (plan.target, &bundle.manifest().version);
    let how = if on_trial { "on trial from" } else { "which runs from" };
    Ok(format!("slot {slot} has system {version}, {how} the next start on"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, connect, recv, sendmsg};
    use std::io::IoSlice;
    use std::os::fd::AsFd;

    fn open(folder: &Path) -> Control {
        Control::open(&folder.join("control"), None, None).unwrap()
    }

    fn asker(control: &Control) -> OwnedFd {
        let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        connect(&socket, &SocketAddrUnix::new(control.path()).unwrap()).unwrap();
        socket
    }

    fn ask(control: &mut Control, text: &[u8]) -> (Vec<Ending>, String) {
        let asker = asker(control);
        send(&asker, text, SendFlags::NOSIGNAL).unwrap();
        let endings = control.orders();
        (endings, said(&asker))
    }

    fn said(asker: &OwnedFd) -> String {
        let mut text = [0; MAX_TEXT];
        let (_, length) = recv(asker, &mut text, RecvFlags::DONTWAIT).unwrap();
        String::from_utf8_lossy(&text[..length]).into_owned()
    }

    #[test]
    fn orders_are_obeyed_and_answered() {
        let dir = tempfile::tempdir().unwrap();
        let mut control = open(dir.path());
        assert_eq!(ask(&mut control, b"reboot"), (vec![Ending::Reboot], "ok the device starts anew".into()));
        assert_eq!(ask(&mut control, b"off"), (vec![Ending::PowerOff], "ok the device is switched off".into()));
        // This machine's clock is not a test's to set.
        let (none, why) = ask(&mut control, b"time 1700000000000000000");
        assert!(none.is_empty() && why.starts_with("no only the first process"), "{why}");
        for odd in [&b"dance"[..], b"time soon", b"time -1", b"\xff", b"reboot now"] {
            let (none, why) = ask(&mut control, odd);
            assert!(
                none.is_empty() && why.starts_with("no ") && why.ends_with("is no order that is known here"),
                "{why}"
            );
        }
        let (none, why) = ask(&mut control, b"system");
        assert!(none.is_empty() && why == "no this system was started from no disk", "{why}");
        control.disk = Some(("/dev/null".into(), "a".into()));
        assert_eq!(ask(&mut control, b"system").1, "no no bundle came along");
    }

    #[test]
    fn who_connects_and_says_nothing_gives_way() {
        let dir = tempfile::tempdir().unwrap();
        let mut control = open(dir.path());
        let silent: Vec<OwnedFd> = (0..7).map(|_| asker(&control)).collect();
        for _ in 0..3 {
            assert!(control.orders().is_empty());
        }
        assert_eq!(control.waiting.len(), WAITING);
        assert_eq!(ask(&mut control, b"reboot").0, [Ending::Reboot]);
        drop(silent);
        assert!(control.orders().is_empty());
        assert!(control.waiting.is_empty());
        // One that hangs up at once, and one whose descriptors nobody wants.
        drop(asker(&control));
        let generous = asker(&control);
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let file = std::fs::File::open("/dev/null").unwrap();
        let files = [file.as_fd(), file.as_fd()];
        assert!(ancillary.push(SendAncillaryMessage::ScmRights(&files)));
        sendmsg(&generous, &[IoSlice::new(b"off")], &mut ancillary, SendFlags::NOSIGNAL).unwrap();
        assert_eq!(control.orders(), [Ending::PowerOff]);
        assert!(said(&generous).starts_with("ok "));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, cases: 64, ..ProptestConfig::default() })]

        #[test]
        fn no_packet_does_harm(text in prop::collection::vec(any::<u8>(), 1..5000)) {
            let dir = tempfile::tempdir().unwrap();
            let mut control = open(dir.path());
            let asker = asker(&control);
            send(&asker, &text, SendFlags::NOSIGNAL).unwrap();
            let endings = control.orders();
            prop_assert!(endings.is_empty() || text == b"off" || text == b"reboot");
            prop_assert!(control.waiting.is_empty());
        }
    }

    #[test]
    fn a_bundle_is_no_longer_than_a_slot() {
        assert_eq!(taken(&b"0123456789"[..], 10).unwrap(), b"0123456789");
        assert!(taken(&b"0123456789a"[..], 10).unwrap_err().to_string().contains("longer than a slot"));
    }
}
