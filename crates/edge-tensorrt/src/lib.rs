//! TensorRT without TensorRT: a network runs on NVIDIA's GPUs where the libraries for it are found at run time, and
//! nothing of NVIDIA's is needed to build this. The libraries are spoken to as the C++ programs do that they are made for:
//! through the virtual tables of their objects.
//!
//! [`TensorRt::open`] finds a GPU and a library that it knows, or says which of them is missing. [`TensorRt::session`]
//! gives a network that runs: from an engine in the [`Cache`], or from one that `trtexec`, which comes with TensorRT, is
//! asked to build from an ONNX file.
//!
//! # Decisions
//!
//! **A crate of its own, with the backend in `edge-engine` on top of it.** `edge-engine` knows no files, and this is about
//! libraries, processes and folders; nor does it need tract, so that its tests are built in seconds.
//!
//! **Tables written by hand rather than a C++ shim built on the device.** A shim would need a compiler and NVIDIA's headers on
//! every device (JetPack's own images have both, a container or a slim installation has neither), and its failures would
//! be compiler messages. Ten methods of three classes are used, their places are the same in all of 8.6 to 9.3 and in all
//! of 10, and what is found behind a pointer is looked at before it is called: see [`TensorRtError::Garbage`].
//!
//! **The driver's library, `libcuda.so.1`, and not the runtime's, `libcudart`.** The driver's has one name and one interface
//! for every version of CUDA and comes with the driver; the runtime's has another name for every version, and
//! TensorRT has its own copy inside. Streams and memory of both are the same: they share the device's primary context.
//!
//! **`trtexec` builds.** The builder's interface is several times as large as the one that runs engines, parses ONNX in a
//! third library, and may take the process with it; as another process it can be watched, stopped and left without memory.
//!
//! # What has been seen on the real library
//!
//! On 2026-11-26, on an NVIDIA H200 (x86-64, driver 580.159.04, CUDA 13.0, compute capability 9.0), by `tests/gpu.rs`:
//!
//! - With the real driver and a TensorRT of our own that computes on the GPU, in three versions of the interface (8.6.1, 9.3.0,
//!   10.16.1): results as on the processor to the last bit, copied, from pinned memory and with pinned memory read in place; 200
//!   runs of a slow kernel one after another, none of which saw another one's picture or result (without the wait for the stream
//!   this test fails); two sessions and two threads at once; memory back to the MiB after each of 30 sessions of 1.4 GB, and an
//!   error that says so when it ran out; both libraries unloaded and loaded again. 5000 runs of the smallest network: 56 µs each,
//!   which is what this crate and the driver take beside a network.
//! - With NVIDIA's `libnvinfer_lean.so.10` of PyPI's `tensorrt-lean-cu12-libs` 10.16.1.11: version read, runtime made, eight kinds of
//!   bytes that are no engine and an empty one refused with TensorRT's own words from the logger, runtime destroyed, library
//!   closed, three times over in one process. So `createInferRuntime`, the logger, `deserializeCudaEngine` and the
//!   runtime's destructor are where `version.rs` says.
//! - `libnvinfer_lean.so.11` 11.4.0 was refused by its number, and nothing was made of it.
//!
//! - `edge-camera` with both: with ours it built once, passed the golden samples and decided as on the processor; with NVIDIA's it
//!   took the processor under `auto` for want of `trtexec`, and ended with TensorRT's words where a `trtexec` of ours gave it
//!   what is no engine.
//!
//! Not seen: an engine. Whoever builds one needs the whole TensorRT, which was not at hand; so the places of the methods of
//! `ICudaEngine` and `IExecutionContext` rest on public headers of 8.6.1, 9.3 and 10.0 to 10.16. Nor has any of this run on a Jetson.

mod build;
mod cache;
mod error;
mod gpu;
mod maps;
mod runtime;
mod session;
mod sys;
mod version;

pub use build::{Progress, find_trtexec};
pub use cache::{Cache, Entry, Kept};
pub use error::TensorRtError;
pub use gpu::Gpu;
pub use runtime::{Places, Request, TensorRt};
pub use session::{Contract, Session};
pub use sys::Pinned;
pub use version::Version;
