//! TCP inside [Noise](https://noiseprotocol.org/noise.html), `Noise_NNpsk0_25519_ChaChaPoly_BLAKE2s` (revision 34): both
//! ends hold one key of 32 bytes, which proves each to the other; the keys that encrypt are made anew for each
//! connection.
//!
//! The handshake is two messages, `-> psk, e` and `<- e, ee`, with empty payloads. Each Noise
//! message is preceded by its length, 16 bits big-endian. After the handshake the payloads are one stream of bytes in each direction, numbered from 0, so that none
//! can be repeated, left out or moved.

use edge_package::LinkKey;
use snow::{Builder, HandshakeState, StatelessTransportState};
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

const PATTERN: &str = "Noise_NNpsk0_25519_ChaChaPoly_BLAKE2s";
/// Binds the key to what it is used for.
const PROLOGUE: &[u8] = b"edge-pack link 1";
/// The longest Noise message, by its specification.
const MAX_MESSAGE: usize = 65_535;
/// What encryption adds to each.
const TAG: usize = 16;
/// How long the handshake may take: without the key nobody holds a connection for longer.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// The length of its messages: a public key and a tag.
const HANDSHAKE_MESSAGE: usize = 32 + TAG;

/// The half that reads.
pub struct NoiseReader {
    tcp: TcpStream,
    state: Arc<StatelessTransportState>,
    nonce: u64,
    payload: Vec<u8>,
    taken: usize,
}

/// The half that writes.
pub struct NoiseWriter {
    tcp: TcpStream,
    state: Arc<StatelessTransportState>,
    nonce: u64,
}

/// The side that connected.
///
/// # Errors
///
/// [`io::ErrorKind::PermissionDenied`] where the other end has another key.
pub fn initiate(tcp: TcpStream, key: &LinkKey) -> io::Result<(NoiseReader, NoiseWriter)> {
    handshake(tcp, builder(key)?.build_initiator().map_err(denied)?)
}

/// The side that was connected to.
///
/// # Errors
///
/// [`io::ErrorKind::PermissionDenied`] where the other end has another key.
pub fn respond(tcp: TcpStream, key: &LinkKey) -> io::Result<(NoiseReader, NoiseWriter)> {
    handshake(tcp, builder(key)?.build_responder().map_err(denied)?)
}

fn builder(key: &LinkKey) -> io::Result<Builder<'_>> {
    let builder = Builder::new(PATTERN.parse().map_err(denied)?);
    builder.psk(0, key.bytes()).and_then(|b| b.prologue(PROLOGUE)).map_err(denied)
}

fn handshake(mut tcp: TcpStream, mut state: HandshakeState) -> io::Result<(NoiseReader, NoiseWriter)> {
    tcp.set_nodelay(true)?;
    tcp.set_write_timeout(Some(HANDSHAKE))?;
    let end = Instant::now() + HANDSHAKE;
    let mut buffer = vec![0; MAX_MESSAGE];
    while !state.is_handshake_finished() {
        if state.is_my_turn() {
            let length = state.write_message(&[], &mut buffer).map_err(denied)?;
            send(&mut tcp, &buffer[..length])?;
        } else {
            let message = receive_by(end, &mut tcp)?;
            state.read_message(&message, &mut buffer).map_err(denied)?;
        }
    }
    let state = Arc::new(state.into_stateless_transport_mode().map_err(denied)?);
    tcp.set_read_timeout(None)?;
    let reader = NoiseReader { tcp: tcp.try_clone()?, state: state.clone(), nonce: 0, payload: vec![], taken: 0 };
    Ok((reader, NoiseWriter { tcp, state, nonce: 0 }))
}

fn denied(why: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, format!("the other end does not have this key ({why})"))
}

fn send(tcp: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(io::Error::other)?;
    tcp.write_all(&[&length.to_be_bytes(), message].concat())
}

/// A message of the handshake, which takes no longer than until `end`, however slowly its bytes come.
fn receive_by(end: Instant, tcp: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut message = [0; 2 + HANDSHAKE_MESSAGE];
    let mut filled = 0;
    while filled < message.len() {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "the other end does not shake hands"));
        }
        tcp.set_read_timeout(Some(left))?;
        match tcp.read(&mut message[filled..]) {
            Ok(0) => return Err(denied("the other end closed the connection")),
            Ok(count) => filled += count,
            Err(e) if matches!(e.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) => {}
            Err(e) => return Err(e),
        }
        if filled >= 2 && usize::from(u16::from_be_bytes([message[0], message[1]])) != HANDSHAKE_MESSAGE {
            return Err(denied("what it says is no handshake"));
        }
    }
    Ok(message[2..].to_vec())
}

/// The next Noise message; none where the stream ends before one.
fn receive(tcp: &mut TcpStream) -> io::Result<Option<Vec<u8>>> {
    let mut length = [0; 2];
    match tcp.read(&mut length[..1])? {
        0 => return Ok(None),
        _ => tcp.read_exact(&mut length[1..])?,
    }
    let mut message = vec![0; u16::from_be_bytes(length).into()];
    tcp.read_exact(&mut message)?;
    Ok(Some(message))
}

impl Read for NoiseReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.taken == self.payload.len() {
            let Some(message) = receive(&mut self.tcp)? else { return Ok(0) };
            self.payload.resize(message.len(), 0);
            let length = self.state.read_message(self.nonce, &message, &mut self.payload);
            let forged =
                |e| io::Error::new(io::ErrorKind::InvalidData, format!("a message was changed on its way ({e})"));
            self.payload.truncate(length.map_err(forged)?);
            self.nonce += 1;
            self.taken = 0;
        }
        let count = buffer.len().min(self.payload.len() - self.taken);
        buffer[..count].copy_from_slice(&self.payload[self.taken..self.taken + count]);
        self.taken += count;
        Ok(count)
    }
}

impl Write for NoiseWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(MAX_MESSAGE - TAG);
        let mut message = vec![0; count + TAG];
        self.state.write_message(self.nonce, &bytes[..count], &mut message).map_err(io::Error::other)?;
        send(&mut self.tcp, &message)?;
        self.nonce += 1;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.tcp.flush()
    }
}

impl Drop for NoiseWriter {
    fn drop(&mut self) {
        // The reading half may be blocked in another thread, and has a descriptor of its own.
        let _ = self.tcp.shutdown(std::net::Shutdown::Both);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn key(byte: u8) -> LinkKey {
        LinkKey::from_bytes([byte; 32])
    }

    fn wire() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (near, listener.accept().unwrap().0)
    }

    #[test]
    fn bytes_go_both_ways_and_none_of_them_can_be_read_on_the_wire() {
        let (near, far) = wire();
        let sent: Vec<u8> = (0..200_000u32).map(|i| (i * 7 % 251) as u8).collect();
        let expected = sent.clone();
        let other = std::thread::spawn(move || {
            let (mut reader, mut writer) = respond(far, &key(7)).unwrap();
            let mut bytes = vec![0; expected.len()];
            reader.read_exact(&mut bytes).unwrap();
            assert!(bytes == expected);
            writer.write_all(b"all there").unwrap();
            reader.read(&mut [0]).unwrap()
        });
        let (mut reader, mut writer) = initiate(near, &key(7)).unwrap();
        writer.write_all(&sent).unwrap();
        let mut answer = [0; 9];
        reader.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"all there");
        drop(writer);
        assert_eq!(other.join().unwrap(), 0);
    }

    #[test]
    fn another_key_gets_nowhere() {
        let (near, far) = wire();
        let other = std::thread::spawn(move || respond(far, &key(8)).map(drop).unwrap_err().kind());
        let why = initiate(near, &key(7)).map(drop).unwrap_err();
        assert_eq!(why.kind(), io::ErrorKind::PermissionDenied, "{why}");
        assert_eq!(other.join().unwrap(), io::ErrorKind::PermissionDenied);
    }

    /// Somebody on the wire changes, repeats or swaps a message.
    #[test]
    fn what_is_changed_on_its_way_is_refused() {
        for attack in ["flip", "repeat", "swap", "none"] {
            let ((near, mut between_near), (mut between_far, far)) = (wire(), wire());
            let other = std::thread::spawn(move || {
                let (mut reader, _writer) = respond(far, &key(7)).unwrap();
                let mut bytes = vec![];
                reader.read_to_end(&mut bytes).map(|_| bytes)
            });
            let near = std::thread::spawn(move || {
                let (_reader, mut writer) = initiate(near, &key(7)).unwrap();
                writer.write_all(b"first").unwrap();
                writer.write_all(b"second").unwrap();
            });
            let hello = receive(&mut between_near).unwrap().unwrap();
            send(&mut between_far, &hello).unwrap();
            let hello = receive(&mut between_far).unwrap().unwrap();
            send(&mut between_near, &hello).unwrap();
            let mut messages = vec![];
            while let Ok(Some(message)) = receive(&mut between_near) {
                messages.push(message);
            }
            match attack {
                "flip" => messages[0][3] ^= 1,
                "repeat" => messages.insert(1, messages[0].clone()),
                "swap" => messages.swap(0, 1),
                _ => {}
            }
            for message in &messages {
                // The other end may have hung up already.
                let _ = send(&mut between_far, message);
            }
            drop(between_far);
            near.join().unwrap();
            match other.join().unwrap() {
                Ok(bytes) => assert_eq!((attack, bytes.as_slice()), ("none", b"firstsecond".as_slice())),
                Err(e) => assert!(attack != "none" && e.kind() == io::ErrorKind::InvalidData, "{attack}: {e}"),
            }
        }
    }
}
