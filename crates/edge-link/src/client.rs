//! The side that asks.

use crate::frame::{Deframer, encode};
use crate::message::{Answer, Hello, PROTOCOL, Question, Request, Response};
use crate::{Address, AddressError, Stream};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Read, Write};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// How long one attempt to greet waits for its answer.
const GREETING: Duration = Duration::from_secs(2);

/// Why a question has no answer.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The way to the camera could not be opened.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// It broke.
    #[error("the link to the camera broke: {0}")]
    Io(#[from] io::Error),
    /// It was closed from the other side.
    #[error("the camera closed the link")]
    Closed,
    /// Nothing came.
    #[error("the camera gave no answer within {} s{}", waited.as_secs(), if *garbage > 0 { ", only bytes that are no messages; is it the right line and speed?" } else { "" })]
    Silent {
        /// For so long.
        waited: Duration,
        /// How much came that was no message.
        garbage: u64,
    },
    /// The camera's messages are of another version.
    #[error("the camera speaks version {found} of the link, this program {PROTOCOL}; update the older one")]
    Version {
        /// Its version.
        found: u16,
    },
    /// The camera says no.
    #[error("the camera refuses: {0}")]
    Refused(String),
    /// The log's newest file became another one while the log was read.
    #[error("the log was begun anew while it was read, so lines may be missing; read it again")]
    BegunAnew,
    /// An answer to another question.
    #[error("the camera gave an answer that does not fit the question")]
    Unexpected,
}

/// A link to a camera.
pub struct Client {
    to: Box<dyn Write + Send>,
    from: Receiver<io::Result<Incoming>>,
    next: u32,
    garbage: u64,
    hello: Option<Hello>,
}

struct Incoming {
    message: Option<Vec<u8>>,
    garbage: u64,
}

impl Client {
    /// Opens the way to a camera and asks who is there. `patience` covers both, a camera that is starting included.
    ///
    /// # Errors
    ///
    /// Where nothing answers, or something of another version.
    pub fn connect(address: &Address, patience: Duration) -> Result<Client, LinkError> {
        let mut client = Client::over(address.connect(patience)?);
        client.greet(patience)?;
        Ok(client)
    }

    /// A link over an open stream.
    pub fn over(stream: Stream) -> Client {
        let (send, from) = channel();
        let mut reader = stream.reader;
        // Blocked reading, it ends with its stream, or with the program.
        std::thread::spawn(move || {
            let mut deframer = Deframer::new();
            let mut buffer = vec![0; 1 << 16];
            loop {
                let failed = match reader.read(&mut buffer) {
                    Ok(0) => return,
                    Ok(count) => {
                        let mut messages = vec![];
                        deframer.push(&buffer[..count], |message| messages.push(message));
                        let garbage = deframer.garbage();
                        let heard = messages.is_empty().then_some(Incoming { message: None, garbage });
                        let all = messages.into_iter().map(|m| Incoming { message: Some(m), garbage }).chain(heard);
                        all.map(Ok).try_for_each(|incoming| send.send(incoming)).is_err()
                    }
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => false,
                    Err(e) => {
                        let _ = send.send(Err(e));
                        true
                    }
                };
                if failed {
                    return;
                }
            }
        });
        Client { to: stream.writer, from, next: first_number(), garbage: 0, hello: None }
    }

    /// Asks who is there, again and again until `patience` is spent: over a serial line the first question may meet a
    /// camera that has not started yet, or the rest of somebody else's.
    ///
    /// # Errors
    ///
    /// Where nothing answers, or something of another version.
    pub fn greet(&mut self, patience: Duration) -> Result<&Hello, LinkError> {
        let end = Instant::now() + patience;
        let request = Request::Hello { protocol: PROTOCOL };
        loop {
            let left = end.saturating_duration_since(Instant::now());
            match self.ask(&request, left.min(GREETING)) {
                Ok(Response::Hello(hello)) if hello.protocol == PROTOCOL => return Ok(self.hello.insert(hello)),
                Ok(Response::Hello(hello)) => return Err(LinkError::Version { found: hello.protocol }),
                Ok(_) => return Err(LinkError::Unexpected),
                Err(LinkError::Silent { .. }) if Instant::now() < end => {}
                Err(LinkError::Silent { garbage, .. }) => return Err(LinkError::Silent { waited: patience, garbage }),
                Err(e) => return Err(e),
            }
        }
    }

    /// Who is there.
    pub fn hello(&self) -> Option<&Hello> {
        self.hello.as_ref()
    }

    /// Asks and waits for the answer; answers to earlier questions, which came too late, are skipped.
    ///
    /// # Errors
    ///
    /// Where the camera refuses, or does not answer within `patience`.
    pub fn ask(&mut self, request: &Request, patience: Duration) -> Result<Response, LinkError> {
        let number = self.next;
        self.next = self.next.wrapping_add(1);
        let question = Question { number, request: request.clone() };
        let message = postcard::to_stdvec(&question).map_err(io::Error::other)?;
        self.to.write_all(&encode(&message))?;
        self.to.flush()?;
        let end = Instant::now() + patience;
        loop {
            match self.from.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(Ok(Incoming { message, garbage })) => {
                    self.garbage = garbage;
                    let Some(message) = message else { continue };
                    // What does not decode was meant for somebody else, as an answer to an earlier question was.
                    match postcard::from_bytes::<Answer>(&message) {
                        Ok(answer) if answer.number == number => return answer.reply.map_err(LinkError::Refused),
                        _ => {}
                    }
                }
                Ok(Err(e)) => return Err(e.into()),
                Err(RecvTimeoutError::Timeout) => {
                    return Err(LinkError::Silent { waited: patience, garbage: self.garbage });
                }
                Err(RecvTimeoutError::Disconnected) => return Err(LinkError::Closed),
            }
        }
    }
}

/// The number of a client's first question, another one for each client: over a line that stays open, answers to whoever asked
/// before may still be under way. The numbers' upper half is left to be counted into.
fn first_number() -> u32 {
    (RandomState::new().hash_one(std::process::id()) as u32) >> 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Ended, Power, serve};
    use std::os::unix::net::UnixStream;

    const PATIENCE: Duration = Duration::from_secs(60);

    fn hello(protocol: u16) -> Response {
        Response::Hello(Hello {
            protocol,
            runtime: "0.1.0".into(),
            board: "virt".into(),
            isa: "aarch64 neon".into(),
            backend: "cpu".into(),
            tolerance: "cpu".into(),
            package: [7; 32],
            about: "a package".into(),
            source: "a camera".into(),
            control: false,
        })
    }

    /// A camera in a thread of its own that says hello with `protocol` and gives `answer` to everything else.
    fn camera(
        control: bool,
        protocol: u16,
        mut answer: impl FnMut(Request) -> Option<crate::Reply> + Send + 'static,
    ) -> (Client, UnixStream, std::thread::JoinHandle<io::Result<Ended>>) {
        let (near, far) = UnixStream::pair().unwrap();
        let noise = near.try_clone().unwrap();
        let serving = std::thread::spawn(move || {
            let (mut reader, mut writer) = (far.try_clone().unwrap(), far);
            serve(&mut reader, &mut writer, control, |request| match request {
                Request::Hello { .. } => Some(Ok(hello(protocol))),
                other => answer(other),
            })
        });
        (Client::over(Stream::of_socket(near).unwrap()), noise, serving)
    }

    #[test]
    fn each_client_counts_from_another_number() {
        let client = || Client::over(Stream::of_socket(UnixStream::pair().unwrap().0).unwrap());
        let first: std::collections::HashSet<u32> = (0..8).map(|_| client().next).collect();
        assert!(first.len() >= 7 && first.iter().all(|number| *number < 1 << 31), "{first:?}");
    }

    #[test]
    fn questions_have_their_answers() {
        let (mut client, _, serving) = camera(true, PROTOCOL, |request| match request {
            Request::Statistics => Some(Ok(Response::Statistics("{}".into()))),
            Request::Power(Power::Off) => None,
            _ => Some(Err("not here".into())),
        });
        assert_eq!(client.greet(PATIENCE).unwrap().board, "virt");
        assert_eq!(client.hello().unwrap().package, [7; 32]);
        let statistics = client.ask(&Request::Statistics, PATIENCE).unwrap();
        assert_eq!(statistics, Response::Statistics("{}".into()));
        let why = client.ask(&Request::Goldens, PATIENCE).unwrap_err().to_string();
        assert_eq!(why, "the camera refuses: not here");
        assert!(matches!(client.ask(&Request::Power(Power::Off), PATIENCE), Err(LinkError::Closed)));
        assert_eq!(serving.join().unwrap().unwrap(), Ended::Stopped);
    }

    #[test]
    fn without_control_nothing_is_changed() {
        let (mut client, _, serving) = camera(false, PROTOCOL, |request| panic!("{request:?} came through"));
        for request in [
            Request::SetTime { unix_ns: 1 },
            Request::SwitchSlot,
            Request::Power(Power::Reboot),
            Request::UpdateBegin { length: 1, digest: [0; 32] },
        ] {
            let why = client.ask(&request, PATIENCE).unwrap_err().to_string();
            assert!(why.contains("--link-control"), "{why}");
        }
        drop(client);
        assert_eq!(serving.join().unwrap().unwrap(), Ended::Closed);
    }

    #[test]
    fn after_garbage_the_next_question_is_answered() {
        let answer = |_| Some(Ok(Response::Done("ok".into())));
        let (mut client, mut noise, _serving) = camera(true, PROTOCOL, answer);
        for garbage in [&b"login: "[..], &[0, 0, 0], &[7; 5000], &[0, 5, 1]] {
            noise.write_all(garbage).unwrap();
            client.ask(&Request::SwitchSlot, PATIENCE).unwrap();
        }
    }

    #[test]
    fn what_does_not_answer_is_given_up() {
        let (near, mut far) = UnixStream::pair().unwrap();
        let mut client = Client::over(Stream::of_socket(near).unwrap());
        let short = Duration::from_millis(50);
        assert!(client.greet(short).unwrap_err().to_string().starts_with("the camera gave no answer"));
        // A console, say.
        far.write_all(b"\0raspberrypi login: \0").unwrap();
        let mut why = client.greet(short).unwrap_err().to_string();
        // The thread that reads may be late.
        for _ in 0..100 {
            if why.contains("the right line") {
                break;
            }
            why = client.greet(short).unwrap_err().to_string();
        }
        assert!(why.contains("only bytes that are no messages"), "{why}");
        drop(far);
        assert!(matches!(client.greet(PATIENCE), Err(LinkError::Closed | LinkError::Io(_))));
    }

    #[test]
    fn another_version_is_named() {
        let (mut client, _, _serving) = camera(true, 9, |_| None);
        let why = client.greet(PATIENCE).unwrap_err().to_string();
        assert!(why.contains("version 9") && why.contains("update the older one"), "{why}");
    }
}
