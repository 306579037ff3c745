// SPDX-License-Identifier: MIT
//! Moving payloads: from the page cache to the socket, and from the socket to the page cache.

use std::io::{self, Read, Write};

use nix::errno::Errno;
use pvfs::client::buffer::AlignedBuffer;
use pvfs::runtime::net::{TcpStream, send_more};

use super::deadline::timed_out;
use crate::store::{ObjectFile, VERIFY_BUFFER_BYTES};

/// Bytes received at once: they stay in the processor's cache between recv and pwrite.
pub const BUFFER_BYTES: usize = 256 << 10;
const _: () = assert!(VERIFY_BUFFER_BYTES >= BUFFER_BYTES);
/// Written where a file shrank under a reader.
const ZEROS: [u8; 4096] = [0; 4096];

/// Why a payload's transfer ended early.
#[derive(Debug)]
pub(super) enum SendError {
    /// The socket's fault.
    Socket(io::Error),
    /// The disk's.
    Disk(io::Error),
}

/// Sends a frame's start; the payload follows at once, in the same packet if it can.
pub(super) fn send_start(stream: &TcpStream, start: &[u8]) -> io::Result<()> {
    let mut rest = start;
    while !rest.is_empty() {
        match send_more(stream, rest) {
            Ok(count) => rest = rest.get(count..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Sends `length` bytes of the file from `offset` on without copying them. Where the file has been
/// cut meanwhile, zeros take the place of what is gone, so that the frame stays whole.
pub(super) fn send_file(
    stream: &TcpStream,
    file: &ObjectFile,
    offset: u64,
    length: usize,
) -> Result<(), SendError> {
    let mut position = offset;
    let mut left = length;
    while left > 0 {
        match file.send(stream, position, left) {
            Ok(0) => return send_zeros(stream, left).map_err(SendError::Socket),
            Ok(count) => {
                position += count as u64;
                left = left.saturating_sub(count);
            }
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => {
                return Err(SendError::Socket(timed_out(
                    "the peer does not take its reply",
                )));
            }
            Err(errno @ (Errno::EPIPE | Errno::ECONNRESET | Errno::ETIMEDOUT)) => {
                return Err(SendError::Socket(errno.into()));
            }
            Err(errno) => return Err(SendError::Disk(errno.into())),
        }
    }
    Ok(())
}

fn send_zeros(mut stream: &TcpStream, length: usize) -> io::Result<()> {
    let mut left = length;
    while left > 0 {
        let part = ZEROS.get(..left.min(ZEROS.len())).unwrap_or(&ZEROS);
        stream.write_all(part)?;
        left -= part.len();
    }
    Ok(())
}

/// A connection's buffer, made at its first use.
pub(super) fn buffer_of(buffer: &mut Option<AlignedBuffer>) -> &mut AlignedBuffer {
    buffer.get_or_insert_with(|| AlignedBuffer::new(VERIFY_BUFFER_BYTES))
}

/// Receives a payload of `length` bytes piece by piece and hands each to `store` with its offset in
/// the payload. The whole payload is received, also after `store` has failed: the next frame
/// starts behind it. The outer error is the socket's, the inner one `store`'s first.
pub(super) fn receive<E>(
    stream: &mut impl Read,
    buffer: &mut Option<AlignedBuffer>,
    length: usize,
    mut store: impl FnMut(&[u8], u64) -> Result<(), E>,
) -> io::Result<Result<(), E>> {
    let buffer = buffer_of(buffer);
    let mut outcome = Ok(());
    let mut done = 0;
    while done < length {
        let size = (length - done).min(BUFFER_BYTES);
        let Some(piece) = buffer.get_mut(..size) else {
            break;
        };
        stream.read_exact(piece)?;
        if outcome.is_ok() {
            outcome = store(piece, done as u64);
        }
        done += size;
    }
    Ok(outcome)
}
