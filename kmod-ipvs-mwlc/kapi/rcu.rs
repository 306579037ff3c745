// SPDX-License-Identifier: GPL-2.0-only
//! Grace periods, and a value that packets read without a lock while configuration replaces it.

use core::ptr::NonNull;

use kernel::alloc::AllocError;
use kernel::container_of;
use kernel::prelude::*;
use kernel::sync::rcu::Guard;
use kernel::types::Opaque;

use super::atomic::{Acquire, Atomic, Full};
use super::bindings;

/// The guard of a read section that the caller is in already.
///
/// # Safety
///
/// RCU's read side must be locked for all of `'g`.
#[inline(always)]
pub(super) unsafe fn held<'g>() -> &'g Guard {
    const { assert!(size_of::<Guard>() == 0, "a guard has no bytes") };
    // SAFETY: A value without bytes may be anywhere. All that a guard means, that the read side is locked, is
    // so by the function's contract; its drop, which would unlock it, does not run for a reference.
    unsafe { NonNull::dangling().as_ref() }
}

/// Waits until every reader that is under way now is done. Sleeps.
///
/// The kernel crate has this and [`barrier`] only from 7.3 on.
pub(crate) fn synchronize() {
    // SAFETY: No requirements but a context that may sleep; in another the kernel warns.
    unsafe { bindings::synchronize_rcu() };
}

/// Waits until every callback that is queued now has run. Sleeps.
pub(crate) fn barrier() {
    // SAFETY: As above.
    unsafe { bindings::rcu_barrier() };
}

/// A replaceable value; readers under RCU see the old one or the new one, whole.
///
/// # Invariants
///
/// `current` comes from `KBox::into_raw` and is freed only a grace period after it was replaced, or
/// with the cell.
pub(crate) struct RcuCell<T: Send + Sync + 'static> {
    current: Atomic<*mut Boxed<T>>,
}

struct Boxed<T> {
    head: Opaque<bindings::callback_head>,
    value: T,
}

// SAFETY: The cell hands out `&T` and drops `T` on any CPU, both of which its bound allows.
unsafe impl<T: Send + Sync> Send for RcuCell<T> {}
// SAFETY: As above.
unsafe impl<T: Send + Sync> Sync for RcuCell<T> {}

impl<T: Send + Sync + 'static> RcuCell<T> {
    /// A cell with this value.
    pub(crate) fn new(value: T) -> Result<Self, AllocError> {
        // INVARIANT: `boxed` comes from `KBox::into_raw`.
        Ok(RcuCell {
            current: Atomic::new(boxed(value)?),
        })
    }

    /// The present value, valid for as long as the guard is held.
    pub(crate) fn load<'a>(&'a self, _guard: &'a Guard) -> &'a T {
        // SAFETY: By the type's invariant the pointer is valid for a grace period after any
        // replacement, and the guard keeps that from ending.
        unsafe { &(*self.current.load(Acquire)).value }
    }

    /// Puts `value` in the place of the present one, which is freed when its last reader is done.
    ///
    /// Replacing is atomic, but a caller that derives the new value from the old one holds the
    /// namespace's mutex.
    pub(crate) fn replace(&self, value: T) -> Result<(), AllocError> {
        let old = self.current.xchg(boxed(value)?, Full);
        // SAFETY: `old` was the cell's and no new reader can find it; its head is not queued yet.
        // `free` takes it after every present reader is done.
        unsafe { bindings::call_rcu((*old).head.get(), Some(free::<T>)) };
        Ok(())
    }
}

impl<T: Send + Sync + 'static> Drop for RcuCell<T> {
    fn drop(&mut self) {
        // SAFETY: By the invariant the pointer comes from `KBox::into_raw`; readers borrow the
        // cell, so there are none.
        drop(unsafe { KBox::from_raw(self.current.load(Acquire)) });
    }
}

fn boxed<T>(value: T) -> Result<*mut Boxed<T>, AllocError> {
    Ok(KBox::into_raw(KBox::new(
        Boxed {
            head: Opaque::uninit(),
            value,
        },
        GFP_KERNEL,
    )?))
}

/// Drops a replaced value.
///
/// # Safety
///
/// `head` is in a `Boxed<T>` that nobody refers to any more.
unsafe extern "C" fn free<T>(head: *mut bindings::callback_head) {
    let head = head.cast::<Opaque<bindings::callback_head>>();
    // SAFETY: By the function's contract `head` is the field of a `Boxed<T>`.
    let boxed = unsafe { container_of!(head, Boxed<T>, head) };
    // SAFETY: It came from `KBox::into_raw`, and by the contract this is the last reference.
    drop(unsafe { KBox::from_raw(boxed) });
}
