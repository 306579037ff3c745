// SPDX-License-Identifier: MIT
//! The director's cache of files' sizes, and what nodes report of themselves.

use std::net::IpAddr;

use ipvs_mwlc::director::errno::Reject;
use ipvs_mwlc::director::netlink::{Attribute, Attributes, Encoder, Full};
use ipvs_mwlc::uapi::mwlc::{attribute, command, node, size};
use serde::Serialize;

use super::{MESSAGE_SLOTS, Mwlc};
use crate::error::Error;
use crate::genl::Answer;
use crate::ipvs::answer::parse_all;
use crate::names::parse_ip;

/// What a file is called in clients' requests.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FileName {
    /// The host, in lower case; empty where clients name none.
    pub host: Vec<u8>,
    /// The path, which begins with `/`.
    pub path: Vec<u8>,
}

/// A file whose size the director knows, or knows to be unknown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileSize {
    /// Its name.
    pub name: FileName,
    /// Its size in bytes; none: nobody could tell.
    pub size_bytes: Option<u64>,
    /// For how long that is believed, in milliseconds.
    pub ttl_ms: u64,
}

/// What a node reported.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NodeReport {
    /// Its address.
    pub address: IpAddr,
    /// The sizes of all files open on it, in bytes.
    pub open_bytes: u64,
    /// How many those are.
    pub open_files: Option<u32>,
    /// Memory in use, in thousandths.
    pub memory_permille: Option<u32>,
    /// Processors in use, in thousandths.
    pub cpu_permille: Option<u32>,
    /// Milliseconds since it reported.
    pub age_ms: u64,
}

impl Mwlc {
    /// Every file of the cache.
    pub fn file_sizes(&mut self) -> Result<Vec<FileSize>, Error> {
        let action = "listing the sizes of files";
        let answers = self
            .connection
            .dump(action, command::GET_SIZE, |_| Ok(()))?;
        parse_all(action, &answers, parse_size)
    }

    /// Tells the size of a file, for a time or for the director's own.
    pub fn set_file_size(
        &mut self,
        name: &FileName,
        size_bytes: u64,
        ttl_ms: Option<u64>,
    ) -> Result<(), Error> {
        let action = format!("setting the size of {name}");
        self.connection.act(&action, command::SET_SIZE, |encoder| {
            let nest = encoder.nest(attribute::SIZE)?;
            encode_name(encoder, name)?;
            encoder.u64(size::SIZE_BYTES, size_bytes)?;
            if let Some(ttl_ms) = ttl_ms {
                encoder.u64(size::TTL_MS, ttl_ms)?;
            }
            encoder.end_nest(nest)
        })
    }

    /// Forgets the size of one file, or all of them.
    pub fn forget_file_size(&mut self, name: Option<&FileName>) -> Result<(), Error> {
        let action = match name {
            Some(name) => format!("forgetting the size of {name}"),
            None => "forgetting the sizes of files".to_owned(),
        };
        self.connection
            .act(&action, command::DEL_SIZE, |encoder| match name {
                Some(name) => {
                    let nest = encoder.nest(attribute::SIZE)?;
                    encode_name(encoder, name)?;
                    encoder.end_nest(nest)
                }
                None => Ok(()),
            })
    }

    /// What nodes have reported.
    pub fn nodes(&mut self) -> Result<Vec<NodeReport>, Error> {
        let action = "listing the nodes";
        let answers = self
            .connection
            .dump(action, command::GET_NODE, |_| Ok(()))?;
        parse_all(action, &answers, parse_node)
    }
}

impl std::fmt::Display for FileName {
    /// `host/path`, with what is no printable ASCII escaped.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            formatter,
            "{}{}",
            self.host.escape_ascii(),
            self.path.escape_ascii()
        )
    }
}

fn encode_name(encoder: &mut Encoder<'_>, name: &FileName) -> Result<(), Full> {
    encoder.bytes(size::HOST, &name.host)?;
    encoder.bytes(size::PATH, &name.path)
}

fn parse_size(answer: &Answer) -> Result<FileSize, Reject> {
    let message = Attributes::new(&answer.attributes).table::<MESSAGE_SLOTS>()?;
    let nest = message.require(attribute::SIZE, c"no size in it")?;
    let table = nest.nested().table::<{ size::MAX as usize + 1 }>()?;
    let host = table.require(size::HOST, c"a size has no host")?;
    let path = table.require(size::PATH, c"a size has no path")?;
    Ok(FileSize {
        name: FileName {
            host: host.payload.to_vec(),
            path: path.payload.to_vec(),
        },
        size_bytes: table
            .get(size::SIZE_BYTES)
            .map(Attribute::u64)
            .transpose()?,
        ttl_ms: table.get(size::TTL_MS).map_or(Ok(0), Attribute::u64)?,
    })
}

fn parse_node(answer: &Answer) -> Result<NodeReport, Reject> {
    let message = Attributes::new(&answer.attributes).table::<MESSAGE_SLOTS>()?;
    let nest = message.require(attribute::NODE, c"no node in it")?;
    let table = nest.nested().table::<{ node::MAX as usize + 1 }>()?;
    let family = table.require(node::AF, c"a node has no family")?;
    let address = table.require(node::ADDR, c"a node has no address")?;
    let small = |kind| table.get(kind).map(Attribute::u32).transpose();
    Ok(NodeReport {
        address: parse_ip(family, address)?,
        open_bytes: table
            .require(node::OPEN_BYTES, c"a node has no open bytes")?
            .u64()?,
        open_files: small(node::OPEN_FILES)?,
        memory_permille: small(node::MEMORY_PERMILLE)?,
        cpu_permille: small(node::CPU_PERMILLE)?,
        age_ms: table
            .require(node::AGE_MS, c"a node's report has no age")?
            .u64()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(write: impl FnOnce(&mut Encoder<'_>) -> Result<(), Full>) -> Answer {
        let mut buffer = [0; 256];
        let mut encoder = Encoder::new(&mut buffer);
        write(&mut encoder).unwrap();
        Answer {
            command: 0,
            attributes: encoder.written().to_vec(),
        }
    }

    #[test]
    fn a_size_is_read_as_it_is_written() {
        let name = FileName {
            host: b"files".to_vec(),
            path: b"/a\xff".to_vec(),
        };
        let written = answer(|encoder| {
            let nest = encoder.nest(attribute::SIZE)?;
            encode_name(encoder, &name)?;
            encoder.u64(size::TTL_MS, 9)?;
            encoder.end_nest(nest)
        });
        let expected = FileSize {
            name: name.clone(),
            size_bytes: None,
            ttl_ms: 9,
        };
        assert_eq!(parse_size(&written), Ok(expected));
        assert_eq!(name.to_string(), "files/a\\xff");
    }

    #[test]
    fn a_nodes_report_is_read() {
        let written = answer(|encoder| {
            let nest = encoder.nest(attribute::NODE)?;
            encoder.u16(node::AF, 2)?;
            encoder.bytes(
                node::ADDR,
                &[10, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            )?;
            encoder.u64(node::OPEN_BYTES, 5)?;
            encoder.u32(node::CPU_PERMILLE, 7)?;
            encoder.u64(node::AGE_MS, 8)?;
            encoder.end_nest(nest)
        });
        let expected = NodeReport {
            address: [10, 0, 0, 1].into(),
            open_bytes: 5,
            open_files: None,
            memory_permille: None,
            cpu_permille: Some(7),
            age_ms: 8,
        };
        assert_eq!(parse_node(&written), Ok(expected));
        assert!(parse_node(&answer(|_| Ok(()))).is_err());
    }
}
