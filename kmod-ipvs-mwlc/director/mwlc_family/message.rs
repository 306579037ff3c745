// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What the requests of the `ipvs_mwlc` family have in common: their attributes by number, and the values
//! that several of them carry.

use core::ffi::CStr;

use crate::director::address::{Address, Family, Transport};
use crate::director::errno::{Errno, Reject};
use crate::director::flow::Tuple;
use crate::director::limits::CONNECTION_SIZE_BYTES_MAX;
use crate::director::netlink::{Attribute, AttributeTable};
use crate::uapi::mwlc::{attribute, conn};

const MESSAGE_SLOTS: usize = attribute::MAX as usize + 1;
const CONN_SLOTS: usize = conn::EXPIRES_MS as usize + 1;

pub(super) const ADDRESS_LENGTH: &CStr = c"an address is 16 bytes, IPv4 in the first four";

/// The attributes of a request.
pub(super) type Message<'a> = AttributeTable<'a, MESSAGE_SLOTS>;
/// The attributes of a CONN nest.
pub(super) type ConnTable<'a> = AttributeTable<'a, CONN_SLOTS>;

/// Client and virtual address of a connection.
pub(super) fn connection_key(table: &ConnTable<'_>) -> Result<Tuple, Reject> {
    let af = address_family(table.require(conn::AF, c"the connection has no address family")?)?;
    let transport = transport(table.require(conn::PROTOCOL, c"the connection has no protocol")?)?;
    let client = table.require(conn::CLIENT_ADDR, c"the connection has no client address")?;
    let client_port = table.require(conn::CLIENT_PORT, c"the connection has no client port")?;
    let vip = table.require(conn::VIRTUAL_ADDR, c"the connection has no virtual address")?;
    let vip_port = table.require(conn::VIRTUAL_PORT, c"the connection has no virtual port")?;
    Ok(Tuple {
        transport,
        source: Address::from_union(af, client.array(ADDRESS_LENGTH)?),
        source_port: client_port.be16()?,
        destination: Address::from_union(af, vip.array(ADDRESS_LENGTH)?),
        destination_port: vip_port.be16()?,
    })
}

/// A family of addresses.
pub(super) fn address_family(attribute: &Attribute<'_>) -> Result<Family, Reject> {
    Family::from_number(attribute.u16()?)
        .ok_or_else(|| attribute.reject(Errno::FamilyNotSupported, c"unknown address family"))
}

/// A transport that is balanced.
pub(super) fn transport(attribute: &Attribute<'_>) -> Result<Transport, Reject> {
    Transport::from_number(attribute.u16()?)
        .ok_or_else(|| attribute.reject(Errno::NotSupported, c"only TCP and UDP are balanced"))
}

/// A size of a connection.
pub(super) fn size_bytes(attribute: &Attribute<'_>) -> Result<u64, Reject> {
    match attribute.u64()? {
        bytes if bytes <= CONNECTION_SIZE_BYTES_MAX => Ok(bytes),
        _ => Err(attribute.reject(Errno::Range, c"a size is at most 1 TiB")),
    }
}
