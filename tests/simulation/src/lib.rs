// SPDX-License-Identifier: MIT
//! mgr, iods and clients in one thread of the host: their clock, network and disks are simulated, and
//! everything that happens follows from a seed. docs/SIMULATION.md says what is simulated, what is
//! not, and how a failing seed is replayed.
//!
//! `machine` runs tasks one at a time over `network`; `mgr`, `iod` and `node` are the
//! processes, with the real code in them; `kernel` is the page cache of a node, `program` what runs
//! there; `run` is one seed from its beginning to its judgement.

#![cfg(feature = "simulation")]

pub mod iod;
pub mod kernel;
pub mod log;
pub mod machine;
pub mod mgr;
pub mod network;
pub mod node;
pub mod product_log;
pub mod program;
pub mod run;
