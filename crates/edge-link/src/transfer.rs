//! What takes many questions: an update, and the log.

use crate::client::{Client, LinkError};
use crate::message::{Request, Response};
use edge_package::digest;
use std::io::{self, Write};
use std::time::Duration;

/// How long a camera may take for one step of a transfer: over a serial line bytes take their time.
const STEP: Duration = Duration::from_secs(60);
/// How long it may take to check an update and install it: to prove a large package on a small board takes minutes.
const INSTALLATION: Duration = Duration::from_secs(15 * 60);
/// How often a step is asked for again when nothing comes back: a serial line may lose a message.
const TRIES: u32 = 3;
/// Bytes of the log in one answer.
const PART: u32 = 256 << 10;
/// How much of the newest file is looked at to see whether it is still the same: its first line has the time.
const HEAD: u32 = 200;
/// Files that may be missing between two others, after a rotation that was cut off.
const HOLE: u32 = 2;

impl Client {
    /// Sends a package or a system bundle and has it installed; what the camera says of it. `step` bytes are sent at once, a
    /// MiB at most; `progress` is told of each.
    ///
    /// # Errors
    ///
    /// Where the camera refuses it, whose reason is told, or does not answer.
    pub fn update(&mut self, bytes: &[u8], step: usize, progress: &mut dyn FnMut(u64)) -> Result<String, LinkError> {
        let begin = Request::UpdateBegin { length: bytes.len() as u64, digest: digest(bytes) };
        self.again(&begin, STEP)?;
        let mut offset = 0;
        for part in bytes.chunks(step.clamp(1, 1 << 20)) {
            self.again(&Request::UpdateData { offset, bytes: part.to_vec() }, STEP)?;
            offset += part.len() as u64;
            progress(part.len() as u64);
        }
        match self.ask(&Request::UpdateEnd, INSTALLATION)? {
            Response::Done(text) => Ok(text),
            _ => Err(LinkError::Unexpected),
        }
    }

    /// The whole log, the oldest file first, a part after the other. A line that is being written may be cut.
    ///
    /// # Errors
    ///
    /// Those of `to`; where the camera keeps no log that can be read again, or does not answer; and where the log was begun
    /// anew meanwhile, so that lines may be missing.
    pub fn log(&mut self, to: &mut dyn Write) -> Result<(), LinkError> {
        let head = self.part(0, 0, HEAD)?;
        let (mut last, mut number) = (0, 1);
        while number <= last + HOLE {
            if self.length(number)? > 0 {
                last = number;
            }
            number += 1;
        }
        for file in (0..=last).rev() {
            let mut from = 0;
            loop {
                let bytes = self.part(file, from, PART)?;
                if bytes.is_empty() {
                    break;
                }
                to.write_all(&bytes)?;
                from += bytes.len() as i64;
            }
        }
        if self.part(0, 0, HEAD)?.starts_with(&head) { Ok(()) } else { Err(LinkError::BegunAnew) }
    }

    fn length(&mut self, file: u32) -> Result<u64, LinkError> {
        match self.again(&Request::Log { file, from: 0, length: 0 }, STEP)? {
            Response::Log { length, .. } => Ok(length),
            _ => Err(LinkError::Unexpected),
        }
    }

    fn part(&mut self, file: u32, from: i64, length: u32) -> Result<Vec<u8>, LinkError> {
        match self.again(&Request::Log { file, from, length }, STEP)? {
            Response::Log { bytes, .. } => Ok(bytes),
            _ => Err(LinkError::Unexpected),
        }
    }

    /// Asks for what may be asked for twice, again where no answer comes.
    fn again(&mut self, request: &Request, patience: Duration) -> Result<Response, LinkError> {
        let mut tries = 1;
        loop {
            match self.ask(request, patience) {
                Err(LinkError::Silent { .. }) if tries < TRIES => tries += 1,
                other => return other,
            }
        }
    }
}

/// Passes whole lines on, and keeps what has no end yet: the line that is being written.
pub struct WholeLines<W> {
    to: W,
    begun: Vec<u8>,
}

impl<W: Write> WholeLines<W> {
    /// To `to`.
    pub fn new(to: W) -> WholeLines<W> {
        WholeLines { to, begun: vec![] }
    }
}

impl<W: Write> Write for WholeLines<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match bytes.iter().rposition(|byte| *byte == b'\n') {
            Some(end) => {
                self.to.write_all(&self.begun)?;
                self.to.write_all(&bytes[..=end])?;
                self.begun.clear();
                self.begun.extend_from_slice(&bytes[end + 1..]);
            }
            None => self.begun.extend_from_slice(bytes),
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Stream, serve};
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use std::os::unix::net::UnixStream;
    use std::sync::{Arc, Mutex};

    /// A camera that answers with `answer`.
    fn camera(mut answer: impl FnMut(Request) -> crate::Reply + Send + 'static) -> Client {
        let (near, far) = UnixStream::pair().unwrap();
        std::thread::spawn(move || {
            let (mut reader, mut writer) = (far.try_clone().unwrap(), far);
            serve(&mut reader, &mut writer, true, |request| Some(answer(request)))
        });
        Client::over(Stream::of_socket(near).unwrap())
    }

    #[test]
    fn an_update_comes_whole_and_in_order() {
        let sent: Vec<u8> = (0..10_000u32).map(|i| (i * 7 % 251) as u8).collect();
        let came = Arc::new(Mutex::new(vec![]));
        let (kept, expected) = (came.clone(), digest(&sent));
        let mut client = camera(move |request| match request {
            Request::UpdateBegin { length: 10_000, digest } if digest == expected => Ok(Response::Done("go".into())),
            Request::UpdateData { offset, bytes } => {
                let mut came = kept.lock().unwrap();
                assert_eq!(offset, came.len() as u64);
                came.extend(bytes);
                Ok(Response::Done("more".into()))
            }
            Request::UpdateEnd => Ok(Response::Done("slot b".into())),
            other => panic!("{other:?}"),
        });
        let mut told = 0;
        assert_eq!(client.update(&sent, 3000, &mut |bytes| told += bytes).unwrap(), "slot b");
        assert_eq!(told, 10_000);
        assert!(*came.lock().unwrap() == sent);
        let mut refusing = camera(|_| Err("too large".into()));
        let why = refusing.update(&sent, 3000, &mut |_| {}).unwrap_err().to_string();
        assert_eq!(why, "the camera refuses: too large");
    }

    fn log_of(
        files: BTreeMap<u32, Vec<u8>>,
        mut change: impl FnMut(u32) -> Option<Vec<u8>> + Send + 'static,
    ) -> Client {
        let mut files = files;
        camera(move |request| {
            let Request::Log { file, from, length } = request else { panic!("{request:?}") };
            if let Some(newest) = change(file) {
                files.insert(0, newest);
            }
            let all = files.get(&file).cloned().unwrap_or_default();
            let bytes = all.iter().skip(from as usize).take(length as usize).copied().collect();
            Ok(Response::Log { length: all.len() as u64, bytes })
        })
    }

    #[test]
    fn a_log_is_read_from_its_oldest_file_on() {
        let files = BTreeMap::from([(0, b"new\nha".to_vec()), (1, vec![b'x'; 300_000]), (3, b"old\n".to_vec())]);
        let mut read = vec![];
        log_of(files.clone(), |_| None).log(&mut read).unwrap();
        assert!(read == [&files[&3][..], &files[&1], &files[&0]].concat());
        read.clear();
        log_of(BTreeMap::new(), |_| None).log(&mut read).unwrap();
        assert!(read.is_empty());
        // Begun anew while an older file was read.
        let mut client = log_of(files, |file| (file == 3).then(|| b"other\n".to_vec()));
        assert!(matches!(client.log(&mut read), Err(LinkError::BegunAnew)));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn lines_are_passed_on_whole(text in "[a\n]{0,60}", cut in 1usize..20) {
            let mut passed = vec![];
            let mut lines = WholeLines::new(&mut passed);
            for part in text.as_bytes().chunks(cut) {
                lines.write_all(part).unwrap();
            }
            let whole = text.rfind('\n').map_or(0, |end| end + 1);
            prop_assert_eq!(passed, &text.as_bytes()[..whole]);
        }
    }
}
