// SPDX-License-Identifier: MIT
//! The cluster on one machine: the director as a stock kernel in QEMU, network namespaces for
//! clients and nodes, the daemons, and the demo that runs all of it.
//!
//! The pure parts (what a kernel log means, what ipvsadm printed, which address goes where, what
//! the tables look like) stand in modules of their own and touch nothing; everything that starts
//! a process or makes a namespace stands at the rim.

pub mod cluster;
pub mod compare;
pub mod demo;
pub mod director;
pub mod experiment;
pub mod ipvs_text;
pub mod learning;
pub mod ledger;
pub mod loads;
pub mod markdown;
pub mod net;
pub mod paths;
pub mod plan;
pub mod process;
pub mod progress;
pub mod report;
pub mod run;
pub mod simulate;
pub mod splat;
pub mod storage;
pub mod vm;
pub mod web;
pub mod workload;
