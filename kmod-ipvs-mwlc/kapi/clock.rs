// SPDX-License-Identifier: GPL-2.0-only
//! The kernel's tick counter.

use super::bindings;

/// Ticks per second of this kernel.
pub(crate) const HZ: u64 = bindings::MWLC_HZ as u64;

/// A moment, in ticks. It never wraps in practice: 64 bits at 1000 Hz last 500 million years.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ticks(pub(crate) u64);

impl Ticks {
    /// The present moment.
    pub(crate) fn now() -> Ticks {
        // SAFETY: No requirements; it reads a counter.
        Ticks(unsafe { bindings::mwlc_jiffies() } as u64)
    }

    /// The moment's low half, for where room is scarce.
    pub(crate) fn short(self) -> ShortTicks {
        ShortTicks(self.0 as u32)
    }

    /// The moment this many seconds later.
    pub(crate) fn after_s(self, seconds: u32) -> Ticks {
        Ticks(self.0.saturating_add(u64::from(seconds).saturating_mul(HZ)))
    }

    /// The moment this many milliseconds later, rounded up.
    pub(crate) fn after_ms(self, milliseconds: u64) -> Ticks {
        let ticks = milliseconds.saturating_mul(HZ).saturating_add(999) / 1000;
        Ticks(self.0.saturating_add(ticks))
    }

    /// Ticks since `earlier`; 0 if that is later.
    pub(crate) fn since(self, earlier: Ticks) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// Milliseconds since `earlier`; 0 if that is later.
    pub(crate) fn ms_since(self, earlier: Ticks) -> u64 {
        self.since(earlier).saturating_mul(1000) / HZ
    }
}

/// A moment's low 32 bits: enough to tell it from any other within 49 days at 1000 Hz.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ShortTicks(pub(crate) u32);

impl ShortTicks {
    /// The latest moment with these bits that is not after `now`.
    pub(crate) fn before(self, now: Ticks) -> Ticks {
        let ago = now.short().0.wrapping_sub(self.0);
        Ticks(now.0.saturating_sub(u64::from(ago)))
    }
}
