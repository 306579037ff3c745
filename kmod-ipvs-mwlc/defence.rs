// SPDX-License-Identifier: GPL-2.0-only
//! The defences of IPVS against a shortage of memory: `drop_entry` ends half-open connections at
//! random, `drop_packet` drops some of the packets that would make a new connection.

use kernel::sync::rcu::read_lock;

use crate::balancer::Balancer;
use crate::director::conn::ConnState;
use crate::director::defence::Memory;
use crate::director::event::Event;
use crate::director::tcp::TcpState;
use crate::kapi::atomic::{Atomic, Relaxed};
use crate::kapi::memory;
use crate::kapi::random::word;

/// `drop_entry` looks at this part of the table at a time, once a second, as IPVS does.
const SCANNED_PART: usize = 32;

/// What the defences are at.
pub(crate) struct Defence {
    /// Of how many new flows one is dropped; 0: of none.
    drop_rate: Atomic<u32>,
    /// New flows since the last that was dropped.
    passed: Atomic<u32>,
    /// Half-open connections are being dropped.
    drops_entries: Atomic<bool>,
}

impl Defence {
    /// None is up.
    pub(crate) const fn new() -> Defence {
        Defence {
            drop_rate: Atomic::new(0),
            passed: Atomic::new(0),
            drops_entries: Atomic::new(false),
        }
    }

    /// Whether the packet of a new flow is to be dropped.
    #[inline]
    pub(crate) fn drops_packet(&self) -> bool {
        let rate = self.drop_rate.load(Relaxed);
        if rate == 0 {
            return false;
        }
        let passed = self.passed.fetch_add(1, Relaxed).wrapping_add(1);
        passed.checked_rem(rate) == Some(0)
    }
}

impl Balancer {
    /// Looks at memory and does what the modes say. Once a second.
    pub(crate) fn defend(&self) {
        let settings = &self.settings;
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
        self.defence.drop_rate.store(rate, Relaxed);
        let drops = settings.drop_entry(memory.is_short()).is_up();
        if self.defence.drops_entries.xchg(drops, Relaxed) != drops {
            self.tell(if drops {
                &Event::FloodBegan
            } else {
                &Event::FloodEnded
            });
        }
        if drops {
            self.drop_half_open();
        }
    }

    /// Ends the half-open connections of a random part of the table.
    fn drop_half_open(&self) {
        let buckets = self.connections.buckets();
        let first = word() as usize;
        for offset in 0..buckets / SCANNED_PART {
            let guard = read_lock();
            let bucket = first.wrapping_add(offset) & buckets.wrapping_sub(1);
            for node in self.connections.entries(bucket, &guard) {
                if node.word().state() == Some(ConnState::Tcp(TcpState::SynReceived)) {
                    self.connections.remove(node);
                }
            }
        }
    }
}
