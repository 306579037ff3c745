// SPDX-License-Identifier: GPL-2.0-only
//! A netfilter hook at the ingress of every network device of a namespace but loopback, as devices
//! come and go.
//!
//! It sees a packet before the IP layer does, after packet sockets, `tc` and nftables' chains at
//! the device. The kernel has such a hook for each device, so this one follows the namespace's
//! devices by a notifier, under RTNL.

use core::cell::UnsafeCell;
use core::marker::PhantomPinned;
use core::ptr::{self, NonNull};

use kernel::container_of;
use kernel::error::to_result;
use kernel::prelude::*;
use kernel::sync::rcu::Guard;
use kernel::sync::Arc;
use kernel::types::Opaque;

use super::bindings;
use super::netfilter::{Verdict, PRIORITY};
use super::packet::{Packet, Stage};
use super::pernet::Net;
use super::rcu;

/// After whatever an administrator hooks at the device.
const PRIORITY_AT_DEVICE: i32 = i32::MAX;

/// Who is asked about packets that arrive.
pub(crate) trait Arrivals: Send + Sync + 'static {
    /// Decides about a packet that the IP layer has not seen yet; only its frame was looked at.
    /// Called in a softirq, on many CPUs at once.
    fn arrival(&self, packet: Packet, guard: &Guard) -> Verdict;
}

/// The hooks; dropping it unregisters them and waits until no CPU is in one. That sleeps.
///
/// # Invariants
///
/// `devices` is registered in its namespace as a notifier, and `target` is what its hooks call.
pub(crate) struct Registration<T: Arrivals> {
    devices: Pin<KBox<Devices>>,
    _target: Arc<T>,
}

/// The devices that have the hook.
///
/// # Invariants
///
/// `hooks` is the first of a list of hooks that come from `KBox::into_raw` and are registered. It
/// is accessed under RTNL only.
#[pin_data]
struct Devices {
    #[pin]
    notifier: Opaque<bindings::notifier_block>,
    net: Net,
    hook: bindings::nf_hookfn,
    target: *mut c_void,
    hooks: UnsafeCell<*mut DeviceHook>,
    #[pin]
    _pinned: PhantomPinned,
}

/// The hook of one device.
struct DeviceHook {
    ops: bindings::nf_hook_ops,
    next: *mut DeviceHook,
    head: Opaque<bindings::callback_head>,
}

// SAFETY: The notifier may be unregistered from any thread.
unsafe impl<T: Arrivals> Send for Registration<T> {}
// SAFETY: There are no methods on a shared reference.
unsafe impl<T: Arrivals> Sync for Registration<T> {}

impl<T: Arrivals> Registration<T> {
    /// Asks `target` about packets that arrive at devices of `net` from now on; `None` if this kernel
    /// cannot do that.
    pub(crate) fn new(net: Net, target: Arc<T>) -> Result<Option<Self>> {
        // SAFETY: No requirements.
        if !unsafe { bindings::mwlc_has_ingress() } {
            return Ok(None);
        }
        let notifier = bindings::notifier_block {
            notifier_call: Some(device_event),
            ..Default::default()
        };
        let asked = Arc::as_ptr(&target).cast_mut().cast();
        let devices = KBox::pin_init(
            pin_init!(Devices {
                notifier: Opaque::new(notifier),
                net,
                hook: Some(hook::<T>),
                target: asked,
                hooks: UnsafeCell::new(ptr::null_mut()),
                _pinned: PhantomPinned,
            }),
            GFP_KERNEL,
        )?;
        // SAFETY: The notifier stays where it is until it is unregistered. The kernel calls it for
        // the devices that are there before this returns.
        to_result(unsafe {
            bindings::register_netdevice_notifier_net(net.as_ptr(), devices.notifier.get())
        })?;
        // INVARIANT: It has just been registered.
        Ok(Some(Registration {
            devices,
            _target: target,
        }))
    }
}

impl<T: Arrivals> Drop for Registration<T> {
    fn drop(&mut self) {
        // SAFETY: By the invariants it is registered. The kernel calls it for every device that is
        // there, as if the device went.
        unsafe {
            bindings::unregister_netdevice_notifier_net(
                self.devices.net.as_ptr(),
                self.devices.notifier.get(),
            );
        }
        // CPUs may still be in a hook until a grace period is over; then the target may go.
        rcu::synchronize();
    }
}

impl Devices {
    /// Hooks a device that has come.
    ///
    /// # Safety
    ///
    /// Under RTNL; `device` is a valid device of this namespace.
    unsafe fn add(&self, device: *mut bindings::net_device) {
        // SAFETY: By the function's contract.
        if unsafe { bindings::mwlc_dev_is_loopback(device) } {
            return;
        }
        let ops = bindings::nf_hook_ops {
            hook: self.hook,
            dev: device,
            priv_: self.target,
            pf: bindings::MWLC_NFPROTO_NETDEV as u8,
            hooknum: bindings::MWLC_NF_NETDEV_INGRESS as u32,
            priority: PRIORITY_AT_DEVICE,
            ..Default::default()
        };
        let made = KBox::new(
            DeviceHook {
                ops,
                // SAFETY: Under RTNL, by the function's contract.
                next: unsafe { *self.hooks.get() },
                head: Opaque::uninit(),
            },
            GFP_KERNEL,
        );
        let registered = made.map_err(Error::from).and_then(|made| {
            // SAFETY: The operations stay where they are until a grace period after they were
            // unregistered, and the device unregisters them before it goes.
            to_result(unsafe { bindings::nf_register_net_hooks(self.net.as_ptr(), &made.ops, 1) })?;
            Ok(made)
        });
        match registered {
            // INVARIANT: It comes from `into_raw` and is registered.
            // SAFETY: Under RTNL, by the function's contract.
            Ok(made) => unsafe { *self.hooks.get() = KBox::into_raw(made) },
            // Its packets come to PRE_ROUTING, as they would without this hook.
            Err(_) => pr_warn!("no memory to hook a device: its packets cost more\n"),
        }
    }

    /// Unhooks a device that goes.
    ///
    /// # Safety
    ///
    /// Under RTNL.
    unsafe fn remove(&self, device: *mut bindings::net_device) {
        let mut link = self.hooks.get();
        // SAFETY: Under RTNL, by the function's contract; by the invariants the list's hooks are
        // valid, and the one that is taken out is registered in this namespace. Packets may be in it
        // until a grace period is over.
        unsafe {
            while let Some(hook) = NonNull::new(*link) {
                let hook = hook.as_ptr();
                if (*hook).ops.dev != device {
                    link = &raw mut (*hook).next;
                    continue;
                }
                *link = (*hook).next;
                bindings::nf_unregister_net_hooks(self.net.as_ptr(), &raw const (*hook).ops, 1);
                bindings::call_rcu((*hook).head.get(), Some(free));
                return;
            }
        }
    }
}

/// The notifier: a device has come into the namespace, or is about to leave it.
///
/// # Safety
///
/// Called by the kernel under RTNL, for a notifier registered by [`Registration::new`].
unsafe extern "C" fn device_event(
    notifier: *mut bindings::notifier_block,
    event: c_ulong,
    info: *mut c_void,
) -> c_int {
    let notifier = notifier.cast::<Opaque<bindings::notifier_block>>();
    // SAFETY: By the function's contract it is the field of registered `Devices`.
    let devices = unsafe { &*container_of!(notifier, Devices, notifier) };
    // SAFETY: Every event of this chain has such an information, with a valid device.
    let device = unsafe { (*info.cast::<bindings::netdev_notifier_info>()).dev };
    // SAFETY: Under RTNL; the chain is that of this namespace's devices.
    unsafe {
        match c_int::try_from(event) {
            Ok(bindings::MWLC_NETDEV_REGISTER) => devices.add(device),
            Ok(bindings::MWLC_NETDEV_UNREGISTER) => devices.remove(device),
            _ => {}
        }
    }
    bindings::MWLC_NOTIFY_DONE as c_int
}

/// Frees a hook that was unregistered.
///
/// # Safety
///
/// `head` is in a `DeviceHook` that nobody refers to any more.
unsafe extern "C" fn free(head: *mut bindings::callback_head) {
    let head = head.cast::<Opaque<bindings::callback_head>>();
    // SAFETY: By the function's contract `head` is the field of a `DeviceHook` that came from
    // `KBox::into_raw`, and this is the last reference.
    drop(unsafe { KBox::from_raw(container_of!(head, DeviceHook, head)) });
}

/// The C face of [`Arrivals::arrival`].
///
/// # Safety
///
/// Called by netfilter for a hook registered by [`Devices::add`], whose `target` is an `Arc<T>`'s
/// value.
unsafe extern "C" fn hook<T: Arrivals>(
    target: *mut c_void,
    skb: *mut bindings::sk_buff,
    state: *const bindings::nf_hook_state,
) -> c_uint {
    // SAFETY: Netfilter has locked RCU's read side for all its hooks, and nothing lives on after this one.
    let guard = unsafe { rcu::held() };
    // SAFETY: By the function's contract; the registration keeps the target for as long as hooks
    // run.
    let target = unsafe { &*target.cast::<T>() };
    // SAFETY: Netfilter passes a valid state with its namespace.
    let net = unsafe { Net::from_raw((*state).net) };
    let (Some(skb), Some(net)) = (NonNull::new(skb), net) else {
        return bindings::MWLC_NF_ACCEPT as c_uint;
    };
    // SAFETY: Both are valid.
    if !unsafe { bindings::mwlc_skb_arrives(skb.as_ptr(), net.as_ptr(), PRIORITY) } {
        return bindings::MWLC_NF_ACCEPT as c_uint;
    }
    // SAFETY: As was just seen, the data begins where the network layer's does, and the hook may keep
    // the skb.
    let packet = unsafe { Packet::from_raw(skb, net, Stage::Arrival) };
    match target.arrival(packet, guard) {
        Verdict::Accept(packet) => {
            // SAFETY: It is valid.
            unsafe { bindings::mwlc_skb_set_seen(packet.into_raw().as_ptr()) };
            bindings::MWLC_NF_ACCEPT as c_uint
        }
        Verdict::Leave(packet) => {
            let _same = packet.into_raw();
            bindings::MWLC_NF_ACCEPT as c_uint
        }
        Verdict::Consumed => bindings::MWLC_NF_STOLEN as c_uint,
    }
}
