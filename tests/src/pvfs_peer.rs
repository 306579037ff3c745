// SPDX-License-Identifier: MIT
//! A peer of mgr or an iod that sends what it likes: frames made by hand, in pieces, from an address of
//! its own.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, bail};
use pvfs::attr::Credentials;
use pvfs::ids::ClientId;
use pvfs::proto::mgr::{MgrOperation, MgrReply, MgrRequest};
use pvfs::proto::peer::Peer;
use pvfs::wire::codec::{decode_checked, encode};
use pvfs::wire::header::{FrameHeader, FrameKind, HEADER_BYTES, checksum};
use socket2::{Domain, Protocol, Socket, Type};

/// What no daemon takes that is not hung.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// Where the bytes of a header's own checksum begin.
const HEADER_CHECKSUM_AT: usize = 28;

/// The address of the `number`th attacker: the loopback has many.
#[must_use]
pub const fn attacker(number: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(127, 0, 66, number))
}

/// A connection from an address of our choice.
///
/// # Errors
///
/// Those of connect(2).
pub fn connect_from(from: IpAddr, to: &str) -> anyhow::Result<TcpStream> {
    let to: SocketAddr = to.parse().context("no address")?;
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    socket.bind(&SocketAddr::new(from, 0).into())?;
    socket.connect_timeout(&to.into(), ANSWER_TIMEOUT)?;
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    stream.set_write_timeout(Some(ANSWER_TIMEOUT))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// A frame with its right checksums.
#[must_use]
pub fn frame(kind: FrameKind, request_id: u64, body: &[u8], payload: &[u8]) -> Vec<u8> {
    let header = FrameHeader::new(kind, request_id, body, payload.len());
    [&header.to_bytes(), body, payload].concat()
}

/// A frame whose header claims another version, body length or payload length, with a right
/// checksum.
#[must_use]
pub fn forged(frame: &[u8], version: u16, body_length: u32, payload_length: u32) -> Vec<u8> {
    let mut forged = frame.to_vec();
    forged[4..6].copy_from_slice(&version.to_le_bytes());
    forged[16..20].copy_from_slice(&body_length.to_le_bytes());
    forged[20..24].copy_from_slice(&payload_length.to_le_bytes());
    let sum = checksum(&forged[..HEADER_CHECKSUM_AT]);
    forged[HEADER_CHECKSUM_AT..HEADER_BYTES].copy_from_slice(&sum.to_le_bytes());
    forged
}

/// What a request to mgr is on the wire.
///
/// # Errors
///
/// Where it is too long.
pub fn request(client: u64, sequence: u64, operation: MgrOperation) -> anyhow::Result<Vec<u8>> {
    let request = MgrRequest {
        client: ClientId(client),
        sequence,
        answered_below: 0,
        credentials: Credentials::ROOT,
        operation,
    };
    let body = encode(&request).context("too long")?;
    Ok(frame(FrameKind::MgrRequest, sequence + 1, &body, &[]))
}

/// A client's first words, without leases.
#[must_use]
pub fn hello() -> MgrOperation {
    MgrOperation::Hello {
        number: 0,
        opens: Vec::new(),
        leases: false,
        locks: Vec::new(),
        more: false,
        news: false,
        peer: Peer::default(),
    }
}

/// Sends it and takes the reply; notices are skipped.
///
/// # Errors
///
/// Where the connection ends first.
pub fn call(stream: &mut TcpStream, frame: &[u8]) -> anyhow::Result<MgrReply> {
    stream.write_all(frame)?;
    loop {
        let mut bytes = [0; HEADER_BYTES];
        stream.read_exact(&mut bytes)?;
        let header = FrameHeader::parse(&bytes)?;
        let mut body = vec![0; header.body_length];
        stream.read_exact(&mut body)?;
        match header.kind {
            FrameKind::MgrNotice => {}
            FrameKind::MgrReply => return Ok(decode_checked(&header, &body)?),
            kind => bail!("a frame of kind {kind:?}"),
        }
    }
}

/// Everything that comes until the peer ends the connection.
///
/// # Errors
///
/// Where it does not.
pub fn until_the_end(stream: &mut TcpStream) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        Ok(_) => Ok(bytes),
        // A way to end it too: unread bytes were under way.
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(bytes),
        Err(error) => Err(error).context("the connection goes on"),
    }
}
