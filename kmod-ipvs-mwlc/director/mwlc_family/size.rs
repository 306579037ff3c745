// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Sizes of files in the `ipvs_mwlc` family: the question, its answer, and what the cache holds.
//!
//! An answer repeats its question and adds the size, so whoever answers need not understand what the
//! connection's part says, and the module need not remember whom it asked.

use super::message::{connection_key, size_bytes, Message};
use super::reply::encode_connection_key;
use crate::director::errno::{Errno, Reject};
use crate::director::flow::Tuple;
use crate::director::http::{Name, Range, NAME_BYTES_MAX};
use crate::director::netlink::{AttributeTable, Attributes, Encoder, Full};
use crate::director::size_cache::TTL_MS_MAX;
use crate::uapi::mwlc::{attribute, size};

/// No message about a size is longer: a name, and 25 headers, numbers and addresses, of which the
/// longest has 20 bytes.
pub const SIZE_REPLY_BYTES_MAX: usize = NAME_BYTES_MAX + 25 * 20;

const SIZE_SLOTS: usize = size::MAX as usize + 1;

type SizeTable<'a> = AttributeTable<'a, SIZE_SLOTS>;

/// A connection whose size depends on an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asking {
    /// Client to virtual address.
    pub tuple: Tuple,
    /// Which part of the file it fetches.
    pub range: Range,
    /// The TCP sequence number of its request, so that a late answer is not taken for one to the
    /// connection's next request.
    pub sequence: u32,
    /// What the request acknowledged: everything before this was delivered then.
    pub acknowledgement: u32,
}

/// What is the size of this file?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SizeQuestion {
    /// The file.
    pub name: Name,
    /// Who wants it.
    pub asking: Asking,
}

/// What somebody says about a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SizeAnswer {
    /// The file.
    pub name: Name,
    /// Its size in bytes; `None` if it cannot be told.
    pub size_bytes: Option<u64>,
    /// For how long that is believed; `None` for the default.
    pub ttl_ms: Option<u64>,
    /// Who wanted it.
    pub asking: Option<Asking>,
}

/// Writes a question, or an answer to it.
pub fn encode_question(
    encoder: &mut Encoder<'_>,
    question: &SizeQuestion,
    answer: Option<u64>,
) -> Result<(), Full> {
    let asking = &question.asking;
    let nest = encoder.nest(attribute::SIZE)?;
    encode_name(encoder, question.name.host(), question.name.path())?;
    if let Some(bytes) = answer {
        encoder.u64(size::SIZE_BYTES, bytes)?;
    }
    match asking.range {
        Range::Whole => {}
        Range::Within(first, last) => {
            encoder.u64(size::RANGE_FIRST, first)?;
            encoder.u64(size::RANGE_LAST, last)?;
        }
        Range::From(first) => encoder.u64(size::RANGE_FIRST, first)?,
        Range::Last(count) => encoder.u64(size::RANGE_SUFFIX, count)?,
    }
    encoder.u32(size::SEQUENCE, asking.sequence)?;
    encoder.u32(size::ACKNOWLEDGEMENT, asking.acknowledgement)?;
    encoder.end_nest(nest)?;
    let nest = encoder.nest(attribute::CONN)?;
    encode_connection_key(encoder, &asking.tuple)?;
    encoder.end_nest(nest)
}

/// Writes what the cache holds: a file, its size unless it is unknown, and for how long.
pub fn encode_size(
    encoder: &mut Encoder<'_>,
    host: &[u8],
    path: &[u8],
    size_bytes: Option<u64>,
    left_ms: u64,
) -> Result<(), Full> {
    let nest = encoder.nest(attribute::SIZE)?;
    encode_name(encoder, host, path)?;
    if let Some(bytes) = size_bytes {
        encoder.u64(size::SIZE_BYTES, bytes)?;
    }
    encoder.u64(size::TTL_MS, left_ms)?;
    encoder.end_nest(nest)
}

fn encode_name(encoder: &mut Encoder<'_>, host: &[u8], path: &[u8]) -> Result<(), Full> {
    encoder.bytes(size::HOST, host)?;
    encoder.bytes(size::PATH, path)
}

/// Reads a question.
pub fn parse_question(attributes: &[u8]) -> Result<SizeQuestion, Reject> {
    let answer = parse_answer(&Attributes::new(attributes).table()?)?;
    let asking = answer.asking.ok_or(Reject::new(
        Errno::Invalid,
        c"the question names no connection",
    ))?;
    Ok(SizeQuestion {
        name: answer.name,
        asking,
    })
}

/// Reads what somebody says about a file.
pub(super) fn parse_answer(message: &Message<'_>) -> Result<SizeAnswer, Reject> {
    const NO_SIZE: Reject = Reject::new(
        Errno::Invalid,
        c"the request names no file: attribute SIZE is missing",
    );
    let table: SizeTable<'_> = message
        .get(attribute::SIZE)
        .ok_or(NO_SIZE)?
        .nested()
        .table()?;
    let size_bytes = match table.get(size::SIZE_BYTES) {
        Some(attribute) => Some(size_bytes(attribute)?),
        None => None,
    };
    let ttl_ms = match table.get(size::TTL_MS) {
        Some(attribute) => match attribute.u64()? {
            ttl_ms if ttl_ms <= TTL_MS_MAX => Some(ttl_ms),
            _ => {
                return Err(
                    attribute.reject(Errno::Range, c"a size is believed for at most an hour")
                )
            }
        },
        None => None,
    };
    let asking = match message.get(attribute::CONN) {
        Some(nest) => Some(Asking {
            tuple: connection_key(&nest.nested().table()?)?,
            range: range(&table)?,
            sequence: table
                .require(
                    size::SEQUENCE,
                    c"which request of the connection? SEQUENCE is missing",
                )?
                .u32()?,
            acknowledgement: table
                .require(size::ACKNOWLEDGEMENT, c"ACKNOWLEDGEMENT is missing")?
                .u32()?,
        }),
        None => None,
    };
    Ok(SizeAnswer {
        name: name(&table)?,
        size_bytes,
        ttl_ms,
        asking,
    })
}

/// Reads the name alone; `None` if the message has none.
pub(super) fn parse_name(message: &Message<'_>) -> Result<Option<Name>, Reject> {
    match message.get(attribute::SIZE) {
        Some(nest) => name(&nest.nested().table()?).map(Some),
        None => Ok(None),
    }
}

fn name(table: &SizeTable<'_>) -> Result<Name, Reject> {
    let host = table.require(
        size::HOST,
        c"the file has no host: give an empty one for none",
    )?;
    let path = table.require(size::PATH, c"the file has no path")?;
    Name::of_parts(host.payload, path.payload).ok_or(path.reject(
        Errno::Invalid,
        c"a path begins with /, a host has none, and both together have at most 512 bytes",
    ))
}

fn range(table: &SizeTable<'_>) -> Result<Range, Reject> {
    let number = |kind| match table.get(kind) {
        Some(attribute) => attribute.u64().map(Some),
        None => Ok(None),
    };
    match (
        number(size::RANGE_FIRST)?,
        number(size::RANGE_LAST)?,
        number(size::RANGE_SUFFIX)?,
    ) {
        (None, None, None) => Ok(Range::Whole),
        (Some(first), Some(last), None) if first <= last => Ok(Range::Within(first, last)),
        (Some(first), None, None) => Ok(Range::From(first)),
        (None, None, Some(count)) => Ok(Range::Last(count)),
        _ => Err(Reject::new(
            Errno::Invalid,
            c"a range is RANGE_FIRST with or without a RANGE_LAST that is not less, or RANGE_SUFFIX",
        )),
    }
}
