//! Cases of the link itself.

use crate::hil::Bench;
use crate::hil::bench::refusal;
use anyhow::{Context, Result, bail, ensure};
use edge_link::{Client, PROTOCOL, PictureData, Power, Request, Response, encode};
use edge_vision::random::split_mix;
use std::io::Write;
use std::time::{Duration, Instant};

/// Numbers of questions that no client has come to yet.
const NUMBERS: u32 = 3 << 30;
/// Nobody reads the answers of so many questions, ...
const DEAF: u32 = 64;
/// ... or of fewer, where the line takes longer than so many seconds to carry them: what is under way there stays under way.
const CARRIED: f64 = 20.0;

/// A question as it goes over the wire.
fn question(number: u32, request: &Request) -> Result<Vec<u8>> {
    Ok(encode(&postcard::to_stdvec(&(number, request))?))
}

/// Nothing is changed by who may only read.
pub fn read_only(bench: &mut Bench) -> Result<()> {
    let photo = crate::hil::photos()?.swap_remove(0).bytes;
    for request in [
        Request::Inject(PictureData::File(photo)),
        Request::SetTime { unix_ns: 1 },
        Request::SwitchSlot,
        Request::Power(Power::Reboot),
        Request::Power(Power::Off),
        Request::UpdateBegin { length: 1, digest: [0; 32] },
        Request::UpdateData { offset: 0, bytes: vec![0] },
        Request::UpdateEnd,
    ] {
        let what = format!("{request:?}");
        let what = what.split([' ', '(']).next().unwrap_or_default();
        let why = refusal(bench.ask(&request)).with_context(|| what.to_owned())?;
        ensure!(why.contains("link-control"), "{what} is refused without saying what would allow it: {why}");
    }
    let put_in = bench.tail()?.iter().filter(|line| line["source"] == "link").count();
    ensure!(put_in == 0, "{put_in} frames in the log were put in");
    let package = bench.reference().digest();
    match bench.ask(&Request::Hello { protocol: PROTOCOL })? {
        Response::Hello(hello) => {
            ensure!(!hello.control && hello.package == package, "it is another one now: {hello:?}")
        }
        other => bail!("the camera answers {other:?} when asked who it is"),
    }
    Ok(())
}

/// What is no message is passed over.
pub fn garbage(bench: &mut Bench) -> Result<()> {
    let mut random = bench.seed;
    let mut noise = |length: usize| -> Vec<u8> { (0..length).map(|_| split_mix(&mut random) as u8).collect() };
    let whole = question(NUMBERS, &Request::Statistics)?;
    let mut disturbed = whole.clone();
    let middle = disturbed.len() / 2;
    disturbed[middle] ^= 0x10;
    let answer = encode(&postcard::to_stdvec(&(NUMBERS, Ok::<Response, String>(Response::Done("?".into()))))?);
    let huge = encode(&postcard::to_stdvec(&(NUMBERS, &Request::Classify(PictureData::File(noise(1 << 20)))))?);
    for (what, bytes) in [
        ("zeros", vec![0; 300]),
        ("a login", b"\r\n\r\nDebian GNU/Linux 12 camera ttyS0\r\n\r\ncamera login: ".to_vec()),
        ("noise", noise(10_000)),
        ("half of a question", whole[..middle].to_vec()),
        ("a question with a changed bit", disturbed),
        ("an answer", answer),
        ("a large question that is cut off", huge[..huge.len() / 2].to_vec()),
        ("a number without a question", encode(&[0x80, 0x80])),
    ] {
        asked_behind(bench, &bytes).with_context(|| format!("behind {what}"))?;
    }
    Ok(())
}

/// Sends bytes ahead of questions, which are to be answered.
fn asked_behind(bench: &mut Bench, bytes: &[u8]) -> Result<()> {
    let patience = bench.patience();
    let mut wire = bench.dut.wire()?;
    wire.writer.write_all(bytes)?;
    wire.writer.flush()?;
    let mut client = Client::over(wire);
    client.greet(patience)?;
    match client.ask(&Request::Statistics, patience)? {
        Response::Statistics(_) => Ok(()),
        other => bail!("the camera answers {other:?} when asked for its statistics"),
    }
}

/// A host that asks and asks, and reads nothing.
pub fn deaf(bench: &mut Bench) -> Result<()> {
    let before = bench.statistics()?;
    let frames = |statistics: &serde_json::Value| statistics["frames"].as_u64().unwrap_or_default();
    let rate = frames(&before) as f64 / before["uptime_s"].as_f64().unwrap_or(1.0).max(1.0);
    let asked = Instant::now();
    bench.last_frame()?;
    let count = (CARRIED / asked.elapsed().as_secs_f64()).clamp(2.0, f64::from(DEAF)) as u32;
    let wire = bench.dut.wire()?;
    // A line that is full takes no more; that is for its own thread to wait for.
    let (mut writer, reader) = (wire.writer, wire.reader);
    let questions: Vec<Vec<u8>> =
        (0..count).map(|number| question(NUMBERS + number, &Request::LastFrame)).collect::<Result<_>>()?;
    let asking = std::thread::spawn(move || {
        // Where the camera hangs up on such a host, that is as well.
        let _ = questions.iter().try_for_each(|question| writer.write_all(question)).and_then(|()| writer.flush());
        writer
    });
    // Time for twenty frames: that some of them come is no question of how busy the machine is.
    std::thread::sleep(Duration::from_secs_f64((20.0 / rate.max(0.01)).clamp(2.0, 60.0)));
    drop(reader);
    // Whoever still writes is ended by the line's end.
    if asking.is_finished() {
        drop(asking.join());
    }
    bench.dut.lost();
    let after = bench.statistics()?;
    let classified = frames(&after).saturating_sub(frames(&before));
    ensure!(classified >= 4, "it classified {classified} frames, where there was time for twenty");
    bench.figure("frames meanwhile", classified as f64, "");
    Ok(())
}
