//! Devices that come and go, as the kernel tells of them: cameras and displays are given to the group of the camera
//! program, network cards get an address, power buttons are listened to.

use rustix::fs::{Gid, Mode, chmod, chown};
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, bind, netlink, recv, socket_with};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// What the camera program may use: cameras, their parts and memory, displays and what hangs at displays.
const GIVEN: [&str; 7] = ["video4linux", "media", "dma_heap", "graphics", "spidev", "i2c-dev", "gpio"];

/// The code of the power button in linux/input-event-codes.h.
const KEY_POWER: u16 = 116;

/// What a device is to us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Device {
    /// A node for the camera program, relative to `/dev`.
    Given(PathBuf),
    /// A node with keys.
    Input(PathBuf),
    /// A network card, by its name.
    Network(String),
    /// A serial line, relative to `/dev`.
    Line(PathBuf),
    /// A virtio port, relative to `/dev`.
    Port(PathBuf),
}

/// The devices that are there, and news of those that come.
pub struct Devices {
    news: OwnedFd,
    sys: PathBuf,
}

impl Devices {
    /// Begins to listen.
    pub fn listen(sys: &Path) -> rustix::io::Result<Devices> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let news = socket_with(AddressFamily::NETLINK, SocketType::DGRAM, flags, Some(netlink::KOBJECT_UEVENT))?;
        // The kernel's own messages are those of the first group.
        bind(&news, &netlink::SocketAddrNetlink::new(0, 1))?;
        Ok(Devices { news, sys: sys.into() })
    }

    /// Those that are there.
    pub fn present(&self) -> Vec<Device> {
        let mut devices = vec![];
        for subsystem in GIVEN.iter().copied().chain(["input", "net", "tty", "virtio-ports"]) {
            let Ok(entries) = std::fs::read_dir(self.sys.join("class").join(subsystem)) else { continue };
            for entry in entries.flatten() {
                let text = std::fs::read_to_string(entry.path().join("uevent")).unwrap_or_default();
                devices.extend(device(subsystem, &fields(text.split('\n'))));
            }
        }
        devices
    }

    /// Those that came since this was asked last.
    pub fn came(&self) -> Vec<Device> {
        let mut devices = vec![];
        let mut buffer = [0; 8192];
        loop {
            match recv(&self.news, &mut buffer, RecvFlags::DONTWAIT) {
                Ok((_, length)) => devices.extend(added(&buffer[..length.min(buffer.len())])),
                // There was more news than the socket takes: what is there is looked at anew.
                Err(rustix::io::Errno::NOBUFS) => devices.extend(self.present()),
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => return devices,
            }
        }
    }
}

impl AsFd for Devices {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.news.as_fd()
    }
}

fn added(message: &[u8]) -> Option<Device> {
    let text = std::str::from_utf8(message).ok()?;
    let fields = fields(text.split('\0'));
    let subsystem = fields.get("SUBSYSTEM")?;
    // A virtio port gets its name after it came.
    let news = match *subsystem {
        "virtio-ports" => &["add", "change"][..],
        _ => &["add"],
    };
    if !news.contains(fields.get("ACTION")?) {
        return None;
    }
    device(subsystem, &fields)
}

fn fields<'a>(lines: impl Iterator<Item = &'a str>) -> BTreeMap<&'a str, &'a str> {
    lines.filter_map(|line| line.split_once('=')).collect()
}

fn device(subsystem: &str, fields: &BTreeMap<&str, &str>) -> Option<Device> {
    if subsystem == "net" {
        return fields.get("INTERFACE").map(|name| Device::Network(name.to_string()));
    }
    // The kernel's names have no dots, and nobody else's are listened to.
    let node = fields.get("DEVNAME").filter(|name| !name.split('/').any(|part| part == ".." || part.is_empty()))?;
    match subsystem {
        "input" => node.contains("event").then(|| Device::Input(node.into())),
        "tty" => Some(Device::Line(node.into())),
        "virtio-ports" => Some(Device::Port(node.into())),
        _ => GIVEN.contains(&subsystem).then(|| Device::Given(node.into())),
    }
}

/// Gives a node to a group.
pub fn give(node: &Path, group: u32) -> rustix::io::Result<()> {
    chown(node, None, Some(Gid::from_raw(group)))?;
    chmod(node, Mode::from_raw_mode(0o660))
}

/// The folder of virtio ports by their names, relative to `/dev`, as other systems have it.
const PORTS: &str = "virtio-ports";

/// The link to a virtio port by its name, relative to `/dev`; for ports whose names begin with `edge.`, which are a camera's.
pub fn port_link(sys: &Path, node: &Path) -> Option<PathBuf> {
    let name = std::fs::read_to_string(sys.join("class/virtio-ports").join(node).join("name")).ok()?;
    let name = name.trim();
    let plain = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
    let ours = name.strip_prefix("edge.").is_some_and(|rest| !rest.is_empty());
    (ours && name.len() <= 64 && name.chars().all(plain)).then(|| Path::new(PORTS).join(name))
}

/// Makes such a link below `dev`.
pub fn make_link(dev: &Path, link: &Path, node: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(dev.join(PORTS))?;
    match std::os::unix::fs::symlink(Path::new("..").join(node), dev.join(link)) {
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        made => made,
    }
}

/// A device with keys, of which one may be the power button.
pub struct Keys(File);

impl Keys {
    /// Opens it.
    pub fn open(node: &Path) -> std::io::Result<Keys> {
        let nonblocking = rustix::fs::OFlags::NONBLOCK.bits() as i32;
        Ok(Keys(File::options().read(true).custom_flags(nonblocking).open(node)?))
    }

    /// Whether the power button was pressed since this was asked last; `None` when the device is gone.
    pub fn power(&mut self) -> Option<bool> {
        let mut pressed = false;
        loop {
            let mut events = [0; 24 * 16];
            match self.0.read(&mut events) {
                Ok(0) => return None,
                Ok(length) => pressed |= events[..length].chunks_exact(24).any(is_power),
                Err(why) if why.kind() == std::io::ErrorKind::WouldBlock => return Some(pressed),
                Err(why) if why.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => return None,
            }
        }
    }
}

impl AsFd for Keys {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// `struct input_event` of a 64-bit kernel: two times 8 bytes of time, type, code, value.
fn is_power(event: &[u8]) -> bool {
    let (kind, code) = (u16::from_ne_bytes([event[16], event[17]]), u16::from_ne_bytes([event[18], event[19]]));
    let value = i32::from_ne_bytes([event[20], event[21], event[22], event[23]]);
    (kind, code, value) == (1, KEY_POWER, 1)
}

/// Whether a network card is one that a cable goes into: Ethernet, with hardware behind it, and no radio.
pub fn is_wired(sys: &Path, name: &str) -> bool {
    let card = sys.join("class/net").join(name);
    let ethernet = std::fs::read_to_string(card.join("type")).is_ok_and(|text| text.trim() == "1");
    let radio = card.join("wireless").exists() || card.join("phy80211").exists();
    ethernet && !radio && card.join("device").exists()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_message_does_harm(text in "(add|ACTION=add|SUBSYSTEM=(net|input|video4linux|tty|virtio-ports)|DEVNAME=|INTERFACE=|[a-z./=]|\\PC|\0)*") {
            if let Some(Device::Given(node) | Device::Input(node) | Device::Line(node) | Device::Port(node)) = added(text.as_bytes()) {
                prop_assert!(node.components().all(|part| matches!(part, std::path::Component::Normal(_))), "{node:?}");
            }
        }
    }

    #[test]
    fn news_of_devices_is_read() {
        let video = "add@/devices/x\0ACTION=add\0DEVPATH=/devices/x\0SUBSYSTEM=video4linux\0MAJOR=81\0DEVNAME=video0\0SEQNUM=1\0";
        assert_eq!(added(video.as_bytes()), Some(Device::Given("video0".into())));
        let heap = "add@/x\0ACTION=add\0SUBSYSTEM=dma_heap\0DEVNAME=dma_heap/linux,cma\0";
        assert_eq!(added(heap.as_bytes()), Some(Device::Given("dma_heap/linux,cma".into())));
        let key = "add@/x\0ACTION=add\0SUBSYSTEM=input\0DEVNAME=input/event0\0";
        assert_eq!(added(key.as_bytes()), Some(Device::Input("input/event0".into())));
        let card = "add@/x\0ACTION=add\0SUBSYSTEM=net\0INTERFACE=eth0\0";
        assert_eq!(added(card.as_bytes()), Some(Device::Network("eth0".into())));
        let line = "add@/x\0ACTION=add\0SUBSYSTEM=tty\0DEVNAME=ttyUSB0\0";
        assert_eq!(added(line.as_bytes()), Some(Device::Line("ttyUSB0".into())));
        for action in ["add", "change"] {
            let port = format!("{action}@/x\0ACTION={action}\0SUBSYSTEM=virtio-ports\0DEVNAME=vport0p1\0");
            assert_eq!(added(port.as_bytes()), Some(Device::Port("vport0p1".into())));
        }
        for other in [
            "change@/x\0ACTION=change\0SUBSYSTEM=video4linux\0DEVNAME=video0\0",
            "remove@/x\0ACTION=remove\0SUBSYSTEM=video4linux\0DEVNAME=video0\0",
            "add@/x\0ACTION=add\0SUBSYSTEM=block\0DEVNAME=sda\0",
            "add@/x\0ACTION=add\0SUBSYSTEM=video4linux\0DEVNAME=../etc/passwd\0",
            "add@/x\0ACTION=add\0SUBSYSTEM=input\0",
            "",
        ] {
            assert_eq!(added(other.as_bytes()), None, "{other}");
        }
        assert_eq!(added(&[0xff; 100]), None);
    }

    #[test]
    fn devices_that_are_there_are_found() {
        let sys = tempfile::tempdir().unwrap();
        for (folder, text) in [
            ("class/video4linux/video0", "MAJOR=81\nDEVNAME=video0\n"),
            ("class/input/event3", "DEVNAME=input/event3\n"),
            ("class/input/input3", "PRODUCT=19/0/1/0\n"),
            ("class/net/lo", "INTERFACE=lo\nIFINDEX=1\n"),
        ] {
            std::fs::create_dir_all(sys.path().join(folder)).unwrap();
            std::fs::write(sys.path().join(folder).join("uevent"), text).unwrap();
        }
        let devices = Devices::listen(sys.path()).unwrap();
        let expected =
            [Device::Given("video0".into()), Device::Input("input/event3".into()), Device::Network("lo".into())];
        assert_eq!(devices.present(), expected);
        assert_eq!(devices.came(), []);
    }

    #[test]
    fn ports_of_a_camera_have_names() {
        let dir = tempfile::tempdir().unwrap();
        let (sys, dev) = (dir.path().join("sys"), dir.path().join("dev"));
        let long = format!("edge.{}", "x".repeat(70));
        for (node, name, link) in [
            ("vport0p1", "edge.link\n", Some("virtio-ports/edge.link")),
            ("vport0p2", "org.qemu.guest_agent.0\n", None),
            ("vport0p3", "edge.../../etc\n", None),
            ("vport0p4", "edge.\n", None),
            ("vport0p5", &long, None),
        ] {
            let folder = sys.join("class/virtio-ports").join(node);
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(folder.join("name"), name).unwrap();
            assert_eq!(port_link(&sys, Path::new(node)), link.map(PathBuf::from), "{name}");
        }
        assert_eq!(port_link(&sys, Path::new("vport9p9")), None);
        std::fs::create_dir_all(&dev).unwrap();
        std::fs::write(dev.join("vport0p1"), "the port").unwrap();
        for _ in 0..2 {
            make_link(&dev, Path::new("virtio-ports/edge.link"), Path::new("vport0p1")).unwrap();
        }
        assert_eq!(std::fs::read_to_string(dev.join("virtio-ports/edge.link")).unwrap(), "the port");
    }

    #[test]
    fn only_a_pressed_power_button_is_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("event0");
        let event = |kind: u16, code: u16, value: i32| {
            [&[0; 16][..], &kind.to_ne_bytes(), &code.to_ne_bytes(), &value.to_ne_bytes()].concat()
        };
        let others = [event(1, KEY_POWER, 0), event(1, 30, 1), event(2, KEY_POWER, 1), event(0, 0, 0)].concat();
        assert!(!others.chunks_exact(24).any(is_power));
        assert!(is_power(&event(1, KEY_POWER, 1)));
        // The end of a file stands for a device that was taken away.
        std::fs::write(&path, others).unwrap();
        assert_eq!(Keys::open(&path).unwrap().power(), None);
    }

    #[test]
    fn only_wired_network_cards_get_an_address() {
        let sys = tempfile::tempdir().unwrap();
        for (name, kind, parts) in [
            ("eth0", "1", &["device"][..]),
            ("lo", "772", &[]),
            ("wlan0", "1", &["device", "wireless"]),
            ("dummy0", "1", &[]),
        ] {
            let card = sys.path().join("class/net").join(name);
            std::fs::create_dir_all(&card).unwrap();
            std::fs::write(card.join("type"), format!("{kind}\n")).unwrap();
            parts.iter().for_each(|part| std::fs::create_dir(card.join(part)).unwrap());
        }
        let wired: Vec<&str> =
            ["eth0", "lo", "wlan0", "dummy0", "eth9"].into_iter().filter(|name| is_wired(sys.path(), name)).collect();
        assert_eq!(wired, ["eth0"]);
    }
}
