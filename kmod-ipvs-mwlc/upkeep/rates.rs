// SPDX-License-Identifier: GPL-2.0-only
//! Estimates the real servers' rates in turn, some at each run, so that no run is long and no CPU stalls,
//! however many there are; each rate is over the true time since its last estimate.

use crate::director::stats::ESTIMATE_PERIOD_MS;
use crate::state::balancer::Balancer;

/// Runs in one period of estimates.
const SLICES: u32 = 8;
/// The time between two runs.
pub(super) const SLICE_MS: u64 = ESTIMATE_PERIOD_MS / SLICES as u64;

/// Estimates the rates of the real servers whose turn it is in this run.
pub(super) fn estimate(balancer: &Balancer, run: u32) {
    let slice = run % SLICES;
    let mut index = 0u32;
    balancer.for_each_destination(|destination| {
        if index % SLICES == slice {
            destination.estimate();
        }
        index = index.wrapping_add(1);
    });
}
