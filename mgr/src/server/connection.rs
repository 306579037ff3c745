// SPDX-License-Identifier: MIT
//! One connection: a task that reads requests, a task that writes replies. A peer that sends
//! anything but sound frames loses this connection and nothing else.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use pvfs::error::FsError;
use pvfs::ids::ClientId;
use pvfs::proto::lease::Notice;
use pvfs::proto::mgr::{MgrOperation, MgrReply, MgrRequest};
use pvfs::wire::codec::{decode_checked, encode};
use pvfs::wire::header::{FrameError, FrameHeader, FrameKind, HEADER_BYTES};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc::{Sender, UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::Command;
use super::peers::{Place, charge, kib};
use crate::owner::Input;

/// Requests of one connection that have no reply yet: all that a client may have under sequence
/// numbers, and as many reads again. Beyond, nothing more is read from it.
pub const REQUESTS_IN_FLIGHT_MAX: usize = 2048;
/// Once a frame has begun, the rest of it must come within this time; the first frame of a
/// connection must begin within it. Between frames, a client may be silent for longer.
const FRAME_TIMEOUT: Duration = Duration::from_secs(30);
/// A peer that takes no replies for so long is gone.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);
/// Requests are small; larger ones go past it.
const READ_BUFFER_BYTES: usize = 16 << 10;
/// Buffers that have grown beyond this are given back: large messages are rare.
const KEPT_BYTES_MAX: usize = 64 << 10;
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
    #[error("nothing came for {:.1} s", .0.as_secs_f64())]
    Idle(Duration),
    #[error("it speaks for client {0} and for client {1}")]
    TwoClients(ClientId, ClientId),
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
        _memory: OwnedSemaphorePermit,
    },
    Notice(Notice),
    /// The last: its header tells a peer of another version which one this is.
    Refusal(FrameError),
}

/// Whoever waits for a reply: a request of a connection.
#[derive(Debug)]
pub struct Waiter {
    handle: Handle,
    request_id: u64,
    permit: OwnedSemaphorePermit,
    memory: OwnedSemaphorePermit,
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
            memory,
        } = self;
        let outgoing = Outgoing::Reply {
            request_id,
            reply,
            _permit: permit,
            _memory: memory,
        };
        // A closed channel is a connection that has ended; its client will ask again on another.
        let _ = handle.0.outgoing.send(outgoing);
    }
}

/// A connection on which nothing comes for so long ends.
#[derive(Clone, Copy, Debug)]
pub struct IdleTimeouts {
    /// Of a peer that sends no heartbeats.
    pub quiet: Duration,
    /// Of a client that does: not before its leases have ended.
    pub client: Duration,
    /// Of an iod.
    pub iod: Duration,
}

/// Serves one connection until it ends.
pub async fn serve(
    stream: TcpStream,
    (peer, place): (SocketAddr, Place),
    id: u64,
    owner: Sender<Command>,
    idle: IdleTimeouts,
) {
    let (read, write) = stream.into_split();
    let (sender, outgoing) = unbounded_channel();
    let handle = Handle(Arc::new(Shared {
        id,
        outgoing: sender,
        close: Notify::new(),
    }));
    tracing::debug!("connection {id} from {peer}");
    let connected = Input::Connected(id, peer.ip().to_canonical());
    // The owner is gone only when the process ends.
    let _ = owner.send(Command::Input(connected)).await;
    let end = tokio::select! {
        end = read_requests(read, &handle, &owner, (&place, idle)) => end,
        end = write_replies(write, outgoing) => end,
        () = handle.0.close.notified() => End::Expired,
    };
    match end {
        End::Closed => tracing::debug!("connection {id} from {peer}: {end}"),
        End::Io(_) | End::Expired | End::Stopping | End::Idle(_) => {
            tracing::info!("connection {id} from {peer} ends: {end}");
        }
        End::Frame(_) | End::Slow | End::TwoClients(..) => {
            tracing::warn!("connection {id} from {peer} ends: {end}")
        }
    }
    // The owner is gone only when the process ends.
    let _ = owner.send(Command::Input(Input::Disconnected(id))).await;
}

async fn read_requests(
    read: OwnedReadHalf,
    handle: &Handle,
    owner: &Sender<Command>,
    limits: (&Place, IdleTimeouts),
) -> End {
    match read_all(read, handle, owner, limits).await {
        Ok(never) => match never {},
        Err(End::Frame(error @ FrameError::Version(_))) => {
            // The connection ends when it is written.
            let _ = handle.0.outgoing.send(Outgoing::Refusal(error));
            tokio::time::sleep(WRITE_TIMEOUT).await;
            End::Frame(error)
        }
        Err(end) => end,
    }
}

async fn read_all(
    read: OwnedReadHalf,
    handle: &Handle,
    owner: &Sender<Command>,
    (place, idle): (&Place, IdleTimeouts),
) -> Result<std::convert::Infallible, End> {
    let mut read = BufReader::with_capacity(READ_BUFFER_BYTES, read);
    let permits = Arc::new(Semaphore::new(REQUESTS_IN_FLIGHT_MAX));
    let mut body = Vec::new();
    let mut speaks_for = None;
    let mut idle_timeout = idle.quiet;
    let mut first_byte = timeout(FRAME_TIMEOUT, read.read_u8())
        .await
        .map_err(|_| End::Slow)?;
    loop {
        let first = match first_byte {
            Ok(first) => first,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(End::Closed),
            Err(error) => return Err(error.into()),
        };
        let frame = timeout(
            FRAME_TIMEOUT,
            read_frame(&mut read, first, &mut body, place),
        );
        let (request_id, request) = frame.await.map_err(|_| End::Slow)??;
        // One connection could open any number of sessions otherwise.
        let client = *speaks_for.get_or_insert(request.client);
        if client != request.client {
            return Err(End::TwoClients(client, request.client));
        }
        // A peer that has begun with heartbeats goes on with them while it is there.
        match request.operation {
            MgrOperation::KeepAlive => idle_timeout = idle.client,
            MgrOperation::IodHeartbeat { .. } => idle_timeout = idle.iod,
            _ => {}
        }
        let memory = take_memory(place, charge(body.len(), &request.operation)).await?;
        if body.capacity() > KEPT_BYTES_MAX {
            body = Vec::new();
        }
        let permit = Arc::clone(&permits)
            .acquire_owned()
            .await
            .map_err(|_| End::Stopping)?;
        let waiter = Waiter {
            handle: handle.clone(),
            request_id,
            permit,
            memory,
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
        first_byte = timeout(idle_timeout, read.read_u8())
            .await
            .map_err(|_| End::Idle(idle_timeout))?;
    }
}

async fn take_memory(place: &Place, kib: u32) -> Result<OwnedSemaphorePermit, End> {
    let memory = Arc::clone(place.memory());
    memory
        .acquire_many_owned(kib)
        .await
        .map_err(|_| End::Stopping)
}

async fn read_frame(
    read: &mut (impl AsyncRead + Unpin),
    first: u8,
    body: &mut Vec<u8>,
    place: &Place,
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
    // Given back before the request takes its own: whoever holds some never waits for more.
    let _memory = take_memory(place, kib(header.body_length)).await?;
    body.resize(header.body_length, 0);
    read.read_exact(body).await?;
    Ok((header.request_id, decode_checked(&header, body)?))
}

async fn write_replies(
    mut write: OwnedWriteHalf,
    mut outgoing: UnboundedReceiver<Outgoing>,
) -> End {
    let mut bytes = Vec::new();
    loop {
        let Some(first) = outgoing.recv().await else {
            break End::Stopping;
        };
        let mut refusal = append(&mut bytes, &first);
        while refusal.is_none() && bytes.len() < WRITE_BYTES_MAX {
            let Ok(next) = outgoing.try_recv() else { break };
            refusal = append(&mut bytes, &next);
        }
        match timeout(WRITE_TIMEOUT, write.write_all(&bytes)).await {
            Ok(Ok(())) if refusal.is_some() => break refusal.map_or(End::Closed, End::Frame),
            Ok(Ok(())) if bytes.capacity() > KEPT_BYTES_MAX => bytes = Vec::new(),
            Ok(Ok(())) => bytes.clear(),
            Ok(Err(error)) => break End::Io(error),
            Err(_) => break End::Slow,
        }
    }
}

/// Adds a frame; gives the reason where it is the connection's last.
fn append(bytes: &mut Vec<u8>, outgoing: &Outgoing) -> Option<FrameError> {
    let (kind, request_id, body) = match outgoing {
        Outgoing::Reply {
            request_id, reply, ..
        } => (FrameKind::MgrReply, *request_id, encode(reply)),
        Outgoing::Notice(notice) => (FrameKind::MgrNotice, 0, encode(notice)),
        Outgoing::Refusal(_) => {
            let reply = MgrReply::Err(FsError::Protocol);
            (FrameKind::MgrReply, 0, encode(&reply))
        }
    };
    let body = match body {
        Ok(body) => body,
        Err(error) => encode(&MgrReply::Err(error)).unwrap_or_default(),
    };
    let header = FrameHeader::new(kind, request_id, &body, 0);
    bytes.extend_from_slice(&header.to_bytes());
    bytes.extend_from_slice(&body);
    match outgoing {
        Outgoing::Refusal(error) => Some(*error),
        Outgoing::Reply { .. } | Outgoing::Notice(_) => None,
    }
}

const _: () = assert!(REQUESTS_IN_FLIGHT_MAX > pvfs::limits::REPLIES_KEPT_PER_CLIENT_MAX);
