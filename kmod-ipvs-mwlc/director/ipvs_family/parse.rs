// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Requests of the `IPVS` family, from attributes to a [`Command`].

use core::ffi::CStr;

use super::{Command, RequestKind};
use crate::director::address::{Address, Family, Transport};
use crate::director::config::{DestConfig, DestKey, Forwarding, ServiceEdit, Thresholds};
use crate::director::errno::{Errno, Reject};
use crate::director::flags::FlagsUpdate;
use crate::director::limits::{SCHEDULER_NAME_BYTES_MAX, WEIGHT_MAX};
use crate::director::netlink::{Attribute, AttributeTable, Attributes};
use crate::director::netmask::Netmask;
use crate::director::sched::Scheduler;
use crate::director::service_key::ServiceKey;
use crate::director::timeouts::{Timeouts, TimeoutsUpdate};
use crate::uapi::ipvs::{attribute, command, dest, forwarding, service};

const SERVICE_SLOTS: usize = service::STATS64 as usize + 1;
const DEST_SLOTS: usize = dest::TUN_FLAGS as usize + 1;
const MESSAGE_SLOTS: usize = attribute::MAX as usize + 1;

type Message<'a> = AttributeTable<'a, MESSAGE_SLOTS>;
type ServiceTable<'a> = AttributeTable<'a, SERVICE_SLOTS>;
type DestTable<'a> = AttributeTable<'a, DEST_SLOTS>;

/// Parses a request: its command number, whether it asks for a dump, and the bytes of its
/// attributes after the generic netlink header.
pub fn parse_command(number: u8, kind: RequestKind, attributes: &[u8]) -> Result<Command, Reject> {
    let message: Message<'_> = Attributes::new(attributes).table()?;
    match kind {
        RequestKind::Do => parse_do(number, &message),
        RequestKind::Dump => parse_dump(number, &message),
    }
}

fn parse_do(number: u8, message: &Message<'_>) -> Result<Command, Reject> {
    match number {
        command::NEW_SERVICE => full_service(message)?.added().map(Command::NewService),
        command::SET_SERVICE => full_service(message).map(Command::SetService),
        command::DEL_SERVICE => service_key(message).map(Command::DelService),
        command::GET_SERVICE => service_key(message).map(Command::GetService),
        command::NEW_DEST => {
            let key = service_key(message)?;
            full_destination(message, &key).map(|dest| Command::NewDestination(key, dest))
        }
        command::SET_DEST => {
            let key = service_key(message)?;
            full_destination(message, &key).map(|dest| Command::SetDestination(key, dest))
        }
        command::DEL_DEST => {
            let key = service_key(message)?;
            let (_, dest) = destination_key(message, &key)?;
            Ok(Command::DelDestination(key, dest))
        }
        command::SET_CONFIG => timeouts_update(message).map(Command::SetConfig),
        command::GET_CONFIG => Ok(Command::GetConfig),
        command::GET_INFO => Ok(Command::GetInfo),
        command::ZERO if message.get(attribute::SERVICE).is_none() => Ok(Command::Zero(None)),
        command::ZERO => service_key(message).map(|key| Command::Zero(Some(key))),
        command::FLUSH => Ok(Command::Flush),
        command::NEW_DAEMON | command::DEL_DAEMON => Err(Reject::new(
            Errno::NotSupported,
            c"this director has no connection synchronisation daemon",
        )),
        command::GET_DEST | command::GET_DAEMON => Err(Reject::new(
            Errno::NotSupported,
            c"this command answers dumps only: set NLM_F_DUMP",
        )),
        _ => Err(Reject::new(
            Errno::NotSupported,
            c"unknown command of family IPVS",
        )),
    }
}

fn parse_dump(number: u8, message: &Message<'_>) -> Result<Command, Reject> {
    match number {
        // moby/ipvs sends an empty SERVICE attribute here; nothing in it is looked at.
        command::GET_SERVICE => Ok(Command::DumpServices),
        command::GET_DEST => service_key(message).map(Command::DumpDestinations),
        command::GET_DAEMON => Ok(Command::DumpDaemons),
        _ => Err(Reject::new(
            Errno::NotSupported,
            c"this command of family IPVS has no dump",
        )),
    }
}

fn service_table<'a>(message: &Message<'a>) -> Result<ServiceTable<'a>, Reject> {
    message
        .require(
            attribute::SERVICE,
            c"the request names no service: attribute SERVICE is missing",
        )?
        .nested()
        .table()
}

fn service_key(message: &Message<'_>) -> Result<ServiceKey, Reject> {
    identify_service(&service_table(message)?)
}

fn identify_service(table: &ServiceTable<'_>) -> Result<ServiceKey, Reject> {
    let family = table.require(service::AF, c"the service has no address family")?;
    let family = Family::from_number(family.u16()?)
        .ok_or_else(|| family.reject(Errno::FamilyNotSupported, c"unknown address family"))?;
    if let Some(attribute) = table.get(service::FWMARK) {
        // As in IPVS, mark 0 is no mark: then the endpoint counts.
        if let mark @ 1.. = attribute.u32()? {
            return Ok(ServiceKey::mark(family, mark));
        }
    }
    let transport = table.require(service::PROTOCOL, c"the service has no protocol")?;
    let transport = Transport::from_number(transport.u16()?)
        .ok_or_else(|| transport.reject(Errno::NotSupported, c"only TCP and UDP are balanced"))?;
    let address = table.require(service::ADDR, c"the service has no address")?;
    let address = ip_address(address, family)?;
    let port = table.require(service::PORT, c"the service has no port")?;
    Ok(ServiceKey::endpoint(transport, address, port.be16()?))
}

/// A service with all that adding or editing it takes.
fn full_service(message: &Message<'_>) -> Result<ServiceEdit, Reject> {
    let table = service_table(message)?;
    let key = identify_service(&table)?;
    let name = table.require(service::SCHED_NAME, c"the service has no scheduler")?;
    let scheduler =
        Scheduler::from_name(name.string(SCHEDULER_NAME_BYTES_MAX)?).ok_or_else(|| {
            name.reject(
                Errno::NoEntry,
                c"unknown scheduler: this director has rr wrr lc wlc sed nq sh mh fo ovf twos mwlc msed",
            )
        })?;
    let flags = table.require(service::FLAGS, c"the service has no flags")?;
    let flags = service_flags(flags)?;
    let timeout = table.require(service::TIMEOUT, c"the service has no timeout")?;
    let netmask = table.require(service::NETMASK, c"the service has no netmask")?;
    if let Some(engine) = table.get(service::PE_NAME) {
        if !engine.string(SCHEDULER_NAME_BYTES_MAX)?.is_empty() {
            // What IPVS answers to a name that it does not know, so clients have words for it.
            return Err(engine.reject(
                Errno::NoEntry,
                c"this director has no persistence engines (--pe)",
            ));
        }
    }
    Ok(ServiceEdit {
        key,
        scheduler,
        flags,
        timeout_s: timeout.u32()?,
        netmask: client_netmask(netmask, key.family())?,
    })
}

fn service_flags(attribute: &Attribute<'_>) -> Result<FlagsUpdate, Reject> {
    let [f0, f1, f2, f3, m0, m1, m2, m3] =
        attribute.array(c"flags must be two 32-bit words: flags and mask")?;
    Ok(FlagsUpdate {
        flags: u32::from_ne_bytes([f0, f1, f2, f3]),
        mask: u32::from_ne_bytes([m0, m1, m2, m3]),
    })
}

fn client_netmask(attribute: &Attribute<'_>, family: Family) -> Result<Netmask, Reject> {
    let bytes = attribute.array(c"the netmask must be four bytes")?;
    Netmask::from_bytes(family, bytes).ok_or_else(|| {
        attribute.reject(
            Errno::Invalid,
            c"the netmask of an IPv6 service is a prefix length of 1 to 128",
        )
    })
}

fn destination_key<'a>(
    message: &Message<'a>,
    of: &ServiceKey,
) -> Result<(DestTable<'a>, DestKey), Reject> {
    let table: DestTable<'a> = message
        .require(
            attribute::DEST,
            c"the request names no destination: attribute DEST is missing",
        )?
        .nested()
        .table()?;
    // Old clients send no family: it is the service's then.
    if let Some(family) = table.get(dest::ADDR_FAMILY) {
        let number = family.u16()?;
        if number != 0 && number != of.family().number() {
            return Err(family.reject(
                Errno::Invalid,
                c"direct routing takes a destination of its service's address family",
            ));
        }
    }
    let address = table.require(dest::ADDR, c"the destination has no address")?;
    let address = ip_address(address, of.family())?;
    let port = table
        .require(dest::PORT, c"the destination has no port")?
        .be16()?;
    Ok((table, DestKey { address, port }))
}

fn full_destination(message: &Message<'_>, of: &ServiceKey) -> Result<DestConfig, Reject> {
    let (table, key) = destination_key(message, of)?;
    let method = table.require(
        dest::FWD_METHOD,
        c"the destination has no forwarding method",
    )?;
    let forwarding = forwarding_method(method)?;
    if !key.address.is_unicast() {
        return Err(Reject::new(
            Errno::Invalid,
            c"the destination's address is no single host's (unicast)",
        ));
    }
    // A mark is for many ports, so the port of its destinations means nothing; clients give one.
    if matches!(of, ServiceKey::Endpoint(endpoint) if endpoint.port != key.port) {
        return Err(Reject::new(
            Errno::Invalid,
            c"direct routing does not change ports: the destination must have the service's",
        ));
    }
    let weight = table.require(dest::WEIGHT, c"the destination has no weight")?;
    if weight.u32()? > WEIGHT_MAX {
        return Err(weight.reject(Errno::Range, c"a weight is 0 to 65535"));
    }
    let upper = table.require(dest::U_THRESH, c"the destination has no upper threshold")?;
    let lower = table.require(dest::L_THRESH, c"the destination has no lower threshold")?;
    let thresholds = Thresholds {
        upper: upper.u32()?,
        lower: lower.u32()?,
    };
    if thresholds.lower > thresholds.upper {
        return Err(lower.reject(
            Errno::Range,
            c"the lower threshold is above the upper threshold",
        ));
    }
    Ok(DestConfig {
        key,
        forwarding,
        weight: weight.u32()?,
        thresholds,
    })
}

fn forwarding_method(method: &Attribute<'_>) -> Result<Forwarding, Reject> {
    match method.u32()? & forwarding::MASK {
        forwarding::DROUTE => Ok(Forwarding::DirectRouting),
        forwarding::LOCALNODE => Ok(Forwarding::LocalNode),
        forwarding::MASQ => Err(method.reject(
            Errno::NotSupported,
            c"this director has no masquerading: use direct routing (-g)",
        )),
        forwarding::TUNNEL => Err(method.reject(
            Errno::NotSupported,
            c"this director has no tunnelling: use direct routing (-g)",
        )),
        _ => Err(method.reject(
            Errno::NotSupported,
            c"unknown forwarding method: use direct routing (-g)",
        )),
    }
}

fn timeouts_update(message: &Message<'_>) -> Result<TimeoutsUpdate, Reject> {
    let seconds = |kind: u16| message.get(kind).map_or(Ok(0), Attribute::u32);
    let update = TimeoutsUpdate {
        tcp_s: seconds(attribute::TIMEOUT_TCP)?,
        tcp_fin_s: seconds(attribute::TIMEOUT_TCP_FIN)?,
        udp_s: seconds(attribute::TIMEOUT_UDP)?,
    };
    // The range does not depend on the present values, so it is refused here already.
    update.apply(&Timeouts::DEFAULT).map(|_| update)
}

/// An address: IPv4 with 4 bytes (moby/ipvs) up to the 16 of `union nf_inet_addr` (everyone else),
/// IPv6 with 16.
fn ip_address(attribute: &Attribute<'_>, family: Family) -> Result<Address, Reject> {
    const LENGTH: &CStr = c"an address is 16 bytes, of which IPv4 may leave out the last 12";
    let payload = attribute.payload;
    let address = match family {
        Family::Ipv4 if payload.len() <= 16 => payload.first_chunk().copied().map(Address::V4),
        Family::Ipv4 => None,
        Family::Ipv6 => payload.try_into().ok().map(Address::V6),
    };
    address.ok_or_else(|| attribute.reject(Errno::Invalid, LENGTH))
}
