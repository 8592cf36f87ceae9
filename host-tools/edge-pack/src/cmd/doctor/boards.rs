//! How a network would do on boards that are not here.

use super::config::Settings;
use super::estimate::{Estimate, Machine};
use super::finding::{Finding, Severity};
use super::subject::Subject;
use edge_system::board::{self, Board};
use edge_system::check;
use edge_system::size::Size;

/// What is said of a board.
pub struct Row {
    /// Its name; of this machine `here`.
    pub name: String,
    /// What computes, and how fast.
    pub processor: String,
    /// `None` where nothing is known to estimate from, or to estimate.
    pub estimate: Option<Estimate>,
    /// Bytes of memory that the runtime may take there; `None` where that is not limited.
    pub budget: Option<u64>,
    /// Whether anything keeps it from running there.
    pub runs: bool,
}

/// The boards to look at, and whether they were asked for: those of the command line, else the ones that what is looked at
/// is for, else all that have a speed of their own.
pub fn choose(asked: &[&'static Board], meant: &[String]) -> (Vec<&'static Board>, bool) {
    if !asked.is_empty() {
        return (asked.to_vec(), true);
    }
    let meant: Vec<_> = meant.iter().filter_map(|name| board::by_name(name).ok()).collect();
    match meant.is_empty() {
        false => (meant, true),
        true => (board::boards().iter().filter(|b| b.cost.is_some()).collect(), false),
    }
}

/// Looks at one board. What keeps the network from running there is an error only where the board was asked for.
pub fn look(
    board: &Board,
    asked: bool,
    subject: &Subject,
    settings: Option<&Settings>,
    findings: &mut Vec<Finding>,
) -> Row {
    let wrong = if asked { Severity::Error } else { Severity::Note };
    let mut runs = true;
    if let Some(Err(e)) = subject.manifest.as_ref().map(|m| m.check_board(&board.name)) {
        runs = false;
        findings
            .push(Finding::told(wrong, "board", &e.to_string()).why("edge-camera refuses it there").on(&board.name));
    }
    let name = subject.manifest.as_ref().map_or("model", |m| &m.name);
    if let Err(e) = board.check_model(name, subject.model) {
        runs = false;
        let why = "no image for the board takes it, and beside the system there is not enough memory for it";
        findings.push(Finding::told(wrong, "budget", &e.to_string()).why(why).on(&board.name));
    }
    let budget = u64::from(board.budget.memory_mib) * edge_system::MIB;
    let estimate = board.cost.as_ref().zip(subject.cost.as_ref()).map(|(b, cost)| Machine::of_board(b).estimate(cost));
    if let Some(taken) = estimate.map(|e| e.memory as u64).filter(|taken| *taken > budget) {
        findings.push(
            Finding::new(
                Severity::Warning,
                "memory",
                format!("an estimate of {} of memory, and {} may be taken", Size(taken), Size(budget)),
            )
            .why("the system may end the program when memory runs out")
            .fix("quantize the model to int8 (`edge-pack quantize`), or use a smaller network or input size")
            .on(&board.name),
        );
    }
    if let Some(cost) = board.cost.as_ref().filter(|cost| subject.is_int8() && !cost.has_dot_product()) {
        findings.push(
            Finding::new(
                Severity::Note,
                "dot-product",
                format!("the {} has no dot-product instructions", cost.processor),
            )
            .why(format!(
                "int8 is multiplied at most {:.1} times as fast as float there, with them 4 times; it takes a quarter of the memory all the same",
                f64::from(cost.int8_macs) / f64::from(cost.float_macs)
            ))
            .fix("nothing has to be done; rpi5 and jetson-orin have them")
            .on(&board.name),
        );
    }
    if let Some(settings) = settings.filter(|s| s.source.starts_with("v4l2:")) {
        ribbon_cable(board, &settings.source, findings);
    }
    let processor = board.cost.as_ref().map_or("emulated".into(), |cost| {
        let float16 = cost.has_float16() && subject.cost.iter().flat_map(|c| &c.steps).any(|s| s.float16);
        let how = if float16 { ", float16 arithmetic" } else { "" };
        format!("{} {} at {:.2} GHz{how}", cost.cores, cost.processor, f64::from(cost.mhz) / 1e3)
    });
    Row { name: board.name.clone(), processor, estimate, budget: Some(budget), runs: runs && subject.loads() }
}

fn ribbon_cable(board: &Board, source: &str, findings: &mut Vec<Finding>) {
    let Some(hint) = check::ribbon_cable(&board.name) else { return };
    findings.push(
        Finding::new(Severity::Note, "csi-camera", format!("the source {source} is a USB camera's"))
            .why("a camera on the ribbon cable (CSI) delivers no pictures that way")
            .fix(format!(
                "with a USB camera nothing; {hint}, and as a service with the drop-in examples/csi.conf of the package"
            ))
            .on(&board.name),
    );
}
