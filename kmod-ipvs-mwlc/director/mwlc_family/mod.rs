// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Our own generic-netlink family `ipvs_mwlc`: expected sizes, loads, connections.
//!
//! Numbers and layout are in `uapi::mwlc`. Refusals that depend on what is configured are the table's:
//! `ESRCH` for a service that does not exist, `ENOENT` for a connection.

mod message;
mod node;
mod parse;
mod reply;
mod size;

pub use node::encode_node;
pub use parse::parse_command;
pub use reply::{
    encode_connection, encode_destination, encode_event, encode_service, DestinationView,
    ServiceView, REPLY_BYTES_MAX,
};

pub use size::{
    encode_question, encode_size, parse_question, Asking, SizeAnswer, SizeQuestion,
    SIZE_REPLY_BYTES_MAX,
};

use crate::director::address::Address;
use crate::director::config::DestKey;
use crate::director::drain::DrainRequest;
use crate::director::flow::Tuple;
use crate::director::http::Name;
use crate::director::load::{Learn, SizePolicy};
use crate::director::report::Report;
use crate::director::service_key::ServiceKey;

/// A well-formed request.
#[allow(
    clippy::large_enum_variant,
    reason = "a request is taken apart where it was parsed, and nothing is allocated here"
)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Answer with every service.
    DumpServices,
    /// Set what a service's connections are expected to fetch.
    SetExpectedSize {
        /// Which service.
        service: ServiceKey,
        /// Expected size in bytes; `None` leaves it.
        configured_bytes: Option<u64>,
        /// Where the size comes from; `None` leaves it.
        policy: Option<SizePolicy>,
        /// Whether sizes are learned from packets; `None` leaves it.
        learn: Option<Learn>,
        /// Whether what was delivered counts no more; `None` leaves it.
        remaining: Option<bool>,
        /// How long a real server takes to its whole weight; `None` leaves it.
        slow_start_ms: Option<u32>,
    },
    /// Drain a real server.
    Drain(ServiceKey, DestKey, DrainRequest),
    /// Answer with the destinations of one service or of all, with their loads.
    DumpDestinations(Option<ServiceKey>),
    /// Answer with every connection.
    DumpConnections,
    /// Set the size of one connection: client to virtual address.
    SetConnectionSize {
        /// Which connection.
        tuple: Tuple,
        /// Its size in bytes.
        size_bytes: u64,
    },
    /// Answer with the sizes of files that are known.
    DumpSizes,
    /// Take in what somebody says about a file.
    SetSize(SizeAnswer),
    /// Forget one file's size, or all.
    ForgetSize(Option<Name>),
    /// Take in what a node reports.
    Report(Address, Report),
    /// Answer with what every node last reported.
    DumpNodes,
}

/// Where a dump of the connection table goes on: a bucket, and how many entries of it are done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct TableCursor {
    /// The bucket.
    pub bucket: u32,
    /// Entries of the bucket that are done.
    pub skip: u32,
}

impl TableCursor {
    /// The cursor after one more entry of this bucket.
    #[must_use]
    pub const fn after_entry(self) -> TableCursor {
        TableCursor {
            skip: self.skip.saturating_add(1),
            ..self
        }
    }

    /// The cursor at the next bucket.
    #[must_use]
    pub const fn after_bucket(self) -> TableCursor {
        TableCursor {
            bucket: self.bucket.saturating_add(1),
            skip: 0,
        }
    }

    /// As one word, for the netlink callback's arguments.
    pub const fn to_bits(self) -> u64 {
        ((self.bucket as u64) << 32) | self.skip as u64
    }

    /// The cursor from [`TableCursor::to_bits`].
    pub const fn from_bits(bits: u64) -> TableCursor {
        TableCursor {
            bucket: (bits >> 32) as u32,
            skip: bits as u32,
        }
    }
}
