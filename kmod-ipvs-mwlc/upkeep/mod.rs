// SPDX-License-Identifier: GPL-2.0-only
//! What a namespace's balancer does by itself, several times a second: rates, drains and
//! the defence against a shortage of memory.

mod defence;
pub(crate) mod drains;
mod rates;
pub(crate) mod sweeper;
pub(crate) mod totals;

use kernel::prelude::*;
use kernel::sync::Arc;

use crate::kapi::atomic::{Atomic, Relaxed};
use crate::kapi::work::Periodic;
use crate::state::balancer::Balancer;

/// Memory is looked at every second.
const DEFENCE_RUNS: u32 = 4;

/// The upkeep of a balancer.
pub(crate) struct Upkeep {
    balancer: Arc<Balancer>,
    runs: Atomic<u32>,
}

impl Upkeep {
    /// The upkeep of this balancer.
    pub(crate) fn new(balancer: Arc<Balancer>) -> Result<Arc<Upkeep>> {
        let upkeep = Upkeep {
            balancer,
            runs: Atomic::new(0),
        };
        Ok(Arc::new(upkeep, GFP_KERNEL)?)
    }
}

impl Periodic for Upkeep {
    const PERIOD_MS: u64 = rates::SLICE_MS;

    fn run(&self) {
        let run = self.runs.fetch_add(1, Relaxed);
        if self.balancer.settings.runs_estimation() {
            rates::estimate(&self.balancer, run);
        }
        drains::look_after(&self.balancer);
        if run % DEFENCE_RUNS == 0 {
            defence::defend(&self.balancer);
        }
    }
}
