//! Bytes to picture to tensor, the same on host and device.
//!
//! Training and the camera must see the same numbers, so every step between a file (or a camera frame) and
//! the tensor a model reads lives here once:
//!
//! ```text
//! file bytes ── decode ── Mount ┐
//!                               ├─ Picture (H,W,3) ── Resizer ── Picture ── Preprocess ── tensor (H,W,C) or (C,H,W)
//! camera frame ── yuv ── Mount ─┘
//! ```
//!
//! The reference is Keras on Pillow 13: `load_img`, `img_to_array` and `preprocess_input` give the same bytes.
//! Nothing in this crate panics on what a file or a frame holds; a picture that can't be read is an error that
//! says why.
//!
//! JPEG errors unwind inside the decoder and are caught here, so a binary that uses this crate must not be
//! built with `panic = "abort"`.

#![forbid(unsafe_code)]

pub mod augment;
pub mod decode;
mod exif;
pub mod folder;
pub mod frame;
mod jpeg;
pub mod mount;
pub mod pattern;
mod png;
pub mod preprocess;
pub mod random;
mod resample;
pub mod resize;
mod sample;
pub mod stream;
pub mod yuv;

pub use augment::{Augment, AugmentError, Fill, Transform};
pub use decode::{DecodeError, DecodeOptions, LoadError, MAX_PIXELS, decode, load, read_file};
pub use folder::{FolderError, Listing, picture_paths};
pub use frame::{FrameError, Picture};
pub use mount::{Flip, Length, Mount, MountError, Roi, Rotate};
pub use pattern::synthetic;
pub use preprocess::{Layout, Preprocess};
pub use resize::{Interpolation, PassOrder, ResizeError, ResizePolicy, ResizeSpec, Resizer, UnknownInterpolation};
pub use stream::{Piece, RawSplitter, Splitter};
pub use yuv::{ColorMatrix, ColorRange, ColorSpace, PixelFormat, RawFrame, to_picture, to_picture_into};
