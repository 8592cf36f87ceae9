//! Engines that TensorRT built, in their cache: whose it is, how large, and which are of no use any more.

use super::access::{User, may_write};
use super::device::who;
use super::finding::{Finding, Severity};
use edge_system::check;
use edge_system::size::Size;
use edge_tensorrt::{Cache, Places, TensorRt, TensorRtError};
use std::path::{Path, PathBuf};

/// What runs here now, and what an engine has to be for.
pub struct Now {
    /// TensorRT's version and the GPU; the error where there is none.
    pub tensorrt: Result<(String, String), TensorRtError>,
    /// Why no engine can be built.
    pub no_build: Option<TensorRtError>,
    /// Digests of the packages that may run here.
    pub packages: Vec<[u8; 32]>,
}

impl Now {
    /// Of this machine.
    pub fn here(packages: Vec<[u8; 32]>) -> Now {
        let opened = TensorRt::open(&Places::of_system());
        let no_build = opened.as_ref().ok().and_then(|t| t.can_build().err());
        let tensorrt = opened.map(|t| (t.version().to_string(), t.gpu().to_string()));
        Now { tensorrt, no_build, packages }
    }
}

/// What computes here where the settings ask for `asked`.
pub fn backend(asked: &str, now: &Now, findings: &mut Vec<Finding>) {
    let finding = match (&now.tensorrt, &now.no_build) {
        _ if asked == "cpu" => return,
        (Ok((version, gpu)), None) => {
            Finding::new(Severity::Note, "backend", format!("TensorRT {version} on {gpu} computes"))
                .why("the latency and memory that are estimated here are the processor's")
                .fix("nothing has to be done; the first start of a package builds an engine, which takes minutes")
        }
        (Ok((version, _)), Some(why)) => {
            Finding::told(Severity::Warning, "backend", &why.to_string()).why(match asked {
                "tensorrt" => format!("TensorRT {version} runs only engines that it has in its cache"),
                _ => {
                    format!("TensorRT {version} is here, and the backend auto takes the processor for want of engines")
                }
            })
        }
        (Err(why), _) if asked == "tensorrt" => told(Severity::Error, why)
            .why("the settings ask for TensorRT, so edge-camera does not start (exit code 8)")
            .or_fix("`backend = \"auto\"` takes the processor where TensorRT does not work"),
        // Nothing of NVIDIA's: the usual case.
        (Err(TensorRtError::Library { library, .. }), _) if library.contains("libcuda") => return,
        (Err(why), _) => told(Severity::Note, why)
            .why("so the backend auto takes the processor")
            .or_fix("nothing has to be done; with TensorRT the GPU would compute"),
    };
    findings.push(finding);
}

fn told(severity: Severity, why: &TensorRtError) -> Finding {
    match why {
        TensorRtError::Version { found, library } => {
            Finding::new(severity, "backend", format!("TensorRT {found} ({library}) is not supported"))
                .fix("install TensorRT 8.6 to 10.x beside it")
        }
        other => Finding::told(severity, "backend", &other.to_string()),
    }
}

/// Where the engines of a service's user are, or those of who runs this; where `$CACHE_DIRECTORY` says, as a service
/// manager does, first of all.
pub fn folder(user: Option<&User>) -> PathBuf {
    match user.filter(|_| std::env::var_os("CACHE_DIRECTORY").is_none()) {
        Some(user) => Path::new("/var/cache").join(&user.name).join("tensorrt"),
        None => Cache::of_user("edge-camera").folder().into(),
    }
}

fn unwritable(folder: &Path, written: &Path, user: Option<&User>) -> Finding {
    let (who, owner) = (who(user), user.map_or("$USER", |user| user.name.as_str()));
    let what = match folder == written {
        true => format!("{who} may not write to the folder for engines, {}", folder.display()),
        false => format!("{who} may not make the folder for engines, {}, in {}", folder.display(), written.display()),
    };
    Finding::new(Severity::Error, "cache", what)
        .why("no engine is built where none can be kept: that would take minutes at each start")
        .fix(format!(
            "`sudo install -d -o {owner} -m 700 {}`, or choose another folder with `engine-cache`; a file system that is read-only has to be made writable",
            folder.display()
        ))
}

/// Looks at the cache in `folder`.
pub fn look(folder: &Path, user: Option<&User>, now: &Now, findings: &mut Vec<Finding>) {
    let cache = Cache::new(folder);
    let checked = user.map_or_else(|| cache.check(), |user| cache.check_for(user.id));
    match checked {
        Ok(there) => {
            // The first engine makes the folder, and those that it is in.
            let written = folder.ancestors().find(|path| path.exists()).unwrap_or(folder);
            let may = may_write(user, written).unwrap_or(false);
            // Where there is neither a folder nor TensorRT, none is missed.
            if !may && (there || now.tensorrt.is_ok()) {
                findings.push(unwritable(folder, written, user));
            }
            if !there {
                return;
            }
        }
        Err(e) => findings.push(
            Finding::told(Severity::Error, "cache", &e.to_string())
                .why("an engine that others could have written is not read, and none is kept there"),
        ),
    }
    let engines = match cache.list() {
        Ok(engines) => engines,
        Err(e) => {
            let what = format!("the folder for engines, {}, cannot be read: {e}", folder.display());
            return findings.push(Finding::new(Severity::Warning, "cache", what).fix("run this with sudo"));
        }
    };
    if engines.is_empty() {
        return;
    }
    let bytes: u64 = engines.iter().map(|engine| engine.bytes).sum();
    if let Some(free) = check::free(folder).filter(|free| *free < bytes) {
        findings.push(
            Finding::new(
                Severity::Warning,
                "cache-size",
                format!(
                    "{} engine(s) take {} in {}, and {} are free there",
                    engines.len(),
                    Size(bytes),
                    folder.display(),
                    Size(free)
                ),
            )
            .why("an engine is built beside the old ones, and the build fails when the disk is full")
            .fix(format!(
                "remove those that are not needed; all are built again when they are: `rm {}/*.engine`",
                folder.display()
            )),
        );
    }
    for engine in engines {
        let stale = match (&engine.entry, &now.tensorrt) {
            (None, _) => Some("it is damaged".to_string()),
            (Some(entry), _) if !now.packages.is_empty() && !now.packages.contains(&entry.package) => {
                Some("it was built from another package than those that are here".into())
            }
            (Some(_), Err(why)) => Some(format!("TensorRT does not run here: {why}")),
            (Some(entry), Ok((tensorrt, _))) if entry.tensorrt != *tensorrt => {
                Some(format!("it was built with TensorRT {}, and this is {tensorrt}", entry.tensorrt))
            }
            (Some(entry), Ok((_, gpu))) if entry.gpu != *gpu => {
                Some(format!("it was built on another GPU ({}; this is {gpu})", entry.gpu))
            }
            _ => None,
        };
        if let Some(why) = stale {
            findings.push(
                Finding::new(Severity::Warning, "stale-engine", format!("the engine {} is of no use", engine.path.display()))
                    .why(why)
                    .fix(format!(
                        "nothing has to be done: one that is needed is built again at the next start, which takes minutes; `rm {}` gives its {} back",
                        engine.path.display(),
                        Size(engine.bytes)
                    )),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use edge_tensorrt::Version;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};

    fn missing(library: &str) -> TensorRtError {
        TensorRtError::Library { library: library.into(), why: "not found".into(), fix: "it comes with the driver" }
    }

    fn now(tensorrt: Result<(), TensorRtError>, no_build: Option<TensorRtError>) -> Now {
        Now { tensorrt: tensorrt.map(|()| ("10.3.0".into(), "Orin".into())), no_build, packages: vec![] }
    }

    #[test]
    fn what_computes_is_said_where_there_is_a_gpu_or_one_is_asked_for() {
        use Severity::{Error, Note, Warning};
        let other =
            || TensorRtError::Version { found: Version::from_number(110000), library: "libnvinfer.so.11".into() };
        for (asked, now, expected) in [
            ("cpu", now(Ok(()), None), None),
            ("auto", now(Ok(()), None), Some((Note, "TensorRT 10.3.0 on Orin computes", "nothing has to be done"))),
            ("auto", now(Ok(()), Some(TensorRtError::NoTrtexec)), Some((Warning, "no trtexec", "libnvinfer-bin"))),
            ("tensorrt", now(Ok(()), Some(TensorRtError::NoTrtexec)), Some((Warning, "no trtexec", "libnvinfer-bin"))),
            ("auto", now(Err(missing("libcuda.so.1")), None), None),
            (
                "tensorrt",
                now(Err(missing("libcuda.so.1")), None),
                Some((Error, "libcuda.so.1 cannot", "it comes with")),
            ),
            (
                "auto",
                now(Err(missing("libnvinfer.so.10")), None),
                Some((Note, "libnvinfer.so.10 cannot", "it comes with")),
            ),
            ("auto", now(Err(TensorRtError::NoDevice), None), Some((Note, "finds no GPU", "nvidia-smi"))),
            ("tensorrt", now(Err(other()), None), Some((Error, "TensorRT 11.0.0", "install TensorRT 8.6 to 10.x"))),
        ] {
            let mut findings = vec![];
            backend(asked, &now, &mut findings);
            let found =
                findings.first().map(|f: &Finding| (f.severity, f.what.as_str(), f.fix.as_str(), f.why.as_str()));
            match (found, expected) {
                (None, None) => {}
                (Some((severity, what, fix, why)), Some((wanted, in_what, in_fix))) => {
                    assert_eq!(severity, wanted, "{what}");
                    assert!(what.contains(in_what) && fix.contains(in_fix) && !why.is_empty(), "{what} {why} {fix}");
                }
                other => panic!("{asked}: {other:?}"),
            }
        }
    }

    #[test]
    fn a_cache_that_cannot_be_written_is_told_where_engines_would_be_built() {
        let place = tempfile::tempdir().unwrap();
        let mode = |path: &Path, mode| std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
        let me = std::fs::metadata(place.path()).unwrap().uid();
        // Nothing is closed to root.
        let id = if me == 0 { 12345 } else { me };
        let user = User { name: "camera".into(), id, groups: vec![] };
        let folder = place.path().join("tensorrt");
        let looked = |tensorrt: Result<(), TensorRtError>| {
            let mut findings = vec![];
            look(&folder, Some(&user), &now(tensorrt, None), &mut findings);
            findings
        };
        let own = |path: &Path| {
            if me == 0 {
                chown(path, Some(id), None).unwrap();
            }
        };
        own(place.path());
        mode(place.path(), 0o755);
        assert_eq!(looked(Ok(())), []);
        mode(place.path(), 0o555);
        let told = looked(Ok(()));
        assert!(
            told[0].what.contains("camera may not make the folder") && told[0].severity == Severity::Error,
            "{told:?}"
        );
        assert_eq!(looked(Err(TensorRtError::NoDevice)), []);
        mode(place.path(), 0o755);
        std::fs::create_dir(&folder).unwrap();
        own(&folder);
        mode(&folder, 0o700);
        assert_eq!(looked(Ok(())), []);
        mode(&folder, 0o500);
        let told = looked(Err(TensorRtError::NoDevice));
        assert!(told.len() == 1 && told[0].fix.contains("install -d -o camera -m 700"), "{told:?}");
        mode(&folder, 0o700);
    }
}
