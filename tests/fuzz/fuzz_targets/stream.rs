//! A camera's stream → frames, and what the process that holds a camera says → messages.
#![no_main]
use edge_vision::{RawSplitter, Splitter};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let [chunk, bytes @ ..] = bytes else { return };
    let chunk = usize::from(*chunk) * 7 + 1;
    let mut splitter = Splitter::with_limit(1 << 12);
    let (mut whole, mut given) = (vec![], 0);
    for part in bytes.chunks(chunk) {
        splitter.push(part);
        while let Some(piece) = splitter.next_frame(vec![]) {
            assert!(piece.bytes.starts_with(&[0xFF, 0xD8]) && piece.bytes.ends_with(&[0xFF, 0xD9]));
            given += piece.bytes.len();
            whole.push(piece);
        }
    }
    // Every byte is in a frame, was passed over, or waits.
    assert!(given as u64 + splitter.skipped() + splitter.unfinished() as u64 <= bytes.len() as u64);
    // How the bytes came makes no difference. In longer streams the limit would cut in.
    let mut at_once = Splitter::default();
    at_once.push(bytes);
    let frames: Vec<_> = std::iter::from_fn(|| at_once.next_frame(vec![])).collect();
    if bytes.len() < 1 << 12 {
        assert_eq!(whole, frames);
    }

    let mut raw = RawSplitter::new(chunk);
    let mut rest = bytes;
    let count = std::iter::from_fn(|| raw.take(&mut rest, Vec::new)).count();
    assert_eq!(count, bytes.len() / chunk);

    let (mut pipe, mut frame) = (bytes, vec![]);
    while edge_device::capture::read(&mut pipe, &mut frame).is_ok() {}
});
