//! What latency on a board is estimated from.

use serde::Deserialize;

/// The feature with which int8 is multiplied by fours.
pub const DOT_PRODUCT: &str = "dotprod";

/// The feature with which float16 is multiplied, eight at a time.
const FLOAT16: &str = "fp16";

/// Published figures of a board's processor and memory.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct BoardCost {
    /// The processor's cores, by name.
    pub processor: String,
    /// How many there are.
    pub cores: u32,
    /// Their clock in MHz.
    pub mhz: u32,
    /// What memory delivers at most, in 10^6 bytes per second.
    pub memory_mb_per_s: u32,
    /// Multiplications of float32, each with an addition, per core and cycle at most.
    pub float_macs: u32,
    /// The same of int8, in the way that the kernels multiply it on these cores.
    pub int8_macs: u32,
    /// Instruction sets that kernels choose by, as Rust calls them.
    pub features: Vec<String>,
}

impl BoardCost {
    /// Whether the cores multiply int8 by fours.
    pub fn has_dot_product(&self) -> bool {
        self.features.iter().any(|feature| feature == DOT_PRODUCT)
    }

    /// Whether the cores multiply float16 numbers.
    pub fn has_float16(&self) -> bool {
        self.features.iter().any(|feature| feature == FLOAT16)
    }

    /// What is impossible about it.
    pub(super) fn fault(&self) -> Option<String> {
        let numbers = [self.cores, self.mhz, self.memory_mb_per_s, self.float_macs, self.int8_macs];
        numbers.contains(&0).then(|| "`cost` has a 0".into())
    }
}
