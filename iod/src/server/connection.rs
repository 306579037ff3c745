// SPDX-License-Identifier: MIT
//! One client's connection: requests are answered one after another, in the order of their arrival.

use std::io::{self, BufRead, BufReader, Write};
use std::net::SocketAddr;

use pvfs::client::buffer::AlignedBuffer;
use pvfs::error::FsError;
use pvfs::failure_log::FailureLog;
use pvfs::ids::{ObjectId, SessionId};
use pvfs::limits::{
    COPY_BYTES_MAX, OBJECTS_PER_PAGE_MAX, OBJECTS_PER_QUESTION_MAX, PAYLOAD_BYTES_MAX,
    SCRUB_BYTES_MAX,
};
use pvfs::proto::iod::{Change, IodReply, IodRequest, IodResponse, StripeRef};
use pvfs::runtime::net::TcpStream;
use pvfs::runtime::random_u64;
use pvfs::runtime::sync::{Arc, Mutex, PoisonError};
use pvfs::runtime::time::Instant;
use pvfs::wire::blocking::{ConnectionError, frame_start, read_short_message};
use pvfs::wire::header::{FrameError, FrameHeader, FrameKind};

use super::ServerLimits;
use super::deadline::DeadlineReader;
use super::transfer::{SendError, buffer_of, receive, send_file, send_start};
use crate::store::{Attempt, Damage, ObjectFile, Scrubbed, Stamp, Store, end_of};

/// Holds any request's header and body, so that a request without payload takes one system call,
/// and so little that next to nothing of a payload is copied twice.
const READER_BYTES: usize = 128;

/// A request's body: far more than any takes. Each connection keeps a buffer of this size at most.
const REQUEST_BYTES_MAX: usize = 64 << 10;
/// A reply's data is checked and sent in parts of this size: small enough for the processor's cache.
const SENT_AT_ONCE_BYTES: usize = 1 << 20;

/// Careful reads take memory for a whole payload, so there is one at a time.
static CAREFUL_READ: Mutex<()> = Mutex::new(());

pub(super) struct Connection<'a> {
    stream: &'a TcpStream,
    reader: BufReader<DeadlineReader<'a>>,
    store: &'a Store,
    reporter: Reporter<'a>,
    /// For a piece of a payload, received or checked.
    buffer: Option<AlignedBuffer>,
    scratch: Vec<u8>,
}

/// Logs what fails for a peer.
#[derive(Clone, Copy)]
struct Reporter<'a> {
    peer: SocketAddr,
    store: &'a Store,
    failures: &'a FailureLog,
}

impl Reporter<'_> {
    /// Logs what failed here and returns what the peer is told.
    fn failed(&self, action: &str, object: ObjectId, error: &io::Error) -> FsError {
        let (peer, path) = (self.peer, self.store.path_of(object));
        self.failures.note(&format_args!(
            "{action} of object {object} ({}) for {peer}: {error}",
            path.display()
        ));
        match Damage::of(error) {
            Some(Damage::Short { .. }) => FsError::Missing,
            _ => FsError::from_io(error),
        }
    }
}

/// A change of a range of bytes under a lease.
#[derive(Clone, Copy)]
struct Ranged {
    stripe: StripeRef,
    fence: u64,
    offset: u64,
    length: u64,
    change: Change,
}

impl<'a> Connection<'a> {
    pub(super) fn new(
        stream: &'a TcpStream,
        peer: SocketAddr,
        store: &'a Store,
        limits: &ServerLimits,
        failures: &'a FailureLog,
    ) -> Self {
        let reader = DeadlineReader::new(stream, limits.frame_timeout, limits.idle_timeout);
        let reader = BufReader::with_capacity(READER_BYTES, reader);
        Self {
            stream,
            reader,
            store,
            reporter: Reporter {
                peer,
                store,
                failures,
            },
            buffer: None,
            scratch: Vec::new(),
        }
    }

    /// Answers until the peer closes the connection.
    pub(super) fn run(&mut self) -> Result<(), ConnectionError> {
        loop {
            // Waits for the first byte of a frame, for as long as it takes.
            if self.reader.fill_buf()?.is_empty() {
                return Ok(());
            }
            self.reader.get_mut().begin_frame();
            let kind = FrameKind::IodRequest;
            let read =
                read_short_message(&mut self.reader, kind, REQUEST_BYTES_MAX, &mut self.scratch);
            if let Err(ConnectionError::Frame(FrameError::Version(_))) = read {
                // Its header tells a peer of another version which one this is.
                let refusal = Err(FsError::Protocol) as IodReply;
                let refusal = frame_start(FrameKind::IodReply, 0, &refusal, 0)?;
                self.stream.write_all(&refusal)?;
            }
            let read: Option<(_, IodRequest)> = read?;
            let Some((header, request)) = read else {
                return Ok(());
            };
            self.answer(&header, &request)?;
            self.reader.get_mut().end_frame();
        }
    }

    fn answer(
        &mut self,
        header: &FrameHeader,
        request: &IodRequest,
    ) -> Result<(), ConnectionError> {
        let payload = header.payload_length;
        if payload > 0 && !matches!(request, IodRequest::Write { .. }) {
            return Err(FrameError::UnexpectedPayload(payload).into());
        }
        let is_serving = self.store.admission().is_granted();
        if let Err(error) = self.admit(request, is_serving) {
            return self.reply(header, &Err(error));
        }
        match request {
            IodRequest::Write {
                stripe,
                offset,
                fence,
                change,
            } => {
                let ranged = Ranged {
                    stripe: *stripe,
                    fence: *fence,
                    offset: *offset,
                    length: payload as u64,
                    change: *change,
                };
                let outcome = self.write(&ranged, payload, is_serving)?;
                self.reply(header, &outcome.map(|()| IodResponse::Done))
            }
            IodRequest::Ping => self.reply(header, &Ok(self.pong())),
            IodRequest::Read {
                stripe,
                offset,
                length,
                filled,
            } => self.read(header, stripe.object, (*offset, *length as usize), *filled),
            IodRequest::Truncate {
                stripe,
                length,
                fence,
                number,
                change,
                key: _,
            } => {
                let outcome = self.truncate(*stripe, *length, (*fence, *number), change);
                self.reply_done(header, outcome)
            }
            IodRequest::CutTail {
                stripe,
                length,
                fence,
                change,
            } => {
                let outcome = self.truncate(*stripe, *length, (*fence, *fence), change);
                self.reply_done(header, outcome)
            }
            IodRequest::Fence {
                stripe,
                fence,
                number,
                key: _,
            } => match self.store.fences().pass_cut(stripe.object, *fence, *number) {
                Ok(_passage) => {
                    let reply = self.stat(stripe.object);
                    self.reply(header, &reply)
                }
                Err(error) => self.reply(header, &Err(error)),
            },
            IodRequest::Remove { object, key: _ } => {
                // No inode number comes twice: what arrives after this is of no use to anybody.
                let passage = self.store.fences().pass(*object, u64::MAX);
                let outcome = self.store.remove(*object);
                drop(passage);
                self.reply_outcome(header, "remove", *object, outcome)
            }
            IodRequest::Sync { stripe } => {
                let outcome = self.store.sync(stripe.object);
                self.reply_outcome(header, "sync", stripe.object, outcome)
            }
            IodRequest::Stat { object } => {
                let reply = self.stat(*object);
                self.reply(header, &reply)
            }
            IodRequest::Allocate {
                stripe,
                offset,
                length,
                fence,
                change,
            } => {
                let (stripe, offset, length) = (*stripe, *offset, *length);
                let ranged = Ranged {
                    stripe,
                    fence: *fence,
                    offset,
                    length,
                    change: *change,
                };
                let outcome = self.change(&ranged, "fallocate", || {
                    self.store.allocate(stripe, offset, length)
                });
                self.reply_done(header, outcome)
            }
            IodRequest::Punch {
                stripe,
                offset,
                length,
                fence,
                change,
            } => {
                let (stripe, offset, length) = (*stripe, *offset, *length);
                let ranged = Ranged {
                    stripe,
                    fence: *fence,
                    offset,
                    length,
                    change: *change,
                };
                let outcome = self.change(&ranged, "punch", || {
                    self.store.punch(stripe.object, offset, length)
                });
                self.reply_done(header, outcome)
            }
            IodRequest::Seek {
                stripe,
                offset,
                target,
                filled,
            } => {
                let found = end_of(*offset, 0).and_then(|_| {
                    let whole = self.store.check_filled(stripe.object, *filled);
                    let found =
                        whole.and_then(|()| self.store.seek(stripe.object, *offset, *target));
                    found.map_err(|error| self.reporter.failed("lseek", stripe.object, &error))
                });
                self.reply(header, &found.map(IodResponse::Position))
            }
            IodRequest::Copy {
                from,
                from_offset,
                from_filled,
                to,
                to_offset,
                length,
                fence,
                change,
            } => {
                if *length > COPY_BYTES_MAX || end_of(*from_offset, *length).is_err() {
                    return self.reply(header, &Err(FsError::InvalidArgument));
                }
                let ranged = Ranged {
                    stripe: *to,
                    fence: *fence,
                    offset: *to_offset,
                    length: *length,
                    change: *change,
                };
                let outcome = self.change(&ranged, "copy", || {
                    self.store.check_filled(from.object, *from_filled)?;
                    let (from, to) = ((from.object, *from_offset), (*to, *to_offset));
                    self.store.copy(from, to, *length)
                });
                self.reply_done(header, outcome)
            }
            IodRequest::List { after, objects_max } => {
                let objects_max = (*objects_max as usize).clamp(1, OBJECTS_PER_PAGE_MAX);
                let listed = self.store.list(*after, objects_max);
                let reply = match listed {
                    Ok((objects, end)) => Ok(IodResponse::Objects { objects, end }),
                    Err(error) => {
                        self.reporter
                            .failures
                            .note(&format_args!("list of the objects: {error}"));
                        Err(FsError::from_io(&error))
                    }
                };
                self.reply(header, &reply)
            }
            IodRequest::Survey { objects } => {
                if objects.len() > OBJECTS_PER_QUESTION_MAX {
                    return self.reply(header, &Err(FsError::InvalidArgument));
                }
                let looked = objects.iter().map(|object| self.store.survey(*object));
                let reply = Ok(IodResponse::Surveyed(looked.collect()));
                self.reply(header, &reply)
            }
            IodRequest::Scrub {
                object,
                offset,
                length,
            } => {
                let reply = self.scrub(*object, *offset, u64::from(*length));
                self.reply(header, &reply)
            }
            IodRequest::OpenSession => {
                let reply = self.open_session();
                self.reply(header, &reply)
            }
            IodRequest::Settle { change } => {
                let attempt = self.store.sessions().begin(change, Instant::now());
                let reply = attempt.and_then(|attempt| attempt.settle());
                self.reply(header, &reply)
            }
            IodRequest::Space => {
                let report = self.store.report();
                let space = report.map(|report| IodResponse::Space(report.space));
                let reply = space.map_err(|error| {
                    self.reporter
                        .failures
                        .note(&format_args!("statvfs of the data directory: {error}"));
                    FsError::from_io(&error)
                });
                self.reply(header, &reply)
            }
        }
    }

    /// Refuses a request for stripes at another place in a layout than those that are here, an order
    /// that is not of the mgr that rules here, and all where mgr has not admitted this run of the
    /// iod: what is here may be old then. No name of a change is looked at before that.
    fn admit(&self, request: &IodRequest, is_serving: bool) -> Result<(), FsError> {
        let is_obeyed = |key| self.store.admission().obeys(key);
        match request {
            // The payload of a write must be taken in any case: see below.
            IodRequest::Ping | IodRequest::Write { .. } => Ok(()),
            _ if !is_serving => Err(FsError::TryAgain),
            _ if request.order().is_some_and(|key| !is_obeyed(key)) => {
                self.reporter.failures.note(&format_args!(
                    "an order of {} that is not of the mgr that rules here: {}",
                    self.reporter.peer,
                    FsError::Deposed
                ));
                Err(FsError::Deposed)
            }
            _ => request.stripes().try_for_each(|stripe| {
                let admitted = self.store.admit(stripe);
                admitted.map_err(|error| self.reporter.failed("open", stripe.object, &error))
            }),
        }
    }

    fn stat(&self, object: ObjectId) -> IodReply {
        let stat = self.store.stat(object).map(|stat| IodResponse::Stat {
            length: stat.length,
            allocated: stat.allocated,
        });
        stat.map_err(|error| self.reporter.failed("stat", object, &error))
    }

    fn scrub(&self, object: ObjectId, offset: u64, length: u64) -> IodReply {
        if length > SCRUB_BYTES_MAX {
            return Err(FsError::InvalidArgument);
        }
        let scrubbed = self.store.scrub(object, offset, length);
        let Scrubbed {
            bytes,
            damage,
            next,
        } = scrubbed.map_err(|error| self.reporter.failed("scrub", object, &error))?;
        for (start, end) in &damage {
            let damaged = format!("bytes {start} to {end} do not match their checksums");
            self.reporter
                .failed("scrub", object, &io::Error::other(damaged));
        }
        Ok(IodResponse::Scrubbed {
            bytes,
            damage,
            next,
        })
    }

    fn pong(&self) -> IodResponse {
        let membership = self.store.identity().membership;
        let admission = self.store.admission();
        IodResponse::Pong {
            iod: membership.map(|member| member.iod),
            file_system: membership.map(|member| member.file_system),
            incarnation: admission.is_granted().then(|| admission.incarnation()),
        }
    }

    fn open_session(&self) -> IodReply {
        let id = SessionId(random_u64());
        self.store.sessions().open(id, Instant::now())?;
        Ok(IodResponse::Session(id))
    }

    /// Cuts once, unless a later cut has been made, or a write under a larger fence.
    fn truncate(
        &self,
        stripe: StripeRef,
        length: u64,
        (fence, number): (u64, u64),
        change: &Change,
    ) -> Result<(), FsError> {
        let object = stripe.object;
        self.make(change, "truncate", object, || {
            let passage = self.store.fences().pass_cut(object, fence, number);
            let _passage = passage.map_err(Failure::Told)?;
            self.store.truncate(stripe, length).map_err(Failure::Disk)
        })
    }

    /// Makes a change once.
    fn make(
        &self,
        change: &Change,
        action: &str,
        object: ObjectId,
        make: impl FnOnce() -> Result<(), Failure>,
    ) -> Result<(), FsError> {
        let attempt = self.store.sessions().begin(change, Instant::now())?;
        attempt.make(|| make().map_err(|failure| failure.tell(self.reporter, action, object)))
    }

    /// Changes once a range of bytes that must lie within the largest file, under a lease.
    fn change(
        &self,
        ranged: &Ranged,
        action: &str,
        change: impl FnOnce() -> io::Result<()>,
    ) -> Result<(), FsError> {
        end_of(ranged.offset, ranged.length)?;
        if ranged.length == 0 {
            // fallocate(2) refuses a range without bytes.
            return Ok(());
        }
        let object = ranged.stripe.object;
        self.make(&ranged.change, action, object, || {
            let passage = self.store.fences().pass(object, ranged.fence);
            let _passage = passage.map_err(Failure::Told)?;
            change().map_err(Failure::Disk)
        })
    }

    fn reply_done(
        &mut self,
        header: &FrameHeader,
        outcome: Result<(), FsError>,
    ) -> Result<(), ConnectionError> {
        self.reply(header, &outcome.map(|()| IodResponse::Done))
    }

    fn reply_outcome(
        &mut self,
        header: &FrameHeader,
        action: &str,
        object: ObjectId,
        outcome: io::Result<()>,
    ) -> Result<(), ConnectionError> {
        let reply = outcome.map_err(|error| self.reporter.failed(action, object, &error));
        self.reply(header, &reply.map(|()| IodResponse::Done))
    }

    fn reply(&mut self, header: &FrameHeader, reply: &IodReply) -> Result<(), ConnectionError> {
        let start = frame_start(FrameKind::IodReply, header.request_id, reply, 0)?;
        self.stream.write_all(&start)?;
        Ok(())
    }

    /// Stores a payload once. The outer error ends the connection, the inner one is the reply.
    fn write(
        &mut self,
        ranged: &Ranged,
        length: usize,
        is_serving: bool,
    ) -> Result<Result<(), FsError>, ConnectionError> {
        let opened = match is_serving {
            true => self.open_to_write(ranged),
            false => Err(FsError::TryAgain),
        };
        let (store, reporter) = (self.store, self.reporter);
        let (object, offset) = (ranged.stripe.object, ranged.offset);
        let write = |file: &ObjectFile, bytes: &[u8], at: u64| {
            let passage = store.fences().pass(object, ranged.fence);
            let _passage = passage.map_err(Failure::Told)?;
            file.write_at(bytes, offset + at).map_err(Failure::Disk)
        };
        let stored = receive(&mut self.reader, &mut self.buffer, length, |piece, at| {
            let (attempt, file) = opened.as_ref().map_err(|error| *error)?;
            attempt.store(piece, at, |bytes, at| match file {
                Some(file) => write(file, bytes, at)
                    .map_err(|failure| failure.tell(reporter, "write", object)),
                None => Err(FsError::Io),
            })
        })?;
        // An empty payload was handed to nobody.
        Ok(stored.and_then(|()| opened?.0.finish()))
    }

    /// The object's file, unless the write has an outcome already.
    fn open_to_write(
        &self,
        ranged: &Ranged,
    ) -> Result<(Attempt, Option<Arc<ObjectFile>>), FsError> {
        end_of(ranged.offset, ranged.length)?;
        let sessions = self.store.sessions();
        let attempt = sessions.begin(&ranged.change, Instant::now())?;
        let object = ranged.stripe.object;
        let file = attempt.prepare(|| {
            // The object may have been removed: no file is made of it again.
            let _passage = self.store.fences().pass(object, ranged.fence)?;
            let file = self.store.find_or_create(ranged.stripe);
            file.map_err(|error| self.reporter.failed("open", object, &error))
        })?;
        Ok((attempt, file))
    }

    fn read(
        &mut self,
        header: &FrameHeader,
        object: ObjectId,
        (offset, length): (u64, usize),
        filled: u64,
    ) -> Result<(), ConnectionError> {
        if length > PAYLOAD_BYTES_MAX {
            return self.reply(header, &Err(FsError::MessageTooLong));
        }
        if let Err(error) = end_of(offset, length as u64) {
            return self.reply(header, &Err(error));
        }
        let found = self.store.find(object).and_then(|file| {
            let found = match file {
                Some(file) => Some((file.stamp()?, file)),
                None => None,
            };
            let here = found.as_ref().map_or(0, |(stamp, _)| stamp.length);
            if here < filled.min(offset + length as u64) {
                let length = here;
                return Err(Damage::Short { length, filled }.into());
            }
            Ok(found)
        });
        let (stamp, file) = match found {
            Err(error) => {
                let error = self.reporter.failed("open", object, &error);
                return self.reply(header, &Err(error));
            }
            Ok(None) => return self.reply(header, &Ok(IodResponse::Data)),
            Ok(Some(found)) => found,
        };
        let rest = usize::try_from(stamp.length.saturating_sub(offset)).unwrap_or(usize::MAX);
        let available = rest.min(length);
        // Beyond its end the file may have lost a tail.
        let end = offset + available as u64;
        let buffer = buffer_of(&mut self.buffer);
        if let Err(error) = file.check(stamp, end, length - available, buffer) {
            let error = self.reporter.failed("read", object, &error);
            self.reply(header, &Err(error))
        } else if available == 0 {
            self.reply(header, &Ok(IodResponse::Data))
        } else if self.store.is_suspect(object) {
            self.read_carefully(header, object, &file, offset, available)
        } else {
            self.read_fast(header, object, (&file, stamp), offset, available)
        }
    }

    /// Checks and sends piece by piece, without copying. The first piece is checked before anything
    /// is promised.
    fn read_fast(
        &mut self,
        header: &FrameHeader,
        object: ObjectId,
        (file, stamp): (&ObjectFile, Stamp),
        offset: u64,
        length: usize,
    ) -> Result<(), ConnectionError> {
        let mut done = 0;
        while done < length {
            let at = offset + done as u64;
            let size = (length - done).min(SENT_AT_ONCE_BYTES);
            let buffer = buffer_of(&mut self.buffer);
            match file.check(stamp, at, size, buffer) {
                Err(error) if done == 0 => {
                    let error = self.reporter.failed("read", object, &error);
                    return self.reply(header, &Err(error));
                }
                Err(error) => return Err(self.broken_off(object, error)),
                Ok(()) => {}
            }
            if done == 0 {
                let data = Ok(IodResponse::Data) as IodReply;
                let start = frame_start(FrameKind::IodReply, header.request_id, &data, length)?;
                send_start(self.stream, &start)?;
            }
            send_file(self.stream, file, at, size).map_err(|error| match error {
                SendError::Socket(error) => error.into(),
                SendError::Disk(error) => self.broken_off(object, error),
            })?;
            done += size;
        }
        Ok(())
    }

    /// A reply that has promised data cannot be ended otherwise than with its connection. The client
    /// asks again, and then the object is read before the reply begins.
    fn broken_off(&self, object: ObjectId, error: io::Error) -> ConnectionError {
        self.store.suspect(object);
        self.reporter.failed("read", object, &error);
        ConnectionError::Io(error)
    }

    /// Reads all before it promises anything, so that a disk's failure can be told.
    fn read_carefully(
        &mut self,
        header: &FrameHeader,
        object: ObjectId,
        file: &ObjectFile,
        offset: u64,
        length: usize,
    ) -> Result<(), ConnectionError> {
        let one_at_a_time = CAREFUL_READ.lock().unwrap_or_else(PoisonError::into_inner);
        let mut bytes = vec![0; length];
        match file.read_at(&mut bytes, offset) {
            Ok(filled) => {
                bytes.truncate(filled);
                let data = Ok(IodResponse::Data) as IodReply;
                let mut frame = frame_start(FrameKind::IodReply, header.request_id, &data, filled)?;
                frame.append(&mut bytes);
                self.stream.write_all(&frame)?;
                Ok(())
            }
            Err(error) => {
                drop(one_at_a_time);
                let error = self.reporter.failed("read", object, &error);
                self.reply(header, &Err(error))
            }
        }
    }
}

/// Why a change was not made.
enum Failure {
    /// It was refused, and the peer is told this.
    Told(FsError),
    /// The disk failed.
    Disk(io::Error),
}

impl Failure {
    /// Logs it, and says what the peer is told.
    fn tell(self, reporter: Reporter<'_>, action: &str, object: ObjectId) -> FsError {
        match self {
            Self::Told(error) => error,
            Self::Disk(error) => reporter.failed(action, object, &error),
        }
    }
}
