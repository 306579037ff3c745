// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Counters and rates of a service or a destination, and the estimator of the rates.

/// What has been counted since the last zeroing. Direct routing sees no replies, so both `out`
/// counters stay 0; they are here because the clients of IPVS want all ten numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Counters {
    /// Connections scheduled.
    pub connections: u64,
    /// Packets from clients.
    pub in_packets: u64,
    /// Packets to clients.
    pub out_packets: u64,
    /// Bytes from clients, IP headers included.
    pub in_bytes: u64,
    /// Bytes to clients.
    pub out_bytes: u64,
}

/// Rates per second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Rates {
    /// Connections per second.
    pub connections: u64,
    /// Packets from clients per second.
    pub in_packets: u64,
    /// Packets to clients per second.
    pub out_packets: u64,
    /// Bytes from clients per second.
    pub in_bytes: u64,
    /// Bytes to clients per second.
    pub out_bytes: u64,
}

/// The ten numbers that a stats nest carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Stats {
    /// The five counters.
    pub counters: Counters,
    /// The five rates.
    pub rates: Rates,
}
