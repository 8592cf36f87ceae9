//! Messages between zero bytes.

/// The longest message in bytes, its CRC included: an uncompressed frame of 4K in RGB, and some.
pub const MAX_MESSAGE: usize = 32 << 20;

/// The longest message that a camera takes, in bytes with its CRC: an uncompressed frame of 4K in YUYV. What a peer can
/// make a camera hold is bounded by it.
pub const MAX_QUESTION: usize = 16 << 20;

const CRC: usize = 4;

/// A message with its CRC-32 in COBS. It begins with a zero too, so that whatever stood on the wire before is no part of it.
pub fn encode(message: &[u8]) -> Vec<u8> {
    let mut checked = Vec::with_capacity(message.len() + CRC);
    checked.extend_from_slice(message);
    checked.extend_from_slice(&crc32fast::hash(message).to_le_bytes());
    cobs::encode_vec_including_sentinels(&checked)
}

/// Finds messages in a stream of bytes, wherever it is cut, and skips what is none.
pub struct Deframer {
    frame: Vec<u8>,
    /// The longest frame in bytes, without its zeros.
    longest: usize,
    /// The frame has grown too long: the rest of it is skipped.
    overlong: bool,
    garbage: u64,
}

impl Default for Deframer {
    fn default() -> Deframer {
        Deframer::new()
    }
}

impl Deframer {
    /// One that has seen nothing, for messages of up to [`MAX_MESSAGE`].
    pub fn new() -> Deframer {
        Deframer::within(MAX_MESSAGE)
    }

    /// One for messages of up to `most` bytes with their CRC; longer ones are skipped without being kept.
    pub fn within(most: usize) -> Deframer {
        Deframer { frame: vec![], longest: cobs::max_encoding_length(most), overlong: false, garbage: 0 }
    }

    /// Takes the next bytes of the stream; `found` is called with each message that they complete.
    pub fn push(&mut self, mut bytes: &[u8], mut found: impl FnMut(Vec<u8>)) {
        while let Some(end) = bytes.iter().position(|b| *b == 0) {
            self.grow(&bytes[..end]);
            bytes = &bytes[end + 1..];
            let frame = std::mem::take(&mut self.frame);
            let overlong = std::mem::take(&mut self.overlong);
            let empty = frame.is_empty();
            match decode(frame) {
                Some(message) if !overlong => found(message),
                _ if empty => {}
                _ => self.garbage += 1,
            }
        }
        self.grow(bytes);
    }

    fn grow(&mut self, bytes: &[u8]) {
        if self.overlong || self.frame.len() + bytes.len() > self.longest {
            // Its beginning goes too, but for a byte that says that there was something.
            self.overlong = true;
            self.frame = vec![1];
        } else {
            self.frame.extend_from_slice(bytes);
        }
    }

    /// How many frames were no message: cut, disturbed or too long.
    pub fn garbage(&self) -> u64 {
        self.garbage
    }
}

/// In place: a frame may be large.
fn decode(mut message: Vec<u8>) -> Option<Vec<u8>> {
    let length = cobs::decode_in_place(&mut message).ok()?;
    message.truncate(length);
    let at = message.len().checked_sub(CRC)?;
    let expected = crc32fast::hash(&message[..at]).to_le_bytes();
    if message[at..] != expected {
        return None;
    }
    message.truncate(at);
    Some(message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(deframer: &mut Deframer, bytes: &[u8], cut: usize) -> Vec<Vec<u8>> {
        let mut messages = vec![];
        bytes.chunks(cut).for_each(|part| deframer.push(part, |message| messages.push(message)));
        messages
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn messages_come_back_wherever_the_stream_is_cut(
            messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..600), 0..6),
            cut in 1usize..700,
        ) {
            let stream: Vec<u8> = messages.iter().flat_map(|m| encode(m)).collect();
            let mut deframer = Deframer::new();
            prop_assert_eq!(all(&mut deframer, &stream, cut), messages);
            prop_assert_eq!(deframer.garbage(), 0);
        }

        #[test]
        fn after_any_garbage_the_next_message_is_read(
            garbage in prop::collection::vec(any::<u8>(), 0..300),
            message in prop::collection::vec(any::<u8>(), 0..300),
            cut in 1usize..100,
        ) {
            let mut deframer = Deframer::new();
            let found = all(&mut deframer, &[garbage, encode(&message)].concat(), cut);
            prop_assert_eq!(found.last(), Some(&message));
        }

        #[test]
        fn a_disturbed_byte_costs_one_message_at_most_two(
            messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..100), 3..6),
            at in any::<prop::sample::Index>(),
            flip in 1u8..,
        ) {
            let mut stream: Vec<u8> = messages.iter().flat_map(|m| encode(m)).collect();
            let at = at.index(stream.len());
            stream[at] ^= flip;
            let found = all(&mut Deframer::new(), &stream, stream.len());
            // What is found was sent, in its order; a lost zero joins two messages.
            let mut sent = messages.iter();
            prop_assert!(found.iter().all(|message| sent.any(|s| s == message)), "something was made up");
            prop_assert!(found.len() + 2 >= messages.len());
        }
    }

    #[test]
    fn what_never_ends_is_skipped_without_being_kept() {
        let mut deframer = Deframer::new();
        for _ in 0..40 {
            deframer.push(&[7; 1 << 20], |_| panic!("nothing was sent"));
            assert!(deframer.frame.len() <= deframer.longest);
        }
        assert_eq!(all(&mut deframer, &encode(b"after it"), 1000), [b"after it".to_vec()]);
        assert_eq!(deframer.garbage(), 1);
    }

    #[test]
    fn the_longest_message() {
        let message = vec![0; MAX_MESSAGE - CRC];
        let mut found = vec![];
        Deframer::new().push(&encode(&message), |m| found.push(m));
        assert!(found == [message]);
    }
}
