//! Which of Debian's packages the boards and their emulation are made of.

use crate::apt::{NONE, Packages};

/// What goes into the boards: the kernel and its modules, two programs that need no library, and the Raspberry Pi's
/// firmware, which is not free.
pub const DEVICE: Packages = Packages {
    name: "device",
    meta: &["linux-image-arm64"],
    alone: &["busybox-static", "e2fsck-static", "raspi-firmware"],
    architecture: "arm64",
    components: "main non-free-firmware",
    ..NONE
};

/// Programs of this machine that bundles are made with.
pub const TOOLS: Packages = Packages { name: "bundle", closure: &["squashfs-tools", "kmod", "xz-utils"], ..NONE };

/// Programs of this machine that boards are emulated with. QEMU is taken from backports, as in the emulated camera.
pub const EMULATOR: Packages = Packages {
    name: "boards",
    closure: &["qemu-system-arm", "qemu-user-static", "mtools", "device-tree-compiler"],
    backports: &["qemu-*", "seabios", "ipxe-qemu"],
    ..NONE
};

/// What an emulated board's test needs besides its image: the program that sets up the emulated camera.
pub const GUEST: Packages = Packages { name: "guest", closure: &["v4l-utils"], architecture: "arm64", ..NONE };

/// QEMU's processors for ordinary processes, as a program that takes plug-ins: of Debian 12, since later ones are static.
pub const COUNTER: Packages = Packages { name: "counter", closure: &["qemu-user"], ..NONE };

/// Python for the boards' processor, and the C++ library that packages for it are built against.
pub const PYTHON: Packages =
    Packages { name: "python", closure: &["python3", "libstdc++6", "libgomp1"], architecture: "arm64", ..NONE };
