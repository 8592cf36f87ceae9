//! `--link-stdio`: standard input and output as a way to the camera that runs here, for ssh.

use crate::stop::Failure;
use anyhow::Context;
use edge_link::Address;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Where a service has its socket.
const SERVICE: &str = "/run/edge-camera/link";

/// Whose socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bridge {
    /// The first one of the configuration, or a service's.
    Configured,
    /// This one.
    To(PathBuf),
}

impl FromStr for Bridge {
    type Err = String;

    fn from_str(text: &str) -> Result<Bridge, String> {
        match text.strip_prefix("unix:") {
            Some(path) if !path.is_empty() => Ok(Bridge::To(path.into())),
            _ if text.is_empty() => Ok(Bridge::Configured),
            _ => Err(format!("{text:?} is no socket of this machine; unix:PATH is needed")),
        }
    }
}

/// Carries bytes between standard input and output and the socket until either end has no more.
pub fn run(bridge: &Bridge, configured: &[Address]) -> Result<(), Failure> {
    let sockets = configured.iter().filter_map(|address| match address {
        Address::Unix(path) => Some(path.as_path()),
        _ => None,
    });
    let path = match bridge {
        Bridge::To(path) => path,
        Bridge::Configured => sockets.into_iter().next().unwrap_or(Path::new(SERVICE)),
    };
    let socket = UnixStream::connect(path)
        .with_context(|| format!("no camera that runs here can be asked at unix:{}", path.display()))
        .map_err(Failure::usage)?;
    let mut to = socket.try_clone().map_err(anyhow::Error::from)?;
    // Blocked reading what never comes, it ends with the program.
    std::thread::spawn(move || {
        let _ = carry(&mut io::stdin().lock(), &mut to);
        let _ = to.shutdown(Shutdown::Write);
    });
    // Who reads this may hang up at any time, and so may the camera.
    let _ = carry(&mut &socket, &mut io::stdout().lock());
    Ok(())
}

/// As [`std::io::copy`], but nothing stays in a buffer.
fn carry(from: &mut dyn Read, to: &mut dyn Write) -> io::Result<()> {
    let mut buffer = vec![0; 1 << 16];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => {
                to.write_all(&buffer[..count])?;
                to.flush()?;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bridges() {
        assert_eq!("".parse(), Ok(Bridge::Configured));
        assert_eq!("unix:/run/x".parse(), Ok(Bridge::To("/run/x".into())));
        for wrong in ["unix:", "/run/x", "tcp:x:1,key=y", "ssh:a@b"] {
            assert!(wrong.parse::<Bridge>().is_err(), "{wrong}");
        }
    }
}
