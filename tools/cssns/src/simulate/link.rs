// SPDX-License-Identifier: MIT
//! A node's link: all its transfers go on at the same rate (processor sharing).
//!
//! Because they do, a transfer's end is known in *virtual* bytes from its start: those that the link
//! has given to each of its transfers so far, plus its size. A start or an end of another transfer
//! only changes how fast the virtual bytes pass, so each costs one heap operation.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

/// A link with its transfers, each with what the caller knows it by.
#[derive(Debug, Clone)]
pub struct Link<T> {
    rate: f64,
    transfer_rate_max: f64,
    /// Bytes that a transfer which was here from the start would have had.
    passed: f64,
    /// When that was so.
    at: f64,
    transfers: BinaryHeap<Reverse<Transfer<T>>>,
}

#[derive(Debug, Clone, Copy)]
struct Transfer<T> {
    /// What `passed` will be at its end.
    end: f64,
    what: T,
}

impl<T> PartialEq for Transfer<T> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl<T> Eq for Transfer<T> {}

impl<T> PartialOrd for Transfer<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Transfer<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.end.total_cmp(&other.end)
    }
}

impl<T> Link<T> {
    /// An idle link of `rate` bytes per second, of which one transfer gets at most
    /// `transfer_rate_max`.
    #[must_use]
    pub fn new(rate: f64, transfer_rate_max: f64) -> Self {
        Link {
            rate,
            transfer_rate_max: transfer_rate_max.min(rate),
            passed: 0.0,
            at: 0.0,
            transfers: BinaryHeap::new(),
        }
    }

    /// Transfers under way.
    #[must_use]
    pub fn transfers(&self) -> usize {
        self.transfers.len()
    }

    /// Each transfer, and the bytes that are left of it at `now`, in no order.
    pub fn each(&self, now: f64) -> impl Iterator<Item = (&T, f64)> + '_ {
        let passed = self.passed_at(now);
        self.transfers
            .iter()
            .map(move |Reverse(transfer)| (&transfer.what, (transfer.end - passed).max(0.0)))
    }

    /// How long a transfer of `size` bytes takes on a link that is idle.
    #[must_use]
    pub fn alone_s(&self, size: f64) -> f64 {
        size / self.transfer_rate_max
    }

    /// Starts a transfer of `size` bytes.
    pub fn start(&mut self, now: f64, size: f64, what: T) {
        self.advance(now);
        let end = self.passed + size;
        self.transfers.push(Reverse(Transfer { end, what }));
    }

    /// When the next transfer ends if none starts before.
    #[must_use]
    pub fn next_end(&self) -> Option<f64> {
        let Reverse(first) = self.transfers.peek()?;
        Some(self.at + (first.end - self.passed).max(0.0) / self.transfer_rate())
    }

    /// Takes the transfer that ends at `now` off the link.
    pub fn end(&mut self, now: f64) -> Option<T> {
        let Reverse(transfer) = self.transfers.pop()?;
        // Its end exactly: `now` is that moment with a rounding error.
        self.passed = transfer.end;
        self.at = now;
        if self.transfers.is_empty() {
            // So that it stays small, and exact.
            self.passed = 0.0;
        }
        Some(transfer.what)
    }

    fn transfer_rate(&self) -> f64 {
        (self.rate / self.transfers.len().max(1) as f64).min(self.transfer_rate_max)
    }

    fn passed_at(&self, now: f64) -> f64 {
        if self.transfers.is_empty() {
            self.passed
        } else {
            self.passed + (now - self.at) * self.transfer_rate()
        }
    }

    fn advance(&mut self, now: f64) {
        self.passed = self.passed_at(now);
        self.at = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The ends of transfers given by their start and size, in their order of ending.
    fn ends(rate: f64, transfer_rate_max: f64, transfers: &[(f64, f64)]) -> Vec<(usize, f64)> {
        let mut link = Link::new(rate, transfer_rate_max);
        let mut ends = Vec::new();
        let mut starts = transfers.iter().enumerate().peekable();
        loop {
            let next_start = starts.peek().map_or(f64::INFINITY, |(_, (at, _))| *at);
            let next_end = link.next_end().unwrap_or(f64::INFINITY);
            if next_start <= next_end {
                let Some((index, (at, size))) = starts.next() else {
                    return ends;
                };
                link.start(*at, *size, index);
            } else {
                let index = link.end(next_end).unwrap();
                ends.push((index, next_end));
            }
        }
    }

    #[test]
    fn transfers_share_the_link_equally() {
        // Alone for 1 s (100 bytes), then at half the rate: the second (50 bytes) takes 1 s, the
        // first has 50 more and ends at 2.5 s.
        assert_eq!(
            ends(100.0, f64::INFINITY, &[(0.0, 200.0), (1.0, 50.0)]),
            [(1, 2.0), (0, 2.5)]
        );
        // A pause, in which nothing passes.
        assert_eq!(
            ends(100.0, f64::INFINITY, &[(0.0, 100.0), (5.0, 100.0)]),
            [(0, 1.0), (1, 6.0)]
        );
    }

    #[test]
    fn a_client_is_no_faster_than_its_own_link() {
        assert_eq!(ends(100.0, 40.0, &[(0.0, 80.0)]), [(0, 2.0)]);
        // Two of them do not fill the link, three do.
        assert_eq!(
            ends(100.0, 40.0, &[(0.0, 80.0), (0.0, 120.0)]),
            [(0, 2.0), (1, 3.0)]
        );
        let three = ends(120.0, 60.0, &[(0.0, 40.0), (0.0, 40.0), (0.0, 100.0)]);
        assert_eq!(three[2], (2, 2.0));
    }

    #[test]
    fn what_is_left_is_what_was_not_passed() {
        let mut link = Link::new(10.0, f64::INFINITY);
        link.start(0.0, 100.0, 'a');
        link.start(0.0, 10.0, 'b');
        let mut each: Vec<(&char, f64)> = link.each(1.0).collect();
        each.sort_by_key(|(what, _)| **what);
        assert_eq!(each, [(&'a', 95.0), (&'b', 5.0)]);
        assert_eq!(link.next_end(), Some(2.0));
        assert_eq!(link.end(2.0), Some('b'));
        assert_eq!(link.transfers(), 1);
        assert_eq!(link.each(2.0).next(), Some((&'a', 90.0)));
        assert_eq!(link.alone_s(90.0), 9.0);
    }
}
