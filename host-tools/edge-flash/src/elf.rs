//! What a program needs of the system that it shall run on.

use anyhow::{Context, Result, bail};
use object::Endianness;
use object::elf::{EM_AARCH64, EM_X86_64, FileHeader64, PT_INTERP};
use object::read::elf::{FileHeader, ProgramHeader};

/// The C library of JetPack 6, which is Ubuntu 22.04's: the oldest that the dynamic program is for.
pub const OLDEST_GLIBC: (u32, u32) = (2, 35);

/// What a program is.
#[derive(Debug, PartialEq)]
pub struct Program {
    /// Debian's name of its architecture.
    pub architecture: &'static str,
    /// Whether it needs nothing but the kernel.
    pub is_static: bool,
    /// Versions of the C library that it needs and that are newer than [`OLDEST_GLIBC`], such as `GLIBC_2.38`.
    pub too_new: Vec<String>,
}

impl Program {
    /// Reads an ELF file of 64 bits.
    pub fn parse(bytes: &[u8]) -> Result<Program> {
        let header = FileHeader64::<Endianness>::parse(bytes).context("it is no program of a 64-bit Linux")?;
        let endian = header.endian()?;
        let architecture = match header.e_machine(endian) {
            EM_AARCH64 => "arm64",
            EM_X86_64 => "amd64",
            other => bail!("it is a program for a processor that there is no package for (ELF machine {other:?})"),
        };
        let segments = header.program_headers(endian, bytes)?;
        let is_static = segments.iter().all(|segment| segment.p_type(endian) != PT_INTERP);
        let sections = header.sections(endian, bytes)?;
        let mut too_new = vec![];
        if let Some((mut files, strings)) = sections.gnu_verneed(endian, bytes)? {
            let strings = sections.strings(endian, bytes, strings)?;
            while let Some((_, mut versions)) = files.next()? {
                while let Some(version) = versions.next()? {
                    let name = String::from_utf8_lossy(version.name(endian, strings)?).into_owned();
                    if glibc(&name).is_some_and(|version| version > OLDEST_GLIBC) {
                        too_new.push(name);
                    }
                }
            }
        }
        Ok(Program { architecture, is_static, too_new })
    }
}

/// `GLIBC_2.34` → (2, 34); `GLIBC_PRIVATE` has no place in programs and counts as newer than everything.
fn glibc(name: &str) -> Option<(u32, u32)> {
    let version = name.strip_prefix("GLIBC_")?;
    Some(numbers(version).unwrap_or((u32::MAX, 0)))
}

/// The first two numbers of a version.
pub fn numbers(version: &str) -> Option<(u32, u32)> {
    let mut numbers = version.split('.').map(|number| number.parse().ok());
    Some((numbers.next()??, numbers.next()??))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_very_test_is_a_dynamic_program_of_this_machine() {
        let bytes = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let program = Program::parse(&bytes).unwrap();
        let here = if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" };
        assert_eq!((program.architecture, program.is_static), (here, false));
        assert!(Program::parse(&bytes[..1000]).is_err());
        assert!(Program::parse(b"#!/bin/sh\n").unwrap_err().to_string().contains("no program"));
    }

    #[test]
    fn the_versions_that_it_needs_are_read() {
        // A name of the version table, made newer than it is: of the same length, so that nothing moves.
        let mut bytes = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let before = Program::parse(&bytes).unwrap().too_new.len();
        let old = bytes.windows(12).position(|w| w.starts_with(b"GLIBC_2.") && w[8..10].is_ascii() && w[10] == 0);
        let at = old.expect("a version of two digits such as GLIBC_2.34");
        bytes[at + 8..at + 10].copy_from_slice(b"99");
        let after = Program::parse(&bytes).unwrap().too_new;
        assert!(after.contains(&"GLIBC_2.99".to_owned()) && after.len() > before, "{after:?}");
    }

    #[test]
    fn versions_are_compared_as_numbers() {
        assert!(glibc("GLIBC_2.4").unwrap() < OLDEST_GLIBC && glibc("GLIBC_2.2.5").unwrap() < OLDEST_GLIBC);
        assert!(glibc("GLIBC_2.36").unwrap() > OLDEST_GLIBC && glibc("GLIBC_PRIVATE").unwrap() > OLDEST_GLIBC);
        assert_eq!((glibc("GCC_3.0"), glibc("GLIBC_2.35")), (None, Some(OLDEST_GLIBC)));
    }
}
