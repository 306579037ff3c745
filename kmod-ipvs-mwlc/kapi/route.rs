// SPDX-License-Identifier: GPL-2.0-only
//! The way to a real server: a cached route, looked up again when the kernel has declared it stale.

use core::ptr::{self, NonNull};

use super::atomic::{Acquire, Atomic, Full, Relaxed};
use kernel::sync::rcu::Guard;

use super::bindings;
use super::packet::Packet;
use super::pernet::Net;
use crate::director::address::Address;

/// A place for one real server's route.
///
/// # Invariants
///
/// `dst` is null, or a reference that this cell owns; it is released only after it was taken out,
/// and the kernel frees a released one after a grace period.
pub(crate) struct RouteCell {
    dst: Atomic<*mut bindings::dst_entry>,
    /// What the kernel tells a stale IPv6 route by. Of another route for a moment it makes this one look
    /// stale, and it is looked up again.
    cookie: Atomic<u32>,
}

// SAFETY: Routes are shared between CPUs; the cell's pointer is only changed atomically.
unsafe impl Send for RouteCell {}
// SAFETY: As above.
unsafe impl Sync for RouteCell {}

/// A valid route, for as long as the RCU guard is held.
#[derive(Clone, Copy)]
pub(crate) struct Route<'g> {
    dst: NonNull<bindings::dst_entry>,
    _guard: &'g Guard,
}

/// A packet that may not be cut and is longer than its path's MTU.
pub(crate) struct TooLong {
    pub(crate) packet: Packet,
    /// In bytes.
    pub(crate) mtu: u32,
}

/// Where a real server is.
#[derive(Clone, Copy)]
pub(crate) enum Way<'g> {
    /// Beyond a device.
    Remote(Route<'g>),
    /// The address is this host's own.
    Local,
    /// There is no route.
    None,
}

impl RouteCell {
    /// A cell that knows no route yet.
    pub(crate) const fn new() -> RouteCell {
        // INVARIANT: `dst` is null.
        RouteCell {
            dst: Atomic::new(ptr::null_mut()),
            cookie: Atomic::new(0),
        }
    }

    /// The way to `address`, the same in every call.
    #[inline]
    pub(crate) fn get<'g>(&self, net: Net, address: Address, guard: &'g Guard) -> Way<'g> {
        if let Some(dst) = NonNull::new(self.dst.load(Acquire)) {
            // SAFETY: By the invariants it is valid under RCU.
            match unsafe { bindings::mwlc_dst_kind(dst.as_ptr(), self.cookie.load(Relaxed)) } {
                bindings::MWLC_DST_REMOTE => return Way::Remote(Route { dst, _guard: guard }),
                bindings::MWLC_DST_LOCAL => return Way::Local,
                _ => {}
            }
        }
        self.look_up(net, address, guard)
    }

    #[inline(never)]
    fn look_up<'g>(&self, net: Net, address: Address, guard: &'g Guard) -> Way<'g> {
        // SAFETY: The namespace is alive while its packets are handled; the address is read only.
        let found = unsafe {
            match address {
                Address::V4(bytes) => {
                    bindings::mwlc_route_output(net.as_ptr(), u32::from_ne_bytes(bytes))
                }
                Address::V6(bytes) => bindings::mwlc_route_output6(net.as_ptr(), bytes.as_ptr()),
            }
        };
        let cookie = if found.is_null() {
            0
        } else {
            // SAFETY: It was returned with a reference.
            unsafe { bindings::mwlc_dst_cookie(found) }
        };
        self.cookie.store(cookie, Relaxed);
        self.put(found);
        // It may be taken out again at once by another CPU, but not freed before the guard is
        // dropped.
        let Some(dst) = NonNull::new(found) else {
            return Way::None;
        };
        // SAFETY: As above.
        match unsafe { bindings::mwlc_dst_kind(dst.as_ptr(), cookie) } {
            bindings::MWLC_DST_LOCAL => Way::Local,
            // If it has become stale since, the next packet looks again.
            _ => Way::Remote(Route { dst, _guard: guard }),
        }
    }

    /// Lets the route go, so that it holds no device.
    pub(crate) fn forget(&self) {
        self.put(ptr::null_mut());
    }

    fn put(&self, dst: *mut bindings::dst_entry) {
        // INVARIANT: `dst` is null or was returned with a reference, which the cell now owns.
        let old = self.dst.xchg(dst, Full);
        if !old.is_null() {
            // SAFETY: The cell owned this reference and has given it up.
            unsafe { bindings::dst_release(old) };
        }
    }
}

impl Drop for RouteCell {
    fn drop(&mut self) {
        self.forget();
    }
}

impl Route<'_> {
    /// The path's MTU in bytes.
    #[inline]
    pub(crate) fn mtu(self) -> u32 {
        // SAFETY: The route is valid while the guard is held.
        unsafe { bindings::mwlc_dst_mtu(self.dst.as_ptr()) }
    }

    /// Decrements the time to live, which must be above 1, and sends the packet, which is no longer
    /// than the MTU, to the real server's link-layer address. False if it was freed for want of
    /// memory.
    #[inline]
    pub(crate) fn forward(self, packet: Packet) -> bool {
        let net = packet.net();
        // SAFETY: The packet is valid and given away here; the guard keeps the route until the
        // neighbour has the packet.
        unsafe {
            bindings::mwlc_skb_forward(net.as_ptr(), packet.into_raw().as_ptr(), self.dst.as_ptr())
        }
    }

    /// As [`Route::forward`], of a packet that is longer than the MTU: in segments or fragments. The MTU is the
    /// error if it may not be cut.
    pub(crate) fn forward_long(self, packet: Packet) -> Result<bool, TooLong> {
        let Some(packet) = packet.settled() else {
            return Ok(false);
        };
        let (net, mtu) = (packet.net(), self.mtu());
        // SAFETY: The packet is valid and settled.
        if unsafe { bindings::mwlc_skb_exceeds_mtu(packet.as_ptr(), mtu) } {
            return Err(TooLong { packet, mtu });
        }
        // SAFETY: As in `forward`.
        let sent = unsafe {
            let skb = packet.into_raw().as_ptr();
            bindings::mwlc_skb_forward_long(net.as_ptr(), skb, self.dst.as_ptr())
        };
        Ok(sent)
    }
}
