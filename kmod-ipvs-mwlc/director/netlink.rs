// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Netlink attributes: a bounds-checked reader and an encoder into a fixed buffer.
//!
//! An attribute is a header of two u16 in host order - length with the header, type - and its payload,
//! padded to four bytes (`linux/netlink.h`).

use core::ffi::CStr;

use crate::director::errno::{Errno, Reject};

/// Length of an attribute's header.
pub const ATTRIBUTE_HEADER_BYTES: usize = 4;
/// The bits of the type field that are the type; the others are `NLA_F_NESTED` and
/// `NLA_F_NET_BYTEORDER`.
const TYPE_MASK: u16 = 0x3fff;

/// An attribute as read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attribute<'a> {
    /// Its type, without flags.
    pub kind: u16,
    /// Its payload, without padding.
    pub payload: &'a [u8],
    /// Where its header starts, in bytes from the message's first attribute.
    pub offset: usize,
}

impl<'a> Attribute<'a> {
    /// A refusal that points at this attribute.
    pub const fn reject(&self, errno: Errno, message: &'static CStr) -> Reject {
        Reject::at(errno, message, self.offset)
    }

    /// A payload of exactly `N` bytes.
    pub fn array<const N: usize>(&self, message: &'static CStr) -> Result<[u8; N], Reject> {
        <[u8; N]>::try_from(self.payload).map_err(|_| self.reject(Errno::Invalid, message))
    }

    /// A u8.
    pub fn u8(&self) -> Result<u8, Reject> {
        self.array(c"attribute must be one byte")
            .map(u8::from_ne_bytes)
    }

    /// A u16 in host order.
    pub fn u16(&self) -> Result<u16, Reject> {
        self.array(c"attribute must be two bytes")
            .map(u16::from_ne_bytes)
    }

    /// A u16 in network order.
    pub fn be16(&self) -> Result<u16, Reject> {
        self.array(c"attribute must be two bytes")
            .map(u16::from_be_bytes)
    }

    /// A u32 in host order.
    pub fn u32(&self) -> Result<u32, Reject> {
        self.array(c"attribute must be four bytes")
            .map(u32::from_ne_bytes)
    }

    /// A u64 in host order.
    pub fn u64(&self) -> Result<u64, Reject> {
        self.array(c"attribute must be eight bytes")
            .map(u64::from_ne_bytes)
    }

    /// A string of at most `bytes_max` bytes; it ends at the first nul or with the payload.
    pub fn string(&self, bytes_max: usize) -> Result<&'a [u8], Reject> {
        let string = self
            .payload
            .split(|byte| *byte == 0)
            .next()
            .unwrap_or_default();
        if string.len() > bytes_max {
            return Err(self.reject(Errno::Invalid, c"attribute's string is too long"));
        }
        Ok(string)
    }

    /// The attributes nested in the payload.
    pub const fn nested(&self) -> Attributes<'a> {
        Attributes {
            rest: self.payload,
            offset: self.offset.saturating_add(ATTRIBUTE_HEADER_BYTES),
        }
    }
}

/// An iterator over attributes; after an error it ends.
#[derive(Clone, Debug)]
pub struct Attributes<'a> {
    rest: &'a [u8],
    offset: usize,
}

impl<'a> Attributes<'a> {
    /// The attributes in `bytes`, which start at the message's first attribute.
    pub const fn new(bytes: &'a [u8]) -> Attributes<'a> {
        Attributes {
            rest: bytes,
            offset: 0,
        }
    }

    /// Sorts the attributes of types 1 to `N` - 1 into a table. The last of duplicates counts and
    /// unknown types are skipped, as the kernel does; bytes that are no attribute are refused.
    pub fn table<const N: usize>(self) -> Result<AttributeTable<'a, N>, Reject> {
        let mut table = AttributeTable { slots: [None; N] };
        for attribute in self {
            let attribute = attribute?;
            if let Some(slot) = table.slots.get_mut(usize::from(attribute.kind)) {
                *slot = Some(attribute);
            }
        }
        Ok(table)
    }

    fn split_first(&self) -> Option<(Attribute<'a>, &'a [u8])> {
        let [l0, l1, k0, k1] = *self.rest.first_chunk::<ATTRIBUTE_HEADER_BYTES>()?;
        let length = usize::from(u16::from_ne_bytes([l0, l1]));
        let kind = u16::from_ne_bytes([k0, k1]) & TYPE_MASK;
        let payload = self.rest.get(ATTRIBUTE_HEADER_BYTES..length)?;
        // The last attribute's padding may be missing.
        let rest = self.rest.get(aligned(length)..).unwrap_or_default();
        Some((
            Attribute {
                kind,
                payload,
                offset: self.offset,
            },
            rest,
        ))
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = Result<Attribute<'a>, Reject>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        match self.split_first() {
            Some((attribute, rest)) => {
                let used = self.rest.len().saturating_sub(rest.len());
                self.offset = self.offset.saturating_add(used);
                self.rest = rest;
                Some(Ok(attribute))
            }
            None => {
                self.rest = &[];
                Some(Err(Reject::at(
                    Errno::Invalid,
                    c"bytes that are no attribute: a length is below 4 or beyond the end",
                    self.offset,
                )))
            }
        }
    }
}

/// Attributes by type.
#[derive(Clone, Debug)]
pub struct AttributeTable<'a, const N: usize> {
    slots: [Option<Attribute<'a>>; N],
}

impl<'a, const N: usize> AttributeTable<'a, N> {
    /// The attribute of this type, if the message has one.
    pub fn get(&self, kind: u16) -> Option<&Attribute<'a>> {
        self.slots.get(usize::from(kind)).and_then(Option::as_ref)
    }

    /// The attribute of this type, or a refusal with this message.
    pub fn require(&self, kind: u16, message: &'static CStr) -> Result<&Attribute<'a>, Reject> {
        self.get(kind).ok_or(Reject::new(Errno::Invalid, message))
    }
}

/// The buffer of an [`Encoder`] is full, or a nest is over 65,535 bytes: what was being written must
/// go into the next message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// Where a nest's header stands, to be closed with [`Encoder::end_nest`].
#[derive(Debug)]
#[must_use = "a nest must be ended"]
pub struct Nest {
    start: usize,
}

/// Writes attributes into a buffer.
#[derive(Debug)]
pub struct Encoder<'a> {
    buffer: &'a mut [u8],
    used: usize,
}

impl<'a> Encoder<'a> {
    /// Writes from the start of `buffer`.
    pub fn new(buffer: &'a mut [u8]) -> Encoder<'a> {
        Encoder { buffer, used: 0 }
    }

    /// Bytes written so far, a multiple of four.
    pub const fn used(&self) -> usize {
        self.used
    }

    /// What was written.
    pub fn written(&self) -> &[u8] {
        self.buffer.get(..self.used).unwrap_or_default()
    }

    /// An attribute with this payload.
    pub fn bytes(&mut self, kind: u16, payload: &[u8]) -> Result<(), Full> {
        self.bytes_then_nul(kind, payload, &[])
    }

    /// A string attribute, with its nul.
    pub fn string(&mut self, kind: u16, string: &str) -> Result<(), Full> {
        self.bytes_then_nul(kind, string.as_bytes(), &[0])
    }

    /// A u8 attribute.
    pub fn u8(&mut self, kind: u16, value: u8) -> Result<(), Full> {
        self.bytes(kind, &[value])
    }

    /// A u16 attribute in host order.
    pub fn u16(&mut self, kind: u16, value: u16) -> Result<(), Full> {
        self.bytes(kind, &value.to_ne_bytes())
    }

    /// A u16 attribute in network order.
    pub fn be16(&mut self, kind: u16, value: u16) -> Result<(), Full> {
        self.bytes(kind, &value.to_be_bytes())
    }

    /// A u32 attribute in host order.
    pub fn u32(&mut self, kind: u16, value: u32) -> Result<(), Full> {
        self.bytes(kind, &value.to_ne_bytes())
    }

    /// A u64 attribute in host order.
    pub fn u64(&mut self, kind: u16, value: u64) -> Result<(), Full> {
        self.bytes(kind, &value.to_ne_bytes())
    }

    /// Opens a nest, without `NLA_F_NESTED`: clients of IPVS compare the raw type.
    pub fn nest(&mut self, kind: u16) -> Result<Nest, Full> {
        let start = self.used;
        self.bytes(kind, &[])?;
        Ok(Nest { start })
    }

    /// Closes a nest: writes its length.
    pub fn end_nest(&mut self, nest: Nest) -> Result<(), Full> {
        let length = self.used.checked_sub(nest.start).ok_or(Full)?;
        let length = u16::try_from(length).map_err(|_| Full)?;
        self.put(nest.start, &length.to_ne_bytes())
    }

    fn bytes_then_nul(&mut self, kind: u16, payload: &[u8], nul: &[u8]) -> Result<(), Full> {
        let start = self.used;
        let body = start.saturating_add(ATTRIBUTE_HEADER_BYTES);
        let after = body.saturating_add(payload.len());
        let length = ATTRIBUTE_HEADER_BYTES
            .saturating_add(payload.len())
            .saturating_add(nul.len());
        let header_length = u16::try_from(length).map_err(|_| Full)?;
        let end = start.saturating_add(aligned(length));
        let slot = self.buffer.get_mut(start..end).ok_or(Full)?;
        slot.fill(0);
        self.put(start, &header_length.to_ne_bytes())?;
        self.put(start.saturating_add(2), &kind.to_ne_bytes())?;
        self.put(body, payload)?;
        self.put(after, nul)?;
        self.used = end;
        Ok(())
    }

    fn put(&mut self, start: usize, bytes: &[u8]) -> Result<(), Full> {
        let end = start.saturating_add(bytes.len());
        let slot = self.buffer.get_mut(start..end).ok_or(Full)?;
        // Not `copy_from_slice`, which has a panic path for unequal lengths.
        for (to, from) in slot.iter_mut().zip(bytes) {
            *to = *from;
        }
        Ok(())
    }
}

/// The length with its padding to four bytes.
const fn aligned(length: usize) -> usize {
    length.saturating_add(3) & !3
}
