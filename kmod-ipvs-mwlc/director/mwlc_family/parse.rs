// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Requests of the `ipvs_mwlc` family, from attributes to a [`Command`].

use super::message::{
    address_family, connection_key, size_bytes, transport, ConnTable, Message, ADDRESS_LENGTH,
};
use super::node::parse_report;
use super::size::{parse_answer, parse_name};
use super::Command;
use crate::director::address::Address;
use crate::director::config::DestKey;
use crate::director::drain::{DrainPolicy, DrainRequest, DRAIN_MS_MAX};
use crate::director::errno::{Errno, Reject};
use crate::director::ipvs_family::RequestKind;
use crate::director::load::{Learn, SizePolicy};
use crate::director::netlink::{AttributeTable, Attributes};
use crate::director::service_key::ServiceKey;
use crate::director::slow_start::SLOW_START_MS_MAX;
use crate::uapi::mwlc::{attribute, command, conn, dest, service};

const SERVICE_SLOTS: usize = service::MAX as usize + 1;
const DEST_SLOTS: usize = dest::MAX as usize + 1;

type ServiceTable<'a> = AttributeTable<'a, SERVICE_SLOTS>;
type DestTable<'a> = AttributeTable<'a, DEST_SLOTS>;

/// Parses a request: its command number, whether it asks for a dump, and the bytes of its
/// attributes after the generic netlink header.
pub fn parse_command(number: u8, kind: RequestKind, attributes: &[u8]) -> Result<Command, Reject> {
    let message: Message<'_> = Attributes::new(attributes).table()?;
    match (kind, number) {
        (RequestKind::Dump, command::GET_SERVICE) => Ok(Command::DumpServices),
        (RequestKind::Dump, command::GET_DEST) => match message.get(attribute::SERVICE) {
            Some(nest) => identify_service(&nest.nested().table()?)
                .map(|key| Command::DumpDestinations(Some(key))),
            None => Ok(Command::DumpDestinations(None)),
        },
        (RequestKind::Dump, command::GET_CONN) => Ok(Command::DumpConnections),
        (RequestKind::Do, command::SET_SERVICE) => set_service(&message),
        (RequestKind::Do, command::SET_CONN) => set_connection(&message),
        (RequestKind::Do, command::DRAIN) => drain(&message),
        (RequestKind::Dump, command::GET_SIZE) => Ok(Command::DumpSizes),
        (RequestKind::Dump, command::GET_NODE) => Ok(Command::DumpNodes),
        (RequestKind::Do, command::REPORT) => {
            parse_report(&message).map(|(address, report)| Command::Report(address, report))
        }
        (RequestKind::Do, command::SET_SIZE) => parse_answer(&message).map(Command::SetSize),
        (RequestKind::Do, command::DEL_SIZE) => parse_name(&message).map(Command::ForgetSize),
        (
            RequestKind::Do,
            command::GET_SERVICE
            | command::GET_DEST
            | command::GET_CONN
            | command::GET_SIZE
            | command::GET_NODE,
        ) => Err(Reject::new(
            Errno::NotSupported,
            c"this command answers dumps only: set NLM_F_DUMP",
        )),
        (
            RequestKind::Dump,
            command::SET_SERVICE
            | command::SET_CONN
            | command::SET_SIZE
            | command::DEL_SIZE
            | command::DRAIN
            | command::REPORT,
        ) => Err(Reject::new(
            Errno::NotSupported,
            c"this command of family ipvs_mwlc has no dump",
        )),
        _ => Err(Reject::new(
            Errno::NotSupported,
            c"unknown command of family ipvs_mwlc",
        )),
    }
}

fn set_service(message: &Message<'_>) -> Result<Command, Reject> {
    let table = service_table(message)?;
    let service = identify_service(&table)?;
    let configured_bytes = match table.get(service::EXPECTED_SIZE) {
        Some(size) => Some(size_bytes(size)?),
        None => None,
    };
    let policy = match table.get(service::SIZE_POLICY) {
        Some(number) => Some(SizePolicy::from_number(number.u8()?).ok_or_else(|| {
            number.reject(
                Errno::Invalid,
                c"the size policy is 0 (configured) or 1 (learned)",
            )
        })?),
        None => None,
    };
    let learn = match table.get(service::LEARN) {
        Some(number) => Some(Learn::from_number(number.u8()?).ok_or_else(|| {
            number.reject(
                Errno::Invalid,
                c"sizes are learned in no way (0) or from HTTP requests (1)",
            )
        })?),
        None => None,
    };
    let remaining = match table.get(service::REMAINING) {
        Some(flag) => match flag.u8()? {
            0 => Some(false),
            1 => Some(true),
            _ => return Err(flag.reject(Errno::Invalid, c"remaining is 0 (off) or 1 (on)")),
        },
        None => None,
    };
    let slow_start_ms = match table.get(service::SLOW_START_MS) {
        Some(time) => Some(match time.u32()? {
            time_ms @ ..=SLOW_START_MS_MAX => time_ms,
            _ => return Err(time.reject(Errno::Range, c"a slow start takes an hour at most")),
        }),
        None => None,
    };
    Ok(Command::SetExpectedSize {
        service,
        configured_bytes,
        policy,
        learn,
        remaining,
        slow_start_ms,
    })
}

fn drain(message: &Message<'_>) -> Result<Command, Reject> {
    let service = identify_service(&service_table(message)?)?;
    let table: DestTable<'_> = message
        .require(
            attribute::DEST,
            c"the request names no real server: attribute DEST is missing",
        )?
        .nested()
        .table()?;
    let af = address_family(table.require(dest::AF, c"the real server has no address family")?)?;
    let address = table.require(dest::ADDR, c"the real server has no address")?;
    let port = table.require(dest::PORT, c"the real server has no port")?;
    let key = DestKey {
        address: Address::from_union(af, address.array(ADDRESS_LENGTH)?),
        port: port.be16()?,
    };
    let deadline_ms = match table.get(dest::DRAIN_LEFT_MS) {
        Some(time) => Some(match time.u64()? {
            time_ms @ ..=DRAIN_MS_MAX => time_ms,
            _ => return Err(time.reject(Errno::Range, c"a drain takes a week at most")),
        }),
        None => None,
    };
    let policy = match table.get(dest::DRAIN_POLICY) {
        Some(number) => DrainPolicy::from_number(number.u8()?).ok_or_else(|| {
            number.reject(
                Errno::Invalid,
                c"the drain policy is 0 (reset) or 1 (re-dispatch)",
            )
        })?,
        None => DrainPolicy::Reset,
    };
    let request = DrainRequest {
        deadline_ms,
        policy,
    };
    Ok(Command::Drain(service, key, request))
}

fn set_connection(message: &Message<'_>) -> Result<Command, Reject> {
    let table: ConnTable<'_> = message
        .require(
            attribute::CONN,
            c"the request names no connection: attribute CONN is missing",
        )?
        .nested()
        .table()?;
    let size = table.require(conn::SIZE_BYTES, c"the connection's new size is missing")?;
    Ok(Command::SetConnectionSize {
        tuple: connection_key(&table)?,
        size_bytes: size_bytes(size)?,
    })
}

/// The nest that names the service.
fn service_table<'a>(message: &Message<'a>) -> Result<ServiceTable<'a>, Reject> {
    message
        .require(
            attribute::SERVICE,
            c"the request names no service: attribute SERVICE is missing",
        )?
        .nested()
        .table()
}

fn identify_service(table: &ServiceTable<'_>) -> Result<ServiceKey, Reject> {
    let af = table.require(service::AF, c"the service has no address family")?;
    let af = address_family(af)?;
    if let Some(attribute) = table.get(service::FWMARK) {
        if let mark @ 1.. = attribute.u32()? {
            return Ok(ServiceKey::mark(af, mark));
        }
    }
    let transport = transport(table.require(service::PROTOCOL, c"the service has no protocol")?)?;
    let address = table.require(service::ADDR, c"the service has no address")?;
    let address = Address::from_union(af, address.array(ADDRESS_LENGTH)?);
    let port = table
        .require(service::PORT, c"the service has no port")?
        .be16()?;
    Ok(ServiceKey::endpoint(transport, address, port))
}
