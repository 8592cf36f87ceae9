//! Loss and accuracy over the epochs, as SVG.

use std::error::Error;
use std::ops::Range;

use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, ValueFormatter};
use plotters::element::DashedPathElement;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::page::{escape, short};
use crate::history::Epoch;

// The style sheet names these, to give them anew on a dark screen.
const VALIDATION: RGBColor = RGBColor(0x0B, 0x63, 0xC5);
const TRAINING: RGBColor = RGBColor(0xB3, 0x59, 0x00);
const INK: RGBColor = RGBColor(0x1B, 0x1F, 0x24);
const LINE: RGBColor = RGBColor(0xD0, 0xD7, 0xDE);

/// Twice the size a chart has on a screen, because plotters puts everything on whole units.
const SIZE: (u32, u32) = (960, 600);
/// Units from the bottom of a letter to that of the line above; on a screen half of it.
const FONT: u32 = 34;
/// More epochs than this are drawn as lines only; their points would touch.
const MOST_POINTS: usize = 60;
/// A loss beyond this is no more drawn: nothing could be seen of the others.
const MOST_LOSS: f64 = 1e12;

/// A measure of an epoch over training and validation photos.
struct Measure {
    name: &'static str,
    training: fn(&Epoch) -> f64,
    validation: fn(&Epoch) -> f64,
    most: f64,
    /// Where the axis begins and ends, given the least and largest value.
    axis: fn(f64, f64) -> Range<f64>,
}

const LOSS: Measure = Measure {
    name: "Loss",
    training: |e| e.loss,
    validation: |e| e.val_loss,
    most: MOST_LOSS,
    axis: |_, most| {
        let most = if most > 0.0 { most } else { 1.0 };
        let step = nice_step(most, 5);
        0.0..(most / step).ceil() * step
    },
};

const ACCURACY: Measure = Measure {
    name: "Accuracy",
    training: |e| e.accuracy,
    validation: |e| e.val_accuracy,
    most: 1.0,
    // Up to 1, so that curves of two runs can be compared; from below the lowest, so that much can be seen.
    axis: |least, _| ((least * 10.0).floor() / 10.0).min(0.9)..1.0,
};

/// Both charts and what their lines mean; a sentence where there is nothing to draw.
pub(super) fn curves(history: &[Epoch], best: usize) -> String {
    if history.is_empty() {
        return "<p>No epoch was trained, so there is no curve.</p>\n".to_owned();
    }
    let mut out = String::from("<div class=\"plots\">\n");
    for measure in [LOSS, ACCURACY] {
        let name = measure.name;
        let svg = chart(&measure, history, best)
            .unwrap_or_else(|why| format!("<p>The chart can't be drawn: {}</p>\n", escape(&why.to_string())));
        out.push_str(&format!("<figure>\n<h3>{name}</h3>\n{svg}</figure>\n"));
    }
    out.push_str(
        "</div>\n<p class=\"note\">\
         <span class=\"key\"><svg viewBox=\"0 0 44 16\" aria-hidden=\"true\"><path d=\"M0 8H44\" \
         stroke=\"#0B63C5\" stroke-width=\"4\"/><circle cx=\"22\" cy=\"8\" r=\"6\" fill=\"#0B63C5\"/></svg> \
         validation (solid, dots)</span> \
         <span class=\"key\"><svg viewBox=\"0 0 44 16\" aria-hidden=\"true\"><path d=\"M0 8H44\" \
         stroke=\"#B35900\" stroke-width=\"4\" stroke-dasharray=\"9 5\"/><path d=\"M22 1L30 14H14Z\" \
         fill=\"#B35900\"/></svg> training (dashed, triangles)</span> \
         Training is measured while the weights change, with dropout and augmentation if any, so it may look worse \
         than validation. \
         The ring marks the kept epoch.</p>\n",
    );
    let drawn =
        |e: &&Epoch| [LOSS, ACCURACY].iter().all(|m| is_drawn(m, (m.training)(e)) && is_drawn(m, (m.validation)(e)));
    let missing = history.len() - history.iter().filter(drawn).count();
    if missing > 0 {
        out.push_str(&format!(
            "<p>In {missing} of {} epochs a measure is no number or beyond all bounds; it is missing above. \
             Training that diverges wants a lower learning rate.</p>\n",
            history.len()
        ));
    }
    out
}

fn is_drawn(measure: &Measure, value: f64) -> bool {
    value.is_finite() && (0.0..=measure.most).contains(&value)
}

/// The points of a curve.
fn points(measure: &Measure, history: &[Epoch], value: fn(&Epoch) -> f64) -> Vec<(f64, f64)> {
    history.iter().map(|e| (e.epoch as f64, value(e))).filter(|p| is_drawn(measure, p.1)).collect()
}

/// The least and the largest of some numbers.
fn extent(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    values.fold(None, |extent, v| {
        let (least, most) = extent.unwrap_or((v, v));
        Some((least.min(v), most.max(v)))
    })
}

/// The least of 1, 2, 5, 10, … that divides `span` into at most `most` steps.
fn nice_step(span: f64, most: usize) -> f64 {
    let raw = span / most as f64;
    let decade = 10_f64.powf(raw.log10().floor());
    [1.0, 2.0, 5.0].iter().map(|m| m * decade).find(|s| *s >= raw * (1.0 - 1e-9)).unwrap_or(10.0 * decade)
}

/// An axis whose ticks are chosen here: plotters would put epochs between epochs.
#[derive(Clone)]
struct Axis {
    range: Range<f64>,
    step: f64,
}

impl Ranged for Axis {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        let part = ((value - self.range.start) / (self.range.end - self.range.start)).clamp(0.0, 1.0);
        limit.0 + (f64::from(limit.1 - limit.0) * part).round() as i32
    }

    /// The multiples of the step.
    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        if hint.weight().allow_light_points() {
            return Vec::new();
        }
        let first = (self.range.start / self.step - 1e-6).ceil();
        let ticks = (0..30).map(|i| (first + f64::from(i)) * self.step);
        ticks.take_while(|t| *t <= self.range.end + self.step * 1e-6).collect()
    }

    fn range(&self) -> Range<f64> {
        self.range.clone()
    }
}

impl ValueFormatter<f64> for Axis {
    /// With as many digits as the step has, the same at every tick.
    fn format_ext(&self, value: &f64) -> String {
        if !(1e-4..1e5).contains(&self.step) {
            return if *value == 0.0 { "0".to_owned() } else { format!("{value:.0e}") };
        }
        let digits = (-self.step.log10() - 1e-9).ceil().max(0.0) as usize;
        format!("{value:.digits$}")
    }
}

/// What the chart says, for those who don't see it.
fn description(measure: &Measure, history: &[Epoch], best: usize) -> String {
    let curve = |what: &str, value: fn(&Epoch) -> f64| match (history.first(), history.last()) {
        (Some(first), Some(last)) if history.len() > 1 => {
            format!(" {what} from {} to {}.", short(value(first)), short(value(last)))
        }
        (Some(only), _) => format!(" {what} {}.", short(value(only))),
        _ => String::new(),
    };
    let (training, validation) = (curve("Training", measure.training), curve("Validation", measure.validation));
    let kept = history.iter().find(|e| e.epoch == best).map_or_else(String::new, |e| {
        format!(" Epoch {best} was kept, with {} on validation photos.", short((measure.validation)(e)))
    });
    let epochs = if history.len() == 1 { "one epoch".to_owned() } else { format!("{} epochs", history.len()) };
    format!("{} over {epochs}.{training}{validation}{kept}", measure.name)
}

fn chart(measure: &Measure, history: &[Epoch], best: usize) -> Result<String, Box<dyn Error>> {
    let training = points(measure, history, measure.training);
    let validation = points(measure, history, measure.validation);
    let (first, last) = extent(history.iter().map(|e| e.epoch as f64)).unwrap_or((1.0, 1.0));
    let x_axis = if first < last {
        Axis { range: first..last, step: nice_step(last - first, 9).max(1.0) }
    } else {
        // A single epoch stands in the middle.
        Axis { range: first - 0.5..first + 0.5, step: 1.0 }
    };
    let (least, most) = extent(training.iter().chain(&validation).map(|p| p.1)).unwrap_or((0.0, 1.0));
    let range = (measure.axis)(least, most);
    let (bottom, top) = (range.start, range.end);
    let y_axis = Axis { step: nice_step(top - bottom, 5), range };

    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        let mut chart = ChartBuilder::on(&root)
            .margin_top(FONT + 14)
            .margin_right(24)
            .x_label_area_size(FONT * 2 + 12)
            .y_label_area_size(FONT * 3)
            .build_cartesian_2d(x_axis.clone(), y_axis)?;
        let font = ("sans-serif", FONT).into_font().color(&INK);
        chart
            .configure_mesh()
            .disable_x_mesh()
            .bold_line_style(LINE.stroke_width(2))
            .axis_style(INK.stroke_width(2))
            .label_style(font.clone())
            .x_desc("epoch")
            .draw()?;

        let best_at = best as f64;
        let kept = history.iter().any(|e| e.epoch == best);
        if kept {
            let line = vec![(best_at, bottom), (best_at, top)];
            chart.draw_series([PathElement::new(line, INK.stroke_width(2))])?;
        }
        let dots = history.len() <= MOST_POINTS;
        if !training.is_empty() {
            let dashed = DashedPathElement::new(training.clone(), 14, 9, TRAINING.stroke_width(4));
            chart.draw_series([dashed])?;
        }
        chart.draw_series(LineSeries::new(validation.clone(), VALIDATION.stroke_width(5)))?;
        if dots {
            chart.draw_series(training.iter().map(|&p| TriangleMarker::new(p, 9, TRAINING.filled())))?;
            chart.draw_series(validation.iter().map(|&p| Circle::new(p, 7, VALIDATION.filled())))?;
        }
        if kept {
            let at = validation.iter().find(|p| p.0 == best_at);
            chart.draw_series(at.iter().map(|&&p| Circle::new(p, 15, INK.stroke_width(4))))?;
            let value = at.map_or_else(String::new, |p| format!(": {:.3}", p.1));
            // Above the plot, where no curve can cross it; on the side that has room for it.
            let (x, y) = chart.backend_coord(&(best_at, top));
            let across = (best_at - x_axis.range.start) / (x_axis.range.end - x_axis.range.start);
            let anchor = if across < 0.2 {
                HPos::Left
            } else if across > 0.8 {
                HPos::Right
            } else {
                HPos::Center
            };
            let style = font.pos(Pos::new(anchor, VPos::Bottom));
            root.draw(&Text::new(format!("epoch {best} kept{value}"), (x, y - 8), style))?;
        }
        root.present()?;
    }
    let label = escape(&description(measure, history, best));
    Ok(svg.replacen("<svg ", &format!("<svg class=\"plot\" role=\"img\" aria-label=\"{label}\" "), 1))
}
