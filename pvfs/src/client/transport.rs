// SPDX-License-Identifier: MIT
//! What carries frames to an iod: TCP now; RDMA or Unix sockets would be other [`Transport`]s.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;

use socket2::TcpKeepalive;

use crate::address::Endpoint;
use crate::runtime::net::{self, TcpStream, set_keepalive};

/// A stream's calls return [`io::ErrorKind::WouldBlock`] after so long without progress, so that a
/// caller can look whether it still wants to wait.
pub const WAIT_SLICE_MS: u64 = 500;
/// A silent peer is probed after so long: a host that lost power says nothing for ever.
const KEEPALIVE_IDLE_SECONDS: u64 = 10;
/// Pause between probes.
const KEEPALIVE_INTERVAL_SECONDS: u64 = 5;
/// A peer that answers no probe, acknowledges no data or keeps its receive window shut for so long
/// counts as dead. A disk that hangs shuts the window too, so this is longer than a disk hangs.
const UNACKNOWLEDGED_SECONDS_MAX: u64 = 120;

/// A connected byte stream. Reads and writes wait at most about [`WAIT_SLICE_MS`].
pub trait ByteStream: Read + Write + Send {}

impl ByteStream for TcpStream {}

/// A way to reach a peer.
pub trait Transport: Send + Sync {
    /// Connects to `endpoint` within `timeout`.
    ///
    /// # Errors
    ///
    /// The last address' failure where the name has several.
    fn connect(&self, endpoint: &Endpoint, timeout: Duration) -> io::Result<Box<dyn ByteStream>>;
}

/// TCP.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tcp;

impl Transport for Tcp {
    fn connect(&self, endpoint: &Endpoint, timeout: Duration) -> io::Result<Box<dyn ByteStream>> {
        let stream = dial(endpoint, timeout)?;
        configure(&stream)?;
        Ok(Box::new(stream))
    }
}

/// Connects to a daemon, within `timeout` for each address that its name has: the way of every PVFS
/// process to every daemon. Daemons trust reserved ports, so it comes from one where it may.
///
/// # Errors
///
/// The resolver's, or the last address' failure.
pub fn dial(endpoint: &Endpoint, timeout: Duration) -> io::Result<TcpStream> {
    dial_any(resolve(endpoint)?, timeout)
}

/// The addresses that an endpoint's name has.
///
/// # Errors
///
/// The resolver's.
pub fn resolve(endpoint: &Endpoint) -> io::Result<impl Iterator<Item = SocketAddr>> {
    (endpoint.host.as_str(), endpoint.port).to_socket_addrs()
}

/// Connects to the first of these addresses that answers, within `timeout` for each.
///
/// # Errors
///
/// The last address' failure.
pub fn dial_any(
    addresses: impl Iterator<Item = SocketAddr>,
    timeout: Duration,
) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in addresses {
        match net::dial(&address, timeout) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn configure(stream: &TcpStream) -> io::Result<()> {
    // A request must not wait for the acknowledgement of the one before.
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_millis(WAIT_SLICE_MS)))?;
    stream.set_write_timeout(Some(Duration::from_millis(WAIT_SLICE_MS)))?;
    enable_keepalive(stream)
}

/// Has the kernel end a connection whose peer is dead or cut off.
///
/// # Errors
///
/// As `setsockopt(2)`.
pub fn enable_keepalive(stream: &TcpStream) -> io::Result<()> {
    let idle = Duration::from_secs(KEEPALIVE_IDLE_SECONDS);
    let interval = Duration::from_secs(KEEPALIVE_INTERVAL_SECONDS);
    let keepalive = TcpKeepalive::new().with_time(idle).with_interval(interval);
    let unacknowledged_max = Duration::from_secs(UNACKNOWLEDGED_SECONDS_MAX);
    set_keepalive(stream, &keepalive, unacknowledged_max)
}
