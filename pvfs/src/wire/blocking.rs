// SPDX-License-Identifier: MIT
//! Frames over a blocking stream: the bulk data path of clients and iods.

use std::io::{self, IoSlice, Read, Write};

use bincode::{Decode, Encode};
use thiserror::Error;

use super::codec::{decode_checked, encode};
use super::header::{FrameError, FrameHeader, FrameKind, HEADER_BYTES};
use crate::error::FsError;
use crate::limits::BODY_BYTES_MAX;

/// Why a connection ends.
#[derive(Debug, Error)]
pub enum ConnectionError {
    /// The stream failed or ended.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The peer sent something that is no frame.
    #[error("{0}")]
    Frame(#[from] FrameError),
    /// Our own message is above its limit.
    #[error("{0}")]
    Message(FsError),
}

/// Reads one frame's header and body; its payload is still to be read, `payload_length` bytes.
///
/// `scratch` is reused from frame to frame. `None` is a stream that ended between frames.
///
/// # Errors
///
/// Any of [`ConnectionError`]: the connection is of no more use.
pub fn read_message<T: Decode<()>>(
    stream: &mut impl Read,
    kind: FrameKind,
    scratch: &mut Vec<u8>,
) -> Result<Option<(FrameHeader, T)>, ConnectionError> {
    read_short_message(stream, kind, BODY_BYTES_MAX, scratch)
}

/// The same for messages whose bodies are shorter than those of others.
///
/// # Errors
///
/// As [`read_message`]; [`FrameError::BodyLength`] for a body above `body_bytes_max`.
pub fn read_short_message<T: Decode<()>>(
    stream: &mut impl Read,
    kind: FrameKind,
    body_bytes_max: usize,
    scratch: &mut Vec<u8>,
) -> Result<Option<(FrameHeader, T)>, ConnectionError> {
    let Some(header) = read_header(stream)? else {
        return Ok(None);
    };
    let header = header.expect(kind)?;
    if header.body_length > body_bytes_max {
        let length = u32::try_from(header.body_length).unwrap_or(u32::MAX);
        return Err(FrameError::BodyLength(length).into());
    }
    read_body(stream, &header, scratch)?;
    Ok(Some((header, decode_checked(&header, scratch)?)))
}

/// Reads one frame of any kind: its header, and its body into `scratch`, not checked yet.
///
/// # Errors
///
/// As [`read_message`].
pub fn read_frame(
    stream: &mut impl Read,
    scratch: &mut Vec<u8>,
) -> Result<Option<FrameHeader>, ConnectionError> {
    let Some(header) = read_header(stream)? else {
        return Ok(None);
    };
    read_body(stream, &header, scratch)?;
    Ok(Some(header))
}

fn read_header(stream: &mut impl Read) -> Result<Option<FrameHeader>, ConnectionError> {
    let mut bytes = [0; HEADER_BYTES];
    if !read_start(stream, &mut bytes)? {
        return Ok(None);
    }
    Ok(Some(FrameHeader::parse(&bytes)?))
}

fn read_body(
    stream: &mut impl Read,
    header: &FrameHeader,
    scratch: &mut Vec<u8>,
) -> Result<(), ConnectionError> {
    scratch.resize(header.body_length, 0);
    stream.read_exact(scratch)?;
    Ok(())
}

/// Fills `bytes`; false where the stream ended before the first byte.
fn read_start(stream: &mut impl Read, bytes: &mut [u8]) -> io::Result<bool> {
    let mut filled = 0;
    while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match stream.read(rest) {
            Ok(0) if filled == 0 => return Ok(false),
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

/// Writes one frame: header, body and payload in one gathering write where the stream takes it.
///
/// # Errors
///
/// Any of [`ConnectionError`].
pub fn write_message<T: Encode>(
    stream: &mut impl Write,
    kind: FrameKind,
    request_id: u64,
    message: &T,
    payload: &[IoSlice<'_>],
) -> Result<(), ConnectionError> {
    let length = payload.iter().map(|part| part.len()).sum();
    let start = frame_start(kind, request_id, message, length)?;
    let mut parts = Vec::with_capacity(payload.len() + 1);
    parts.push(IoSlice::new(&start));
    parts.extend(payload.iter().map(|part| IoSlice::new(part)));
    write_all_vectored(stream, &mut parts)?;
    Ok(())
}

/// Header and body of a frame whose payload of `payload_length` bytes the caller sends itself, as
/// an iod does with sendfile.
///
/// # Errors
///
/// [`ConnectionError::Message`] where the body is above its limit.
pub fn frame_start<T: Encode>(
    kind: FrameKind,
    request_id: u64,
    message: &T,
    payload_length: usize,
) -> Result<Vec<u8>, ConnectionError> {
    let body = encode(message).map_err(ConnectionError::Message)?;
    let header = FrameHeader::new(kind, request_id, &body, payload_length);
    let mut start = Vec::with_capacity(HEADER_BYTES + body.len());
    start.extend_from_slice(&header.to_bytes());
    start.extend_from_slice(&body);
    Ok(start)
}

/// `write_all` for several buffers.
///
/// # Errors
///
/// As `write(2)`; a stream that takes nothing is [`io::ErrorKind::WriteZero`].
pub fn write_all_vectored(
    stream: &mut impl Write,
    mut parts: &mut [IoSlice<'_>],
) -> io::Result<()> {
    // The kernel takes at most IOV_MAX buffers; the standard library cuts the list there.
    IoSlice::advance_slices(&mut parts, 0);
    while !parts.is_empty() {
        match stream.write_vectored(parts) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => IoSlice::advance_slices(&mut parts, count),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{InodeNumber, ObjectId};
    use crate::layout::LayoutSlot;
    use crate::proto::iod::{Change, IodRequest, StripeRef};

    fn request() -> IodRequest {
        IodRequest::Write {
            stripe: StripeRef {
                object: ObjectId {
                    inode: InodeNumber(9),
                    generation: 1,
                },
                place: LayoutSlot {
                    slot: 2,
                    slots: 3,
                    stripe_size: 64 << 10,
                    layout_hash: 0x1122_3344,
                },
            },
            offset: 1 << 40,
            fence: 7,
            change: Change::UNNAMED,
        }
    }

    fn frame() -> Vec<u8> {
        let mut bytes = Vec::new();
        let payload = [IoSlice::new(b"hel"), IoSlice::new(b""), IoSlice::new(b"lo")];
        write_message(&mut bytes, FrameKind::IodRequest, 42, &request(), &payload).unwrap();
        bytes
    }

    #[test]
    fn a_frame_makes_the_round_trip() {
        let bytes = frame();
        let mut stream = &bytes[..];
        let mut scratch = Vec::new();
        let (header, message): (_, IodRequest) =
            read_message(&mut stream, FrameKind::IodRequest, &mut scratch)
                .unwrap()
                .unwrap();
        assert_eq!((header.request_id, header.payload_length), (42, 5));
        assert_eq!(message, request());
        assert_eq!(stream, b"hello");
    }

    #[test]
    fn an_end_between_frames_is_no_error_and_within_one_it_is() {
        let bytes = frame();
        let mut scratch = Vec::new();
        let mut read = |mut stream: &[u8]| {
            read_message::<IodRequest>(&mut stream, FrameKind::IodRequest, &mut scratch)
        };
        assert!(matches!(read(&[]), Ok(None)));
        for cut in 1..bytes.len() - 5 {
            assert!(
                matches!(read(&bytes[..cut]), Err(ConnectionError::Io(_))),
                "cut at {cut}"
            );
        }
    }

    #[test]
    fn the_wrong_kind_is_refused() {
        let bytes = frame();
        let mut scratch = Vec::new();
        let read = read_message::<IodRequest>(&mut &bytes[..], FrameKind::IodReply, &mut scratch);
        assert!(matches!(
            read,
            Err(ConnectionError::Frame(FrameError::UnexpectedKind(_)))
        ));
    }
}
