// SPDX-License-Identifier: MIT
//! pvfs-mgr: names, attributes, layouts and opens of a PVFS file system.
//!
//! Read in this order: [`namespace`] (pure: what each request does), [`store`] (where records are
//! kept), then the owner of it all, [`owner`], with its [`session`]s and its [`registry`] of iods, which
//! [`seals`] tells from copies and [`placement`] chooses from; at the rim [`server`] (clients' connections),
//! [`stripes`] (work on the iods) and [`backup`].

pub mod backup;
pub mod cli;
pub mod event_loop;
pub mod iods;
pub mod leases;
pub mod limits;
pub mod locks;
pub mod namespace;
pub mod owner;
pub mod placement;
pub mod registry;
pub mod seals;
pub mod server;
pub mod session;
pub mod store;
pub mod stripes;
