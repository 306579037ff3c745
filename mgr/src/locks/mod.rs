// SPDX-License-Identifier: MIT
//! Locks of all clients on all files, and who waits for whom: pure bookkeeping. No clock, no I/O;
//! [`crate::owner::locks`] asks it on behalf of requests.
//!
//! Waiting is fair: whoever waits is served before a later one whose lock stands against its own,
//! unless it waits itself for that one, directly or through others. A request that does not wait
//! looks only at what is held.
//!
//! # Invariants
//!
//! No two owners have conflicting locks of one family on one byte. Nobody waits for a lock that it
//! could have.

mod file;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use pvfs::error::FsError;
use pvfs::ids::{ClientId, InodeNumber};
use pvfs::limits::{LOCK_WAITS_PER_CLIENT_MAX, LOCKS_PER_CLIENT_MAX};
use pvfs::lock_ranges::Hold;
use pvfs::proto::lock::{
    HeldLock, LockFamily, LockHolder, LockKind, LockOwner, LockRange, LockRequest,
};

pub use file::Holder;
use file::{FileLocks, Waiter, Wish};

/// Locks on one file: what a conflict may have to look at, 100 µs.
pub const LOCKS_PER_FILE_MAX: usize = 16_384;
/// Waiters for one file's locks: what an unlock may have to look at.
pub const LOCK_WAITS_PER_FILE_MAX: usize = 8192;
/// Locks in all, 150 bytes each.
pub const LOCKS_MAX: usize = 1 << 20;
/// Waiters in all, 300 bytes each.
pub const LOCK_WAITS_MAX: usize = 1 << 18;
/// Owners that are looked at for a circle of waiting. One through more is not found.
const CIRCLE_OWNERS_MAX: usize = 4096;
/// Pieces that are remembered of what a granted wait replaced. Where there were more, taking it
/// back unlocks its range.
const UNDO_PIECES_MAX: usize = 64;

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is done.
    Done,
    /// It waits.
    Queued,
}

/// A wait that was granted and that its client may still take back.
#[derive(Debug)]
struct Granted {
    inode: InodeNumber,
    holder: Holder,
    family: LockFamily,
    range: LockRange,
    before: Vec<(LockRange, Hold)>,
    version: u64,
}

/// How many locks and waits a client has.
#[derive(Debug, Default)]
struct Count {
    locks: usize,
    waits: usize,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Locks {
    files: HashMap<InodeNumber, FileLocks>,
    /// Where each wait stands in which queue.
    waits: BTreeMap<(ClientId, u64), (InodeNumber, u64)>,
    granted: BTreeMap<(ClientId, u64), Granted>,
    /// In which queues an owner stands.
    waiting: BTreeMap<Holder, BTreeSet<(InodeNumber, u64)>>,
    by_client: BTreeSet<(ClientId, InodeNumber)>,
    counts: HashMap<ClientId, Count>,
    locks: usize,
    /// Numbers tickets and changes.
    last: u64,
    /// Waits that are over and whose clients have not been told.
    news: Vec<News>,
}

/// A wait that is over: whose, its number, and whether the lock is there.
pub type News = (ClientId, u64, Result<(), FsError>);

impl Locks {
    /// Carries out a request.
    ///
    /// # Errors
    ///
    /// [`FsError::Locked`] where it does not wait and others are in the way;
    /// [`FsError::Deadlock`] where waiting would never end; [`FsError::NoLocks`] at a limit.
    pub fn set(&mut self, client: ClientId, request: &LockRequest) -> Result<Verdict, FsError> {
        if !request.range.is_sound() {
            return Err(FsError::InvalidArgument);
        }
        self.settle(client, request.settled_below);
        if let Some(wait) = request.wait {
            if self.granted.contains_key(&(client, wait)) {
                return Ok(Verdict::Done);
            }
            if self.waits.contains_key(&(client, wait)) {
                return Ok(Verdict::Queued);
            }
            if wait < request.settled_below {
                return Err(FsError::InvalidArgument);
            }
            let waits = self.counts.get(&client).map_or(0, |count| count.waits);
            if waits >= LOCK_WAITS_PER_CLIENT_MAX {
                return Err(FsError::NoLocks);
            }
        }
        let holder = Holder {
            client,
            owner: request.owner,
        };
        let place = (request.inode, request.family, holder);
        let Some(kind) = request.kind else {
            self.change(place, request.range, None)?;
            self.serve(request.inode);
            return Ok(Verdict::Done);
        };
        if request.family == LockFamily::Whole && !self.give_up_other_kind(place, kind) {
            return Ok(Verdict::Done);
        }
        let wish = Wish {
            holder,
            family: request.family,
            range: request.range,
            kind,
            pid: request.pid,
        };
        if self.may_have(request.inode, &wish, request.wait.map(|_| u64::MAX)) {
            self.give(request.inode, &wish, request.wait)?;
            return Ok(Verdict::Done);
        }
        let wait = request.wait.ok_or(FsError::Locked)?;
        self.queue(request.inode, wish, wait)
    }

    /// flock(2) changes the kind of a lock by giving it up first. False where it has this kind.
    fn give_up_other_kind(
        &mut self,
        (inode, family, holder): (InodeNumber, LockFamily, Holder),
        kind: LockKind,
    ) -> bool {
        let file = self.files.get(&inode);
        let held = file.and_then(|file| file.of(family, holder));
        let mut pieces = held.into_iter().flat_map(|held| held.ranges.iter());
        match pieces.next().map(|(_, hold)| hold.kind) {
            Some(had) if had == kind => false,
            Some(_) => {
                drop(pieces);
                // Unlocking everything makes no lock more.
                let _ = self.change((inode, family, holder), LockRange::ALL, None);
                self.serve(inode);
                true
            }
            None => true,
        }
    }

    /// Whether a wish can come true. One that waits, or would, lets those pass that came before
    /// `ticket`.
    fn may_have(&self, inode: InodeNumber, wish: &Wish, ticket: Option<u64>) -> bool {
        let Some(file) = self.files.get(&inode) else {
            return true;
        };
        if file.against(wish).next().is_some() {
            return false;
        }
        let Some(ticket) = ticket else { return true };
        // Letting somebody pass who waits for this one would help nobody.
        file.before(ticket, wish)
            .all(|earlier| self.circle(earlier, wish.holder, true).0)
    }

    /// Whether `from` waits for `to`, directly or through others, and the files on the way.
    /// `orders`: also where it only lets others pass; otherwise only POSIX locks count.
    fn circle(&self, from: Holder, to: Holder, orders: bool) -> (bool, BTreeSet<InodeNumber>) {
        let mut files = BTreeSet::new();
        let mut seen = BTreeSet::from([from]);
        let mut next = vec![from];
        let mut found = false;
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
                files.insert(*inode);
                let holders = file.against(wish).map(|(other, _, _)| other);
                let earlier = file.before(*ticket, wish).filter(|_| orders);
                for other in holders.chain(earlier) {
                    found |= other == to;
                    if seen.len() < CIRCLE_OWNERS_MAX && seen.insert(other) {
                        next.push(other);
                    }
                }
            }
        }
        (found, files)
    }

    /// Makes a wish come true.
    fn give(&mut self, inode: InodeNumber, wish: &Wish, wait: Option<u64>) -> Result<(), FsError> {
        let (family, holder) = (wish.family, wish.holder);
        let held = self.files.get(&inode).and_then(|f| f.of(family, holder));
        let before = held.map(|held| held.ranges.cut_to(wish.range));
        let hold = Hold {
            kind: wish.kind,
            pid: wish.pid,
        };
        self.change((inode, family, holder), wish.range, Some(hold))?;
        if let Some(wait) = wait {
            let before = before.filter(|pieces| pieces.len() <= UNDO_PIECES_MAX);
            let granted = Granted {
                inode,
                holder,
                family,
                range: wish.range,
                before: before.unwrap_or_default(),
                version: self.last,
            };
            self.granted.insert((holder.client, wait), granted);
            self.counts.entry(holder.client).or_default().waits += 1;
        }
        Ok(())
    }

    /// Sets a range, within the limits.
    fn change(
        &mut self,
        (inode, family, holder): (InodeNumber, LockFamily, Holder),
        range: LockRange,
        hold: Option<Hold>,
    ) -> Result<(), FsError> {
        let client = holder.client;
        let count = self.counts.get(&client).map_or(0, |count| count.locks);
        let here = self.files.get(&inode).map_or(0, FileLocks::len);
        // One change makes at most two locks more.
        let full = count + 2 > LOCKS_PER_CLIENT_MAX
            || here + 2 > LOCKS_PER_FILE_MAX
            || self.locks + 2 > LOCKS_MAX;
        let held = self.files.get(&inode).and_then(|f| f.of(family, holder));
        if full {
            let mut after = held.map(|held| held.ranges.clone()).unwrap_or_default();
            let before = after.len();
            after.set(range, hold);
            if after.len() > before {
                return Err(FsError::NoLocks);
            }
        }
        if held.is_none() && hold.is_none() {
            return Ok(());
        }
        self.last += 1;
        let file = self.files.entry(inode).or_default();
        let (before, after) = file.set((family, holder), range, hold, self.last);
        self.locks = (self.locks + after).saturating_sub(before);
        let count = self.counts.entry(client).or_default();
        count.locks = (count.locks + after).saturating_sub(before);
        self.by_client.insert((client, inode));
        if hold.is_none() {
            self.forget_unused(client, inode);
        }
        Ok(())
    }

    /// Puts a wish into its file's queue.
    fn queue(&mut self, inode: InodeNumber, wish: Wish, wait: u64) -> Result<Verdict, FsError> {
        let client = wish.holder.client;
        if is_posix(&wish) {
            let file = self.files.get(&inode);
            let holders = file.into_iter().flat_map(|file| file.against(&wish));
            let holders: BTreeSet<Holder> = holders.map(|(holder, _, _)| holder).collect();
            let for_ever = |holder: &Holder| self.circle(*holder, wish.holder, false).0;
            if holders.iter().any(for_ever) {
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
        // A circle that is closed only because some let others pass is opened by those.
        let (closed, files) = self.circle(wish.holder, wish.holder, true);
        if closed {
            for inode in files {
                self.serve(inode);
            }
        }
        // What became of it so soon is the answer, and no news.
        let own = |news: &&News| (news.0, news.1) == (client, wait);
        let outcome = self.news.iter().find(own).map(|(_, _, outcome)| *outcome);
        self.forget_news(client, wait);
        match outcome {
            Some(outcome) => outcome.map(|()| Verdict::Done),
            None => Ok(Verdict::Queued),
        }
    }

    fn forget_news(&mut self, client: ClientId, wait: u64) {
        self.news.retain(|news| (news.0, news.1) != (client, wait));
    }

    /// Gives those who wait for locks on the file what they can have now.
    fn serve(&mut self, inode: InodeNumber) {
        let mut after = 0;
        loop {
            let Some(file) = self.files.get(&inode) else {
                return;
            };
            let ready = file
                .queue
                .range(after + 1..)
                .find(|(ticket, waiter)| self.may_have(inode, &waiter.wish, Some(**ticket)));
            let Some((&ticket, &Waiter { wish, wait })) = ready else {
                return;
            };
            after = ticket;
            let client = wish.holder.client;
            let outcome = self.give(inode, &wish, Some(wait));
            self.leave_queue(client, wait);
            self.news.push((client, wait, outcome));
        }
    }

    /// Takes a wait out of its queue; gives its file.
    fn leave_queue(&mut self, client: ClientId, wait: u64) -> Option<InodeNumber> {
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

    fn wait_is_over(&mut self, client: ClientId) {
        if let Some(count) = self.counts.get_mut(&client) {
            count.waits = count.waits.saturating_sub(1);
            if count.waits == 0 && count.locks == 0 {
                self.counts.remove(&client);
            }
        }
    }

    fn forget_unused(&mut self, client: ClientId, inode: InodeNumber) {
        let Some(file) = self.files.get(&inode) else {
            return;
        };
        let waits = file.queue.values().any(|w| w.wish.holder.client == client);
        if !waits && file.of_client(client).is_empty() {
            self.by_client.remove(&(client, inode));
        }
        if file.is_unused() {
            self.files.remove(&inode);
        }
        let count = self.counts.get(&client);
        if count.is_some_and(|count| count.locks == 0 && count.waits == 0) {
            self.counts.remove(&client);
        }
    }

    /// The client knows what became of its waits below this number.
    fn settle(&mut self, client: ClientId, below: u64) {
        let known = self.granted.range((client, 0)..(client, below));
        let known: Vec<_> = known.map(|(key, _)| *key).collect();
        for key in known {
            self.granted.remove(&key);
            self.wait_is_over(client);
        }
    }

    /// Nobody waits any more under this number: it leaves the queue, or what it has got goes back.
    pub fn cancel(&mut self, client: ClientId, wait: u64) {
        self.forget_news(client, wait);
        if let Some(inode) = self.leave_queue(client, wait) {
            self.serve(inode);
            return;
        }
        let Some(granted) = self.granted.remove(&(client, wait)) else {
            return;
        };
        self.wait_is_over(client);
        let Granted {
            inode,
            holder,
            family,
            range,
            before,
            version,
        } = granted;
        let held = self.files.get(&inode).and_then(|f| f.of(family, holder));
        let Some(same) = held.map(|held| held.version == version) else {
            return;
        };
        // Only fewer or weaker locks come of this, and no more than there were before.
        let _ = self.change((inode, family, holder), range, None);
        for (range, hold) in before.into_iter().filter(|_| same) {
            let _ = self.change((inode, family, holder), range, Some(hold));
        }
        self.serve(inode);
    }

    /// What stands against a lock that somebody would like.
    #[must_use]
    pub fn test(
        &self,
        (client, owner): (ClientId, LockOwner),
        inode: InodeNumber,
        family: LockFamily,
        (range, kind): (LockRange, LockKind),
    ) -> Option<LockHolder> {
        let wish = Wish {
            holder: Holder { client, owner },
            family,
            range,
            kind,
            pid: 0,
        };
        let file = self.files.get(&inode)?;
        let first = file.against(&wish).min_by_key(|(_, range, _)| range.start);
        first.map(|(holder, range, hold)| LockHolder {
            client: holder.client,
            owner: holder.owner,
            range,
            kind: hold.kind,
            pid: hold.pid,
        })
    }

    /// Takes a lock back that the client had before mgr's restart; false where it cannot have it.
    pub fn claim(&mut self, client: ClientId, lock: &HeldLock) -> bool {
        let holder = Holder {
            client,
            owner: lock.owner,
        };
        let wish = Wish {
            holder,
            family: lock.family,
            range: lock.range,
            kind: lock.kind,
            pid: lock.pid,
        };
        lock.range.is_sound()
            && self.may_have(lock.inode, &wish, None)
            && self.give(lock.inode, &wish, None).is_ok()
    }

    /// A client has no locks any more, and waits for none. Gives how many it had.
    pub fn drop_client(&mut self, client: ClientId) -> usize {
        let had = self.counts.get(&client).map_or(0, |count| count.locks);
        self.settle(client, u64::MAX);
        let waits = self.waits.range((client, 0)..=(client, u64::MAX));
        let waits: Vec<u64> = waits.map(|((_, wait), _)| *wait).collect();
        let files = self
            .by_client
            .range((client, InodeNumber(0))..=(client, InodeNumber(u64::MAX)));
        let files: Vec<InodeNumber> = files.map(|(_, inode)| *inode).collect();
        for wait in waits {
            self.leave_queue(client, wait);
        }
        for inode in files {
            let file = self.files.get(&inode);
            let places = file.map(|file| file.of_client(client)).unwrap_or_default();
            for (family, holder) in places {
                let _ = self.change((inode, family, holder), LockRange::ALL, None);
            }
            self.serve(inode);
        }
        self.news.retain(|(other, _, _)| *other != client);
        had
    }

    /// Clients that have locks which others wait for, among those that `of_interest` names.
    #[must_use]
    pub fn blocking(&self, of_interest: &dyn Fn(ClientId) -> bool) -> BTreeSet<ClientId> {
        let holding = self.counts.iter().filter(|(_, count)| count.locks > 0);
        let clients = holding.map(|(client, _)| *client);
        let blocks = |client: &ClientId| {
            let range = (*client, InodeNumber(0))..=(*client, InodeNumber(u64::MAX));
            let files = self.by_client.range(range);
            files
                .filter_map(|(_, inode)| self.files.get(inode))
                .any(|file| file.blocks_somebody(*client))
        };
        clients
            .filter(|client| of_interest(*client))
            .filter(blocks)
            .collect()
    }

    /// Waits that are over, whose clients are to be told.
    pub fn take_news(&mut self) -> Vec<News> {
        std::mem::take(&mut self.news)
    }

    /// Locks in all.
    #[must_use]
    pub const fn held(&self) -> usize {
        self.locks
    }

    /// Whether nothing is locked and nobody waits.
    #[must_use]
    pub fn is_unused(&self) -> bool {
        self.files.is_empty()
    }
}

/// Whether the wish is of the kind whose circles are found: who waits for an OFD lock or in flock(2)
/// is an open file, which others may unlock.
const fn is_posix(wish: &Wish) -> bool {
    matches!(wish.family, LockFamily::Range) && matches!(wish.holder.owner, LockOwner::Process(_))
}
