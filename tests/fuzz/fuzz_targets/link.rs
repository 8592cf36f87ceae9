//! Bytes of a wire → questions to a camera, and answers to a host: once as they come, and once in frames whose checksums
//! fit, so that the fuzzer gets to the messages in them.
#![no_main]
use edge_link::{Address, Deframer, MAX_QUESTION, Reply, Request, Response, encode, serve};
use libfuzzer_sys::fuzz_target;

/// Has a camera answer what comes; how many questions there were.
fn camera(mut wire: &[u8], control: bool) -> usize {
    let (mut questions, mut answers) = (0, vec![]);
    let ended = serve(&mut wire, &mut answers, control, |request| {
        assert!(control || !request.needs_control());
        // What was understood is what was meant.
        let bytes = postcard::to_stdvec(&request).expect("a message");
        assert_eq!(postcard::from_bytes::<Request>(&bytes).as_ref(), Ok(&request));
        questions += 1;
        Some(Ok(Response::Done(String::new())))
    });
    assert!(ended.is_ok());
    // Every question has its answer, and no answer is a question: a line may echo.
    let mut answered = 0;
    let mut deframer = Deframer::within(MAX_QUESTION);
    deframer.push(&answers, |_| answered += 1);
    assert!(answered >= questions && deframer.garbage() == 0);
    let echoed = serve(&mut &answers[..], &mut vec![], true, |request| panic!("{request:?} is an echo"));
    assert!(echoed.is_ok());
    questions
}

fuzz_target!(|bytes: &[u8]| {
    camera(bytes, true);
    camera(bytes, false);
    let framed: Vec<u8> = bytes.split(|byte| *byte == 0xFF).flat_map(encode).collect();
    camera(&framed, true);
    camera(&encode(bytes), false);
    // An answer is a number and a reply.
    if let Ok((number, reply)) = postcard::from_bytes::<(u32, Reply)>(bytes) {
        let again = postcard::to_stdvec(&(number, &reply)).expect("a message");
        let again = postcard::from_bytes::<(u32, Reply)>(&again);
        // Numbers that are none are not equal to themselves.
        assert_eq!(format!("{again:?}"), format!("{:?}", Ok::<_, ()>((number, reply))));
    }
    // What a configuration may name.
    if let Some(address) = std::str::from_utf8(bytes).ok().and_then(|text| text.parse::<Address>().ok()) {
        assert_eq!(address.to_string().parse::<Address>().ok(), Some(address));
    }
});
