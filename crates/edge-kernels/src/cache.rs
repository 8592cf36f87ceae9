//! What is known of this machine's caches.

use std::fs::read_to_string;
use std::path::Path;

/// Bytes of the second-level cache that each processor has, its part of one that is shared, as Linux tells it; `None` where it
/// does not.
pub fn second_level_cache() -> Option<usize> {
    (0..8).find_map(|index| level(&Path::new("/sys/devices/system/cpu/cpu0/cache").join(format!("index{index}")), 2))
}

/// The same of a folder that describes one cache, if that is of this level.
fn level(folder: &Path, wanted: usize) -> Option<usize> {
    let read = |name: &str| read_to_string(folder.join(name)).ok();
    if read("level")?.trim().parse() != Ok(wanted) || read("type")?.trim() == "Instruction" {
        return None;
    }
    let size = read("size")?.trim().strip_suffix('K')?.parse::<usize>().ok()?.checked_mul(1 << 10)?;
    Some(size / sharing(read("shared_cpu_list")?.trim())?)
}

/// How many a list such as `0-3,8` has.
fn sharing(list: &str) -> Option<usize> {
    let count = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        last.parse::<usize>().ok()?.checked_sub(first.parse().ok()?)?.checked_add(1)
    };
    list.split(',').try_fold(0_usize, |sum, part| sum.checked_add(count(part)?)).filter(|count| *count > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_counted() {
        let counts = ["0", "0-1", "0-3,8,10-11"].map(sharing);
        assert_eq!(counts, [Some(1), Some(2), Some(7)]);
        for bad in ["", "1-0", "0-", "x", "0,,1", "0-18446744073709551615", "99999999999999999999"] {
            assert_eq!(sharing(bad), None, "{bad}");
        }
    }

    #[test]
    #[cfg(not(miri))]
    fn a_folder_is_read_as_linux_writes_it() {
        let folder = std::env::temp_dir().join(format!("edge-kernels-cache-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.join(name), text).unwrap();
        assert_eq!(level(&folder, 2), None);
        for (name, text) in [("level", "2\n"), ("type", "Unified\n"), ("size", "1024K\n"), ("shared_cpu_list", "0-3\n")]
        {
            write(name, text);
        }
        assert_eq!((level(&folder, 2), level(&folder, 3)), (Some(256 << 10), None));
        write("size", "large\n");
        assert_eq!(level(&folder, 2), None);
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
