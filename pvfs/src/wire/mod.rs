// SPDX-License-Identifier: MIT
//! Frames: a fixed header, a small bincode body, a raw payload.
//!
//! [`header`] judges the fixed part, [`codec`] the body, [`blocking`] moves frames over a blocking
//! stream. The payload never passes through a serializer: whoever reads a frame receives it
//! straight into the buffer where it belongs. Format and golden bytes: `docs/WIRE.md`.

pub mod blocking;
pub mod codec;
#[cfg(test)]
mod golden;
pub mod header;
