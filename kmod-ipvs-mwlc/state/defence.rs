// SPDX-License-Identifier: GPL-2.0-only
//! The defences of IPVS against a shortage of memory: `drop_entry` ends half-open connections at
//! random, `drop_packet` drops some of the packets that would make a new connection.

use crate::kapi::atomic::{Atomic, Relaxed};

/// What the defences are at.
pub(crate) struct Defence {
    /// Of how many new flows one is dropped; 0: of none.
    drop_rate: Atomic<u32>,
    /// New flows since the last that was dropped.
    passed: Atomic<u32>,
    /// Half-open connections are being dropped.
    drops_entries: Atomic<bool>,
}

impl Defence {
    /// None is up.
    pub(crate) const fn new() -> Defence {
        Defence {
            drop_rate: Atomic::new(0),
            passed: Atomic::new(0),
            drops_entries: Atomic::new(false),
        }
    }

    /// Whether the packet of a new flow is to be dropped.
    #[inline]
    pub(crate) fn drops_packet(&self) -> bool {
        let rate = self.drop_rate.load(Relaxed);
        if rate == 0 {
            return false;
        }
        let passed = self.passed.fetch_add(1, Relaxed).wrapping_add(1);
        passed.checked_rem(rate) == Some(0)
    }

    /// Drops one of so many new flows from now on; 0: none.
    pub(crate) fn set_drop_rate(&self, rate: u32) {
        self.drop_rate.store(rate, Relaxed);
    }

    /// Half-open connections are dropped from now on, or no more; whether that is a change.
    pub(crate) fn drop_entries(&self, drops: bool) -> bool {
        self.drops_entries.xchg(drops, Relaxed) != drops
    }
}
