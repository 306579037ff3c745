// SPDX-License-Identifier: MIT
//! Time, threads, locks, channels and TCP as the PVFS processes use them.
//!
//! In production these are the standard library's own types under other paths: nothing is added and
//! nothing is lost. They have these paths so that a simulation can put others in their place.
//!
//! Product code that sleeps, waits, locks, reads a clock, draws a random number or opens a connection
//! does it through this module. `Arc`, `Weak`, `OnceLock` and the atomic types wait for nobody, so any
//! path to them will do.

mod host;

pub use host::{PerTask, net, random_u64, sync, thread, time};
