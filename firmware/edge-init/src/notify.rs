//! The receiving side of `sd_notify`: a socket that the camera program tells of its state on, as it would tell systemd.

use anyhow::Context;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SocketAddrUnix, SocketFlags,
    SocketType, bind, recvmsg, socket_with, sockopt,
};
use rustix::process::Pid;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// What was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// READY=1.
    Ready,
    /// WATCHDOG=1.
    Alive,
}

/// The socket.
pub struct Notify {
    socket: OwnedFd,
    path: PathBuf,
}

impl Notify {
    /// Makes the socket at `path`, for everybody to write to: who wrote is looked at.
    pub fn open(path: &Path) -> anyhow::Result<Notify> {
        let open = || -> anyhow::Result<OwnedFd> {
            let _ = std::fs::remove_file(path);
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let socket = socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None)?;
            sockopt::set_socket_passcred(&socket, true)?;
            bind(&socket, &SocketAddrUnix::new(path)?)?;
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o622))?;
            Ok(socket)
        };
        let socket = open().with_context(|| format!("cannot make the socket {}", path.display()))?;
        Ok(Notify { socket, path: path.into() })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All that the process `from` told since this was asked last. What others say is passed over: a process that the
    /// camera program started, or the one before it.
    pub fn told(&self, from: Option<Pid>) -> Vec<Told> {
        let mut told = vec![];
        loop {
            let mut text = [0; 4096];
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4), ScmCredentials(1))];
            let mut ancillary = RecvAncillaryBuffer::new(&mut space);
            let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
            let Ok(message) = recvmsg(&self.socket, &mut [IoSliceMut::new(&mut text)], &mut ancillary, flags) else {
                return told;
            };
            // Descriptors that came along are closed as they are dropped.
            let sender = ancillary.drain().find_map(|part| match part {
                RecvAncillaryMessage::ScmCredentials(who) => Some(who.pid),
                _ => None,
            });
            if sender.is_some() && sender == from && !message.flags.contains(ReturnFlags::TRUNC) {
                told.extend(parse(&text[..message.bytes]));
            }
        }
    }
}

impl AsFd for Notify {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn parse(text: &[u8]) -> Vec<Told> {
    text.split(|byte| *byte == b'\n')
        .filter_map(|line| match line {
            b"READY=1" => Some(Told::Ready),
            b"WATCHDOG=1" => Some(Told::Alive),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_message_does_harm(text in prop::collection::vec(prop_oneof![
            Just(b"READY=1".to_vec()),
            Just(b"WATCHDOG=1".to_vec()),
            prop::collection::vec(any::<u8>().prop_filter("no newline", |byte| *byte != b'\n'), 0..40),
        ], 0..10)) {
            let expected = text.iter().filter(|line| [&b"READY=1"[..], b"WATCHDOG=1"].contains(&line.as_slice())).count();
            prop_assert_eq!(parse(&text.join(&b'\n')).len(), expected);
        }
    }
    use std::os::unix::net::UnixDatagram;

    #[test]
    fn only_the_program_itself_is_listened_to() {
        let dir = tempfile::tempdir().unwrap();
        let notify = Notify::open(&dir.path().join("notify")).unwrap();
        let client = UnixDatagram::unbound().unwrap();
        let us = rustix::process::getpid();
        for text in ["READY=1\nSTATUS=a\nWATCHDOG=1", "STATUS=WATCHDOG=1", "WATCHDOG=1\n", "", "READY=10"] {
            client.send_to(text.as_bytes(), notify.path()).unwrap();
        }
        client.send_to(&[b'\n'; 5000], notify.path()).unwrap();
        assert_eq!(notify.told(Some(us)), [Told::Ready, Told::Alive, Told::Alive]);
        assert_eq!(notify.told(Some(us)), []);
        for from in [None, Some(Pid::INIT)] {
            client.send_to(b"WATCHDOG=1", notify.path()).unwrap();
            assert_eq!(notify.told(from), []);
        }
        // A socket that was left behind is replaced.
        Notify::open(notify.path()).unwrap();
    }
}
