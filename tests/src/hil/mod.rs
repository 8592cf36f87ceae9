//! Hardware in loop: cases that are written once and run on every device under test that has what they need.
//!
//! A device is described by a file ([`DutFile`]): what it is ([`Kind`]) and what it has ([`Capability`]). Cases ([`CASES`])
//! name what they need and never a device; one whose needs are not met is skipped and says so. What is right is computed on
//! this machine from the same package ([`Reference`]), by the code that host and device share.

mod bench;
mod cases;
mod dut;
mod file;
mod frame;
pub mod lab;
mod outcome;
mod reference;
mod run;
mod tail;

pub use bench::{Bench, Photo, Sight, photos};
pub use cases::CASES;
pub use dut::{CameraFault, Dut, Failing, Files, first_class};
pub use file::{Capability, DutFile, Host, Kind, Qemu, Remote, Size};
pub use frame::frame;
pub use outcome::{Evidence, Figure, Outcome, Run, Verdict};
pub use reference::{Expected, Reference, picture};
pub use run::{Options, Shard, missing, run};

use anyhow::Result;

/// Something that must be true of every device.
pub struct Case {
    /// A sentence's subject and verb, as short as can be: it is what `--case` is matched with.
    pub name: &'static str,
    /// What is shown, for people.
    pub about: &'static str,
    /// What the device must have.
    pub needs: &'static [Capability],
    /// Takes so long that it is run with `--long` only.
    pub long: bool,
    /// Fails with what was wrong. What it changes of the device it changes back, or it stands at the end of the table.
    pub run: fn(&mut Bench) -> Result<()>,
}
