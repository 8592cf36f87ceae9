//! What goes into an emulated board besides its image: an emulated camera with a picture, and a shell.

use anyhow::{Context, Result};
use edge_link::RawFrame;
use edge_rig::kernel::Kernel;
use edge_rig::{cpio, foreign, vivid};

use super::machine::{Emulator, SHELL_PORT};

/// The guest's half of the shell.
pub const AGENT: &str = include_str!("agent.sh");

/// What can be done to the emulated camera, as functions of the guest's shell.
const CAMERA: &str = include_str!("camera.sh");

/// What happens before the camera program starts.
const HOOK: &str = include_str!("hook.sh");

/// The archive for a test: the emulated camera shows this, and a shell listens on its port.
pub fn archive(emulator: &Emulator, shown: &RawFrame) -> Result<Vec<u8>> {
    let mut archive = cpio::Archive::new(Vec::new());
    let kernel = Kernel::find(&emulator.device, &emulator.tools)?;
    let mut order = String::new();
    for (name, bytes) in kernel.modules(&["vivid"])? {
        let options = if name == "vivid" { vivid::OPTIONS } else { "" };
        order += &format!("{name} {options}\n");
        archive.bytes(&format!("/test/modules/{name}.ko"), &bytes, false)?;
    }
    archive.bytes("/test/modules/order", order.as_bytes(), false)?;
    foreign::program(&mut archive, &emulator.qemu, &emulator.guest, "bin/v4l2-ctl")?;
    archive.bytes("/test/photo", &shown.bytes, false)?;
    archive.bytes("/test/agent.sh", AGENT.as_bytes(), false)?;
    archive.bytes("/test/camera.sh", format!("{}\n{CAMERA}", vivid::SHOW).as_bytes(), false)?;
    let RawFrame { format, width, height, .. } = shown;
    let hook = format!("{HOOK}plug\nshow_still {format} {width} {height} /test/photo\nlisten {SHELL_PORT}\n");
    archive.bytes("/test/hook.d/10-camera.sh", hook.as_bytes(), false)?;
    archive.finish().context("making the test's archive")
}
