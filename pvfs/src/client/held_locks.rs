// SPDX-License-Identifier: MIT
//! Which locks a client has and which it waits for: what it tells mgr on a new connection. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crate::ids::InodeNumber;
use crate::lock_ranges::{Hold, LockRanges};
use crate::proto::lock::{HeldLock, LockFamily, LockKind, LockOwner, LockRange, LockRequest};

/// The locks that this client has, to be declared after a restart of mgr.
#[derive(Debug, Default)]
pub(super) struct HeldLocks {
    held: BTreeMap<(InodeNumber, LockFamily, LockOwner), LockRanges>,
    /// Waits whose outcome is not known.
    waits: BTreeMap<u64, LockRequest>,
    /// Of those, the ones to be asked for on this connection.
    asks: BTreeSet<u64>,
    /// Waits that ended without a lock, while mgr may still grant one.
    given_up: BTreeSet<u64>,
    wait_last: u64,
}

impl HeldLocks {
    /// Begins to wait; gives the number of the wait.
    pub(super) fn wait(&mut self, request: LockRequest) -> u64 {
        self.wait_last += 1;
        let wait = Some(self.wait_last);
        self.waits
            .insert(self.wait_last, LockRequest { wait, ..request });
        self.asks.insert(self.wait_last);
        self.wait_last
    }

    /// What became of all waits below this number is known.
    pub(super) fn settled_below(&self) -> u64 {
        let open = self.waits.keys().next().copied();
        let given_up = self.given_up.first().copied();
        let first = open.into_iter().chain(given_up).min();
        first.unwrap_or(self.wait_last + 1)
    }

    /// A new connection: mgr is to be asked about all waits.
    pub(super) fn ask_all(&mut self) {
        self.asks = self.waits.keys().copied().collect();
    }

    /// The next wait to ask about.
    pub(super) fn next_ask(&self) -> Option<LockRequest> {
        let wait = self.asks.first()?;
        self.waits.get(wait).copied()
    }

    /// mgr has been asked about this wait.
    pub(super) fn asked(&mut self, wait: u64) {
        self.asks.remove(&wait);
    }

    /// A request is on its way to mgr: what it takes away must not be claimed from now on.
    pub(super) fn begun(&mut self, request: &LockRequest) {
        let place = place(request);
        let left = match (request.kind, request.family) {
            (None, _) => None,
            (Some(_), LockFamily::Range) => return,
            (Some(kind), LockFamily::Whole) => {
                let held = self.held.get(&place).and_then(|held| held.iter().next());
                match (held.map(|(_, hold)| hold), kind) {
                    (None, _) => return,
                    (Some(had), kind) if had.kind == kind => return,
                    // flock(2) gives up the weaker kind before it takes the stronger.
                    (Some(_), LockKind::Exclusive) => None,
                    (Some(had), LockKind::Shared) => Some(Hold {
                        kind: LockKind::Shared,
                        process: had.process,
                    }),
                }
            }
        };
        self.set(place, request.range, left);
    }

    /// mgr has carried out a request.
    pub(super) fn granted(&mut self, request: &LockRequest) {
        let hold = request.kind.map(|kind| Hold {
            kind,
            process: request.process,
        });
        if hold.is_some() {
            self.set(place(request), request.range, hold);
        }
    }

    /// A wait is over; false where it was over before.
    pub(super) fn settle(&mut self, wait: u64, granted: bool) -> bool {
        let Some(request) = self.waits.remove(&wait) else {
            return false;
        };
        self.asks.remove(&wait);
        if granted {
            self.granted(&request);
        } else {
            self.given_up.insert(wait);
        }
        true
    }

    /// Nobody waits any more; false where the wait is over.
    pub(super) fn give_up(&mut self, wait: u64) -> bool {
        self.settle(wait, false)
    }

    /// Whether mgr may still grant something that nobody waits for.
    pub(super) fn is_given_up(&self, wait: u64) -> bool {
        self.given_up.contains(&wait)
    }

    /// mgr has answered everything about this wait.
    pub(super) fn forget_given_up(&mut self, wait: u64) {
        self.given_up.remove(&wait);
    }

    /// mgr does not have this lock any more.
    pub(super) fn lost(&mut self, lock: &HeldLock) {
        let place = (lock.inode, lock.family, lock.owner);
        self.set(place, lock.range, None);
    }

    fn set(
        &mut self,
        place: (InodeNumber, LockFamily, LockOwner),
        range: LockRange,
        hold: Option<Hold>,
    ) {
        let held = self.held.entry(place).or_default();
        held.set(range, hold);
        if held.is_empty() {
            self.held.remove(&place);
        }
    }

    /// All locks.
    pub(super) fn held(&self) -> Vec<HeldLock> {
        let held = self.held.iter().flat_map(|((inode, family, owner), held)| {
            held.iter().map(|(range, hold)| HeldLock {
                inode: *inode,
                owner: *owner,
                family: *family,
                range,
                kind: hold.kind,
                process: hold.process,
            })
        });
        held.collect()
    }
}

const fn place(request: &LockRequest) -> (InodeNumber, LockFamily, LockOwner) {
    (request.inode, request.family, request.owner)
}
