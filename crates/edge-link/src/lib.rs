//! Questions and answers between a host and a running camera.
//!
//! Messages are [postcard](https://postcard.jamesmunns.com/wire-format), each followed by its CRC-32 (IEEE 802.3, 4 bytes
//! little-endian), the whole in [COBS](https://doi.org/10.1109/90.769765) between two zero bytes. So they go over anything
//! that carries bytes, and whatever noise a wire adds costs the message it hits and none after it. A CRC finds accidents,
//! not attackers: over a network everything goes through Noise ([`noise`]); serial lines, local sockets and SSH are
//! trusted as they are.
//!
//! The host asks, the camera answers; every question has a number, which its answer repeats. The first question is
//! [`Request::Hello`]; the version in its answer decides whether the two can talk.

mod address;
mod client;
mod frame;
mod listen;
mod message;
pub mod noise;
mod server;
mod transfer;

pub use address::{Address, AddressError, Stream};
pub use client::{Client, LinkError};
pub use frame::{Deframer, MAX_MESSAGE, MAX_QUESTION, encode};
pub use listen::{Arrived, Listener};
pub use message::{Classified, GoldenResult, Hello, PROTOCOL, PictureData, Power, RawFrame, Reply, Request, Response};
pub use server::{Ended, serve};
pub use transfer::WholeLines;
