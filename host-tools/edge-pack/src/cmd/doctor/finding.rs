//! What the doctor finds, each with what to do about it.

use edge_system::check::Trouble;
use serde::Serialize;

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// It keeps the camera from running.
    Error,
    /// It runs, but not as well as it could, or not for long.
    Warning,
    /// Worth knowing.
    Note,
}

impl Severity {
    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Severity::Error => "error",
            Severity::Warning => "warning",
            Severity::Note => "note",
        }
    }
}

/// Something that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How much it matters.
    pub severity: Severity,
    /// A word for programs, the same in every version.
    pub code: &'static str,
    /// The board that it is about, where it is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub board: Option<String>,
    /// What was found.
    pub what: String,
    /// Why it matters.
    pub why: String,
    /// What to do.
    pub fix: String,
    /// Nodes of the network that it is about.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<String>,
}

impl Finding {
    /// A finding of these words.
    pub fn new(severity: Severity, code: &'static str, what: impl Into<String>) -> Finding {
        let (why, fix) = (String::new(), String::new());
        Finding { severity, code, board: None, what: what.into(), why, fix, nodes: vec![] }
    }

    /// An error of the program's crates, which say what to do after a semicolon where they know it.
    pub fn told(severity: Severity, code: &'static str, text: &str) -> Finding {
        match text.rsplit_once("; ") {
            Some((what, fix)) => Finding::new(severity, code, what).fix(fix),
            None => Finding::new(severity, code, text),
        }
    }

    /// What the runtime's own look at a machine found.
    pub fn trouble(severity: Severity, code: &'static str, trouble: Trouble) -> Finding {
        Finding::new(severity, code, trouble.what).fix(trouble.fix)
    }

    /// Why it matters.
    pub fn why(self, why: impl Into<String>) -> Finding {
        Finding { why: why.into(), ..self }
    }

    /// What to do.
    pub fn fix(self, fix: impl Into<String>) -> Finding {
        Finding { fix: fix.into(), ..self }
    }

    /// What to do where the words so far do not say.
    pub fn or_fix(self, fix: impl Into<String>) -> Finding {
        if self.fix.is_empty() { self.fix(fix) } else { self }
    }

    /// The board.
    pub fn on(self, board: &str) -> Finding {
        Finding { board: Some(board.into()), ..self }
    }

    /// The nodes.
    pub fn nodes(self, nodes: Vec<String>) -> Finding {
        Finding { nodes, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_to_do_is_taken_from_behind_the_last_semicolon() {
        let finding = Finding::told(Severity::Error, "x", "a; b is c; do d");
        assert_eq!((finding.what.as_str(), finding.fix.as_str()), ("a; b is c", "do d"));
        assert_eq!(Finding::told(Severity::Error, "x", "a").fix, "");
    }
}
