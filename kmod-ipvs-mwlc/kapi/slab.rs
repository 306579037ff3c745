// SPDX-License-Identifier: GPL-2.0-only
//! The module's own cache of small objects of one size, so that a packet gets one in few
//! instructions and `/proc/slabinfo` shows what connections take.

use core::ops::Deref;
use core::ptr::NonNull;

use kernel::error::to_result;
use kernel::prelude::*;

use super::bindings;

/// The size of an object, and what it is aligned to, so that it fills two cache lines and no third.
pub(crate) const OBJECT_BYTES: usize = 128;
const OBJECT_ALIGN: usize = 64;

/// The cache. It must be made before the first object, and dropped after the last was freed.
pub(crate) struct Registration(());

impl Registration {
    /// Makes the cache.
    pub(crate) fn new() -> Result<Registration> {
        // SAFETY: No requirements. The C side keeps the cache.
        to_result(unsafe {
            bindings::mwlc_cache_create(OBJECT_BYTES as c_uint, OBJECT_ALIGN as c_uint)
        })?;
        Ok(Registration(()))
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        // SAFETY: It was created by `new`; objects outlive nothing that this module registers.
        unsafe { bindings::mwlc_cache_destroy() };
    }
}

/// An object that somebody owns, as a `Box` does.
///
/// # Invariants
///
/// The pointer comes from `mwlc_cache_alloc`, points to a valid `T`, and nobody else frees it.
pub(crate) struct Owned<T>(NonNull<T>);

/// Moves `value` into an object; `None` if there is no memory, or no cache. Does not sleep.
#[inline]
pub(crate) fn alloc<T>(value: T) -> Option<Owned<T>> {
    const { assert!(size_of::<T>() <= OBJECT_BYTES && align_of::<T>() <= OBJECT_ALIGN) };
    // SAFETY: No requirements; without a cache it returns null.
    let object = NonNull::new(unsafe { bindings::mwlc_cache_alloc() })?.cast::<T>();
    // SAFETY: The object is big enough, aligned, and nobody else's.
    unsafe { object.write(value) };
    // INVARIANT: As it says.
    Some(Owned(object))
}

impl<T> Owned<T> {
    /// Gives the object up; [`Owned::from_raw`] takes it again.
    pub(crate) fn into_raw(self) -> *mut T {
        core::mem::ManuallyDrop::new(self).0.as_ptr()
    }

    /// Takes an object again.
    ///
    /// # Safety
    ///
    /// The pointer comes from [`Owned::into_raw`], and nobody refers to the object any more.
    pub(crate) unsafe fn from_raw(object: *mut T) -> Owned<T> {
        // SAFETY: `into_raw` returns no null.
        // INVARIANT: By the function's contract.
        Owned(unsafe { NonNull::new_unchecked(object) })
    }
}

impl<T> Deref for Owned<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: By the invariants it is valid, and borrowed from its owner.
        unsafe { self.0.as_ref() }
    }
}

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        // SAFETY: By the invariants the value is valid and ours alone, and so is its memory.
        unsafe {
            self.0.drop_in_place();
            bindings::mwlc_cache_free(self.0.as_ptr().cast());
        }
    }
}
