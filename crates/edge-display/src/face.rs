//! The face of the display: label, score bar, status and rate on any size of screen, in any colours.
//!
//! ```text
//! ┌──────────────────────┐
//! │                      │
//! │     Egyptian cat     │   the label, as large as fits, in up to four lines
//! │                      │
//! │ ██████████░░░░  73 % │   the score of the best class
//! │ ● running    9.8 fps │   the status, in a box where someone should do something
//! └──────────────────────┘
//! ```
//!
//! Colours are chosen so that on a screen of two colours everything that matters is lit.

use embedded_graphics::Drawable;
use embedded_graphics::draw_target::DrawTarget;
use embedded_graphics::geometry::{OriginDimensions, Point, Size};
use embedded_graphics::pixelcolor::Rgb888;
use embedded_graphics::prelude::Primitive;
use embedded_graphics::primitives::{Circle, PrimitiveStyle, PrimitiveStyleBuilder, Rectangle, RoundedRectangle};

use crate::canvas::Enlarged;
use crate::snapshot::{Level, Snapshot};
use crate::text::{Font, printable};

const BACKGROUND: Rgb888 = Rgb888::new(10, 14, 20);
const TEXT: Rgb888 = Rgb888::new(255, 255, 255);
const QUIET: Rgb888 = Rgb888::new(150, 162, 178);
const GREEN: Rgb888 = Rgb888::new(84, 214, 122);
const AMBER: Rgb888 = Rgb888::new(255, 196, 64);
const RED: Rgb888 = Rgb888::new(255, 112, 96);

/// The smallest screen in pixels that is drawn larger than pixel by pixel: twice that is drawn twice as large.
const COMFORTABLE: Size = Size::new(320, 200);
/// Below this height in pixels every row counts.
const ROOMY: i32 = 120;
/// Below this height in pixels there is no room for a bar.
const LOW: i32 = 48;
/// Lines of a label; more are no label but a text.
const MOST_LINES: i32 = 4;
/// Height of the smallest line in pixels that a label on a roomy screen is written in.
const LEGIBLE: i32 = 24;
/// Scores in percent from which the bar is green, and amber.
const HIGH: u32 = 70;
/// See [`HIGH`].
const MIDDLE: u32 = 40;

/// Draws a snapshot over the whole of `target`, whatever its size; small screens get what fits.
///
/// # Errors
///
/// What the target returns.
pub fn draw<D>(snapshot: &Snapshot, target: &mut D) -> Result<(), D::Error>
where
    D: DrawTarget,
    D::Color: From<Rgb888>,
{
    target.clear(BACKGROUND.into())?;
    let size = target.bounding_box().size;
    let factor = (size.width / COMFORTABLE.width).min(size.height / COMFORTABLE.height).max(1);
    let mut large = Enlarged::new(target, factor as i32);
    Face::of(large.size()).draw(snapshot, &mut large)
}

/// Where things lie on a screen of one size, in pixels.
struct Face {
    width: i32,
    height: i32,
    margin: i32,
    /// Between two parts that lie above each other.
    gap: i32,
    /// Of the status and the rate.
    small: Font,
    /// Of the score.
    middle: Font,
}

impl Face {
    fn of(size: Size) -> Self {
        let (width, height) = (size.width as i32, size.height as i32);
        let roomy = height >= ROOMY && width >= ROOMY;
        Self {
            width,
            height,
            margin: if roomy { (width.min(height) / 24).clamp(6, 12) } else { 1 },
            gap: if roomy { (height / 30).clamp(5, 12) } else { 2 },
            small: if roomy { Font::within((height / 12).min(width / 12).max(16)) } else { Font::SMALL },
            middle: if roomy { Font::within((height / 9).min(width / 9)) } else { Font::SMALL },
        }
    }

    fn draw<D>(&self, snapshot: &Snapshot, to: &mut D) -> Result<(), D::Error>
    where
        D: DrawTarget,
        D::Color: From<Rgb888>,
    {
        let status_top = self.height - self.margin - self.small.height();
        let bar_top = status_top - self.gap - self.middle.height();
        let nothing = snapshot.label.is_empty();
        if nothing {
            // Nothing has been classified yet, so that why is all there is to say.
            let color = match snapshot.status.level {
                Level::Good => QUIET,
                Level::Waiting => AMBER,
                Level::Bad => RED,
            };
            self.label(&snapshot.status.text, color, status_top - self.gap, to)?;
        } else {
            let color = if snapshot.known { TEXT } else { QUIET };
            let bar = self.height >= LOW;
            self.label(&snapshot.label, color, if bar { bar_top } else { status_top } - self.gap, to)?;
            if bar {
                self.bar(snapshot, bar_top, to)?;
            }
        }
        self.status(snapshot, nothing, status_top, to)
    }

    /// The label, in the middle of everything above `bottom`.
    fn label<D>(&self, text: &str, color: Rgb888, bottom: i32, to: &mut D) -> Result<(), D::Error>
    where
        D: DrawTarget,
        D::Color: From<Rgb888>,
    {
        let text = printable(text);
        let (width, height) = (self.width - 2 * self.margin, (bottom - self.margin).max(1));
        let most = |font: Font| (height / font.height()).clamp(0, MOST_LINES) as usize;
        let fits = |font: Font| font.wrapped(&text, width).filter(|lines| lines.len() <= most(font));
        // A smaller font is taken before a word is broken, and a word is broken before anything is left out.
        let least = if height >= ROOMY / 2 { Font::within(LEGIBLE) } else { Font::SMALL };
        let whole = Font::LARGEST.down_to(least).find_map(|font| Some((font, fits(font)?)));
        let (font, lines) = whole.unwrap_or_else(|| (least, least.squeezed(&text, width, most(least))));
        // What is seen of the block begins with a capital and ends with a baseline.
        let block = font.height() * (lines.len() as i32 - 1) + font.cap_height();
        let center = self.margin + (height - block) / 2 - font.cap_top();
        let lowest = bottom - font.height() * lines.len() as i32;
        let top = center.min(lowest).max(self.margin.min(lowest.max(0)));
        for (i, line) in (0..).zip(&lines) {
            let left = (self.width - font.width(line)) / 2;
            font.draw(line, Point::new(left, top + i * font.height()), color.into(), to)?;
        }
        Ok(())
    }

    /// The score as a bar and in percent.
    fn bar<D>(&self, snapshot: &Snapshot, top: i32, to: &mut D) -> Result<(), D::Error>
    where
        D: DrawTarget,
        D::Color: From<Rgb888>,
    {
        let percent = snapshot.percent();
        let color = match percent {
            HIGH.. => GREEN,
            MIDDLE.. => AMBER,
            _ => RED,
        };
        let font = self.middle;
        let text = format!("{percent} %");
        font.draw(&text, Point::new(self.width - self.margin - font.width(&text), top), TEXT.into(), to)?;
        let size = Size::new(
            (self.width - 2 * self.margin - font.width("100 %") - 2 * self.gap).max(4) as u32,
            font.cap_height().max(5) as u32,
        );
        let track = Rectangle::new(Point::new(self.margin, top + font.cap_top()), size);
        let corner = Size::new_equal(size.height / 4);
        let outline = PrimitiveStyleBuilder::new().stroke_color(QUIET.into()).stroke_width(1);
        RoundedRectangle::with_equal_corners(track, corner).into_styled(outline.build()).draw(to)?;
        let inner = track.offset(-2);
        let filled = Size::new((inner.size.width * percent).div_ceil(100), inner.size.height);
        let corner = Size::new_equal(filled.height / 4);
        RoundedRectangle::with_equal_corners(Rectangle::new(inner.top_left, filled), corner)
            .into_styled(PrimitiveStyle::with_fill(color.into()))
            .draw(to)
    }

    /// The status on the left and the rate on the right; only the rate, where the status has been said already.
    fn status<D>(&self, snapshot: &Snapshot, said: bool, top: i32, to: &mut D) -> Result<(), D::Error>
    where
        D: DrawTarget,
        D::Color: From<Rgb888>,
    {
        let font = self.small;
        let mut rate = match () {
            () if said => String::new(),
            // There is no bar that would say it.
            () if self.height < LOW => format!("{} %", snapshot.percent()),
            () => snapshot.rate(),
        };
        let text = if said { String::new() } else { printable(&snapshot.status.text) };
        let diameter = font.cap_height() - font.cap_height() % 2 - 1;
        let level = snapshot.status.level;
        let bad = level == Level::Bad && !text.is_empty();
        let left = self.margin + if bad { self.gap } else { diameter + self.gap.max(3) };
        // What is wrong is the news: where there is no room for both, the rate gives way to it.
        let end = |rate: &str| self.width - self.margin - font.width(rate);
        let room = |rate: &str| end(rate) - left - if bad || !rate.is_empty() { 2 * self.gap } else { 0 };
        if level != Level::Good && font.width(&text) > room(&rate) || room(&rate) < 0 {
            rate.clear();
        }
        let text = font.shortened(&text, room(&rate));
        if bad {
            // In a box, so that it is seen on screens of one colour, too.
            let width = font.width(&text) + 2 * self.gap;
            let size = Size::new(width as u32, font.height() as u32);
            Rectangle::new(Point::new(self.margin, top), size)
                .into_styled(PrimitiveStyle::with_fill(RED.into()))
                .draw(to)?;
            font.draw(&text, Point::new(left, top), BACKGROUND.into(), to)?;
        } else if !said {
            let dot = Circle::new(Point::new(self.margin, top + font.cap_top()), diameter.max(3) as u32);
            let style = match level {
                Level::Good => PrimitiveStyle::with_fill(GREEN.into()),
                _ => PrimitiveStyle::with_stroke(AMBER.into(), 2),
            };
            dot.into_styled(style).draw(to)?;
            font.draw(&text, Point::new(left, top), QUIET.into(), to)?;
        }
        font.draw(&rate, Point::new(end(&rate), top), QUIET.into(), to)
    }
}
