// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! How much there may be of what the director keeps, and how large it may be.

/// Virtual services in one network namespace. IPVS has no limit; one keeps a dump and a flush short.
pub const SERVICES_MAX: usize = 1024;
/// Destinations of one service. Most schedulers look at each of them for every new connection, so
/// this also bounds what a SYN can cost.
pub const DESTINATIONS_PER_SERVICE_MAX: usize = 1024;
/// The largest weight, as ipvsadm(8) has it; so a product with a load fits 128 bits by far.
pub const WEIGHT_MAX: u32 = 65_535;
/// The longest scheduler name, in bytes without the nul (`IP_VS_SCHEDNAME_MAXLEN` less one).
pub const SCHEDULER_NAME_BYTES_MAX: usize = 15;
/// The largest size that one connection may be given: 1 TiB. The sums of [`CONNECTIONS_MAX`] of
/// these fit 63 bits.
pub const CONNECTION_SIZE_BYTES_MAX: u64 = 1 << 40;
/// Connections in one network namespace: at 128 bytes each, 512 MiB at the most.
pub const CONNECTIONS_MAX: usize = 1 << 22;

/// The sum of the largest sizes of as many connections as there can be, in bytes.
pub const LOAD_BYTES_MAX: u64 = CONNECTIONS_MAX as u64 * CONNECTION_SIZE_BYTES_MAX;

const _: () = assert!(
    (CONNECTIONS_MAX as u128) * (CONNECTION_SIZE_BYTES_MAX as u128) < (1u128 << 63),
    "the sum of all connections' sizes must fit a signed 64-bit counter"
);
