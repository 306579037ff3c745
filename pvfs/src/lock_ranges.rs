// SPDX-License-Identifier: MIT
//! The bytes that one owner has locked in one file: what fcntl(2) says of splitting, merging and
//! changing locks. Pure; mgr and clients keep the same books with it.
//!
//! # Invariants
//!
//! Segments do not overlap. Two that touch differ in their kind or process.

use std::collections::BTreeMap;

use crate::proto::lock::{LockKind, LockRange, ProcessNumber};

/// How a segment is locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hold {
    /// Shared or exclusive.
    pub kind: LockKind,
    /// The process that locked it.
    pub process: ProcessNumber,
}

/// Locks on ranges of one file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LockRanges {
    /// By first byte: last byte, and how.
    segments: BTreeMap<u64, (u64, Hold)>,
}

impl LockRanges {
    /// Locks the range, or unlocks it, whatever it was before.
    pub fn set(&mut self, range: LockRange, hold: Option<Hold>) {
        let LockRange { start, last } = range;
        for (old_start, (old_last, old)) in self.touching(range) {
            // A neighbour that only touches is of interest where it is of the same kind.
            let overlaps = old_start <= last && start <= old_last;
            if overlaps {
                self.segments.remove(&old_start);
                if old_start < start {
                    self.segments.insert(old_start, (start - 1, old));
                }
                if old_last > last {
                    self.segments.insert(last + 1, (old_last, old));
                }
            }
        }
        let Some(hold) = hold else { return };
        let (mut start, mut last) = (start, last);
        for (old_start, (old_last, old)) in self.touching(range) {
            if old == hold {
                self.segments.remove(&old_start);
                start = start.min(old_start);
                last = last.max(old_last);
            }
        }
        self.segments.insert(start, (last, hold));
    }

    /// The segments that overlap the range or lie right beside it, in order.
    fn touching(&self, range: LockRange) -> Vec<(u64, (u64, Hold))> {
        let from = range.start.saturating_sub(1);
        let to = range.last.saturating_add(1);
        let before = self.segments.range(..from).next_back();
        let before = before.filter(|(_, (last, _))| *last >= from);
        before
            .into_iter()
            .chain(self.segments.range(from..=to))
            .map(|(start, segment)| (*start, *segment))
            .collect()
    }

    /// The segments that overlap the range, in order.
    pub fn overlapping(&self, range: LockRange) -> impl Iterator<Item = (LockRange, Hold)> + '_ {
        let before = self.segments.range(..range.start).next_back();
        let before = before.filter(move |(_, (last, _))| *last >= range.start);
        before
            .into_iter()
            .chain(self.segments.range(range.start..=range.last))
            .map(|(start, (last, hold))| {
                let range = LockRange {
                    start: *start,
                    last: *last,
                };
                (range, *hold)
            })
    }

    /// All segments, in order.
    pub fn iter(&self) -> impl Iterator<Item = (LockRange, Hold)> + '_ {
        self.overlapping(LockRange::ALL)
    }

    /// What the range holds now, cut to it: setting this again undoes whatever is done to it.
    #[must_use]
    pub fn cut_to(&self, range: LockRange) -> Vec<(LockRange, Hold)> {
        self.overlapping(range)
            .map(|(found, hold)| {
                let cut = LockRange {
                    start: found.start.max(range.start),
                    last: found.last.min(range.last),
                };
                (cut, hold)
            })
            .collect()
    }

    /// Number of segments.
    #[must_use]
    pub fn len(&self) -> usize {
        self.segments.len()
    }

    /// Whether nothing is locked.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Bytes of the model: the last one stands for all that follow, too.
    const BYTES: u64 = 12;

    fn range(start: u64, last: u64) -> LockRange {
        LockRange { start, last }
    }

    fn process(pid: u32) -> ProcessNumber {
        ProcessNumber { namespace: 1, pid }
    }

    fn hold(kind: LockKind) -> Option<Hold> {
        Some(Hold {
            kind,
            process: process(1),
        })
    }

    const SHARED: LockKind = LockKind::Shared;
    const EXCLUSIVE: LockKind = LockKind::Exclusive;

    #[test]
    fn a_lock_in_the_middle_splits_and_neighbours_merge() {
        let mut ranges = LockRanges::default();
        ranges.set(range(0, 99), hold(SHARED));
        ranges.set(range(40, 59), hold(EXCLUSIVE));
        let kinds: Vec<_> = ranges
            .iter()
            .map(|(range, hold)| (range.start, range.last, hold.kind))
            .collect();
        assert_eq!(
            kinds,
            [(0, 39, SHARED), (40, 59, EXCLUSIVE), (60, 99, SHARED)]
        );
        ranges.set(range(40, 59), hold(SHARED));
        assert_eq!(ranges.len(), 1);
        ranges.set(range(100, u64::from(u32::MAX)), hold(SHARED));
        assert_eq!(ranges.len(), 1);
        ranges.set(range(10, 10), None);
        assert_eq!(ranges.len(), 2);
        ranges.set(LockRange::ALL, None);
        assert!(ranges.is_empty());
    }

    #[test]
    fn the_last_byte_of_all_can_be_locked() {
        let mut ranges = LockRanges::default();
        let end = range(LockRange::ALL.last, LockRange::ALL.last);
        ranges.set(end, hold(SHARED));
        ranges.set(LockRange::ALL, hold(EXCLUSIVE));
        assert_eq!(ranges.len(), 1);
        ranges.set(end, None);
        let left: Vec<_> = ranges.iter().map(|(range, _)| range.last).collect();
        assert_eq!(left, [LockRange::ALL.last - 1]);
    }

    proptest! {
        /// Against an array with a cell for each byte.
        #[test]
        fn ranges_are_what_bytes_would_be(
            steps in prop::collection::vec((0..BYTES, 0..BYTES, 0u8..4, 1u32..3), 1..60)
        ) {
            let mut ranges = LockRanges::default();
            let mut bytes = [None; BYTES as usize];
            for (a, b, how, pid) in steps {
                let (start, last) = (a.min(b), a.max(b));
                let new = match how {
                    0 | 1 => None,
                    2 => Some(Hold { kind: SHARED, process: process(pid) }),
                    _ => Some(Hold { kind: EXCLUSIVE, process: process(pid) }),
                };
                let asked = range(start, last);
                let before: Vec<Option<Hold>> = bytes[start as usize..=last as usize].to_vec();
                let mut cut = vec![None; before.len()];
                for (found, hold) in ranges.cut_to(asked) {
                    for byte in found.start..=found.last {
                        cut[(byte - start) as usize] = Some(hold);
                    }
                }
                prop_assert_eq!(cut, before);
                ranges.set(asked, new);
                bytes[start as usize..=last as usize].fill(new);
                let mut seen = [None; BYTES as usize];
                let mut previous: Option<(LockRange, Hold)> = None;
                for (found, hold) in ranges.iter() {
                    for byte in found.start..=found.last {
                        prop_assert!(seen[byte as usize].replace(hold).is_none());
                    }
                    if let Some((before, with)) = previous {
                        prop_assert!(before.last + 1 < found.start || with != hold);
                    }
                    previous = Some((found, hold));
                }
                prop_assert_eq!(seen, bytes);
            }
        }
    }
}
