//! What a test harness adds: see the crate's documentation.

use crate::say;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// The scripts of a harness in the order of their names.
pub fn scripts(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder.join("hook.d")).into_iter().flatten().flatten();
    let mut scripts: Vec<PathBuf> =
        entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|e| e == "sh")).collect();
    scripts.sort();
    scripts
}

/// `environment`: NAME=VALUE a line.
pub fn environment(folder: &Path) -> Vec<(String, String)> {
    let text = std::fs::read_to_string(folder.join("environment")).unwrap_or_default();
    text.lines()
        .filter_map(|line| line.split_once('='))
        .filter(|(name, value)| !name.is_empty() && !name.contains('\0') && !value.contains('\0'))
        .map(|(name, value)| (name.trim().into(), value.into()))
        .collect()
}

/// Runs them all, one after the other; `waiting` is called now and then meanwhile.
pub fn run(folder: &Path, busybox: &Path, waiting: &mut dyn FnMut()) {
    let environment = environment(folder);
    for script in scripts(folder) {
        let name = script.display();
        say::say(&format!("test hook {name}"));
        let mut command = Command::new(busybox);
        command.arg("sh").arg(&script).stdin(Stdio::null()).current_dir(folder);
        command.env_clear().env("PATH", "/test/bin:/system/bin:/bin").envs(environment.iter().cloned());
        let ended = command.spawn().and_then(|mut child| wait(&mut child, waiting));
        match ended {
            Ok(status) => say::say(&format!("test hook {name} has ended: {status}")),
            Err(why) => say::say(&format!("test hook {name}: {}: {why}", busybox.display())),
        }
    }
}

/// Waits for a program; `waiting` is called now and then meanwhile.
pub fn wait(child: &mut std::process::Child, waiting: &mut dyn FnMut()) -> std::io::Result<std::process::ExitStatus> {
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        waiting();
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_run_in_order_with_their_environment() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("hook.d")).unwrap();
        std::fs::write(dir.path().join("environment"), "A=1 = 2\n\nnonsense\n=x\nB=\n").unwrap();
        assert_eq!(environment(dir.path()), [("A".into(), "1 = 2".into()), ("B".into(), String::new())]);
        for (name, text) in [("20-b.sh", "echo \"b $A\" >>out; exit 3"), ("10-a.sh", "echo a >>out"), ("note.txt", "")]
        {
            std::fs::write(dir.path().join("hook.d").join(name), text).unwrap();
        }
        // Here any shell that is called with `sh FILE` will do.
        let shell = dir.path().join("busybox");
        std::fs::write(&shell, "#!/bin/sh\nshift\nexec /bin/sh \"$@\"\n").unwrap();
        std::fs::set_permissions(&shell, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        run(dir.path(), &shell, &mut || {});
        assert_eq!(std::fs::read_to_string(dir.path().join("out")).unwrap(), "a\nb 1 = 2\n");
        run(Path::new("/nonexistent"), &shell, &mut || {});
    }
}
