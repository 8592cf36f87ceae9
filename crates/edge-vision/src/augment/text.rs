//! Augmentation as text: reading it, and writing it so that it reads as the same again.

use std::fmt;
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Augment, Fill};

/// Why a text doesn't tell an augmentation.
#[derive(Debug, PartialEq, thiserror::Error)]
pub enum AugmentError {
    /// There is no such augmentation.
    #[error("unknown augmentation {word:?}{}; possible: {}", meant(word), words())]
    Unknown {
        /// What was asked for.
        word: String,
    },
    /// A word stands twice, and only one of them could hold.
    #[error("{word} is given twice")]
    Twice {
        /// The word.
        word: &'static str,
    },
    /// A value is missing, isn't a number or isn't possible.
    #[error("{given:?}: {wrong}; {word} takes {}", takes(word))]
    Value {
        /// The word whose value it is.
        word: &'static str,
        /// The word with its value, as given.
        given: String,
        /// What is wrong with it.
        wrong: &'static str,
    },
}

/// Every word, and what it takes.
const WORDS: [(&str, &str); 9] = [
    ("hflip", "no value"),
    ("vflip", "no value"),
    ("rotate", "degrees from 0 to 360, such as rotate=10"),
    ("shift", "fractions from 0 to below 1, such as shift=0.1, or shift=0.1x0.2 for width and height"),
    ("shear", "degrees from 0 to below 90, such as shear=10"),
    ("zoom", "a number from 0 to below 1, such as zoom=0.1, or factors above 0 and up to 100, such as zoom=0.8..1.2"),
    ("brightness", "factors from 0 to 100, such as brightness=0.5..1.5"),
    ("channel_shift", "levels from 0 to 255, such as channel_shift=20"),
    ("fill", "nearest, reflect, constant or wrap"),
];

fn words() -> String {
    WORDS.map(|(word, _)| word).join(", ")
}

fn takes(word: &str) -> &'static str {
    WORDS.iter().find(|(name, _)| *name == word).map_or("no value", |(_, takes)| takes)
}

/// The word that an unknown one stands for by its beginning, as Keras' `rotation_range` and `vertical_flip` do.
fn meant(word: &str) -> String {
    let start = word.get(..3).unwrap_or(word).to_lowercase();
    let word = match start.as_str() {
        "hor" | "mir" => Some("hflip"),
        "ver" => Some("vflip"),
        "wid" | "hei" | "tra" => Some("shift"),
        start => WORDS.iter().map(|(name, _)| *name).find(|name| start.len() == 3 && name.starts_with(start)),
    };
    word.map_or_else(String::new, |word| format!(", did you mean {word}?"))
}

/// A number that isn't negative, or what is wrong with it.
fn number(text: &str) -> Result<f64, &'static str> {
    let number: f64 = text.trim().parse().map_err(|_| "that isn't a number")?;
    if !number.is_finite() {
        return Err("that isn't a finite number");
    }
    if number < 0.0 {
        return Err("that is negative");
    }
    // Zero has no sign here, or it would be written as -0.
    Ok(number + 0.0)
}

fn up_to(text: &str, most: f64) -> Result<f64, &'static str> {
    number(text).and_then(|n| if n <= most { Ok(n) } else { Err("that is too large") })
}

fn below(text: &str, end: f64) -> Result<f64, &'static str> {
    number(text).and_then(|n| if n < end { Ok(n) } else { Err("that is too large") })
}

fn factors(text: &str) -> Result<[f64; 2], &'static str> {
    let (low, high) = text.split_once("..").ok_or("that isn't a range")?;
    let factors = [up_to(low, 100.0)?, up_to(high, 100.0)?];
    if factors[0] > factors[1] { Err("the range runs backwards") } else { Ok(factors) }
}

fn zoom(text: &str) -> Result<[f64; 2], &'static str> {
    let [low, high] = if text.contains("..") {
        factors(text)?
    } else {
        let z = number(text)?;
        [1.0 - z, 1.0 + z]
    };
    if low > 0.0 { Ok([low, high]) } else { Err("the zoom reaches 0, where nothing is left to see") }
}

fn shift(text: &str) -> Result<[f64; 2], &'static str> {
    let (x, y) = text.split_once('x').unwrap_or((text, text));
    Ok([below(x, 1.0)?, below(y, 1.0)?])
}

impl FromStr for Augment {
    type Err = AugmentError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut augment = Self::default();
        if matches!(text.trim(), "" | "none") {
            return Ok(augment);
        }
        let mut seen = Vec::new();
        for given in text.split(',').map(str::trim) {
            let (word, value) = match given.split_once('=') {
                Some((word, value)) => (word.trim(), Some(value.trim())),
                None => (given, None),
            };
            let word = WORDS.iter().map(|(name, _)| *name).find(|name| *name == word);
            let word = word.ok_or_else(|| AugmentError::Unknown { word: given.to_owned() })?;
            if seen.contains(&word) {
                return Err(AugmentError::Twice { word });
            }
            seen.push(word);
            augment.set(word, value).map_err(|wrong| AugmentError::Value { word, given: given.to_owned(), wrong })?;
        }
        Ok(augment)
    }
}

impl Augment {
    fn set(&mut self, word: &str, value: Option<&str>) -> Result<(), &'static str> {
        if let "hflip" | "vflip" = word {
            *(if word == "hflip" { &mut self.hflip } else { &mut self.vflip }) = true;
            return value.map_or(Ok(()), |_| Err("there is a value"));
        }
        let value = value.filter(|value| !value.is_empty()).ok_or("the value is missing")?;
        match word {
            "rotate" => self.rotate = up_to(value, 360.0)?,
            "shift" => self.shift = shift(value)?,
            "shear" => self.shear = below(value, 90.0)?,
            "zoom" => self.zoom = zoom(value)?,
            "brightness" => self.brightness = Some(factors(value)?),
            "channel_shift" => self.channel_shift = up_to(value, 255.0)?,
            _ => self.fill = Fill::ALL.into_iter().find(|fill| fill.name() == value).ok_or("there is no such fill")?,
        }
        Ok(())
    }
}

impl fmt::Display for Augment {
    /// Writes what is set, in one order, and `none` where nothing is.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        let mut part = |set: bool, text: String| {
            if set {
                parts.push(text);
            }
        };
        let [x, y] = self.shift;
        part(self.hflip, "hflip".to_owned());
        part(self.vflip, "vflip".to_owned());
        part(self.rotate != 0.0, format!("rotate={}", self.rotate));
        part(self.shift != [0.0; 2], if x == y { format!("shift={x}") } else { format!("shift={x}x{y}") });
        part(self.shear != 0.0, format!("shear={}", self.shear));
        part(self.zoom != [1.0; 2], zoom_text(self.zoom));
        if let Some([low, high]) = self.brightness {
            part(true, format!("brightness={low}..{high}"));
        }
        part(self.channel_shift != 0.0, format!("channel_shift={}", self.channel_shift));
        part(self.fill != Fill::default(), format!("fill={}", self.fill.name()));
        f.write_str(if parts.is_empty() { "none".to_owned() } else { parts.join(",") }.as_str())
    }
}

/// The short form where it reads as the same factors; 1 - 0.07 isn't the float that 0.93 is.
fn zoom_text([low, high]: [f64; 2]) -> String {
    let short = format!("{:.6}", high - 1.0);
    let short = short.trim_end_matches('0');
    if zoom(short) == Ok([low, high]) { format!("zoom={short}") } else { format!("zoom={low}..{high}") }
}

impl Serialize for Augment {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Augment {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}
