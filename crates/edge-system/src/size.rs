//! Numbers of bytes, as people write and read them.

use std::fmt;
use std::str::FromStr;

/// Units of bytes: decimal ones as disks are sold, binary ones as memory is.
const UNITS: [(&str, u64); 8] = [
    ("KIB", 1 << 10),
    ("MIB", 1 << 20),
    ("GIB", 1 << 30),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("B", 1),
];

/// A number of bytes, such as `10MB` or `512KiB`; at least one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Size, String> {
        let wrong = || format!("{text:?} is not a size; a number with a unit is needed, such as 500kB, 10MB or 1GiB");
        let upper = text.trim().to_ascii_uppercase();
        let (unit, factor) = UNITS.iter().find(|(unit, _)| upper.ends_with(unit)).ok_or_else(wrong)?;
        let number: f64 = upper[..upper.len() - unit.len()].trim_end().parse().map_err(|_| wrong())?;
        let bytes = number * *factor as f64;
        // A petabyte is no log; and f64 counts bytes exactly far beyond it.
        if (1.0..=1e15).contains(&bytes) { Ok(Size(bytes as u64)) } else { Err(wrong()) }
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, factor) = match self.0 {
            1_000_000_000.. => ("GB", 1e9),
            1_000_000.. => ("MB", 1e6),
            1_000.. => ("kB", 1e3),
            _ => return write!(f, "{} B", self.0),
        };
        write!(f, "{:.1} {unit}", self.0 as f64 / factor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, bytes) in
            [("10MB", 10_000_000), ("512 KiB", 524_288), ("1.5kb", 1_500), ("7B", 7), ("2GiB", 2 << 30)]
        {
            assert_eq!(text.parse(), Ok(Size(bytes)), "{text}");
        }
        for bad in ["", "10", "MB", "-1MB", "0B", "1e400MB", "NaNMB", "10 M", "9999999TB"] {
            assert!(bad.parse::<Size>().unwrap_err().contains("10MB"), "{bad}");
        }
        assert_eq!(Size(12_345_678).to_string(), "12.3 MB");
    }
}
