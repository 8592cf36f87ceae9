//! Which instructions the kernels use.

use std::fmt;

/// A set of instructions that this machine has: there is no way to make one that it lacks, so holding one is the
/// proof that a kernel written for it may run.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Isa(Kind);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "x86_64")]
    Vnni,
    #[cfg(target_arch = "aarch64")]
    InOrder,
    #[cfg(target_arch = "aarch64")]
    Neon,
    #[cfg(target_arch = "aarch64")]
    Dot,
    #[cfg(target_arch = "aarch64")]
    I8mm,
}

/// The name of the environment variable that forces an instruction set.
pub const ENVIRONMENT: &str = "EDGE_ISA";

impl Isa {
    /// Plain Rust, which every machine runs.
    pub const PORTABLE: Isa = Isa(Kind::Portable);

    /// Every set that this machine has, the simplest first. Tests run each kernel on each of them.
    pub fn available() -> Vec<Isa> {
        #[cfg_attr(any(miri, not(any(target_arch = "x86_64", target_arch = "aarch64"))), expect(unused_mut))]
        let mut found = vec![Isa::PORTABLE];
        // Miri interprets plain Rust only.
        #[cfg(all(target_arch = "x86_64", not(miri)))]
        {
            let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
            if avx2 {
                found.push(Isa(Kind::Avx2));
            }
            let avx512 = avx2 && is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw");
            if avx512 {
                found.push(Isa(Kind::Avx512));
            }
            if avx512 && is_x86_feature_detected!("avx512vnni") {
                found.push(Isa(Kind::Vnni));
            }
        }
        #[cfg(all(target_arch = "aarch64", not(miri)))]
        {
            use std::arch::is_aarch64_feature_detected as detected;
            let dot = detected!("neon") && detected!("dotprod");
            let sets = [
                (Kind::InOrder, detected!("neon")),
                (Kind::Neon, detected!("neon")),
                (Kind::Dot, dot),
                (Kind::I8mm, dot && detected!("i8mm")),
            ];
            found.extend(sets.into_iter().filter(|set| set.1).map(|set| Isa(set.0)));
        }
        found
    }

    /// The set to use: the best of this machine. The project's tests have been executed with every set that there is; one
    /// that they have not must not be chosen here.
    pub fn best() -> Isa {
        let best = Isa::available().pop().unwrap_or(Isa::PORTABLE);
        #[cfg(target_arch = "aarch64")]
        if best.0 == Kind::Neon && in_order() {
            return Isa(Kind::InOrder);
        }
        best
    }

    /// What `EDGE_ISA` names, or [`Isa::best`] where it is not set. The error names what there is.
    pub fn chosen() -> Result<Isa, String> {
        match std::env::var(ENVIRONMENT) {
            Ok(name) if !name.is_empty() => Isa::named(&name),
            _ => Ok(Isa::best()),
        }
    }

    /// The set of this name, if the machine has it.
    pub fn named(name: &str) -> Result<Isa, String> {
        let found = Isa::available();
        found.iter().copied().find(|isa| isa.name() == name.to_ascii_lowercase()).ok_or_else(|| {
            let names: Vec<&str> = found.iter().map(|isa| isa.name()).collect();
            format!("{ENVIRONMENT}={name}: this machine has {}", names.join(", "))
        })
    }

    /// `portable`; on x86-64 `avx2`, `avx512`, `avx512vnni`; on aarch64 `neon-inorder`, `neon`, `dotprod`, `i8mm`.
    pub fn name(self) -> &'static str {
        match self.0 {
            Kind::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512 => "avx512",
            #[cfg(target_arch = "x86_64")]
            Kind::Vnni => "avx512vnni",
            #[cfg(target_arch = "aarch64")]
            Kind::InOrder => "neon-inorder",
            #[cfg(target_arch = "aarch64")]
            Kind::Neon => "neon",
            #[cfg(target_arch = "aarch64")]
            Kind::Dot => "dotprod",
            #[cfg(target_arch = "aarch64")]
            Kind::I8mm => "i8mm",
        }
    }

    /// Float32 values in a vector. Channels in memory are padded to a multiple of it.
    pub fn lanes(self) -> usize {
        match self.0 {
            Kind::Portable => 8,
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => 8,
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512 | Kind::Vnni => 16,
            // Two registers of four.
            #[cfg(target_arch = "aarch64")]
            Kind::InOrder | Kind::Neon | Kind::Dot | Kind::I8mm => 8,
        }
    }

    /// `channels` rounded up to whole vectors.
    pub fn padded(self, channels: usize) -> usize {
        channels.next_multiple_of(self.lanes())
    }

    /// Whether it multiplies bytes by fours ([`crate::Quads`]) faster than int16 by pairs ([`crate::Weights8`]), at least
    /// with [some weights](crate::Quads::is_faster).
    pub fn has_quads(self) -> bool {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 | Kind::Vnni => true,
            #[cfg(target_arch = "aarch64")]
            Kind::InOrder | Kind::Neon | Kind::Dot | Kind::I8mm => true,
            _ => false,
        }
    }

    /// Whether it multiplies float16 numbers, eight at a time. Processors that have `sdot` do, but for what an emulator leaves out.
    pub fn has_float16(self) -> bool {
        #[cfg(target_arch = "aarch64")]
        if matches!(self.0, Kind::Dot | Kind::I8mm) {
            return std::arch::is_aarch64_feature_detected!("fp16");
        }
        false
    }

    pub(crate) fn kind(self) -> Kind {
        self.0
    }
}

/// Whether every processor of this machine starts instructions in their order, as Linux names them: Cortex-A34, A53 and A35 (there
/// are others, which have `sdot`). No instruction tells it.
#[cfg(target_arch = "aarch64")]
fn in_order() -> bool {
    static FOUND: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
    *FOUND.get_or_init(|| std::fs::read_to_string("/proc/cpuinfo").is_ok_and(|text| all_in_order(&text)))
}

#[cfg(any(target_arch = "aarch64", test))]
fn all_in_order(cpuinfo: &str) -> bool {
    let values = |name: &str| {
        let lines = cpuinfo.lines().filter_map(|line| line.split_once(':'));
        lines.filter(|(key, _)| key.trim() == name).map(|(_, value)| value.trim()).collect::<Vec<_>>()
    };
    let (makers, parts) = (values("CPU implementer"), values("CPU part"));
    !parts.is_empty()
        && makers.iter().all(|maker| *maker == "0x41")
        && parts.iter().all(|part| matches!(*part, "0xd02" | "0xd03" | "0xd04"))
}

impl fmt::Debug for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_set_is_one_that_is_there() {
        let best = Isa::best();
        assert!(Isa::available().contains(&best));
        // For whoever runs this on a known processor.
        println!("best set: {best}");
    }

    #[test]
    fn processors_that_keep_the_order_are_known_by_their_names() {
        let machine = |parts: &[&str]| {
            let line =
                |part| format!("processor\t: 0\nFeatures\t: fp asimd\nCPU implementer\t: 0x41\nCPU part\t: {part}\n\n");
            parts.iter().map(line).collect::<String>()
        };
        assert!(all_in_order(&machine(&["0xd03"; 4])));
        assert!(!all_in_order(&machine(&["0xd08"; 4])));
        assert!(!all_in_order(&machine(&["0xd03", "0xd08"])));
        assert!(!all_in_order(&machine(&["0xd03"]).replace("0x41", "0x51")));
        assert!(!all_in_order("model name\t: something else\n") && !all_in_order(""));
    }

    #[test]
    fn sets_are_found_by_name_and_no_others() {
        for isa in Isa::available() {
            assert_eq!(Isa::named(isa.name()), Ok(isa));
        }
        let error = Isa::named("neon2000").unwrap_err();
        assert!(error.contains("EDGE_ISA=neon2000") && error.contains("portable"));
    }
}
