// SPDX-License-Identifier: MIT
//! A peer of an iod that speaks frames of the test's choice over one connection.

use std::io::{IoSlice, Read};
use std::net::{SocketAddr, TcpStream};

use pvfs::ids::SessionId;
use pvfs::proto::iod::{Change, IodReply, IodRequest, IodResponse};
use pvfs::wire::blocking::{read_message, write_message};
use pvfs::wire::header::{FrameHeader, FrameKind};

use super::{Iod, TEST_TIMEOUT, stripe};

pub fn read(inode: u64, offset: u64, length: u32) -> IodRequest {
    IodRequest::Read {
        stripe: stripe(inode),
        offset,
        length,
        filled: 0,
    }
}

pub fn write(inode: u64, offset: u64) -> IodRequest {
    write_under(inode, offset, 0)
}

pub fn write_under(inode: u64, offset: u64, fence: u64) -> IodRequest {
    IodRequest::Write {
        stripe: stripe(inode),
        offset,
        fence,
        change: Change::UNNAMED,
    }
}

/// A client that sends what a test likes.
pub struct Peer {
    pub stream: TcpStream,
    /// Names its changes, from the first one on.
    last: Option<Change>,
}

impl Peer {
    pub fn connect(iod: &Iod) -> Self {
        Self::connect_to(iod.address)
    }

    pub fn connect_to(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(TEST_TIMEOUT)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, last: None }
    }

    pub fn open_session(&mut self) -> SessionId {
        match self.call(&IodRequest::OpenSession, &[]).0 {
            Ok(IodResponse::Session(session)) => session,
            other => panic!("{other:?}"),
        }
    }

    /// The request, with the next name of a session of this peer's where it makes a change.
    pub fn named(&mut self, request: &IodRequest) -> IodRequest {
        let mut request = request.clone();
        if let Some(change) = request.change_mut() {
            if *change == Change::UNNAMED {
                let last = self.last.unwrap_or_else(|| Change {
                    session: self.open_session(),
                    ..Change::UNNAMED
                });
                *change = Change {
                    sequence: last.sequence + 1,
                    ..last
                };
                self.last = Some(*change);
            }
        }
        request
    }

    pub fn send(&mut self, id: u64, request: &IodRequest, payload: &[u8]) {
        let request = self.named(request);
        let payload = [IoSlice::new(payload)];
        let kind = FrameKind::IodRequest;
        write_message(&mut self.stream, kind, id, &request, &payload).unwrap();
    }

    pub fn receive(&mut self) -> (u64, IodReply, Vec<u8>) {
        let mut scratch = Vec::new();
        let (header, reply): (FrameHeader, IodReply) =
            read_message(&mut self.stream, FrameKind::IodReply, &mut scratch)
                .unwrap()
                .unwrap();
        let mut payload = vec![0; header.payload_length];
        self.stream.read_exact(&mut payload).unwrap();
        (header.request_id, reply, payload)
    }

    pub fn call(&mut self, request: &IodRequest, payload: &[u8]) -> (IodReply, Vec<u8>) {
        self.send(7, request, payload);
        let (id, reply, payload) = self.receive();
        assert_eq!(id, 7);
        (reply, payload)
    }

    /// The iod closes the connection without another byte of reply.
    pub fn ends_by_a_cut(mut self) -> bool {
        let mut rest = Vec::new();
        // A reset is a way to close, too: unread bytes were under way.
        match self.stream.read_to_end(&mut rest) {
            Ok(_) => rest.is_empty(),
            Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset && rest.is_empty(),
        }
    }
}
