//! Sizes, spans of time and rates as flags and configuration spell them.

pub use edge_system::size::Size;

use std::str::FromStr;
use std::time::Duration;

/// Bytes an hour, such as `5MB/h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget(pub Size);

impl FromStr for Budget {
    type Err = String;

    fn from_str(text: &str) -> Result<Budget, String> {
        let size = text.trim().strip_suffix("/h").map(str::parse);
        size.and_then(Result::ok)
            .map(Budget)
            .ok_or_else(|| format!("{text:?} is not a budget; bytes an hour are needed, such as 5MB/h"))
    }
}

/// A span of time, such as `60s`, `1500ms` or `5m`: from a millisecond to a year, or 0.
pub fn span(text: &str) -> Result<Duration, String> {
    if text.trim() == "0" {
        return Ok(Duration::ZERO);
    }
    let span = humantime::parse_duration(text.trim()).ok();
    span.filter(|s| s.is_zero() || (Duration::from_millis(1)..=Duration::from_secs(366 * 86400)).contains(s))
        .ok_or_else(|| {
            format!("{text:?} is not a span of time; a number with a unit is needed, such as 500ms, 60s or 5m")
        })
}

/// A span of time that is not 0.
pub fn period(text: &str) -> Result<Duration, String> {
    span(text)
        .and_then(|s| if s.is_zero() { Err("a span of time above 0 is needed, such as 60s".into()) } else { Ok(s) })
}

/// A parser of whole numbers from `least` to `most`.
pub fn whole<T: TryFrom<u64>>(least: u64, most: u64) -> impl Fn(&str) -> Result<T, String> + Clone {
    move |text| {
        let number = text.trim().parse().ok().filter(|n| (least..=most).contains(n));
        number.and_then(|n| T::try_from(n).ok()).ok_or_else(|| match most {
            u64::MAX => "a whole number is needed".into(),
            _ => format!("a whole number from {least} to {most} is needed"),
        })
    }
}

/// A score, 0 to 1.
pub fn score(text: &str) -> Result<f32, String> {
    let score = text.trim().parse().ok().filter(|s| (0.0..=1.0).contains(s));
    score.ok_or_else(|| "a number from 0 to 1 is needed".into())
}

/// How many times as much: a number above 0.
pub fn factor(text: &str) -> Result<f64, String> {
    let factor = text.trim().parse::<f64>().ok().filter(|f| f.is_finite() && *f > 0.0);
    factor.ok_or_else(|| "a number above 0 is needed".into())
}

/// When the log is made to reach the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sync {
    /// When the kernel likes to: within half a minute as a rule.
    Never,
    /// When a file is full, and at the end.
    Rotate,
    /// Also whenever so much time has gone by since the last time.
    Every(Duration),
    /// After each line.
    Line,
}

impl FromStr for Sync {
    type Err = String;

    fn from_str(text: &str) -> Result<Sync, String> {
        match (text, text.split_once(':')) {
            ("never", _) => Ok(Sync::Never),
            ("rotate", _) => Ok(Sync::Rotate),
            ("line", _) => Ok(Sync::Line),
            (_, Some(("every", time))) => period(time).map(Sync::Every),
            _ => Err("never, rotate, line or every:TIME (such as every:30s) is needed".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budgets() {
        assert_eq!("5MB/h".parse(), Ok(Budget(Size(5_000_000))));
        assert!("5MB".parse::<Budget>().is_err() && "5/h".parse::<Budget>().is_err());
    }

    #[test]
    fn spans() {
        assert_eq!(span("1500ms"), Ok(Duration::from_millis(1500)));
        assert_eq!(span("0"), Ok(Duration::ZERO));
        for bad in ["", "60", "-1s", "soon", "1ns", "500 years"] {
            assert!(span(bad).is_err(), "{bad}");
        }
        assert!(period("0").is_err() && period("0s").is_err());
        assert_eq!("every:30s".parse(), Ok(Sync::Every(Duration::from_secs(30))));
        assert_eq!("line".parse(), Ok(Sync::Line));
        assert!(
            "every".parse::<Sync>().is_err() && "every:0".parse::<Sync>().is_err() && "often".parse::<Sync>().is_err()
        );
        assert_eq!(whole::<u16>(1, 256)("256"), Ok(256));
        for bad in ["0", "257", "-1", "1.5", "x", "99999999999999999999"] {
            assert_eq!(whole::<u16>(1, 256)(bad), Err("a whole number from 1 to 256 is needed".into()));
        }
        assert_eq!(score("0.5"), Ok(0.5));
        assert_eq!(factor("2.5"), Ok(2.5));
        assert!(factor("0").is_err() && factor("inf").is_err() && factor("-1").is_err());
        assert!(score("1.1").is_err() && score("NaN").is_err() && score("-0.1").is_err());
    }
}
