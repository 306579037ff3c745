// SPDX-License-Identifier: MIT
//! What the tests across processes share.
//!
//! [`pvfs_cluster`] starts real daemons and mounts. [`model`] is the simplest file system there
//! is, [`operation`] what can be asked of it, [`draw`] draws one at random, and [`replay`] asks the same of a real one.
//! [`workload`] is what runs while daemons are killed, `cssns_histories` judges what several nodes saw, of which
//! [`history`] has many.
//! [`leftovers`] is what a run of the cluster left. [`director_vm`] is the director in a guest, [`frames`]
//! what is sent to it by hand. [`node`] is a machine with a network link of its own, [`proxy`] is a link that
//! fails, [`pvfs_peer`] a hostile peer of PVFS's daemons. [`environment`] says what is drawn at random,
//! [`recorder`] a disk that remembers in which order it was written.

pub mod director_vm;
pub mod draw;
pub mod environment;
pub mod frames;
pub mod history;
pub mod leftovers;
pub mod model;
pub mod mount_helper;
pub mod node;
pub mod operation;
pub mod programs;
pub mod proxy;
pub mod pvfs_cluster;
pub mod pvfs_peer;
pub mod recorder;
pub mod replay;
pub mod workload;
