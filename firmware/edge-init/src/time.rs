//! The clock. The boards have none that runs without power: until the network says what time it is, it is at least later
//! than when the image was made, and later than what was logged last.

use anyhow::{Context, bail, ensure};
use rsntp::{Config, SntpClient};
use rtime_clock::adjtime::{Timex, adjtimex};
use rustix::time::{ClockId, Timespec, clock_settime};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::path::Path;
use std::time::{Duration, SystemTime};

/// Sets the clock to the earliest time that it can be now, if it is before that: `created`, in seconds since 1970, or the
/// last change of a file in `folder`. What it was set to.
pub fn floor(created: u64, folder: &Path) -> Option<SystemTime> {
    let earliest = earliest(created, folder);
    (SystemTime::now() < earliest && set(earliest).is_ok()).then_some(earliest)
}

fn earliest(created: u64, folder: &Path) -> SystemTime {
    let files = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let changed = files.filter_map(|entry| entry.metadata().ok()?.modified().ok());
    // A file from the far future, by a clock that was wrong once, must not hold the clock for ever.
    let created = SystemTime::UNIX_EPOCH + Duration::from_secs(created.min(u32::MAX.into()));
    let sane = created + Duration::from_secs(20 * 365 * 86_400);
    changed.filter(|time| *time < sane).fold(created, SystemTime::max)
}

/// Sets the clock.
pub fn set(time: SystemTime) -> rustix::io::Result<()> {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let time = Timespec { tv_sec: since.as_secs() as i64, tv_nsec: since.subsec_nanos().into() };
    clock_settime(ClockId::Realtime, time)
}

/// Differences up to this are slewed away rather than jumped over, in seconds.
const SLEW: f64 = 0.3;
/// From one answer to the next question.
const HOUR: Duration = Duration::from_secs(3600);
/// How often a network is looked for.
const LOOK: Duration = Duration::from_secs(2);
/// From no answer to the next question, at first and at most.
const RETRY: [Duration; 2] = [Duration::from_secs(8), Duration::from_secs(600)];

/// The time client: asks the servers that the network names (files in `found`), then `servers`, and sets the clock, for
/// ever. Times before `not_before`, in seconds since 1970, are wrong. What it does is printed.
pub fn follow(found: &Path, servers: &[String], not_before: u64) -> anyhow::Result<()> {
    let (mut retry, mut told) = (RETRY[0], false);
    loop {
        let Some(named) = named(found) else {
            // Without a network nobody is asked.
            std::thread::sleep(LOOK);
            continue;
        };
        match ask_all(named.into_iter().chain(servers.iter().cloned()), not_before) {
            Ok(said) => {
                println!("{said}");
                (retry, told) = (RETRY[0], false);
                std::thread::sleep(HOUR);
            }
            Err(why) => {
                if !std::mem::replace(&mut told, true) {
                    println!("time: {why:#}; it is asked for again");
                }
                std::thread::sleep(retry);
                retry = (retry * 2).min(RETRY[1]);
            }
        }
    }
}

/// The servers that the network names; `None` without a network: the DHCP client's script makes a file for each card that
/// has an address.
fn named(found: &Path) -> Option<Vec<String>> {
    let entries = std::fs::read_dir(found).ok()?;
    let texts: Vec<String> = entries.flatten().filter_map(|entry| std::fs::read_to_string(entry.path()).ok()).collect();
    (!texts.is_empty()).then(|| texts.iter().flat_map(|text| text.split_whitespace()).map(String::from).collect())
}

fn ask_all(servers: impl Iterator<Item = String>, not_before: u64) -> anyhow::Result<String> {
    let mut last = None;
    for server in servers {
        match ask(&server, not_before) {
            Ok(said) => return Ok(said),
            Err(why) => last = Some(why.context(format!("no time from {server}"))),
        }
    }
    Err(last.unwrap_or_else(|| anyhow::anyhow!("no time server is known")))
}

fn ask(server: &str, not_before: u64) -> anyhow::Result<String> {
    let addresses: Vec<SocketAddr> = match server.parse::<IpAddr>() {
        Ok(address) => vec![(address, 123).into()],
        Err(_) => match server.parse::<SocketAddr>() {
            Ok(address) => vec![address],
            Err(_) => (server, 123).to_socket_addrs().context("the name is not known")?.collect(),
        },
    };
    let mut last = None;
    for address in addresses.into_iter().take(4) {
        let mut config = Config::default();
        if address.is_ipv6() {
            config = config.bind_address((Ipv6Addr::UNSPECIFIED, 0).into());
        }
        match SntpClient::with_config(config).synchronize(address) {
            Ok(answer) => {
                let offset = answer.clock_offset().as_secs_f64();
                let said = apply(offset, not_before)?;
                return Ok(format!("time of {server}: {said}"));
            }
            Err(why) => last = Some(anyhow::anyhow!("{why}")),
        }
    }
    Err(last.unwrap_or_else(|| anyhow::anyhow!("the name has no address")))
}

/// Brings the clock to the right time, `offset` seconds from now's, and tells the kernel that it is right.
fn apply(offset: f64, not_before: u64) -> anyhow::Result<String> {
    ensure!(offset.is_finite(), "the answer makes no sense");
    let now = SystemTime::now();
    let span = Duration::try_from_secs_f64(offset.abs()).context("the answer makes no sense")?;
    let right = if offset < 0.0 { now.checked_sub(span) } else { now.checked_add(span) };
    let Some(right) = right.filter(|time| *time >= SystemTime::UNIX_EPOCH + Duration::from_secs(not_before)) else {
        bail!("it says a time before this image was made");
    };
    let mut timex = Timex::new();
    // Of linux/timex.h: ADJ_STATUS, ADJ_MAXERROR and ADJ_ESTERROR; a status of 0 is a clock that is right.
    timex.0.modes = 0x0010 | 0x0004 | 0x0008;
    (timex.0.status, timex.0.maxerror, timex.0.esterror) = (0, 500_000, 100_000);
    let said = if offset.abs() > SLEW {
        set(right).context("the clock cannot be set")?;
        format!("the clock is set by {offset:+.3} s")
    } else {
        let mut slew = Timex::new();
        // ADJ_OFFSET_SINGLESHOT, as adjtime(3) does it.
        (slew.0.modes, slew.0.offset) = (0x8001, (offset * 1e6) as _);
        adjtimex(&mut slew).context("the clock cannot be slewed")?;
        format!("the clock is right, but for {offset:+.3} s")
    };
    adjtimex(&mut timex).context("the clock cannot be called right")?;
    Ok(said)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;

    #[test]
    fn the_clock_is_at_least_at_the_image_and_the_last_log() {
        let dir = tempfile::tempdir().unwrap();
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        assert_eq!(earliest(1_700_000_000, dir.path()), at(1_700_000_000));
        for (name, seconds) in
            [("a", 1_600_000_000), ("b", 1_750_000_000), ("c", 1_740_000_000), ("future", 9_000_000_000)]
        {
            let file = std::fs::File::create(dir.path().join(name)).unwrap();
            file.set_modified(at(seconds)).unwrap();
        }
        assert_eq!(earliest(1_700_000_000, dir.path()), at(1_750_000_000));
        assert_eq!(earliest(1_800_000_000, Path::new("/nonexistent")), at(1_800_000_000));
        // This machine's clock is right, and stays as it is.
        assert_eq!(floor(1_700_000_000, dir.path()), None);
    }

    #[test]
    fn servers_come_from_every_card() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(named(&dir.path().join("none")), None);
        assert_eq!(named(dir.path()), None);
        std::fs::write(dir.path().join("eth0"), "").unwrap();
        assert_eq!(named(dir.path()), Some(vec![]));
        std::fs::write(dir.path().join("eth0"), "10.0.2.2 10.0.2.3\n").unwrap();
        assert_eq!(named(dir.path()).unwrap(), ["10.0.2.2", "10.0.2.3"]);
    }

    /// A server that answers with a given time, or with nonsense.
    fn server(answer: impl Fn(&[u8]) -> Vec<u8> + Send + 'static) -> String {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap().to_string();
        std::thread::spawn(move || {
            let mut question = [0; 100];
            while let Ok((length, from)) = socket.recv_from(&mut question) {
                let _ = socket.send_to(&answer(&question[..length]), from);
            }
        });
        address
    }

    #[test]
    fn answers_that_make_no_sense_are_refused() {
        // 1970, but for the 70 years that NTP counts from before it.
        let old = |question: &[u8]| {
            let mut answer = vec![0; 48];
            (answer[0], answer[1]) = (0x24, 2);
            answer[24..32].copy_from_slice(&question[40..48]);
            for at in [16, 32, 40] {
                answer[at..at + 4].copy_from_slice(&2_208_988_900u32.to_be_bytes());
            }
            answer
        };
        let why = format!("{:#}", ask(&server(old), 1_700_000_000).unwrap_err());
        assert!(why.contains("before this image was made"), "{why}");
        for answer in [vec![], vec![0; 48], vec![0xff; 48], vec![0x24; 100]] {
            let why = ask_all([server(move |_| answer.clone())].into_iter(), 0).unwrap_err();
            assert!(format!("{why:#}").starts_with("no time from 127.0.0.1:"), "{why:#}");
        }
        assert!(apply(f64::NAN, 0).is_err() && apply(f64::INFINITY, 0).is_err() && apply(-1e300, 0).is_err());
        assert!(ask_all(std::iter::empty(), 0).is_err());
    }
}
