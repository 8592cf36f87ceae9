//! Names of checkpoints, as Keras' ModelCheckpoint spells them: `clothing_{epoch:02d}_{val_accuracy:.3f}.onnx`.

use crate::history::Epoch;

/// A name with places for an epoch's numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template(Vec<Piece>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    Number { field: Field, style: Style },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    Epoch,
    Loss,
    Accuracy,
    ValLoss,
    ValAccuracy,
}

/// What stands behind the colon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Style {
    /// Nothing.
    Plain,
    /// `02d`: so wide, with zeros or with spaces.
    Whole { width: usize, zeros: bool },
    /// `.3f`.
    Fixed(usize),
}

const FIELDS: [(&str, Field); 5] = [
    ("epoch", Field::Epoch),
    ("loss", Field::Loss),
    ("accuracy", Field::Accuracy),
    ("val_loss", Field::ValLoss),
    ("val_accuracy", Field::ValAccuracy),
];

impl Template {
    /// Reads a name. The error says what is not understood, and what would be.
    pub fn parse(text: &str) -> Result<Template, String> {
        let mut pieces = vec![];
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            if at > 0 {
                pieces.push(Piece::Text(rest[..at].into()));
            }
            let inner = &rest[at + 1..];
            // Doubled, a brace stands for itself.
            if inner.starts_with(&rest[at..=at]) {
                pieces.push(Piece::Text(rest[at..=at].into()));
                rest = &inner[1..];
                continue;
            }
            let end = inner.find('}').filter(|_| rest[at..].starts_with('{'));
            let end = end.ok_or_else(|| format!("{text:?}: a brace without its other half"))?;
            let (name, style) = inner[..end].split_once(':').unwrap_or((&inner[..end], ""));
            let names = || FIELDS.map(|f| f.0).join(", ");
            let field = FIELDS.iter().find(|f| f.0 == name);
            let field = field.ok_or_else(|| format!("{text:?}: {{{name}}} is none of {}", names()))?.1;
            let style = parse_style(style)
                .filter(|s| !matches!(s, Style::Whole { .. }) || field == Field::Epoch)
                .ok_or_else(|| format!("{text:?}: {name}:{style} is not understood; 02d fits epoch, .3f the others"))?;
            pieces.push(Piece::Number { field, style });
            rest = &inner[end + 1..];
        }
        if !rest.is_empty() {
            pieces.push(Piece::Text(rest.into()));
        }
        Ok(Template(pieces))
    }

    /// Whether epochs get names of their own.
    pub fn tells_epochs_apart(&self) -> bool {
        self.0.iter().any(|p| matches!(p, Piece::Number { field: Field::Epoch, .. }))
    }

    /// The name for an epoch.
    pub fn name(&self, epoch: &Epoch) -> String {
        let piece = |piece: &Piece| match piece {
            Piece::Text(text) => text.clone(),
            Piece::Number { field, style } => {
                let value = match field {
                    Field::Epoch => epoch.epoch as f64,
                    Field::Loss => epoch.loss,
                    Field::Accuracy => epoch.accuracy,
                    Field::ValLoss => epoch.val_loss,
                    Field::ValAccuracy => epoch.val_accuracy,
                };
                match *style {
                    Style::Plain => value.to_string(),
                    Style::Whole { width, zeros: true } => format!("{value:0width$.0}"),
                    Style::Whole { width, zeros: false } => format!("{value:width$.0}"),
                    Style::Fixed(digits) => format!("{value:.digits$}"),
                }
            }
        };
        self.0.iter().map(piece).collect()
    }
}

fn parse_style(style: &str) -> Option<Style> {
    // More digits than a file name wants are a mistake.
    let small = |text: &str| text.parse().ok().filter(|n| *n <= 20);
    if style.is_empty() {
        return Some(Style::Plain);
    }
    if let Some(digits) = style.strip_prefix('.').and_then(|s| s.strip_suffix('f')) {
        return small(digits).map(Style::Fixed);
    }
    let width = style.strip_suffix('d')?;
    let zeros = width.starts_with('0');
    Some(Style::Whole { width: if width.is_empty() { 0 } else { small(width)? }, zeros })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_keras() {
        let epoch = Epoch {
            epoch: 7,
            loss: 0.25,
            accuracy: 0.91,
            val_loss: 0.31,
            val_accuracy: 0.8956,
            learning_rate: 1e-3,
            seconds: 1.0,
        };
        for (template, name) in [
            ("clothing_{epoch:02d}_{val_accuracy:.3f}.onnx", "clothing_07_0.896.onnx"),
            ("a{epoch}.onnx", "a7.onnx"),
            ("{{{loss:.2f}}}", "{0.25}"),
            ("{epoch:3d}-{val_loss}", "  7-0.31"),
            ("plain.onnx", "plain.onnx"),
        ] {
            assert_eq!(Template::parse(template).unwrap().name(&epoch), name);
        }
        for bad in ["{epoch", "epoch}", "{lr}", "{epoch:x}", "{loss:02d}", "{loss:.99f}", "{}"] {
            assert!(Template::parse(bad).is_err(), "{bad}");
        }
    }
}
