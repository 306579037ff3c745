// SPDX-License-Identifier: GPL-2.0-only
//! One namespace's balancer: its services, its connections, its timeouts.

use core::borrow::Borrow;

use kernel::prelude::*;
use kernel::sync::rcu::{read_lock, Guard};
use kernel::sync::Arc;

use crate::complaint::Complaint;
use crate::connection::Connection;
use crate::director::config::CONNECTIONS_MAX;
use crate::director::event::Event;
use crate::director::packet::Ipv4Tuple;
use crate::director::timeouts::Timeouts;
use crate::events::Events;
use crate::kapi::hashtable::{Node, Table};
use crate::kapi::memory;
use crate::kapi::pernet::Net;
use crate::kapi::random::HashKey;
use crate::kapi::rcu::RcuCell;
use crate::services::Services;
use crate::template::Templates;

/// The connection table has `1 << TABLE_BITS` buckets: 512 KiB, and chains of three at 200,000
/// connections.
pub(crate) const TABLE_BITS: u32 = 16;

/// Connections take at most this part of the machine's RAM, so that a flood of SYNs cannot take it
/// all.
const RAM_PART: u64 = 8;
/// A connection's entry fills two cache lines and the allocator's size for them, and no more.
const ENTRY_BYTES: u64 = 128;

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
    /// What it tells those who listen.
    #[pin]
    pub(crate) events: Events,
    /// A connection found no room in the table, or no memory.
    full: Complaint,
}

impl Balancer {
    /// A balancer without services.
    pub(crate) fn new(net: Net) -> Result<Arc<Balancer>> {
        let timeouts = RcuCell::new(Timeouts::DEFAULT)?;
        let table = Table::new(TABLE_BITS, connections_max(), timeouts)?;
        let templates = Templates::new()?;
        let services = RcuCell::new(Services::new())?;
        let balancer = pin_init!(Balancer {
            services,
            connections <- table,
            templates <- templates,
            key: HashKey::random(),
            events <- Events::new(net),
            full: Complaint::new(),
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

    /// Tells those who listen of an event.
    pub(crate) fn tell(&self, event: &Event) {
        self.events.notify(event, &read_lock());
    }

    /// The timeouts in force.
    pub(crate) fn timeouts<'a>(&'a self, guard: &'a Guard) -> &'a Timeouts {
        self.connections.context().load(guard)
    }

    /// Changes the timeouts, of present connections as well. Under the namespace's mutex.
    pub(crate) fn set_timeouts(&self, timeouts: Timeouts) -> Result {
        self.connections.context().replace(timeouts)?;
        self.connections.rearm();
        Ok(())
    }

    /// Where a connection is in the table. The key is secret, so that a stranger cannot fill one
    /// bucket.
    pub(crate) fn hash(&self, tuple: &Ipv4Tuple) -> u32 {
        let ports = u32::from(tuple.source_port) << 16 | u32::from(tuple.destination_port);
        let source = u32::from_ne_bytes(tuple.source);
        let destination = u32::from_ne_bytes(tuple.destination);
        self.key.hash(source, destination, ports) ^ u32::from(tuple.transport.number())
    }

    /// The connection of this client.
    pub(crate) fn connection<'g>(
        &self,
        tuple: &Ipv4Tuple,
        guard: &'g Guard,
    ) -> Option<&'g Node<Connection>> {
        self.connections.lookup(self.hash(tuple), tuple, guard)
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
