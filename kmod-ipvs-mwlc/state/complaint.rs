// SPDX-License-Identifier: GPL-2.0-only
//! How often the log hears of one trouble.

use crate::kapi::atomic::{Atomic, Relaxed};

use crate::kapi::clock::Ticks;

/// The log hears of the same trouble at most this often.
const PERIOD_S: u32 = 10;

/// When a trouble was last in the log.
pub(crate) struct Complaint {
    /// In ticks; 0: never.
    last: Atomic<u64>,
}

impl Complaint {
    /// One that was never in the log.
    pub(crate) const fn new() -> Complaint {
        Complaint {
            last: Atomic::new(0),
        }
    }

    /// Whether to write it into the log now. Of several CPUs that ask at once, one is told to.
    pub(crate) fn is_due(&self) -> bool {
        let now = Ticks::now();
        let last = self.last.load(Relaxed);
        let due = last == 0 || now >= Ticks(last).after_s(PERIOD_S);
        due && self.last.cmpxchg(last, now.0, Relaxed).is_ok()
    }
}
