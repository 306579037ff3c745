// SPDX-License-Identifier: MIT
//! Which changes have been made, so that each is made once: a request whose reply was lost comes
//! again on another connection, and its first copy may still lie unread in a socket, or be stored in
//! part, when others have long changed the same place.
//!
//! # Invariants
//!
//! A change touches an object only while it has its slot's lock, and only where the slot's sequence
//! number is its own and it is open. Sequence numbers of a slot only grow. What has been stored of a
//! payload grows with each piece under the same lock. So whatever copies of a change arrive, in
//! whatever order, each byte of it is stored once; and never after a later change in its slot began.
//!
//! A session that is forgotten is never known again, so a copy that comes afterwards is refused.
//!
//! What a slot knows is written to the log before its lock is given up, that is before a reply is
//! sent: an iod that is killed and started again knows all that was acknowledged, and all that
//! others have seen, but for what was stored in the microseconds before it was killed.
//!
//! Locks are taken in this order: a slot's, then what the change itself takes ([`super::fences`], an
//! object's). The table's lock is never held while another is waited for.

use std::collections::HashMap;

use bincode::{Decode, Encode};
use pvfs::error::FsError;
use pvfs::ids::SessionId;
use pvfs::limits::SLOTS_PER_SESSION_MAX;
use pvfs::proto::iod::{Change, IodReply, IodResponse};
use pvfs::runtime::sync::{Arc, Mutex, MutexGuard, PoisonError};
use pvfs::runtime::time::{Duration, Instant};

use super::session_log::{Place, Record, SessionLog};

/// Sessions at once, 150 bytes each: every mount and every tool that writes has one, and leaves it
/// behind when it ends.
const SESSIONS_MAX: usize = 1 << 16;
/// Slots of all sessions together, 150 bytes each and 64 in the log: two for each session that there
/// may be.
const SLOTS_MAX: usize = 1 << 17;
/// A session that was used within this time is not forgotten: a client that waits for a reply still
/// tries. Longer than a request may take to arrive ([`crate::server::ServerLimits`]).
const IDLE_SECONDS_MIN: u64 = 600;

/// A session has it from the beginning.
const FIRST_SLOT: u32 = 0;

/// Which changes each client has made here.
pub struct Sessions {
    sessions_max: usize,
    slots_max: usize,
    table: Mutex<Table>,
    log: Option<Arc<SessionLog>>,
}

#[derive(Default)]
struct Table {
    sessions: HashMap<SessionId, Session>,
    slots: usize,
}

struct Session {
    slots: HashMap<u32, Arc<Slot>>,
    used: Instant,
}

struct Slot {
    session: SessionId,
    number: u32,
    log: Option<(Arc<SessionLog>, Place)>,
    state: Mutex<State>,
}

/// What a slot knows of its last change.
#[derive(Default)]
struct State {
    sequence: u64,
    /// Bytes of the payload, from its start on.
    stored: u64,
    end: End,
}

/// What became of a change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub(super) enum End {
    /// It is to be made, or being made.
    #[default]
    Open,
    /// This was the outcome.
    Made(Result<(), FsError>),
    /// It is not made, or not to the end, and never will be.
    Settled,
}

/// One copy of a change that has arrived.
pub struct Attempt {
    slot: Arc<Slot>,
    sequence: u64,
}

impl Sessions {
    /// Those that the log tells of.
    pub(super) fn restore(log: SessionLog, records: Vec<(Place, Record)>, now: Instant) -> Self {
        let log = Arc::new(log);
        let mut table = Table::default();
        for (place, record) in records {
            let session = table.sessions.entry(record.session);
            let session = session.or_insert_with(|| Session::new(now));
            let slot = Slot {
                session: record.session,
                number: record.slot,
                log: Some((Arc::clone(&log), place)),
                state: Mutex::new(State {
                    sequence: record.sequence,
                    stored: record.stored,
                    end: record.end,
                }),
            };
            session.slots.insert(record.slot, Arc::new(slot));
        }
        // One whose first slot is missing was about to be forgotten.
        let whole = |_: &SessionId, session: &mut Session| {
            let is_whole = session.slots.contains_key(&FIRST_SLOT);
            if !is_whole {
                session.remove_records();
            }
            is_whole
        };
        table.sessions.retain(whole);
        table.slots = table
            .sessions
            .values()
            .map(|session| session.slots.len())
            .sum();
        Self {
            sessions_max: SESSIONS_MAX,
            slots_max: SLOTS_MAX,
            table: Mutex::new(table),
            log: Some(log),
        }
    }

    #[cfg(test)]
    fn with_capacity(sessions_max: usize, slots_max: usize) -> Self {
        Self {
            sessions_max,
            slots_max,
            table: Mutex::default(),
            log: None,
        }
    }

    /// Every change of the table is complete before anything can panic.
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins the session `id`, which nobody has had before.
    ///
    /// # Errors
    ///
    /// [`FsError::TryAgain`] where there are too many that were used a moment ago.
    pub fn open(&self, id: SessionId, now: Instant) -> Result<(), FsError> {
        let mut table = self.lock();
        if table.sessions.len() >= self.sessions_max {
            table.forget_one(id, now)?;
        }
        table.sessions.insert(id, Session::new(now));
        let added = self.add_slot(&mut table, id, FIRST_SLOT, now);
        if added.is_err() {
            table.sessions.remove(&id);
        }
        added.map(drop)
    }

    /// A copy of `change` has arrived. Waits while an earlier one of the same slot stores a piece.
    ///
    /// # Errors
    ///
    /// [`FsError::SessionLost`]; [`FsError::AlreadyAnswered`] where a later one has arrived;
    /// [`FsError::TryAgain`] where there are too many slots in use; [`FsError::InvalidArgument`].
    pub fn begin(&self, change: &Change, now: Instant) -> Result<Attempt, FsError> {
        let slot = self.slot(change, now)?;
        let mut state = slot.lock();
        if change.sequence < state.sequence || change.sequence == 0 {
            return Err(FsError::AlreadyAnswered);
        }
        if change.sequence > state.sequence {
            *state = State {
                sequence: change.sequence,
                ..State::default()
            };
        }
        drop(state);
        Ok(Attempt {
            slot,
            sequence: change.sequence,
        })
    }

    fn slot(&self, change: &Change, now: Instant) -> Result<Arc<Slot>, FsError> {
        if change.slot >= SLOTS_PER_SESSION_MAX {
            return Err(FsError::InvalidArgument);
        }
        let mut table = self.lock();
        let session = table.sessions.get_mut(&change.session);
        let session = session.ok_or(FsError::SessionLost)?;
        session.used = now;
        if let Some(slot) = session.slots.get(&change.slot) {
            return Ok(Arc::clone(slot));
        }
        self.add_slot(&mut table, change.session, change.slot, now)
    }

    fn add_slot(
        &self,
        table: &mut Table,
        id: SessionId,
        number: u32,
        now: Instant,
    ) -> Result<Arc<Slot>, FsError> {
        if table.slots >= self.slots_max {
            table.forget_one(id, now)?;
        }
        let session = table.sessions.get_mut(&id).ok_or(FsError::SessionLost)?;
        let log = self.log.as_ref().map(|log| (Arc::clone(log), log.take()));
        let slot = Arc::new(Slot {
            session: id,
            number,
            log,
            state: Mutex::default(),
        });
        slot.note(&slot.lock());
        session.slots.insert(number, Arc::clone(&slot));
        table.slots += 1;
        Ok(slot)
    }
}

impl Table {
    /// Forgets the session that was used longest ago, and not `but`: one in which nothing was
    /// changed, or else one that was idle for long.
    fn forget_one(&mut self, but: SessionId, now: Instant) -> Result<(), FsError> {
        let idle = Duration::from_secs(IDLE_SECONDS_MIN);
        let may_go = |session: &Session| {
            let is_idle = now.saturating_duration_since(session.used) >= idle;
            session.changed_nothing() || (is_idle && !session.is_in_use())
        };
        let candidates = self
            .sessions
            .iter()
            .filter(|(id, session)| **id != but && may_go(session));
        let oldest =
            candidates.min_by_key(|(id, session)| (!session.changed_nothing(), session.used, **id));
        let oldest = oldest.map(|(id, _)| *id).ok_or(FsError::TryAgain)?;
        if let Some(forgotten) = self.sessions.remove(&oldest) {
            self.slots -= forgotten.slots.len();
            forgotten.remove_records();
        }
        Ok(())
    }
}

impl Session {
    fn new(now: Instant) -> Self {
        Self {
            slots: HashMap::new(),
            used: now,
        }
    }

    /// Whether no change has ever come.
    fn changed_nothing(&self) -> bool {
        self.slots.len() <= 1 && !self.is_in_use() && {
            let mut slots = self.slots.values();
            slots.all(|slot| slot.lock().sequence == 0)
        }
    }

    /// Takes it out of the log. The first slot's goes first: without it the others count for nothing,
    /// so a session is never known in part.
    fn remove_records(&self) {
        let first = self.slots.get(&FIRST_SLOT).into_iter();
        let others = self.slots.values().filter(|slot| slot.number != FIRST_SLOT);
        for slot in first.chain(others) {
            if let Some((log, place)) = &slot.log {
                if !log.clear(*place) {
                    return;
                }
            }
        }
    }

    /// Whether a copy of a change is here: a disk may hang for longer than a client tries.
    fn is_in_use(&self) -> bool {
        let mut slots = self.slots.values();
        slots.any(|slot| Arc::strong_count(slot) > 1)
    }
}

impl Slot {
    /// A piece whose storing panicked counts as not stored.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, state: &State) {
        if let Some((log, place)) = &self.log {
            let record = Record {
                session: self.session,
                slot: self.number,
                sequence: state.sequence,
                stored: state.stored,
                end: state.end,
            };
            log.write(*place, &record);
        }
    }
}

impl Attempt {
    fn lock(&self) -> Result<MutexGuard<'_, State>, FsError> {
        let state = self.slot.lock();
        if state.sequence != self.sequence {
            return Err(FsError::AlreadyAnswered);
        }
        Ok(state)
    }

    /// Does what a change without payload does, or returns what came of it before. Another copy
    /// waits meanwhile.
    ///
    /// # Errors
    ///
    /// Those of `change`, now or then; [`FsError::AlreadyAnswered`] where it is over.
    pub fn make(&self, change: impl FnOnce() -> Result<(), FsError>) -> Result<(), FsError> {
        let mut state = self.lock()?;
        if state.end == End::Open {
            state.end = End::Made(change());
            self.slot.note(&state);
        }
        state.finish()
    }

    /// Does what must be done before the first piece is stored, unless all is done already.
    ///
    /// # Errors
    ///
    /// Those of `prepare`, which then are the outcome; as [`Attempt::make`].
    pub fn prepare<T>(
        &self,
        prepare: impl FnOnce() -> Result<T, FsError>,
    ) -> Result<Option<T>, FsError> {
        let mut state = self.lock()?;
        let mut prepared = None;
        state.run(|_| {
            prepared = Some(prepare()?);
            Ok(())
        })?;
        Ok(prepared)
    }

    /// Has `store` store what has not been stored yet of `piece`, which begins at `at` in the
    /// payload. Pieces come in their order.
    ///
    /// # Errors
    ///
    /// As [`Attempt::make`].
    pub fn store(
        &self,
        piece: &[u8],
        at: u64,
        store: impl FnOnce(&[u8], u64) -> Result<(), FsError>,
    ) -> Result<(), FsError> {
        let mut state = self.lock()?;
        debug_assert!(
            at <= state.stored,
            "whoever comes with a piece has stored all before it"
        );
        let skip = usize::try_from(state.stored.saturating_sub(at)).unwrap_or(usize::MAX);
        let Some(rest) = piece.get(skip..).filter(|rest| !rest.is_empty()) else {
            return Ok(());
        };
        let outcome = state.run(|stored| {
            store(rest, *stored)?;
            *stored += rest.len() as u64;
            Ok(())
        });
        self.slot.note(&state);
        outcome
    }

    /// The whole payload has been handed over: says what came of it.
    ///
    /// # Errors
    ///
    /// As [`Attempt::make`].
    pub fn finish(&self) -> Result<(), FsError> {
        self.lock()?.finish()
    }

    /// Sees to it that the change is not made, as far as it is not.
    pub fn settle(&self) -> IodReply {
        let mut state = self.lock()?;
        if let End::Made(outcome) = state.end {
            return outcome.map(|()| IodResponse::Done);
        }
        state.end = End::Settled;
        self.slot.note(&state);
        Ok(IodResponse::Unmade {
            stored: state.stored,
        })
    }
}

impl State {
    /// Runs a step of an open change. Its failure is the change's outcome; one that has an outcome
    /// takes no further step.
    fn run(&mut self, step: impl FnOnce(&mut u64) -> Result<(), FsError>) -> Result<(), FsError> {
        match self.end {
            End::Open => {
                let outcome = step(&mut self.stored);
                if outcome.is_err() {
                    self.end = End::Made(outcome);
                }
                outcome
            }
            End::Made(outcome) => outcome,
            End::Settled => Err(FsError::AlreadyAnswered),
        }
    }

    fn finish(&mut self) -> Result<(), FsError> {
        if self.end == End::Open {
            self.end = End::Made(Ok(()));
        }
        self.run(|_| Ok(()))
    }
}

#[cfg(test)]
#[path = "sessions_tests.rs"]
mod tests;
