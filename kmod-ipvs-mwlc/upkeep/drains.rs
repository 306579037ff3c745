// SPDX-License-Identifier: GPL-2.0-only
//! Looks after the drains that are under way: when their time is over, what is left is ended or sent elsewhere.

use core::ptr;

use kernel::sync::rcu::{read_lock, Guard};

use crate::director::conn::ConnState;
use crate::director::drain::DrainPolicy;
use crate::director::event::Event;
use crate::kapi::hashtable::{Entry, Table};
use crate::state::balancer::Balancer;
use crate::state::connection::{Connection, Pick};
use crate::state::destination::Destination;

/// Looks after the drains that are under way. In a context that may sleep.
pub(super) fn look_after(balancer: &Balancer) {
    let mut at = (0usize, 0usize);
    // A guard for each real server, since an eviction may walk over millions of entries.
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

/// Ends every connection of a real server, or sends it elsewhere.
pub(crate) fn evict(balancer: &Balancer, destination: &Destination, policy: DrainPolicy) {
    for bucket in 0..balancer.connections.buckets() {
        let guard = read_lock();
        for node in balancer.connections.entries(bucket, &guard) {
            if !ptr::eq(&*node.destination, destination) {
                continue;
            }
            // Its end takes the state away.
            let state = node.word().state();
            let removed = balancer.connections.remove(node);
            if let (true, DrainPolicy::Redispatch, Some(state)) = (removed, policy, state) {
                redispatch(balancer, node, state, &guard);
            }
        }
    }
}

/// Gives the client of a connection that was removed another real server, for its next packet.
/// If there is none, that packet finds out.
fn redispatch(balancer: &Balancer, old: &Connection, state: ConnState, guard: &Guard) {
    let key = *old.key();
    let service = old.destination.service();
    let Some(service) = balancer.services.load(guard).get(&service) else {
        return;
    };
    let Some(vacant) = Table::reserve() else {
        return;
    };
    let hash = balancer.hash(&key);
    let start = |pick: Pick| vacant.fill(hash, Connection::start(key, pick));
    let scheduled = service.assign(&key, state, balancer.surroundings(), guard, start);
    if let Ok(made) = scheduled {
        // Whoever was faster had a packet of this client.
        let _ = balancer.insert(made, guard);
    }
}
