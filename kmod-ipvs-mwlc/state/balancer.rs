// SPDX-License-Identifier: GPL-2.0-only
//! One namespace's balancer: its services, its connections, its timeouts.

use core::borrow::Borrow;

use kernel::prelude::*;
use kernel::sync::rcu::{read_lock, Guard};
use kernel::sync::Arc;

use crate::director::event::Event;
use crate::director::flow::FlowKey;
use crate::director::limits::CONNECTIONS_MAX;
use crate::director::timeouts::Timeouts;
use crate::kapi::atomic::{Atomic, Full, Relaxed};
use crate::kapi::devices::Keeper;
use crate::kapi::hashtable::{InsertError, Made, Node, Table};
use crate::kapi::memory;
use crate::kapi::pernet::Net;
use crate::kapi::random::HashKey;
use crate::kapi::rcu::RcuCell;
use crate::kapi::slab;
use crate::state::channel::Channel;
use crate::state::complaint::Complaint;
use crate::state::connection::{Connection, Shared};
use crate::state::defence::Defence;
use crate::state::destination::Destination;
use crate::state::reports::Reports;
use crate::state::service::Surroundings;
use crate::state::services::Services;
use crate::state::settings::Settings;
use crate::state::sizes::Sizes;
use crate::state::template::Templates;
use crate::state::totals::Totals;

/// The connection table has `1 << bits` buckets of 12 bytes: as many as it may have connections, so
/// that chains are of one, but no more than 12 MiB unless the parameter `conn_tab_bits` says so.
const TABLE_BITS_DEFAULT_MAX: u32 = 20;
/// What `conn_tab_bits` may say, as in IPVS.
const TABLE_BITS: core::ops::RangeInclusive<u32> = 8..=24;

/// Connections take at most this part of the machine's RAM, so that a flood of SYNs cannot take it
/// all.
const RAM_PART: u64 = 8;
/// What a connection's entry takes (decisions/0091).
const ENTRY_BYTES: u64 = slab::OBJECT_BYTES as u64;

// Locks and timers are larger in a kernel that checks them.
#[cfg(not(CONFIG_DEBUG_LOCK_ALLOC))]
const _: () = assert!(size_of::<Node<Connection>>() as u64 <= ENTRY_BYTES);

/// How many connections a namespace may have on this machine.
fn connections_max() -> u32 {
    // A value from kernel 7.3 on, a reference before; both can be borrowed.
    let asked: u32 = *crate::module_parameters::connections_max.value().borrow();
    if asked != 0 {
        return asked.min(CONNECTIONS_MAX as u32);
    }
    let fitting = memory::ram_bytes() / RAM_PART / ENTRY_BYTES;
    u32::try_from(fitting.min(CONNECTIONS_MAX as u64)).unwrap_or(u32::MAX)
}

/// Half-open connections take at most this part of the table; beyond it, each new one takes the
/// place of an old one.
const HALF_OPEN_PART: u32 = 4;

/// How many buckets the table of `connections` has, as a power of two.
fn table_bits(connections: u32) -> u32 {
    let asked: u32 = *crate::module_parameters::conn_tab_bits.value().borrow();
    if asked != 0 {
        return asked.clamp(*TABLE_BITS.start(), *TABLE_BITS.end());
    }
    let fitting = connections.checked_ilog2().unwrap_or(0);
    fitting.clamp(*TABLE_BITS.start(), TABLE_BITS_DEFAULT_MAX)
}

/// How many buckets a namespace's connection table has on this machine.
pub(crate) fn table_size() -> u32 {
    1 << table_bits(connections_max())
}

/// The balancer. Packets and dumps read it under RCU; configuration changes it under the
/// namespace's mutex.
#[pin_data(PinnedDrop)]
pub(crate) struct Balancer {
    /// Virtual services.
    pub(crate) services: RcuCell<Services>,
    /// Connections.
    #[pin]
    pub(crate) connections: Table<Connection>,
    /// Which client has which real server, of persistent services.
    #[pin]
    pub(crate) templates: Templates,
    key: HashKey,
    half_open_max: u32,
    /// What was counted by those that are gone.
    #[pin]
    pub(crate) totals: Totals,
    /// The hook after the mangle table is there, for services of firewall marks.
    waits_for_marks: Atomic<bool>,
    /// What is configured by sysctl.
    pub(crate) settings: Arc<Settings>,
    /// What it gives up when memory is short.
    pub(crate) defence: Defence,
    /// What nodes say of themselves.
    #[pin]
    pub(crate) reports: Reports,
    /// What is known of files that clients want.
    pub(crate) sizes: Sizes,
    /// What it tells those who listen, and asks them.
    #[pin]
    pub(crate) channel: Channel,
    /// A connection found no room in the table, or no memory.
    full: Complaint,
    /// Real servers were removed, and their connections are still in the table.
    has_removed: Atomic<bool>,
}

impl Balancer {
    /// A balancer without services.
    pub(crate) fn new(net: Net, settings: Arc<Settings>) -> Result<Arc<Balancer>> {
        let timeouts = RcuCell::new(Timeouts::DEFAULT)?;
        let count_max = connections_max();
        let table = Table::new(table_bits(count_max), count_max, Shared::new(timeouts))?;
        let templates = Templates::new()?;
        let services = RcuCell::new(Services::new())?;
        let sizes = Sizes::new()?;
        let balancer = pin_init!(Balancer {
            services,
            connections <- table,
            templates <- templates,
            key: HashKey::random(),
            // A table for three is not for trying out what a flood does.
            half_open_max: (count_max / HALF_OPEN_PART).max(1),
            settings,
            waits_for_marks: Atomic::new(false),
            defence: Defence::new(),
            reports <- Reports::new(),
            sizes,
            totals <- Totals::new(),
            channel <- Channel::new(net),
            full: Complaint::new(),
            has_removed: Atomic::new(false),
        });
        Arc::pin_init(balancer, GFP_KERNEL)
    }

    /// Says in the log that a connection found no room; not for every connection.
    pub(crate) fn complain_of_room(&self) {
        if self.full.is_due() {
            pr_warn!(
                "a connection was dropped: the table has its {} entries, or there is no memory\n",
                connections_max()
            );
        }
    }

    /// Real servers were removed. Their connections and templates are listed no more and end when a packet
    /// asks for them, or with the next sweep, which walks over the tables once for however many.
    pub(crate) fn forget_removed(&self) {
        self.has_removed.store(true, Relaxed);
    }

    /// Ends what has to end by now. Sleeps.
    pub(crate) fn sweep(&self) {
        if self.has_removed.xchg(false, Full) {
            self.connections
                .end_those(|connection| connection.destination.is_removed());
            self.templates.forget_removed();
        }
        self.connections.sweep();
        self.templates.sweep();
    }

    /// Tells those who listen of an event.
    pub(crate) fn tell(&self, event: &Event) {
        self.channel.tell(event, &read_lock());
    }

    /// What a service asks to give a connection a real server.
    pub(crate) fn surroundings(&self) -> Surroundings<'_> {
        Surroundings {
            templates: &self.templates,
            settings: &self.settings,
            channel: &self.channel,
        }
    }

    /// The real server at these indices, of services and of its service, or the next that there is;
    /// the indices go on behind it. Each call is a read section of its own, so a walk holds up no
    /// grace period; a change of configuration meanwhile may make it miss some.
    pub(crate) fn next_destination(&self, at: &mut (usize, usize)) -> Option<Arc<Destination>> {
        let guard = read_lock();
        let services = self.services.load(&guard).all();
        loop {
            let destinations = services.get(at.0)?.destinations(&guard);
            if let Some(destination) = destinations.get(at.1) {
                at.1 = at.1.wrapping_add(1);
                return Some(destination.clone());
            }
            *at = (at.0.wrapping_add(1), 0);
        }
    }

    /// Shows every real server of every service.
    pub(crate) fn for_each_destination(&self, mut each: impl FnMut(&Arc<Destination>)) {
        let mut at = (0, 0);
        while let Some(destination) = self.next_destination(&mut at) {
            each(&destination);
        }
    }

    /// Whether packets of no connection are left to the hook that sees their marks.
    #[inline]
    pub(crate) fn waits_for_marks(&self) -> bool {
        self.waits_for_marks.load(Relaxed)
    }

    /// Leaves them to it, or does not any more.
    pub(crate) fn wait_for_marks(&self, waits: bool) {
        self.waits_for_marks.store(waits, Relaxed);
    }

    /// The timeouts in force.
    pub(crate) fn timeouts<'a>(&'a self, guard: &'a Guard) -> &'a Timeouts {
        self.connections.context().timeouts.load(guard)
    }

    /// Changes the timeouts, of present connections as well: what is over by the new ones ends with the
    /// next sweep. Under the namespace's mutex.
    pub(crate) fn set_timeouts(&self, timeouts: Timeouts) -> Result {
        let nearer = timeouts.is_shorter_anywhere(self.timeouts(&read_lock()));
        let connections = &self.connections;
        connections.context().timeouts.replace(timeouts)?;
        if nearer {
            connections.deadlines_are_nearer();
        }
        Ok(())
    }

    /// Where a connection is in the table. The key is secret, so that a stranger cannot fill one
    /// bucket.
    #[inline]
    pub(crate) fn hash(&self, key: &FlowKey) -> u32 {
        if key.is_ipv6() {
            return self.key.hash_long(&key.words());
        }
        let [a, b, c] = key.short_words();
        self.key.hash(a, b, c) ^ u32::from(key.transport().number())
    }

    /// The connection of this client.
    pub(crate) fn connection<'g>(
        &self,
        key: &FlowKey,
        guard: &'g Guard,
    ) -> Option<&'g Node<Connection>> {
        self.connections.lookup(self.hash(key), key, guard)
    }

    /// Puts a new connection into the table. Of half-open ones there are only so many: a further
    /// one takes the place of an older one, or there is no room for it.
    pub(crate) fn insert<'g>(
        &self,
        made: Made<Connection>,
        guard: &'g Guard,
    ) -> core::result::Result<&'g Node<Connection>, InsertError> {
        let shared = self.connections.context();
        let entering = shared.entering(made.is_half_open());
        if entering.is_half_open()
            && shared.half_open() > self.half_open_max
            && !self.connections.evict()
        {
            return Err(InsertError::Full);
        }
        let node = self.connections.insert_made(made, guard)?;
        entering.entered();
        Ok(node)
    }
}

impl Keeper for Balancer {
    /// A cached route of IPv6 holds the entry of the routing table that it comes from, and that holds the
    /// device: the kernel would wait for it for ever. The next packet looks the route up again.
    fn device_goes(&self) {
        let guard = read_lock();
        for service in self.services.load(&guard).all() {
            for destination in service.destinations(&guard) {
                destination.route.forget();
            }
        }
    }
}

#[pinned_drop]
impl PinnedDrop for Balancer {
    fn drop(self: Pin<&mut Self>) {
        // Connections may outlive this by a grace period, and hold their destinations; those shall
        // hold no route.
        for service in self.services.load(&read_lock()).all() {
            service.retire();
        }
    }
}
