//! A card → partition table, layout, boot state, choice of packages, files of the boot partition.
#![no_main]
use edge_package::digest;
use edge_system::disk::Disk;
use edge_system::layout::Layout;
use edge_system::seal::boot_files;
use edge_system::state::{BootState, Choice, StateCopy};
use edge_system::table::Table;
use libfuzzer_sys::fuzz_target;
use std::io::{self, Cursor, Write};
use std::sync::LazyLock;

struct Bytes(Vec<u8>);

impl Disk for Bytes {
    fn size(&self) -> u64 {
        self.0.len() as u64
    }
    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<()> {
        let from = usize::try_from(at).ok().and_then(|at| self.0.get(at..)?.get(..buffer.len()));
        buffer.copy_from_slice(from.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
    fn write_at(&mut self, _: &[u8], _: u64) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

static VOLUME: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut bytes = vec![0; 100_000];
    let _ = fatfs::format_volume(Cursor::new(&mut bytes), fatfs::FormatVolumeOptions::new());
    if let Ok(fat) = fatfs::FileSystem::new(Cursor::new(&mut bytes), fatfs::FsOptions::new()) {
        let _ = fat.root_dir().create_dir("a long name of a folder");
        for path in ["camera.toml", "a long name of a folder/vmlinuz"] {
            let _ = fat.root_dir().create_file(path).map(|mut f| f.write_all(&[7; 3000]));
        }
    }
    bytes
});

fuzz_target!(|bytes: &[u8]| {
    let mut sector = [0; 512];
    let length = bytes.len().min(512);
    sector[..length].copy_from_slice(&bytes[..length]);
    for sum in [false, true] {
        if sum {
            let sum = digest(&sector[..480]);
            sector[480..].copy_from_slice(&sum);
        }
        if let StateCopy::Good(state) = BootState::decode(&sector) {
            assert_eq!(state.encode(), sector);
            assert_eq!(Choice::from_text(&state.choice.to_text()), Some(state.choice));
        }
    }
    sector[510..].copy_from_slice(&[0x55, 0xaa]);
    if let Ok(table) = Table::parse(&sector) {
        assert_eq!(Table::parse(&table.encode()), Ok(table));
    }
    let mut card = sector.to_vec();
    card.resize(1 << 20, 0);
    let _ = Layout::from_disk(&Bytes(card));
    if let Some(choice) = std::str::from_utf8(bytes).ok().and_then(Choice::from_text) {
        assert_eq!(Choice::from_text(&choice.to_text()), Some(choice));
    }

    // A volume that was good, with a few bytes changed in what describes it: (where, what), three bytes each.
    let mut volume = VOLUME.clone();
    for change in bytes.chunks_exact(3) {
        let at = usize::from(u16::from_le_bytes([change[0], change[1]])) % 8192;
        volume[at] = change[2];
    }
    let size = volume.len() as u64;
    let _ = boot_files(&Bytes(volume), 0..size);
    let _ = boot_files(&Bytes(bytes.to_vec()), 0..bytes.len() as u64);
});
