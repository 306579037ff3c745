// SPDX-License-Identifier: GPL-2.0-only
//! Gives a connection a real server: when a flow's first packet opens one, and when its real server goes.

use kernel::sync::rcu::Guard;

use crate::director::address::Transport;
use crate::director::conn::ConnState;
use crate::director::event::Event;
use crate::director::flow::FlowKey;
use crate::director::tcp::{self, TcpEvent, TcpState};
use crate::kapi::hashtable::{Entry, Made, Node, Table};
use crate::state::balancer::Balancer;
use crate::state::connection::{Connection, Pick};

/// What became of a packet that belongs to no connection.
pub(super) enum Opened {
    /// A real server has a new connection.
    Connection {
        /// It is in no table yet.
        made: Made<Connection>,
        /// It is over with this datagram: there is no entry to keep.
        one_packet: bool,
    },
    /// No service is meant.
    NotOurs,
    /// No real server can take it; the log knows why.
    NoDestination,
    /// Memory is short: the packet is dropped, and the client tries again.
    Dropped,
    /// There was no memory at all.
    NoMemory,
}

/// Opens a connection for a flow that has none, if a service is meant. The real server is chosen and the
/// connection counted there in one step, under the service's scheduling lock.
#[inline]
pub(super) fn open(
    balancer: &Balancer,
    flow: &FlowKey,
    hash: u32,
    mark: u32,
    event: Option<TcpEvent>,
    guard: &Guard,
) -> Opened {
    let services = balancer.services.load(guard);
    let Some(service) = services.find(flow.virtual_endpoint(), mark) else {
        return Opened::NotOurs;
    };
    let state = match (flow.transport(), event) {
        (Transport::Tcp, Some(event)) => match opened_by(balancer, event) {
            Some(state) => ConnState::Tcp(state),
            // A segment of a connection that is over: this host answers it with a reset, and
            // the client knows.
            None => return Opened::NotOurs,
        },
        (Transport::Tcp | Transport::Udp, _) => ConnState::Udp,
    };
    if balancer.defence.drops_packet() {
        return Opened::Dropped;
    }
    let Some(vacant) = Table::reserve() else {
        return Opened::NoMemory;
    };
    let start = |pick: Pick| {
        let one_packet = pick.one_packet;
        let made = vacant.fill(hash, Connection::start(*flow, state, pick));
        Opened::Connection { made, one_packet }
    };
    match service.assign(flow, balancer.surroundings(), guard, start) {
        Ok(opened) => opened,
        Err(cause) => {
            service.complain(cause);
            balancer
                .channel
                .tell(&Event::NoDest(service.key(), cause), guard);
            Opened::NoDestination
        }
    }
}

/// The state of the connection that a segment opens, if it opens one.
fn opened_by(balancer: &Balancer, event: TcpEvent) -> Option<TcpState> {
    if balancer.settings.is_sloppy() {
        tcp::take_up(event)
    } else {
        tcp::open(event)
    }
}

/// Gives a connection another real server of its service; false if there is none, no memory, or the
/// connection has ended.
pub(crate) fn redispatch(balancer: &Balancer, node: &Node<Connection>, guard: &Guard) -> bool {
    let service = node.destination.service();
    let Some(service) = balancer.services.load(guard).get(&service) else {
        return false;
    };
    let Some(vacant) = Table::reserve() else {
        return false;
    };
    let timeouts = balancer.timeouts(guard);
    let moves = |pick: Pick| {
        let successor = |connection: &Connection| connection.move_to(pick, timeouts);
        balancer.connections.replace(node, vacant, successor)
    };
    service
        .assign(node.key(), balancer.surroundings(), guard, moves)
        .unwrap_or(false)
}
