//! The CUDA driver: devices, memory, streams.

use super::{Address, Handle, Result, functions, load};
use crate::TensorRtError;
use libloading::Library;
use std::ffi::{CStr, OsStr, c_char, c_int, c_uint, c_void};
use std::ops::{Deref, DerefMut};
use std::ptr::{self, NonNull};
use std::rc::Rc;

functions! {
    /// The CUDA driver's functions, as <https://docs.nvidia.com/cuda/cuda-driver-api> has them.
    Driver {
        init = "cuInit" (c_uint) -> c_int;
        count = "cuDeviceGetCount" (*mut c_int) -> c_int;
        device = "cuDeviceGet" (*mut c_int, c_int) -> c_int;
        name = "cuDeviceGetName" (*mut c_char, c_int, c_int) -> c_int;
        attribute = "cuDeviceGetAttribute" (*mut c_int, c_int, c_int) -> c_int;
        error_name = "cuGetErrorName" (c_int, *mut *const c_char) -> c_int;
        retain = "cuDevicePrimaryCtxRetain" (*mut Handle, c_int) -> c_int;
        release = "cuDevicePrimaryCtxRelease_v2" (c_int) -> c_int;
        set_current = "cuCtxSetCurrent" (Handle) -> c_int;
        stream_create = "cuStreamCreate" (*mut Handle, c_uint) -> c_int;
        stream_wait = "cuStreamSynchronize" (Handle) -> c_int;
        stream_destroy = "cuStreamDestroy_v2" (Handle) -> c_int;
        alloc = "cuMemAlloc_v2" (*mut Address, usize) -> c_int;
        free = "cuMemFree_v2" (Address) -> c_int;
        host_alloc = "cuMemHostAlloc" (*mut Handle, usize, c_uint) -> c_int;
        host_free = "cuMemFreeHost" (Handle) -> c_int;
        host_address = "cuMemHostGetDevicePointer_v2" (*mut Address, Handle, c_uint) -> c_int;
        upload = "cuMemcpyHtoDAsync_v2" (Address, *const c_void, usize, Handle) -> c_int;
        download = "cuMemcpyDtoHAsync_v2" (Handle, Address, usize, Handle) -> c_int;
    }
}

/// The CUDA driver.
pub(crate) struct Cuda {
    driver: Driver,
    /// After the functions, so that they go first.
    _library: Library,
}

impl Cuda {
    /// Loads the driver's library and initialises it.
    pub fn open(name: &OsStr) -> Result<Cuda> {
        let library = load(name, "it comes with NVIDIA's driver (on a Jetson with JetPack)")?;
        let cuda = Cuda { driver: Driver::read(&library, name)?, _library: library };
        // SAFETY: the only flag there is, 0; it may be called any number of times.
        cuda.check("cuInit", unsafe { (cuda.driver.init)(0) })?;
        Ok(cuda)
    }

    fn check(&self, call: &'static str, code: c_int) -> Result<()> {
        if code == 0 {
            return Ok(());
        }
        let mut text: *const c_char = ptr::null();
        // SAFETY: it writes one pointer, to a text of the library's own or null.
        let known = unsafe { (self.driver.error_name)(code, &mut text) } == 0;
        // SAFETY: a name that was given is a text that ends, for as long as the library is loaded.
        let name = unsafe { (known && !text.is_null()).then(|| CStr::from_ptr(text)) };
        let name = name.map_or("an error without a name".into(), |n| n.to_string_lossy().into_owned());
        let hint = match code {
            2 => "; the network does not fit into the GPU's memory beside what else runs",
            34 => "; this libcuda is only a stub to link against, the driver's own has to be found before it",
            100 => {
                "; the driver finds no GPU: `nvidia-smi` (on a Jetson `tegrastats`) shows what the system sees, and CUDA_VISIBLE_DEVICES can hide it"
            }
            101 | 999 => {
                "; the user that runs this needs access to /dev/nvidia* (on a Jetson the groups video and render)"
            }
            _ => "",
        };
        Err(TensorRtError::Cuda { call, name, code, hint })
    }

    /// A number that a function writes.
    fn number(&self, call: &'static str, write: impl FnOnce(&Driver, *mut c_int) -> c_int) -> Result<c_int> {
        let mut number = 0;
        self.check(call, write(&self.driver, &mut number))?;
        Ok(number)
    }

    /// How many GPUs there are.
    pub fn count(&self) -> Result<c_int> {
        // SAFETY: it writes one number.
        self.number("cuDeviceGetCount", |driver, to| unsafe { (driver.count)(to) })
    }

    /// The device of this number.
    pub fn device(&self, number: c_int) -> Result<c_int> {
        // SAFETY: it writes one number.
        self.number("cuDeviceGet", |driver, to| unsafe { (driver.device)(to, number) })
    }

    /// An attribute, by its number in `CUdevice_attribute`.
    pub fn attribute(&self, attribute: c_int, device: c_int) -> Result<c_int> {
        // SAFETY: it writes one number.
        self.number("cuDeviceGetAttribute", |driver, to| unsafe { (driver.attribute)(to, attribute, device) })
    }

    /// The device's name.
    pub fn name(&self, device: c_int) -> Result<String> {
        let mut name = [0u8; 256];
        // SAFETY: it writes no more than it is told that there is room for.
        let code = unsafe { (self.driver.name)(name.as_mut_ptr().cast(), name.len() as c_int, device) };
        self.check("cuDeviceGetName", code)?;
        Ok(String::from_utf8_lossy(name.split(|b| *b == 0).next().unwrap_or_default()).into_owned())
    }
}

/// The context of a device that TensorRT works in as well, with a stream of our own in it.
pub(crate) struct Primary {
    cuda: Rc<Cuda>,
    device: c_int,
    context: Handle,
}

impl Primary {
    /// Holds the device's primary context and works in it.
    pub fn new(cuda: Rc<Cuda>, device: c_int) -> Result<Primary> {
        let mut context = ptr::null_mut();
        // SAFETY: it writes one handle.
        cuda.check("cuDevicePrimaryCtxRetain", unsafe { (cuda.driver.retain)(&mut context, device) })?;
        let primary = Primary { cuda, device, context };
        primary.work_here()?;
        Ok(primary)
    }

    /// Makes it the context of this thread.
    pub(super) fn work_here(&self) -> Result<()> {
        // SAFETY: the context is held.
        self.cuda.check("cuCtxSetCurrent", unsafe { (self.cuda.driver.set_current)(self.context) })
    }
}

impl Drop for Primary {
    fn drop(&mut self) {
        // SAFETY: it was held once and is released once, after all that was made in it.
        unsafe { (self.cuda.driver.release)(self.device) };
    }
}

/// A stream of work for the GPU.
pub(crate) struct Stream(Rc<Primary>, pub(super) Handle);

impl Stream {
    /// A stream that does not wait for others.
    pub fn new(primary: &Rc<Primary>) -> Result<Stream> {
        let (cuda, mut stream) = (&primary.cuda, ptr::null_mut());
        // SAFETY: it writes one handle; 1 is CU_STREAM_NON_BLOCKING.
        cuda.check("cuStreamCreate", unsafe { (cuda.driver.stream_create)(&mut stream, 1) })?;
        Ok(Stream(primary.clone(), stream))
    }

    /// Waits until all of it is done.
    pub(super) fn wait(&self) -> Result<()> {
        // SAFETY: the stream exists as long as self.
        self.0.cuda.check("cuStreamSynchronize", unsafe { (self.0.cuda.driver.stream_wait)(self.1) })
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let _ = self.0.work_here();
        // SAFETY: it was made once and goes once.
        unsafe { (self.0.cuda.driver.stream_destroy)(self.1) };
    }
}

/// Memory of the GPU for float32 values.
pub(crate) struct DeviceMemory(Rc<Primary>, pub(super) Address, usize);

impl DeviceMemory {
    /// Room for so many values, which are anything at first.
    pub fn new(primary: &Rc<Primary>, values: usize) -> Result<DeviceMemory> {
        let (cuda, mut address) = (&primary.cuda, 0);
        // SAFETY: it writes one address.
        cuda.check("cuMemAlloc", unsafe { (cuda.driver.alloc)(&mut address, values * 4) })?;
        Ok(DeviceMemory(primary.clone(), address, values))
    }

    fn same_length(&self, what: &'static str, found: usize) -> Result<()> {
        let expected = self.2;
        if found == expected { Ok(()) } else { Err(TensorRtError::Length { what, found, expected }) }
    }

    /// Begins to copy values to the GPU.
    ///
    /// # Safety
    ///
    /// The stream is waited for before either side is changed or freed.
    pub(super) unsafe fn upload(&self, values: &[f32], stream: &Stream) -> Result<()> {
        self.same_length("the input", values.len())?;
        let cuda = &self.0.cuda;
        // SAFETY: both sides have that many values, and the caller sees to it that they stay.
        let code = unsafe { (cuda.driver.upload)(self.1, values.as_ptr().cast(), values.len() * 4, stream.1) };
        cuda.check("cuMemcpyHtoDAsync", code)
    }

    /// Begins to copy values from the GPU.
    ///
    /// # Safety
    ///
    /// The stream is waited for before either side is looked at, changed or freed.
    pub(super) unsafe fn download(&self, values: &mut [f32], stream: &Stream) -> Result<()> {
        self.same_length("the output", values.len())?;
        let cuda = &self.0.cuda;
        // SAFETY: both sides have that many values, and the caller sees to it that they stay.
        let code = unsafe { (cuda.driver.download)(values.as_mut_ptr().cast(), self.1, values.len() * 4, stream.1) };
        cuda.check("cuMemcpyDtoHAsync", code)
    }
}

impl Drop for DeviceMemory {
    fn drop(&mut self) {
        let _ = self.0.work_here();
        // SAFETY: it was allocated once and is freed once; every run has ended when it returned.
        unsafe { (self.0.cuda.driver.free)(self.1) };
    }
}

/// Memory of this process that does not move, and that a GPU without memory of its own reads in place.
pub(crate) struct HostMemory {
    primary: Rc<Primary>,
    values: NonNull<f32>,
    /// Where the GPU sees it.
    pub(super) address: Address,
    len: usize,
}

impl HostMemory {
    /// `len` zeros, which only the [`Pinned`] that comes along may look at or change.
    pub fn new(primary: &Rc<Primary>, len: usize) -> Result<(Rc<HostMemory>, Pinned)> {
        let (cuda, mut memory, mut address) = (&primary.cuda, ptr::null_mut(), 0);
        // SAFETY: it writes one pointer; 3 is CU_MEMHOSTALLOC_PORTABLE and CU_MEMHOSTALLOC_DEVICEMAP.
        cuda.check("cuMemHostAlloc", unsafe { (cuda.driver.host_alloc)(&mut memory, len * 4, 3) })?;
        let values = NonNull::new(memory.cast::<f32>()).filter(|m| m.is_aligned());
        let Some(values) = values else {
            let why = "null or not aligned";
            return Err(TensorRtError::Garbage { call: "cuMemHostAlloc", why, said: vec![] });
        };
        // SAFETY: there are `len` values at an aligned address, and nobody else knows of them; zeros are float32 values.
        unsafe { values.write_bytes(0, len) };
        let mut host = HostMemory { primary: primary.clone(), values, address: 0, len };
        // SAFETY: it writes one address, for memory that was allocated to be seen by the GPU.
        let code = unsafe { (cuda.driver.host_address)(&mut address, memory, 0) };
        cuda.check("cuMemHostGetDevicePointer", code)?;
        host.address = address;
        let host = Rc::new(host);
        Ok((host.clone(), Pinned(host)))
    }

    /// Whether these values are this memory's.
    pub fn is(&self, values: &[f32]) -> bool {
        ptr::eq(self.values.as_ptr(), values.as_ptr()) && values.len() == self.len
    }
}

impl Drop for HostMemory {
    fn drop(&mut self) {
        let _ = self.primary.work_here();
        // SAFETY: it was allocated once and is freed once; every run has ended when it returned.
        unsafe { (self.primary.cuda.driver.host_free)(self.values.as_ptr().cast()) };
    }
}

/// The network's input where the GPU finds it: what is written here need not be copied. There is one for each memory.
pub struct Pinned(Rc<HostMemory>);

impl Deref for Pinned {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        // SAFETY: the values were set to zero, and nobody but this one gives access to them.
        unsafe { std::slice::from_raw_parts(self.0.values.as_ptr(), self.0.len) }
    }
}

impl DerefMut for Pinned {
    fn deref_mut(&mut self) -> &mut [f32] {
        // SAFETY: as above; and the GPU reads them only in a run, which borrows them and returns when it has ended.
        unsafe { std::slice::from_raw_parts_mut(self.0.values.as_ptr(), self.0.len) }
    }
}
