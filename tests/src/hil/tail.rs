//! The end of a device's log, of which only what is new is asked for: over a slow line, or from an emulated processor, the rest
//! takes seconds.

use anyhow::{Context, Result};
use edge_link::Request;
use serde_json::Value;

/// How much of the log's end is looked at.
const MOST: usize = 1 << 18;
/// What is known of the log is known by so many bytes of it: the file may be another one by now, or cut back.
const OVERLAP: usize = 1 << 8;

/// The log's last bytes when it was looked at last.
#[derive(Debug, Default)]
pub(super) struct Tail {
    bytes: Vec<u8>,
    /// Where in the log they end.
    length: u64,
}

impl Tail {
    /// What to ask for next.
    ///
    /// # Errors
    ///
    /// Where the log is longer than can be asked for.
    pub fn request(&self) -> Result<Request> {
        Ok(Request::Log { file: 0, from: self.from()?, length: MOST as u32 })
    }

    /// The last whole lines of what was taken, as many as there is room for.
    ///
    /// # Errors
    ///
    /// Where a line is no JSON.
    pub fn lines(&self) -> Result<Vec<Value>> {
        parsed(&self.bytes, self.bytes.len() as u64 == self.length)
    }

    /// How much of what is known is asked for once more.
    fn overlap(&self) -> usize {
        self.bytes.len().min(OVERLAP)
    }

    /// From where on the log is to be read; from its end, where nothing is known.
    fn from(&self) -> Result<i64> {
        match self.bytes.is_empty() {
            true => Ok(-(MOST as i64)),
            false => Ok(i64::try_from(self.length - self.overlap() as u64)?),
        }
    }

    /// Takes the answer: what lies there in a log of that length, which may have grown since. Where it is not how what is known goes
    /// on, all is forgotten, and `false` says so.
    pub fn take(&mut self, length: u64, part: Vec<u8>) -> bool {
        let known = self.bytes.len() - self.overlap();
        let from = match self.bytes.is_empty() {
            true => length.saturating_sub(MOST as u64),
            false => self.length - self.overlap() as u64,
        };
        let end = from + part.len() as u64;
        if !self.bytes.is_empty() && (end < length || !part.starts_with(&self.bytes[known..])) {
            *self = Tail::default();
            return false;
        }
        self.bytes.truncate(known);
        self.bytes.extend(part);
        self.bytes.drain(..self.bytes.len().saturating_sub(MOST));
        self.length = end;
        true
    }
}

/// The lines of `bytes`. Where they do not begin with the file, the first line is the end of one; the last one may be under way.
fn parsed(bytes: &[u8], from_its_beginning: bool) -> Result<Vec<Value>> {
    let text = String::from_utf8_lossy(bytes);
    let begin = if from_its_beginning { 0 } else { text.find('\n').map_or(text.len(), |at| at + 1) };
    let end = text.rfind('\n').map_or(begin, |at| at.max(begin));
    let line = |line| serde_json::from_str(line).with_context(|| format!("in the log: {line:?}"));
    text[begin..end].lines().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a device answers with that has this log.
    fn look(tail: &mut Tail, log: &[u8]) -> bool {
        let length = log.len() as i64;
        let from = match tail.from().unwrap() {
            from if from < 0 => (length + from).max(0),
            from => from.min(length),
        };
        let part = &log[from as usize..(from as usize + MOST).min(log.len())];
        tail.take(log.len() as u64, part.to_vec())
    }

    #[test]
    fn a_log_is_read_on_and_one_that_is_another_is_read_anew() {
        let lines = |from: usize, to: usize| (from..to).map(|i| format!("{{\"frame\":{i}}}\n")).collect::<String>();
        let log = lines(0, 1000);
        let mut tail = Tail::default();
        for end in [0, 3, 500, 500, 13_000, log.len()] {
            assert!(look(&mut tail, &log.as_bytes()[..end]));
            assert_eq!(tail.bytes, log.as_bytes()[..end]);
        }
        assert_eq!(parsed(&tail.bytes, true).unwrap().len(), 1000);
        // Cut back and written on; another file; none at all.
        for other in [lines(0, 700) + &lines(5000, 6000), lines(10, 2000), String::new()] {
            assert!(!look(&mut tail, other.as_bytes()));
            assert!(look(&mut tail, other.as_bytes()));
            assert_eq!(tail.bytes, other.as_bytes());
        }
        // More than there is room for, at once and bit by bit.
        let long = lines(0, 50_000);
        assert!(look(&mut tail, &long.as_bytes()[..MOST / 2]) && !look(&mut tail, long.as_bytes()));
        for end in [long.len() - 9000, long.len()] {
            assert!(look(&mut tail, &long.as_bytes()[..end]));
            assert_eq!(tail.bytes, long.as_bytes()[end - MOST..end]);
        }
        let whole = parsed(&tail.bytes, false).unwrap();
        assert_eq!(whole.last().unwrap()["frame"], 49_999);
        assert!(parsed(b"half of it}\n{\"frame\":1}\n{\"fra", false).is_ok_and(|lines| lines.len() == 1));
    }
}
