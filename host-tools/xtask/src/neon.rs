//! The kernels of the boards' processor without a board: their tests on every kind of it that QEMU has, and their inner loops by the
//! count of instructions, which is what can be known about their speed here.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use edge_rig::{apt, sets};
use serde_json::Value;

use crate::cross::toolchain::Toolchain;
use crate::tools::{cargo, output};

/// Raspberry Pi 3 and Zero 2 W, Raspberry Pi 4, Raspberry Pi 5, and all that QEMU has; the set of kernels that is best on each, and
/// those that compute in float16 there.
const PROCESSORS: [(&str, &str, &str); 4] = [
    ("cortex-a53", "neon-inorder", "none"),
    ("cortex-a72", "neon", "none"),
    ("cortex-a76", "dotprod", "dotprod"),
    ("max", "i8mm", "dotprod, i8mm"),
];

/// Multiplications of a register, by what they are called and the first operand.
const MULTIPLICATIONS: [(&str, &str, usize); 10] = [
    ("fmla", ".4s", 4),
    ("fmla", ".8h", 8),
    ("sdot", ".4s", 16),
    ("usmmla", ".4s", 32),
    ("smull", ".8h", 8),
    ("smull2", ".8h", 8),
    ("smlal", ".8h", 8),
    ("smlal2", ".8h", 8),
    ("smlal", ".4s", 4),
    ("smlal2", ".4s", 4),
];

/// The loops that nearly all time goes into: a function, the multiplications of one turn, and the most instructions that it may
/// have, for each loop of that function with so many. The table in the documentation of the kernels is this one; what the compiler
/// orders has room for another of its versions.
const LOOPS: [(&str, usize, &[usize]); 10] = [
    // Rows that are laid together.
    ("edge_kernels::gemm::run::neon", 768, &[206]),
    // Those with one vector of W; rows where they lie; and those for processors that do not order instructions themselves.
    ("edge_kernels::gemm::run::neon", 384, &[106, 113, 164]),
    ("edge_kernels::neon::halves::gemm_halves", 768, &[111]),
    ("edge_kernels::quads::dot", 1536, &[120]),
    ("edge_kernels::quads::i8mm", 1536, &[71]),
    // For processors that order them, for those that do not, and with values of -128.
    ("edge_kernels::quads::neon", 512, &[120, 138, 168]),
    // Windows of 3 × 3 and of 5 × 5, strides of 1 and of 2; the first as the compiler orders it.
    ("edge_kernels::depthwise::floats::neon", 96, &[35, 38, 47]),
    ("edge_kernels::depthwise::floats::neon", 160, &[54, 57]),
    ("edge_kernels::neon::whole::depthwise_whole", 96, &[52]),
    ("edge_kernels::neon::fours::depthwise_fours", 256, &[60]),
];

/// The processors and sets on which kernels run at the sizes of real networks: every set once.
const BIG: [(&str, &str); 4] =
    [("cortex-a76", "neon-inorder"), ("cortex-a76", "neon"), ("cortex-a76", "dotprod"), ("max", "i8mm")];

/// Runs the kernels at the sizes of real networks, on every set of this machine and of the boards' processors.
pub fn big(cache: &Path) -> Result<String> {
    let here = output(&mut cargo(&["test", "--locked", "-p", "edge-kernels", "--test", "big", "--", "--ignored"])?)?;
    let mut proved = vec![format!("{} on this machine", passed(&here)?)];
    let toolchain = Toolchain::prepare(cache)?;
    let qemu = apt::fetch(cache, &sets::EMULATOR)?.join("usr/bin/qemu-aarch64-static");
    let named = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("big-"));
    let tests =
        build(cache, &toolchain)?.into_iter().find(named).context("the tests with big shapes were not built")?;
    for (processor, set) in BIG {
        let mut run = Command::new(&qemu);
        run.args(["-cpu", processor, "-L"]).arg(toolchain.gcc.join("usr/aarch64-linux-gnu")).arg(&tests);
        let text =
            output(run.arg("--ignored").env("EDGE_ISA", set)).with_context(|| format!("{set} on {processor}"))?;
        proved.push(format!("{} on {processor} ({set})", passed(&text)?));
    }
    Ok(format!("tests of the kernels with big shapes passed: {}", proved.join("; ")))
}

/// How many tests passed, none of them failed.
fn passed(text: &str) -> Result<usize> {
    let passed = text.lines().filter_map(|line| line.strip_prefix("test result: ok. ")?.split(" passed").next());
    let passed = passed.filter_map(|count| count.parse::<usize>().ok()).sum();
    ensure!(passed > 0, "the tests printed no result");
    Ok(passed)
}

/// Builds the tests of the kernels, runs them on every processor, and counts.
pub fn run(cache: &Path) -> Result<String> {
    let toolchain = Toolchain::prepare(cache)?;
    let qemu = apt::fetch(cache, &sets::EMULATOR)?.join("usr/bin/qemu-aarch64-static");
    let tests = build(cache, &toolchain)?;
    let mut proved = vec![];
    for (processor, set, float16) in PROCESSORS {
        let mut text = String::new();
        for tests in &tests {
            let mut run = Command::new(&qemu);
            run.args(["-cpu", processor, "-L"]).arg(toolchain.gcc.join("usr/aarch64-linux-gnu")).arg(tests);
            text += &output(run.arg("--nocapture")).with_context(|| format!("on {processor}"))?;
        }
        ensure!(text.contains(&format!("best set: {set}\n")), "on {processor} the best set is not {set}");
        ensure!(
            text.contains(&format!("float16 arithmetic: {float16}\n")),
            "{float16}: that is not what computes in float16 on {processor}"
        );
        let passed = passed(&text).with_context(|| format!("on {processor}"))?;
        proved.push(format!("{passed} on {processor} ({set}; float16 arithmetic: {float16})"));
    }
    let mut objdump = Command::new(cache.join("cross/bin/aarch64-objdump"));
    objdump.args(["--disassemble", "--demangle", "--no-show-raw-insn"]).args(&tests);
    let text = output(&mut objdump)?;
    let found = loops(&text);
    for (function, multiplications, most) in LOOPS {
        proved.push(check(&found, function, multiplications, most)?);
    }
    Ok(format!("tests of the kernels passed: {}", proved.join("; ")))
}

/// Cross-builds the tests and returns the programs.
fn build(cache: &Path, toolchain: &Toolchain) -> Result<Vec<PathBuf>> {
    let mut tests = cargo(&["test", "--locked", "--release", "-p", "edge-kernels", "--lib", "--tests", "--no-run"])?;
    toolchain.apply(&mut tests, cache);
    let text = output(tests.arg("--message-format=json"))?;
    let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let programs: Vec<_> = lines.filter_map(|line| Some(PathBuf::from(line["executable"].as_str()?))).collect();
    ensure!(!programs.is_empty(), "cargo built no tests");
    Ok(programs)
}

/// A loop without another in it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Loop {
    function: String,
    instructions: usize,
    multiplications: usize,
}

/// That the loops of a function with so many multiplications have no more instructions than they may, the shortest first. Loops
/// beyond those are for rarer windows.
fn check(found: &[Loop], function: &str, multiplications: usize, most: &[usize]) -> Result<String> {
    let here = found.iter().filter(|l| l.function == function && l.multiplications == multiplications);
    let mut counts: Vec<usize> = here.map(|l| l.instructions).collect();
    counts.sort_unstable();
    counts.dedup();
    counts.truncate(most.len());
    ensure!(
        counts.len() == most.len(),
        "{function}: {counts:?} instructions for {multiplications} products, not {most:?}"
    );
    let more = counts.iter().zip(most).any(|(count, most)| count > most);
    ensure!(!more, "{function}: {counts:?} instructions for {multiplications} products; it had {most:?}");
    Ok(format!("{function} {counts:?} instructions for {multiplications} products"))
}

/// The function that begins with this line of a disassembly: `0000000000401000 <name>:`.
pub fn symbol(line: &str) -> Option<&str> {
    line.strip_suffix(">:")?.split_once(" <").map(|(_, name)| name)
}

/// The innermost loops of a disassembly that multiply.
fn loops(text: &str) -> Vec<Loop> {
    let mut found = vec![];
    let mut function = String::new();
    // Of the function: addresses, and the multiplications up to each.
    let (mut addresses, mut multiplied): (Vec<u64>, Vec<usize>) = (vec![], vec![]);
    // Where loops so far begin.
    let mut begins: Vec<u64> = vec![];
    for line in text.lines() {
        if let Some(name) = symbol(line) {
            function = name.to_owned();
            (addresses, multiplied, begins) = (vec![], vec![], vec![]);
            continue;
        }
        let Some((address, instruction)) = line.split_once(":\t") else { continue };
        let Ok(address) = u64::from_str_radix(address.trim(), 16) else { continue };
        let (name, operands) = instruction.split_once('\t').unwrap_or((instruction, ""));
        let first = operands.split(',').next().unwrap_or_default();
        let known = MULTIPLICATIONS.iter().find(|(n, operand, _)| *n == name && first.ends_with(operand));
        let before = multiplied.last().copied().unwrap_or(0);
        addresses.push(address);
        multiplied.push(before + known.map_or(0, |k| k.2));
        let Some(target) = target(name, operands) else { continue };
        let Ok(begin) = addresses.binary_search(&target) else { continue };
        let multiplications = multiplied[multiplied.len() - 1] - if begin > 0 { multiplied[begin - 1] } else { 0 };
        // No other begins within this one.
        if multiplications > 0 && begins.iter().all(|begin| *begin < target) {
            let instructions = addresses.len() - begin;
            found.push(Loop { function: function.clone(), instructions, multiplications });
        }
        begins.push(target);
    }
    found
}

/// Where a branch goes.
fn target(name: &str, operands: &str) -> Option<u64> {
    let branch = name == "b" || name.starts_with("b.") || name.starts_with("cb") || name.starts_with("tb");
    let place = operands.split_once(" <")?.0;
    let address = place.rsplit([',', ' ', '\t']).next()?;
    branch.then(|| u64::from_str_radix(address.trim_start_matches("0x"), 16).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "
0000000000000010 <some::kernel>:
  10:\tmov\tx0, #0x0
  14:\tldr\tq0, [x1], #16
  18:\tfmla\tv1.4s, v0.4s, v2.s[0]
  1c:\tcbz\tx2, 24 <some::kernel+0x14>
  20:\tsmull\tv3.8h, v4.8b, v5.8b
  24:\tsubs\tx2, x2, #0x1
  28:\tb.ne\t14 <some::kernel+0x4>  // b.any
  2c:\tcbnz\tx3, 10 <some::kernel>
  30:\tret

0000000000000034 <other::kernel>:
  34:\tldr\tq0, [x1], #16
  38:\tcbnz\tx3, 34 <other::kernel>
";

    #[test]
    fn the_innermost_loop_that_multiplies_is_found_and_counted() {
        let found = loops(TEXT);
        assert_eq!(found, [Loop { function: "some::kernel".into(), instructions: 6, multiplications: 12 }]);
        assert!(check(&found, "some::kernel", 12, &[6]).is_ok());
        assert!(check(&found, "some::kernel", 12, &[5]).unwrap_err().to_string().contains("[6] instructions"));
        assert!(check(&found, "other::kernel", 12, &[6]).unwrap_err().to_string().contains("[]"));
    }
}
