//! One file per verb: its arguments and what it does.

pub mod bench;
pub mod doctor;
pub mod eval;
pub mod import;
pub mod inspect;
pub mod keygen;
pub mod pack;
pub mod quantize;
pub mod run;
pub mod train;
pub mod verify;
