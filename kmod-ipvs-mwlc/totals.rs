// SPDX-License-Identifier: GPL-2.0-only
//! What a namespace has counted since its start or the last `ipvsadm -Z`, whatever services and real
//! servers come and go: a counter that monitoring reads must not go back.

use kernel::prelude::*;
use kernel::sync::Arc;

use crate::balancer::Balancer;
use crate::destination::Destination;
use crate::director::stats::{Counters, Stats};
use crate::kapi::lock::BhLock;

/// The part that is not in the present real servers.
#[pin_data]
pub(crate) struct Totals {
    #[pin]
    sums: BhLock<Sums>,
}

#[derive(Default)]
struct Sums {
    /// Of real servers that are gone.
    retired: Counters,
    /// What there was at the last zeroing.
    baseline: Counters,
}

impl Totals {
    /// Nothing counted yet.
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Totals {
            sums <- BhLock::new(Sums::default()),
        })
    }

    /// A real server goes; what it has counted stays.
    pub(crate) fn retire(&self, gone: &Destination) {
        let counted = gone.traffic.total();
        self.sums
            .with(|sums| sums.retired = sums.retired.plus(&counted));
    }
}

impl Balancer {
    /// The namespace's counters and rates.
    pub(crate) fn totals(&self) -> Stats {
        let mut counters = Counters::default();
        let mut rates = Stats::default();
        self.for_each_destination(|destination| {
            counters = counters.plus(&destination.traffic.total());
            rates = rates.plus(&destination.stats());
        });
        let counters = self.totals.sums.with(|sums| {
            let all = counters.plus(&sums.retired);
            all.since(&sums.baseline)
        });
        Stats { counters, ..rates }
    }

    /// What one CPU has counted for the present real servers.
    pub(crate) fn totals_of_cpu(&self, cpu: usize) -> Counters {
        let mut counters = Counters::default();
        self.for_each_destination(|destination| {
            counters = counters.plus(&destination.traffic.of_cpu(cpu));
        });
        counters
    }

    /// Starts counting anew. Under the namespace's mutex.
    pub(crate) fn zero_totals(&self) {
        let mut counters = Counters::default();
        self.for_each_destination(|destination| {
            counters = counters.plus(&destination.traffic.total());
        });
        self.totals
            .sums
            .with(|sums| sums.baseline = counters.plus(&sums.retired));
    }

    fn for_each_destination(&self, mut each: impl FnMut(&Arc<Destination>)) {
        let mut at = (0, 0);
        while let Some(destination) = self.next_destination(&mut at) {
            each(&destination);
        }
    }
}
