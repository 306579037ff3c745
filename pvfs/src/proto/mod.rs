// SPDX-License-Identifier: MIT
//! The messages: what travels in a frame's body. The frames themselves are in [`crate::wire`].
//!
//! The order of variants and fields is the wire format; a change raises
//! [`crate::wire::header::VERSION`]. Golden bytes stand in `docs/WIRE.md`.

pub mod backup;
pub mod check;
pub mod iod;
pub mod lease;
pub mod lock;
pub mod mgr;
pub mod peer;
pub mod report;
pub mod seal;
