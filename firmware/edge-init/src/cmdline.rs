//! The kernel's command line, as far as it is ours: `edge.NAME=VALUE`. The kernel passes over words with a dot in them.

use crate::keeper::Trial;
use std::path::PathBuf;
use std::time::Duration;

/// What the command line says. What it does not say, or says wrongly, is the default: a device that does not start because
/// of a typing error helps nobody.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// `edge.disk=/dev/NAME`: the disk, instead of the one that is found.
    pub disk: Option<PathBuf>,
    /// `edge.commit=SECONDS`: how long a system on trial has to classify before it is kept (60).
    pub commit: Duration,
    /// `edge.trial=SECONDS`: how long it has time for that (900).
    pub patience: Duration,
    /// `edge.ntp=HOST[,HOST]`: time servers, after those that the network names; `none`: no time from the network.
    pub ntp: Vec<String>,
    /// What could not be understood.
    pub refused: Vec<String>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            disk: None,
            commit: Duration::from_secs(60),
            patience: Duration::from_secs(900),
            ntp: vec!["pool.ntp.org".into()],
            refused: vec![],
        }
    }
}

impl Options {
    /// Of the running kernel.
    pub fn read() -> Options {
        std::fs::read_to_string("/proc/cmdline").map_or_else(|_| Options::default(), |text| Options::parse(&text))
    }

    /// Of a command line.
    pub fn parse(text: &str) -> Options {
        let mut options = Options::default();
        for word in text.split_ascii_whitespace() {
            let Some((name, value)) = word.strip_prefix("edge.").and_then(|word| word.split_once('=')) else {
                continue;
            };
            // As long as a year, so that no sum of times overflows.
            let seconds =
                || value.parse::<u32>().ok().filter(|s| *s <= 31_536_000).map(|s| Duration::from_secs(s.into()));
            let understood = match name {
                "disk" if value.starts_with("/dev/") => {
                    options.disk = Some(value.into());
                    true
                }
                "commit" => seconds().map(|time| options.commit = time).is_some(),
                "trial" => seconds().map(|time| options.patience = time).is_some(),
                "ntp" => {
                    let hosts = value.split(',').filter(|host| !host.is_empty() && *host != "none");
                    options.ntp = hosts.map(String::from).collect();
                    true
                }
                _ => false,
            };
            if !understood {
                options.refused.push(word.into());
            }
        }
        options
    }

    /// What a system on trial has to show.
    pub fn trial(&self) -> Trial {
        // However long it is to classify, it is given the time.
        Trial { commit: self.commit, patience: self.patience.max(self.commit.saturating_mul(2)), failures: 3 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_command_line_does_harm(text in "((edge\\.)?(disk|commit|trial|ntp|[a-z]*)=?(/dev/|none|[0-9]{0,25}|,|\\PC*) ?)*") {
            let trial = Options::parse(&text).trial();
            // Far in the future, but no overflow.
            let _ = Duration::from_secs(u32::MAX.into()) + trial.commit + trial.patience;
        }
    }

    #[test]
    fn a_command_line_is_read() {
        let text =
            "console=ttyS0 edge.commit=5 edge.disk=/dev/vda edge.ntp=10.0.2.2,ntp.example root=x edge.trial=120\n";
        let options = Options::parse(text);
        assert_eq!(options.disk, Some("/dev/vda".into()));
        assert_eq!(
            options.trial(),
            Trial { commit: Duration::from_secs(5), patience: Duration::from_secs(120), failures: 3 }
        );
        assert_eq!(options.ntp, ["10.0.2.2", "ntp.example"]);
        assert!(options.refused.is_empty());
        assert!(Options::parse("edge.ntp=none").ntp.is_empty());
        assert_eq!(Options::parse("quiet"), Options::default());
    }

    #[test]
    fn what_is_not_understood_is_told_and_the_default_holds() {
        let options = Options::parse("edge.commit=soon edge.disk=vda edge.color=red edge.trial=4294967295 edge.commit");
        let refused =
            ["edge.commit=soon", "edge.disk=vda", "edge.color=red", "edge.trial=4294967295"].map(String::from);
        assert_eq!(options, Options { refused: refused.into(), ..Options::default() });
    }
}
