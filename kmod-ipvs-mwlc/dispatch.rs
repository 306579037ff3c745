// SPDX-License-Identifier: GPL-2.0-only
//! Which real server a packet's flow gets, when it belongs to no connection yet.

use kernel::sync::rcu::Guard;
use kernel::sync::Arc;

use crate::balancer::Balancer;
use crate::connection::Watch;
use crate::destination::Destination;
use crate::director::config::{Address, Endpoint, Transport};
use crate::director::conn::ConnState;
use crate::director::event::Event;
use crate::director::tcp::{self, TcpEvent, TcpState};
use crate::template::Hold;

/// What a packet from a client says about who wants what.
pub(crate) struct Flow {
    /// TCP or UDP.
    pub(crate) transport: Transport,
    /// Who.
    pub(crate) client: Address,
    /// From which port, in host order.
    pub(crate) client_port: u16,
    /// Where the packet is addressed to.
    pub(crate) virtual_address: Address,
    /// To which port, in host order.
    pub(crate) virtual_port: u16,
    /// The mark that the firewall gave the packet; 0 for none.
    pub(crate) mark: u32,
}

/// A real server for a new connection.
pub(crate) struct Pick {
    /// The real server.
    pub(crate) destination: Arc<Destination>,
    /// The connection's first state.
    pub(crate) state: ConnState,
    /// What it is expected to fetch, in bytes.
    pub(crate) size_bytes: u64,
    /// What its packets are looked at for, beside being sent on.
    pub(crate) watch: Watch,
    /// What keeps the client on its real server, if the service is persistent.
    pub(crate) hold: Option<Hold>,
    /// Each datagram is a connection of its own: there is no entry to keep.
    pub(crate) one_packet: bool,
}

/// What scheduling came to.
pub(crate) enum Scheduled<C> {
    /// What the caller made of the pick.
    Connection(C),
    /// No service is meant.
    NotOurs,
    /// No real server can take it; the log knows why.
    NoDestination,
    /// Memory is short: the packet is dropped, and the client tries again.
    Dropped,
    /// There was no memory at all.
    NoMemory,
}

impl Balancer {
    /// Picks a real server for a flow that has no connection, if a service is meant. `reserve` gets
    /// what the connection needs. `start` counts it there; it runs under the service's scheduling
    /// lock, so that choosing and counting are one step.
    #[inline]
    pub(crate) fn schedule<V, C>(
        &self,
        flow: &Flow,
        event: Option<TcpEvent>,
        guard: &Guard,
        reserve: impl FnOnce() -> Option<V>,
        start: impl FnOnce(V, Pick) -> C,
    ) -> Scheduled<C> {
        let endpoint = Endpoint {
            transport: flow.transport,
            address: flow.virtual_address,
            port: flow.virtual_port,
        };
        let Some(service) = self.services.load(guard).find(endpoint, flow.mark) else {
            return Scheduled::NotOurs;
        };
        let state = match (flow.transport, event) {
            (Transport::Tcp, Some(event)) => match self.opened_by(event) {
                Some(state) => ConnState::Tcp(state),
                // A segment of a connection that is over: this host answers it with a reset, and
                // the client knows.
                None => return Scheduled::NotOurs,
            },
            (Transport::Tcp | Transport::Udp, _) => ConnState::Udp,
        };
        if self.defence.drops_packet() {
            return Scheduled::Dropped;
        }
        let Some(reserved) = reserve() else {
            return Scheduled::NoMemory;
        };
        let start = |pick| start(reserved, pick);
        match service.schedule(flow, state, self, guard, start) {
            Ok(connection) => Scheduled::Connection(connection),
            Err(cause) => {
                service.complain(cause);
                self.events
                    .notify(&Event::NoDest(service.key(), cause), guard);
                Scheduled::NoDestination
            }
        }
    }

    /// The state of the connection that a segment opens, if it opens one.
    fn opened_by(&self, event: TcpEvent) -> Option<TcpState> {
        if self.settings.is_sloppy() {
            tcp::take_up(event)
        } else {
            tcp::open(event)
        }
    }
}
