// SPDX-License-Identifier: GPL-2.0-only
//! A hash table that packets look up under RCU, whose entries end by themselves.
//!
//! # Life of an entry
//!
//! [`Table::insert`] links it into a bucket. It ends once: by [`Table::remove`], by a sweep that
//! finds its deadline passed, by an eviction, or with the table. Whoever unlinks it under the
//! bucket's lock calls [`Entry::unlinked`] and frees it after a grace period.
//!
//! # Deadlines
//!
//! An entry has no timer. Each bucket has an alarm: a second before which none of its entries ends.
//! [`Table::sweep`], called every second, looks into those buckets only whose alarm has come, ends
//! what is due, and sets the alarm to the earliest deadline that is left. A packet that puts its
//! entry's deadline off writes nothing here. Only what brings a deadline nearer does: an insertion and
//! [`Table::hasten`], which hold the bucket's lock, as the sweep does while it looks, so none is lost.
//! [`Table::deadlines_are_nearer`] has the next sweep look at all entries, whatever the alarms say.
//!
//! Lock order: nothing is taken under a bucket's lock.

use core::ops::Deref;
use core::ptr::{self, NonNull};

use kernel::container_of;
use kernel::prelude::*;
use kernel::sync::rcu::{read_lock, Guard};
use kernel::types::Opaque;

use super::atomic::{Acquire, Atomic, Full, Relaxed, Release};
use super::bindings;
use super::clock::{self, Ticks};
use super::lock::{BhLock, Locks};
use super::rcu;
use super::slab;

/// Locks that the buckets share; a power of two. Enough that CPUs rarely meet, small beside the
/// buckets.
const LOCKS: usize = 256;

/// A sweep lets others run after this many buckets: below a millisecond if none is due.
const SWEEP_SLICE_BUCKETS: usize = 1 << 12;

/// No entry of the bucket ever ends; no machine runs for 136 years.
const NEVER: u32 = u32::MAX;

/// An eviction looks at this many candidates and takes the oldest: of random ones that is nearly the
/// oldest of all, so what is young has time to prove itself.
const EVICTION_CANDIDATES: u32 = 4;
/// With fewer candidates an eviction is content after this many buckets: four times as many as it
/// takes to find four where every fourth bucket has one.
const EVICTION_BUCKETS_ENOUGH: u32 = 64;
/// Without any it gives up after this many, so that a table full of others costs a packet some
/// hundred cache lines and no more.
const EVICTION_BUCKETS_MAX: u32 = 256;

/// A candidate that another CPU was faster with is no reason to give up.
const EVICTION_TRIES: u32 = 4;

/// Buckets that have a second alarm together: a sweep reads it instead of theirs, so that a large
/// table with few entries costs little.
const GROUP_BUCKETS: usize = 64;

/// A table that is filled by no more than this part of its limit keeps what it could do without.
const ROOMY_PART: u32 = 2;

/// Memory for an entry.
pub(crate) struct Vacant<E: Entry>(slab::Vacant<Node<E>>);

/// An entry that is in no table yet.
pub(crate) struct Made<E: Entry>(slab::Owned<Node<E>>);

impl<E: Entry> Vacant<E> {
    /// The entry, for a place in the table.
    #[inline(always)]
    pub(crate) fn fill(self, hash: u32, entry: E) -> Made<E> {
        Made(self.0.fill(Node {
            next: Atomic::new(ptr::null_mut()),
            entry,
            hash,
            linked: Atomic::new(true),
            head: Opaque::uninit(),
        }))
    }
}

impl<E: Entry> Deref for Made<E> {
    type Target = E;

    #[inline]
    fn deref(&self) -> &E {
        &self.0.entry
    }
}

/// What the table holds.
pub(crate) trait Entry: Send + Sync + Sized + 'static {
    /// What an entry is looked up by.
    type Key: PartialEq;
    /// What every entry may need when it ends; there is one in each table.
    type Context: Send + Sync;

    /// The entry's key; it never changes.
    fn key(&self) -> &Self::Key;
    /// When the entry ends if nothing more happens; asked under the bucket's lock.
    fn deadline(&self, context: &Self::Context) -> Ticks;
    /// Whether a sweep leaves the entry where it is, and when the next one is to look at it. `roomy`
    /// says that the table has room for what is not needed. Asked under the bucket's lock.
    fn stays(&self, context: &Self::Context, now: Ticks, _roomy: bool) -> Option<Ticks> {
        let deadline = self.deadline(context);
        (deadline > now).then_some(deadline)
    }
    /// The entry has left the table; called once. Readers may still have it for a while.
    fn unlinked(&self, context: &Self::Context);
    /// Since when it is here, if it may be ended to make room for another.
    fn evictable_since(&self) -> Option<Ticks>;
}

/// An entry in a table, or about to be. What a packet reads comes first.
///
/// # Invariants
///
/// `next` is null or points to a node that is freed no earlier than a grace period after it was
/// unlinked.
#[repr(C)]
pub(crate) struct Node<E: Entry> {
    next: Atomic<*mut Node<E>>,
    entry: E,
    hash: u32,
    /// Written under the bucket's lock only.
    linked: Atomic<bool>,
    head: Opaque<bindings::callback_head>,
}

impl<E: Entry> Deref for Node<E> {
    type Target = E;

    #[inline]
    fn deref(&self) -> &E {
        &self.entry
    }
}

/// The table.
///
/// # Invariants
///
/// Each bucket's chain consists of nodes made by [`Table::reserve`]. There are as many alarms
/// as buckets, a power of two that is at least [`GROUP_BUCKETS`]. The table is only dropped where sleeping is allowed.
#[pin_data(PinnedDrop)]
pub(crate) struct Table<E: Entry> {
    buckets: KVVec<Atomic<*mut Node<E>>>,
    /// In seconds of the clock: no entry of the bucket ends before. Changed under its lock.
    alarms: KVVec<Atomic<u32>>,
    /// The earliest alarm of [`GROUP_BUCKETS`] buckets; never later than any of theirs, but while a sweep is
    /// collecting them.
    group_alarms: KVVec<Atomic<u32>>,
    locks: Locks,
    count: Atomic<u32>,
    count_max: u32,
    /// The context has brought deadlines nearer since the last sweep.
    nearer: Atomic<bool>,
    /// Where the next eviction begins to look.
    evicted_to: Atomic<u32>,
    context: E::Context,
}

// SAFETY: The raw pointers own nodes, which are `Send` and `Sync` as `E` is; shared changes are
// under the buckets' locks.
unsafe impl<E: Entry> Send for Table<E> {}
// SAFETY: As above.
unsafe impl<E: Entry> Sync for Table<E> {}

/// Why an entry was not inserted.
pub(crate) enum InsertError {
    /// Another one has its key.
    Exists,
    /// The table holds as many as it may.
    Full,
    /// No memory.
    NoMemory,
}

impl<E: Entry> Table<E> {
    /// A table with `1 << bits` buckets for at most `count_max` entries.
    pub(crate) fn new(
        bits: u32,
        count_max: u32,
        context: E::Context,
    ) -> Result<impl PinInit<Self>> {
        let size = 1usize.checked_shl(bits).ok_or(EINVAL)?;
        let mut buckets = KVVec::with_capacity(size, GFP_KERNEL)?;
        let mut alarms = KVVec::with_capacity(size, GFP_KERNEL)?;
        while buckets.len() < size {
            buckets
                .push_within_capacity(Atomic::new(ptr::null_mut()))
                .map_err(|_| ENOMEM)?;
            alarms
                .push_within_capacity(Atomic::new(NEVER))
                .map_err(|_| ENOMEM)?;
        }
        let mut group_alarms = KVVec::with_capacity(size / GROUP_BUCKETS, GFP_KERNEL)?;
        while group_alarms.len() < size / GROUP_BUCKETS {
            group_alarms
                .push_within_capacity(Atomic::new(NEVER))
                .map_err(|_| ENOMEM)?;
        }
        let locks = Locks::new(LOCKS)?;
        Ok(pin_init!(Table {
            buckets,
            alarms,
            group_alarms,
            locks,
            count: Atomic::new(0),
            count_max,
            nearer: Atomic::new(false),
            evicted_to: Atomic::new(0),
            context
        }))
    }

    /// What the table was made with.
    #[inline]
    pub(crate) fn context(&self) -> &E::Context {
        &self.context
    }

    /// How many buckets it has.
    pub(crate) fn buckets(&self) -> usize {
        self.buckets.len()
    }

    /// The entry with this key.
    #[inline]
    pub(crate) fn lookup<'g>(
        &self,
        hash: u32,
        key: &E::Key,
        guard: &'g Guard,
    ) -> Option<&'g Node<E>> {
        let mut chain = self.entries(hash as usize, guard);
        chain.find(|node| node.entry.key() == key)
    }

    /// The entries of a bucket, newest first. An index beyond the last bucket wraps.
    #[inline]
    pub(crate) fn entries<'g>(&self, bucket: usize, _guard: &'g Guard) -> Chain<'g, E> {
        let first = self
            .bucket(bucket)
            .map_or(ptr::null_mut(), |bucket| bucket.load(Acquire));
        // SAFETY: By the invariants it is null or a node that outlives the guard.
        let next = unsafe { first.as_ref() };
        Chain { next }
    }

    /// Memory for an entry that is still to come.
    #[inline]
    pub(crate) fn reserve() -> Option<Vacant<E>> {
        slab::reserve().map(Vacant)
    }

    /// Puts an entry into the table until it is removed or its deadline has passed. If the table is
    /// full, one that may be evicted makes room.
    pub(crate) fn insert(&self, hash: u32, entry: E) -> Result<(), InsertError> {
        let vacant = Table::reserve().ok_or(InsertError::NoMemory)?;
        let _node = self.insert_made(vacant.fill(hash, entry), &read_lock())?;
        Ok(())
    }

    /// Puts an entry that is made already into the table. The node is valid for as long as the guard is held,
    /// whatever becomes of it.
    pub(crate) fn insert_made<'g>(
        &self,
        made: Made<E>,
        _guard: &'g Guard,
    ) -> Result<&'g Node<E>, InsertError> {
        if self.count.fetch_add(1, Relaxed) >= self.count_max && !self.evict() {
            self.count.fetch_sub(1, Relaxed);
            return Err(InsertError::Full);
        }
        let inserted = self.link(made);
        if inserted.is_err() {
            self.count.fetch_sub(1, Relaxed);
        }
        // SAFETY: It was just linked, and is freed no sooner than a grace period after it was
        // unlinked.
        inserted.map(|node| unsafe { node.as_ref() })
    }

    fn link(&self, made: Made<E>) -> Result<NonNull<Node<E>>, InsertError> {
        let hash = made.0.hash as usize;
        let (Some(bucket), Some(lock)) = (self.bucket(hash), self.lock(hash)) else {
            return Err(InsertError::Full);
        };
        lock.with(|()| {
            let first = bucket.load(Relaxed);
            let mut other = first;
            // SAFETY: Nodes of this chain are freed only after they were unlinked under this lock.
            while let Some(existing) = unsafe { other.as_ref() } {
                if existing.entry.key() == made.0.entry.key() {
                    return Err(InsertError::Exists);
                }
                other = existing.next.load(Relaxed);
            }
            made.0.next.store(first, Relaxed);
            self.alarm_at(hash, made.0.entry.deadline(&self.context).next_s());
            let node = made.0.into_raw();
            // INVARIANT: The node comes from `reserve`.
            bucket.store(node.as_ptr(), Release);
            Ok(node)
        })
    }

    /// Ends an entry; false if somebody else has.
    pub(crate) fn remove(&self, node: &Node<E>) -> bool {
        let hash = node.hash as usize;
        let (Some(bucket), Some(lock)) = (self.bucket(hash), self.lock(hash)) else {
            return false;
        };
        let unlinked = lock.with(|()| match link_to(bucket, node) {
            Some(link) => {
                unlink(link, node);
                true
            }
            None => false,
        });
        if unlinked {
            self.retire(node);
        }
        unlinked
    }

    /// Puts what `successor` makes of an entry in its place, in one step: who looks for its key finds the one
    /// or the other. False if the entry has ended. The successor has the entry's key; it is made under the
    /// bucket's lock.
    pub(crate) fn replace(
        &self,
        node: &Node<E>,
        vacant: Vacant<E>,
        successor: impl FnOnce(&E) -> E,
    ) -> bool {
        let hash = node.hash as usize;
        let (Some(bucket), Some(lock)) = (self.bucket(hash), self.lock(hash)) else {
            return false;
        };
        let replaced = lock.with(|()| {
            let Some(link) = link_to(bucket, node) else {
                return false;
            };
            let made = vacant.fill(node.hash, successor(&node.entry));
            made.0.next.store(node.next.load(Relaxed), Relaxed);
            self.alarm_at(hash, made.0.entry.deadline(&self.context).next_s());
            // INVARIANT: The node comes from `reserve`.
            link.store(made.0.into_raw().as_ptr(), Release);
            node.linked.store(false, Relaxed);
            true
        });
        if replaced {
            self.let_go(node);
        }
        replaced
    }

    /// Ends an entry that the caller has just unlinked.
    fn retire(&self, node: &Node<E>) {
        self.count.fetch_sub(1, Relaxed);
        self.let_go(node);
    }

    /// Frees an entry that is in the table no more, when its readers are done.
    fn let_go(&self, node: &Node<E>) {
        node.entry.unlinked(&self.context);
        // SAFETY: Only the one who unlinked the node comes here, so its head is queued once.
        // Readers are done when the grace period is.
        unsafe { bindings::call_rcu(node.head.get(), Some(free::<E>)) };
    }

    /// Ends one entry that may be evicted, if there is one near where the last one was.
    pub(crate) fn evict(&self) -> bool {
        let guard = read_lock();
        for _ in 0..EVICTION_TRIES {
            match self.candidate(&guard) {
                None => return false,
                Some(node) if self.remove(node) => return true,
                // It ended meanwhile by itself; there are others.
                Some(_) => {}
            }
        }
        false
    }

    /// The oldest of some entries that may be evicted.
    fn candidate<'g>(&self, guard: &'g Guard) -> Option<&'g Node<E>> {
        let (mut looked, mut seen) = (0u32, 0u32);
        let mut oldest: Option<(&Node<E>, Ticks)> = None;
        while seen < EVICTION_CANDIDATES
            && (looked < EVICTION_BUCKETS_ENOUGH || (seen == 0 && looked < EVICTION_BUCKETS_MAX))
        {
            // One by one, so that CPUs which evict at the same time look at different buckets.
            let bucket = self.evicted_to.fetch_add(1, Relaxed);
            for node in self.entries(bucket as usize, guard) {
                let Some(since) = node.entry.evictable_since() else {
                    continue;
                };
                seen = seen.saturating_add(1);
                if oldest.is_none_or(|(_, other)| since < other) {
                    oldest = Some((node, since));
                }
            }
            looked = looked.wrapping_add(1);
        }
        oldest.map(|(node, _)| node)
    }

    /// An entry's deadline has come nearer: the bucket shall not sleep over it.
    pub(crate) fn hasten(&self, node: &Node<E>) {
        let hash = node.hash as usize;
        let Some(lock) = self.lock(hash) else { return };
        lock.with(|()| self.alarm_at(hash, node.entry.deadline(&self.context).next_s()));
    }

    /// The context has changed what deadlines are, and brought some nearer: the next sweep looks at every
    /// entry.
    pub(crate) fn deadlines_are_nearer(&self) {
        self.nearer.store(true, Release);
    }

    /// Ends what is due. Sleeps.
    pub(crate) fn sweep(&self) {
        let nearer = self.nearer.xchg(false, Full);
        if nearer {
            // Whoever inserts or hastens an entry by the old context is done then, so that a bucket
            // which is empty now needs no lock to be passed by.
            rcu::synchronize();
        }
        if self.count.load(Relaxed) == 0 {
            return;
        }
        let now = Ticks::now();
        for group in 0..self.group_alarms.len() {
            if let Some(alarm) = self.group_alarms.get(group) {
                if nearer || alarm.load(Relaxed) <= now.whole_s() {
                    self.sweep_group(group, alarm, nearer, now);
                }
            }
            yield_after_slice(group);
        }
    }

    /// Looks into those of the group's buckets whose alarm has come, or into all that have entries.
    fn sweep_group(&self, group: usize, group_alarm: &Atomic<u32>, all: bool, now: Ticks) {
        // Whoever brings a deadline nearer writes the bucket's alarm, then this one, and here it is
        // the other way round: one of the two sees what the other wrote.
        group_alarm.xchg(NEVER, Full);
        let first = group.wrapping_mul(GROUP_BUCKETS);
        let mut earliest = NEVER;
        for bucket in first..first.wrapping_add(GROUP_BUCKETS) {
            let Some(alarm) = self.alarms.get(bucket) else {
                continue;
            };
            if alarm.load(Relaxed) <= now.whole_s() || (all && !self.is_empty(bucket)) {
                self.sweep_bucket(bucket, now);
            }
            earliest = earliest.min(alarm.load(Relaxed));
        }
        group_alarm.fetch_min(earliest, Full);
        clock::let_others_run();
    }

    fn sweep_bucket(&self, bucket: usize, now: Ticks) {
        let (Some(first), Some(alarm), Some(lock)) = (
            self.bucket(bucket),
            self.alarms.get(bucket),
            self.lock(bucket),
        ) else {
            return;
        };
        let roomy = self.count.load(Relaxed) <= self.count_max / ROOMY_PART;
        lock.with(|()| {
            alarm.store(NEVER, Relaxed);
            let mut link = first;
            // SAFETY: Nodes of this chain are freed only after they were unlinked under this lock,
            // and no sooner than a grace period later, which the lock holds up.
            while let Some(node) = unsafe { link.load(Relaxed).as_ref() } {
                match node.entry.stays(&self.context, now, roomy) {
                    None => {
                        unlink(link, node);
                        self.retire(node);
                    }
                    Some(next_look) => {
                        self.alarm_at(bucket, next_look.next_s());
                        link = &node.next;
                    }
                }
            }
        });
    }

    /// Has a bucket looked into in that second, or earlier. Under the bucket's lock.
    fn alarm_at(&self, hash: usize, second: u32) {
        // There are as many alarms as buckets.
        let index = hash & self.buckets.len().wrapping_sub(1);
        let alarms = (
            self.alarms.get(index),
            self.group_alarms.get(index / GROUP_BUCKETS),
        );
        if let (Some(alarm), Some(group_alarm)) = alarms {
            if second < alarm.load(Relaxed) {
                alarm.store(second, Relaxed);
                group_alarm.fetch_min(second, Full);
            }
        }
    }

    /// Shows every entry, and lets others run now and then. One that comes meanwhile may be missed. Sleeps, so
    /// not under a mutex that configuration waits for.
    pub(crate) fn walk(&self, each: impl FnMut(&Node<E>, &Guard)) {
        self.walk_part(0, self.buckets.len(), each);
    }

    /// Shows the entries of so many buckets from this one on; an index beyond the last bucket wraps.
    pub(crate) fn walk_part(
        &self,
        first: usize,
        count: usize,
        mut each: impl FnMut(&Node<E>, &Guard),
    ) {
        for offset in 0..count {
            // A guard for each bucket, so that grace periods need not wait for the whole walk.
            let guard = read_lock();
            for node in self.entries(first.wrapping_add(offset), &guard) {
                each(node, &guard);
            }
            drop(guard);
            yield_after_slice(offset);
        }
    }

    /// Ends the entries that `is_over` says of, now rather than in their time. Sleeps.
    pub(crate) fn end_those(&self, is_over: impl Fn(&E) -> bool) {
        self.walk(|node, _| {
            if is_over(node) {
                self.remove(node);
            }
        });
    }

    #[inline]
    fn bucket(&self, hash: usize) -> Option<&Atomic<*mut Node<E>>> {
        // The number of buckets is a power of two.
        self.buckets.get(hash & self.buckets.len().wrapping_sub(1))
    }

    fn is_empty(&self, bucket: usize) -> bool {
        self.bucket(bucket)
            .is_none_or(|first| first.load(Relaxed).is_null())
    }

    fn lock(&self, hash: usize) -> Option<&BhLock<()>> {
        // Buckets outnumber locks, so equal buckets have equal locks.
        self.locks
            .get(hash & self.buckets.len().wrapping_sub(1) & (LOCKS - 1))
    }
}

/// What points to `node` in its bucket; nothing if it was unlinked. Under the bucket's lock.
fn link_to<'a, E: Entry>(
    bucket: &'a Atomic<*mut Node<E>>,
    node: &Node<E>,
) -> Option<&'a Atomic<*mut Node<E>>> {
    if !node.linked.load(Relaxed) {
        return None;
    }
    let mut link = bucket;
    // SAFETY: Nodes of this chain are freed only after they were unlinked under its lock.
    while let Some(other) = unsafe { link.load(Relaxed).as_ref() } {
        if ptr::eq(other, node) {
            return Some(link);
        }
        link = &other.next;
    }
    None
}

/// Takes `node`, which `link` points to, out of its chain. Under the bucket's lock.
fn unlink<E: Entry>(link: &Atomic<*mut Node<E>>, node: &Node<E>) {
    // The node keeps its own `next`, for readers that stand on it.
    link.store(node.next.load(Relaxed), Release);
    node.linked.store(false, Relaxed);
}

fn yield_after_slice(bucket: usize) {
    if bucket & (SWEEP_SLICE_BUCKETS - 1) == 0 {
        clock::let_others_run();
    }
}

#[pinned_drop]
impl<E: Entry> PinnedDrop for Table<E> {
    fn drop(self: Pin<&mut Self>) {
        self.end_those(|_| true);
    }
}

/// Frees a node that was unlinked.
///
/// # Safety
///
/// `head` is in a `Node<E>` made by `Table::reserve` that nobody refers to any more.
unsafe extern "C" fn free<E: Entry>(head: *mut bindings::callback_head) {
    let head = head.cast::<Opaque<bindings::callback_head>>();
    // SAFETY: By the function's contract.
    let node = unsafe { container_of!(head, Node<E>, head) };
    // SAFETY: It came from `Owned::into_raw`, and this is the last reference.
    drop(unsafe { slab::Owned::from_raw(node) });
}

/// Walks a bucket.
pub(crate) struct Chain<'g, E: Entry> {
    next: Option<&'g Node<E>>,
}

impl<'g, E: Entry> Iterator for Chain<'g, E> {
    type Item = &'g Node<E>;

    #[inline]
    fn next(&mut self) -> Option<&'g Node<E>> {
        let node = self.next?;
        // SAFETY: By `Node`'s invariant it is null or outlives the guard that 'g comes from.
        self.next = unsafe { node.next.load(Acquire).as_ref() };
        Some(node)
    }
}
