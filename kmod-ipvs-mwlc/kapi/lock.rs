// SPDX-License-Identifier: GPL-2.0-only
//! A spinlock that also keeps softirqs off this CPU, for data that packets and configuration both
//! change.
//!
//! There are two kinds, and a debugging kernel's lockdep knows them apart: under an *outer* one, at
//! most one *leaf* may be taken, and under a leaf none at all.

use core::cell::UnsafeCell;

use kernel::prelude::*;
use kernel::types::Opaque;

use super::bindings;

/// A value behind `spin_lock_bh`.
#[pin_data]
pub(crate) struct BhLock<T> {
    #[pin]
    raw: Opaque<bindings::spinlock_t>,
    value: UnsafeCell<T>,
}

// SAFETY: The lock gives its value to one thread at a time.
unsafe impl<T: Send> Sync for BhLock<T> {}
// SAFETY: As for the value; the raw lock is a word of memory.
unsafe impl<T: Send> Send for BhLock<T> {}

impl<T> BhLock<T> {
    /// An unlocked value, behind a leaf.
    pub(crate) fn new(value: T) -> impl PinInit<Self> {
        Self::of_kind(value, false)
    }

    /// An unlocked value, behind an outer lock.
    pub(crate) fn outer(value: T) -> impl PinInit<Self> {
        Self::of_kind(value, true)
    }

    fn of_kind(value: T, is_outer: bool) -> impl PinInit<Self> {
        pin_init!(BhLock {
            // SAFETY: The slot is valid for writing a spinlock and is pinned from here on.
            raw <- Opaque::ffi_init(|slot| unsafe { bindings::mwlc_lock_init(slot, is_outer) }),
            value: UnsafeCell::new(value),
        })
    }

    /// Runs `critical` with the value. It must not sleep, nor take this lock again.
    pub(crate) fn with<R>(&self, critical: impl FnOnce(&mut T) -> R) -> R {
        // SAFETY: `new` initialised the lock.
        unsafe { bindings::mwlc_lock_bh(self.raw.get()) };
        // SAFETY: The lock is held, so nobody else has a reference to the value.
        let result = critical(unsafe { &mut *self.value.get() });
        // SAFETY: It was locked above, on this CPU.
        unsafe { bindings::mwlc_unlock_bh(self.raw.get()) };
        result
    }
}

/// A lock without a value of its own.
#[pin_data]
struct Bare {
    #[pin]
    lock: BhLock<()>,
}

/// Locks that share out a larger number of things.
pub(crate) struct Locks(Pin<KBox<[Bare]>>);

impl Locks {
    /// `count` locks.
    pub(crate) fn new(count: usize) -> Result<Locks> {
        // `pin_slice` wants an initialiser with an error of its own.
        let lock = |_| try_pin_init!(Bare { lock <- BhLock::new(()) }? Error);
        Ok(Locks(KBox::pin_slice(lock, count, GFP_KERNEL)?))
    }

    /// The lock for `index`, which is less than the count.
    pub(crate) fn get(&self, index: usize) -> Option<&BhLock<()>> {
        self.0.get(index).map(|bare| &bare.lock)
    }
}
