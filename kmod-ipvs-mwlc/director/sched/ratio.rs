// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The destination that has the least load for its weight, compared without a division.
//!
//! Every new connection measures every destination, so each is measured once, in 64 bits unless a load
//! is out of all proportion, and equal weights are not multiplied at all.

use core::cmp::Ordering;

use super::Server;

/// A destination that can be chosen.
#[derive(Clone, Copy)]
pub(super) struct Measured<S> {
    pub(super) index: u32,
    pub(super) server: S,
    /// Its weight in thousandths.
    pub(super) milliweight: u64,
}

/// Compares a/wa with b/wb as a*wb with b*wa.
#[inline(always)]
pub(super) fn compare(a: u64, wa: u64, b: u64, wb: u64) -> Ordering {
    if wa == wb {
        return a.cmp(&b);
    }
    wide(a, wb).cmp(&wide(b, wa))
}

/// One multiplication: 64 bits times 64 always fit.
#[inline(always)]
fn wide(a: u64, b: u64) -> u128 {
    u128::from(a).wrapping_mul(u128::from(b))
}

/// The same of loads that may have more bits; beyond 128 the products saturate.
fn compare_large(a: u128, wa: u64, b: u128, wb: u64) -> Ordering {
    let scaled = |load: u128, weight: u64| load.saturating_mul(u128::from(weight));
    scaled(a, wb).cmp(&scaled(b, wa))
}

/// The index of the eligible destination with the least load for its weight; `load` is asked with the
/// weight in thousandths. Of equals `wins` decides whether the later one (first) beats the best so far.
#[inline(always)]
pub(super) fn least_by<S: Server + Copy>(
    servers: impl Iterator<Item = S> + Clone,
    load: impl Fn(S, u64) -> u128,
    mut wins: impl FnMut(&Measured<S>, &Measured<S>) -> bool,
) -> Option<u32> {
    let mut best: Option<(Measured<S>, u64)> = None;
    let mut index = 0u32;
    for server in servers.clone() {
        let milliweight = server.milliweight();
        let other = Measured {
            index,
            server,
            milliweight,
        };
        index = index.wrapping_add(1);
        if milliweight == 0 {
            continue;
        }
        let Ok(ours) = u64::try_from(load(server, milliweight)) else {
            return least_large(servers, load, wins);
        };
        let Some((first, least)) = &best else {
            best = Some((other, ours));
            continue;
        };
        let is_better = match compare(ours, milliweight, *least, first.milliweight) {
            Ordering::Less => true,
            Ordering::Greater => false,
            Ordering::Equal => wins(&other, first),
        };
        if is_better {
            best = Some((other, ours));
        }
    }
    best.map(|(best, _)| best.index)
}

/// The same where a load has more than 64 bits.
#[cold]
#[inline(never)]
fn least_large<S: Server + Copy>(
    servers: impl Iterator<Item = S>,
    load: impl Fn(S, u64) -> u128,
    mut wins: impl FnMut(&Measured<S>, &Measured<S>) -> bool,
) -> Option<u32> {
    let mut best: Option<(Measured<S>, u128)> = None;
    let mut index = 0u32;
    for server in servers {
        let milliweight = server.milliweight();
        let other = Measured {
            index,
            server,
            milliweight,
        };
        index = index.wrapping_add(1);
        if milliweight == 0 {
            continue;
        }
        let ours = load(server, milliweight);
        let is_better = best.as_ref().is_none_or(|(best, least)| {
            match compare_large(ours, milliweight, *least, best.milliweight) {
                Ordering::Less => true,
                Ordering::Greater => false,
                Ordering::Equal => wins(&other, best),
            }
        });
        if is_better {
            best = Some((other, ours));
        }
    }
    best.map(|(best, _)| best.index)
}

/// The index of the first eligible destination with the least load for its weight in thousandths.
#[inline(always)]
pub(super) fn least<S: Server + Copy>(
    servers: impl Iterator<Item = S> + Clone,
    load: impl Fn(S, u64) -> u128,
) -> Option<u32> {
    least_by(servers, load, |_, _| false)
}

/// Whether `other`, which is as good as `best` and comes later, wins because the turn has passed the
/// one but not the other.
#[inline(always)]
pub(super) const fn has_the_turn<S>(other: &Measured<S>, best: &Measured<S>, next: u32) -> bool {
    best.index < next && other.index >= next
}
