//! The verbs, a file each.

pub mod bundle;
pub mod image;
pub mod install;
pub mod link_key;
pub mod list;
pub mod log;
pub mod update;
pub mod verify;
pub mod write;
