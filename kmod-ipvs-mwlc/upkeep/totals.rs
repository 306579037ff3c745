// SPDX-License-Identifier: GPL-2.0-only
//! Sums over all real servers of a namespace, and over those that are gone.

use crate::director::stats::{Counters, Stats};
use crate::state::balancer::Balancer;

/// The namespace's counters since the last zeroing, and its rates.
pub(crate) fn totals(balancer: &Balancer) -> Stats {
    let mut counters = Counters::default();
    let mut rates = Stats::default();
    balancer.for_each_destination(|destination| {
        counters = counters.plus(&destination.traffic.total());
        rates = rates.plus(&destination.stats());
    });
    Stats {
        counters: balancer.totals.with(&counters),
        ..rates
    }
}

/// What one CPU has counted for the present real servers.
pub(crate) fn totals_of_cpu(balancer: &Balancer, cpu: usize) -> Counters {
    let mut counters = Counters::default();
    balancer.for_each_destination(|destination| {
        counters = counters.plus(&destination.traffic.of_cpu(cpu));
    });
    counters
}

/// Starts counting anew. Under the namespace's mutex.
pub(crate) fn zero(balancer: &Balancer) {
    let mut counters = Counters::default();
    balancer.for_each_destination(|destination| {
        counters = counters.plus(&destination.traffic.total());
    });
    balancer.totals.zero(&counters);
}
