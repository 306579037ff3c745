// SPDX-License-Identifier: GPL-2.0-only
//! The module's own cache of small objects of one size, so that a packet gets one in few
//! instructions and `/proc/slabinfo` shows what connections take.

use core::mem::ManuallyDrop;
use core::ops::Deref;
use core::ptr::NonNull;

use kernel::error::to_result;
use kernel::prelude::*;

use super::bindings;

/// The size of an object: with its bucket's twelve bytes it stays below 128. It is not aligned to cache
/// lines, for that would be 128 without a bucket.
pub(crate) const OBJECT_BYTES: usize = if cfg!(CONFIG_DEBUG_LOCK_ALLOC) {
    128
} else {
    112
};
const OBJECT_ALIGN: usize = 16;

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

/// An object without a value.
///
/// # Invariants
///
/// The pointer comes from `mwlc_cache_alloc`, is big enough and aligned for a `T`, and nobody else frees
/// it.
pub(crate) struct Vacant<T>(NonNull<T>);

/// An object for a value that is still to come; `None` if there is no memory, or no cache. Does not
/// sleep.
#[inline]
pub(crate) fn reserve<T>() -> Option<Vacant<T>> {
    const { assert!(size_of::<T>() <= OBJECT_BYTES && align_of::<T>() <= OBJECT_ALIGN) };
    // SAFETY: No requirements; without a cache it returns null.
    let object = NonNull::new(unsafe { bindings::mwlc_cache_alloc() })?;
    // INVARIANT: As it says.
    Some(Vacant(object.cast()))
}

impl<T> Vacant<T> {
    /// Moves `value` into it.
    #[inline(always)]
    pub(crate) fn fill(self, value: T) -> Owned<T> {
        let object = ManuallyDrop::new(self).0;
        // SAFETY: By the invariants the object is big enough, aligned, and nobody else's.
        unsafe { object.write(value) };
        // INVARIANT: As it says.
        Owned(object)
    }
}

impl<T> Drop for Vacant<T> {
    fn drop(&mut self) {
        // SAFETY: By the invariants the memory is ours.
        unsafe { bindings::mwlc_cache_free(self.0.as_ptr().cast()) };
    }
}

impl<T> Owned<T> {
    /// Gives the object up; [`Owned::from_raw`] takes it again.
    pub(crate) fn into_raw(self) -> NonNull<T> {
        ManuallyDrop::new(self).0
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
