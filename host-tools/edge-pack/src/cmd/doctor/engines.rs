//! Engines that TensorRT built, in their cache: whose it is, how large, and which are of no use any more.

use super::access::User;
use super::finding::{Finding, Severity};
use edge_system::check;
use edge_system::size::Size;
use edge_tensorrt::{Cache, Places, TensorRt};
use std::path::{Path, PathBuf};

/// What runs here now, and what an engine has to be for.
pub struct Now {
    /// TensorRT's version and the GPU; the error where there is none.
    pub tensorrt: Result<(String, String), String>,
    /// Digests of the packages that may run here.
    pub packages: Vec<[u8; 32]>,
}

impl Now {
    /// Of this machine.
    pub fn here(packages: Vec<[u8; 32]>) -> Now {
        let opened = TensorRt::open(&Places::of_system());
        let tensorrt = opened.map(|t| (t.version().to_string(), t.gpu().to_string())).map_err(|e| e.to_string());
        Now { tensorrt, packages }
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

/// Looks at the cache in `folder`.
pub fn look(folder: &Path, user: Option<&User>, now: &dyn Fn() -> Now, findings: &mut Vec<Finding>) {
    let cache = Cache::new(folder);
    let checked = user.map_or_else(|| cache.check(), |user| cache.check_for(user.id));
    match checked {
        // The first engine makes the folder.
        Ok(false) => return,
        Ok(true) => {}
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
    let now = now();
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
