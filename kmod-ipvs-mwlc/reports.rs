// SPDX-License-Identifier: GPL-2.0-only
//! What a namespace's nodes last reported.

use kernel::prelude::*;
use kernel::sync::rcu::read_lock;
use kernel::sync::{new_mutex, Mutex};

use crate::balancer::Balancer;
use crate::director::config::Address;
use crate::director::errno::{Errno, Reject};
use crate::director::report::{share, Report, NODES_MAX, REPORT_AGE_MS_MAX};
use crate::kapi::clock::Ticks;

/// One node's last report.
#[derive(Clone, Copy)]
pub(crate) struct Reported {
    /// Which node.
    pub(crate) address: Address,
    /// What it said.
    pub(crate) report: Report,
    /// When.
    pub(crate) at: Ticks,
}

/// The nodes' last reports, in the order in which they first came.
#[pin_data]
pub(crate) struct Reports {
    #[pin]
    nodes: Mutex<KVVec<Reported>>,
}

impl Reports {
    /// None.
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Reports {
            nodes <- new_mutex!(KVVec::new(), "ipvs_mwlc_reports"),
        })
    }

    /// The node with this index. Sleeps.
    pub(crate) fn get(&self, index: usize) -> Option<Reported> {
        self.nodes.lock().get(index).copied()
    }

    /// Keeps a report; one that is too old makes room.
    fn keep(&self, new: Reported) -> core::result::Result<(), Reject> {
        const NO_MEMORY: Reject = Reject::new(Errno::NoMemory, c"no memory for another node");
        const TOO_MANY: Reject =
            Reject::new(Errno::NoSpace, c"a namespace hears of at most 1024 nodes");
        let mut nodes = self.nodes.lock();
        if let Some(node) = nodes.iter_mut().find(|node| node.address == new.address) {
            *node = new;
            return Ok(());
        }
        if nodes.capacity() == 0 {
            // All at once: growing has arithmetic that could panic.
            *nodes = KVVec::with_capacity(NODES_MAX, GFP_KERNEL).map_err(|_| NO_MEMORY)?;
        }
        if nodes.push_within_capacity(new).is_ok() {
            return Ok(());
        }
        let is_old = |node: &&mut Reported| new.at.ms_since(node.at) > REPORT_AGE_MS_MAX;
        match nodes.iter_mut().find(is_old) {
            Some(node) => {
                *node = new;
                Ok(())
            }
            None => Err(TOO_MANY),
        }
    }
}

/// Takes in a node's report: its real servers of every service hear of it.
pub(crate) fn take(
    balancer: &Balancer,
    address: Address,
    report: Report,
) -> core::result::Result<(), Reject> {
    let at = Ticks::now();
    let (mut node_bytes, mut is_known) = (0u64, false);
    {
        let guard = read_lock();
        let destinations = || {
            let services = balancer.services.load(&guard).all();
            services
                .iter()
                .flat_map(|service| service.destinations(&guard))
                .filter(|destination| destination.key().address == address)
        };
        for destination in destinations() {
            node_bytes = node_bytes.saturating_add(destination.load().bytes);
            is_known = true;
        }
        for destination in destinations() {
            let own_bytes = destination.load().bytes;
            destination.report(share(report.open_bytes, node_bytes, own_bytes), at);
        }
    }
    if !is_known {
        return Err(Reject::new(
            Errno::NoEntry,
            c"no service has a real server with this node's address",
        ));
    }
    balancer.reports.keep(Reported {
        address,
        report,
        at,
    })
}
