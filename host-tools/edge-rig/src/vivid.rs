//! vivid, the kernel's driver that emulates cameras. Its HDMI output is looped back to its capture node, where every frame
//! arrives bit for bit as it was shown.

/// The module's options: a node for capture with a webcam and an HDMI input, and a node for an HDMI output.
pub const OPTIONS: &str = "n_devs=1 node_types=0x101 num_inputs=2 input_types=0xc num_outputs=1 output_types=1";

/// Functions for busybox' shell that show a picture to the emulated camera: see their comments.
pub const SHOW: &str = include_str!("vivid.sh");
