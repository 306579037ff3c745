// SPDX-License-Identifier: GPL-2.0-only
//! What a network namespace's director knows: services, real servers, connections and what goes with them.
//!
//! Each file has one noun with what it does to itself. What concerns several of them, and what repeats or
//! waits, is in `datapath/`, `upkeep/` and `control/`.

pub(crate) mod balancer;
pub(crate) mod channel;
pub(crate) mod complaint;
pub(crate) mod connection;
pub(crate) mod defence;
pub(crate) mod destination;
pub(crate) mod drain;
pub(crate) mod expectation;
pub(crate) mod maglev;
pub(crate) mod reports;
pub(crate) mod service;
pub(crate) mod services;
pub(crate) mod settings;
pub(crate) mod sizes;
pub(crate) mod template;
pub(crate) mod totals;
pub(crate) mod traffic;
