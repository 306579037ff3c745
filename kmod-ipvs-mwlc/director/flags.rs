// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The flags of a virtual service, with their numbers in IPVS.

/// Service flag: connections of one client stay on one real server.
pub const SERVICE_PERSISTENT: u32 = 0x1;
/// Service flag: the service is in the table. Always reported; clients check it.
pub const SERVICE_HASHED: u32 = 0x2;
/// Service flag: every UDP datagram is scheduled on its own.
pub const SERVICE_ONE_PACKET: u32 = 0x4;
/// Service flag `flag-1` of the scheduler. With `wlc` it selects MWLC.
pub const SERVICE_SCHED1: u32 = 0x8;
/// Service flag `flag-2` of the scheduler; kept and reported, without effect.
pub const SERVICE_SCHED2: u32 = 0x10;
/// Service flag `flag-3` of the scheduler; kept and reported, without effect.
pub const SERVICE_SCHED3: u32 = 0x20;

/// Changes to a service's flags: the bits of `mask` are set to those of `flags`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct FlagsUpdate {
    /// New values.
    pub flags: u32,
    /// The bits that change.
    pub mask: u32,
}

impl FlagsUpdate {
    /// The flags after the update.
    pub const fn apply(self, old: u32) -> u32 {
        ((old & !self.mask) | (self.flags & self.mask)) & !SERVICE_HASHED
    }
}
