// SPDX-License-Identifier: GPL-2.0-only
//! A hash table that packets look up under RCU, whose entries each have a timer.
//!
//! # Life of an entry
//!
//! [`Table::insert`] links it into a bucket and arms its timer. It ends once, by [`Table::remove`],
//! by its own timer or with the table; whoever unlinks it under the bucket's lock shuts its timer
//! down, calls [`Entry::unlinked`] and frees it after a grace period. A timer callback that is
//! already running is waited for by that grace period as well, because it runs in a softirq;
//! re-arming a timer that was shut down does nothing.
//!
//! Lock order: a bucket's lock, then (inside the kernel) the timer base's lock. Nothing else is
//! taken under a bucket's lock.

use core::ops::Deref;
use core::ptr;

use super::atomic::{Acquire, Atomic, Relaxed, Release};
use kernel::container_of;
use kernel::prelude::*;
use kernel::sync::rcu::{read_lock, Guard};
use kernel::types::Opaque;

use super::bindings;
use super::clock::Ticks;
use super::lock::{BhLock, Locks};
use super::rcu;

/// Locks that the buckets share; a power of two. Enough that CPUs rarely meet, small beside the
/// buckets.
const LOCKS: usize = 256;

/// What the table holds.
pub(crate) trait Entry: Send + Sync + Sized + 'static {
    /// What an entry is looked up by.
    type Key: PartialEq;
    /// What every entry may need when its timer fires; there is one in each table.
    type Context: Send + Sync;

    /// The entry's key; it never changes.
    fn key(&self) -> &Self::Key;
    /// When the entry ends if nothing more happens; asked when its timer fires, in a softirq.
    fn deadline(&self, context: &Self::Context) -> Ticks;
    /// The entry has left the table; called once. Readers may still have it for a while.
    fn unlinked(&self);
}

/// An entry in a table, or about to be.
///
/// # Invariants
///
/// `next` is null or points to a node that is freed no earlier than a grace period after it was
/// unlinked.
pub(crate) struct Node<E: Entry> {
    next: Atomic<*mut Node<E>>,
    table: *const Table<E>,
    hash: u32,
    /// Written under the bucket's lock only.
    linked: Atomic<bool>,
    timer: Opaque<bindings::timer_list>,
    head: Opaque<bindings::callback_head>,
    entry: E,
}

impl<E: Entry> Deref for Node<E> {
    type Target = E;

    fn deref(&self) -> &E {
        &self.entry
    }
}

/// The table.
///
/// # Invariants
///
/// Each bucket's chain consists of nodes made by `KBox::into_raw`, each with a timer that is set
/// up. The table does not move (nodes point to it) and is only dropped where sleeping is allowed.
#[pin_data(PinnedDrop)]
pub(crate) struct Table<E: Entry> {
    buckets: KVVec<Atomic<*mut Node<E>>>,
    locks: Locks,
    count: Atomic<u32>,
    count_max: u32,
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
        while buckets.len() < size {
            buckets
                .push_within_capacity(Atomic::new(ptr::null_mut()))
                .map_err(|_| ENOMEM)?;
        }
        let locks = Locks::new(LOCKS)?;
        Ok(pin_init!(Table {
            buckets,
            locks,
            count: Atomic::new(0),
            count_max,
            context
        }))
    }

    /// What the table was made with.
    pub(crate) fn context(&self) -> &E::Context {
        &self.context
    }

    /// How many buckets it has.
    pub(crate) fn buckets(&self) -> usize {
        self.buckets.len()
    }

    /// The entry with this key.
    pub(crate) fn lookup<'g>(
        &self,
        hash: u32,
        key: &E::Key,
        guard: &'g Guard,
    ) -> Option<&'g Node<E>> {
        self.entries(hash as usize, guard)
            .find(|node| node.hash == hash && node.entry.key() == key)
    }

    /// The entries of a bucket, newest first. An index beyond the last bucket wraps.
    pub(crate) fn entries<'g>(&self, bucket: usize, _guard: &'g Guard) -> Chain<'g, E> {
        let first = self
            .bucket(bucket)
            .map_or(ptr::null_mut(), |bucket| bucket.load(Acquire));
        // SAFETY: By the invariants it is null or a node that outlives the guard.
        let next = unsafe { first.as_ref() };
        Chain { next }
    }

    /// Puts an entry into the table until it is removed or `deadline` has passed.
    pub(crate) fn insert(&self, hash: u32, entry: E, deadline: Ticks) -> Result<(), InsertError> {
        if self.count.fetch_add(1, Relaxed) >= self.count_max {
            self.count.fetch_sub(1, Relaxed);
            return Err(InsertError::Full);
        }
        let node = Node {
            next: Atomic::new(ptr::null_mut()),
            table: self,
            hash,
            linked: Atomic::new(true),
            timer: Opaque::uninit(),
            head: Opaque::uninit(),
            entry,
        };
        let inserted = match KBox::new(node, GFP_ATOMIC) {
            Ok(node) => self.link(node, deadline),
            Err(_) => Err(InsertError::NoMemory),
        };
        if inserted.is_err() {
            self.count.fetch_sub(1, Relaxed);
        }
        inserted
    }

    fn link(&self, node: KBox<Node<E>>, deadline: Ticks) -> Result<(), InsertError> {
        // SAFETY: The timer is the node's own memory, which does not move any more.
        unsafe { bindings::mwlc_timer_setup(node.timer.get(), Some(fired::<E>)) };
        let (Some(bucket), Some(lock)) = (
            self.bucket(node.hash as usize),
            self.lock(node.hash as usize),
        ) else {
            return Err(InsertError::Full);
        };
        lock.with(|()| {
            let first = bucket.load(Relaxed);
            let mut other = first;
            // SAFETY: Nodes of this chain are freed only after they were unlinked under this lock.
            while let Some(existing) = unsafe { other.as_ref() } {
                if existing.hash == node.hash && existing.entry.key() == node.entry.key() {
                    return Err(InsertError::Exists);
                }
                other = existing.next.load(Relaxed);
            }
            node.next.store(first, Relaxed);
            // INVARIANT: The node comes from `KBox::into_raw`, and its timer is set up.
            let node = KBox::into_raw(node);
            bucket.store(node, Release);
            // SAFETY: The node is linked, and whoever unlinks it needs this lock first.
            unsafe { (*node).arm(deadline) };
            Ok(())
        })
    }

    /// Ends an entry; false if somebody else has.
    pub(crate) fn remove(&self, node: &Node<E>) -> bool {
        let (Some(bucket), Some(lock)) = (
            self.bucket(node.hash as usize),
            self.lock(node.hash as usize),
        ) else {
            return false;
        };
        let unlinked = lock.with(|()| {
            if !node.linked.load(Relaxed) {
                return false;
            }
            let mut link = bucket;
            // SAFETY: Nodes of this chain are freed only after they were unlinked under this lock.
            while let Some(other) = unsafe { link.load(Relaxed).as_ref() } {
                if ptr::eq(other, node) {
                    // The node keeps its own `next`, for readers that stand on it.
                    link.store(node.next.load(Relaxed), Release);
                    node.linked.store(false, Relaxed);
                    return true;
                }
                link = &other.next;
            }
            false
        });
        if unlinked {
            self.retire(node);
        }
        unlinked
    }

    /// Ends an entry that the caller has just unlinked.
    fn retire(&self, node: &Node<E>) {
        self.count.fetch_sub(1, Relaxed);
        // SAFETY: The timer was set up before the node was linked.
        unsafe { bindings::timer_shutdown(node.timer.get()) };
        node.entry.unlinked();
        // SAFETY: Only the one who unlinked the node comes here, so its head is queued once.
        // Readers and a running timer callback are done when the grace period is.
        unsafe { bindings::call_rcu(node.head.get(), Some(free::<E>)) };
    }

    /// Arms every timer anew, after the context has changed.
    pub(crate) fn rearm(&self) {
        for bucket in 0..self.buckets.len() {
            for node in self.entries(bucket, &read_lock()) {
                node.arm(node.entry.deadline(&self.context));
            }
        }
    }

    /// Ends every entry.
    pub(crate) fn clear(&self) {
        for bucket in 0..self.buckets.len() {
            // A guard for each entry, for there may be millions and grace periods must not wait
            // that long.
            loop {
                let guard = read_lock();
                match self.entries(bucket, &guard).next() {
                    Some(node) => self.remove(node),
                    None => break,
                };
            }
        }
    }

    fn bucket(&self, hash: usize) -> Option<&Atomic<*mut Node<E>>> {
        // The number of buckets is a power of two.
        self.buckets.get(hash & self.buckets.len().wrapping_sub(1))
    }

    fn lock(&self, hash: usize) -> Option<&BhLock<()>> {
        // Buckets outnumber locks, so equal buckets have equal locks.
        self.locks
            .get(hash & self.buckets.len().wrapping_sub(1) & (LOCKS - 1))
    }
}

#[pinned_drop]
impl<E: Entry> PinnedDrop for Table<E> {
    fn drop(self: Pin<&mut Self>) {
        self.clear();
        // Timer callbacks that had already started refer to the table.
        rcu::synchronize();
    }
}

impl<E: Entry> Node<E> {
    /// Makes the timer fire at `deadline` instead of when it would; does nothing once the entry has
    /// ended.
    pub(crate) fn arm(&self, deadline: Ticks) {
        // SAFETY: The timer was set up before the node was linked; after a shutdown this has no
        // effect.
        unsafe { bindings::mod_timer(self.timer.get(), deadline.0 as c_ulong) };
    }
}

/// An entry's timer: ends the entry, or waits on if it was used meanwhile.
///
/// # Safety
///
/// `timer` is in a `Node<E>` in a live table; the kernel calls this in a softirq.
unsafe extern "C" fn fired<E: Entry>(timer: *mut bindings::timer_list) {
    let timer = timer.cast::<Opaque<bindings::timer_list>>();
    // SAFETY: By the function's contract. The node is freed a grace period after its timer's
    // shutdown, which this softirq holds up.
    let node = unsafe { &*container_of!(timer, Node<E>, timer) };
    // SAFETY: A table waits for running callbacks before it goes.
    let table = unsafe { &*node.table };
    let deadline = node.entry.deadline(&table.context);
    if deadline > Ticks::now() {
        node.arm(deadline);
    } else {
        table.remove(node);
    }
}

/// Frees a node that was unlinked.
///
/// # Safety
///
/// `head` is in a `Node<E>` that nobody refers to any more.
unsafe extern "C" fn free<E: Entry>(head: *mut bindings::callback_head) {
    let head = head.cast::<Opaque<bindings::callback_head>>();
    // SAFETY: By the function's contract.
    let node = unsafe { container_of!(head, Node<E>, head) };
    // SAFETY: It came from `KBox::into_raw`, and this is the last reference.
    drop(unsafe { KBox::from_raw(node) });
}

/// Walks a bucket.
pub(crate) struct Chain<'g, E: Entry> {
    next: Option<&'g Node<E>>,
}

impl<'g, E: Entry> Iterator for Chain<'g, E> {
    type Item = &'g Node<E>;

    fn next(&mut self) -> Option<&'g Node<E>> {
        let node = self.next?;
        // SAFETY: By `Node`'s invariant it is null or outlives the guard that 'g comes from.
        self.next = unsafe { node.next.load(Acquire).as_ref() };
        Some(node)
    }
}
