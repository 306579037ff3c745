// SPDX-License-Identifier: GPL-2.0-only
//! The kernel's tick counter.

use super::bindings;

/// Ticks per second of this kernel.
pub(crate) const HZ: u64 = bindings::MWLC_HZ as u64;

/// What CPUs may differ by when they read the counter one after the other: far more than they do, far
/// less than a timeout that is as long as timeouts get, 2^31 ticks.
const AHEAD_TICKS_MAX: u32 = 1 << 20;

/// A moment, in ticks. It never wraps in practice: 64 bits at 1000 Hz last 500 million years.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ticks(pub(crate) u64);

impl Ticks {
    /// The present moment.
    #[inline]
    pub(crate) fn now() -> Ticks {
        // SAFETY: The kernel's counter is a word that every CPU may read at any time, as
        // READ_ONCE does.
        Ticks(unsafe { (&raw const bindings::jiffies).read_volatile() } as u64)
    }

    /// Its lower half, for who has many to keep and none that is old.
    #[inline]
    pub(crate) fn short(self) -> u32 {
        self.0 as u32
    }

    /// The moment with this lower half that is the last one before `now`, or a little later: another CPU
    /// may be ahead by some ticks. Up to 49 days ago, at 1000 Hz.
    #[inline]
    pub(crate) fn of_short(short: u32, now: Ticks) -> Ticks {
        let age = now.short().wrapping_sub(short);
        let age = if age > u32::MAX - AHEAD_TICKS_MAX {
            0
        } else {
            age
        };
        Ticks(now.0.saturating_sub(u64::from(age)))
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

    /// The moment this many milliseconds earlier.
    pub(crate) fn before_ms(self, milliseconds: u64) -> Ticks {
        Ticks(
            self.0
                .saturating_sub(milliseconds.saturating_mul(HZ) / 1000),
        )
    }

    /// The last whole second that has begun by then, in seconds of the counter.
    pub(crate) fn whole_s(self) -> u32 {
        (self.0 / HZ) as u32
    }

    /// The first whole second that is not before this moment.
    pub(crate) fn next_s(self) -> u32 {
        (self.0.saturating_add(HZ.wrapping_sub(1)) / HZ) as u32
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

/// Lets other threads have the CPU if it is their turn. In a context that may sleep.
pub(crate) fn let_others_run() {
    // SAFETY: No requirements but the context.
    unsafe { bindings::mwlc_cond_resched() };
}
