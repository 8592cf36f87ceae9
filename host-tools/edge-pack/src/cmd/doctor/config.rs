//! The runtime's settings, as the runtime itself reads them: there is one reader of `camera.toml`.

use super::finding::{Finding, Severity};
use anyhow::{Context, bail};
use edge_system::check::LOG_FILES;
use edge_system::size::Size;
use edge_system::slot::Slots;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where the service's settings are.
pub const SERVICE: &str = "/etc/edge-camera/camera.toml";

/// What of the settings matters here.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Settings {
    /// Where frames come from.
    pub source: String,
    /// The log; `None` on standard output.
    pub log: Option<PathBuf>,
    /// What all files of the log may hold together, in bytes.
    pub log_total: Option<u64>,
    /// Files of the keys whose packages are accepted.
    pub trusted: Vec<PathBuf>,
    /// The folder of the two packages.
    pub slots: Option<PathBuf>,
    /// The one package.
    pub package: Option<PathBuf>,
    /// The board's name.
    pub board: Option<String>,
    /// The folder of TensorRT's engines, where the settings say one.
    pub engines: Option<PathBuf>,
    /// What shall compute: `auto`, `cpu` or `tensorrt`.
    pub backend: Option<String>,
}

impl Settings {
    /// Has the runtime read the file. What is wrong with it is found, in the runtime's words.
    pub fn read(path: &Path, findings: &mut Vec<Finding>) -> anyhow::Result<Option<Settings>> {
        let program = runtime().context(
            "--config is read by edge-camera, which is neither beside this program nor in PATH; install it, or leave --config out",
        )?;
        if !path.is_file() {
            bail!("there is no file {}", path.display());
        }
        let output = Command::new(&program).arg("--config").arg(path).args(["--check", "--json"]).output();
        let output = output.with_context(|| format!("cannot start {}", program.display()))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            for line in said.trim().trim_start_matches("edge-camera: ").lines() {
                let fix = "change that line; `edge-camera --help` says what each key takes";
                findings.push(Finding::told(Severity::Error, "settings", line).or_fix(fix));
            }
            return Ok(None);
        }
        let value: Value = serde_json::from_slice(&output.stdout)
            .with_context(|| format!("{} says what its settings are in a way that is not known", program.display()))?;
        Ok(Some(Settings::from_json(&value)))
    }

    fn from_json(value: &Value) -> Settings {
        let text = |key: &str| value[key].as_str().map(str::to_string);
        let path = |key: &str| text(key).map(PathBuf::from);
        let size = |key: &str| text(key)?.parse::<Size>().ok().map(|size| size.0);
        Settings {
            source: text("source").unwrap_or_default(),
            log: path("log").filter(|log| log != Path::new("-")),
            log_total: size("log-total").or_else(|| Some(size("log-max-size")?.saturating_mul(LOG_FILES))),
            trusted: value["trusted-key"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(Value::as_str)
                .map(Into::into)
                .collect(),
            slots: path("slots"),
            package: path("package"),
            board: text("board"),
            engines: path("engine-cache"),
            backend: text("backend"),
        }
    }

    /// The package that runs under these settings; `None` for the one that is part of the program.
    pub fn runs(&self) -> Option<PathBuf> {
        let slots = self.slots.as_deref().map(Slots::new);
        let chosen = slots.map(|slots| {
            let choice = slots.choice();
            slots.package(choice.trial.map_or(choice.active, |trial| trial.slot))
        });
        self.package.clone().or(chosen)
    }
}

/// Whether there is a runtime to read settings.
pub fn is_there() -> bool {
    runtime().is_some()
}

/// The runtime: beside this program, else in PATH.
fn runtime() -> Option<PathBuf> {
    const NAME: &str = "edge-camera";
    let beside = std::env::current_exe().ok().map(|path| path.with_file_name(NAME));
    let path = std::env::var_os("PATH").unwrap_or_default();
    beside.into_iter().chain(std::env::split_paths(&path).map(|folder| folder.join(NAME))).find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_the_runtime_prints_is_understood() {
        let value = json!({
            "source": "v4l2:/dev/video0", "log": "/var/log/c.jsonl", "log-max-size": "10MB", "log-total": null,
            "trusted-key": ["/etc/k.pub"], "slots": "/s", "package": null, "board": "rpi4",
        });
        let settings = Settings::from_json(&value);
        assert_eq!((settings.source.as_str(), settings.board.as_deref()), ("v4l2:/dev/video0", Some("rpi4")));
        assert_eq!(
            (settings.log.as_deref(), settings.log_total),
            (Some(Path::new("/var/log/c.jsonl")), Some(100_000_000))
        );
        assert_eq!(settings.trusted, [PathBuf::from("/etc/k.pub")]);
        assert_eq!(settings.runs(), Some("/s/a/package.edgepack".into()));
        let settings =
            Settings::from_json(&json!({"log": "-", "trusted-key": null, "log-total": "5MB", "log-max-size": "1MB"}));
        assert_eq!((settings.log.clone(), settings.log_total, settings.runs()), (None, Some(5_000_000), None));
    }
}
