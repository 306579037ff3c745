// SPDX-License-Identifier: MIT
//! The locks of one file: who has which bytes, and who waits for which.

use std::collections::BTreeMap;

use pvfs::ids::ClientId;
use pvfs::lock_ranges::{Hold, LockRanges};
use pvfs::proto::lock::{LockFamily, LockKind, LockOwner, LockRange, ProcessNumber};

/// Whose a lock is: a process or an open file, on one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Holder {
    /// The node.
    pub client: ClientId,
    /// Who, there.
    pub owner: LockOwner,
}

/// A lock that somebody would like.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wish {
    pub(super) holder: Holder,
    pub(super) family: LockFamily,
    pub(super) range: LockRange,
    pub(super) kind: LockKind,
    pub(super) process: ProcessNumber,
}

impl Wish {
    /// Whether two wishes of different owners cannot both come true.
    pub(super) fn conflicts(&self, other: &Self) -> bool {
        self.family == other.family
            && self.holder != other.holder
            && self.kind.conflicts(other.kind)
            && self.range.overlaps(other.range)
    }
}

/// A wish that waits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waiter {
    pub(super) wish: Wish,
    /// What its client calls it.
    pub(super) wait: u64,
}

/// What one owner has.
#[derive(Debug, Default)]
pub(super) struct Held {
    pub(super) ranges: LockRanges,
    /// Which change was the last.
    pub(super) version: u64,
}

/// The locks on one file.
#[derive(Debug, Default)]
pub(super) struct FileLocks {
    held: BTreeMap<(LockFamily, Holder), Held>,
    /// By ticket: in the order in which they came.
    pub(super) queue: BTreeMap<u64, Waiter>,
}

impl FileLocks {
    pub(super) fn is_unused(&self) -> bool {
        self.held.is_empty() && self.queue.is_empty()
    }

    /// Locks of all owners together.
    pub(super) fn len(&self) -> usize {
        self.held.values().map(|held| held.ranges.len()).sum()
    }

    /// Owners of locks.
    pub(super) fn owners(&self) -> usize {
        self.held.len()
    }

    pub(super) fn of(&self, family: LockFamily, holder: Holder) -> Option<&Held> {
        self.held.get(&(family, holder))
    }

    /// Sets an owner's range; gives the number of its locks before and after.
    pub(super) fn set(
        &mut self,
        (family, holder): (LockFamily, Holder),
        range: LockRange,
        hold: Option<Hold>,
        version: u64,
    ) -> (usize, usize) {
        let held = self.held.entry((family, holder)).or_default();
        let before = held.ranges.len();
        held.ranges.set(range, hold);
        held.version = version;
        let after = held.ranges.len();
        if after == 0 {
            self.held.remove(&(family, holder));
        }
        (before, after)
    }

    /// The locks of others that stand against the wish, lowest range first for each owner.
    pub(super) fn against<'a>(
        &'a self,
        wish: &'a Wish,
    ) -> impl Iterator<Item = (Holder, LockRange, Hold)> + 'a {
        self.held
            .iter()
            .filter(|((family, holder), _)| *family == wish.family && *holder != wish.holder)
            .flat_map(|((_, holder), held)| {
                let found = held.ranges.overlapping(wish.range);
                found.map(|(range, hold)| (*holder, range, hold))
            })
            .filter(|(_, _, hold)| hold.kind.conflicts(wish.kind))
    }

    /// Waiters that came before `ticket` and whose wishes stand against this one.
    pub(super) fn before<'a>(
        &'a self,
        ticket: u64,
        wish: &'a Wish,
    ) -> impl Iterator<Item = Holder> + 'a {
        let earlier = self.queue.range(..ticket).map(|(_, waiter)| &waiter.wish);
        earlier
            .filter(|other| other.conflicts(wish))
            .map(|other| other.holder)
    }

    /// Everything that a client has here.
    pub(super) fn of_client(&self, client: ClientId) -> Vec<(LockFamily, Holder)> {
        let keys = self.held.keys();
        keys.filter(|(_, holder)| holder.client == client)
            .copied()
            .collect()
    }

    /// Whether a client has something here that another waits for.
    pub(super) fn blocks_somebody(&self, client: ClientId) -> bool {
        self.queue.values().any(|waiter| {
            self.against(&waiter.wish)
                .any(|(holder, _, _)| holder.client == client)
        })
    }
}
