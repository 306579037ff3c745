// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Nodes' reports in the `ipvs_mwlc` family.

use super::message::{address_family, Message, ADDRESS_LENGTH};
use crate::director::address::Address;
use crate::director::errno::{Errno, Reject};
use crate::director::netlink::{AttributeTable, Encoder, Full};
use crate::director::report::Report;
use crate::uapi::mwlc::{attribute, node};

const NODE_SLOTS: usize = node::MAX as usize + 1;

/// Writes a NODE nest; the age is left out of a report that is new.
pub fn encode_node(
    encoder: &mut Encoder<'_>,
    address: Address,
    report: &Report,
    age_ms: Option<u64>,
) -> Result<(), Full> {
    let nest = encoder.nest(attribute::NODE)?;
    encoder.u16(node::AF, address.family().number())?;
    encoder.bytes(node::ADDR, &address.to_union())?;
    encoder.u64(node::OPEN_BYTES, report.open_bytes)?;
    encoder.u32(node::OPEN_FILES, report.open_files)?;
    encoder.u32(node::MEMORY_PERMILLE, report.memory_permille)?;
    encoder.u32(node::CPU_PERMILLE, report.cpu_permille)?;
    if let Some(age_ms) = age_ms {
        encoder.u64(node::AGE_MS, age_ms)?;
    }
    encoder.end_nest(nest)
}

/// Reads a report: which node, and what it says.
pub(super) fn parse_report(message: &Message<'_>) -> Result<(Address, Report), Reject> {
    let table: AttributeTable<'_, NODE_SLOTS> = message
        .require(
            attribute::NODE,
            c"the report names no node: attribute NODE is missing",
        )?
        .nested()
        .table()?;
    let family = address_family(table.require(node::AF, c"the node has no address family")?)?;
    let address = table.require(node::ADDR, c"the node has no address")?;
    let open = table.require(node::OPEN_BYTES, c"the node reports no open bytes")?;
    let number = |kind| match table.get(kind) {
        Some(attribute) => attribute.u32(),
        None => Ok(0),
    };
    let permille = |kind| match number(kind)? {
        value if value <= 1000 => Ok(value),
        _ => Err(open.reject(
            Errno::Range,
            c"a node uses at most 1000 thousandths of itself",
        )),
    };
    Ok((
        Address::from_union(family, address.array(ADDRESS_LENGTH)?),
        Report {
            open_bytes: open.u64()?,
            open_files: number(node::OPEN_FILES)?,
            memory_permille: permille(node::MEMORY_PERMILLE)?,
            cpu_permille: permille(node::CPU_PERMILLE)?,
        },
    ))
}
