//! Cases of package updates.

use crate::hil::Bench;
use crate::hil::bench::refusal;
use anyhow::{Context, Result, bail, ensure};
use edge_link::{PROTOCOL, Request, Response};
use edge_package::{Digest, Manifest, PackageWriter, SecretKey, TrustPolicy, VerifiedPackage, digest, hex};
use std::collections::HashSet;
use std::time::{Duration, SystemTime};

/// How long a board may take to prove and write a package.
const INSTALLATION: Duration = Duration::from_secs(600);

/// The package of the device with a changed manifest, signed by `key` or by nobody.
fn changed(bench: &Bench, key: Option<&SecretKey>, change: impl FnOnce(&mut Manifest)) -> Result<Vec<u8>> {
    let package = VerifiedPackage::open(&bench.dut.files().package, &TrustPolicy::default())?;
    let mut manifest = package.manifest().clone();
    change(&mut manifest);
    let mut writer = PackageWriter::new();
    for part in &package.manifest().parts {
        writer.part(&part.name, package.part(&part.name).context("a part that is listed")?.to_vec());
    }
    Ok(writer.finish(manifest, key)?)
}

/// The key that signs packages for the device.
pub fn key(bench: &Bench) -> Result<SecretKey> {
    let path = bench.dut.files().key.as_ref().context("the key of the device's packages is not here")?;
    Ok(SecretKey::read(path)?)
}

/// A package as the device's, newer than whatever was made before, with another name.
pub fn newer(bench: &Bench, name: &str) -> Result<Vec<u8>> {
    let key = key(bench)?;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs();
    changed(bench, Some(&key), |manifest| {
        manifest.sequence = now.max(manifest.sequence + 1);
        manifest.name = name.into();
    })
}

/// The package that runs.
pub fn running(bench: &mut Bench) -> Result<Digest> {
    match bench.ask(&Request::Hello { protocol: PROTOCOL })? {
        Response::Hello(hello) => Ok(hello.package),
        other => bail!("the camera answers {other:?} when asked who it is"),
    }
}

/// The digests of the packages that ran so far, as the log has them, and of the one that runs. A package on trial gives way to the
/// one that was kept before it, so any of them may run again.
pub fn ran(bench: &mut Bench) -> Result<HashSet<String>> {
    let log = bench.dut.log()?;
    let mut ran: HashSet<String> = log.iter().filter_map(|line| line["package"].as_str().map(str::to_owned)).collect();
    ran.insert(hex(&running(bench)?));
    Ok(ran)
}

/// Whatever is wrong with a package is said, and nothing comes of it.
pub fn refused(bench: &mut Bench) -> Result<()> {
    let key = key(bench)?;
    let newer = |manifest: &mut Manifest| manifest.sequence += 1;
    let good = changed(bench, Some(&key), newer)?;
    let stranger = changed(bench, Some(&SecretKey::from_seed(&[7; 32])), newer)?;
    let nobody = changed(bench, None, newer)?;
    let older = changed(bench, Some(&key), |manifest| manifest.sequence = manifest.sequence.saturating_sub(1))?;
    let elsewhere = changed(bench, Some(&key), |manifest| {
        newer(manifest);
        manifest.boards = vec!["another-board".into()];
    })?;
    let mut bit = good.clone();
    let middle = bit.len() / 2;
    bit[middle] ^= 1;
    let cut = good[..good.len() - 4096].to_vec();
    let before = running(bench)?;
    for (what, bytes, part) in [
        ("signed by a stranger", &stranger, "trusted"),
        ("signed by nobody", &nobody, "not signed"),
        ("older than what runs", &older, "never goes back"),
        ("for another board", &elsewhere, "another-board"),
        ("with a changed bit", &bit, "damaged"),
        ("without its end", &cut, "truncated"),
        ("no package at all", &b"#!/bin/sh\necho hello\n".to_vec(), "edgepack"),
    ] {
        let answer = bench.update(bytes, digest(bytes), INSTALLATION);
        let why = refusal(answer).with_context(|| format!("a package {what}"))?;
        ensure!(why.contains(part), "a package {what} is refused without {part:?} in the reason: {why}");
    }
    let answer = bench.update(&good, [9; 32], INSTALLATION);
    refusal(answer).context("a package of another digest than was announced")?;
    let answer = bench.ask(&Request::UpdateBegin { length: 1 << 50, digest: [0; 32] });
    let why = refusal(answer).context("a package that is too large for any card")?;
    ensure!(why.contains(&(1u64 << 50).to_string()), "the length that is too large is not in the reason: {why}");
    ensure!(running(bench)? == before, "another package runs now");
    Ok(())
}

/// A new package runs, and the one before it runs again when it is asked to.
pub fn taken(bench: &mut Bench) -> Result<()> {
    let key = key(bench)?;
    let good = changed(bench, Some(&key), |manifest| {
        manifest.sequence += 1;
        manifest.name = format!("{}-next", manifest.name);
    })?;
    let next = VerifiedPackage::from_bytes(good.clone(), &TrustPolicy::default())?.digest();
    let before = running(bench)?;
    let told = bench.update(&good, digest(&good), INSTALLATION)?;
    let patience = bench.patience();
    let run = |bench: &mut Bench, which: Digest, what: &str| {
        bench.wait_for(what, patience, |bench| Ok((running(bench)? == which).then_some(())))
    };
    run(bench, next, &format!("the new package runs ({told})"))?;
    super::answers::goldens(bench)?;
    // What it says of frames is logged under its digest.
    bench.wait_for("the new package has classified", patience, |bench| {
        let name = edge_package::hex(&next);
        Ok(bench.tail()?.iter().any(|line| line["package"] == name.as_str()).then_some(()))
    })?;
    // Back again; while it is on trial, too.
    match bench.ask(&Request::SwitchSlot)? {
        Response::Done(_) => {}
        other => bail!("the camera answers {other:?} when told to switch slots"),
    }
    run(bench, before, "the package before it runs again")?;
    super::answers::goldens(bench)
}
