// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Decisions of the director, apart from acting on them.
//!
//! Everything below uses `core` only: no allocation, floats, atomics, locks, clock or randomness.
//! `now` is an argument, and nothing here has a panic path: no `[i]`, no arithmetic that can
//! overflow, because an overflow check that fires stops the kernel.

pub mod address;
pub mod config;
pub mod conn;
pub mod defence;
pub mod delivered;
pub mod drain;
pub mod errno;
pub mod event;
pub mod flags;
pub mod flow;
pub mod http;
pub mod ipvs_family;
pub mod limits;
pub mod load;
pub mod mwlc_family;
pub mod netlink;
pub mod netmask;
pub mod packet;
pub mod proc_text;
pub mod rate;
pub mod record;
pub mod refusals;
pub mod report;
pub mod sched;
pub mod service_key;
pub mod size_cache;
pub mod slow_start;
pub mod stats;
pub mod tcp;
pub mod timeouts;
pub mod word;
