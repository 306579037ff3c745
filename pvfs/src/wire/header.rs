// SPDX-License-Identifier: MIT
//! A frame's fixed header, 32 bytes, little-endian.
//!
//! ```text
//!  0        4       6      8                16          20             24              28        32
//!  | "PVFS" |version| kind |   request id   |body length|payload length|body checksum  |header sum|
//! ```
//!
//! Both checksums are CRC-32C: one of the body, one of the header's first 28 bytes.

use thiserror::Error;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::limits::{BODY_BYTES_MAX, PAYLOAD_BYTES_MAX, RESERVED_PORT_MAX};

/// The first four bytes of every frame.
pub const MAGIC: [u8; 4] = *b"PVFS";
/// The protocol's version: peers must have the same.
pub const VERSION: u16 = 3;
/// Bytes of a header.
pub const HEADER_BYTES: usize = 32;
const CHECKED_BYTES: usize = 28;

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawHeader {
    magic: [u8; 4],
    version: U16,
    kind: U16,
    request_id: U64,
    body_length: U32,
    payload_length: U32,
    body_checksum: U32,
    header_checksum: U32,
}

const _: () = assert!(size_of::<RawHeader>() == HEADER_BYTES);

/// What a frame's body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameKind {
    /// [`MgrRequest`](crate::proto::mgr::MgrRequest).
    MgrRequest,
    /// [`MgrReply`](crate::proto::mgr::MgrReply).
    MgrReply,
    /// [`IodRequest`](crate::proto::iod::IodRequest).
    IodRequest,
    /// [`IodReply`](crate::proto::iod::IodReply).
    IodReply,
    /// [`Notice`](crate::proto::lease::Notice) from mgr; its request id is 0.
    MgrNotice,
    /// To a peer whose port is not reserved: nothing it sends is read. No body, and the last frame.
    PortRefused,
}

impl FrameKind {
    const fn number(self) -> u16 {
        match self {
            Self::MgrRequest => 1,
            Self::MgrReply => 2,
            Self::IodRequest => 3,
            Self::IodReply => 4,
            Self::MgrNotice => 5,
            Self::PortRefused => 6,
        }
    }

    const fn from_number(number: u16) -> Option<Self> {
        match number {
            1 => Some(Self::MgrRequest),
            2 => Some(Self::MgrReply),
            3 => Some(Self::IodRequest),
            4 => Some(Self::IodReply),
            5 => Some(Self::MgrNotice),
            6 => Some(Self::PortRefused),
            _ => None,
        }
    }
}

/// A header that is known to be sound: lengths are within their limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// What the body is.
    pub kind: FrameKind,
    /// Chosen by the requester, returned with the reply.
    pub request_id: u64,
    /// Bytes of the body, at most [`BODY_BYTES_MAX`].
    pub body_length: usize,
    /// Bytes of the payload, at most [`PAYLOAD_BYTES_MAX`].
    pub payload_length: usize,
    /// CRC-32C of the body.
    pub body_checksum: u32,
}

/// Why a frame is refused; its connection ends then, since the next frame's start is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum FrameError {
    /// Not this protocol.
    #[error("frame does not start with PVFS: the peer speaks another protocol")]
    Magic,
    /// Bits changed on the way, or the stream is out of step.
    #[error("frame header checksum does not match")]
    HeaderChecksum,
    /// Another version.
    #[error(
        "peer speaks protocol version {0}, this program speaks {VERSION}: update the older one"
    )]
    Version(u16),
    /// Unknown kind.
    #[error("frame kind {0} is unknown")]
    Kind(u16),
    /// A known kind in the wrong place.
    #[error("frame of kind {0:?} is not expected here")]
    UnexpectedKind(FrameKind),
    /// Body above its limit.
    #[error("frame body of {0} bytes is above the limit of its kind, {BODY_BYTES_MAX} at most")]
    BodyLength(u32),
    /// Payload above its limit.
    #[error("frame payload of {0} bytes is above the limit of {PAYLOAD_BYTES_MAX}")]
    PayloadLength(u32),
    /// A payload where none belongs, or not as long as announced.
    #[error("frame payload of {0} bytes is not expected here")]
    UnexpectedPayload(usize),
    /// Bits changed on the way.
    #[error("frame body checksum does not match")]
    BodyChecksum,
    /// The body is no such message.
    #[error("frame body does not decode")]
    Body,
    /// The peer reads nothing from a port above [`RESERVED_PORT_MAX`].
    #[error(
        "takes connections from ports below {} only: run as root, or start it with --insecure-ports",
        RESERVED_PORT_MAX + 1
    )]
    PortRefused,
    /// A reply to a request that nobody sent.
    #[error("reply to unknown request {0}")]
    UnknownRequest(u64),
}

impl FrameHeader {
    /// The header of a frame with this body.
    #[must_use]
    pub fn new(kind: FrameKind, request_id: u64, body: &[u8], payload_length: usize) -> Self {
        let body_checksum = checksum(body);
        Self {
            kind,
            request_id,
            body_length: body.len(),
            payload_length,
            body_checksum,
        }
    }

    /// The only frame for a peer whose port is not reserved.
    #[must_use]
    pub fn port_refused() -> Self {
        Self::new(FrameKind::PortRefused, 0, &[], 0)
    }

    /// Its bytes.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; HEADER_BYTES] {
        let length = |bytes: usize| U32::new(u32::try_from(bytes).unwrap_or(u32::MAX));
        let mut raw = RawHeader {
            magic: MAGIC,
            version: U16::new(VERSION),
            kind: U16::new(self.kind.number()),
            request_id: U64::new(self.request_id),
            body_length: length(self.body_length),
            payload_length: length(self.payload_length),
            body_checksum: U32::new(self.body_checksum),
            header_checksum: U32::ZERO,
        };
        raw.header_checksum = U32::new(checksum(&raw.as_bytes()[..CHECKED_BYTES]));
        zerocopy::transmute!(raw)
    }

    /// Judges bytes from a peer.
    ///
    /// # Errors
    ///
    /// The first check that fails, in the order magic, checksum, version, kind, lengths.
    pub fn parse(bytes: &[u8; HEADER_BYTES]) -> Result<Self, FrameError> {
        let raw: &RawHeader = zerocopy::transmute_ref!(bytes);
        if raw.magic != MAGIC {
            return Err(FrameError::Magic);
        }
        if raw.header_checksum.get() != checksum(&bytes[..CHECKED_BYTES]) {
            return Err(FrameError::HeaderChecksum);
        }
        if raw.version.get() != VERSION {
            return Err(FrameError::Version(raw.version.get()));
        }
        let kind = raw.kind.get();
        let kind = FrameKind::from_number(kind).ok_or(FrameError::Kind(kind))?;
        let (body, payload) = (raw.body_length.get(), raw.payload_length.get());
        if body as usize > BODY_BYTES_MAX {
            return Err(FrameError::BodyLength(body));
        }
        if payload as usize > PAYLOAD_BYTES_MAX {
            return Err(FrameError::PayloadLength(payload));
        }
        Ok(Self {
            kind,
            request_id: raw.request_id.get(),
            body_length: body as usize,
            payload_length: payload as usize,
            body_checksum: raw.body_checksum.get(),
        })
    }

    /// The same header if it is of `kind`.
    ///
    /// # Errors
    ///
    /// [`FrameError::UnexpectedKind`].
    pub fn expect(self, kind: FrameKind) -> Result<Self, FrameError> {
        match self.kind {
            found if found == kind => Ok(self),
            FrameKind::PortRefused => Err(FrameError::PortRefused),
            found => Err(FrameError::UnexpectedKind(found)),
        }
    }
}

/// CRC-32C (Castagnoli), as iSCSI has it.
#[must_use]
pub fn checksum(bytes: &[u8]) -> u32 {
    u32::try_from(crc_fast::checksum(
        crc_fast::CrcAlgorithm::Crc32Iscsi,
        bytes,
    ))
    .unwrap_or_default()
}

/// The same of bytes that come in pieces.
#[derive(Debug)]
pub struct Checksum(crc_fast::Digest);

impl Checksum {
    /// Of no bytes yet.
    #[must_use]
    pub fn new() -> Self {
        Self(crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi))
    }

    /// Goes on with some bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Of all bytes so far.
    #[must_use]
    pub fn finish(&self) -> u32 {
        u32::try_from(self.0.finalize()).unwrap_or_default()
    }
}

impl Default for Checksum {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn checksum_is_castagnoli() {
        assert_eq!(checksum(b"123456789"), 0xe306_9283);
        let mut sum = Checksum::new();
        for piece in [&b"123"[..], b"", b"456789"] {
            sum.update(piece);
        }
        assert_eq!(sum.finish(), 0xe306_9283);
    }

    #[test]
    fn each_fault_has_its_name() {
        let good = FrameHeader::new(FrameKind::IodReply, 7, b"body", 9).to_bytes();
        let fault = |at: usize, value: u8, sum: bool| {
            let mut bytes = good;
            bytes[at] = value;
            if sum {
                let sum = checksum(&bytes[..CHECKED_BYTES]).to_le_bytes();
                bytes[CHECKED_BYTES..].copy_from_slice(&sum);
            }
            FrameHeader::parse(&bytes).unwrap_err()
        };
        assert_eq!(fault(0, b'X', true), FrameError::Magic);
        assert_eq!(fault(9, 1, false), FrameError::HeaderChecksum);
        assert_eq!(fault(4, 9, true), FrameError::Version(9));
        assert_eq!(fault(6, 7, true), FrameError::Kind(7));
        assert_eq!(fault(19, 1, true), FrameError::BodyLength(4 + (1 << 24)));
        assert_eq!(fault(23, 1, true), FrameError::PayloadLength(9 + (1 << 24)));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(id: u64, body: [u8; 5], payload in 0..=PAYLOAD_BYTES_MAX) {
            let header = FrameHeader::new(FrameKind::MgrRequest, id, &body, payload);
            prop_assert_eq!(FrameHeader::parse(&header.to_bytes()), Ok(header));
        }

        #[test]
        fn no_single_bit_flip_passes(at in 0usize..HEADER_BYTES * 8) {
            let mut bytes = FrameHeader::new(FrameKind::MgrReply, 3, b"x", 0).to_bytes();
            bytes[at / 8] ^= 1 << (at % 8);
            prop_assert!(FrameHeader::parse(&bytes).is_err());
        }
    }
}
