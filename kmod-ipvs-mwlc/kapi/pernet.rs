// SPDX-License-Identifier: GPL-2.0-only
//! Network namespaces, and state that each of them has.

use core::cell::UnsafeCell;
use core::marker::PhantomData;
use core::pin::Pin;
use core::ptr::NonNull;

use kernel::error::to_result;
use kernel::prelude::*;
use kernel::types::Opaque;

use super::bindings;

/// A network namespace.
///
/// # Invariants
///
/// The pointer is valid: values are only kept in what the namespace's exit takes down, or for the
/// time of a callback.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Net(NonNull<bindings::net>);

// SAFETY: `struct net` is shared between CPUs.
unsafe impl Send for Net {}
// SAFETY: As above.
unsafe impl Sync for Net {}

impl Net {
    /// Names a namespace; `None` for null.
    ///
    /// # Safety
    ///
    /// If not null, the pointer must be valid for as long as the type's invariants say.
    pub(super) unsafe fn from_raw(net: *mut bindings::net) -> Option<Net> {
        // INVARIANT: By the function's contract.
        NonNull::new(net).map(Net)
    }

    pub(super) fn as_ptr(self) -> *mut bindings::net {
        self.0.as_ptr()
    }
}

/// State that every network namespace has, from its start or the module's to its end or the
/// module's.
pub(crate) trait PerNet: Send + Sync + Sized + 'static {
    /// The state of a new namespace.
    fn new(net: Net) -> Result<Pin<KBox<Self>>>;
    /// Where the kernel keeps which number this state has; one static for each implementation.
    fn slot() -> &'static Slot<Self>;
}

/// Where the kernel keeps which number a kind of state has.
pub(crate) struct Slot<T> {
    id: UnsafeCell<c_uint>,
    _state: PhantomData<fn() -> T>,
}

// SAFETY: The kernel writes `id` once in `register_pernet_subsys`, before it calls anything that
// reads it.
unsafe impl<T> Sync for Slot<T> {}

impl<T: PerNet> Slot<T> {
    /// A slot without a number.
    pub(crate) const fn new() -> Slot<T> {
        Slot {
            id: UnsafeCell::new(0),
            _state: PhantomData,
        }
    }
}

/// The state of a namespace.
///
/// The reference is as short as the callback that has the `Net`: whoever can name a namespace keeps
/// its exit from running.
pub(crate) fn state<T: PerNet>(net: &Net) -> Option<&T> {
    // SAFETY: The namespace is valid. The slot's cell is big enough for a pointer, zeroed by the
    // kernel before `init`.
    unsafe {
        let cell = bindings::mwlc_net_generic(net.as_ptr(), *T::slot().id.get());
        cell.cast::<*const T>()
            .as_ref()
            .and_then(|state| state.as_ref())
    }
}

/// Registered per-namespace state; dropping it takes it from every namespace.
pub(crate) struct Registration<T: PerNet> {
    ops: Pin<KBox<Opaque<bindings::pernet_operations>>>,
    _state: PhantomData<fn() -> T>,
}

// SAFETY: It may be unregistered from any thread, and has no methods.
unsafe impl<T: PerNet> Send for Registration<T> {}
// SAFETY: As above.
unsafe impl<T: PerNet> Sync for Registration<T> {}

impl<T: PerNet> Registration<T> {
    /// Gives every namespace, present and to come, its state.
    pub(crate) fn new() -> Result<Self> {
        let ops = bindings::pernet_operations {
            init: Some(init::<T>),
            exit: Some(exit::<T>),
            id: T::slot().id.get(),
            size: size_of::<*mut T>(),
            ..Default::default()
        };
        let ops = KBox::pin(Opaque::new(ops), GFP_KERNEL)?;
        // SAFETY: The operations stay where they are until they are unregistered.
        to_result(unsafe { bindings::register_pernet_subsys(ops.get()) })?;
        Ok(Registration {
            ops,
            _state: PhantomData,
        })
    }
}

impl<T: PerNet> Drop for Registration<T> {
    fn drop(&mut self) {
        // SAFETY: They were registered by `new`.
        unsafe { bindings::unregister_pernet_subsys(self.ops.get()) };
    }
}

/// # Safety
///
/// Called by the kernel for a namespace that is being made, or on registration.
unsafe extern "C" fn init<T: PerNet>(net: *mut bindings::net) -> c_int {
    // SAFETY: The kernel passes a valid namespace; what we keep of it goes in `exit`.
    let Some(namespace) = (unsafe { Net::from_raw(net) }) else {
        return EINVAL.to_errno();
    };
    match T::new(namespace) {
        Ok(state) => {
            // SAFETY: The kernel has allocated `size` bytes for us, and nobody reads them before
            // `init` returns. The pinned value is not moved, only its owner is forgotten until
            // `exit`.
            unsafe {
                let cell = bindings::mwlc_net_generic(net, *T::slot().id.get()).cast::<*mut T>();
                *cell = KBox::into_raw(Pin::into_inner_unchecked(state));
            }
            0
        }
        Err(error) => error.to_errno(),
    }
}

/// # Safety
///
/// Called by the kernel for a namespace that ends, or on unregistration.
unsafe extern "C" fn exit<T: PerNet>(net: *mut bindings::net) {
    // SAFETY: `init` stored a pointer from `KBox::into_raw` here. Netlink sockets and /proc of the
    // namespace can no longer be used, so nobody else refers to the state.
    unsafe {
        let cell = bindings::mwlc_net_generic(net, *T::slot().id.get()).cast::<*mut T>();
        let state = core::mem::replace(&mut *cell, core::ptr::null_mut());
        if !state.is_null() {
            drop(Pin::new_unchecked(KBox::from_raw(state)));
        }
    }
}
