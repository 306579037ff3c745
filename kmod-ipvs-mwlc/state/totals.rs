// SPDX-License-Identifier: GPL-2.0-only
//! What a namespace has counted since its start or the last `ipvsadm -Z`, whatever services and real
//! servers come and go: a counter that monitoring reads must not go back.

use kernel::prelude::*;

use crate::director::stats::Counters;
use crate::kapi::lock::BhLock;
use crate::state::destination::Destination;

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

    /// Everything since the last zeroing, if the present real servers have counted this.
    pub(crate) fn with(&self, present: &Counters) -> Counters {
        self.sums
            .with(|sums| present.plus(&sums.retired).since(&sums.baseline))
    }

    /// Starts counting anew, where the present real servers have counted this.
    pub(crate) fn zero(&self, present: &Counters) {
        self.sums
            .with(|sums| sums.baseline = present.plus(&sums.retired));
    }
}
