// SPDX-License-Identifier: MIT
//! One client's connection: requests are answered one after another, in the order of their arrival.

use std::io::{self, BufRead, BufReader, Write};
use std::net::SocketAddr;

use pvfs::client::buffer::AlignedBuffer;
use pvfs::error::FsError;
use pvfs::ids::ObjectId;
use pvfs::limits::{
    COPY_BYTES_MAX, OBJECTS_PER_PAGE_MAX, OBJECTS_PER_QUESTION_MAX, PAYLOAD_BYTES_MAX,
    SCRUB_BYTES_MAX,
};
use pvfs::proto::iod::{IodReply, IodRequest, IodResponse, StripeRef};
use pvfs::runtime::net::TcpStream;
use pvfs::runtime::sync::{Mutex, PoisonError};
use pvfs::wire::blocking::{ConnectionError, frame_start, read_short_message};
use pvfs::wire::header::{FrameError, FrameHeader, FrameKind};

use super::ServerLimits;
use super::deadline::DeadlineReader;
use super::failure_log::FailureLog;
use super::transfer::{SendError, buffer_of, receive, send_file, send_start};
use crate::store::{ObjectFile, Scrubbed, Stamp, Store, end_of};

/// Holds any request's header and body, so that a request without payload takes one system call,
/// and so little that next to nothing of a payload is copied twice.
const READER_BYTES: usize = 64;

/// A request's body: far more than any takes. Each connection keeps a buffer of this size at most.
const REQUEST_BYTES_MAX: usize = 64 << 10;
/// A reply's data is checked and sent in parts of this size: small enough for the processor's cache.
const SENT_AT_ONCE_BYTES: usize = 1 << 20;

/// Careful reads take memory for a whole payload, so there is one at a time.
static CAREFUL_READ: Mutex<()> = Mutex::new(());

pub(super) struct Connection<'a> {
    stream: &'a TcpStream,
    reader: BufReader<DeadlineReader<'a>>,
    peer: SocketAddr,
    store: &'a Store,
    failures: &'a FailureLog,
    /// For a piece of a payload, received or checked.
    buffer: Option<AlignedBuffer>,
    scratch: Vec<u8>,
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
            peer,
            store,
            failures,
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
        let is_member = self.store.identity().membership.is_some();
        if let Err(error) = self.admit(request, is_member) {
            return self.reply(header, &Err(error));
        }
        match request {
            IodRequest::Write {
                stripe,
                offset,
                fence,
            } => {
                let outcome = self.write(*stripe, (*offset, *fence), payload, is_member)?;
                self.reply(header, &outcome.map(|()| IodResponse::Done))
            }
            IodRequest::Ping => self.reply(header, &Ok(self.pong())),
            IodRequest::Read {
                stripe,
                offset,
                length,
            } => self.read(header, stripe.object, *offset, *length as usize),
            IodRequest::Truncate {
                stripe,
                length,
                fence,
                number,
            } => {
                let object = stripe.object;
                match self.store.fences().pass_cut(object, *fence, *number) {
                    Ok(_passage) => {
                        let outcome = self.store.truncate(*stripe, *length);
                        self.reply_outcome(header, "truncate", object, outcome)
                    }
                    Err(error) => self.reply(header, &Err(error)),
                }
            }
            IodRequest::Remove { object } => {
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
                let stat = self.store.stat(*object).map(|stat| IodResponse::Stat {
                    length: stat.length,
                    allocated: stat.allocated,
                });
                let reply = stat.map_err(|error| self.failed("stat", *object, &error));
                self.reply(header, &reply)
            }
            IodRequest::Allocate {
                stripe,
                offset,
                length,
                fence,
            } => {
                let store = self.store;
                self.change(
                    header,
                    "fallocate",
                    (stripe.object, *fence),
                    (*offset, *length),
                    || store.allocate(*stripe, *offset, *length),
                )
            }
            IodRequest::Punch {
                stripe,
                offset,
                length,
                fence,
            } => {
                let store = self.store;
                self.change(
                    header,
                    "punch",
                    (stripe.object, *fence),
                    (*offset, *length),
                    || store.punch(stripe.object, *offset, *length),
                )
            }
            IodRequest::Seek {
                stripe,
                offset,
                target,
            } => {
                let found = end_of(*offset, 0).and_then(|_| {
                    let found = self.store.seek(stripe.object, *offset, *target);
                    found.map_err(|error| self.failed("lseek", stripe.object, &error))
                });
                self.reply(header, &found.map(IodResponse::Position))
            }
            IodRequest::Copy {
                from,
                from_offset,
                to,
                to_offset,
                length,
                fence,
            } => {
                if *length > COPY_BYTES_MAX || end_of(*from_offset, *length).is_err() {
                    return self.reply(header, &Err(FsError::InvalidArgument));
                }
                let store = self.store;
                self.change(
                    header,
                    "copy",
                    (to.object, *fence),
                    (*to_offset, *length),
                    || store.copy((from.object, *from_offset), (*to, *to_offset), *length),
                )
            }
            IodRequest::List { after, objects_max } => {
                let objects_max = (*objects_max as usize).clamp(1, OBJECTS_PER_PAGE_MAX);
                let listed = self.store.list(*after, objects_max);
                let reply = match listed {
                    Ok((objects, end)) => Ok(IodResponse::Objects { objects, end }),
                    Err(error) => {
                        self.failures
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
            IodRequest::Space => {
                let space = self.store.space().map(IodResponse::Space);
                let reply = space.map_err(|error| {
                    self.failures
                        .note(&format_args!("statvfs of the data directory: {error}"));
                    FsError::from_io(&error)
                });
                self.reply(header, &reply)
            }
        }
    }

    /// Refuses a request for stripes at another place in a layout than those that are here, and all
    /// before the iod has joined a file system: it has nothing to give then and must store nothing.
    fn admit(&self, request: &IodRequest, is_member: bool) -> Result<(), FsError> {
        match request {
            // The payload of a write must be taken in any case: see below.
            IodRequest::Ping | IodRequest::Write { .. } => Ok(()),
            _ if !is_member => Err(FsError::TryAgain),
            _ => request.stripes().try_for_each(|stripe| {
                let admitted = self.store.admit(stripe);
                admitted.map_err(|error| self.failed("open", stripe.object, &error))
            }),
        }
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
        } = scrubbed.map_err(|error| self.failed("scrub", object, &error))?;
        for (start, end) in &damage {
            let damaged = format!("bytes {start} to {end} do not match their checksums");
            self.failed("scrub", object, &io::Error::other(damaged));
        }
        Ok(IodResponse::Scrubbed {
            bytes,
            damage,
            next,
        })
    }

    fn pong(&self) -> IodResponse {
        let membership = self.store.identity().membership;
        IodResponse::Pong {
            iod: membership.map(|member| member.iod),
            file_system: membership.map(|member| member.file_system),
        }
    }

    /// Logs what failed here and returns what the peer is told.
    fn failed(&self, action: &str, object: ObjectId, error: &io::Error) -> FsError {
        let (peer, path) = (self.peer, self.store.path_of(object));
        self.failures.note(&format_args!(
            "{action} of object {object} ({}) for {peer}: {error}",
            path.display()
        ));
        FsError::from_io(error)
    }

    /// Changes a range of bytes that must lie within the largest file, under a lease.
    fn change(
        &mut self,
        header: &FrameHeader,
        action: &str,
        (object, fence): (ObjectId, u64),
        (offset, length): (u64, u64),
        change: impl FnOnce() -> io::Result<()>,
    ) -> Result<(), ConnectionError> {
        match end_of(offset, length) {
            // fallocate(2) refuses a range without bytes.
            Ok(_) if length == 0 => self.reply(header, &Ok(IodResponse::Done)),
            Ok(_) => match self.store.fences().pass(object, fence) {
                Ok(_passage) => self.reply_outcome(header, action, object, change()),
                Err(error) => self.reply(header, &Err(error)),
            },
            Err(error) => self.reply(header, &Err(error)),
        }
    }

    fn reply_outcome(
        &mut self,
        header: &FrameHeader,
        action: &str,
        object: ObjectId,
        outcome: io::Result<()>,
    ) -> Result<(), ConnectionError> {
        let reply = outcome.map_err(|error| self.failed(action, object, &error));
        self.reply(header, &reply.map(|()| IodResponse::Done))
    }

    fn reply(&mut self, header: &FrameHeader, reply: &IodReply) -> Result<(), ConnectionError> {
        let start = frame_start(FrameKind::IodReply, header.request_id, reply, 0)?;
        self.stream.write_all(&start)?;
        Ok(())
    }

    /// Stores a payload. The outer error ends the connection, the inner one is the reply.
    fn write(
        &mut self,
        stripe: StripeRef,
        (offset, fence): (u64, u64),
        length: usize,
        is_member: bool,
    ) -> Result<Result<(), FsError>, ConnectionError> {
        let object = stripe.object;
        let file = if is_member {
            end_of(offset, length as u64).and_then(|_| {
                // The object may have been removed: no file is made of it again.
                let _passage = self.store.fences().pass(object, fence)?;
                let file = self.store.find_or_create(stripe);
                file.map_err(|error| self.failed("open", object, &error))
            })
        } else {
            Err(FsError::TryAgain)
        };
        let stored = receive(&mut self.reader, &mut self.buffer, length, |piece, done| {
            let file = file.as_ref().map_err(|error| Failure::Told(*error))?;
            let passage = self.store.fences().pass(object, fence);
            let _passage = passage.map_err(Failure::Told)?;
            file.write_at(piece, offset + done).map_err(Failure::Disk)
        })?;
        Ok(match stored {
            // An empty payload was handed to nobody.
            Ok(()) => file.map(|_| ()),
            Err(Failure::Told(error)) => Err(error),
            Err(Failure::Disk(error)) => Err(self.failed("write", object, &error)),
        })
    }

    fn read(
        &mut self,
        header: &FrameHeader,
        object: ObjectId,
        offset: u64,
        length: usize,
    ) -> Result<(), ConnectionError> {
        if length > PAYLOAD_BYTES_MAX {
            return self.reply(header, &Err(FsError::MessageTooLong));
        }
        if let Err(error) = end_of(offset, length as u64) {
            return self.reply(header, &Err(error));
        }
        let found = self.store.find(object).and_then(|file| {
            let Some(file) = file else { return Ok(None) };
            let stamp = file.stamp()?;
            Ok(Some((file, stamp)))
        });
        let (file, stamp) = match found {
            Err(error) => {
                let error = self.failed("open", object, &error);
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
            let error = self.failed("read", object, &error);
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
                    let error = self.failed("read", object, &error);
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
        self.failed("read", object, &error);
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
                let error = self.failed("read", object, &error);
                self.reply(header, &Err(error))
            }
        }
    }
}

/// Why a piece of a payload was not stored.
enum Failure {
    /// It was refused before, and the peer is told this.
    Told(FsError),
    /// The disk failed now.
    Disk(io::Error),
}
