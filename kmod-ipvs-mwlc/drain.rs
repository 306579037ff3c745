// SPDX-License-Identifier: GPL-2.0-only
//! Draining a real server: how far it is, and what becomes of its connections in the end.

use core::ptr;

use kernel::sync::rcu::{read_lock, Guard};

use crate::balancer::Balancer;
use crate::connection::Connection;
use crate::destination::Destination;
use crate::director::conn::ConnState;
use crate::director::drain::{DrainPolicy, DrainRequest, DrainView};
use crate::director::event::Event;
use crate::dispatch::Pick;
use crate::hook::flow_of;
use crate::kapi::atomic::{Atomic, Relaxed};
use crate::kapi::clock::Ticks;
use crate::kapi::hashtable::{Entry, Table};

/// No deadline, or the deadline has been met.
const NEVER: u64 = u64::MAX;

/// A real server's drain. Changed under the namespace's mutex, or when its time is over.
pub(crate) struct Drain {
    draining: Atomic<bool>,
    /// In ticks.
    deadline: Atomic<u64>,
    /// The deadline has passed, and what was left is dealt with.
    overdue: Atomic<bool>,
    redispatches: Atomic<bool>,
    /// The listeners know that nothing is left.
    told: Atomic<bool>,
}

impl Drain {
    /// It does not drain.
    pub(crate) const fn new() -> Drain {
        Drain {
            draining: Atomic::new(false),
            deadline: Atomic::new(NEVER),
            overdue: Atomic::new(false),
            redispatches: Atomic::new(false),
            told: Atomic::new(false),
        }
    }

    /// Begins, or begins anew.
    pub(crate) fn begin(&self, request: DrainRequest) {
        let deadline = request
            .deadline_ms
            .map_or(NEVER, |left_ms| Ticks::now().after_ms(left_ms).0);
        self.redispatches
            .store(request.policy == DrainPolicy::Redispatch, Relaxed);
        self.deadline.store(deadline, Relaxed);
        self.overdue.store(false, Relaxed);
        self.told.store(false, Relaxed);
        self.draining.store(true, Relaxed);
    }

    /// The real server takes connections again.
    pub(crate) fn cancel(&self) {
        self.draining.store(false, Relaxed);
        self.redispatches.store(false, Relaxed);
    }

    /// Whether it drains.
    pub(crate) fn is_under_way(&self) -> bool {
        self.draining.load(Relaxed)
    }

    /// What becomes of its connections when its time is over, or when it is removed.
    pub(crate) fn policy(&self) -> DrainPolicy {
        if self.redispatches.load(Relaxed) {
            DrainPolicy::Redispatch
        } else {
            DrainPolicy::Reset
        }
    }

    /// How far it is.
    pub(crate) fn view(&self) -> Option<DrainView> {
        let left_ms = match self.deadline.load(Relaxed) {
            NEVER => None,
            deadline => Some(Ticks(deadline).ms_since(Ticks::now())),
        };
        self.is_under_way().then_some(DrainView {
            left_ms,
            policy: self.policy(),
        })
    }

    /// Whether the deadline has come; says so once.
    fn comes_due(&self) -> bool {
        self.is_under_way()
            && Ticks(self.deadline.load(Relaxed)) <= Ticks::now()
            && !self.overdue.xchg(true, Relaxed)
    }

    /// Whether nothing is left to drain; says so once.
    fn comes_empty(&self, connections: u32) -> bool {
        self.is_under_way() && connections == 0 && !self.told.xchg(true, Relaxed)
    }
}

impl Balancer {
    /// Looks after the drains that are under way. In a context that may sleep.
    pub(crate) fn watch_drains(&self) {
        let mut at = (0usize, 0usize);
        // A guard for each real server, since an eviction may walk over millions of entries.
        while let Some(destination) = self.next_destination(&mut at) {
            if destination.drain.comes_due() {
                self.evict(&destination, destination.drain.policy());
            }
            if destination
                .drain
                .comes_empty(destination.load().connections())
            {
                self.tell(&Event::DestDrained(
                    destination.service(),
                    destination.key(),
                ));
            }
        }
    }

    /// Ends every connection of a real server, or sends it elsewhere.
    pub(crate) fn evict(&self, destination: &Destination, policy: DrainPolicy) {
        for bucket in 0..self.connections.buckets() {
            let guard = read_lock();
            for node in self.connections.entries(bucket, &guard) {
                if !ptr::eq(&*node.destination, destination) {
                    continue;
                }
                // Its end takes the state away.
                let state = node.word().state();
                let removed = self.connections.remove(node);
                if let (true, DrainPolicy::Redispatch, Some(state)) = (removed, policy, state) {
                    self.redispatch(node, state, &guard);
                }
            }
        }
    }

    /// Gives the client of a connection that was removed another real server, for its next packet.
    /// If there is none, that packet finds out.
    fn redispatch(&self, old: &Connection, state: ConnState, guard: &Guard) {
        let key = *old.key();
        let service = old.destination.service();
        let Some(service) = self.services.load(guard).get(&service) else {
            return;
        };
        let flow = flow_of(&key.tuple(), 0);
        let Some(vacant) = Table::reserve() else {
            return;
        };
        let hash = self.hash(&key);
        let start = |pick: Pick| vacant.fill(hash, Connection::start(key, pick));
        let scheduled = service.schedule(&flow, state, self, guard, start);
        if let Ok(made) = scheduled {
            // Whoever was faster had a packet of this client.
            let _ = self.insert(made, guard);
        }
    }
}
