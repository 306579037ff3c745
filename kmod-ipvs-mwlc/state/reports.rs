// SPDX-License-Identifier: GPL-2.0-only
//! What a namespace's nodes last reported.

use kernel::prelude::*;
use kernel::sync::{new_mutex, Mutex};

use crate::director::address::Address;
use crate::director::errno::{Errno, Reject};
use crate::director::report::{Report, NODES_MAX, REPORT_AGE_MS_MAX};
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
    /// No node has reported yet.
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
    pub(crate) fn keep(&self, new: Reported) -> core::result::Result<(), Reject> {
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
