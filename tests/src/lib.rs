// SPDX-License-Identifier: MIT
//! What the tests across processes share.
//!
//! [`pvfs_cluster`] starts real daemons and mounts. [`model`] is the simplest file system there
//! is, [`operation`] what can be asked of it at random, and [`replay`] asks the same of a real one.
//! [`workload`] is what runs while daemons are killed, [`linearizability`] judges what several nodes saw.
//! [`director_vm`] is the director in a guest, [`frames`] what is sent to it by hand. [`document`] keeps
//! measured figures in the documentation.

pub mod director_vm;
pub mod document;
pub mod frames;
pub mod linearizability;
pub mod model;
pub mod operation;
pub mod programs;
pub mod pvfs_cluster;
pub mod replay;
pub mod workload;
