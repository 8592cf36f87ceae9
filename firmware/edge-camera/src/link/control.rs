//! What only the system may do, asked of `edge-init`, which started this program and listens for that.

use edge_link::{Reply, Response};
use edge_system::control::{MAX_TEXT, Order, SOCKET};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags,
    SocketType, connect, recv, sendmsg, socket_with, sockopt,
};
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::time::Duration;

/// How long `edge-init` may take for what is done at once.
const SOON: Duration = Duration::from_secs(20);
/// How long a system may take to be checked, written and read back.
const SYSTEM: Duration = Duration::from_secs(15 * 60);

/// Whether this system can be asked.
pub fn available() -> bool {
    std::env::var_os(SOCKET).is_some()
}

/// Asks for something that needs nothing besides.
pub fn ask(order: &Order) -> Reply {
    asked(order, None, SOON)
}

/// Has a system bundle put into the slot that does not run.
pub fn system(file: BorrowedFd<'_>) -> Reply {
    asked(&Order::System, Some(file), SYSTEM)
}

fn asked(order: &Order, file: Option<BorrowedFd<'_>>, patience: Duration) -> Reply {
    let Some(path) = std::env::var_os(SOCKET) else {
        return Err(format!(
            "{} is for the system to do, and only that of a flashed card lets this program ask for it; on other systems use their own commands",
            order.about()
        ));
    };
    let said = exchange(Path::new(&path), order, file, patience)
        .map_err(|e| format!("the system was asked for {} and does not answer: {e}", order.about()))?;
    match said.split_once(' ') {
        Some(("ok", text)) => Ok(Response::Done(text.into())),
        Some(("no", text)) => Err(text.into()),
        _ => Err("the system gives an answer that makes no sense".into()),
    }
}

fn exchange(path: &Path, order: &Order, file: Option<BorrowedFd<'_>>, patience: Duration) -> Result<String, Errno> {
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    for direction in [sockopt::Timeout::Recv, sockopt::Timeout::Send] {
        sockopt::set_socket_timeout(socket.as_fd(), direction, Some(patience))?;
    }
    connect(&socket, &SocketAddrUnix::new(path)?)?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let files: Vec<BorrowedFd<'_>> = file.into_iter().collect();
    if !files.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(&files)) {
        return Err(Errno::NOBUFS);
    }
    let text = order.to_string();
    sendmsg(&socket, &[IoSlice::new(text.as_bytes())], &mut ancillary, SendFlags::NOSIGNAL)?;
    let mut answer = [0; MAX_TEXT];
    loop {
        match recv(&socket, &mut answer, RecvFlags::empty()) {
            Err(Errno::INTR) => {}
            Ok((_, 0)) => return Err(Errno::CONNRESET),
            Ok((_, length)) => return Ok(String::from_utf8_lossy(&answer[..length.min(answer.len())]).into_owned()),
            Err(e) => return Err(e),
        }
    }
}
