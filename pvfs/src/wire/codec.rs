// SPDX-License-Identifier: MIT
//! Bodies: bincode with a limit, all bytes consumed.

use bincode::config::{Configuration, Limit, LittleEndian, Varint};
use bincode::{Decode, Encode};

use super::header::{FrameError, FrameHeader, checksum};
use crate::error::FsError;
use crate::limits::BODY_BYTES_MAX;

/// Without the limit, a ten-byte message could ask the decoder for gigabytes.
const CONFIG: Configuration<LittleEndian, Varint, Limit<BODY_BYTES_MAX>> =
    bincode::config::standard().with_limit::<BODY_BYTES_MAX>();

/// A message's bytes.
///
/// # Errors
///
/// [`FsError::MessageTooLong`] above [`BODY_BYTES_MAX`].
pub fn encode<T: Encode>(message: &T) -> Result<Vec<u8>, FsError> {
    let bytes = bincode::encode_to_vec(message, CONFIG).map_err(|_| FsError::MessageTooLong)?;
    if bytes.len() > BODY_BYTES_MAX {
        Err(FsError::MessageTooLong)
    } else {
        Ok(bytes)
    }
}

/// The message in `body`.
///
/// # Errors
///
/// [`FrameError::Body`] where it is none, or where bytes are left over.
pub fn decode<T: Decode<()>>(body: &[u8]) -> Result<T, FrameError> {
    match bincode::decode_from_slice(body, CONFIG) {
        Ok((message, consumed)) if consumed == body.len() => Ok(message),
        _ => Err(FrameError::Body),
    }
}

/// The message in `body`, which arrived under `header`.
///
/// # Errors
///
/// [`FrameError::BodyChecksum`] or [`FrameError::Body`].
pub fn decode_checked<T: Decode<()>>(header: &FrameHeader, body: &[u8]) -> Result<T, FrameError> {
    if checksum(body) == header.body_checksum {
        decode(body)
    } else {
        Err(FrameError::BodyChecksum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attr::Credentials;
    use crate::ids::{ClientId, InodeNumber, IodId, ObjectId};
    use crate::layout::LayoutSlot;
    use crate::name::Name;
    use crate::proto::iod::{IodRequest, StripeRef};
    use crate::proto::lease::{Demand, Notice, Recall};
    use crate::proto::lock::{
        LockFamily, LockKind, LockOwner, LockRange, LockRequest, ProcessNumber,
    };
    use crate::proto::mgr::{MgrOperation, MgrReply, MgrRequest};
    use crate::wire::golden::assert_documented;
    use crate::wire::header::FrameKind;
    use proptest::prelude::*;

    fn lookup() -> MgrRequest {
        MgrRequest {
            client: ClientId(0x0102_0304),
            sequence: 0,
            answered_below: 1,
            credentials: Credentials {
                uid: 1000,
                gid: 100,
                groups: vec![27],
            },
            operation: MgrOperation::Lookup {
                parent: InodeNumber(1),
                name: Some(Name::new(*b"f").unwrap()),
            },
        }
    }

    /// The bytes that docs/WIRE.md shows: a change here is a change of the protocol.
    #[test]
    fn golden_frames() {
        let read = IodRequest::Read {
            stripe: StripeRef {
                object: ObjectId {
                    inode: InodeNumber(5),
                    generation: 0,
                },
                place: LayoutSlot {
                    slot: 2,
                    slots: 3,
                    stripe_size: 64 << 10,
                    layout_hash: 0x1122_3344,
                },
            },
            offset: 65_536,
            length: 4096,
            filled: 70_000,
        };
        let recall = Recall {
            number: 7,
            inode: InodeNumber(5),
            demand: Demand::GiveUp,
        };
        let recalled = encode(&Notice::Recalled(vec![recall])).unwrap();
        let lock = MgrRequest {
            sequence: 1,
            operation: MgrOperation::SetLock(LockRequest {
                inode: InodeNumber(5),
                owner: LockOwner::Process(2),
                family: LockFamily::Range,
                range: LockRange {
                    start: 0,
                    last: 100,
                },
                kind: Some(LockKind::Exclusive),
                process: ProcessNumber {
                    namespace: 9,
                    pid: 7,
                },
                wait: Some(3),
                settled_below: 2,
            }),
            ..lookup()
        };
        let settled = Notice::LockSettled {
            wait: 3,
            error: None,
        };
        for (kind, id, body) in [
            (FrameKind::MgrRequest, 3, encode(&lock).unwrap()),
            (FrameKind::MgrNotice, 0, encode(&settled).unwrap()),
            (FrameKind::MgrNotice, 0, recalled),
            (FrameKind::MgrRequest, 1, encode(&lookup()).unwrap()),
            (
                FrameKind::MgrReply,
                1,
                encode(&MgrReply::Err(FsError::NotFound)).unwrap(),
            ),
            (FrameKind::IodRequest, 2, encode(&read).unwrap()),
        ] {
            assert_documented(kind, id, &body);
        }
    }

    #[test]
    fn leftover_bytes_are_refused() {
        let mut body = encode(&lookup()).unwrap();
        body.push(0);
        assert_eq!(decode::<MgrRequest>(&body), Err(FrameError::Body));
    }

    #[test]
    fn a_huge_announced_length_allocates_nothing() {
        // A vector that says it has 2^62 elements, in varint encoding.
        let body = [&[253u8][..], &(1u64 << 62).to_le_bytes()].concat();
        assert_eq!(decode::<Vec<u64>>(&body), Err(FrameError::Body));
        assert_eq!(decode::<Vec<IodId>>(&body), Err(FrameError::Body));
    }

    proptest! {
        #[test]
        fn hostile_bodies_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode::<MgrRequest>(&bytes);
            let _ = decode::<MgrReply>(&bytes);
            let _ = decode::<Notice>(&bytes);
            let _ = decode::<IodRequest>(&bytes);
        }

        #[test]
        fn a_damaged_body_is_refused(at in 0usize..10, bit in 0u8..8) {
            let mut body = encode(&lookup()).unwrap();
            let header = FrameHeader::new(FrameKind::MgrRequest, 1, &body, 0);
            body[at] ^= 1 << bit;
            let read = decode_checked::<MgrRequest>(&header, &body);
            prop_assert_eq!(read, Err(FrameError::BodyChecksum));
        }
    }
}
