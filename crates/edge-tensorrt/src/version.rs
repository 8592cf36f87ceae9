//! Versions of TensorRT, and where each has its methods.

use std::fmt;

/// A version of TensorRT.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// 8, 9, 10…
    pub major: i32,
    /// Of this major version.
    pub minor: i32,
    /// Of this minor version.
    pub patch: i32,
}

impl Version {
    /// From the number that `getInferLibVersion` gives: 8601 is 8.6.1, and from version 10 on 101601 is 10.16.1.
    pub fn from_number(number: i32) -> Version {
        let number = number.max(0);
        let major = if number < 10_000 { 1000 } else { 10_000 };
        Version { major: number / major, minor: number % major / 100, patch: number % 100 }
    }

    /// Where this version has its methods; `None` for one that is not known.
    pub(crate) fn slots(self) -> Option<&'static Slots> {
        match (self.major, self.minor) {
            (8, 6..) | (9, _) => Some(&EIGHT),
            (10, _) => Some(&TEN),
            _ => None,
        }
    }

    /// Whether this crate knows it.
    pub fn is_supported(self) -> bool {
        self.slots().is_some()
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// Places in the virtual tables of the implementation classes `VRuntime`, `VCudaEngine` and `VExecutionContext`, counted
/// from 0 with the two of the destructor. Methods that differ in arguments differ in a flag.
#[derive(Debug)]
pub(crate) struct Slots {
    /// `VRuntime::deserializeCudaEngine(blob, size)`; before 10 with a plug-in factory, which is null, as third argument.
    pub deserialize: usize,
    /// `VCudaEngine::createExecutionContext()`; from 10 on with a strategy of allocation, of which 0 is the usual one.
    pub create_context: usize,
    /// `VCudaEngine::getTensorShape(name)`.
    pub tensor_shape: usize,
    /// `VCudaEngine::getTensorDataType(name)`.
    pub tensor_type: usize,
    /// `VCudaEngine::getTensorIOMode(name)`.
    pub io_mode: usize,
    /// `VCudaEngine::getNbIOTensors()`.
    pub io_count: usize,
    /// `VCudaEngine::getIOTensorName(index)`.
    pub io_name: usize,
    /// `VExecutionContext::setInputShape(name, dims)`.
    pub set_input_shape: usize,
    /// `VExecutionContext::setTensorAddress(name, address)`.
    pub set_address: usize,
    /// `VExecutionContext::enqueueV3(stream)`.
    pub enqueue: usize,
    /// Whether the extents in `Dims` have 64 bits rather than 32.
    pub wide: bool,
}

/// 8.6 to 9.3.
static EIGHT: Slots = Slots {
    deserialize: 2,
    create_context: 11,
    tensor_shape: 34,
    tensor_type: 35,
    io_mode: 38,
    io_count: 45,
    io_name: 46,
    set_input_shape: 29,
    set_address: 32,
    enqueue: 44,
    wide: false,
};

/// 10.0 to 10.16.
static TEN: Slots = Slots {
    deserialize: 3,
    create_context: 5,
    tensor_shape: 19,
    tensor_type: 20,
    io_mode: 23,
    io_count: 30,
    io_name: 31,
    set_input_shape: 21,
    set_address: 24,
    enqueue: 37,
    wide: true,
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_of_numbering_are_read() {
        let read = |number| Version::from_number(number).to_string();
        assert_eq!(
            [8601, 8201, 9300, 101601, 100001, 110000].map(read),
            ["8.6.1", "8.2.1", "9.3.0", "10.16.1", "10.0.1", "11.0.0"]
        );
        assert_eq!(Version::from_number(-7).to_string(), "0.0.0");
    }

    #[test]
    fn versions_from_8_6_to_10_are_known() {
        let known = |number| Version::from_number(number).is_supported();
        assert!([8600, 8601, 9000, 9300, 100000, 101601].into_iter().all(known));
        assert!(![0, 7203, 8201, 8503, 110000, 120000].into_iter().any(known));
    }
}
