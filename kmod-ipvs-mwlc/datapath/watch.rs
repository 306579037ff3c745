// SPDX-License-Identifier: GPL-2.0-only
//! Learns what connections fetch: reads requests, looks files up in the size cache, asks userspace
//! for those that are not there, and takes off what clients acknowledge.
//!
//! Only packets of watched connections come here, and of those only the ones with data, or whose
//! acknowledgement is worth counting, take a lock: that of one set of the cache.

use kernel::sync::rcu::Guard;

use crate::director::http::{parse, Fetch, Segment, HEAD_BYTES_MAX};
use crate::director::mwlc_family::{Asking, SizeQuestion};
use crate::director::packet::{tcp_segment, TcpHeader};
use crate::director::size_cache::Look;
use crate::director::tcp::TcpEvent;
use crate::kapi::packet::Packet;
use crate::state::balancer::Balancer;
use crate::state::connection::Connection;

/// Looks at a packet of a watched connection, before it is sent on.
#[inline(never)]
pub(super) fn watch(
    balancer: &Balancer,
    connection: &Connection,
    packet: &mut Packet,
    guard: &Guard,
) {
    let Ok(Some((tcp, start))) = tcp_segment(packet.linear(), packet.bytes()) else {
        return;
    };
    // A reset has no acknowledgement to speak of, and a SYN none at all.
    if !matches!(tcp.event(), TcpEvent::Ack | TcpEvent::Fin) {
        return;
    }
    let watch = connection.word().watch();
    if watch.remaining {
        connection.acknowledged(tcp.sequence, tcp.acknowledgement);
    }
    if watch.request && tcp.payload_bytes > 0 && connection.is_new_data(tcp.sequence) {
        let head = start.saturating_add(tcp.header_bytes);
        let looked_at = tcp.payload_bytes.min(HEAD_BYTES_MAX);
        let end = head.saturating_add(looked_at);
        if packet.linear().len() < end && !packet.pull(end) {
            return;
        }
        let Some(first) = packet.linear().get(head..end) else {
            return;
        };
        data(
            balancer,
            connection,
            parse(first, tcp.payload_bytes),
            &tcp,
            guard,
        );
    }
}

/// The client has sent data.
fn data(
    balancer: &Balancer,
    connection: &Connection,
    segment: Segment,
    tcp: &TcpHeader,
    guard: &Guard,
) {
    let expectation = &connection.destination.expectation;
    match segment {
        Segment::NoRequest => {}
        Segment::Nothing => {
            connection.begin_request(tcp.sequence, tcp.acknowledgement);
            connection.set_size(0);
        }
        Segment::Unknown => {
            connection.begin_request(tcp.sequence, tcp.acknowledgement);
            connection.assume_size(expectation.bytes());
        }
        Segment::Fetch(wanted) => {
            connection.begin_request(tcp.sequence, tcp.acknowledgement);
            fetch(balancer, connection, &wanted, tcp, guard);
        }
    }
}

/// The client wants a file.
fn fetch(
    balancer: &Balancer,
    connection: &Connection,
    fetch: &Fetch,
    tcp: &TcpHeader,
    guard: &Guard,
) {
    let expectation = &connection.destination.expectation;
    let look = balancer.sizes.look(&fetch.name);
    if let Look::Known(file_bytes) = look {
        let size_bytes = fetch.range.bytes_of(file_bytes);
        connection.set_size(size_bytes);
        expectation.learn(size_bytes);
        return;
    }
    connection.assume_size(expectation.bytes());
    if look == Look::Ask {
        let question = SizeQuestion {
            name: fetch.name,
            asking: Asking {
                tuple: connection.tuple(),
                range: fetch.range,
                sequence: tcp.sequence,
                acknowledgement: tcp.acknowledgement,
            },
        };
        balancer.channel.ask(&question, guard);
    }
}
