// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Slow start: a destination that was just added, or came back from weight 0, counts with a part of
//! its weight that grows to the whole.
//!
//! Without it, a scheduler that looks for the least load gives a new destination, which has none,
//! every new connection until it has caught up: a cold cache is hit hardest.

/// The part of its weight that a destination starts with, in thousandths. Not 0: it must get some
/// connections to warm up with, and the ratio of load to weight must exist.
pub const RAMP_FLOOR_PERMILLE: u32 = 50;

/// The whole weight, in thousandths.
pub const RAMP_FULL_PERMILLE: u32 = 1000;

/// The part of its weight that a destination counts with, in thousandths.
///
/// # Invariants
///
/// Between [`RAMP_FLOOR_PERMILLE`] and [`RAMP_FULL_PERMILLE`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ramp(u32);

impl Ramp {
    /// The whole weight.
    pub const FULL: Ramp = Ramp(RAMP_FULL_PERMILLE);

    /// The part `since_ms` after the destination was added or came back, when the service's slow
    /// start takes `slow_start_ms` (0: there is none): `since / slow_start`, not below the floor.
    pub const fn at(since_ms: u64, slow_start_ms: u32) -> Ramp {
        let whole = slow_start_ms as u64;
        if since_ms >= whole {
            return Ramp::FULL;
        }
        // `since_ms` is below 2^32 here, so the product fits; `whole` is above it and so not 0.
        let Some(permille) = since_ms
            .saturating_mul(RAMP_FULL_PERMILLE as u64)
            .checked_div(whole)
        else {
            return Ramp::FULL;
        };
        if permille < RAMP_FLOOR_PERMILLE as u64 {
            Ramp(RAMP_FLOOR_PERMILLE)
        } else {
            Ramp(permille as u32)
        }
    }

    /// In thousandths.
    pub const fn permille(self) -> u32 {
        self.0
    }
}

impl Default for Ramp {
    fn default() -> Ramp {
        Ramp::FULL
    }
}
