//! The side that answers.

use crate::frame::{Deframer, MAX_QUESTION, encode};
use crate::message::{Answer, Question, Reply, Request};
use std::io::{self, Read, Write};

/// How serving ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Ended {
    /// The host closed the link.
    Closed,
    /// `answer` wanted no more.
    Stopped,
}

/// Answers questions until the stream ends. `control` says whether those that change something are passed on to `answer`;
/// without it they are refused here. `answer` returns nothing when serving should end.
///
/// # Errors
///
/// Those of the stream.
pub fn serve(
    reader: &mut dyn Read,
    writer: &mut dyn Write,
    control: bool,
    mut answer: impl FnMut(Request) -> Option<Reply>,
) -> io::Result<Ended> {
    let mut deframer = Deframer::within(MAX_QUESTION);
    let mut buffer = vec![0; 1 << 16];
    loop {
        let count = match reader.read(&mut buffer) {
            Ok(0) => return Ok(Ended::Closed),
            Ok(count) => count,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(e),
        };
        let mut messages = vec![];
        deframer.push(&buffer[..count], |message| messages.push(message));
        for message in messages {
            // No answer to what is no question: its number is unknown, and over a noisy line it may be an echo.
            let Some(Question { number, request }) = Question::from_bytes(&message) else { continue };
            // It may be large, and the answer takes its time.
            drop(message);
            let reply = if request.needs_control() && !control {
                Err("this changes something, which edge-camera allows only when started with --link-control".into())
            } else {
                match answer(request) {
                    Some(reply) => reply,
                    None => return Ok(Ended::Stopped),
                }
            };
            let message = postcard::to_stdvec(&Answer { number, reply }).map_err(io::Error::other)?;
            writer.write_all(&encode(&message))?;
            writer.flush()?;
        }
    }
}
