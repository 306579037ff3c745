// SPDX-License-Identifier: MIT
//! Inodes that lost their last name a moment ago: whoever has just looked the name up may still come
//! for them by their number.

use std::collections::{HashSet, VecDeque};

use pvfs::ids::InodeNumber;

/// An inode lives for at least so long after it has lost its last name. open(2) through FUSE is two
/// requests, one for the name and one for the inode, far less than this apart on a node that is not
/// overloaded; and the space of what is removed comes back so much later.
pub const LINGER_MS_DEFAULT: u32 = 1000;

/// Inodes that linger at a time, 50 bytes each here: more than mgr removes within
/// [`LINGER_MS_DEFAULT`]. Beyond it, what is removed goes at once.
pub const LINGERING_MAX: usize = 1 << 16;

/// How long what loses its last name now lingers, and what does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Linger {
    /// Until then, milliseconds since mgr started.
    pub until_ms: u64,
    /// What takes more than this goes at once.
    pub bytes_max: u64,
}

/// The removed files that linger.
///
/// # Invariants
///
/// `inodes` and `order` have the same inodes, and `order`'s times never decrease.
#[derive(Debug, Default)]
pub struct Lingering {
    inodes: HashSet<InodeNumber>,
    order: VecDeque<(u64, InodeNumber)>,
}

impl Lingering {
    /// Lets an inode linger until `until_ms`, which is no earlier than that of any before it; false
    /// where it lingers already, or [`LINGERING_MAX`] others do.
    pub fn add(&mut self, inode: InodeNumber, until_ms: u64) -> bool {
        if self.order.len() >= LINGERING_MAX || !self.inodes.insert(inode) {
            return false;
        }
        self.order.push_back((until_ms, inode));
        true
    }

    /// Undoes the newest [`Self::add`].
    pub fn undo(&mut self) {
        if let Some((_, inode)) = self.order.pop_back() {
            self.inodes.remove(&inode);
        }
    }

    /// Whether an inode lingers.
    #[must_use]
    pub fn has(&self, inode: InodeNumber) -> bool {
        self.inodes.contains(&inode)
    }

    /// Whether an inode's time is over at `ms`.
    #[must_use]
    pub fn is_due(&self, ms: u64) -> bool {
        self.order.front().is_some_and(|(until, _)| *until <= ms)
    }

    /// Ends the time of the oldest inode that is due at `ms`, and gives it.
    pub fn take_due(&mut self, ms: u64) -> Option<InodeNumber> {
        if !self.is_due(ms) {
            return None;
        }
        let (_, inode) = self.order.pop_front()?;
        self.inodes.remove(&inode);
        Some(inode)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inodes_linger_until_their_time_and_no_longer() {
        let mut lingering = Lingering::default();
        let (a, b) = (InodeNumber(5), InodeNumber(3));
        assert!(lingering.add(a, 10) && lingering.add(b, 12));
        assert!(!lingering.add(a, 13), "it lingers already");
        assert_eq!(lingering.take_due(9), None);
        assert_eq!(lingering.take_due(10), Some(a));
        assert_eq!(lingering.take_due(11), None);
        assert!(!lingering.has(a) && lingering.has(b) && !lingering.is_due(11));
        assert!(lingering.add(a, 14));
        lingering.undo();
        assert!(!lingering.has(a));
        assert_eq!(lingering.take_due(20), Some(b));
        assert_eq!(lingering.take_due(20), None);
    }

    #[test]
    fn no_more_than_so_many_linger() {
        let mut lingering = Lingering::default();
        let max = LINGERING_MAX as u64;
        assert!((0..max).all(|n| lingering.add(InodeNumber(n), n)));
        assert!(!lingering.add(InodeNumber(max), max));
        assert!(lingering.take_due(max).is_some());
        assert!(lingering.add(InodeNumber(max), max));
    }
}
