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
mod queue;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use pvfs::error::FsError;
use pvfs::ids::{ClientId, InodeNumber};
use pvfs::limits::{LOCK_WAITS_PER_CLIENT_MAX, LOCKS_PER_CLIENT_MAX};
use pvfs::lock_ranges::Hold;
use pvfs::proto::lock::{
    HeldLock, LockFamily, LockHolder, LockKind, LockOwner, LockRange, LockRequest, ProcessNumber,
};

pub use file::Holder;
use file::{FileLocks, Wish};
pub use queue::{LOCK_WAITS_MAX, LOCK_WAITS_PER_FILE_MAX};

/// Locks on one file: what a conflict may have to look at, 100 µs.
pub const LOCKS_PER_FILE_MAX: usize = 16_384;
/// Locks in all, 150 bytes each.
pub const LOCKS_MAX: usize = 1 << 20;
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

/// The locks on all files, and who waits for them.
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
    /// Files in whose queues somebody may have its turn by now.
    unserved: BTreeSet<InodeNumber>,
    /// Owners that wait, and may by now be waited for by those whom they let pass.
    entangled: BTreeSet<Holder>,
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
        let known = match request.wait {
            Some(wait) => self.known_wait(client, wait, request.settled_below)?,
            None => None,
        };
        let outcome = match known {
            Some(verdict) => Ok(verdict),
            None => self.carry_out(client, request),
        };
        self.serve();
        outcome
    }

    /// What became of a wait that began before; `None` where it is to begin.
    fn known_wait(
        &self,
        client: ClientId,
        wait: u64,
        settled_below: u64,
    ) -> Result<Option<Verdict>, FsError> {
        if self.granted.contains_key(&(client, wait)) {
            return Ok(Some(Verdict::Done));
        }
        if self.waits.contains_key(&(client, wait)) {
            return Ok(Some(Verdict::Queued));
        }
        if wait < settled_below {
            return Err(FsError::InvalidArgument);
        }
        let waits = self.counts.get(&client).map_or(0, |count| count.waits);
        match waits >= LOCK_WAITS_PER_CLIENT_MAX {
            true => Err(FsError::NoLocks),
            false => Ok(None),
        }
    }

    fn carry_out(&mut self, client: ClientId, request: &LockRequest) -> Result<Verdict, FsError> {
        let holder = Holder {
            client,
            owner: request.owner,
        };
        let (inode, family, wait) = (request.inode, request.family, request.wait);
        let Some(kind) = request.kind else {
            self.change((inode, family, holder), request.range, None)?;
            return Ok(Verdict::Done);
        };
        let wish = Wish {
            holder,
            family,
            range: request.range,
            kind,
            process: request.process,
        };
        if family == LockFamily::Whole && self.changes_kind(inode, &wish, wait.is_some())? {
            return Ok(Verdict::Done);
        }
        let may_have = match wait {
            None => self.is_free(inode, &wish),
            Some(_) => self.is_next(inode, &wish, u64::MAX),
        };
        if may_have {
            self.give(inode, &wish, wait)?;
            return Ok(Verdict::Done);
        }
        let wait = wait.ok_or(FsError::Locked)?;
        self.queue(inode, wish, wait)
    }

    /// flock(2) by somebody who has a lock already; false where the request goes on as that of
    /// somebody who has none. A weaker kind, or a stronger one that nobody else is in the way of, takes
    /// the place of the old at once; otherwise the old is given up before the new is waited for, so
    /// that two who want more do not wait for each other.
    fn changes_kind(
        &mut self,
        inode: InodeNumber,
        wish: &Wish,
        waits: bool,
    ) -> Result<bool, FsError> {
        let file = self.files.get(&inode);
        let held = file.and_then(|file| file.of(wish.family, wish.holder));
        let Some(had) = held.and_then(|held| held.ranges.iter().next()) else {
            return Ok(false);
        };
        let had = had.1.kind;
        if had == wish.kind {
            return Ok(true);
        }
        if had == LockKind::Exclusive || (!waits && self.is_free(inode, wish)) {
            self.give(inode, wish, None)?;
            return Ok(true);
        }
        self.change((inode, wish.family, wish.holder), LockRange::ALL, None)?;
        self.serve();
        Ok(false)
    }

    /// Makes a wish come true.
    fn give(&mut self, inode: InodeNumber, wish: &Wish, wait: Option<u64>) -> Result<(), FsError> {
        let (family, holder) = (wish.family, wish.holder);
        let held = self.files.get(&inode).and_then(|f| f.of(family, holder));
        let before = held.map(|held| held.ranges.cut_to(wish.range));
        let hold = Hold {
            kind: wish.kind,
            process: wish.process,
        };
        self.change((inode, family, holder), wish.range, Some(hold))?;
        if self.waiting.contains_key(&holder) {
            self.entangled.insert(holder);
        }
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
        if before > 0 {
            // What was there may have been more than what is now.
            self.unserved.insert(inode);
        }
        if hold.is_none() {
            self.forget_unused(client, inode);
        }
        Ok(())
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
        self.news.retain(|news| (news.0, news.1) != (client, wait));
        match self.leave_queue(client, wait) {
            Some(inode) => {
                self.unserved.insert(inode);
            }
            None => self.take_back(client, wait),
        }
        self.serve();
    }

    /// Takes back what a wait has got, and restores what it replaced.
    fn take_back(&mut self, client: ClientId, wait: u64) {
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
        // No more locks come of this than there were before.
        let _ = self.change((inode, family, holder), range, None);
        for (range, hold) in before.into_iter().filter(|_| same) {
            let Hold { kind, process } = hold;
            let mut wish = Wish {
                holder,
                family,
                range,
                kind,
                process,
            };
            // Others may share by now what it had for itself.
            if !self.is_free(inode, &wish) {
                wish.kind = LockKind::Shared;
            }
            let _ = self.give(inode, &wish, None);
        }
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
            process: ProcessNumber::default(),
        };
        let file = self.files.get(&inode)?;
        let first = file.against(&wish).min_by_key(|(_, range, _)| range.start);
        first.map(|(holder, range, hold)| LockHolder {
            client: holder.client,
            owner: holder.owner,
            range,
            kind: hold.kind,
            process: hold.process,
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
            process: lock.process,
        };
        lock.range.is_sound()
            && self.is_free(lock.inode, &wish)
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
            self.unserved.insert(inode);
        }
        self.serve();
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
