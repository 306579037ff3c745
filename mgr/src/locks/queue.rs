// SPDX-License-Identifier: MIT
//! Who waits for locks, who lets whom pass, and waiting in circles.

use std::collections::{BTreeMap, BTreeSet};

use pvfs::error::FsError;
use pvfs::ids::{ClientId, InodeNumber};
use pvfs::proto::lock::{LockFamily, LockOwner};

use super::file::{Holder, Waiter, Wish};
use super::{Locks, Verdict};

/// Waiters for one file's locks: what an unlock may have to look at.
pub const LOCK_WAITS_PER_FILE_MAX: usize = 8192;
/// Waiters in all, 300 bytes each.
pub const LOCK_WAITS_MAX: usize = 1 << 18;
/// Owners and waiters that are looked at for a deadlock, 10 ms: for each owner on the way, those of the
/// files in which it waits. One that takes more to see is not found.
const DEADLOCK_STEPS_MAX: usize = 1 << 20;
/// The same for all who might let others pass, in one request, 1 ms. Where it takes more to see,
/// nobody lets anybody pass: that is not fair, and keeps nobody waiting for ever.
const ORDER_STEPS_MAX: usize = 1 << 17;

/// Whom some owners wait for, directly or through others.
#[derive(Default)]
struct Reach {
    owners: BTreeSet<Holder>,
    /// The files in which they wait.
    files: BTreeSet<InodeNumber>,
    /// There may be more.
    cut_short: bool,
}

impl Reach {
    /// Whether an owner is waited for, or may be.
    fn may_have(&self, holder: Holder) -> bool {
        self.cut_short || self.owners.contains(&holder)
    }
}

/// What was found of the reach of owners, as long as nothing changes.
struct Reaches<'a> {
    found: BTreeMap<Holder, Reach>,
    steps_left: &'a mut usize,
}

impl Locks {
    /// Whether nothing that is held stands against a wish.
    pub(super) fn is_free(&self, inode: InodeNumber, wish: &Wish) -> bool {
        let file = self.files.get(&inode);
        file.is_none_or(|file| file.against(wish).next().is_none())
    }

    /// Whether a wish that waits, or would, can come true: it lets those pass that came before
    /// `ticket`.
    pub(super) fn is_next(&self, inode: InodeNumber, wish: &Wish, ticket: u64) -> bool {
        let mut reaches = Reaches {
            found: BTreeMap::new(),
            steps_left: &mut { ORDER_STEPS_MAX },
        };
        self.is_next_given(inode, wish, ticket, &mut reaches)
    }

    fn is_next_given(
        &self,
        inode: InodeNumber,
        wish: &Wish,
        ticket: u64,
        reaches: &mut Reaches<'_>,
    ) -> bool {
        let Some(file) = self.files.get(&inode) else {
            return true;
        };
        if file.against(wish).next().is_some() {
            return false;
        }
        // Letting somebody pass who waits for this one would help nobody.
        file.before(ticket, wish).all(|earlier| {
            let Reaches { found, steps_left } = &mut *reaches;
            let reach = found
                .entry(earlier)
                .or_insert_with(|| self.reach([earlier], true, steps_left));
            reach.may_have(wish.holder)
        })
    }

    /// Whom the owners wait for. `orders`: also those whom they only let pass; otherwise only POSIX
    /// locks count.
    fn reach(
        &self,
        from: impl IntoIterator<Item = Holder>,
        orders: bool,
        steps_left: &mut usize,
    ) -> Reach {
        let mut seen: BTreeSet<Holder> = from.into_iter().collect();
        let mut next: Vec<Holder> = seen.iter().copied().collect();
        let mut reach = Reach::default();
        while let Some(holder) = next.pop() {
            for (inode, ticket) in self.waiting.get(&holder).into_iter().flatten() {
                let Some(file) = self.files.get(inode) else {
                    continue;
                };
                let Some(Waiter { wish, .. }) = file.queue.get(ticket) else {
                    continue;
                };
                if !orders && !is_posix(wish) {
                    continue;
                }
                reach.files.insert(*inode);
                let steps = file.owners() + if orders { file.queue.len() } else { 0 };
                let Some(left) = steps_left.checked_sub(steps) else {
                    *steps_left = 0;
                    reach.cut_short = true;
                    return reach;
                };
                *steps_left = left;
                let holders = file.against(wish).map(|(other, _, _)| other);
                let earlier = file.before(*ticket, wish).filter(|_| orders);
                for other in holders.chain(earlier) {
                    reach.owners.insert(other);
                    if seen.insert(other) {
                        next.push(other);
                    }
                }
            }
        }
        reach
    }

    /// Puts a wish into its file's queue.
    pub(super) fn queue(
        &mut self,
        inode: InodeNumber,
        wish: Wish,
        wait: u64,
    ) -> Result<Verdict, FsError> {
        let client = wish.holder.client;
        if is_posix(&wish) {
            let file = self.files.get(&inode);
            let holders = file.into_iter().flat_map(|file| file.against(&wish));
            let holders = holders.map(|(holder, _, _)| holder);
            let reach = self.reach(holders, false, &mut { DEADLOCK_STEPS_MAX });
            if reach.owners.contains(&wish.holder) {
                return Err(FsError::Deadlock);
            }
        }
        let here = self.files.get(&inode).map_or(0, |file| file.queue.len());
        if here >= LOCK_WAITS_PER_FILE_MAX || self.waits.len() >= LOCK_WAITS_MAX {
            return Err(FsError::NoLocks);
        }
        self.last += 1;
        let ticket = self.last;
        let file = self.files.entry(inode).or_default();
        file.queue.insert(ticket, Waiter { wish, wait });
        self.waits.insert((client, wait), (inode, ticket));
        let waiting = self.waiting.entry(wish.holder).or_default();
        waiting.insert((inode, ticket));
        self.by_client.insert((client, inode));
        self.counts.entry(client).or_default().waits += 1;
        self.entangled.insert(wish.holder);
        Ok(Verdict::Queued)
    }

    /// Gives those who wait what they can have now, until nobody waits for what it could have.
    pub(super) fn serve(&mut self) {
        let mut steps_left = ORDER_STEPS_MAX;
        loop {
            while let Some(holder) = self.entangled.pop_first() {
                // A circle that is closed only because some let others pass is opened by those.
                let reach = self.reach([holder], true, &mut steps_left);
                if reach.may_have(holder) {
                    self.unserved.extend(reach.files);
                }
            }
            let Some(inode) = self.unserved.pop_first() else {
                return;
            };
            self.serve_file(inode, &mut steps_left);
        }
    }

    fn serve_file(&mut self, inode: InodeNumber, steps_left: &mut usize) {
        let mut after = 0;
        let mut reaches = Reaches {
            found: BTreeMap::new(),
            steps_left,
        };
        loop {
            let Some(file) = self.files.get(&inode) else {
                return;
            };
            let mut queue = file.queue.range(after + 1..);
            let ready = queue.find(|(ticket, waiter)| {
                self.is_next_given(inode, &waiter.wish, **ticket, &mut reaches)
            });
            let Some((&ticket, &Waiter { wish, wait })) = ready else {
                return;
            };
            after = ticket;
            reaches.found.clear();
            let client = wish.holder.client;
            let outcome = self.give(inode, &wish, Some(wait));
            self.leave_queue(client, wait);
            self.news.push((client, wait, outcome));
        }
    }

    /// Takes a wait out of its queue; gives its file.
    pub(super) fn leave_queue(&mut self, client: ClientId, wait: u64) -> Option<InodeNumber> {
        let (inode, ticket) = self.waits.remove(&(client, wait))?;
        if let Some(waiter) = self
            .files
            .get_mut(&inode)
            .and_then(|file| file.queue.remove(&ticket))
        {
            let holder = waiter.wish.holder;
            if let Some(waiting) = self.waiting.get_mut(&holder) {
                waiting.remove(&(inode, ticket));
                if waiting.is_empty() {
                    self.waiting.remove(&holder);
                }
            }
        }
        self.wait_is_over(client);
        self.forget_unused(client, inode);
        Some(inode)
    }
}

/// Whether the wish is of the kind whose circles are found: who waits for an OFD lock or in flock(2)
/// is an open file, which others may unlock.
const fn is_posix(wish: &Wish) -> bool {
    matches!(wish.family, LockFamily::Range) && matches!(wish.holder.owner, LockOwner::Process(_))
}
