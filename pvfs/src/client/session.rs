// SPDX-License-Identifier: MIT
//! A client's session with mgr as pure bookkeeping: which requests await a reply, which sequence
//! numbers are unanswered, which opens are held. [`super::mgr`] moves the bytes.
//!
//! Exactly once: a mutating request keeps its frame, sequence number included, until its reply is
//! here; whatever connection it takes, mgr sees the same number and runs it a single time.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::held_locks::HeldLocks;
use super::leases::BootTime;
use crate::attr::Credentials;
use crate::error::FsError;
use crate::ids::{ClientId, InodeNumber, OpenId};
use crate::limits::{LOCKS_PER_MESSAGE_MAX, REOPENS_PER_MESSAGE_MAX, REPLIES_KEPT_PER_CLIENT_MAX};
use crate::proto::lock::{HeldLock, LockRequest};
use crate::proto::mgr::{
    Access, MgrOperation, MgrReply, MgrRequest, MgrResponse, OpenResponse, Reopen,
};
use crate::proto::peer::Peer;
use crate::wire::blocking::frame_start;
use crate::wire::header::FrameKind;

/// Something that lasts until it is known what a request has changed.
pub type Hold = Arc<dyn Any + Send + Sync>;

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
    /// What it does to locks.
    lock: Option<LockChange>,
    /// It went out, or may have, over more than one connection.
    resent: bool,
    /// When it was handed out to be sent, last.
    sent: BootTime,
    /// `None` where nobody waits for the reply.
    waiter: Option<W>,
    /// Whoever waits for the reply has it too.
    hold: Option<Hold>,
}

/// What a request does to locks.
#[derive(Clone, Copy, Debug)]
enum LockChange {
    Set(LockRequest),
    Cancel(u64),
}

impl LockChange {
    const fn wait(self) -> Option<u64> {
        match self {
            Self::Set(request) => request.wait,
            Self::Cancel(wait) => Some(wait),
        }
    }
}

/// What a greeting says, in one of its messages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Declaration {
    pub(super) opens: Vec<Reopen>,
    pub(super) locks: Vec<HeldLock>,
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
    /// The waiting for a lock is over.
    Settled(u64, Result<(), FsError>),
    /// A lock, or a place among those who wait, for somebody who has given up: it is to go back.
    Ghost(u64),
    /// Nobody waits for it.
    Noted,
    /// Its caller gave up, or it was sent twice and answered before. With an open that nobody knows
    /// of, which is to be closed.
    Late(Option<(InodeNumber, OpenId)>),
    /// No request had this id.
    Unknown,
}

/// The requests of a client that mgr has not answered, and what it has open.
#[derive(Debug)]
pub(super) struct Session<W> {
    client: ClientId,
    /// Who it is, for people.
    peer: Peer,
    request_next: u64,
    sequence_next: u64,
    unanswered: BTreeSet<u64>,
    /// In the order in which they began, so that a new connection carries them in that order.
    pending: BTreeMap<u64, Pending<W>>,
    /// Of requests whose callers gave up, and which mgr may still carry out. They go with their replies,
    /// or when another connection is there: a silent one is given up after seconds.
    abandoned: BTreeMap<u64, Hold>,
    opens: BTreeMap<OpenId, Reopen>,
    locks: HeldLocks,
}

impl<W> Session<W> {
    pub(super) fn new(client: ClientId, peer: Peer) -> Self {
        Self {
            client,
            peer,
            request_next: 1,
            sequence_next: 1,
            unanswered: BTreeSet::new(),
            pending: BTreeMap::new(),
            abandoned: BTreeMap::new(),
            opens: BTreeMap::new(),
            locks: HeldLocks::default(),
        }
    }

    /// Numbers a request and keeps it until its reply arrives.
    pub(super) fn begin(
        &mut self,
        credentials: &Credentials,
        operation: &MgrOperation,
        waiter: W,
    ) -> Result<Begun, Refused> {
        self.begin_for(credentials, operation, Some(waiter))
    }

    fn begin_for(
        &mut self,
        credentials: &Credentials,
        operation: &MgrOperation,
        waiter: Option<W>,
    ) -> Result<Begun, Refused> {
        let settled;
        let (operation, lock) = match operation {
            MgrOperation::SetLock(request) => {
                let request = LockRequest {
                    settled_below: self.locks.settled_below(),
                    ..*request
                };
                settled = MgrOperation::SetLock(request);
                (&settled, Some(LockChange::Set(request)))
            }
            MgrOperation::CancelLock { wait } => (operation, Some(LockChange::Cancel(*wait))),
            _ => (operation, None),
        };
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
        if let Some(LockChange::Set(request)) = &lock {
            self.locks.begun(request);
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
            lock,
            resent: false,
            sent: BootTime::now(),
            waiter,
            hold: None,
        };
        self.pending.insert(id, pending);
        Ok(Begun { id, frame })
    }

    /// Keeps `hold` until the reply to a request comes, also where its caller gives up.
    pub(super) fn hold(&mut self, id: u64, hold: &Hold) {
        if let Some(pending) = self.pending.get_mut(&id) {
            pending.hold = Some(Arc::clone(hold));
        }
    }

    /// The reply to a request is here, and is about to be taken in: what was held until then, where its
    /// caller gave up.
    pub(super) fn let_go(&mut self, id: u64) -> Option<Hold> {
        self.abandoned.remove(&id)
    }

    /// A frame that this session does not keep: a greeting is worth nothing on another connection.
    pub(super) fn greeting(
        &mut self,
        declaration: Declaration,
        leases: bool,
        more: bool,
    ) -> Result<Begun, FsError> {
        let id = self.request_next;
        let hello = MgrOperation::Hello {
            number: id,
            opens: declaration.opens,
            leases,
            locks: declaration.locks,
            more,
            news: true,
            peer: self.peer.clone(),
        };
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
            return match reply {
                _ if id >= self.request_next => Finished::Unknown,
                Ok(MgrResponse::Open(OpenResponse { open, attr, .. }))
                    if !self.opens.contains_key(open) =>
                {
                    Finished::Late(Some((attr.inode, *open)))
                }
                _ => Finished::Late(None),
            };
        };
        self.unanswered.remove(&pending.sequence);
        if let Some(change) = pending.lock {
            if let Some(finished) = self.lock_changed(change, reply) {
                return finished;
            }
        }
        match (pending.waiter, pending.access, reply) {
            (
                Some(waiter),
                Some(access),
                Ok(MgrResponse::Open(OpenResponse { open, attr, .. })),
            ) => {
                let reopen = Reopen {
                    inode: attr.inode,
                    open: *open,
                    access,
                };
                self.opens.insert(*open, reopen);
                if pending.resent {
                    Finished::Declare(waiter, reopen)
                } else {
                    Finished::Waiter(waiter)
                }
            }
            (Some(waiter), _, _) => Finished::Waiter(waiter),
            (None, _, _) => Finished::Noted,
        }
    }

    /// Notes what a reply says of a lock; `None` where somebody may wait for the reply itself.
    fn lock_changed(&mut self, change: LockChange, reply: &MgrReply) -> Option<Finished<W>> {
        let outcome = match (change, reply) {
            (LockChange::Set(request), Ok(MgrResponse::Done)) if request.wait.is_none() => {
                self.locks.granted(&request);
                None
            }
            (LockChange::Set(request), _) if request.wait.is_none() => None,
            (LockChange::Set(request), Ok(MgrResponse::LockQueued)) => {
                let wait = request.wait.unwrap_or_default();
                Some(match self.locks.is_given_up(wait) {
                    true => Finished::Ghost(wait),
                    false => Finished::Noted,
                })
            }
            (LockChange::Set(request), reply) => {
                let wait = request.wait.unwrap_or_default();
                let outcome = match reply {
                    Ok(MgrResponse::Done) => Ok(()),
                    Ok(_) => Err(FsError::Protocol),
                    Err(error) => Err(*error),
                };
                Some(self.settled(wait, outcome))
            }
            (LockChange::Cancel(_), _) => None,
        };
        let ghost = matches!(outcome, Some(Finished::Ghost(_)));
        if let Some(wait) = change.wait().filter(|_| !ghost) {
            self.forget_if_answered(wait);
        }
        outcome
    }

    /// Forgets a wait that was given up, once mgr has answered everything about it.
    fn forget_if_answered(&mut self, wait: u64) {
        let same = |other: &Pending<W>| other.lock.and_then(LockChange::wait) == Some(wait);
        if self.locks.is_given_up(wait) && !self.pending.values().any(same) {
            self.locks.forget_given_up(wait);
        }
    }

    /// Takes the news that the waiting for a lock is over.
    pub(super) fn settled(&mut self, wait: u64, outcome: Result<(), FsError>) -> Finished<W> {
        if self.locks.settle(wait, outcome.is_ok()) {
            self.forget_if_answered(wait);
            return Finished::Settled(wait, outcome);
        }
        match outcome.is_ok() && self.locks.is_given_up(wait) {
            true => Finished::Ghost(wait),
            false => Finished::Noted,
        }
    }

    /// Waits for a lock; gives the number of the wait. [`Self::next_ask`] asks for it.
    pub(super) fn wait_for_lock(&mut self, request: LockRequest) -> u64 {
        self.locks.wait(request)
    }

    /// Nobody waits for the lock any more; false where that is over already.
    pub(super) fn give_up_waiting(&mut self, wait: u64) -> bool {
        self.locks.give_up(wait)
    }

    /// The next request of a wait that is to be asked for on this connection; `None` where there is
    /// none, or the window is full.
    pub(super) fn next_ask(&mut self) -> Option<Begun> {
        let request = self.locks.next_ask()?;
        let operation = MgrOperation::SetLock(request);
        let begun = self.begin_for(&Credentials::ROOT, &operation, None).ok()?;
        self.locks.asked(request.wait.unwrap_or_default());
        Some(begun)
    }

    /// mgr does not have these locks any more.
    pub(super) fn locks_lost(&mut self, lost: &[HeldLock]) {
        for lock in lost {
            self.locks.lost(lock);
        }
    }

    /// The caller no longer waits: the request is not sent again.
    pub(super) fn abandon(&mut self, id: u64) {
        if let Some(pending) = self.pending.remove(&id) {
            self.unanswered.remove(&pending.sequence);
            self.abandoned.extend(pending.hold.map(|hold| (id, hold)));
        }
    }

    /// Frames of all requests without a reply, for a new connection. All waits for locks are to be
    /// asked for anew.
    pub(super) fn unanswered_frames(&mut self) -> Vec<Arc<[u8]>> {
        self.locks.ask_all();
        self.abandoned.clear();
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
    pub(super) fn reopens(&self) -> Vec<Declaration> {
        let opens: Vec<Reopen> = self.opens.values().copied().collect();
        let declare = |opens: &[Reopen]| Declaration {
            opens: opens.to_vec(),
            locks: Vec::new(),
        };
        at_least_one(opens.chunks(REOPENS_PER_MESSAGE_MAX).map(declare))
    }

    /// The same of the locks.
    pub(super) fn claims(&self) -> Vec<Declaration> {
        let locks: Vec<HeldLock> = self.locks.held();
        let declare = |locks: &[HeldLock]| Declaration {
            opens: Vec::new(),
            locks: locks.to_vec(),
        };
        at_least_one(locks.chunks(LOCKS_PER_MESSAGE_MAX).map(declare))
    }

    /// Drops whoever waits; for the end of the client.
    pub(super) fn clear(&mut self) {
        self.pending.clear();
        self.abandoned.clear();
        self.unanswered.clear();
    }

    pub(super) const fn client(&self) -> ClientId {
        self.client
    }
}

/// Messages of a greeting, which has one even where there is nothing to say.
fn at_least_one(messages: impl Iterator<Item = Declaration>) -> Vec<Declaration> {
    let mut messages: Vec<_> = messages.collect();
    if messages.is_empty() {
        messages.push(Declaration::default());
    }
    messages
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::attr::{Attr, FileKind, Timestamp};
    use crate::ids::InodeNumber;
    use crate::proto::lease::NO_LEASE;
    use crate::proto::lock::{LockFamily, LockKind, LockOwner, LockRange, ProcessNumber};
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
            lease: NO_LEASE,
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
            filled: 0,
            has_acl: false,
            has_capability: false,
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

    fn opens(session: &Session<u32>) -> Vec<Vec<Reopen>> {
        let messages = session.reopens();
        messages.into_iter().map(|message| message.opens).collect()
    }

    fn exclusive() -> LockRequest {
        LockRequest {
            inode: InodeNumber(7),
            owner: LockOwner::Process(1),
            family: LockFamily::Range,
            range: LockRange { start: 0, last: 9 },
            kind: Some(LockKind::Exclusive),
            process: ProcessNumber::default(),
            wait: None,
            settled_below: 0,
        }
    }

    fn asked(session: &mut Session<u32>) -> (Begun, LockRequest) {
        let begun = session.next_ask().unwrap();
        match request(&begun.frame).operation {
            MgrOperation::SetLock(lock) => (begun, lock),
            other => panic!("{other:?}"),
        }
    }

    fn locks(session: &Session<u32>) -> usize {
        session.claims()[0].locks.len()
    }

    const DONE: MgrReply = Ok(MgrResponse::Done);
    const QUEUED: MgrReply = Ok(MgrResponse::LockQueued);

    #[test]
    fn a_lock_is_declared_from_its_grant_until_its_unlock_begins() {
        let mut session = Session::new(ClientId(9), Peer::default());
        let set = MgrOperation::SetLock(exclusive());
        let begun = begin(&mut session, &set, 1);
        assert_eq!(locks(&session), 0);
        assert_eq!(session.finish(begun.id, &DONE), Finished::Waiter(1));
        assert_eq!(locks(&session), 1);
        let refused = begin(&mut session, &set, 2);
        session.finish(refused.id, &Err(FsError::Locked));
        assert_eq!(locks(&session), 1);
        let mut unlock = exclusive();
        unlock.kind = None;
        begin(&mut session, &MgrOperation::SetLock(unlock), 3);
        assert_eq!(locks(&session), 0);
        let begun = begin(&mut session, &set, 1);
        session.finish(begun.id, &DONE);
        let lost = session.claims().remove(0).locks;
        session.locks_lost(&lost);
        assert_eq!(locks(&session), 0);
    }

    #[test]
    fn a_flock_that_changes_its_kind_is_declared_as_what_it_surely_is() {
        let flock = |kind| {
            let range = LockRange::ALL;
            let family = LockFamily::Whole;
            MgrOperation::SetLock(LockRequest {
                family,
                range,
                kind: Some(kind),
                ..exclusive()
            })
        };
        let kinds = |session: &Session<u32>| {
            let locks = session.claims().remove(0).locks;
            locks.iter().map(|lock| lock.kind).collect::<Vec<_>>()
        };
        let mut session = Session::new(ClientId(9), Peer::default());
        let begun = begin(&mut session, &flock(LockKind::Exclusive), 1);
        assert_eq!(kinds(&session), []);
        session.finish(begun.id, &DONE);
        assert_eq!(kinds(&session), [LockKind::Exclusive]);
        let begun = begin(&mut session, &flock(LockKind::Shared), 1);
        assert_eq!(kinds(&session), [LockKind::Shared]);
        session.finish(begun.id, &DONE);
        let begun = begin(&mut session, &flock(LockKind::Shared), 1);
        assert_eq!(kinds(&session), [LockKind::Shared]);
        session.finish(begun.id, &DONE);
        let begun = begin(&mut session, &flock(LockKind::Exclusive), 1);
        assert_eq!(kinds(&session), []);
        session.finish(begun.id, &Err(FsError::Locked));
        assert_eq!(kinds(&session), []);
    }

    #[test]
    fn a_wait_is_settled_once_however_its_news_comes() {
        let mut session: Session<u32> = Session::new(ClientId(9), Peer::default());
        let wait = session.wait_for_lock(exclusive());
        let (first, lock) = asked(&mut session);
        assert_eq!((lock.wait, lock.settled_below), (Some(wait), wait));
        assert!(session.next_ask().is_none());
        assert_eq!(session.finish(first.id, &QUEUED), Finished::Noted);
        // The connection breaks: it is asked for anew, under the same number.
        assert!(session.unanswered_frames().is_empty());
        let (again, lock) = asked(&mut session);
        assert_eq!(lock.wait, Some(wait));
        let news = session.settled(wait, Ok(()));
        assert_eq!(news, Finished::Settled(wait, Ok(())));
        assert_eq!(locks(&session), 1);
        assert_eq!(session.finish(again.id, &DONE), Finished::Noted);
        assert_eq!(session.settled(wait, Ok(())), Finished::Noted);
        let next = session.wait_for_lock(exclusive());
        assert_eq!(asked(&mut session).1.settled_below, next);
    }

    #[test]
    fn what_comes_to_somebody_who_has_given_up_goes_back() {
        let mut session: Session<u32> = Session::new(ClientId(9), Peer::default());
        let wait = session.wait_for_lock(exclusive());
        let (first, _) = asked(&mut session);
        assert!(session.give_up_waiting(wait));
        assert!(!session.give_up_waiting(wait));
        let cancel = MgrOperation::CancelLock { wait };
        let cancelled = begin(&mut session, &cancel, 1);
        // Until mgr has answered both, it must not forget the wait.
        let other = session.wait_for_lock(exclusive());
        assert_eq!(asked(&mut session).1.settled_below, wait);
        assert_eq!(session.settled(wait, Ok(())), Finished::Ghost(wait));
        assert_eq!(session.finish(cancelled.id, &DONE), Finished::Waiter(1));
        assert_eq!(session.finish(first.id, &QUEUED), Finished::Ghost(wait));
        let cancelled = begin(&mut session, &cancel, 1);
        session.finish(cancelled.id, &DONE);
        assert_eq!(locks(&session), 0);
        session.give_up_waiting(other);
        let last = session.wait_for_lock(exclusive());
        assert_eq!(asked(&mut session).1.settled_below, other.min(last));
        // One that was refused and is granted when it is asked for again, is taken back, too.
        let wait = session.wait_for_lock(exclusive());
        let (first, _) = asked(&mut session);
        session.unanswered_frames();
        let mut again = session.next_ask();
        while let Some(begun) = session.next_ask() {
            again = Some(begun);
        }
        let refused = session.finish(first.id, &Err(FsError::Deadlock));
        assert_eq!(refused, Finished::Settled(wait, Err(FsError::Deadlock)));
        assert_eq!(
            session.finish(again.unwrap().id, &DONE),
            Finished::Ghost(wait)
        );
    }

    #[test]
    fn only_mutating_requests_are_numbered() {
        let mut session = Session::new(ClientId(9), Peer::default());
        let plain = request(&begin(&mut session, &getattr(), 1).frame);
        let first = request(&begin(&mut session, &open(), 2).frame);
        let second = request(&begin(&mut session, &open(), 3).frame);
        let numbers = [plain.sequence, first.sequence, second.sequence];
        assert_eq!(numbers, [0, 1, 2]);
        assert_eq!(second.answered_below, 1);
    }

    #[test]
    fn answered_below_is_the_oldest_unanswered() {
        let mut session = Session::new(ClientId(9), Peer::default());
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
        let mut session = Session::new(ClientId(9), Peer::default());
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
        let mut session = Session::new(ClientId(9), Peer::default());
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
        let mut session = Session::new(ClientId(9), Peer::default());
        assert_eq!(opens(&session), [vec![]]);
        let first = begin(&mut session, &open(), 0);
        assert_eq!(opens(&session), [vec![]]);
        session.finish(first.id, &opened(5));
        let held = Reopen {
            inode: InodeNumber(7),
            open: OpenId(5),
            access: READ,
        };
        assert_eq!(opens(&session), [vec![held]]);
        begin(&mut session, &close(5), 0);
        assert_eq!(opens(&session), [vec![]]);
    }

    #[test]
    fn an_open_that_took_two_connections_is_declared_on_the_second() {
        let mut session = Session::new(ClientId(9), Peer::default());
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
        let mut session = Session::new(ClientId(9), Peer::default());
        for open_id in 0..=REOPENS_PER_MESSAGE_MAX as u64 {
            let begun = begin(&mut session, &open(), 0);
            session.finish(begun.id, &opened(open_id));
        }
        let messages = session.reopens();
        let lengths: Vec<_> = messages.iter().map(|message| message.opens.len()).collect();
        assert_eq!(lengths, [REOPENS_PER_MESSAGE_MAX, 1]);
        for declaration in messages {
            assert!(session.greeting(declaration, true, false).is_ok());
        }
    }

    #[test]
    fn late_and_unknown_replies_are_told_apart() {
        let mut session = Session::new(ClientId(9), Peer::default());
        let begun = begin(&mut session, &open(), 0);
        session.abandon(begun.id);
        let late = session.finish(begun.id, &Err(FsError::Io));
        assert_eq!(late, Finished::Late(None));
        let granted = session.finish(begun.id, &opened(5));
        let closes = Some((InodeNumber(7), OpenId(5)));
        assert_eq!(granted, Finished::Late(closes), "nobody knows of it");
        assert_eq!(
            session.finish(begun.id + 1, &Err(FsError::Io)),
            Finished::Unknown
        );
        assert!(session.unanswered_frames().is_empty());
    }

    #[test]
    fn what_a_caller_who_gave_up_held_stays_until_the_reply_or_another_connection() {
        let mut session = Session::new(ClientId(9), Peer::default());
        let hold: Hold = Arc::new(());
        let held = || Arc::strong_count(&hold) - 1;
        let begun = begin(&mut session, &open(), 0);
        session.hold(begun.id, &hold);
        session.finish(begun.id, &opened(5));
        assert_eq!(held(), 0, "its caller has it");
        for answered in [true, false] {
            let begun = begin(&mut session, &open(), 0);
            session.hold(begun.id, &hold);
            session.abandon(begun.id);
            assert_eq!(held(), 1, "mgr may be at it");
            if answered {
                assert!(session.let_go(begun.id).is_some());
            } else {
                session.unanswered_frames();
            }
            assert_eq!(held(), 0, "{answered}");
        }
    }

    #[test]
    fn what_cannot_be_encoded_takes_no_number() {
        let mut session = Session::new(ClientId(9), Peer::default());
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
