// SPDX-License-Identifier: GPL-2.0-only
//! What a namespace's balancer does by itself, several times a second: rates, drains and
//! the defence against a shortage of memory.
//!
//! The real servers' rates are estimated in turn, some at each run, so that no run is long and no
//! CPU stalls, however many there are; each rate is over the true time since its last estimate.

use kernel::prelude::*;
use kernel::sync::rcu::read_lock;
use kernel::sync::Arc;

use crate::balancer::Balancer;
use crate::destination::Destination;
use crate::director::stats::ESTIMATE_PERIOD_MS;
use crate::kapi::atomic::{Atomic, Relaxed};
use crate::kapi::work::Periodic;

/// Runs in one period of estimates.
const SLICES: u32 = 8;

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
    const PERIOD_MS: u64 = ESTIMATE_PERIOD_MS / SLICES as u64;

    fn run(&self) {
        let run = self.runs.fetch_add(1, Relaxed);
        if self.balancer.settings.runs_estimation() {
            self.balancer.estimate(run % SLICES);
        }
        self.balancer.watch_drains();
        if run % DEFENCE_RUNS == 0 {
            self.balancer.defend();
        }
    }
}

impl Balancer {
    /// Estimates the rates of the real servers whose turn it is.
    fn estimate(&self, slice: u32) {
        let mut index = 0u32;
        let mut at = (0usize, 0usize);
        while let Some(destination) = self.next_destination(&mut at) {
            if index % SLICES == slice {
                destination.estimate();
            }
            index = index.wrapping_add(1);
        }
    }

    /// The real server at these indices, of services and of its service, or the next that there is;
    /// the indices go on behind it. Each call is a read section of its own, so a walk holds up no
    /// grace period; a change of configuration meanwhile may make it miss some.
    pub(crate) fn next_destination(&self, at: &mut (usize, usize)) -> Option<Arc<Destination>> {
        let guard = read_lock();
        let services = self.services.load(&guard).all();
        loop {
            let destinations = services.get(at.0)?.destinations(&guard);
            if let Some(destination) = destinations.get(at.1) {
                at.1 = at.1.wrapping_add(1);
                return Some(destination.clone());
            }
            *at = (at.0.wrapping_add(1), 0);
        }
    }
}
