// SPDX-License-Identifier: MIT
//! What a peer hears whose port is not reserved: why, and then the connection's end.

use std::io::{Read, Write};
use std::net::Shutdown;

use pvfs::limits::{REFUSED_BYTES_MAX, REFUSED_LINGER_MS};
use pvfs::runtime::net::TcpStream;
use pvfs::runtime::time::{Duration, Instant};
use pvfs::wire::header::FrameHeader;

/// Thrown away at once.
const BUFFER_BYTES: usize = 4096;

/// Says why and throws away what the peer has sent: with anything of it unread, the kernel would
/// reset the connection, and the peer might lose the answer.
pub(super) fn tell(stream: &TcpStream) {
    let until = Instant::now() + Duration::from_millis(REFUSED_LINGER_MS);
    let mut stream = stream;
    let told = stream
        .write_all(&FrameHeader::port_refused().to_bytes())
        .and_then(|()| stream.shutdown(Shutdown::Write));
    let mut buffer = [0; BUFFER_BYTES];
    let mut left = REFUSED_BYTES_MAX;
    while told.is_ok() && left > 0 {
        let wait = until.saturating_duration_since(Instant::now());
        if wait.is_zero() || stream.set_read_timeout(Some(wait)).is_err() {
            break;
        }
        match stream.read(&mut buffer) {
            Ok(1..) => left = left.saturating_sub(BUFFER_BYTES),
            _ => break,
        }
    }
}
