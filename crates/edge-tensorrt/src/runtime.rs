//! From what is installed to a network that runs.

use crate::build::{self, Progress};
use crate::cache::{Cache, Entry, Found};
use crate::gpu::{self, Gpu};
use crate::session::{Contract, Session};
use crate::sys::{NvInfer, Primary, Runtime};
use crate::{TensorRtError, Version};
use std::ffi::OsString;
use std::path::PathBuf;
use std::rc::Rc;

/// Where the libraries and the program are.
#[derive(Debug, Clone)]
pub struct Places {
    /// The CUDA driver's library.
    pub libcuda: OsString,
    /// TensorRT's libraries, the first of which that is here and known is taken.
    pub libnvinfer: Vec<OsString>,
    /// The program that builds engines; `None` where there is none.
    pub trtexec: Option<PathBuf>,
}

impl Places {
    /// Where the dynamic loader and the shell look, and where JetPack has `trtexec`.
    pub fn of_system() -> Places {
        // The last names are there to be refused by their number rather than not to be found.
        let names = ["libnvinfer.so.10", "libnvinfer.so.9", "libnvinfer.so.8", "libnvinfer.so.11", "libnvinfer.so"];
        Places {
            libcuda: "libcuda.so.1".into(),
            libnvinfer: names.map(OsString::from).to_vec(),
            trtexec: build::find_trtexec(),
        }
    }
}

/// A network to run.
pub struct Request<'a> {
    /// Which engine of which package.
    pub package: [u8; 32],
    /// `float16` or `int8`.
    pub precision: &'a str,
    /// What the engine has to be.
    pub contract: Contract<'a>,
    /// The ONNX file that one is built from: one input of this very shape, one output. Asked for only where one is built.
    pub onnx: &'a dyn Fn() -> Vec<u8>,
}

/// TensorRT and a GPU, both of which work.
pub struct TensorRt {
    runtime: Rc<Runtime>,
    primary: Rc<Primary>,
    gpu: Gpu,
    version: Version,
    trtexec: Option<PathBuf>,
}

impl TensorRt {
    /// Finds a GPU, then a library of a version that is known, then makes a runtime; the first that fails says what is
    /// missing. In this order: without a GPU TensorRT gives no runtime but something that crashes.
    pub fn open(places: &Places) -> Result<TensorRt, TensorRtError> {
        let (gpu, primary) = gpu::open(&places.libcuda)?;
        let (mut refused, mut missing) = (None, None);
        for name in &places.libnvinfer {
            match NvInfer::open(name) {
                Ok(nvinfer) => {
                    let version = nvinfer.version();
                    let Some(slots) = version.slots() else {
                        let library = name.to_string_lossy().into_owned();
                        refused = refused.or(Some(TensorRtError::Version { found: version, library }));
                        continue;
                    };
                    let runtime = Rc::new(Runtime::new(&Rc::new(nvinfer), slots, &primary)?);
                    let trtexec = places.trtexec.clone();
                    return Ok(TensorRt { runtime, primary, gpu, version, trtexec });
                }
                Err(why @ TensorRtError::Library { .. }) => missing = missing.or(Some(why)),
                Err(why) => refused = refused.or(Some(why)),
            }
        }
        // One that is here and not taken says more than one that is not here.
        Err(refused.or(missing).unwrap_or(TensorRtError::Library {
            library: "libnvinfer.so".into(),
            why: "no name to look for was given".into(),
            fix: "name one",
        }))
    }

    /// Its version.
    pub fn version(&self) -> Version {
        self.version
    }

    /// What networks run on.
    pub fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    /// Whether engines can be built.
    pub fn can_build(&self) -> Result<(), TensorRtError> {
        self.trtexec.as_ref().map(|_| ()).ok_or(TensorRtError::NoTrtexec)
    }

    /// What an engine for `request` has to be, as it stands in the cache.
    pub fn entry(&self, request: &Request<'_>) -> Entry {
        let (tensorrt, gpu) = (self.version.to_string(), self.gpu.to_string());
        Entry { package: request.package, tensorrt, gpu, precision: request.precision.into() }
    }

    /// The network, from the engine in the cache or from one that is built now. `progress` is called many times a second
    /// while something takes long.
    ///
    /// An engine of the cache that is damaged, or was built for something else, or that TensorRT does not take, is built
    /// again; one that was just built and is not taken is an error.
    pub fn session(
        &self,
        request: &Request<'_>,
        cache: &Cache,
        progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<Session, TensorRtError> {
        let entry = self.entry(request);
        let new =
            |plan: &[u8]| Session::new(&self.runtime, &self.primary, plan, &request.contract, self.gpu.integrated);
        let cached = |found: Found, progress: &mut dyn FnMut(Progress<'_>)| match found {
            Found::Nothing => Ok(None),
            Found::Stale(why) => {
                progress(Progress::Stale(&why));
                Ok(None)
            }
            Found::Plan(plan) => match new(&plan) {
                Err(why) if why.blames_engine() => {
                    progress(Progress::Stale(&why.to_string()));
                    Ok(None)
                }
                other => other.map(Some),
            },
        };
        if let Some(session) = cached(cache.read(&entry)?, progress)? {
            return Ok(session);
        }
        let trtexec = self.trtexec.as_deref().ok_or(TensorRtError::NoTrtexec)?;
        let onnx = (request.onnx)();
        cache.prove_writable(onnx.len() as u64)?;
        let (held, waited) = cache.hold(&mut || progress(Progress::Waiting))?;
        // Whoever was waited for may have built this very engine.
        if waited && let Some(session) = cached(cache.read(&entry)?, &mut |_| ())? {
            return Ok(session);
        }
        let plan = build::run(trtexec, &held, &entry, &onnx, progress)?;
        drop(onnx);
        let session = new(&plan)?;
        held.write(&entry, &plan)?;
        Ok(session)
    }
}
