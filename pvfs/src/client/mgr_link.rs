// SPDX-License-Identifier: MIT
//! The two threads behind [`super::mgr`]: one makes connections and reads replies, one sends
//! heartbeats and ends a connection on which mgr has fallen silent.

use std::collections::BTreeSet;
use std::io::{self, BufRead, BufReader, Write};
use std::net::Shutdown;
use std::sync::atomic::Ordering;

use super::leases::BootTime;
use super::mgr::{BACKOFF_FIRST, BACKOFF_MAX, Shared, Welcome};
use super::session::{Begun, Declaration, Finished};
use super::silence::{Silence, Stage};
use super::transport::dial;
use crate::limits::{HEARTBEAT_INTERVAL_MS, SILENCE_LOOK_MS};
use crate::proto::lease::{NO_LEASE, Notice};
use crate::proto::mgr::{MgrOperation, MgrReply, MgrResponse};
use crate::runtime::net::TcpStream;
use crate::runtime::sync::mpsc::{Receiver, SyncSender, TryRecvError};
use crate::runtime::sync::{Arc, Mutex, PoisonError};
use crate::runtime::time::{Duration, Instant};
use crate::wire::blocking::{ConnectionError, read_frame};
use crate::wire::codec::decode_checked;
use crate::wire::header::{FrameError, FrameHeader, FrameKind};

/// One attempt to connect: a host that drops packets is tried anew after so long.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// mgr's welcome comes within this time or the connection is given up. mgr may be reading its
/// journal after a start.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// A peer that takes no byte for so long is gone.
const WRITE_TIMEOUT: Duration = Duration::from_secs(20);
/// The shortest session timeout that is honoured, whatever mgr announces: a keep-alive must have
/// time to be answered.
const SESSION_TIMEOUT_MIN: Duration = Duration::from_millis(300);
/// Heartbeats at least in the time after which leases end: most of it is left when one is late.
const KEEP_ALIVES_PER_LEASE: u32 = 6;
/// Heartbeats at least in the time after which a session ends.
const KEEP_ALIVES_PER_SESSION: u32 = 3;
/// Reports of what was written before a connection broke are waited for no longer than this before
/// the client greets anew: one of them may have to wait for an iod.
const REPORTS_TIMEOUT: Duration = Duration::from_secs(3);
/// Replies are small; this many bytes are taken from the socket at once.
const READ_BUFFER_BYTES: usize = 64 << 10;

/// A connection on which mgr has welcomed this client.
#[derive(Debug)]
pub(super) struct Link {
    stream: TcpStream,
    /// Held while a frame is written, so that frames do not mix.
    writing: Mutex<()>,
}

impl Link {
    /// Writes a frame. Where it fails, the connection ends, and the next one carries the frame.
    pub(super) fn send(&self, frame: &[u8]) {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = (&self.stream).write_all(frame) {
            tracing::debug!("write to mgr: {error}");
            self.shut_down();
        }
    }

    /// Writes what `frame` gives, unless another frame is just being written: then the peer hears of
    /// this side anyway, or takes nothing any more.
    fn send_if_free<T>(&self, frame: impl FnOnce() -> Option<(Arc<[u8]>, T)>) -> Option<T> {
        let _writing = self.writing.try_lock().ok()?;
        let (frame, sent) = frame()?;
        if let Err(error) = (&self.stream).write_all(&frame) {
            tracing::debug!("write to mgr: {error}");
            self.shut_down();
        }
        Some(sent)
    }

    /// Ends the connection: its reader wakes up and makes a new one.
    pub(super) fn shut_down(&self) {
        // An error means that it has ended already.
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

/// Why a connection was not made or ended.
#[derive(Debug, thiserror::Error)]
enum LinkError {
    #[error("{0}")]
    Connection(#[from] ConnectionError),
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("connection closed")]
    Closed,
    #[error("mgr refused the greeting: {0}")]
    Greeting(crate::error::FsError),
    #[error("it serves another file system than before: is this the right mgr?")]
    AnotherFileSystem,
}

/// Connects, reads replies until the connection ends, and again, until the client ends.
pub(super) fn run(shared: &Shared) {
    let mut backoff = BACKOFF_FIRST;
    loop {
        let error = match establish(shared) {
            Ok((link, mut reader)) => {
                shared.note_back(&link);
                backoff = BACKOFF_FIRST;
                let error = read_replies(shared, &link, &mut reader);
                link.shut_down();
                error
            }
            Err(error) => error,
        };
        let closing = shared.disconnected(&error.to_string());
        if let Some(keeper) = &shared.keeper {
            // What is kept is dropped while it still holds; the next greeting says that it is gone.
            keeper.disconnected();
            shared.lease_clock.end();
        }
        shared.note_away(&error);
        tracing::debug!("connection to mgr {}: {error}", shared.endpoint);
        if closing || !shared.pause(backoff, None) {
            // Whoever still waits for a reply is told that none will come.
            shared.lock().session.clear();
            return;
        }
        backoff = (backoff * 2).min(BACKOFF_MAX);
    }
}

/// A connection with the greeting done, all unanswered requests sent, open to callers.
fn establish(shared: &Shared) -> Result<(Arc<Link>, BufReader<TcpStream>), LinkError> {
    let stream = dial(&shared.endpoint, CONNECT_TIMEOUT)?;
    stream.set_nodelay(true)?;
    stream.set_write_timeout(Some(WRITE_TIMEOUT))?;
    stream.set_read_timeout(Some(HELLO_TIMEOUT))?;
    let mut reader = BufReader::with_capacity(READ_BUFFER_BYTES, stream.try_clone()?);
    let link = Arc::new(Link {
        stream,
        writing: Mutex::new(()),
    });
    {
        let mut state = shared.lock();
        if state.closing {
            return Err(LinkError::Closed);
        }
        state.greeting = Some(Arc::clone(&link));
    }
    let welcome = begin_session(shared, &link.stream, &mut reader);
    let welcome = welcome.inspect_err(|_| link.shut_down())?;
    link.stream.set_read_timeout(None)?;
    let (frames, asks) = {
        let mut guard = shared.lock();
        let state = &mut *guard;
        state.greeting = None;
        if state.closing {
            return Err(LinkError::Closed);
        }
        state.welcome = Some(welcome);
        state.failure = None;
        state.link = Some(Arc::clone(&link));
        let frames = state.session.unanswered_frames();
        (frames, state.asks())
    };
    // Callers may write between these frames; requests are independent of each other.
    for frame in frames {
        link.send(&frame);
    }
    send_all(&link, &asks);
    shared.changed.notify_all();
    Ok((link, reader))
}

/// Sends requests that nobody waits for.
pub(super) fn send_all(link: &Link, begun: &[Begun]) {
    for begun in begun {
        link.send(&begun.frame);
    }
}

/// Greets. A client with leases says first what it wrote before: with the second greeting, mgr gives
/// to others what it held.
fn begin_session(
    shared: &Shared,
    stream: &TcpStream,
    reader: &mut BufReader<TcpStream>,
) -> Result<Welcome, LinkError> {
    let opens = shared.lock().session.reopens();
    let welcome = greet(shared, stream, reader, (opens, false))?;
    let Some(keeper) = &shared.keeper else {
        return Ok(welcome);
    };
    keeper.reconnecting();
    report(shared, stream, reader)?;
    let claims = shared.lock().session.claims();
    greet(shared, stream, reader, (claims, true))
}

/// Sends the reports that have no reply, and takes the replies that come in time.
fn report(
    shared: &Shared,
    stream: &TcpStream,
    reader: &mut BufReader<TcpStream>,
) -> Result<(), LinkError> {
    let reports = shared.lock().session.unanswered_reports();
    let mut open = BTreeSet::new();
    for Begun { id, frame } in reports {
        let mut writer = stream;
        writer.write_all(&frame)?;
        open.insert(id);
    }
    let deadline = Instant::now() + REPORTS_TIMEOUT;
    let mut scratch = Vec::new();
    while !open.is_empty() {
        let left = deadline.saturating_duration_since(Instant::now());
        stream.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
        match reader.fill_buf() {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => return Err(error.into()),
        }
        stream.set_read_timeout(Some(HELLO_TIMEOUT))?;
        match read_incoming(reader, &mut scratch)?.ok_or(LinkError::Closed)? {
            // About leases from before the greeting, which end with the next one; about iods, of
            // which its welcome tells.
            Incoming::Notice(_) => {}
            Incoming::Reply(header, reply) => {
                open.remove(&header.request_id);
                take_reply(shared, header.request_id, reply);
            }
        }
    }
    stream.set_read_timeout(Some(HELLO_TIMEOUT))?;
    Ok(())
}

/// Hands a reply to whoever waits for it.
fn take_reply(shared: &Shared, id: u64, reply: MgrReply) {
    let finished = shared.lock().session.finish(id, &reply);
    if let Finished::Waiter(waiter) = finished {
        drop(waiter.try_send(reply));
    }
}

/// Says what the client holds, in as many messages, and takes mgr's welcome.
fn greet(
    shared: &Shared,
    stream: &TcpStream,
    reader: &mut BufReader<TcpStream>,
    (messages, leases): (Vec<Declaration>, bool),
) -> Result<Welcome, LinkError> {
    let known = shared.lock().welcome;
    let count = messages.len();
    let mut welcome = None;
    let mut scratch = Vec::new();
    for (index, declaration) in messages.into_iter().enumerate() {
        let more = index + 1 < count;
        let begun = shared
            .lock()
            .session
            .greeting(declaration, leases, more)
            .map_err(ConnectionError::Message)?;
        let sent = BootTime::now();
        let mut writer = stream;
        writer.write_all(&begun.frame)?;
        let (header, reply) = loop {
            match read_incoming(reader, &mut scratch)?.ok_or(LinkError::Closed)? {
                Incoming::Reply(header, reply) if header.request_id == begun.id => {
                    break (header, reply);
                }
                // To a report that was sent just before.
                Incoming::Reply(header, reply) if header.request_id < begun.id => {
                    take_reply(shared, header.request_id, reply);
                }
                Incoming::Reply(header, reply) => break (header, reply),
                // About leases from before the greeting, which have ended, or about iods, of which
                // the welcome tells.
                Incoming::Notice(_) => {}
            }
        };
        if header.request_id != begun.id {
            return Err(
                ConnectionError::from(FrameError::UnknownRequest(header.request_id)).into(),
            );
        }
        let MgrResponse::Hello(hello) = reply.map_err(LinkError::Greeting)? else {
            return Err(ConnectionError::from(FrameError::Body).into());
        };
        let session_timeout = Duration::from_millis(u64::from(hello.session_timeout_ms));
        let session_timeout = session_timeout.max(SESSION_TIMEOUT_MIN);
        if known.is_some_and(|known| known.file_system != hello.file_system) {
            return Err(LinkError::AnotherFileSystem);
        }
        shared.set_iods(&hello.iods);
        if let (Some(keeper), false) = (&shared.keeper, hello.locks_lost.is_empty()) {
            shared.lock().session.locks_lost(&hello.locks_lost);
            keeper.locks_lost(hello.locks_lost);
        }
        let lease_timeout = Duration::from_millis(u64::from(hello.lease_timeout_ms));
        if leases {
            shared.lease_clock.renew(sent, lease_timeout);
        }
        welcome = Some(Welcome {
            file_system: hello.file_system,
            session_timeout,
            lease_timeout,
        });
    }
    welcome.ok_or(LinkError::Closed)
}

/// Hands replies to whoever waits for them, until the connection ends.
fn read_replies(shared: &Shared, link: &Link, reader: &mut BufReader<TcpStream>) -> LinkError {
    let mut scratch = Vec::new();
    loop {
        let incoming = read_incoming(reader, &mut scratch);
        if matches!(incoming, Ok(Some(_))) {
            shared.heard.fetch_add(1, Ordering::AcqRel);
        }
        // Until what the reply tells is taken in.
        let mut _held = None;
        let (finished, reply) = match incoming {
            Ok(Some(Incoming::Reply(header, reply))) => {
                let mut state = shared.lock();
                _held = state.session.let_go(header.request_id);
                if let (Some(sent), Some(welcome)) =
                    (state.session.sent(header.request_id), state.welcome)
                {
                    shared.lease_clock.renew(sent, welcome.lease_timeout);
                }
                let finished = state.session.finish(header.request_id, &reply);
                // It may have made room for what waits to be asked.
                let asks = state.asks();
                drop(state);
                send_all(link, &asks);
                if matches!(finished, Finished::Unknown) {
                    let error = FrameError::UnknownRequest(header.request_id);
                    return ConnectionError::from(error).into();
                }
                (finished, reply)
            }
            Ok(Some(Incoming::Notice(Notice::LockSettled { wait, error }))) => {
                let outcome = error.map_or(Ok(()), Err);
                let finished = shared.lock().session.settled(wait, outcome);
                (finished, Ok(MgrResponse::Done))
            }
            Ok(Some(Incoming::Notice(Notice::Iods(statuses)))) => {
                shared.set_iods(&statuses);
                continue;
            }
            Ok(Some(Incoming::Notice(notice))) => {
                if let Some(keeper) = &shared.keeper {
                    keeper.notice(notice);
                }
                continue;
            }
            Ok(None) => return LinkError::Closed,
            Err(error) => return error.into(),
        };
        deliver(shared, link, finished, reply);
    }
}

/// Hands a reply to whoever waits for it, or sets right what it did for nobody.
fn deliver(
    shared: &Shared,
    link: &Link,
    finished: Finished<SyncSender<MgrReply>>,
    reply: MgrReply,
) {
    match finished {
        // Its channel has room for the only reply; a caller past its deadline is gone.
        Finished::Waiter(waiter) => drop(waiter.try_send(reply)),
        Finished::Declare(waiter, reopen) => {
            // mgr takes it before anything that the waiter sends now. The reply is not needed.
            let declaration = Declaration {
                opens: vec![reopen],
                locks: Vec::new(),
            };
            let greeting = shared.lock().session.greeting(declaration, false, false);
            if let Ok(greeting) = greeting {
                link.send(&greeting.frame);
            }
            drop(waiter.try_send(reply));
        }
        Finished::Settled(wait, outcome) => {
            if let Some(keeper) = &shared.keeper {
                keeper.lock_settled(wait, outcome);
            }
        }
        Finished::Ghost(wait) => shared.note(&MgrOperation::CancelLock { wait }),
        Finished::Late(open) => {
            if let Some((inode, open)) = open {
                // What the lease is for is not known here; whoever wants it asks for it.
                let lease = NO_LEASE;
                shared.note(&MgrOperation::Close { inode, open, lease });
            }
            if let Some(keeper) = &shared.keeper {
                keeper.late(&reply);
            }
        }
        Finished::Noted | Finished::Unknown => {}
    }
}

/// What mgr sends.
enum Incoming {
    Reply(FrameHeader, MgrReply),
    Notice(Notice),
}

fn read_incoming(
    reader: &mut BufReader<TcpStream>,
    scratch: &mut Vec<u8>,
) -> Result<Option<Incoming>, ConnectionError> {
    let Some(header) = read_frame(reader, scratch)? else {
        return Ok(None);
    };
    if header.payload_length != 0 {
        return Err(FrameError::UnexpectedPayload(header.payload_length).into());
    }
    Ok(Some(match header.kind {
        FrameKind::MgrNotice => Incoming::Notice(decode_checked(&header, scratch)?),
        _ => {
            let header = header.expect(FrameKind::MgrReply)?;
            Incoming::Reply(header, decode_checked(&header, scratch)?)
        }
    }))
}

/// Says that this client is alive, and looks whether mgr is: by heartbeats, on each connection in
/// turn, until the client ends.
pub(super) fn keep_alive(shared: &Shared) {
    while let Some((link, welcome)) = shared.linked() {
        watch(shared, &link, welcome);
    }
}

/// The heartbeats on one connection, until it ends. A silent mgr is named in the log; the connection
/// of one that stays silent is given up, so that another is tried.
fn watch(shared: &Shared, link: &Arc<Link>, welcome: Welcome) {
    let timeout = welcome.session_timeout / KEEP_ALIVES_PER_SESSION;
    let interval = Duration::from_millis(HEARTBEAT_INTERVAL_MS).min(match shared.keeper {
        Some(_) => timeout.min(welcome.lease_timeout / KEEP_ALIVES_PER_LEASE),
        None => timeout,
    });
    let look = interval.min(Duration::from_millis(SILENCE_LOOK_MS));
    let mut silence = Silence::new(Instant::now());
    let mut heard = shared.heard.load(Ordering::Acquire);
    let mut last = None;
    let mut under_way: Option<Beat> = None;
    while shared.pause(look, None) && shared.lock().is_linked_by(link) {
        let now = Instant::now();
        let before = std::mem::replace(&mut heard, shared.heard.load(Ordering::Acquire));
        if before != heard {
            silence.hear(now);
            shared.note_back(link);
        } else {
            let stage = silence.look(now);
            if stage >= Stage::Suspect {
                shared.note_away(&Silent(silence.lasted()));
            }
            if stage == Stage::Lost || silence.lasted() >= welcome.session_timeout {
                link.shut_down();
            }
        }
        let due = last.is_none_or(|last| now.duration_since(last) >= interval);
        if due && under_way.as_ref().is_none_or(Beat::is_answered) {
            last = Some(now);
            under_way = link.send_if_free(|| shared.beat());
        }
    }
}

/// A heartbeat whose answer is to come.
pub(super) struct Beat(pub(super) Receiver<MgrReply>);

impl Beat {
    fn is_answered(&self) -> bool {
        !matches!(self.0.try_recv(), Err(TryRecvError::Empty))
    }
}

/// Why a connection counts as dead.
#[derive(Debug, thiserror::Error)]
#[error("it has said nothing for {:.1} s", .0.as_secs_f64())]
struct Silent(Duration);
