// SPDX-License-Identifier: MIT
//! Pages that the kernel has asked for and not got yet: pure bookkeeping of one file's.
//!
//! The kernel holds the locks of such pages and shows them to nobody. Dropping pages waits for those
//! locks, and the answer may have to wait for an iod that is away: so a pass goes around them, and
//! what it would have dropped is fetched anew before it is answered.
//!
//! An answer that is shorter than its request tells the kernel where the file ends, unless pages of the
//! file were dropped since it asked: it goes on with the end that it knew then, and shows zeros up to
//! there.

use std::collections::BTreeMap;

/// One request that fills pages.
#[derive(Clone, Copy, Debug)]
struct Fill {
    start: u64,
    end: u64,
    /// A pass has gone around it since its bytes began to be fetched.
    passed: bool,
    /// A pass has begun since the kernel asked, wherever it goes.
    overtaken: bool,
    /// The kernel asks for the second time, and not for a third.
    retry: bool,
}

/// The pages that the kernel waits for. Bounded by the requests that the kernel has under way.
#[derive(Debug, Default)]
pub(super) struct Fills {
    last: u64,
    under_way: BTreeMap<u64, Fill>,
    /// Pages that the kernel has asked for and did not get, and may ask for once more.
    refused: Vec<(u64, u64)>,
}

impl Fills {
    /// A request for the pages from `start` to `end`; gives its number.
    pub(super) fn begin(&mut self, (start, end): (u64, u64)) -> u64 {
        self.last += 1;
        let before = self.refused.len();
        self.refused
            .retain(|(other, other_end)| *other_end <= start || end <= *other);
        let fill = Fill {
            start,
            end,
            passed: false,
            overtaken: false,
            retry: self.refused.len() < before,
        };
        self.under_way.insert(self.last, fill);
        self.last
    }

    /// It is answered now, without further waiting; or it has been.
    pub(super) fn end(&mut self, number: u64) {
        self.under_way.remove(&number);
    }

    /// The kernel does not get its pages, and is to ask once more.
    pub(super) fn refuse(&mut self, number: u64) {
        let refused = self.under_way.remove(&number);
        self.refused
            .extend(refused.map(|fill| (fill.start, fill.end)));
    }

    /// Whether the kernel asks for the second time.
    pub(super) fn is_retry(&self, number: u64) -> bool {
        self.under_way.get(&number).is_some_and(|fill| fill.retry)
    }

    /// Whether the kernel is about to ask for pages for the second time, or has, and has no answer.
    pub(super) fn is_retry_due(&self) -> bool {
        !self.refused.is_empty() || self.under_way.values().any(|fill| fill.retry)
    }

    /// Nobody waits any longer for what the kernel did not ask for again.
    pub(super) fn forget_retries(&mut self) {
        self.refused.clear();
        for fill in self.under_way.values_mut() {
            fill.retry = false;
        }
    }

    /// Its bytes are fetched from now on.
    pub(super) fn fetch(&mut self, number: u64) {
        if let Some(fill) = self.under_way.get_mut(&number) {
            fill.passed = false;
        }
    }

    /// Whether its bytes may be older than a pass that has gone around it.
    pub(super) fn is_passed(&self, number: u64) -> bool {
        self.under_way.get(&number).is_some_and(|fill| fill.passed)
    }

    /// Whether the kernel would not take from its answer where the file ends.
    pub(super) fn is_overtaken(&self, number: u64) -> bool {
        self.under_way
            .get(&number)
            .is_some_and(|fill| fill.overtaken)
    }

    /// Begins a pass from `start` to `end`: gives the ranges in which nothing is being filled, and the
    /// number of the last request that it knows of.
    pub(super) fn pass(&mut self, start: u64, end: u64) -> (Vec<(u64, u64)>, u64) {
        let mut filled = Vec::new();
        for fill in self.under_way.values_mut() {
            fill.overtaken = true;
            if fill.start < end && start < fill.end {
                fill.passed = true;
                filled.push((fill.start, fill.end));
            }
        }
        filled.sort_unstable();
        let mut gaps = Vec::new();
        let mut from = start;
        for (fill_start, fill_end) in filled {
            if from < fill_start {
                gaps.push((from, fill_start));
            }
            from = from.max(fill_end);
        }
        if from < end {
            gaps.push((from, end));
        }
        (gaps, self.last)
    }

    /// Whether a request that came after that of this number is under way: a pass may wait for it.
    pub(super) fn began_after(&self, number: u64) -> bool {
        self.under_way.range(number + 1..).next().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pass_goes_around_what_is_being_filled() {
        let mut fills = Fills::default();
        assert_eq!(fills.pass(0, u64::MAX), (vec![(0, u64::MAX)], 0));
        let first = fills.begin((4096, 8192));
        let second = fills.begin((16384, 20480));
        let third = fills.begin((4096, 12288));
        let (gaps, last) = fills.pass(0, u64::MAX);
        assert_eq!(gaps, [(0, 4096), (12288, 16384), (20480, u64::MAX)]);
        assert_eq!(last, third);
        assert!([first, second, third].iter().all(|n| fills.is_passed(*n)));
        assert_eq!(fills.pass(4096, 8192).0, []);
        assert_eq!(fills.pass(6000, 16384).0, [(12288, 16384)]);
        fills.end(second);
        assert_eq!(fills.pass(12288, 20480).0, [(12288, 20480)]);
    }

    /// And those that come meanwhile do not wait for it for ever.
    #[test]
    fn what_the_kernel_did_not_get_is_waited_for_once() {
        let mut fills = Fills::default();
        let number = fills.begin((4096, 8192));
        assert!(!fills.is_retry(number) && !fills.is_retry_due());
        fills.refuse(number);
        assert!(fills.is_retry_due());
        let other = fills.begin((0, 4096));
        assert!(!fills.is_retry(other) && fills.is_retry_due());
        let again = fills.begin((4096, 8192));
        assert!(fills.is_retry(again) && fills.is_retry_due());
        fills.end(again);
        assert!(!fills.is_retry_due());
        let number = fills.begin((4096, 8192));
        fills.refuse(number);
        fills.forget_retries();
        assert!(!fills.is_retry_due());
    }

    #[test]
    fn what_a_pass_went_around_is_fetched_anew() {
        let mut fills = Fills::default();
        let number = fills.begin((0, 4096));
        fills.fetch(number);
        assert!(!fills.is_overtaken(number));
        fills.pass(4096, 8192);
        assert!(!fills.is_passed(number), "it was elsewhere");
        fills.pass(0, 4096);
        assert!(fills.is_passed(number));
        fills.fetch(number);
        assert!(!fills.is_passed(number));
        assert!(fills.is_overtaken(number), "the kernel asked before");
        let (_, last) = fills.pass(0, 4096);
        assert!(!fills.began_after(last));
        let later = fills.begin((0, 4096));
        assert!(fills.began_after(last));
        fills.end(later);
        assert!(!fills.began_after(last));
    }
}
