//! Where a camera is reached: the other end of an [`Address`].

use crate::address::{Address, AddressError, Stream, serial};
use crate::noise;
use edge_package::LinkKey;
use rustix::net::sockopt;
use std::fs::{File, Permissions};
use std::io;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A host that neither asks nor hangs up in this time has gone without a word, and another one may need its place.
const IDLE: Duration = Duration::from_secs(15 * 60);
/// A host that does not take its answer in this time gets none.
const STALLED: Duration = Duration::from_secs(30);

/// Something that hosts connect to.
pub struct Listener(Kind);

enum Kind {
    Line { path: PathBuf, baud: u32 },
    Local { socket: UnixListener, path: PathBuf },
    Network { socket: TcpListener, key: LinkKey },
}

/// A host that has connected, and is not heard yet.
pub struct Arrived<'a>(Who<'a>);

enum Who<'a> {
    Line(File),
    Local(UnixStream),
    Network(TcpStream, &'a LinkKey),
}

impl Listener {
    /// Listens at an address. A local socket that nobody listens at any more is replaced; whoever may write to it may ask:
    /// its owner and group. A serial line is opened by [`Listener::accept`].
    ///
    /// # Errors
    ///
    /// Where that cannot be, or somebody else listens there.
    pub fn open(address: &Address) -> Result<Listener, AddressError> {
        let failed = |why| AddressError::Io { address: address.clone(), why };
        Ok(Listener(match address {
            Address::Serial { path, baud } => Kind::Line { path: path.clone(), baud: *baud },
            Address::Unix(path) => Kind::Local { socket: local(path).map_err(failed)?, path: path.clone() },
            Address::Tcp { host, key } => {
                let key = LinkKey::read(key)?;
                Kind::Network { socket: TcpListener::bind(host.as_str()).map_err(failed)?, key }
            }
            Address::Ssh(_) => return Err(AddressError::OneWay(address.clone())),
        }))
    }

    /// Whether there is one other end at most, which does not connect: a line is open as long as it is there.
    pub fn is_line(&self) -> bool {
        matches!(self.0, Kind::Line { .. })
    }

    /// Where it listens now, which is of interest where the kernel chose the port; `None` for a line.
    pub fn port(&self) -> Option<u16> {
        match &self.0 {
            Kind::Network { socket, .. } => socket.local_addr().ok().map(|address| address.port()),
            _ => None,
        }
    }

    /// Waits for a host.
    ///
    /// # Errors
    ///
    /// Those of the socket or line, which may pass.
    pub fn accept(&self) -> io::Result<Arrived<'_>> {
        Ok(Arrived(match &self.0 {
            Kind::Line { path, baud } => Who::Line(serial(path, *baud)?),
            Kind::Local { socket, .. } => Who::Local(socket.accept()?.0),
            Kind::Network { socket, key } => Who::Network(socket.accept()?.0, key),
        }))
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Kind::Local { path, .. } = &self.0 {
            let _ = std::fs::remove_file(path);
        }
    }
}

impl Arrived<'_> {
    /// The way to the host. Over a network this takes as long as the host takes to prove that it has the key.
    ///
    /// # Errors
    ///
    /// Where it has not, or is gone.
    pub fn open(self) -> io::Result<Stream> {
        match self.0 {
            Who::Line(file) => Stream::of_file(file),
            Who::Local(socket) => {
                socket.set_read_timeout(Some(IDLE))?;
                socket.set_write_timeout(Some(STALLED))?;
                Stream::of_socket(socket)
            }
            Who::Network(socket, key) => {
                // Times are the socket's, whichever descriptor they are set by.
                let same = socket.try_clone()?;
                let (reader, writer) = noise::respond(socket, key)?;
                same.set_read_timeout(Some(IDLE))?;
                same.set_write_timeout(Some(STALLED))?;
                sockopt::set_socket_keepalive(&same, true)?;
                Ok(Stream { reader: Box::new(reader), writer: Box::new(writer) })
            }
        }
    }
}

/// A socket at `path` for its owner and group.
fn local(path: &Path) -> io::Result<UnixListener> {
    match UnixListener::bind(path) {
        Err(e) if e.kind() == io::ErrorKind::AddrInUse => {
            if !std::fs::symlink_metadata(path)?.file_type().is_socket() {
                return Err(io::Error::new(e.kind(), "there is a file of this name, which is no socket"));
            }
            if UnixStream::connect(path).is_ok() {
                return Err(io::Error::new(e.kind(), "another program listens there"));
            }
            std::fs::remove_file(path)?;
            UnixListener::bind(path)
        }
        bound => bound,
    }
    .and_then(|socket| {
        std::fs::set_permissions(path, Permissions::from_mode(0o660))?;
        Ok(socket)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Client, Ended, PROTOCOL, Request, serve};
    use std::io::{Read, Write};

    const PATIENCE: Duration = Duration::from_secs(60);

    /// Serves the next host in a thread of its own, saying no to everything.
    fn serving(listener: Listener) -> std::thread::JoinHandle<io::Result<Ended>> {
        std::thread::spawn(move || {
            let mut stream = listener.accept()?.open()?;
            serve(&mut *stream.reader, &mut *stream.writer, false, |_| Some(Err("no".into())))
        })
    }

    fn says_no(address: &Address) {
        let mut client = Client::over(address.connect(PATIENCE).unwrap());
        let why = client.ask(&Request::Hello { protocol: PROTOCOL }, PATIENCE).unwrap_err().to_string();
        assert_eq!(why, "the camera refuses: no");
    }

    #[test]
    fn a_local_socket_is_taken_over_when_nobody_listens_at_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("link");
        let address = Address::Unix(path.clone());
        drop(UnixListener::bind(&path).unwrap());
        let listener = Listener::open(&address).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
        let why = Listener::open(&address).err().unwrap().to_string();
        assert!(why.ends_with("link: another program listens there"), "{why}");
        // That one looked whether somebody listens.
        drop(listener.accept().unwrap());
        let served = serving(listener);
        says_no(&address);
        assert_eq!(served.join().unwrap().unwrap(), Ended::Closed);
        assert!(!path.exists());
        std::fs::write(&path, "").unwrap();
        assert!(Listener::open(&address).err().unwrap().to_string().contains("no socket"));
        assert!(Listener::open(&Address::Ssh("pi@camera".into())).is_err());
    }

    /// An address in the network with a key file that only its owner may read.
    fn network(folder: &Path) -> (Listener, Address) {
        let key = folder.join("link.key");
        std::fs::write(&key, LinkKey::from_bytes([5; 32]).to_file_text()).unwrap();
        std::fs::set_permissions(&key, Permissions::from_mode(0o600)).unwrap();
        let listener = Listener::open(&Address::Tcp { host: "127.0.0.1:0".into(), key: key.clone() }).unwrap();
        let port = listener.port().unwrap();
        (listener, Address::Tcp { host: format!("127.0.0.1:{port}"), key })
    }

    #[test]
    fn over_a_network_both_need_the_key() {
        let dir = tempfile::tempdir().unwrap();
        let (listener, address) = network(dir.path());
        let served = serving(listener);
        says_no(&address);
        assert_eq!(served.join().unwrap().unwrap(), Ended::Closed);
    }

    #[test]
    fn who_has_no_key_is_not_heard() {
        let dir = tempfile::tempdir().unwrap();
        let (listener, address) = network(dir.path());
        let Address::Tcp { host, .. } = &address else { unreachable!() };
        // A longer message than a handshake has, one that ends too soon, and one of the right length.
        for garbage in [&[0xff; 300][..], &[0, 48, 1], &[[0, 48].as_slice(), &[7; 48]].concat()] {
            let mut stranger = TcpStream::connect(host).unwrap();
            stranger.write_all(garbage).unwrap();
            stranger.shutdown(std::net::Shutdown::Write).unwrap();
            let why = listener.accept().unwrap().open().map(drop).unwrap_err();
            assert!(
                matches!(why.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::UnexpectedEof),
                "{garbage:?}: {why}"
            );
            let mut nothing = vec![];
            let _ = stranger.read_to_end(&mut nothing);
            assert!(nothing.is_empty(), "{nothing:?}");
        }
    }
}
