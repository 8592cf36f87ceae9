//! The one source of random bits: for synthetic pictures, augmentation and training, the same on every machine.

/// The next 64 bits of SplitMix64 (Steele, Lea and Flood 2014): a counter that goes up by an odd constant, and a hash of it.
pub fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    mix(*state)
}

/// SplitMix64's hash. It takes every number to another one, and one flipped bit flips about half of them.
pub(crate) fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}
