// SPDX-License-Identifier: MIT
//! A client's session with mgr as pure bookkeeping: which requests await a reply, which sequence
//! numbers are unanswered, which opens are held. [`super::mgr`] moves the bytes.
//!
//! Exactly once: a mutating request keeps its frame, sequence number included, until its reply is
//! here; whatever connection it takes, mgr sees the same number and runs it a single time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::leases::BootTime;
use crate::attr::Credentials;
use crate::error::FsError;
use crate::ids::{ClientId, OpenId};
use crate::limits::{REOPENS_PER_MESSAGE_MAX, REPLIES_KEPT_PER_CLIENT_MAX};
use crate::proto::mgr::{
    Access, MgrOperation, MgrReply, MgrRequest, MgrResponse, OpenResponse, Reopen,
};
use crate::wire::blocking::frame_start;
use crate::wire::header::FrameKind;

/// A request that awaits its reply; `W` is whoever waits for it.
#[derive(Debug)]
struct Pending<W> {
    frame: Arc<[u8]>,
    /// 0 for requests that change nothing.
    sequence: u64,
    /// How the file is opened, where the reply is an open.
    access: Option<Access>,
    /// It is a writer's report.
    reports: bool,
    /// It went out, or may have, over more than one connection.
    resent: bool,
    /// When it was handed out to be sent, last.
    sent: BootTime,
    waiter: W,
}

/// A request on its way.
#[derive(Clone, Debug)]
pub(super) struct Begun {
    /// Its id, which the reply will carry.
    pub(super) id: u64,
    /// Its bytes.
    pub(super) frame: Arc<[u8]>,
}

/// Why a request did not begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// The oldest unanswered mutating request is so old that mgr would have to keep more replies
    /// than it does: wait for a reply.
    WindowFull,
    /// It never can.
    Error(FsError),
}

/// What became of a reply.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Finished<W> {
    /// Somebody waits for it.
    Waiter(W),
    /// Somebody waits for it, and it is an open that was granted over an earlier connection: mgr
    /// may have restarted since and answered from its journal, which holds no opens. It is to be
    /// declared before the waiter uses it.
    Declare(W, Reopen),
    /// Its caller gave up, or it was sent twice and answered before.
    Late,
    /// No request had this id.
    Unknown,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Session<W> {
    client: ClientId,
    request_next: u64,
    sequence_next: u64,
    unanswered: BTreeSet<u64>,
    /// In the order in which they began, so that a new connection carries them in that order.
    pending: BTreeMap<u64, Pending<W>>,
    opens: BTreeMap<OpenId, Reopen>,
}

impl<W> Session<W> {
    pub(super) const fn new(client: ClientId) -> Self {
        Self {
            client,
            request_next: 1,
            sequence_next: 1,
            unanswered: BTreeSet::new(),
            pending: BTreeMap::new(),
            opens: BTreeMap::new(),
        }
    }

    /// Numbers a request and keeps it until its reply arrives.
    pub(super) fn begin(
        &mut self,
        credentials: &Credentials,
        operation: &MgrOperation,
        waiter: W,
    ) -> Result<Begun, Refused> {
        let mutating = operation.is_mutating();
        let answered_below = self.answered_below();
        if mutating && self.sequence_next - answered_below >= REPLIES_KEPT_PER_CLIENT_MAX as u64 {
            return Err(Refused::WindowFull);
        }
        let sequence = if mutating { self.sequence_next } else { 0 };
        let id = self.request_next;
        let frame = self
            .encode(id, sequence, credentials, operation)
            .map_err(Refused::Error)?;
        self.request_next += 1;
        if mutating {
            self.sequence_next += 1;
            self.unanswered.insert(sequence);
        }
        if let MgrOperation::Close { open, .. } = operation {
            // From here on a new connection must not declare it: mgr may have closed it already.
            self.opens.remove(open);
        }
        let access = match operation {
            MgrOperation::Open { access, .. } | MgrOperation::Create { access, .. } => {
                Some(*access)
            }
            _ => None,
        };
        let pending = Pending {
            frame: Arc::clone(&frame),
            sequence,
            access,
            reports: matches!(operation, MgrOperation::Report { .. }),
            resent: false,
            sent: BootTime::now(),
            waiter,
        };
        self.pending.insert(id, pending);
        Ok(Begun { id, frame })
    }

    /// A frame that this session does not keep: a greeting is worth nothing on another connection.
    pub(super) fn greeting(&mut self, opens: Vec<Reopen>, leases: bool) -> Result<Begun, FsError> {
        let id = self.request_next;
        let hello = MgrOperation::Hello { opens, leases };
        let frame = self.encode(id, 0, &Credentials::ROOT, &hello)?;
        self.request_next += 1;
        Ok(Begun { id, frame })
    }

    fn encode(
        &self,
        id: u64,
        sequence: u64,
        credentials: &Credentials,
        operation: &MgrOperation,
    ) -> Result<Arc<[u8]>, FsError> {
        let request = MgrRequest {
            client: self.client,
            sequence,
            answered_below: self.answered_below(),
            credentials: credentials.clone(),
            operation: operation.clone(),
        };
        frame_start(FrameKind::MgrRequest, id, &request, 0)
            .map(Arc::from)
            .map_err(|_| FsError::MessageTooLong)
    }

    /// All mutating requests below this number have been answered.
    fn answered_below(&self) -> u64 {
        self.unanswered
            .first()
            .copied()
            .unwrap_or(self.sequence_next)
    }

    /// When a request that has no reply yet was sent.
    pub(super) fn sent(&self, id: u64) -> Option<BootTime> {
        self.pending.get(&id).map(|pending| pending.sent)
    }

    /// Takes a reply: notes an open that it grants, and says who waits for it.
    pub(super) fn finish(&mut self, id: u64, reply: &MgrReply) -> Finished<W> {
        let Some(pending) = self.pending.remove(&id) else {
            return if id < self.request_next {
                Finished::Late
            } else {
                Finished::Unknown
            };
        };
        self.unanswered.remove(&pending.sequence);
        match (pending.access, reply) {
            (Some(access), Ok(MgrResponse::Open(OpenResponse { open, attr, .. }))) => {
                let reopen = Reopen {
                    inode: attr.inode,
                    open: *open,
                    access,
                };
                self.opens.insert(*open, reopen);
                if pending.resent {
                    Finished::Declare(pending.waiter, reopen)
                } else {
                    Finished::Waiter(pending.waiter)
                }
            }
            _ => Finished::Waiter(pending.waiter),
        }
    }

    /// The caller no longer waits: the request is not sent again.
    pub(super) fn abandon(&mut self, id: u64) {
        if let Some(pending) = self.pending.remove(&id) {
            self.unanswered.remove(&pending.sequence);
        }
    }

    /// Frames of all requests without a reply, for a new connection.
    pub(super) fn unanswered_frames(&mut self) -> Vec<Arc<[u8]>> {
        let now = BootTime::now();
        let take = |pending: &mut Pending<W>| {
            pending.resent = true;
            pending.sent = now;
            Arc::clone(&pending.frame)
        };
        self.pending.values_mut().map(take).collect()
    }

    /// Reports without a reply, which a new connection carries before all others.
    pub(super) fn unanswered_reports(&self) -> Vec<Begun> {
        let reports = self.pending.iter().filter(|(_, pending)| pending.reports);
        let begun = |(id, pending): (&u64, &Pending<W>)| Begun {
            id: *id,
            frame: Arc::clone(&pending.frame),
        };
        reports.map(begun).collect()
    }

    /// The opens to declare on a new connection, cut into messages; at least one.
    pub(super) fn reopens(&self) -> Vec<Vec<Reopen>> {
        let opens: Vec<Reopen> = self.opens.values().copied().collect();
        if opens.is_empty() {
            return vec![Vec::new()];
        }
        opens
            .chunks(REOPENS_PER_MESSAGE_MAX)
            .map(<[Reopen]>::to_vec)
            .collect()
    }

    /// Drops whoever waits; for the end of the client.
    pub(super) fn clear(&mut self) {
        self.pending.clear();
        self.unanswered.clear();
    }

    pub(super) const fn client(&self) -> ClientId {
        self.client
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::attr::{Attr, FileKind, Timestamp};
    use crate::ids::InodeNumber;
    use crate::wire::blocking::read_message;

    const READ: Access = Access {
        read: true,
        write: false,
    };

    fn getattr() -> MgrOperation {
        MgrOperation::GetAttr {
            inode: InodeNumber(1),
        }
    }

    fn open() -> MgrOperation {
        MgrOperation::Open {
            inode: InodeNumber(7),
            access: READ,
            truncate: false,
        }
    }

    fn close(open: u64) -> MgrOperation {
        MgrOperation::Close {
            inode: InodeNumber(7),
            open: OpenId(open),
        }
    }

    /// mgr's grant of an open of inode 7.
    pub(in crate::client) fn opened(open: u64) -> MgrReply {
        let attr = Attr {
            inode: InodeNumber(7),
            generation: 1,
            kind: FileKind::Regular,
            mode: 0o644,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            size: 0,
            atime: Timestamp::default(),
            mtime: Timestamp::default(),
            ctime: Timestamp::default(),
            change: 0,
            allocated: None,
            has_acl: false,
        };
        Ok(MgrResponse::Open(OpenResponse {
            open: OpenId(open),
            attr,
            layout: None,
        }))
    }

    fn request(frame: &[u8]) -> MgrRequest {
        let mut stream = frame;
        let kind = FrameKind::MgrRequest;
        read_message(&mut stream, kind, &mut Vec::new())
            .unwrap()
            .unwrap()
            .1
    }

    fn begin(session: &mut Session<u32>, operation: &MgrOperation, waiter: u32) -> Begun {
        session
            .begin(&Credentials::ROOT, operation, waiter)
            .unwrap()
    }

    #[test]
    fn only_mutating_requests_are_numbered() {
        let mut session = Session::new(ClientId(9));
        let plain = request(&begin(&mut session, &getattr(), 1).frame);
        let first = request(&begin(&mut session, &open(), 2).frame);
        let second = request(&begin(&mut session, &open(), 3).frame);
        let numbers = [plain.sequence, first.sequence, second.sequence];
        assert_eq!(numbers, [0, 1, 2]);
        assert_eq!(second.answered_below, 1);
    }

    #[test]
    fn answered_below_is_the_oldest_unanswered() {
        let mut session = Session::new(ClientId(9));
        let requests: Vec<_> = (0..3).map(|n| begin(&mut session, &open(), n)).collect();
        assert_eq!(
            session.finish(requests[1].id, &Err(FsError::NotFound)),
            Finished::Waiter(1)
        );
        assert_eq!(
            request(&begin(&mut session, &open(), 9).frame).answered_below,
            1
        );
        assert_eq!(
            session.finish(requests[0].id, &Err(FsError::NotFound)),
            Finished::Waiter(0)
        );
        assert_eq!(
            request(&begin(&mut session, &open(), 9).frame).answered_below,
            3
        );
    }

    #[test]
    fn a_resent_frame_is_the_same_frame_in_the_same_order() {
        let mut session = Session::new(ClientId(9));
        let frames: Vec<_> = [open(), getattr(), open()]
            .iter()
            .map(|operation| begin(&mut session, operation, 0))
            .collect();
        session.finish(frames[1].id, &Err(FsError::NotFound));
        let again = session.unanswered_frames();
        assert_eq!(
            again,
            [Arc::clone(&frames[0].frame), Arc::clone(&frames[2].frame)]
        );
    }

    #[test]
    fn the_window_closes_and_opens_again() {
        let mut session = Session::new(ClientId(9));
        let oldest = begin(&mut session, &open(), 0);
        while session.begin(&Credentials::ROOT, &open(), 1).is_ok() {
            let newest = *session.pending.keys().last().unwrap();
            session.finish(newest, &Err(FsError::NotFound));
        }
        assert_eq!(
            session.sequence_next,
            1 + REPLIES_KEPT_PER_CLIENT_MAX as u64
        );
        assert!(
            session.begin(&Credentials::ROOT, &getattr(), 1).is_ok(),
            "reads are not bounded"
        );
        session.finish(oldest.id, &Err(FsError::NotFound));
        assert!(session.begin(&Credentials::ROOT, &open(), 1).is_ok());
    }

    #[test]
    fn opens_are_declared_from_the_reply_until_the_close_begins() {
        let mut session = Session::new(ClientId(9));
        assert_eq!(session.reopens(), [vec![]]);
        let first = begin(&mut session, &open(), 0);
        assert_eq!(session.reopens(), [vec![]]);
        session.finish(first.id, &opened(5));
        let held = Reopen {
            inode: InodeNumber(7),
            open: OpenId(5),
            access: READ,
        };
        assert_eq!(session.reopens(), [vec![held]]);
        begin(&mut session, &close(5), 0);
        assert_eq!(session.reopens(), [vec![]]);
    }

    #[test]
    fn an_open_that_took_two_connections_is_declared_on_the_second() {
        let mut session = Session::new(ClientId(9));
        let begun = begin(&mut session, &open(), 4);
        session.unanswered_frames();
        let held = Reopen {
            inode: InodeNumber(7),
            open: OpenId(5),
            access: READ,
        };
        assert_eq!(
            session.finish(begun.id, &opened(5)),
            Finished::Declare(4, held)
        );
    }

    #[test]
    fn many_opens_are_split() {
        let mut session = Session::new(ClientId(9));
        for open_id in 0..=REOPENS_PER_MESSAGE_MAX as u64 {
            let begun = begin(&mut session, &open(), 0);
            session.finish(begun.id, &opened(open_id));
        }
        let messages = session.reopens();
        let lengths: Vec<_> = messages.iter().map(Vec::len).collect();
        assert_eq!(lengths, [REOPENS_PER_MESSAGE_MAX, 1]);
        for opens in messages {
            assert!(session.greeting(opens, true).is_ok());
        }
    }

    #[test]
    fn late_and_unknown_replies_are_told_apart() {
        let mut session = Session::new(ClientId(9));
        let begun = begin(&mut session, &open(), 0);
        session.abandon(begun.id);
        assert_eq!(session.finish(begun.id, &Err(FsError::Io)), Finished::Late);
        assert_eq!(
            session.finish(begun.id + 1, &Err(FsError::Io)),
            Finished::Unknown
        );
        assert!(session.unanswered_frames().is_empty());
    }

    #[test]
    fn what_cannot_be_encoded_takes_no_number() {
        let mut session = Session::new(ClientId(9));
        let value = vec![0; crate::limits::BODY_BYTES_MAX];
        let huge = MgrOperation::SetXattr {
            inode: InodeNumber(1),
            name: b"user.x".to_vec(),
            value,
            mode: crate::proto::mgr::XattrMode::Set,
        };
        let refused = session.begin(&Credentials::ROOT, &huge, 0).unwrap_err();
        assert_eq!(refused, Refused::Error(FsError::MessageTooLong));
        assert_eq!(request(&begin(&mut session, &open(), 0).frame).sequence, 1);
    }
}
