// SPDX-License-Identifier: MIT
//! One connection: a task that reads requests, a task that writes replies. A peer that sends
//! anything but sound frames loses this connection and nothing else.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use pvfs::proto::lease::Notice;
use pvfs::proto::mgr::{MgrReply, MgrRequest};
use pvfs::wire::codec::{decode_checked, encode};
use pvfs::wire::header::{FrameError, FrameHeader, FrameKind, HEADER_BYTES};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc::{Sender, UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::owner::Input;
use crate::owner::thread::Command;

/// Requests of one connection that have no reply yet: all that a client may have under sequence
/// numbers, and as many reads again. Beyond, nothing more is read from it.
pub const REQUESTS_IN_FLIGHT_MAX: usize = 2048;
/// Once a frame has begun, the rest of it must come within this time; the first frame of a
/// connection must begin within it. Between frames, a client may be silent: its session sees to it.
const FRAME_TIMEOUT: Duration = Duration::from_secs(30);
/// A peer that takes no replies for so long is gone.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);
const READ_BUFFER_BYTES: usize = 64 << 10;
/// Replies that are there are written together up to about so many bytes.
const WRITE_BYTES_MAX: usize = 256 << 10;

/// Why a connection ends.
#[derive(Debug, Error)]
enum End {
    #[error("closed by the peer")]
    Closed,
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Frame(#[from] FrameError),
    #[error("no whole frame within {} s", FRAME_TIMEOUT.as_secs())]
    Slow,
    #[error("its session has expired")]
    Expired,
    #[error("mgr is stopping")]
    Stopping,
}

#[derive(Debug)]
struct Shared {
    id: u64,
    outgoing: UnboundedSender<Outgoing>,
    close: Notify,
}

/// A connection, to reply to and to close.
#[derive(Clone, Debug)]
pub struct Handle(Arc<Shared>);

impl Handle {
    /// Its number: unique since mgr started.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.0.id
    }

    /// Sends a notice, after everything that was sent before.
    pub fn notify(&self, notice: Notice) {
        // A connection that has ended took its client's leases with it.
        let _ = self.0.outgoing.send(Outgoing::Notice(notice));
    }

    /// Ends it.
    pub fn close(&self) {
        self.0.close.notify_one();
    }
}

/// What is to be written. Replies are bounded by the permits of their requests; notices by the
/// requests of others, each of which demands something of a client a bounded number of times.
#[derive(Debug)]
enum Outgoing {
    Reply {
        request_id: u64,
        reply: MgrReply,
        _permit: OwnedSemaphorePermit,
    },
    Notice(Notice),
}

/// Whoever waits for a reply: a request of a connection.
#[derive(Debug)]
pub struct Waiter {
    handle: Handle,
    request_id: u64,
    permit: OwnedSemaphorePermit,
}

impl Waiter {
    /// Its connection.
    #[must_use]
    pub const fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Sends the reply.
    pub fn send(self, reply: MgrReply) {
        let Self {
            handle,
            request_id,
            permit,
        } = self;
        let outgoing = Outgoing::Reply {
            request_id,
            reply,
            _permit: permit,
        };
        // A closed channel is a connection that has ended; its client will ask again on another.
        let _ = handle.0.outgoing.send(outgoing);
    }
}

/// Serves one connection until it ends.
pub async fn serve(stream: TcpStream, peer: SocketAddr, id: u64, owner: Sender<Command>) {
    let (read, write) = stream.into_split();
    let (sender, outgoing) = unbounded_channel();
    let handle = Handle(Arc::new(Shared {
        id,
        outgoing: sender,
        close: Notify::new(),
    }));
    tracing::debug!("connection {id} from {peer}");
    let end = tokio::select! {
        end = read_requests(read, &handle, &owner) => end,
        end = write_replies(write, outgoing) => end,
        () = handle.0.close.notified() => End::Expired,
    };
    match end {
        End::Closed => tracing::debug!("connection {id} from {peer}: {end}"),
        End::Io(_) | End::Expired | End::Stopping => {
            tracing::info!("connection {id} from {peer} ends: {end}");
        }
        End::Frame(_) | End::Slow => tracing::warn!("connection {id} from {peer} ends: {end}"),
    }
    // The owner is gone only when the process ends.
    let _ = owner.send(Command::Input(Input::Disconnected(id))).await;
}

async fn read_requests(read: OwnedReadHalf, handle: &Handle, owner: &Sender<Command>) -> End {
    match read_all(read, handle, owner).await {
        Ok(never) => match never {},
        Err(end) => end,
    }
}

async fn read_all(
    read: OwnedReadHalf,
    handle: &Handle,
    owner: &Sender<Command>,
) -> Result<std::convert::Infallible, End> {
    let mut read = BufReader::with_capacity(READ_BUFFER_BYTES, read);
    let permits = Arc::new(Semaphore::new(REQUESTS_IN_FLIGHT_MAX));
    let mut body = Vec::new();
    let mut first_byte = timeout(FRAME_TIMEOUT, read.read_u8())
        .await
        .map_err(|_| End::Slow)?;
    loop {
        let first = match first_byte {
            Ok(first) => first,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(End::Closed),
            Err(error) => return Err(error.into()),
        };
        let frame = timeout(FRAME_TIMEOUT, read_frame(&mut read, first, &mut body));
        let (request_id, request) = frame.await.map_err(|_| End::Slow)??;
        let permit = Arc::clone(&permits)
            .acquire_owned()
            .await
            .map_err(|_| End::Stopping)?;
        let waiter = Waiter {
            handle: handle.clone(),
            request_id,
            permit,
        };
        let connection = handle.id();
        let input = Input::Request {
            waiter,
            connection,
            request: Box::new(request),
        };
        owner
            .send(Command::Input(input))
            .await
            .map_err(|_| End::Stopping)?;
        first_byte = read.read_u8().await;
    }
}

async fn read_frame(
    read: &mut (impl AsyncRead + Unpin),
    first: u8,
    body: &mut Vec<u8>,
) -> Result<(u64, MgrRequest), End> {
    let mut bytes = [0; HEADER_BYTES];
    if let Some((start, rest)) = bytes.split_first_mut() {
        *start = first;
        read.read_exact(rest).await?;
    }
    let header = FrameHeader::parse(&bytes)?.expect(FrameKind::MgrRequest)?;
    if header.payload_length > 0 {
        return Err(FrameError::UnexpectedPayload(header.payload_length).into());
    }
    body.resize(header.body_length, 0);
    read.read_exact(body).await?;
    Ok((header.request_id, decode_checked(&header, body)?))
}

async fn write_replies(
    mut write: OwnedWriteHalf,
    mut outgoing: UnboundedReceiver<Outgoing>,
) -> End {
    let mut bytes = Vec::new();
    while let Some(first) = outgoing.recv().await {
        append(&mut bytes, &first);
        while bytes.len() < WRITE_BYTES_MAX {
            let Ok(next) = outgoing.try_recv() else { break };
            append(&mut bytes, &next);
        }
        match timeout(WRITE_TIMEOUT, write.write_all(&bytes)).await {
            Ok(Ok(())) => bytes.clear(),
            Ok(Err(error)) => return End::Io(error),
            Err(_) => return End::Slow,
        }
    }
    End::Stopping
}

fn append(bytes: &mut Vec<u8>, outgoing: &Outgoing) {
    let (kind, request_id, body) = match outgoing {
        Outgoing::Reply {
            request_id, reply, ..
        } => (FrameKind::MgrReply, *request_id, encode(reply)),
        Outgoing::Notice(notice) => (FrameKind::MgrNotice, 0, encode(notice)),
    };
    let body = match body {
        Ok(body) => body,
        Err(error) => encode(&MgrReply::Err(error)).unwrap_or_default(),
    };
    let header = FrameHeader::new(kind, request_id, &body, 0);
    bytes.extend_from_slice(&header.to_bytes());
    bytes.extend_from_slice(&body);
}

const _: () = assert!(REQUESTS_IN_FLIGHT_MAX > pvfs::limits::REPLIES_KEPT_PER_CLIENT_MAX);
