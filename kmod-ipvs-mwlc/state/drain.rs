// SPDX-License-Identifier: GPL-2.0-only
//! A real server's drain: whether it is under way, until when, and what becomes of the connections that are
//! left then.

use crate::director::drain::{DrainPolicy, DrainRequest, DrainView};
use crate::kapi::atomic::{Atomic, Relaxed};
use crate::kapi::clock::Ticks;

/// No deadline, or the deadline has been met.
const NEVER: u64 = u64::MAX;

/// A real server's drain. Changed under the namespace's mutex, or when its time is over.
pub(crate) struct Drain {
    draining: Atomic<bool>,
    /// In ticks.
    deadline: Atomic<u64>,
    /// The deadline has passed, and what was left is dealt with.
    overdue: Atomic<bool>,
    redispatches: Atomic<bool>,
    /// The listeners know that nothing is left.
    told: Atomic<bool>,
}

impl Drain {
    /// It does not drain.
    pub(crate) const fn new() -> Drain {
        Drain {
            draining: Atomic::new(false),
            deadline: Atomic::new(NEVER),
            overdue: Atomic::new(false),
            redispatches: Atomic::new(false),
            told: Atomic::new(false),
        }
    }

    /// Begins, or begins anew.
    pub(crate) fn begin(&self, request: DrainRequest) {
        let deadline = request
            .deadline_ms
            .map_or(NEVER, |left_ms| Ticks::now().after_ms(left_ms).0);
        self.redispatches
            .store(request.policy == DrainPolicy::Redispatch, Relaxed);
        self.deadline.store(deadline, Relaxed);
        self.overdue.store(false, Relaxed);
        self.told.store(false, Relaxed);
        self.draining.store(true, Relaxed);
    }

    /// The real server takes connections again.
    pub(crate) fn cancel(&self) {
        self.draining.store(false, Relaxed);
        self.redispatches.store(false, Relaxed);
    }

    /// Whether it drains.
    pub(crate) fn is_under_way(&self) -> bool {
        self.draining.load(Relaxed)
    }

    /// What becomes of its connections when its time is over, or when it is removed.
    pub(crate) fn policy(&self) -> DrainPolicy {
        if self.redispatches.load(Relaxed) {
            DrainPolicy::Redispatch
        } else {
            DrainPolicy::Reset
        }
    }

    /// How far it is.
    pub(crate) fn view(&self) -> Option<DrainView> {
        let left_ms = match self.deadline.load(Relaxed) {
            NEVER => None,
            deadline => Some(Ticks(deadline).ms_since(Ticks::now())),
        };
        self.is_under_way().then_some(DrainView {
            left_ms,
            policy: self.policy(),
        })
    }

    /// Whether the deadline has come; says so once.
    pub(crate) fn comes_due(&self) -> bool {
        self.is_under_way()
            && Ticks(self.deadline.load(Relaxed)) <= Ticks::now()
            && !self.overdue.xchg(true, Relaxed)
    }

    /// Whether nothing is left to drain; says so once.
    pub(crate) fn comes_empty(&self, connections: u32) -> bool {
        self.is_under_way() && connections == 0 && !self.told.xchg(true, Relaxed)
    }
}
