// SPDX-License-Identifier: MIT
//! Time, threads, locks, channels and TCP as the PVFS processes use them.
//!
//! In production these are the standard library's own types under other paths: nothing is added and
//! nothing is lost. They have these paths so that a simulation can put others in their place: with
//! the feature `simulation`, which nothing but `tests/simulation` turns on, they are those of
//! `simulated`.
//!
//! Product code that sleeps, waits, locks, reads a clock, draws a random number or opens a connection
//! does it through this module. `Arc`, `Weak`, `OnceLock` and the atomic types wait for nobody, so any
//! path to them will do.

#[cfg_attr(
    feature = "simulation",
    expect(
        unused_imports,
        dead_code,
        reason = "the simulation's stand in their place"
    )
)]
mod host;
#[cfg(feature = "simulation")]
pub mod simulated;

#[cfg(not(feature = "simulation"))]
pub use host::{PerTask, net, random_u64, sync, thread, time};
#[cfg(feature = "simulation")]
pub use simulated::{PerTask, net, random_u64, sync, thread, time};
