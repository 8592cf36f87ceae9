//! All that the compiler cannot check: the libraries' functions, the methods behind their objects' tables, and memory that
//! the GPU shares. What leaves this module is safe to use; there is no `unsafe` elsewhere in the crate.
//!
//! What the `unsafe` blocks rely on, and where it is made sure of:
//!
//! * A function is called by the type that it was declared with; the declarations stand here, each once.
//! * Functions are called while their library is loaded: whoever holds one holds the library too.
//! * An object is called only after `Object::new` has found its tables, and code where the methods are, in memory.
//! * An object outlives what was made from it: each holds its maker.

mod cuda;
mod nvinfer;

pub use cuda::Pinned;
pub(crate) use cuda::{Cuda, DeviceMemory, HostMemory, Primary, Stream};
pub(crate) use nvinfer::{Context, Engine, Feed, NvInfer, Runtime};

use crate::TensorRtError;
use libloading::Library;
use std::ffi::{OsStr, c_void};

type Result<T> = std::result::Result<T, TensorRtError>;
/// `CUdeviceptr`.
type Address = u64;
/// `CUcontext`, `CUstream` or one of TensorRT's objects.
type Handle = *mut c_void;

/// Loads a library by its name, which the dynamic loader looks for, or by its path.
fn load(name: &OsStr, fix: &'static str) -> Result<Library> {
    // SAFETY: loading runs the library's initialisers. The names are those of NVIDIA's libraries, looked for where the system's
    // administrator put libraries, and theirs ask for nothing.
    unsafe { Library::new(name) }.map_err(|e| {
        let why = std::error::Error::source(&e).map_or_else(|| e.to_string(), ToString::to_string);
        TensorRtError::Library { library: name.to_string_lossy().into_owned(), why, fix }
    })
}

/// Declares a table of a library's functions, read once.
macro_rules! functions {
    ($(#[$doc:meta])* $table:ident { $($field:ident = $symbol:literal ($($arg:ty),*) -> $ret:ty;)* }) => {
        $(#[$doc])*
        struct $table { $($field: unsafe extern "C" fn($($arg),*) -> $ret,)* }

        impl $table {
            fn read(library: &Library, name: &OsStr) -> Result<$table> {
                let missing = |symbol: &str| TensorRtError::Symbol {
                    library: name.to_string_lossy().into_owned(),
                    why: format!("it has no function {symbol}"),
                };
                // SAFETY: the types are those of NVIDIA's documentation of these functions. They are copied out of the
                // library's hold on them, and stay beside it.
                unsafe { Ok($table { $($field: *library.get($symbol.as_bytes()).map_err(|_| missing($symbol))?,)* }) }
            }
        }
    };
}

use functions;
