// SPDX-License-Identifier: GPL-2.0-only
//! A netfilter hook on PRE_ROUTING of both families.

use core::ptr::NonNull;

use kernel::error::to_result;
use kernel::prelude::*;
use kernel::sync::rcu::Guard;
use kernel::sync::Arc;

use super::bindings;
use super::packet::{Packet, Stage};
use super::pernet::Net;
use super::rcu;

/// Between the raw table, where an administrator can still drop or mark, and connection tracking,
/// which would make an entry of its own for every connection that the director has one for.
pub(super) const PRIORITY: i32 = bindings::MWLC_NF_IP_PRI_RAW + 10;
const _: () = assert!(bindings::MWLC_NF_IP_PRI_RAW == bindings::MWLC_NF_IP6_PRI_RAW);

/// After the mangle table, where an administrator marks packets.
const PRIORITY_AFTER_MANGLE: i32 = bindings::MWLC_NF_IP_PRI_MANGLE + 10;
const _: () = assert!(bindings::MWLC_NF_IP_PRI_MANGLE == bindings::MWLC_NF_IP6_PRI_MANGLE);

/// What a hook decides.
pub(crate) enum Verdict {
    /// The packet goes its usual way, and a later hook need not look at it again.
    Accept(Packet),
    /// The packet goes its usual way, and a later hook has to look at it.
    Leave(Packet),
    /// The packet was sent on or freed.
    Consumed,
}

/// Who is asked about packets.
pub(crate) trait PreRouting: Send + Sync + 'static {
    /// Decides about one packet. Called in a softirq, on many CPUs at once.
    fn packet(&self, packet: Packet, guard: &Guard) -> Verdict;
}

/// What netfilter calls.
type HookFn = unsafe extern "C" fn(
    *mut c_void,
    *mut bindings::sk_buff,
    *const bindings::nf_hook_state,
) -> c_uint;

/// A registered hook; dropping it unregisters and waits until no CPU is in it. That sleeps.
///
/// # Invariants
///
/// `ops` are registered in `net`, and their `priv` is `target`.
pub(crate) struct Registration<T: PreRouting> {
    ops: KBox<[bindings::nf_hook_ops; 2]>,
    net: Net,
    /// Whether IPv6 fragments are put together for us.
    defrag: bool,
    _target: Arc<T>,
}

// SAFETY: The hook may be unregistered from any thread.
unsafe impl<T: PreRouting> Send for Registration<T> {}
// SAFETY: There are no methods on a shared reference.
unsafe impl<T: PreRouting> Sync for Registration<T> {}

impl<T: PreRouting> Registration<T> {
    /// Asks `target` about every packet in `net` from now on, before connection tracking.
    pub(crate) fn first(net: Net, target: Arc<T>) -> Result<Self> {
        Registration::new(net, target, hook::<T, false>, PRIORITY)
    }

    /// Asks `target` about every packet in `net` from now on, when the firewall has marked it.
    pub(crate) fn after_mangle(net: Net, target: Arc<T>) -> Result<Self> {
        Registration::new(net, target, hook::<T, true>, PRIORITY_AFTER_MANGLE)
    }

    fn new(net: Net, target: Arc<T>, hook: HookFn, priority: i32) -> Result<Self> {
        let ops = |family: u32| bindings::nf_hook_ops {
            hook: Some(hook),
            priv_: Arc::as_ptr(&target).cast_mut().cast(),
            pf: family as u8,
            hooknum: bindings::MWLC_NF_INET_PRE_ROUTING as u32,
            priority,
            ..Default::default()
        };
        let families = [
            ops(bindings::MWLC_NFPROTO_IPV4 as u32),
            ops(bindings::MWLC_NFPROTO_IPV6 as u32),
        ];
        let ops = KBox::new(families, GFP_KERNEL)?;
        // SAFETY: `ops` stay where they are until they are unregistered, and `priv` lives as long.
        to_result(unsafe {
            bindings::nf_register_net_hooks(net.as_ptr(), ops.as_ptr(), ops.len() as c_uint)
        })?;
        // SAFETY: The namespace is valid.
        let defrag = unsafe { bindings::mwlc_defrag6_start(net.as_ptr()) } == 0;
        if !defrag {
            pr_warn!("no nf_defrag_ipv6: fragments of IPv6 datagrams are not balanced\n");
        }
        // INVARIANT: They have just been registered.
        Ok(Registration {
            ops,
            net,
            defrag,
            _target: target,
        })
    }
}

impl<T: PreRouting> Drop for Registration<T> {
    fn drop(&mut self) {
        // SAFETY: By the invariants they are registered in this namespace.
        unsafe {
            bindings::nf_unregister_net_hooks(
                self.net.as_ptr(),
                self.ops.as_ptr(),
                self.ops.len() as c_uint,
            );
        }
        if self.defrag {
            // SAFETY: It was started by `new`, in this namespace.
            unsafe { bindings::mwlc_defrag6_stop(self.net.as_ptr()) };
        }
        // CPUs may still be in the hook until a grace period is over; then the target may go.
        rcu::synchronize();
    }
}

/// The C face of [`PreRouting::packet`].
///
/// # Safety
///
/// Called by netfilter for a hook registered by [`Registration::new`], which makes `target` an
/// `Arc<T>`'s value.
unsafe extern "C" fn hook<T: PreRouting, const AFTER_MANGLE: bool>(
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
    let stage = if AFTER_MANGLE {
        Stage::AfterMangle
    } else {
        Stage::First
    };
    // SAFETY: In PRE_ROUTING the data begins with an IP header that the stack has checked, and the
    // hook may keep the skb.
    let packet = unsafe { Packet::from_raw(skb, net, stage) };
    match target.packet(packet, guard) {
        Verdict::Accept(packet) | Verdict::Leave(packet) => {
            // After reassembly it would be another skb; netfilter goes on with the one it gave.
            let _same = packet.into_raw();
            bindings::MWLC_NF_ACCEPT as c_uint
        }
        Verdict::Consumed => bindings::MWLC_NF_STOLEN as c_uint,
    }
}
