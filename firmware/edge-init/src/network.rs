//! The network: one address per cable by DHCP, and the time. Nothing listens on any port.

use crate::devices::is_wired;
use crate::helpers::Helper;
use rustix::fs::Mode;
use std::path::Path;
use std::process::Command;

/// Where the script of the DHCP client leaves the time servers that the network names, a file for each card.
pub const SERVERS: &str = "/run/edge-init/ntp";

/// The DHCP client's script, which is a part of the system.
const SCRIPT: &str = "/system/etc/udhcpc.script";

/// The DHCP client of a network card; none for what takes no cable.
pub fn client(card: &str, busybox: &Path, hostname: &str) -> Option<Helper> {
    if !is_wired(Path::new("/sys"), card) {
        return None;
    }
    let (name, busybox, hostname) = (card.to_string(), busybox.to_path_buf(), hostname.to_string());
    Some(Helper::new(format!("network {card}"), "network ", move || {
        let mut command = Command::new(&busybox);
        command.args(["udhcpc", "-f", "-i", &name, "-s", SCRIPT, "-t", "4", "-T", "3", "-A", "30", "-O", "ntpsrv"]);
        command.args(["-x", &format!("hostname:{hostname}")]).env_clear().env("PATH", "/system/bin");
        command
    }))
}

/// The client of the time.
pub fn time(program: &Path, servers: &[String], not_before: u64) -> Helper {
    let (program, servers) = (program.to_path_buf(), servers.to_vec());
    Helper::new("time".into(), "time", move || {
        let mut command = Command::new(&program);
        command.arg("ntp").args(["--found", SERVERS, "--not-before", &not_before.to_string()]).args(&servers);
        command.env_clear();
        command
    })
}

/// Gets ready: the loopback, and places for what the DHCP client's script finds.
pub fn prepare(busybox: &Path) {
    let _ = std::fs::create_dir_all(SERVERS);
    let _ = rustix::fs::mkdir("/etc", Mode::from_raw_mode(0o755));
    let _ = Command::new(busybox).args(["ip", "link", "set", "lo", "up"]).status();
}
