// SPDX-License-Identifier: GPL-2.0-only
//! Looks after the drains that are under way: when their time is over, what is left is ended or sent elsewhere.

use core::ptr;

use crate::datapath::dispatch::redispatch;
use crate::director::drain::DrainPolicy;
use crate::director::event::Event;
use crate::state::balancer::Balancer;
use crate::state::destination::Destination;

/// Looks after the drains that are under way. In a context that may sleep.
pub(super) fn look_after(balancer: &Balancer) {
    let mut at = (0usize, 0usize);
    while let Some(destination) = balancer.next_destination(&mut at) {
        if destination.drain.comes_due() {
            evict(balancer, &destination, destination.drain.policy());
        }
        if destination
            .drain
            .comes_empty(destination.load().connections())
        {
            balancer.tell(&Event::DestDrained(
                destination.service(),
                destination.key(),
            ));
        }
    }
}

/// Ends every connection of a real server, or sends it elsewhere. Walks over the whole table, so it sleeps, and
/// not under the namespace's mutex.
pub(crate) fn evict(balancer: &Balancer, destination: &Destination, policy: DrainPolicy) {
    balancer.connections.walk(|node, guard| {
        if !ptr::eq(&*node.destination, destination) {
            return;
        }
        let moved = policy == DrainPolicy::Redispatch && redispatch(balancer, node, guard);
        if !moved {
            balancer.connections.remove(node);
        }
    });
}
