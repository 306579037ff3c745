// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! A load for a weight, compared without a division, and the destination that has the least.
//!
//! Every new connection measures every destination, so each is measured once, and what fits 64 bits is
//! multiplied as 64 bits are.

use core::cmp::Ordering;

use super::DestLoad;

/// A load for a weight.
#[derive(Clone, Copy)]
pub(super) struct Ratio {
    load: u128,
    milliweight: u64,
}

impl Ratio {
    /// This load for the destination's weight.
    #[inline(always)]
    pub(super) const fn new(load: u128, destination: &DestLoad) -> Ratio {
        Ratio {
            load,
            milliweight: destination.milliweight(),
        }
    }

    /// Compares La/Wa with Lb/Wb as La*Wb with Lb*Wa.
    #[inline(always)]
    pub(super) fn compare(&self, other: &Ratio) -> Ordering {
        match (u64::try_from(self.load), u64::try_from(other.load)) {
            (Ok(ours), Ok(theirs)) => {
                wide(ours, other.milliweight).cmp(&wide(theirs, self.milliweight))
            }
            _ => self.compare_large(other),
        }
    }

    /// As [`Ratio::compare`], of other loads for the same weights.
    #[inline(always)]
    pub(super) fn compare_others(&self, ours: u64, other: &Ratio, theirs: u64) -> Ordering {
        wide(ours, other.milliweight).cmp(&wide(theirs, self.milliweight))
    }

    #[inline(always)]
    pub(super) fn is_less(&self, other: &Ratio) -> bool {
        self.compare(other) == Ordering::Less
    }

    /// A load that is out of all proportion; beyond 128 bits the products saturate.
    #[cold]
    #[inline(never)]
    fn compare_large(&self, other: &Ratio) -> Ordering {
        let scaled = |load: u128, weight: u64| load.saturating_mul(u128::from(weight));
        scaled(self.load, other.milliweight).cmp(&scaled(other.load, self.milliweight))
    }
}

/// One multiplication: 64 bits times 64 always fit.
#[inline(always)]
fn wide(a: u64, b: u64) -> u128 {
    u128::from(a).wrapping_mul(u128::from(b))
}

/// The index of the eligible destination whose measure is best: `is_better` asks whether a later one
/// (first) beats the best so far. The first of equals.
#[inline(always)]
pub(super) fn best<M>(
    destinations: impl Iterator<Item = DestLoad>,
    measure: impl Fn(&DestLoad) -> M,
    is_better: impl Fn(&(u32, M), &(u32, M)) -> bool,
) -> Option<u32> {
    let mut best: Option<(u32, M)> = None;
    let mut index = 0u32;
    for destination in destinations {
        if destination.is_eligible() {
            let candidate = (index, measure(&destination));
            if best.as_ref().is_none_or(|best| is_better(&candidate, best)) {
                best = Some(candidate);
            }
        }
        index = index.wrapping_add(1);
    }
    best.map(|(index, _)| index)
}

/// The index of the first eligible destination with the least ratio.
#[inline(always)]
pub(super) fn least(
    destinations: impl Iterator<Item = DestLoad>,
    ratio: impl Fn(&DestLoad) -> Ratio,
) -> Option<u32> {
    best(destinations, ratio, |other, best| other.1.is_less(&best.1))
}
