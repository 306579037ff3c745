// SPDX-License-Identifier: MIT
//! libpvfs: what every PVFS process shares.
//!
//! Read in this order: [`ids`], [`limits`], [`layout`] (striping), [`attr`] and [`name`] (the name
//! space's nouns), [`error`], then the protocol: [`wire`] (frames), [`proto`] (messages), and the
//! [`client`] that speaks it. Nothing here depends on a daemon.

pub mod address;
pub mod attr;
pub mod client;
pub mod data_directory;
pub mod error;
pub mod failure_log;
pub mod ids;
pub mod layout;
pub mod limits;
pub mod lock_ranges;
pub mod log_filter;
pub mod mountinfo;
pub mod name;
pub mod proto;
pub mod runtime;
pub mod wire;
