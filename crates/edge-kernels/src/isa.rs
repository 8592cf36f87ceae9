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
}

/// The name of the environment variable that forces an instruction set.
pub const ENVIRONMENT: &str = "EDGE_ISA";

impl Isa {
    /// Plain Rust, which every machine runs.
    pub const PORTABLE: Isa = Isa(Kind::Portable);

    /// Every set that this machine has, the simplest first. Tests run each kernel on each of them.
    pub fn available() -> Vec<Isa> {
        #[cfg_attr(not(target_arch = "x86_64"), expect(unused_mut))]
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
        found
    }

    /// The set to use: the best of this machine. The project's tests have been executed with every set that there is; one
    /// that they have not must not be chosen here.
    pub fn best() -> Isa {
        Isa::available().pop().unwrap_or(Isa::PORTABLE)
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

    /// `portable`, `avx2`, `avx512`, `avx512vnni`.
    pub fn name(self) -> &'static str {
        match self.0 {
            Kind::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512 => "avx512",
            #[cfg(target_arch = "x86_64")]
            Kind::Vnni => "avx512vnni",
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
        }
    }

    /// `channels` rounded up to whole vectors.
    pub fn padded(self, channels: usize) -> usize {
        channels.next_multiple_of(self.lanes())
    }

    /// Whether it multiplies bytes by fours ([`crate::Quads`]) faster than int16 by pairs ([`crate::Weights8`]).
    pub fn has_quads(self) -> bool {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Kind::Vnni => true,
            _ => false,
        }
    }

    pub(crate) fn kind(self) -> Kind {
        self.0
    }
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
    fn sets_are_found_by_name_and_no_others() {
        for isa in Isa::available() {
            assert_eq!(Isa::named(isa.name()), Ok(isa));
        }
        let error = Isa::named("neon2000").unwrap_err();
        assert!(error.contains("EDGE_ISA=neon2000") && error.contains("portable"));
    }
}
