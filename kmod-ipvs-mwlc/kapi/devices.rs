// SPDX-License-Identifier: GPL-2.0-only
//! Hears when a network device of a namespace goes, so that nobody holds it up.

use kernel::container_of;
use kernel::error::to_result;
use kernel::prelude::*;
use kernel::sync::Arc;
use kernel::types::Opaque;

use super::bindings;
use super::pernet::Net;

/// Who keeps what refers to devices.
pub(crate) trait Keeper: Send + Sync + 'static {
    /// A device goes: references to it, and to what refers to it, are to be given up. Called under
    /// RTNL, and again each second while somebody still has one.
    fn device_goes(&self);
}

/// The notifier; dropping it unregisters it. That sleeps, and takes RTNL.
///
/// # Invariants
///
/// `watch` is registered in its namespace as a notifier.
pub(crate) struct Registration<T: Keeper> {
    watch: Pin<KBox<Watch<T>>>,
}

#[pin_data]
struct Watch<T> {
    #[pin]
    notifier: Opaque<bindings::notifier_block>,
    net: Net,
    keeper: Arc<T>,
}

// SAFETY: The notifier may be unregistered from any thread.
unsafe impl<T: Keeper> Send for Registration<T> {}
// SAFETY: There are no methods on a shared reference.
unsafe impl<T: Keeper> Sync for Registration<T> {}

impl<T: Keeper> Registration<T> {
    /// Tells `keeper` of every device of `net` that goes from now on.
    pub(crate) fn new(net: Net, keeper: Arc<T>) -> Result<Self> {
        let notifier = bindings::notifier_block {
            notifier_call: Some(device_event::<T>),
            ..Default::default()
        };
        let watch = KBox::pin_init(
            pin_init!(Watch {
                notifier: Opaque::new(notifier),
                net,
                keeper,
            }),
            GFP_KERNEL,
        )?;
        // SAFETY: The notifier stays where it is until it is unregistered.
        to_result(unsafe {
            bindings::register_netdevice_notifier_net(net.as_ptr(), watch.notifier.get())
        })?;
        // INVARIANT: It has just been registered.
        Ok(Registration { watch })
    }
}

impl<T: Keeper> Drop for Registration<T> {
    fn drop(&mut self) {
        // SAFETY: By the invariants it is registered.
        unsafe {
            bindings::unregister_netdevice_notifier_net(
                self.watch.net.as_ptr(),
                self.watch.notifier.get(),
            );
        }
    }
}

/// # Safety
///
/// Called by the kernel under RTNL, for a notifier registered by [`Registration::new`].
unsafe extern "C" fn device_event<T: Keeper>(
    notifier: *mut bindings::notifier_block,
    event: c_ulong,
    _info: *mut c_void,
) -> c_int {
    if c_int::try_from(event) == Ok(bindings::MWLC_NETDEV_UNREGISTER) {
        let notifier = notifier.cast::<Opaque<bindings::notifier_block>>();
        // SAFETY: By the function's contract it is the field of a registered `Watch<T>`.
        let watch = unsafe { &*container_of!(notifier, Watch<T>, notifier) };
        watch.keeper.device_goes();
    }
    bindings::MWLC_NOTIFY_DONE as c_int
}
