//! What there is to show at one moment.

use std::borrow::Cow;

/// Everything the display shows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    /// The class decided for; empty where nothing has been classified yet.
    pub label: String,
    /// Whether the label is a class of the network, not "unknown".
    pub known: bool,
    /// Score of the best class, 0..=1.
    pub score: f32,
    /// Frames classified per second; `None` where that isn't known.
    pub fps: Option<f32>,
    /// How the camera is.
    pub status: Status,
}

/// How the camera is, in a few words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// How much it matters.
    pub level: Level,
    /// In words; may be empty where all is well.
    pub text: Cow<'static, str>,
}

/// How much a status matters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Level {
    /// All is well.
    #[default]
    Good,
    /// Something is being waited for.
    Waiting,
    /// Someone should do something.
    Bad,
}

impl Status {
    /// All is well; the text says what is going on.
    pub fn good(text: impl Into<Cow<'static, str>>) -> Self {
        Self { level: Level::Good, text: text.into() }
    }

    /// Something is being waited for, the camera for example.
    pub fn waiting(text: impl Into<Cow<'static, str>>) -> Self {
        Self { level: Level::Waiting, text: text.into() }
    }

    /// Someone should do something, as with a full disk.
    pub fn bad(text: impl Into<Cow<'static, str>>) -> Self {
        Self { level: Level::Bad, text: text.into() }
    }
}

impl Snapshot {
    /// The score in whole percent, 0..=100; a score that is no number counts as 0.
    pub(crate) fn percent(&self) -> u32 {
        (self.score.clamp(0.0, 1.0) * 100.0).round() as u32
    }

    /// Frames per second as they are shown; empty where they aren't known.
    pub(crate) fn rate(&self) -> String {
        match self.fps {
            Some(fps) if fps.is_finite() && fps >= 9.95 => format!("{:.0} fps", fps.min(9999.0)),
            Some(fps) if fps.is_finite() => format!("{:.1} fps", fps.max(0.0)),
            _ => String::new(),
        }
    }

    /// Whether both look the same when drawn.
    pub(crate) fn looks_as(&self, other: &Self) -> bool {
        let seen = |s: &Self| (s.percent(), s.rate());
        (self.known, &self.label, &self.status) == (other.known, &other.label, &other.status)
            && seen(self) == seen(other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_seen_is_no_change() {
        let one = Snapshot { label: "cup".into(), known: true, score: 0.701, fps: Some(12.3), ..Snapshot::default() };
        assert!(one.looks_as(&Snapshot { score: 0.699, fps: Some(12.4), ..one.clone() }));
        assert!(!one.looks_as(&Snapshot { score: 0.71, ..one.clone() }));
        assert!(!one.looks_as(&Snapshot { status: Status::bad("log full"), ..one.clone() }));
        let odd = Snapshot { score: f32::NAN, fps: Some(f32::INFINITY), ..one };
        assert_eq!((odd.percent(), odd.rate().as_str()), (0, ""));
    }
}
