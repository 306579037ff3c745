// SPDX-License-Identifier: GPL-2.0-only
//! Counters that each CPU has for itself, folded when they are read.

use crate::kapi::atomic::{Atomic, Relaxed};
use kernel::prelude::*;

use crate::director::stats::Counters;
use crate::kapi::cpu;

/// What has come from clients, counted without an atomic addition: only softirqs of one CPU write
/// one cell.
pub(crate) struct Traffic {
    cells: KVec<Cell>,
}

/// One CPU's part, on cache lines of its own.
#[repr(align(64))]
struct Cell {
    connections: Atomic<u64>,
    packets: Atomic<u64>,
    bytes: Atomic<u64>,
}

impl Traffic {
    /// All zero.
    pub(crate) fn new() -> Result<Traffic> {
        let count = cpu::count();
        let mut cells = KVec::with_capacity(count, GFP_KERNEL)?;
        for _ in 0..count {
            let cell = Cell {
                connections: Atomic::new(0),
                packets: Atomic::new(0),
                bytes: Atomic::new(0),
            };
            cells.push_within_capacity(cell).map_err(|_| ENOMEM)?;
        }
        Ok(Traffic { cells })
    }

    /// Counts a connection. In a softirq.
    pub(crate) fn connection(&self) {
        if let Some(cell) = self.cells.get(cpu::this()) {
            bump(&cell.connections, 1);
        }
    }

    /// Counts a packet. In a softirq.
    pub(crate) fn packet(&self, bytes: usize) {
        if let Some(cell) = self.cells.get(cpu::this()) {
            bump(&cell.packets, 1);
            bump(&cell.bytes, bytes as u64);
        }
    }

    /// What one CPU has counted.
    pub(crate) fn of_cpu(&self, cpu: usize) -> Counters {
        self.cells
            .get(cpu)
            .map_or(Counters::default(), |cell| Counters {
                connections: cell.connections.load(Relaxed),
                in_packets: cell.packets.load(Relaxed),
                in_bytes: cell.bytes.load(Relaxed),
                ..Counters::default()
            })
    }

    /// The sums over all CPUs.
    pub(crate) fn total(&self) -> Counters {
        let mut total = Counters::default();
        for cell in &self.cells {
            total.connections = total
                .connections
                .wrapping_add(cell.connections.load(Relaxed));
            total.in_packets = total.in_packets.wrapping_add(cell.packets.load(Relaxed));
            total.in_bytes = total.in_bytes.wrapping_add(cell.bytes.load(Relaxed));
        }
        total
    }
}

fn bump(counter: &Atomic<u64>, by: u64) {
    counter.store(counter.load(Relaxed).wrapping_add(by), Relaxed);
}
