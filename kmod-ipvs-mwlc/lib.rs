// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The director's pure code, as a userspace library.
//!
//! The kernel module's root, `ipvs_mwlc_main.rs`, includes the same two modules, so what is tested
//! here is what decides there.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

pub mod director;
pub mod uapi;
