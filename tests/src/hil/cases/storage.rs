//! Cases of the disk: power that goes while it is written, a partition that is full, and a card that is read elsewhere.

use super::slots::INSTALLATION;
use super::starts::still_right;
use super::update::{newer, ran, running};
use crate::hil::bench::refusal;
use crate::hil::{Bench, Capability};
use anyhow::{Context, Result, bail, ensure};
use edge_link::{Request, Response};
use edge_package::{TrustPolicy, VerifiedPackage, digest};
use edge_system::disk::{Disk, FileDisk};
use edge_system::layout::Layout;
use edge_vision::random::split_mix;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// Bytes of an update in one message.
const PART: usize = 1 << 18;

/// When power went.
const WHEN: [&str; 3] = ["while it was sent", "while it was checked and written", "after it was taken"];

/// Power goes at moments left to chance while a package is sent, checked and written, and a system where there is one.
pub fn power_cut_during_updates(bench: &mut Bench) -> Result<()> {
    let cuts = if bench.long { 21 } else { 3 };
    let mut random = bench.seed;
    let systems = bench.dut.about().capabilities.contains(&Capability::Systems);
    let mut seen = [0; 3];
    // How long the device takes from the last byte on is not known before it has done it once.
    let mut end = Duration::from_secs(4);
    let mut known = ran(bench)?;
    for cut in 0..cuts {
        let system = systems && cut % 3 == 2;
        let (bytes, next) = if system {
            let path = bench.dut.system(true)?;
            (std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?, None)
        } else {
            let bytes = newer(bench, &format!("cut-{cut}"))?;
            let next = VerifiedPackage::from_bytes(bytes.clone(), &TrustPolicy::default())?.digest();
            (bytes, Some(next))
        };
        let parts = bytes.chunks(PART).count() as u64;
        // Half of the cuts come while it is sent, half of them after that.
        let moment = split_mix(&mut random) % (2 * parts);
        bench.ask(&Request::UpdateBegin { length: bytes.len() as u64, digest: digest(&bytes) })?;
        for (number, part) in bytes.chunks(PART).enumerate().take(moment.min(parts) as usize) {
            bench.ask(&Request::UpdateData { offset: (number * PART) as u64, bytes: part.to_vec() })?;
        }
        let mut when = 0;
        if moment >= parts {
            let most = end.as_millis() as u64;
            let wait = Duration::from_millis(split_mix(&mut random) % most.max(1));
            let begun = Instant::now();
            when = match bench.ask_for(&Request::UpdateEnd, wait) {
                Ok(_) => {
                    end = begun.elapsed();
                    2
                }
                Err(_) => 1,
            };
        }
        seen[when] += 1;
        let context = || format!("cut {} ({}, {} of {parts} parts)", cut + 1, WHEN[when], moment.min(parts));
        bench.dut.power_cut()?;
        bench.dut.boot().with_context(context)?;
        let now = edge_package::hex(&running(bench).with_context(context)?);
        known.extend(next.filter(|_| when > 0).map(|next| edge_package::hex(&next)));
        ensure!(
            known.contains(&now),
            "{}: it runs {now}, which neither ran before nor is a package that it was given whole",
            context(),
        );
        still_right(bench).with_context(context)?;
    }
    for (name, count) in WHEN.iter().zip(seen) {
        bench.figure(&format!("cuts {name}"), f64::from(count), "");
    }
    Ok(())
}

/// A partition without room: frames are classified all the same, an update is refused, and the log goes on afterwards.
pub fn data_full(bench: &mut Bench) -> Result<()> {
    let patience = bench.patience();
    let frames = |bench: &mut Bench| -> Result<u64> {
        bench.statistics()?["frames"].as_u64().context("the statistics have no frames")
    };
    let good = newer(bench, "no-room")?;
    // What is left after large pieces is filled with small ones.
    let fill = "for size in 1048576 4096 512; do\n\
                dd if=/dev/zero bs=$size >>/data/filled-$size 2>/dev/null\n\
                done\nsync\ndf -k /data | tail -n 1 | awk '{ print $4 }'";
    let left = bench.dut.shell(fill, patience * 4)?;
    let mut without_room = || -> Result<String> {
        let before = frames(bench)?;
        bench.wait_for("frames are classified without room for the log", patience, |bench| {
            Ok((frames(bench)? >= before + 3).then_some(()))
        })?;
        let why = refusal(bench.update(&good, digest(&good), INSTALLATION)).context("an update without room for it")?;
        still_right(bench)?;
        Ok(why)
    };
    let full = without_room();
    // In any case there is room again.
    bench.dut.shell("rm -f /data/filled-*; sync", patience)?;
    let why = full?;
    ensure!(!why.is_empty(), "an update without room was refused without a reason");
    bench.figure("left on the partition", left.trim().parse().unwrap_or(f64::NAN), "KiB");
    let mark = frames(bench)?;
    bench.wait_for("the log goes on", patience, |bench| {
        let count = bench.tail()?.iter().rev().take_while(|line| line["frame"].is_u64()).count();
        Ok((count >= 2 && frames(bench)? > mark).then_some(()))
    })?;
    super::log::in_order(&bench.dut.log()?).map(drop)
}

/// Runs a program of this project; what it printed.
fn tool(name: &str, args: &[&std::ffi::OsStr]) -> Result<std::result::Result<String, String>> {
    // This program lies beside it, or, as a test, in a folder below.
    let own = std::env::current_exe()?;
    let places = own.ancestors().skip(1).take(2).map(|folder| folder.join(name));
    let path = places.into_iter().find(|path| path.is_file()).with_context(|| format!("{name} is not built"))?;
    let ran = Command::new(path).args(args).output().with_context(|| format!("cannot start {name}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(if ran.status.success() { Ok(text(&ran.stdout)) } else { Err(text(&ran.stderr)) })
}

/// The same, where it must work.
fn works(name: &str, args: &[&std::ffi::OsStr]) -> Result<String> {
    tool(name, args)?.map_err(|why| anyhow::anyhow!("{name}: {}", why.trim()))
}

/// A card that was used is read on this machine: it verifies, has the log that the camera told, and takes an update.
pub fn card(bench: &mut Bench) -> Result<()> {
    let told = bench.dut.log()?;
    ensure!(!told.is_empty(), "the log is empty");
    let next = newer(bench, "from-a-card")?;
    let digest = VerifiedPackage::from_bytes(next.clone(), &TrustPolicy::default())?.digest();
    let card = bench.dut.card()?;
    let log = works("edge-flash", &["log".as_ref(), card.as_os_str()])?;
    let read: Vec<&str> = log.lines().collect();
    ensure!(read.len() >= told.len(), "{} lines over the link, {} on the card", told.len(), read.len());
    for (line, told) in read.iter().zip(&told) {
        let line: serde_json::Value = serde_json::from_str(line).context("a line on the card is no JSON")?;
        ensure!(line == *told, "on the card: {line}, over the link: {told}");
    }
    bench.figure("lines of the log on the card", read.len() as f64, "");
    verified(&card)?;
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("next.edgepack");
    std::fs::write(&file, &next)?;
    works("edge-flash", &["update".as_ref(), file.as_os_str(), "--device".as_ref(), card.as_os_str()])?;
    bench.dut.boot()?;
    let now = running(bench)?;
    ensure!(now == digest, "{} runs, not the package that was put on the card", edge_package::hex(&now));
    still_right(bench)
}

/// `edge-flash verify` finds nothing changed, and a changed byte where there is one.
fn verified(card: &Path) -> Result<()> {
    let verify = ["verify".as_ref(), card.as_os_str()];
    works("edge-flash", &verify).context("the used card does not verify")?;
    let layout = Layout::from_disk(&FileDisk::open(card)?)?;
    let place = layout.boot.start + (layout.boot.end - layout.boot.start) / 4;
    flip(card, place)?;
    let found = tool("edge-flash", &verify)?;
    flip(card, place)?;
    ensure!(found.is_err(), "a changed byte of the boot partition was not found");
    works("edge-flash", &verify).map(drop)
}

/// Inverts the bits of one byte.
fn flip(path: &Path, at: u64) -> Result<()> {
    let mut disk = FileDisk::open_writable(path)?;
    let mut byte = [0];
    disk.read_at(&mut byte, at)?;
    byte[0] = !byte[0];
    disk.write_at(&byte, at)?;
    disk.flush()?;
    Ok(())
}

/// A system that was written to the card on this machine is tried and kept.
pub fn system_on_card(bench: &mut Bench) -> Result<()> {
    let system = bench.dut.system(true)?;
    let card = bench.dut.card()?;
    works("edge-flash", &["update".as_ref(), system.as_os_str(), "--device".as_ref(), card.as_os_str()])?;
    let mark = bench.dut.console()?.len();
    bench.dut.boot()?;
    let patience = bench.patience();
    bench.wait_for("the system from the card is kept", patience, |bench| {
        let console = bench.dut.console()?;
        let new = console.get(mark..).unwrap_or_default();
        Ok((new.contains(", on trial") && new.contains(" is kept")).then_some(()))
    })?;
    match bench.ask(&Request::Statistics)? {
        Response::Statistics(_) => still_right(bench),
        other => bail!("the camera answers {other:?} when asked for its statistics"),
    }
}
