//! That the compiler left no part of a kernel in a function of its own: such a one lacks the kernel's instructions, since only the
//! kernel is compiled for them, and is slower than what it is a part of by as much as they bring.

use crate::neon::symbol;
use crate::tools::built;
use anyhow::{Context, Result, bail, ensure};
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

/// What such functions are called: closures, and what of the standard library takes them or is an instruction.
const PARTS: [&str; 6] = ["{{closure}}", "call_mut", "call_once", "try_map", "from_fn", "core_arch"];
/// Kernels that need not be fast, because they only tell what another machine would compute.
const SLOW: &str = "halves::simulated";

/// Looks at every call in the kernels of `edge-camera` that compute in long vectors.
pub fn run() -> Result<String> {
    let mut objdump = Command::new("objdump")
        .args(["-d", "-C", "--no-show-raw-insn"])
        .arg(built("edge-camera")?)
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start objdump")?;
    let text = BufReader::new(objdump.stdout.take().context("no output")?);
    let mut found = Found::default();
    for line in text.split(b'\n') {
        found.line(&String::from_utf8_lossy(&line?));
    }
    ensure!(objdump.wait()?.success(), "objdump failed");
    found.end();
    ensure!(found.kernels > 20, "edge-camera has only {} kernels of long vectors", found.kernels);
    match found.outside.is_empty() {
        true => Ok(format!("{} functions of long vectors, none with a part outside", found.kernels)),
        false => bail!("parts of kernels are functions of their own: {}", Vec::from_iter(found.outside).join("; ")),
    }
}

#[derive(Default)]
struct Found {
    /// Functions of kernels with long vectors.
    kernels: usize,
    /// What they call, and who does.
    outside: BTreeSet<String>,
    /// The function that is being read, if it is of the kernels, whether it has such vectors, and what it calls.
    name: Option<String>,
    long: bool,
    calls: Vec<String>,
}

impl Found {
    fn line(&mut self, line: &str) {
        if let Some(name) = symbol(line) {
            self.end();
            self.name = name.contains("edge_kernels::").then(|| name.to_owned());
        } else if self.name.is_some() {
            self.long |= line.contains("%ymm") || line.contains("%zmm");
            // `call   401000 <name>`
            if let Some((_, to)) = line.split_once("call ").and_then(|(_, to)| to.split_once('<')) {
                self.calls.push(to.trim_end_matches('>').to_owned());
            }
        }
    }

    fn end(&mut self) {
        if let Some(name) = self.name.take().filter(|name| self.long && !name.contains(SLOW)) {
            self.kernels += 1;
            let parts = self.calls.iter().filter(|to| PARTS.iter().any(|part| to.contains(part)));
            self.outside.extend(parts.map(|to| format!("{name} calls {to}")));
        }
        self.long = false;
        self.calls.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_of_kernels_are_found() {
        let mut found = Found::default();
        for line in [
            "0000000000001000 <edge_kernels::gemm::run::avx2>:",
            "    1000:\tvmovups (%rax),%ymm0",
            "    1005:\tcall   2000 <core::array::<impl [T; N]>::try_map>",
            "    100a:\tcall   *0x286a65(%rip)        # 3000 <_DYNAMIC+0x13b8>",
            "0000000000001100 <edge_kernels::gemm::gemm_columns>:",
            "    1100:\tcall   2000 <core::array::<impl [T; N]>::try_map>",
            "0000000000001200 <edge_kernels::halves::simulated::avx2>:",
            "    1200:\tvmovups (%rax),%ymm0",
            "    1205:\tcall   2000 <core::array::<impl [T; N]>::try_map>",
            "0000000000001300 <other::avx2>:",
            "    1300:\tvmovups (%rax),%ymm0",
            "    1305:\tcall   2000 <core::array::<impl [T; N]>::try_map>",
        ] {
            found.line(line);
        }
        found.end();
        assert_eq!(found.kernels, 1);
        let outside = ["edge_kernels::gemm::run::avx2 calls core::array::<impl [T; N]>::try_map".to_owned()];
        assert_eq!(Vec::from_iter(found.outside), outside);
    }
}
