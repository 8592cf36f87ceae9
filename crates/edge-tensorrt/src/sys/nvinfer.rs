//! TensorRT's objects and the methods behind their tables.

use super::{Address, DeviceMemory, Handle, HostMemory, Primary, Result, Stream, functions, load};
use crate::maps::Maps;
use crate::version::Slots;
use crate::{TensorRtError, Version};
use libloading::Library;
use std::ffi::{CStr, CString, OsStr, c_char, c_int, c_void};
use std::path::PathBuf;
use std::ptr;
use std::rc::Rc;
use std::sync::{Mutex, PoisonError};

/// Lines of TensorRT's log that are kept for an error.
const LINES: usize = 20;
/// The bytes of a line that are kept.
const LINE: usize = 1000;

/// TensorRT's `ILogger`: an object with the table of its class.
#[repr(C)]
struct Logger {
    table: &'static LoggerTable,
    errors: Mutex<Vec<String>>,
}

/// `ILogger::log` and the destructor's two places.
#[repr(C)]
struct LoggerTable {
    log: extern "C" fn(&Logger, c_int, *const c_char),
    destroy: [extern "C" fn(&Logger); 2],
}

static LOGGER_TABLE: LoggerTable = LoggerTable { log, destroy: [keep, keep] };

/// Keeps messages of severity error (1) and internal error (0).
extern "C" fn log(logger: &Logger, severity: c_int, message: *const c_char) {
    if severity > 1 || message.is_null() {
        return;
    }
    // SAFETY: TensorRT's messages are texts that end.
    let text = unsafe { CStr::from_ptr(message) }.to_bytes();
    let text = String::from_utf8_lossy(&text[..text.len().min(LINE)]).into_owned();
    let mut errors = logger.errors.lock().unwrap_or_else(PoisonError::into_inner);
    if errors.len() < LINES {
        errors.push(text);
    }
}

/// Loggers are never destroyed.
extern "C" fn keep(_: &Logger) {}

impl Logger {
    /// The logger of a library. TensorRT keeps the first one that it was given, whatever becomes of the runtime, so there
    /// is one for each library, for ever.
    fn of(library: &OsStr) -> &'static Logger {
        static LOGGERS: Mutex<Vec<(PathBuf, &'static Logger)>> = Mutex::new(vec![]);
        let mut loggers = LOGGERS.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, logger)) = loggers.iter().find(|(path, _)| path.as_os_str() == library) {
            return logger;
        }
        let logger = Box::leak(Box::new(Logger { table: &LOGGER_TABLE, errors: Mutex::default() }));
        loggers.push((library.into(), logger));
        logger
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.errors.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

functions! {
    /// What `libnvinfer` exports of itself.
    Exports {
        version = "getInferLibVersion" () -> c_int;
        create = "createInferRuntime_INTERNAL" (*const Logger, c_int) -> Handle;
    }
}

/// TensorRT's library.
pub(crate) struct NvInfer {
    exports: Exports,
    logger: &'static Logger,
    /// After the functions, so that they go first.
    _library: Library,
}

impl NvInfer {
    /// Loads it.
    pub fn open(name: &OsStr) -> Result<NvInfer> {
        let library =
            load(name, "it comes with TensorRT (on a Jetson `apt install tensorrt`, or JetPack's whole set)")?;
        let exports = Exports::read(&library, name)?;
        Ok(NvInfer { exports, logger: Logger::of(name), _library: library })
    }

    /// Which version it is.
    pub fn version(&self) -> Version {
        Version::from_number(self.number())
    }

    fn number(&self) -> c_int {
        // SAFETY: it only gives a number.
        unsafe { (self.exports.version)() }
    }

    /// What was logged while `make` made something: nothing, or it is a failure.
    fn made(&self, call: &'static str, slots: &[usize], make: impl FnOnce() -> Handle) -> Result<Object> {
        self.logger.take();
        let pointer = make();
        let said = self.logger.take();
        if pointer.is_null() {
            return Err(TensorRtError::Call { call, said });
        }
        match Object::new(pointer, slots) {
            Err(why) => Err(TensorRtError::Garbage { call, why, said }),
            Ok(_) if !said.is_empty() => Err(TensorRtError::Call { call, said }),
            Ok(object) => Ok(object),
        }
    }

    fn answer(&self, call: &'static str, ask: impl FnOnce() -> u8) -> Result<()> {
        self.logger.take();
        // A C++ bool fills one byte.
        if ask() == 0 { Err(TensorRtError::Call { call, said: self.logger.take() }) } else { Ok(()) }
    }
}

/// An object of one of TensorRT's public classes: its own table, then a pointer to the object that does the work and whose
/// table has the methods.
struct Object {
    address: Handle,
    worker: Handle,
}

/// The place of the destructor that frees, in the object's own table.
const DELETE: usize = 1;

impl Object {
    /// Looks whether this can be one: all memory that is read on the way to the methods in `slots` is there, and code
    /// where they are.
    fn new(pointer: Handle, slots: &[usize]) -> std::result::Result<Object, &'static str> {
        let maps = Maps::read().map_err(|_| "/proc/self/maps cannot be read")?;
        let at = |base: usize, index: usize| {
            let address = base.wrapping_add(8 * index);
            if !address.is_multiple_of(8) || !maps.readable(address, 8) {
                return Err("it points to no memory");
            }
            // SAFETY: eight bytes at this aligned address can be read, as the kernel says.
            Ok(unsafe { (address as *const usize).read() })
        };
        let code = |table: usize, slot: usize| match maps.executable(at(table, slot)?) {
            true => Ok(()),
            false => Err("there is no code where a method should be"),
        };
        let address = pointer as usize;
        (0..=DELETE).try_for_each(|slot| code(at(address, 0)?, slot))?;
        let worker = at(address, 1)?;
        let table = at(worker, 0)?;
        slots.iter().try_for_each(|slot| code(table, *slot))?;
        Ok(Object { address: pointer, worker: worker as Handle })
    }

    /// The address of a method of the object that does the work.
    ///
    /// # Safety
    ///
    /// `slot` was among those that [`Object::new`] looked at.
    unsafe fn method(&self, slot: usize) -> *const c_void {
        // SAFETY: `new` has read this very place; objects keep their tables.
        unsafe { self.worker.cast::<*const *const c_void>().read().add(slot).read() }
    }
}

impl Drop for Object {
    fn drop(&mut self) {
        // SAFETY: `new` has seen code there, and the object, which was made for us, goes once. The destructor takes the object
        // alone.
        unsafe {
            let table = self.address.cast::<*const *const c_void>().read();
            let delete: unsafe extern "C" fn(Handle) = std::mem::transmute(table.add(DELETE).read());
            delete(self.address);
        }
    }
}

/// Calls a method: an object, a slot that it was made with, the types of the arguments and of the result, the arguments.
macro_rules! call {
    ($object:expr, $slot:expr, ($($arg:ty),*) -> $ret:ty, $($value:expr),*) => {{
        // SAFETY: the slot was looked at when the object was made, and a method takes its object first and then these arguments,
        // as NVIDIA's headers say for the versions that have this slot.
        unsafe {
            let method: unsafe extern "C" fn(Handle $(, $arg)*) -> $ret = std::mem::transmute($object.method($slot));
            method($object.worker $(, $value)*)
        }
    }};
}

/// `nvinfer1::Dims`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Dims<T> {
    count: i32,
    extents: [T; 8],
}

impl<T: Copy + Default> Dims<T> {
    fn new(shape: &[usize], convert: impl Fn(usize) -> Option<T>) -> Option<Dims<T>> {
        let mut dims = Dims { count: shape.len() as i32, extents: [T::default(); 8] };
        for (at, extent) in shape.iter().enumerate() {
            *dims.extents.get_mut(at)? = convert(*extent)?;
        }
        Some(dims)
    }

    fn shape(&self, convert: impl Fn(T) -> i64) -> Option<Vec<i64>> {
        let count = usize::try_from(self.count).ok()?;
        Some(self.extents.get(..count)?.iter().map(|e| convert(*e)).collect())
    }
}

/// TensorRT at work on a GPU.
pub(crate) struct Runtime {
    object: Object,
    slots: &'static Slots,
    nvinfer: Rc<NvInfer>,
    primary: Rc<Primary>,
}

impl Runtime {
    /// Makes a runtime. There has to be a GPU: without one TensorRT gives no object.
    pub fn new(nvinfer: &Rc<NvInfer>, slots: &'static Slots, primary: &Rc<Primary>) -> Result<Runtime> {
        primary.work_here()?;
        let object = nvinfer.made("createInferRuntime", &[slots.deserialize], || {
            // SAFETY: the logger lives for ever and has an ILogger's layout; the version is the library's own.
            unsafe { (nvinfer.exports.create)(nvinfer.logger, nvinfer.number()) }
        })?;
        Ok(Runtime { object, slots, nvinfer: nvinfer.clone(), primary: primary.clone() })
    }
}

/// A network that was read.
pub(crate) struct Engine {
    object: Object,
    runtime: Rc<Runtime>,
}

impl Engine {
    /// Reads an engine. Its bytes are trusted: TensorRT does not defend itself against them.
    pub fn new(runtime: &Rc<Runtime>, plan: &[u8]) -> Result<Engine> {
        runtime.primary.work_here()?;
        let slots = runtime.slots;
        let wanted =
            [slots.create_context, slots.tensor_shape, slots.tensor_type, slots.io_mode, slots.io_count, slots.io_name];
        let object = runtime.nvinfer.made("deserializeCudaEngine", &wanted, || {
            let (bytes, length) = (plan.as_ptr().cast(), plan.len());
            // The third argument is that of versions before 10; where there is none it is not looked at.
            call!(runtime.object, slots.deserialize, (*const c_void, usize, Handle) -> Handle, bytes, length, ptr::null_mut())
        })?;
        Ok(Engine { object, runtime: runtime.clone() })
    }

    /// How many inputs and outputs there are.
    pub fn io_count(&self) -> i32 {
        call!(self.object, self.runtime.slots.io_count, () -> i32,)
    }

    /// The name of one of them.
    pub fn io_name(&self, index: i32) -> Option<CString> {
        let name = call!(self.object, self.runtime.slots.io_name, (i32) -> *const c_char, index);
        let known = Maps::read().is_ok_and(|maps| maps.readable(name as usize, 1));
        // SAFETY: a name of TensorRT's is a text that ends and lives as long as the engine; it is copied at once.
        known.then(|| unsafe { CStr::from_ptr(name) }.to_owned())
    }

    /// 0 neither, 1 an input, 2 an output.
    pub fn io_mode(&self, name: &CStr) -> i32 {
        call!(self.object, self.runtime.slots.io_mode, (*const c_char) -> i32, name.as_ptr())
    }

    /// 0 is float32; the others are those of `nvinfer1::DataType`.
    pub fn tensor_type(&self, name: &CStr) -> i32 {
        call!(self.object, self.runtime.slots.tensor_type, (*const c_char) -> i32, name.as_ptr())
    }

    /// The extents; -1 for one that is open. `None` where TensorRT gives none.
    pub fn tensor_shape(&self, name: &CStr) -> Option<Vec<i64>> {
        let slot = self.runtime.slots.tensor_shape;
        if self.runtime.slots.wide {
            call!(self.object, slot, (*const c_char) -> Dims<i64>, name.as_ptr()).shape(|e| e)
        } else {
            call!(self.object, slot, (*const c_char) -> Dims<i32>, name.as_ptr()).shape(i64::from)
        }
    }
}

/// A network that runs.
pub(crate) struct Context {
    object: Object,
    engine: Rc<Engine>,
}

/// Where a run takes its input from.
pub(crate) enum Feed<'a> {
    /// Copied to the GPU.
    Copied(&'a [f32], &'a DeviceMemory),
    /// Read in place: the values that were written last through this memory's [`Pinned`], which is borrowed meanwhile.
    InPlace(&'a HostMemory),
}

impl Feed<'_> {
    fn address(&self) -> Address {
        match self {
            Feed::Copied(_, memory) => memory.1,
            Feed::InPlace(memory) => memory.address,
        }
    }
}

impl Context {
    /// Makes what a run needs.
    pub fn new(engine: &Rc<Engine>) -> Result<Context> {
        let runtime = &engine.runtime;
        runtime.primary.work_here()?;
        let slots = runtime.slots;
        let wanted = [slots.set_input_shape, slots.set_address, slots.enqueue];
        let object = runtime.nvinfer.made("createExecutionContext", &wanted, || {
            // The argument is that of versions from 10 on: static allocation.
            call!(engine.object, slots.create_context, (i32) -> Handle, 0)
        })?;
        Ok(Context { object, engine: engine.clone() })
    }

    /// Says the shape of an input.
    pub fn set_shape(&self, name: &CStr, shape: &[usize]) -> Result<()> {
        let (slots, nvinfer) = (self.engine.runtime.slots, &self.engine.runtime.nvinfer);
        let too_large = || TensorRtError::Contract(format!("the shape {shape:?} is more than TensorRT takes"));
        let narrow = Dims::new(shape, |e| i32::try_from(e).ok()).ok_or_else(too_large)?;
        let wide = Dims::new(shape, |e| i64::try_from(e).ok()).ok_or_else(too_large)?;
        let dims: *const c_void = if slots.wide { (&raw const wide).cast() } else { (&raw const narrow).cast() };
        nvinfer.answer(
            "setInputShape",
            || call!(self.object, slots.set_input_shape, (*const c_char, *const c_void) -> u8, name.as_ptr(), dims),
        )
    }

    fn set_address(&self, name: &CStr, address: Address) -> Result<()> {
        let slot = self.engine.runtime.slots.set_address;
        self.engine.runtime.nvinfer.answer(
            "setTensorAddress",
            || call!(self.object, slot, (*const c_char, Address) -> u8, name.as_ptr(), address),
        )
    }

    /// Says where an output goes.
    pub fn set_output(&self, name: &CStr, memory: &DeviceMemory) -> Result<()> {
        self.set_address(name, memory.1)
    }

    /// Runs once and waits for the end: input to the GPU, the network, the values of `from` into `to`.
    ///
    /// The memory of all outputs is that of [`Context::set_output`], which the caller keeps.
    pub fn run(
        &self,
        stream: &Stream,
        input: &CStr,
        feed: Feed<'_>,
        from: &DeviceMemory,
        to: &mut [f32],
    ) -> Result<()> {
        let runtime = &self.engine.runtime;
        runtime.primary.work_here()?;
        self.set_address(input, feed.address())?;
        let mut steps = || {
            if let Feed::Copied(values, memory) = &feed {
                // SAFETY: both are borrowed until the stream has been waited for, below.
                unsafe { memory.upload(values, stream)? };
            }
            let enqueue = || call!(self.object, runtime.slots.enqueue, (Handle) -> u8, stream.1);
            runtime.nvinfer.answer("enqueueV3", enqueue)?;
            // SAFETY: as above.
            unsafe { from.download(to, stream) }
        };
        let done = steps();
        // Whatever came of the steps: nothing borrowed is in use any more when this returns.
        done.and(stream.wait())
    }
}
