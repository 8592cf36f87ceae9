//! Which board this is.

use std::path::Path;

/// First entries of the device tree's `compatible` and the board names they mean.
const BOARDS: [(&str, &str); 8] = [
    ("linux,dummy-virt", "virt"),
    ("raspberrypi,3-model-b", "rpi3"),
    ("raspberrypi,4-model-b", "rpi4"),
    ("raspberrypi,5-model-b", "rpi5"),
    ("raspberrypi,model-zero-2-w", "rpi-zero2w"),
    ("nvidia,p3450", "jetson-nano"),
    ("nvidia,p3737", "jetson-orin"),
    ("nvidia,p3768", "jetson-orin"),
];

/// The name of this board from its device tree; `host` on machines that have none or an unknown one.
pub fn this_board() -> &'static str {
    std::fs::read(Path::new("/proc/device-tree/compatible")).map_or("host", |bytes| from_compatible(&bytes))
}

/// The board named by a device tree's `compatible` property: strings, each ended by a zero byte.
fn from_compatible(bytes: &[u8]) -> &'static str {
    let entries = bytes.split(|b| *b == 0).filter_map(|e| std::str::from_utf8(e).ok());
    entries
        .filter(|e| !e.is_empty())
        .find_map(|e| BOARDS.iter().find(|(prefix, _)| e.starts_with(prefix)))
        .map_or("host", |(_, board)| board)
}

#[cfg(test)]
mod tests {
    #[test]
    fn boards_by_compatible() {
        let board = super::from_compatible;
        assert_eq!(board(b"raspberrypi,3-model-b-plus\0brcm,bcm2837\0"), "rpi3");
        assert_eq!(board(b"nvidia,p3768-0000+p3767-0005\0nvidia,tegra234\0"), "jetson-orin");
        assert_eq!(board(b"\xff\0acme,toaster\0"), "host");
    }
}
