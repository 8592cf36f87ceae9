//! Kernel modules, from the initramfs: `/modules/order` names them, in the order in which they need each other, as
//! `NAME OPTIONS` a line; they lie beside it as `NAME.ko`.

use rustix::io::Errno;
use rustix::system::finit_module;
use std::ffi::CString;
use std::fs::File;
use std::path::Path;

/// Loads them all. One that is missing or is refused is told of, and no reason to stop: what needs it will say so.
pub fn load(folder: &Path, say: &mut dyn FnMut(&str)) {
    let order = folder.join("order");
    match std::fs::read_to_string(&order) {
        Ok(text) => {
            for (name, options) in parse(&text) {
                if let Err(why) = insert(folder, name, options) {
                    say(&format!("kernel module {name}: {why}"));
                }
            }
        }
        Err(why) => say(&format!("no kernel modules are loaded: {}: {why}", order.display())),
    }
}

fn insert(folder: &Path, name: &str, options: &str) -> std::io::Result<()> {
    let file = File::open(folder.join(format!("{name}.ko")))?;
    match finit_module(&file, &CString::new(options)?, 0) {
        // It is there already, or is a part of this kernel.
        Err(Errno::EXIST) => Ok(()),
        other => Ok(other?),
    }
}

fn parse(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.lines().filter_map(|line| {
        let line = line.trim();
        let (name, options) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        (!name.is_empty() && !name.starts_with('#')).then_some((name, options.trim()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_read() {
        let text = "crc16 \n\n# video\nvivid n_devs=1 node_types=0x101\nvirtio_blk";
        let expected = [("crc16", ""), ("vivid", "n_devs=1 node_types=0x101"), ("virtio_blk", "")];
        assert_eq!(parse(text).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn what_is_missing_is_told_and_the_next_one_is_tried() {
        let dir = tempfile::tempdir().unwrap();
        let mut said = vec![];
        load(dir.path(), &mut |text| said.push(text.to_string()));
        std::fs::write(dir.path().join("order"), "one\ntwo x=1\n").unwrap();
        std::fs::write(dir.path().join("two.ko"), "not a module").unwrap();
        load(dir.path(), &mut |text| said.push(text.to_string()));
        assert_eq!(said.len(), 3, "{said:?}");
        assert!(said[0].contains("order") && said[1].starts_with("kernel module one:"), "{said:?}");
        assert!(said[2].starts_with("kernel module two:"), "{said:?}");
    }
}
