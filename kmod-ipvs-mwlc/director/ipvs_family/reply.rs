// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Replies of the `IPVS` family, from plain views to attributes.

use crate::director::config::{DestConfig, ServiceConfig};
use crate::director::flags::SERVICE_HASHED;
use crate::director::netlink::{Encoder, Full};
use crate::director::service_key::ServiceKey;
use crate::director::stats::Stats;
use crate::director::timeouts::Timeouts;
use crate::uapi::ipvs::{attribute, dest, info, service, stats, VERSION};

/// No service reply is longer.
pub const SERVICE_REPLY_BYTES_MAX: usize = 384;
/// No destination reply is longer.
pub const DESTINATION_REPLY_BYTES_MAX: usize = 384;

/// What a reply says about a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServiceView {
    /// Its configuration.
    pub config: ServiceConfig,
    /// Its counters.
    pub stats: Stats,
}

/// What a reply says about a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DestinationView {
    /// Its configuration.
    pub config: DestConfig,
    /// Active connections.
    pub active: u32,
    /// Inactive connections with the half-open ones, for which IPVS has no number of their own.
    pub inactive: u32,
    /// Persistence templates that name it.
    pub persistent: u32,
    /// Its counters.
    pub stats: Stats,
}

/// Writes a SERVICE nest. The scheduler's name is the one asked for, so that saving and restoring
/// gives the same service.
pub fn encode_service(encoder: &mut Encoder<'_>, view: &ServiceView) -> Result<(), Full> {
    let ServiceConfig {
        key,
        scheduler,
        flags,
        timeout_s,
        netmask,
    } = view.config;
    let nest = encoder.nest(attribute::SERVICE)?;
    encode_service_key(encoder, &key)?;
    encoder.string(service::SCHED_NAME, scheduler.name())?;
    let [f0, f1, f2, f3] = (flags | SERVICE_HASHED).to_ne_bytes();
    let [m0, m1, m2, m3] = u32::MAX.to_ne_bytes();
    encoder.bytes(service::FLAGS, &[f0, f1, f2, f3, m0, m1, m2, m3])?;
    encoder.u32(service::TIMEOUT, timeout_s)?;
    encoder.bytes(service::NETMASK, &netmask.to_bytes())?;
    encode_stats(encoder, service::STATS, service::STATS64, &view.stats)?;
    encoder.end_nest(nest)
}

/// Writes what names a service: its mark, or its protocol, address and port.
pub fn encode_service_key(encoder: &mut Encoder<'_>, key: &ServiceKey) -> Result<(), Full> {
    encoder.u16(service::AF, key.family().number())?;
    match key {
        ServiceKey::Mark(firewall) => encoder.u32(service::FWMARK, firewall.mark),
        ServiceKey::Endpoint(endpoint) => {
            encoder.u16(service::PROTOCOL, u16::from(endpoint.transport.number()))?;
            encoder.bytes(service::ADDR, &endpoint.address.to_union())?;
            encoder.be16(service::PORT, endpoint.port)
        }
    }
}

/// Writes a DEST nest.
pub fn encode_destination(encoder: &mut Encoder<'_>, view: &DestinationView) -> Result<(), Full> {
    let DestConfig {
        key,
        forwarding,
        weight,
        thresholds,
    } = view.config;
    let nest = encoder.nest(attribute::DEST)?;
    encoder.bytes(dest::ADDR, &key.address.to_union())?;
    encoder.be16(dest::PORT, key.port)?;
    encoder.u32(dest::FWD_METHOD, forwarding.number())?;
    encoder.u32(dest::WEIGHT, weight)?;
    encoder.u32(dest::U_THRESH, thresholds.upper)?;
    encoder.u32(dest::L_THRESH, thresholds.lower)?;
    encoder.u32(dest::ACTIVE_CONNS, view.active)?;
    encoder.u32(dest::INACT_CONNS, view.inactive)?;
    encoder.u32(dest::PERSIST_CONNS, view.persistent)?;
    encoder.u16(dest::ADDR_FAMILY, key.address.family().number())?;
    encode_stats(encoder, dest::STATS, dest::STATS64, &view.stats)?;
    encoder.end_nest(nest)
}

/// Writes the attributes of the reply to `GET_CONFIG`.
pub fn encode_config(encoder: &mut Encoder<'_>, timeouts: &Timeouts) -> Result<(), Full> {
    encoder.u32(attribute::TIMEOUT_TCP, timeouts.established_s)?;
    encoder.u32(attribute::TIMEOUT_TCP_FIN, timeouts.fin_wait_s)?;
    encoder.u32(attribute::TIMEOUT_UDP, timeouts.udp_s)
}

/// Writes the attributes of the reply to `GET_INFO`; `table_size` is that of the connection table.
pub fn encode_info(encoder: &mut Encoder<'_>, table_size: u32) -> Result<(), Full> {
    encoder.u32(info::VERSION, VERSION)?;
    encoder.u32(info::CONN_TAB_SIZE, table_size)
}

/// Writes both statistics nests: all ten numbers, since libipvs reads them unasked.
fn encode_stats(
    encoder: &mut Encoder<'_>,
    kind: u16,
    kind64: u16,
    values: &Stats,
) -> Result<(), Full> {
    let Stats { counters, rates } = values;
    let numbers = [
        (stats::CONNS, counters.connections),
        (stats::INPKTS, counters.in_packets),
        (stats::OUTPKTS, counters.out_packets),
        (stats::INBYTES, counters.in_bytes),
        (stats::OUTBYTES, counters.out_bytes),
        (stats::CPS, rates.connections),
        (stats::INPPS, rates.in_packets),
        (stats::OUTPPS, rates.out_packets),
        (stats::INBPS, rates.in_bytes),
        (stats::OUTBPS, rates.out_bytes),
    ];
    let nest = encoder.nest(kind)?;
    for (number, value) in numbers {
        match number {
            stats::INBYTES | stats::OUTBYTES => encoder.u64(number, value)?,
            // As in IPVS, the old nest has the low 32 bits.
            _ => encoder.u32(number, value as u32)?,
        }
    }
    encoder.end_nest(nest)?;
    let nest = encoder.nest(kind64)?;
    for (number, value) in numbers {
        encoder.u64(number, value)?;
    }
    encoder.end_nest(nest)
}
