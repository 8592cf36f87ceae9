//! What emulated machines are made of: programs and kernels out of Debian's packages ([`apt`], [`debian`], [`kernel`],
//! [`sets`]), archives for an initramfs ([`cpio`]), an emulator as a child process and what it prints ([`console`]), and an
//! emulated camera ([`vivid`]).
//!
//! `cargo xtask` makes the boards' systems and runs its camera test with it; `edge-hil` emulates whole boards. Nothing of
//! it goes onto a device.

pub mod apt;
pub mod console;
pub mod cpio;
pub mod debian;
pub mod foreign;
pub mod kernel;
pub mod sets;
pub mod squashfs;
pub mod system;
pub mod vivid;
