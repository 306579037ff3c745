// SPDX-License-Identifier: GPL-2.0-only
//! A packet that a netfilter hook was given: an owned `sk_buff` whose data begins with its IP
//! header.

use core::mem::ManuallyDrop;
use core::ptr::NonNull;

use super::bindings;
use super::pernet::Net;

/// The packet. Dropping it frees it; giving it back is [`Packet::into_raw`].
///
/// # Invariants
///
/// The pointer is a valid `sk_buff` with a reference of ours, and `skb->data` is at its IP header. In
/// PRE_ROUTING nobody else has a reference, and at least the header that netfilter has checked is
/// linear. On arrival whoever has one does not look at it any more, and then all of it is linear and
/// no clone shares it.
pub(crate) struct Packet {
    skb: NonNull<bindings::sk_buff>,
    net: Net,
    stage: Stage,
}

/// When a hook sees a packet.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Before the IP layer: see [`super::ingress`].
    Arrival,
    /// In PRE_ROUTING, before connection tracking.
    First,
    /// When the firewall has marked the packet.
    AfterMangle,
}

/// What to tell the sender of a packet that cannot be delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IcmpReply {
    /// No real server can take the connection.
    PortUnreachable,
    /// There is no route to the real server.
    HostUnreachable,
    /// The packet must not be fragmented and is longer than this MTU.
    FragmentationNeeded {
        /// In bytes.
        mtu: u32,
    },
    /// Its time to live ends here.
    TimeExceeded,
}

/// What became of a fragment.
pub(crate) enum Defragmented {
    /// It was the last one that was missing: this is the whole datagram.
    Whole(Packet),
    /// It waits for the others, or was bad; the kernel has it.
    Kept,
}

impl Packet {
    /// Takes a packet from the kernel.
    ///
    /// # Safety
    ///
    /// `skb` must be as the type's invariants say, and belong to the caller, who gives it away.
    /// `net` is its namespace.
    pub(super) unsafe fn from_raw(
        skb: NonNull<bindings::sk_buff>,
        net: Net,
        stage: Stage,
    ) -> Packet {
        // INVARIANT: By the function's contract.
        Packet { skb, net, stage }
    }

    /// Whether the firewall has had its chance to mark it.
    #[inline]
    pub(crate) fn is_marked(&self) -> bool {
        self.stage == Stage::AfterMangle
    }

    /// Gives the packet back to the kernel.
    pub(super) fn into_raw(self) -> NonNull<bindings::sk_buff> {
        ManuallyDrop::new(self).skb
    }

    /// The namespace that it is in.
    #[inline]
    pub(crate) fn net(&self) -> Net {
        self.net
    }

    /// The bytes at hand, from the IP header on.
    #[inline]
    pub(crate) fn linear(&self) -> &[u8] {
        // SAFETY: By the invariants the skb is valid and ours.
        let skb = unsafe { self.skb.as_ref() };
        let length = skb.len.saturating_sub(skb.data_len) as usize;
        // SAFETY: `data` is followed by the linear part, which only `&mut self` methods move.
        unsafe { core::slice::from_raw_parts(skb.data, length) }
    }

    /// Its length with the IP header, in bytes.
    #[inline]
    pub(crate) fn bytes(&self) -> usize {
        // SAFETY: By the invariants the skb is valid and ours.
        unsafe { self.skb.as_ref().len as usize }
    }

    /// Makes at least the first `bytes` linear; false if it has not so many or there is no memory.
    /// (What has another reference is linear, so nothing is moved of that.)
    pub(crate) fn pull(&mut self, bytes: usize) -> bool {
        let Ok(bytes) = u32::try_from(bytes) else {
            return false;
        };
        // SAFETY: By the invariants the skb is valid and ours. Slices of the old data are gone, for
        // this borrows mutably.
        unsafe { bindings::mwlc_skb_may_pull(self.skb.as_ptr(), bytes) }
    }

    /// Whether it was looked at when it arrived, and goes its usual way. The second time it is not.
    #[inline]
    pub(crate) fn was_seen(&mut self) -> bool {
        // SAFETY: By the invariants the skb is valid and ours.
        self.stage == Stage::First && unsafe { bindings::mwlc_skb_take_seen(self.skb.as_ptr()) }
    }

    /// Cuts off what its link has added behind its first `bytes`; false if there was no memory.
    #[inline]
    pub(crate) fn trim(&mut self, bytes: usize) -> bool {
        if self.bytes() == bytes {
            return true;
        }
        let Ok(bytes) = u32::try_from(bytes) else {
            return false;
        };
        // SAFETY: By the invariants the skb is valid and ours. Slices of the old data are gone, for
        // this borrows mutably.
        unsafe { bindings::mwlc_skb_trim(self.skb.as_ptr(), bytes) }
    }

    /// The packet as it is in PRE_ROUTING: nobody else's, with what the IP layer notes of it. `None` if
    /// there was no memory for that. It can no longer be accepted then, for it may be a copy.
    pub(crate) fn settled(self) -> Option<Packet> {
        if self.stage != Stage::Arrival {
            return Some(self);
        }
        let (net, stage) = (self.net, Stage::First);
        // SAFETY: The skb is valid and given away here; what comes back is ours.
        let skb = unsafe { bindings::mwlc_skb_settle(self.into_raw().as_ptr()) };
        // INVARIANT: The copy is as the packet was, and is nobody else's.
        NonNull::new(skb).map(|skb| Packet { skb, net, stage })
    }

    /// Whether its frame was addressed to this host alone, not broadcast or overheard.
    #[inline]
    pub(crate) fn is_for_this_host(&self) -> bool {
        // SAFETY: By the invariants the skb is valid and ours.
        !unsafe { bindings::mwlc_skb_is_multicast(self.skb.as_ptr()) }
    }

    /// The mark that the firewall gave it; 0 for none.
    pub(crate) fn mark(&self) -> u32 {
        // SAFETY: By the invariants the skb is valid and ours.
        unsafe { bindings::mwlc_skb_mark(self.skb.as_ptr()) }
    }

    /// Hands a fragment to the kernel's reassembly.
    pub(crate) fn defragment(self) -> Defragmented {
        let (net, stage) = (self.net, self.stage);
        let skb = self.into_raw();
        // SAFETY: The skb is valid and given away here; on 0 the kernel gives back the whole
        // datagram in it.
        if unsafe { bindings::mwlc_skb_defrag(net.as_ptr(), skb.as_ptr()) } == 0 {
            // INVARIANT: `ip_defrag` returned the datagram with data at its IP header.
            Defragmented::Whole(Packet { skb, net, stage })
        } else {
            Defragmented::Kept
        }
    }

    /// Tells the sender, as far as the kernel's rate limits allow, and frees the packet.
    pub(crate) fn reject(self, reply: IcmpReply) {
        // Without memory there is no answer either.
        let Some(packet) = self.settled() else {
            return;
        };
        let skb = packet.as_ptr();
        // SAFETY: By the invariants the skb is valid and ours; it stays ours.
        unsafe {
            if bindings::mwlc_skb_is_ipv6(skb) {
                // `linux/icmpv6.h`
                let (kind, code, info) = match reply {
                    IcmpReply::PortUnreachable => (1, 4, 0),
                    IcmpReply::HostUnreachable => (1, 3, 0),
                    IcmpReply::FragmentationNeeded { mtu } => (2, 0, mtu),
                    IcmpReply::TimeExceeded => (3, 0, 0),
                };
                bindings::mwlc_icmpv6_send(skb, kind, code, info);
            } else {
                // `linux/icmp.h`
                let (kind, code, info) = match reply {
                    IcmpReply::PortUnreachable => (3, 3, 0),
                    IcmpReply::HostUnreachable => (3, 1, 0),
                    IcmpReply::FragmentationNeeded { mtu } => (3, 4, mtu),
                    IcmpReply::TimeExceeded => (11, 0, 0),
                };
                bindings::mwlc_icmp_send(skb, kind, code, info);
            }
        }
    }

    pub(super) fn as_ptr(&self) -> *mut bindings::sk_buff {
        self.skb.as_ptr()
    }
}

impl Drop for Packet {
    fn drop(&mut self) {
        // SAFETY: By the invariants the skb is valid and ours.
        unsafe { bindings::mwlc_skb_drop(self.skb.as_ptr()) };
    }
}
