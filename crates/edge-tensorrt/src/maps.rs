//! What memory this process has: whether a pointer that a library gave can be one.

use std::fs;
use std::io;
use std::ops::Range;

/// The memory of this process at one moment.
pub(crate) struct Maps(Vec<Map>);

struct Map {
    range: Range<usize>,
    readable: bool,
    executable: bool,
}

impl Maps {
    /// Reads `/proc/self/maps`.
    pub fn read() -> io::Result<Maps> {
        Ok(Maps::parse(&fs::read_to_string("/proc/self/maps")?))
    }

    fn parse(text: &str) -> Maps {
        let mut maps: Vec<Map> = text.lines().filter_map(parse_line).collect();
        maps.sort_by_key(|map| map.range.start);
        Maps(maps)
    }

    /// Whether `bytes` bytes from `address` on can be read.
    pub fn readable(&self, address: usize, bytes: usize) -> bool {
        let Some(end) = address.checked_add(bytes) else { return false };
        let mut at = address;
        // What is asked for may lie in several maps that follow one another.
        for map in self.0.iter().filter(|map| map.readable) {
            if map.range.contains(&at) {
                at = map.range.end;
            }
            if at >= end {
                return true;
            }
        }
        false
    }

    /// Whether there is code at `address`.
    pub fn executable(&self, address: usize) -> bool {
        self.0.iter().any(|map| map.executable && map.range.contains(&address))
    }
}

fn parse_line(line: &str) -> Option<Map> {
    let mut words = line.split_whitespace();
    let (start, end) = words.next()?.split_once('-')?;
    let rights = words.next()?;
    let number = |text| usize::from_str_radix(text, 16).ok();
    Some(Map {
        range: number(start)?..number(end)?,
        readable: rights.starts_with('r'),
        executable: rights.get(2..3) == Some("x"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_and_rights_are_read() {
        let maps = Maps::parse(
            "1000-2000 r--p 00000000 00:00 0\n2000-3000 r-xp 00000000 08:01 5 /lib/a b.so\nnonsense\n4000-5000 -w-p 0 0 0\n",
        );
        assert!(maps.readable(0x1000, 0x2000) && maps.readable(0x2fff, 1));
        assert!(!maps.readable(0x2fff, 2) && !maps.readable(0x4000, 1) && !maps.readable(0x228, 8));
        assert!(!maps.readable(usize::MAX, 8));
        assert!(maps.executable(0x2000) && !maps.executable(0x1fff));
    }

    #[test]
    fn this_process_has_its_own_memory_and_not_other() {
        let maps = Maps::read().unwrap();
        let value = 7u64;
        assert!(maps.readable(&raw const value as usize, 8));
        assert!(maps.executable(ranges_and_rights_are_read as *const () as usize));
        assert!(!maps.executable(&raw const value as usize) && !maps.readable(0x228, 8));
    }
}
