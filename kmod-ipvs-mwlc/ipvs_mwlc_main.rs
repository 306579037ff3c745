// SPDX-License-Identifier: GPL-2.0-only
//! The director: a layer-4 load balancer in direct routing, with the MWLC scheduler.
//!
//! `director/` decides and knows no kernel; `kapi/` is the kernel and decides nothing. `state/` has what a
//! namespace knows, `datapath/` what happens to a packet, `upkeep/` what repeats, `control/` what
//! administrators and programs ask for; `namespace.rs` starts and ends it all.

use kernel::prelude::*;

pub mod director;
pub mod uapi;

mod control;
mod datapath;
mod kapi;
mod namespace;
mod state;
mod upkeep;

use control::ipvs::Ipvs;
use control::mwlc::Mwlc;
use control::proc::Files;
use kapi::netlink;
use kapi::pernet;
use kapi::rcu;
use kapi::slab;
use namespace::Namespace;

module! {
    type: Director,
    name: "ipvs_mwlc",
    authors: ["CSSNS"],
    description: "Virtual services in direct routing with MWLC scheduling",
    license: "GPL",
    alias: ["net-pf-16-proto-16-family-IPVS", "net-pf-16-proto-16-family-ipvs_mwlc"],
    params: {
        connections_max: u32 {
            default: 0,
            description: "Connections of each network namespace at most (0: an eighth of the RAM)",
        },
        conn_tab_bits: u32 {
            default: 0,
            description: "Buckets of the connection table, as a power of two, 8 to 24 (0: as many as connections)",
        },
        templates_max: u32 {
            default: 0,
            description: "Persistence templates of each network namespace at most (0: a sixty-fourth of the RAM)",
        },
    },
}

/// What the module has registered, dropped in this order, which is that of making it reversed.
struct Director {
    _mwlc: netlink::Registration<Mwlc>,
    _ipvs: netlink::Registration<Ipvs>,
    _files: pernet::Registration<Files>,
    _namespaces: pernet::Registration<Namespace>,
    _callbacks: PendingCallbacks,
    _entries: slab::Registration,
}

impl kernel::Module for Director {
    fn init(module: &'static ThisModule) -> Result<Self> {
        let entries = slab::Registration::new()?;
        let callbacks = PendingCallbacks;
        let namespaces = pernet::Registration::new()?;
        let files = pernet::Registration::new()?;
        let ipvs = netlink::Registration::new(module).inspect_err(|_| {
            pr_err!("cannot register the IPVS family: is ip_vs loaded? then rmmod it first\n");
        })?;
        let mwlc = netlink::Registration::new(module)?;
        Ok(Director {
            _mwlc: mwlc,
            _ipvs: ipvs,
            _files: files,
            _namespaces: namespaces,
            _callbacks: callbacks,
            _entries: entries,
        })
    }
}

/// Dropped before what RCU callbacks need: those that are still queued run code of this module.
struct PendingCallbacks;

impl Drop for PendingCallbacks {
    fn drop(&mut self) {
        rcu::barrier();
    }
}
