//! The GPU that networks run on.

use crate::TensorRtError;
use crate::sys::{Cuda, Primary};
use std::ffi::OsStr;
use std::fmt;
use std::rc::Rc;

/// Numbers of `CUdevice_attribute`.
const PROCESSORS: i32 = 16;
const INTEGRATED: i32 = 18;
const MAJOR: i32 = 75;
const MINOR: i32 = 76;

/// What an engine is bound to, beside the version of TensorRT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gpu {
    /// As the driver calls it. Boards of one family share it: every Jetson Orin is an `Orin`.
    pub name: String,
    /// Compute capability.
    pub capability: (i32, i32),
    /// Number of multiprocessors, which tells boards of one family apart.
    pub processors: i32,
    /// Whether it has no memory of its own, and reads this process's in place.
    pub integrated: bool,
}

impl fmt::Display for Gpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (major, minor) = self.capability;
        write!(f, "{}, compute capability {major}.{minor}, {} multiprocessors", self.name, self.processors)
    }
}

/// Finds the first GPU that CUDA gives this process (`CUDA_VISIBLE_DEVICES` chooses among several) and holds it.
pub(crate) fn open(libcuda: &OsStr) -> Result<(Gpu, Rc<Primary>), TensorRtError> {
    let cuda = Rc::new(Cuda::open(libcuda)?);
    if cuda.count()? < 1 {
        return Err(TensorRtError::NoDevice);
    }
    let device = cuda.device(0)?;
    let attribute = |number| cuda.attribute(number, device);
    let gpu = Gpu {
        name: cuda.name(device)?,
        capability: (attribute(MAJOR)?, attribute(MINOR)?),
        processors: attribute(PROCESSORS)?,
        integrated: attribute(INTEGRATED)? != 0,
    };
    Ok((gpu, Rc::new(Primary::new(cuda, device)?)))
}
