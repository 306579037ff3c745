// SPDX-License-Identifier: MIT
//! Requests of the stock family, from typed values to attributes.

use std::net::{IpAddr, SocketAddr};

use ipvs_mwlc::director::flags::SERVICE_HASHED;
use ipvs_mwlc::director::netlink::{Encoder, Full};
use ipvs_mwlc::uapi::ipvs::{attribute, daemon, dest, service};

use super::types::{Daemon, DestConfig, ServiceConfig};
use crate::names::{ServiceName, address};

/// A service by its name alone.
pub(super) fn service_nest(encoder: &mut Encoder<'_>, name: &ServiceName) -> Result<(), Full> {
    let nest = encoder.nest(attribute::SERVICE)?;
    name.encode(encoder, service::FWMARK)?;
    encoder.end_nest(nest)
}

pub(super) fn full_service(encoder: &mut Encoder<'_>, new: &ServiceConfig) -> Result<(), Full> {
    let nest = encoder.nest(attribute::SERVICE)?;
    new.name.encode(encoder, service::FWMARK)?;
    encoder.string(service::SCHED_NAME, &new.scheduler)?;
    if let Some(engine) = &new.engine {
        encoder.string(service::PE_NAME, engine)?;
    }
    // Every flag is set or cleared but HASHED, which is the table's.
    let flags = [new.flags.to_ne_bytes(), (!SERVICE_HASHED).to_ne_bytes()].concat();
    encoder.bytes(service::FLAGS, &flags)?;
    encoder.u32(service::TIMEOUT, new.timeout_s)?;
    encoder.bytes(service::NETMASK, &new.netmask.to_bytes())?;
    encoder.end_nest(nest)
}

fn dest_name(encoder: &mut Encoder<'_>, name: SocketAddr) -> Result<(), Full> {
    let address = address(name.ip());
    encoder.u16(dest::ADDR_FAMILY, address.family().number())?;
    encoder.bytes(dest::ADDR, &address.to_union())?;
    encoder.be16(dest::PORT, name.port())
}

pub(super) fn full_dest(encoder: &mut Encoder<'_>, new: &DestConfig) -> Result<(), Full> {
    let nest = encoder.nest(attribute::DEST)?;
    dest_name(encoder, new.address)?;
    encoder.u32(dest::FWD_METHOD, new.forwarding.method)?;
    encoder.u32(dest::WEIGHT, new.weight)?;
    encoder.u32(dest::U_THRESH, new.upper)?;
    encoder.u32(dest::L_THRESH, new.lower)?;
    encoder.u8(dest::TUN_TYPE, new.forwarding.tunnel)?;
    encoder.be16(dest::TUN_PORT, new.forwarding.tunnel_port)?;
    encoder.u16(dest::TUN_FLAGS, new.forwarding.tunnel_flags)?;
    encoder.end_nest(nest)
}

/// A real server by its name alone.
pub(super) fn dest_nest(encoder: &mut Encoder<'_>, name: SocketAddr) -> Result<(), Full> {
    let nest = encoder.nest(attribute::DEST)?;
    dest_name(encoder, name)?;
    encoder.end_nest(nest)
}

/// A daemon to start, or to stop by its role, interface and number.
pub(super) fn daemon_nest(encoder: &mut Encoder<'_>, new: &Daemon) -> Result<(), Full> {
    let nest = encoder.nest(attribute::DAEMON)?;
    encoder.u32(daemon::STATE, new.role)?;
    encoder.string(daemon::MCAST_IFN, &new.interface)?;
    encoder.u32(daemon::SYNC_ID, new.sync_id)?;
    if new.message_bytes_max > 0 {
        encoder.u16(daemon::SYNC_MAXLEN, new.message_bytes_max)?;
    }
    match new.group {
        Some(IpAddr::V4(group)) => encoder.bytes(daemon::MCAST_GROUP, &group.octets())?,
        Some(IpAddr::V6(group)) => encoder.bytes(daemon::MCAST_GROUP6, &group.octets())?,
        None => {}
    }
    if new.port > 0 {
        encoder.u16(daemon::MCAST_PORT, new.port)?;
    }
    if new.ttl > 0 {
        encoder.u8(daemon::MCAST_TTL, new.ttl)?;
    }
    encoder.end_nest(nest)
}
