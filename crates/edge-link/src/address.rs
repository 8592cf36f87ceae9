//! Where a camera is, and the way there.

use crate::noise;
use edge_package::{KeyError, LinkKey};
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::str::FromStr;
use std::time::{Duration, Instant};

/// What a serial line runs at where nothing else is said.
const BAUD: u32 = 115_200;

/// Where a camera listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// `serial:/dev/ttyUSB0[,115200]`: a serial line or a virtio port.
    Serial {
        /// The device.
        path: PathBuf,
        /// Bits per second; other devices than serial lines have none.
        baud: u32,
    },
    /// `tcp:HOST:PORT,key=FILE`: inside Noise.
    Tcp {
        /// Host and port.
        host: String,
        /// The file of the key that both ends share.
        key: PathBuf,
    },
    /// `unix:PATH`: a local socket.
    Unix(PathBuf),
    /// `ssh:USER@HOST`: through the runtime's socket on that machine.
    Ssh(String),
}

/// Why an address is none, or leads nowhere.
#[derive(Debug, thiserror::Error)]
pub enum AddressError {
    /// It is not written like one.
    #[error(
        "{0:?} is no camera's address; there are serial:/dev/ttyUSB0[,115200], tcp:HOST:PORT,key=FILE, unix:PATH and ssh:USER@HOST"
    )]
    Syntax(String),
    /// TCP without a key.
    #[error("{0:?} names no key; over TCP both ends need the same: tcp:HOST:PORT,key=FILE")]
    NoKey(String),
    /// A speed that no serial line has.
    #[error("{0:?} is no speed of a serial line")]
    Baud(String),
    /// A way to a camera that no camera can listen at.
    #[error(
        "{0} leads to a camera, but is no place to listen at; there are serial:/dev/ttyS1[,115200], tcp:ADDRESS:PORT,key=FILE and unix:PATH"
    )]
    OneWay(Address),
    /// The key cannot be used.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// It cannot be opened or reached.
    #[error("{address}: {why}")]
    Io {
        /// Where.
        address: Address,
        /// The cause; part of the message, so not its source.
        why: io::Error,
    },
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Serial { path, baud: BAUD } => write!(f, "serial:{}", path.display()),
            Address::Serial { path, baud } => write!(f, "serial:{},{baud}", path.display()),
            Address::Tcp { host, key } => write!(f, "tcp:{host},key={}", key.display()),
            Address::Unix(path) => write!(f, "unix:{}", path.display()),
            Address::Ssh(host) => write!(f, "ssh:{host}"),
        }
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Address, AddressError> {
        let syntax = || AddressError::Syntax(text.into());
        let (kind, rest) = text.split_once(':').ok_or_else(syntax)?;
        if rest.is_empty() {
            return Err(syntax());
        }
        match kind {
            "serial" => match rest.split_once(',') {
                None => Ok(Address::Serial { path: rest.into(), baud: BAUD }),
                Some((path, baud)) => match baud.parse() {
                    Ok(baud) if baud > 0 => Ok(Address::Serial { path: path.into(), baud }),
                    _ => Err(AddressError::Baud(baud.into())),
                },
            },
            "tcp" => {
                let (host, key) = rest.split_once(",key=").ok_or_else(|| AddressError::NoKey(text.into()))?;
                let port = host.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
                if port.is_none() || key.is_empty() {
                    return Err(syntax());
                }
                Ok(Address::Tcp { host: host.into(), key: key.into() })
            }
            "unix" => Ok(Address::Unix(rest.into())),
            // What ssh would take for an option is no host.
            "ssh" if !rest.starts_with('-') => Ok(Address::Ssh(rest.into())),
            _ => Err(syntax()),
        }
    }
}

/// Both directions of an open way, to be used by two threads.
pub struct Stream {
    /// What comes from the other end.
    pub reader: Box<dyn Read + Send>,
    /// What goes there.
    pub writer: Box<dyn Write + Send>,
}

impl Stream {
    /// Of two ends that are one file.
    ///
    /// # Errors
    ///
    /// Where there are no descriptors left.
    pub fn of_file(file: File) -> io::Result<Stream> {
        Ok(Stream { reader: Box::new(file.try_clone()?), writer: Box::new(file) })
    }

    /// Of a local socket, such as one of a pair.
    ///
    /// # Errors
    ///
    /// Where there are no descriptors left.
    pub fn of_socket(socket: UnixStream) -> io::Result<Stream> {
        Ok(Stream { reader: Box::new(socket.try_clone()?), writer: Box::new(Socket(socket)) })
    }
}

/// The writing half of a socket, which hangs up.
struct Socket(UnixStream);

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let _ = self.0.shutdown(std::net::Shutdown::Both);
    }
}

impl Address {
    /// The same with paths that are relative to `folder`.
    pub fn beside(self, folder: &Path) -> Address {
        match self {
            Address::Serial { path, baud } => Address::Serial { path: folder.join(path), baud },
            Address::Tcp { host, key } => Address::Tcp { host, key: folder.join(key) },
            Address::Unix(path) => Address::Unix(folder.join(path)),
            Address::Ssh(host) => Address::Ssh(host),
        }
    }

    /// Opens the way there; a camera that is not there yet is waited for up to `patience`.
    ///
    /// # Errors
    ///
    /// Where it leads nowhere, or the key cannot be read.
    pub fn connect(&self, patience: Duration) -> Result<Stream, AddressError> {
        let failed = |why| AddressError::Io { address: self.clone(), why };
        match self {
            Address::Serial { path, baud } => serial(path, *baud).and_then(Stream::of_file).map_err(failed),
            Address::Unix(path) => {
                again(patience, || UnixStream::connect(path)).and_then(Stream::of_socket).map_err(failed)
            }
            Address::Tcp { host, key } => {
                let key = LinkKey::read(key)?;
                let tcp = again(patience, || tcp(host, patience)).map_err(failed)?;
                let (reader, writer) = noise::initiate(tcp, &key).map_err(failed)?;
                Ok(Stream { reader: Box::new(reader), writer: Box::new(writer) })
            }
            Address::Ssh(host) => ssh(host).map_err(failed),
        }
    }
}

/// Tries until it works or `patience` is spent, and says why the last time failed.
fn again<T>(patience: Duration, mut attempt: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    let end = Instant::now() + patience;
    loop {
        match attempt() {
            Err(_) if Instant::now() < end => std::thread::sleep(Duration::from_millis(200)),
            other => return other,
        }
    }
}

fn tcp(host: &str, patience: Duration) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "this name has no address");
    for address in host.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, patience.max(Duration::from_millis(1))) {
            Ok(tcp) => return Ok(tcp),
            Err(e) => last = e,
        }
    }
    Err(last)
}

/// Opens a serial line so that bytes pass as they are; something that is no terminal, such as a virtio port, has nothing
/// to be set.
///
/// # Errors
///
/// Where it cannot be opened, or does not run at that speed.
pub(crate) fn serial(path: &Path, baud: u32) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    let flags = rustix::fs::OFlags::NOCTTY.bits() as i32;
    let file = OpenOptions::new().read(true).write(true).custom_flags(flags).open(path)?;
    if !rustix::termios::isatty(&file) {
        return Ok(file);
    }
    let mut settings = tcgetattr(&file)?;
    settings.make_raw();
    settings.set_speed(baud)?;
    // Two wires are enough; a modem that hangs up is no reason to stop.
    settings.control_modes |= rustix::termios::ControlModes::CLOCAL | rustix::termios::ControlModes::CREAD;
    tcsetattr(&file, OptionalActions::Flush, &settings)?;
    Ok(file)
}

/// The runtime's socket on another machine, through a program that both ends' users trust already.
fn ssh(host: &str) -> io::Result<Stream> {
    let mut child = Command::new("ssh")
        .args(["-T", "-o", "BatchMode=yes", "--", host, "edge-camera --link-stdio"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|e| io::Error::new(e.kind(), format!("cannot start ssh (apt package openssh-client): {e}")))?;
    match (child.stdout.take(), child.stdin.take()) {
        (Some(reader), Some(writer)) => {
            Ok(Stream { reader: Box::new(reader), writer: Box::new(Remote { writer: Some(writer), child }) })
        }
        _ => Err(io::Error::other("ssh has no pipes")),
    }
}

/// The writing half, and the program that carries it.
struct Remote<W> {
    writer: Option<W>,
    child: Child,
}

impl<W: Write> Write for Remote<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.writer.as_mut().ok_or(io::ErrorKind::BrokenPipe)?.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.as_mut().ok_or(io::ErrorKind::BrokenPipe)?.flush()
    }
}

impl<W> Drop for Remote<W> {
    fn drop(&mut self) {
        // The end of its input ends it; one that is stuck is not waited for.
        drop(self.writer.take());
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn addresses() {
        for text in [
            "serial:/dev/ttyUSB0",
            "serial:/dev/ttyAMA0,921600",
            "tcp:camera.local:7070,key=link.key",
            "tcp:[::1]:7070,key=link.key",
            "unix:/run/edge-camera/link",
            "ssh:pi@camera",
        ] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
        assert_eq!("serial:/dev/x,115200".parse::<Address>().unwrap().to_string(), "serial:/dev/x");
        for (text, part) in [
            ("camera", "no camera's address"),
            ("udp:camera:1", "no camera's address"),
            ("unix:", "no camera's address"),
            ("ssh:-oProxyCommand=x", "no camera's address"),
            ("tcp:camera:7070", "names no key"),
            ("tcp:camera,key=x", "no camera's address"),
            ("tcp:camera:70707,key=x", "no camera's address"),
            ("serial:/dev/x,fast", "\"fast\" is no speed"),
            ("serial:/dev/x,0", "no speed"),
        ] {
            let why = text.parse::<Address>().unwrap_err().to_string();
            assert!(why.contains(part), "{text}: {why}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_text_is_an_address_or_an_error(text in "(serial|tcp|unix|ssh)?:?.{0,30}") {
            if let Ok(address) = text.parse::<Address>() {
                prop_assert_eq!(address.to_string().parse::<Address>().unwrap(), address);
            }
        }
    }

    #[test]
    fn paths_may_be_relative_to_a_folder() {
        for (text, expected) in [
            ("serial:/dev/x,9600", "serial:/dev/x,9600"),
            ("tcp:camera:7070,key=link.key", "tcp:camera:7070,key=/boot/link.key"),
            ("unix:link", "unix:/boot/link"),
            ("ssh:pi@camera", "ssh:pi@camera"),
        ] {
            assert_eq!(text.parse::<Address>().unwrap().beside(Path::new("/boot")).to_string(), expected);
        }
    }

    #[test]
    fn what_cannot_be_reached_says_where() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("none");
        for address in [Address::Unix(path.clone()), Address::Serial { path: path.clone(), baud: BAUD }] {
            let why = address.connect(Duration::ZERO).map(drop).unwrap_err().to_string();
            assert!(why.contains("none: No such file"), "{why}");
        }
        let tcp = Address::Tcp { host: "127.0.0.1:1".into(), key: path };
        assert!(tcp.connect(Duration::ZERO).map(drop).unwrap_err().to_string().contains("none: No such file"));
    }
}
