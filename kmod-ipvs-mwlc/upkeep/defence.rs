// SPDX-License-Identifier: GPL-2.0-only
//! Looks at memory once a second and puts up the defences that the settings ask for.

use crate::director::conn::ConnState;
use crate::director::defence::Memory;
use crate::director::event::Event;
use crate::director::tcp::TcpState;
use crate::kapi::memory;
use crate::kapi::random::word;
use crate::state::balancer::Balancer;

/// `drop_entry` looks at this part of the table at a time, once a second, as IPVS does.
const SCANNED_PART: usize = 32;

/// Looks at memory and does what the modes say. Once a second.
pub(super) fn defend(balancer: &Balancer) {
    let settings = &balancer.settings;
    let memory = Memory {
        // Asked for only if the answer matters.
        available_pages: if settings.has_defence() {
            memory::available_pages()
        } else {
            u64::MAX
        },
        enough_pages: settings.enough_pages(),
    };
    let mode = settings.drop_packet(memory.is_short());
    let rate = memory.drop_rate(mode, settings.always_drop_rate());
    balancer.defence.set_drop_rate(rate);
    let drops = settings.drop_entry(memory.is_short()).is_up();
    if balancer.defence.drop_entries(drops) {
        balancer.tell(if drops {
            &Event::FloodBegan
        } else {
            &Event::FloodEnded
        });
    }
    if drops {
        drop_half_open(balancer);
    }
}

/// Ends the half-open connections of a random part of the table.
fn drop_half_open(balancer: &Balancer) {
    let connections = &balancer.connections;
    let count = connections.buckets() / SCANNED_PART;
    connections.walk_part(word() as usize, count, |node, _| {
        if node.word().state() == Some(ConnState::Tcp(TcpState::SynReceived)) {
            connections.remove(node);
        }
    });
}
