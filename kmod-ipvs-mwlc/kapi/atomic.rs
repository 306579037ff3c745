// SPDX-License-Identifier: GPL-2.0-only
//! Atomic variables of the module's own Rust code, compiled in place.
//!
//! The kernel crate's atomics are calls of C functions, even a plain load, and an established
//! packet makes twenty of them. What is here has the same names and orders, and is what both sides of
//! its variables use: no C code reads or writes them, but for settings. decisions/0124 has the figures, and why such
//! variables may be used beside the kernel's locks and grace periods on this processor.

#![allow(
    dead_code,
    reason = "every type has the same operations, whoever needs which today"
)]

use core::cell::UnsafeCell;
use core::sync::atomic::{
    AtomicBool, AtomicI32, AtomicI64, AtomicPtr, AtomicU32, AtomicU64, Ordering,
};

#[cfg(not(target_arch = "x86_64"))]
compile_error!("what decisions/0124 says of core's atomics in the kernel is true of x86-64");

/// No order beside the variable's own.
#[derive(Clone, Copy)]
pub(crate) struct Relaxed;
/// A load after which what was stored before the release is seen.
#[derive(Clone, Copy)]
pub(crate) struct Acquire;
/// A store before which everything is seen by the one who acquires.
#[derive(Clone, Copy)]
pub(crate) struct Release;
/// A change that is both, and that all CPUs agree about.
#[derive(Clone, Copy)]
pub(crate) struct Full;

/// An order that a load may have.
pub(crate) trait OfLoad {
    /// Core's name for it.
    const ORDER: Ordering;
}
/// An order that a store may have.
pub(crate) trait OfStore {
    /// Core's name for it.
    const ORDER: Ordering;
}
/// An order that a change may have.
pub(crate) trait OfChange {
    /// Core's name for it.
    const ORDER: Ordering;
    /// The order of a compare-and-exchange that fails.
    const FAILED: Ordering;
}

impl OfLoad for Relaxed {
    const ORDER: Ordering = Ordering::Relaxed;
}
impl OfLoad for Acquire {
    const ORDER: Ordering = Ordering::Acquire;
}
impl OfStore for Relaxed {
    const ORDER: Ordering = Ordering::Relaxed;
}
impl OfStore for Release {
    const ORDER: Ordering = Ordering::Release;
}
impl OfChange for Relaxed {
    const ORDER: Ordering = Ordering::Relaxed;
    const FAILED: Ordering = Ordering::Relaxed;
}
impl OfChange for Full {
    const ORDER: Ordering = Ordering::SeqCst;
    const FAILED: Ordering = Ordering::SeqCst;
}

/// What fits an atomic variable.
///
/// # Safety
///
/// `Cell` is core's atomic variable of the same size and alignment as the type.
pub(crate) unsafe trait Value: Copy {
    /// Core's variable for it.
    type Cell;
}

/// The variable.
///
/// # Invariants
///
/// After it was made, the value is only accessed through its `Cell`.
#[repr(transparent)]
pub(crate) struct Atomic<T: Value>(UnsafeCell<T>);

// SAFETY: All accesses are atomic; what a pointer points to is the user's to prove.
unsafe impl<T: Value> Send for Atomic<T> {}
// SAFETY: As above.
unsafe impl<T: Value> Sync for Atomic<T> {}

impl<T: Value> Atomic<T> {
    /// A variable with this value.
    pub(crate) const fn new(value: T) -> Atomic<T> {
        Atomic(UnsafeCell::new(value))
    }

    #[inline(always)]
    fn cell(&self) -> &T::Cell {
        // SAFETY: By `Value`'s contract the two are laid out alike, and by the invariants nobody
        // else accesses the value other than like this.
        unsafe { &*self.0.get().cast::<T::Cell>() }
    }
}

macro_rules! value {
    ($value:ty, $cell:ty $(, $pointee:ident)?) => {
        // SAFETY: Core promises it of its atomic types.
        unsafe impl$(<$pointee>)? Value for $value {
            type Cell = $cell;
        }

        impl$(<$pointee>)? Atomic<$value> {
            /// Its value.
            #[inline(always)]
            pub(crate) fn load<O: OfLoad>(&self, _order: O) -> $value {
                self.cell().load(O::ORDER)
            }

            /// Gives it another value.
            #[inline(always)]
            pub(crate) fn store<O: OfStore>(&self, value: $value, _order: O) {
                self.cell().store(value, O::ORDER);
            }
        }
    };
}

macro_rules! exchange {
    ($value:ty $(, $pointee:ident)?) => {
        impl$(<$pointee>)? Atomic<$value> {
            /// Gives it another value; the one that it had.
            #[inline(always)]
            pub(crate) fn xchg<O: OfChange>(&self, value: $value, _order: O) -> $value {
                self.cell().swap(value, O::ORDER)
            }

            /// Gives it the value `new` if it has the value `old`; the error is what it has instead.
            #[inline(always)]
            pub(crate) fn cmpxchg<O: OfChange>(
                &self,
                old: $value,
                new: $value,
                _order: O,
            ) -> Result<$value, $value> {
                self.cell().compare_exchange(old, new, O::ORDER, O::FAILED)
            }
        }
    };
}

macro_rules! add {
    ($value:ty) => {
        impl Atomic<$value> {
            /// Adds, wrapping; the value before.
            #[inline(always)]
            pub(crate) fn fetch_add<O: OfChange>(&self, value: $value, _order: O) -> $value {
                self.cell().fetch_add(value, O::ORDER)
            }

            /// Subtracts, wrapping; the value before.
            #[inline(always)]
            pub(crate) fn fetch_sub<O: OfChange>(&self, value: $value, _order: O) -> $value {
                self.cell().fetch_sub(value, O::ORDER)
            }
        }
    };
}

value!(bool, AtomicBool);
value!(i32, AtomicI32);
value!(i64, AtomicI64);
value!(u32, AtomicU32);
value!(u64, AtomicU64);
value!(*mut T, AtomicPtr<T>, T);
exchange!(bool);
exchange!(i32);
exchange!(u32);
exchange!(u64);
exchange!(*mut T, T);
add!(i32);
add!(i64);
add!(u32);
add!(u64);

impl Atomic<u32> {
    /// Gives it the smaller one of its value and this.
    #[inline(always)]
    pub(crate) fn fetch_min<O: OfChange>(&self, value: u32, _order: O) -> u32 {
        self.cell().fetch_min(value, O::ORDER)
    }
}
