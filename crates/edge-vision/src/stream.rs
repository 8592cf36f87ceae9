//! A stream of bytes cut into frames: Motion-JPEG as cameras' programs write it to a pipe, and raw frames.
//!
//! JPEGs are found by walking their markers (ITU-T T.81, annex B), so that a thumbnail within one, or bytes that look
//! like an end, don't cut it. What is no JPEG is passed over up to the next start of an image, and counted.

/// The longest JPEG that is taken for one; what goes on longer is damage. 8192x8192 pixels of a camera fit.
pub const MAX_JPEG: usize = 32 << 20;

const START: [u8; 2] = [0xFF, 0xD8];

/// A whole JPEG out of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The file, from its start marker to its end marker.
    pub bytes: Vec<u8>,
    /// Width in pixels, as its frame header says.
    pub width: u32,
    /// Height in pixels, as its frame header says.
    pub height: u32,
}

/// Where the walk through a JPEG stands.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Walk {
    /// Before the next marker.
    Marker,
    /// Among the coded data of a scan.
    Scan,
}

/// How a walk ended.
enum Found {
    /// At the end of what has come so far.
    NeedMore,
    /// A JPEG ends before this byte.
    End(usize),
    /// This is no JPEG; the next one can't begin before this byte.
    Damaged(usize),
}

/// Cuts a stream into JPEGs. What it holds is bounded by [`MAX_JPEG`] and the size of a push.
#[derive(Debug)]
pub struct Splitter {
    buffer: Vec<u8>,
    /// Bytes of the buffer that were given out or passed over.
    start: usize,
    /// How far the walk has come; 0 where it has not begun.
    at: usize,
    walk: Walk,
    size: Option<(u32, u32)>,
    skipped: u64,
    max: usize,
}

impl Default for Splitter {
    fn default() -> Self {
        Self::with_limit(MAX_JPEG)
    }
}

impl Splitter {
    /// Takes JPEGs of at most `max` bytes.
    #[must_use]
    pub fn with_limit(max: usize) -> Self {
        Self { buffer: Vec::new(), start: 0, at: 0, walk: Walk::Marker, size: None, skipped: 0, max }
    }

    /// Appends what came. Take all frames with [`Splitter::next_frame`] before the next push.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.start);
        self.at -= self.start.min(self.at);
        self.start = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole JPEG, if it has come; its bytes go into `bytes`, whose allocation is used again.
    pub fn next_frame(&mut self, mut bytes: Vec<u8>) -> Option<Piece> {
        loop {
            if self.at == 0 && !self.find_start() {
                return None;
            }
            match self.walk() {
                Found::NeedMore if self.at - self.start > self.max => self.pass(self.start + START.len()),
                Found::NeedMore => return None,
                Found::Damaged(next) => self.pass(next),
                Found::End(end) => {
                    let from = std::mem::replace(&mut self.start, end);
                    self.at = 0;
                    let Some((width, height)) = self.size else { continue };
                    bytes.clear();
                    bytes.extend_from_slice(&self.buffer[from..end]);
                    return Some(Piece { bytes, width, height });
                }
            }
        }
    }

    /// Bytes that belonged to no whole JPEG so far.
    #[must_use]
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    /// Bytes of a JPEG that has begun and not ended; at the end of the stream they are a frame that was cut off.
    #[must_use]
    pub fn unfinished(&self) -> usize {
        if self.at == 0 { 0 } else { self.buffer.len() - self.start }
    }

    /// Gives up what begins at `start` and goes on at `next`.
    fn pass(&mut self, next: usize) {
        self.skipped += (next - self.start) as u64;
        self.start = next;
        self.at = 0;
    }

    /// Moves `start` to the next start of an image.
    fn find_start(&mut self) -> bool {
        let rest = &self.buffer[self.start..];
        let found = rest.windows(3).position(|w| w[..2] == START && w[2] == 0xFF);
        // The last two bytes may be the beginning of a start.
        let kept = if rest.ends_with(&START) { 2 } else { usize::from(rest.last() == Some(&0xFF)) };
        let passed = found.unwrap_or(rest.len() - kept);
        self.skipped += passed as u64;
        self.start += passed;
        if found.is_some() {
            self.at = self.start + START.len();
            (self.walk, self.size) = (Walk::Marker, None);
        }
        found.is_some()
    }

    fn walk(&mut self) -> Found {
        loop {
            if self.walk == Walk::Scan {
                let Some(marker) = self.buffer[self.at..].iter().position(|b| *b == 0xFF) else {
                    self.at = self.buffer.len();
                    return Found::NeedMore;
                };
                self.at += marker;
            }
            // A marker may be padded with any number of 0xFF.
            let rest = &self.buffer[self.at..];
            let Some(&first) = rest.first() else { return Found::NeedMore };
            if first != 0xFF {
                return Found::Damaged(self.start + START.len());
            }
            let Some(padding) = rest.iter().position(|b| *b != 0xFF) else { return Found::NeedMore };
            let code = self.at + padding;
            match self.buffer[code] {
                // A zero stands behind an 0xFF that is data; restarts are part of a scan.
                0x00 | 0xD0..=0xD7 if self.walk == Walk::Scan => self.at = code + 1,
                0xD8 => return Found::Damaged(code - 1),
                0xD9 => return if self.size.is_some() { Found::End(code + 1) } else { Found::Damaged(code + 1) },
                0x00..=0xBF | 0xC8 | 0xD0..=0xD7 | 0xF0..=0xFD => return Found::Damaged(self.start + START.len()),
                kind => {
                    let Some(length) = self.buffer.get(code + 1..code + 3) else { return Found::NeedMore };
                    let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
                    if length < 2 {
                        return Found::Damaged(self.start + START.len());
                    }
                    let Some(segment) = self.buffer.get(code + 3..code + 1 + length) else { return Found::NeedMore };
                    if matches!(kind, 0xC0..=0xC3 | 0xC5..=0xC7 | 0xC9..=0xCB | 0xCD..=0xCF) {
                        let &[_, h1, h0, w1, w0, ..] = segment else {
                            return Found::Damaged(self.start + START.len());
                        };
                        let side = |high, low| u32::from(u16::from_be_bytes([high, low]));
                        self.size = Some((side(w1, w0), side(h1, h0)));
                    }
                    self.walk = if kind == 0xDA { Walk::Scan } else { Walk::Marker };
                    self.at = code + 1 + length;
                }
            }
        }
    }
}

/// Cuts a stream into frames of one length.
#[derive(Debug)]
pub struct RawSplitter {
    length: usize,
    frame: Vec<u8>,
}

impl RawSplitter {
    /// Frames of `length` bytes each, which is not zero.
    #[must_use]
    pub fn new(length: usize) -> Self {
        Self { length: length.max(1), frame: Vec::new() }
    }

    /// Takes bytes from the front of `bytes`; a frame, once it is whole, with `spare` to be filled next.
    pub fn take(&mut self, bytes: &mut &[u8], spare: impl FnOnce() -> Vec<u8>) -> Option<Vec<u8>> {
        let (now, later) = bytes.split_at(bytes.len().min(self.length - self.frame.len()));
        self.frame.extend_from_slice(now);
        *bytes = later;
        (self.frame.len() == self.length).then(|| {
            let mut next = spare();
            next.clear();
            std::mem::replace(&mut self.frame, next)
        })
    }

    /// Bytes of the frame that has begun.
    #[must_use]
    pub fn unfinished(&self) -> usize {
        self.frame.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn golden(name: &str) -> Vec<u8> {
        std::fs::read(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/goldens/vision").join(name))
            .unwrap()
    }

    /// Real JPEGs: without Huffman tables, progressive, and whatever else there is.
    fn jpegs() -> Vec<Vec<u8>> {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/goldens/vision");
        let mut names: Vec<String> =
            std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.retain(|n| n.ends_with(".jpg"));
        names.sort();
        let decodes = |bytes: &Vec<u8>| crate::decode(bytes, &crate::DecodeOptions::default()).is_ok();
        let whole = |bytes: &Vec<u8>| bytes.ends_with(&[0xFF, 0xD9]);
        names.iter().map(|n| golden(n)).filter(|b| decodes(b) && whole(b)).collect()
    }

    fn split(splitter: &mut Splitter, stream: &[u8], sizes: &[usize]) -> Vec<Vec<u8>> {
        let (mut frames, mut rest, mut sizes) = (vec![], stream, sizes.iter().cycle());
        while !rest.is_empty() {
            let (now, later) = rest.split_at((*sizes.next().unwrap()).clamp(1, rest.len()));
            splitter.push(now);
            while let Some(piece) = splitter.next_frame(vec![]) {
                frames.push(piece.bytes);
            }
            rest = later;
        }
        frames
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn frames_come_out_as_they_went_in(
            order in prop::collection::vec((any::<prop::sample::Index>(), prop::collection::vec(0..0xD7_u8, 0..40)), 1..6),
            sizes in prop::collection::vec(1..5000_usize, 1..5),
        ) {
            let all = jpegs();
            let (mut stream, mut expected, mut between) = (vec![], vec![], 0);
            for (index, garbage) in &order {
                // Garbage without a start of an image.
                stream.extend(garbage);
                between += garbage.len() as u64;
                let jpeg = index.get(&all);
                stream.extend(jpeg);
                expected.push(jpeg.clone());
            }
            let mut splitter = Splitter::default();
            prop_assert!(split(&mut splitter, &stream, &sizes) == expected);
            prop_assert_eq!(splitter.skipped(), between);
            prop_assert_eq!(splitter.unfinished(), 0);
        }

        #[test]
        fn nothing_makes_it_panic_or_hoard(bytes in prop::collection::vec(any::<u8>(), 0..3000), flips in prop::collection::vec(any::<prop::sample::Index>(), 0..6)) {
            let mut stream = golden("no-huffman-tables.jpg");
            for flip in flips {
                *flip.get_mut(&mut stream) ^= 0x55;
            }
            stream.extend(bytes);
            let mut splitter = Splitter::with_limit(1000);
            let frames = split(&mut splitter, &stream, &[100]);
            prop_assert!(splitter.buffer.len() <= 1000 + (1 << 16) + 200);
            let given: usize = frames.iter().map(Vec::len).sum();
            prop_assert!(given as u64 + splitter.skipped() <= stream.len() as u64);
        }
    }

    #[test]
    fn there_are_jpegs_of_many_kinds() {
        assert!(jpegs().len() > 5, "{}", jpegs().len());
    }

    #[test]
    fn sizes_are_told_and_allocations_used_again() {
        let jpeg = golden("no-huffman-tables.jpg");
        let picture = crate::decode(&jpeg, &crate::DecodeOptions::default()).unwrap();
        let mut splitter = Splitter::default();
        splitter.push(&jpeg);
        let piece = splitter.next_frame(Vec::with_capacity(1 << 20)).unwrap();
        assert_eq!((piece.width, piece.height), (picture.width(), picture.height()));
        assert!(piece.bytes.capacity() >= 1 << 20);
    }

    #[test]
    fn a_frame_that_was_cut_off_does_not_take_the_next_one_with_it() {
        let jpeg = golden("no-huffman-tables.jpg");
        for cut in [3, 25, jpeg.len() / 2, jpeg.len() - 1] {
            let mut splitter = Splitter::default();
            let stream = [&jpeg[..], &jpeg[..cut], &jpeg, &jpeg, &jpeg[..cut]].concat();
            let frames = split(&mut splitter, &stream, &[4096]);
            // A cut within a segment takes as many bytes of the next frame as the segment was announced to have.
            assert!(frames.len() >= 2 && frames.iter().all(|f| *f == jpeg), "{cut}: {}", frames.len());
            assert_eq!(splitter.unfinished(), cut, "{cut}");
        }
    }

    #[test]
    fn raw_frames_are_cut_by_length() {
        let mut splitter = RawSplitter::new(5);
        let mut frames = vec![];
        for chunk in [&[0, 1][..], &[2, 3, 4, 5, 6, 7], &[8, 9, 10]] {
            let mut rest = chunk;
            while let Some(frame) = splitter.take(&mut rest, Vec::new) {
                frames.push(frame);
            }
        }
        assert_eq!(frames, [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]);
        assert_eq!(splitter.unfinished(), 1);
    }
}
