//! Text in the fonts there are: what a font lacks is spelled otherwise, what is too long is shortened.

use embedded_graphics::draw_target::DrawTarget;
use embedded_graphics::geometry::Point;
use u8g2_fonts::types::{FontColor, VerticalPosition};
use u8g2_fonts::{Error, FontRenderer, fonts};

/// Helvetica bold with all of Latin-1, from the smallest to the largest; the names say the height of a capital with
/// its space, in pixels.
static FONTS: [FontRenderer; 6] = [
    FontRenderer::new::<fonts::u8g2_font_helvB08_tf>(),
    FontRenderer::new::<fonts::u8g2_font_helvB10_tf>(),
    FontRenderer::new::<fonts::u8g2_font_helvB12_tf>(),
    FontRenderer::new::<fonts::u8g2_font_helvB14_tf>(),
    FontRenderer::new::<fonts::u8g2_font_helvB18_tf>(),
    FontRenderer::new::<fonts::u8g2_font_helvB24_tf>(),
];

/// What stands for the rest of a text that is too long; the fonts have no single character for it.
const ELLIPSIS: &str = "...";

/// Characters looked at of a text: no display shows more, and whoever trained a model may have written a novel.
const LONGEST: usize = 256;

/// One of the fonts; they are ordered by size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Font(usize);

impl Font {
    pub(crate) const SMALL: Self = Self(0);
    pub(crate) const LARGEST: Self = Self(FONTS.len() - 1);

    /// The fonts from this one down to `least`.
    pub(crate) fn down_to(self, least: Self) -> impl Iterator<Item = Self> {
        (least.0..=self.0).rev().map(Self)
    }

    /// The largest font of which a line is at most so many pixels high, or the smallest.
    pub(crate) fn within(height: i32) -> Self {
        Self::LARGEST.down_to(Self::SMALL).find(|font| font.height() <= height).unwrap_or(Self::SMALL)
    }

    fn renderer(self) -> &'static FontRenderer {
        FONTS.get(self.0).unwrap_or(&FONTS[0])
    }

    /// Rows from the top of an accented capital to the baseline.
    fn above(self) -> i32 {
        // Å rises above every other letter of Latin-1.
        let top = self.renderer().get_rendered_dimensions('Å', Point::zero(), VerticalPosition::Baseline);
        top.ok().and_then(|d| d.bounding_box).map_or(i32::from(self.renderer().get_ascent()), |b| -b.top_left.y)
    }

    /// Rows of a line, from the top of an accented capital to the foot of a g.
    pub(crate) fn height(self) -> i32 {
        self.above() - i32::from(self.renderer().get_descent())
    }

    /// Rows from the top of a line to that of a capital.
    pub(crate) fn cap_top(self) -> i32 {
        self.above() - i32::from(self.renderer().get_ascent())
    }

    /// Rows of a capital without accents.
    pub(crate) fn cap_height(self) -> i32 {
        i32::from(self.renderer().get_ascent())
    }

    /// Columns that a text takes.
    pub(crate) fn width(self, text: &str) -> i32 {
        let size = self.renderer().get_rendered_dimensions(text, Point::zero(), VerticalPosition::Baseline);
        size.map_or(0, |d| d.advance.x.max(d.bounding_box.map_or(0, |b| b.top_left.x + b.size.width as i32)))
    }

    /// Draws a line of text, whose top left corner is `at`.
    pub(crate) fn draw<D: DrawTarget>(
        self,
        text: &str,
        at: Point,
        color: D::Color,
        to: &mut D,
    ) -> Result<(), D::Error> {
        let baseline = at + Point::new(0, self.above());
        let color = FontColor::Transparent(color);
        match self.renderer().render(text, baseline, VerticalPosition::Baseline, color, to) {
            Err(Error::DisplayError(e)) => Err(e),
            // `printable` leaves only characters that the fonts have.
            Ok(_) | Err(Error::GlyphNotFound(_) | Error::BackgroundColorNotSupported) => Ok(()),
        }
    }

    /// The text, or so much of its beginning as fits with an ellipsis.
    pub(crate) fn shortened(self, text: &str, width: i32) -> String {
        if self.width(text) <= width {
            return text.to_owned();
        }
        let mut chars: Vec<char> = text.chars().collect();
        while chars.pop().is_some() {
            let kept: String = chars.iter().collect();
            let shorter = format!("{}{ELLIPSIS}", kept.trim_end_matches([' ', ',', '.']));
            if self.width(&shorter) <= width {
                return shorter;
            }
        }
        String::new()
    }

    /// The text in lines of at most `width` columns, broken at blanks only; `None` where a word is too long for that.
    pub(crate) fn wrapped(self, text: &str, width: i32) -> Option<Vec<String>> {
        let mut lines: Vec<String> = Vec::new();
        for word in text.split(' ') {
            if self.width(word) > width {
                return None;
            }
            match lines.last_mut() {
                Some(line) if self.width(&format!("{line} {word}")) <= width => {
                    line.push(' ');
                    line.push_str(word);
                }
                _ => lines.push(word.to_owned()),
            }
        }
        Some(lines)
    }

    /// The text in at most `count` lines, broken inside words where it must be, the last line shortened.
    pub(crate) fn squeezed(self, text: &str, width: i32, count: usize) -> Vec<String> {
        let mut lines: Vec<String> = vec![String::new()];
        let mut rest = text;
        while !rest.is_empty() {
            if lines.len() == count.max(1) {
                lines.pop();
                lines.push(self.shortened(rest, width));
                break;
            }
            // As many whole words as fit, or so much of one as fits before a hyphen.
            let ends = rest.char_indices().map(|(i, c)| i + c.len_utf8());
            let most = |tail: &str| {
                let fits = |end: &usize| self.width(&format!("{}{tail}", &rest[..*end])) <= width;
                ends.clone().take_while(fits).last()
            };
            let whole = most("").unwrap_or(0);
            let (end, hyphen) = if whole == rest.len() || rest[whole..].starts_with(' ') {
                (whole, "")
            } else if let Some(blank) = rest[..whole].rfind(' ') {
                (blank, "")
            } else {
                // One character at least, or this would never end.
                (most("-").or_else(|| ends.clone().next()).unwrap_or(rest.len()), "-")
            };
            if let Some(last) = lines.last_mut() {
                *last = format!("{}{hyphen}", rest[..end].trim_end());
            }
            rest = rest[end..].trim_start();
            if !rest.is_empty() {
                lines.push(String::new());
            }
        }
        lines
    }
}

/// The text with only characters that the fonts have: others are spelled in ASCII, or become a question mark.
pub(crate) fn printable(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars().take(LONGEST) {
        match c {
            c if c.is_whitespace() || c.is_control() => out.push(' '),
            // Latin-1 is what the fonts' names promise; the soft hyphen has no shape.
            '\u{ad}' => {}
            ' '..='~' | '¡'..='ÿ' => out.push(c),
            c => match deunicode::deunicode_char(c) {
                Some(spelled) => out.push_str(spelled),
                None => out.push('?'),
            },
        }
    }
    out.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_font_has_all_of_latin_1() {
        for font in Font::LARGEST.down_to(Font::SMALL) {
            for c in (' '..='~').chain('¡'..='ÿ').filter(|c| *c != '\u{ad}') {
                let size = font.renderer().get_rendered_dimensions(c, Point::zero(), VerticalPosition::Baseline);
                let size = size.unwrap_or_else(|e| panic!("{font:?}: {e}"));
                let Some(shape) = size.bounding_box else { continue };
                assert!(-shape.top_left.y <= font.above(), "{c} is higher than a line of {font:?}");
                let foot = shape.top_left.y + shape.size.height as i32;
                // The cedilla and a bracket or two hang a row lower than the letters.
                assert!(foot <= font.height() - font.above() + 2, "{c} hangs below {font:?}: {foot}");
            }
        }
    }

    #[test]
    fn what_the_fonts_lack_is_spelled_otherwise() {
        for (text, expected) in [
            ("café crème, Größe 9½", "café crème, Größe 9½"),
            ("łódź — \u{201c}żółw\u{201d}", "lódz -- \"zólw\""),
            ("tab\tnew\nline\u{0}end  ", "tab new line end"),
            ("\u{e000}?", "??"),
            ("", ""),
        ] {
            assert_eq!(printable(text), expected);
        }
        assert!(printable("北京 кошка 🐈").is_ascii());
        assert!(printable(&"é".repeat(100_000)).chars().count() <= LONGEST);
    }

    #[test]
    fn lines_are_broken_and_shortened() {
        let font = Font::LARGEST;
        let width = font.width("Egyptian");
        assert_eq!(font.wrapped("Egyptian cat", width).unwrap(), ["Egyptian", "cat"]);
        assert_eq!(font.wrapped("Egyptians cat", width), None);
        assert_eq!(font.wrapped("Egyptian cat", 1000).unwrap(), ["Egyptian cat"]);
        let squeezed = font.squeezed("Donaudampfschifffahrtsgesellschaft and so on", width, 3);
        assert_eq!(squeezed.len(), 3);
        assert!(squeezed.iter().all(|line| font.width(line) <= width), "{squeezed:?}");
        assert!(squeezed[2].ends_with("...") && squeezed[0].starts_with("Donau"), "{squeezed:?}");
        assert!(squeezed[0].ends_with('-') && squeezed[1].ends_with('-'), "{squeezed:?}");
        assert_eq!(font.squeezed("cat", width, 1), ["cat"]);
        assert_eq!(font.squeezed("a-b c", font.width("a-b"), 2), ["a-b", "c"]);
        assert_eq!(font.shortened("cats", 3), "");
        assert_eq!(font.squeezed("", width, 2), [""]);
    }
}
