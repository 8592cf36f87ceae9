//! Cases of the two slots for packages and for systems: what is damaged or does not work gives way to the other one.

use super::starts::{again, start_anew, starts, still_right};
use super::update::{newer, ran, running};
use crate::hil::Bench;
use anyhow::{Context, Result, bail, ensure};
use edge_package::{TrustPolicy, VerifiedPackage, digest};
use std::time::Duration;

/// How long a board may take to check and write a package or a system, and to start again from another.
pub const INSTALLATION: Duration = Duration::from_secs(900);

/// What is said of a package whose bytes are not those that were signed.
const DAMAGED: &str = "it is damaged: the digest of ";

/// A script that inverts the bits of one byte: of `$file`, at `$at`, before its end.
const FLIP: &str = r#"
byte=$(dd if="$file" bs=1 skip=$at count=1 2>/dev/null | od -An -tu1 | tr -d ' ')
[ -n "$byte" ]
printf "\\$(printf %03o $((byte ^ 255)))" | dd of="$file" bs=1 seek=$at conv=notrunc 2>/dev/null
sync
echo 3 >/proc/sys/vm/drop_caches
[ "$(dd if="$file" bs=1 skip=$at count=1 2>/dev/null | od -An -tu1 | tr -d ' ')" = $((byte ^ 255)) ]
"#;

/// A newer package is damaged on its disk: one from before it runs from the next start on. Where that was on trial itself, it
/// is the one before that.
pub fn damaged_package(bench: &mut Bench) -> Result<()> {
    let before = ran(bench)?;
    let good = newer(bench, "damaged-later")?;
    let next = VerifiedPackage::from_bytes(good.clone(), &TrustPolicy::default())?.digest();
    let told = bench.update(&good, digest(&good), INSTALLATION)?;
    let patience = bench.patience();
    bench.wait_for(&format!("the new package runs ({told})"), patience, |bench| {
        Ok((running(bench)? == next).then_some(()))
    })?;
    // The last byte is that of its last part.
    let newest = "file=$(ls -t /data/packages/*/package.edgepack | head -n 1)\nat=$(($(wc -c <\"$file\") - 1))\n";
    bench.dut.shell(&format!("{newest}{FLIP}"), patience)?;
    let (lines, mark) = (bench.dut.log()?.len(), mark(bench)?);
    start_anew(bench)?;
    let now = edge_package::hex(&running(bench)?);
    ensure!(before.contains(&now), "{now} runs, which is no package from before the damaged one");
    // That start says once which slot runs instead, and that it is for the damage.
    let log = bench.dut.log()?;
    let told: Vec<&str> =
        log.iter().skip(lines).filter(|line| gave_way(line)).filter_map(|line| line["detail"].as_str()).collect();
    let [told] = told[..] else {
        bail!("the log tells {} times that a damaged package gave way: {told:?}", told.len())
    };
    ensure!(told.contains(DAMAGED), "the package gave way, but the log does not name the damage: {told}");
    if let Some(mark) = mark {
        let what = format!("the console of that start tells it, too: {told}");
        bench.wait_for(&what, patience, |bench| Ok(printed(bench, mark)?.contains(told).then_some(())))?;
    }
    still_right(bench)
}

/// Whether a line of the log tells that a package was refused and another one runs: one that was kept, or one on trial.
fn gave_way(line: &serde_json::Value) -> bool {
    ["slot_fallback", "package_returned"].iter().any(|event| line["event"] == *event)
}

/// How much the console has printed so far, where the device has one.
fn mark(bench: &mut Bench) -> Result<Option<usize>> {
    let console = bench.dut.about().capabilities.contains(&crate::hil::Capability::Console);
    console.then(|| Ok(bench.dut.console()?.len())).transpose()
}

/// What the console has printed since `mark`, a length of it from before.
fn printed(bench: &mut Bench, mark: usize) -> Result<String> {
    Ok(bench.dut.console()?.get(mark..).unwrap_or_default().to_owned())
}

/// The slot that the system runs from, as the console told at the last start.
fn slot(bench: &mut Bench) -> Result<char> {
    let console = bench.dut.console()?;
    let (_, rest) = console.rsplit_once("edge-init: slot ").context("the console names no slot of the system")?;
    rest.chars().next().context("a slot has a name")
}

fn other(slot: char) -> char {
    if slot == 'a' { 'b' } else { 'a' }
}

/// Sends a system and starts from it.
fn tried(bench: &mut Bench, works: bool) -> Result<usize> {
    let path = bench.dut.system(works)?;
    let bytes = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let told = bench.update(&bytes, digest(&bytes), INSTALLATION)?;
    ensure!(told.contains("on trial"), "after a system update the camera says {told:?}");
    Ok(bench.dut.console()?.len())
}

/// A system update runs from the other slot and is kept; damaged there, it gives way to the one before.
pub fn system_kept(bench: &mut Bench) -> Result<()> {
    let before = slot(bench)?;
    let mark = tried(bench, true)?;
    start_anew(bench)?;
    let expected = other(before);
    ensure!(slot(bench)? == expected, "after a system update it runs from slot {before} as before");
    let trial = format!("edge-init: slot {expected} of the system");
    let console = printed(bench, mark)?;
    let line = console.lines().find(|line| line.contains(&trial)).with_context(|| format!("no line {trial:?}"))?;
    ensure!(line.contains("on trial"), "it is not on trial: {line}");
    let kept = format!("edge-init: system slot {expected} is kept");
    let patience = bench.patience();
    bench.wait_for("the system is kept", patience, |bench| Ok(printed(bench, mark)?.contains(&kept).then_some(())))?;
    still_right(bench)?;

    // One byte of what it runs from; what is read is checked at the next start.
    let device = "file=$(awk '$2 == \"/system\" { print $1 }' /proc/mounts)\nat=100000\n";
    bench.dut.shell(&format!("{device}{FLIP}"), patience).context("changing a byte of the system")?;
    start_anew(bench)?;
    let now = slot(bench)?;
    ensure!(now == before, "with a changed byte in slot {expected} it runs from slot {now}");
    still_right(bench)
}

/// A system whose camera program never gets ready is given up by itself.
pub fn system_given_up(bench: &mut Bench) -> Result<()> {
    let before = slot(bench)?;
    let mark = tried(bench, false)?;
    let count = starts(bench)?;
    bench.ask(&edge_link::Request::Power(edge_link::Power::Reboot))?;
    bench.dut.lost();
    let most = INSTALLATION;
    bench.wait_for("the old system runs again", most, |bench| {
        // Its camera program says nothing of itself, so only the console tells.
        let console = printed(bench, mark)?;
        let trial = console.contains("on trial");
        match console.rsplit_once("edge-init: slot ") {
            Some((_, rest))
                if trial && rest.starts_with(before) && !rest.lines().next().unwrap_or("").contains("trial") =>
            {
                Ok(Some(()))
            }
            _ => {
                // The device is looked after meanwhile: it starts anew by itself.
                let _ = bench.dut.link();
                Ok(None)
            }
        }
    })?;
    again(bench, count)?;
    let console = printed(bench, mark)?;
    let trials = console.matches(", on trial").count();
    bench.figure("starts of the broken system", trials as f64, "");
    if trials == 0 {
        bail!("the broken system was never tried:\n{console}");
    }
    still_right(bench)
}
