// SPDX-License-Identifier: GPL-2.0-only
//! A connection entry: one client's connection and the real server that has it.
//!
//! State and size are one atomic word, and every change of the word is applied to the real server's
//! load as the difference between the two words. So the sums are exact without a lock, whatever
//! CPUs do at the same time.

use crate::kapi::atomic::{Atomic, Full, Relaxed};
use kernel::sync::rcu::read_lock;
use kernel::sync::Arc;

use crate::director::limits::CONNECTION_SIZE_BYTES_MAX;
use crate::director::conn::ConnState;
use crate::director::delivered::{self, is_repeated};
use crate::director::flow::FlowKey;
use crate::director::load::{change, Cap, LoadClass, Share};
use crate::director::packet::Tuple;
use crate::director::tcp::{step, TcpEvent, TcpState, Transition};
use crate::director::timeouts::Timeouts;
use crate::kapi::clock::Ticks;
use crate::kapi::hashtable::Entry;
use crate::kapi::rcu::RcuCell;
use crate::state::destination::Destination;
use crate::state::expectation::Watch;
use crate::state::template::Hold;

/// Sixteen ticks: exact enough to say which of two connections is older.
const STARTED_SHIFT: u32 = 4;

/// How often it is asked whether there is still room for a quiet connection, in seconds.
const QUIET_LOOK_S: u32 = 60;

/// The entry.
pub(crate) struct Connection {
    /// Client to virtual address.
    key: FlowKey,
    /// Who has it.
    pub(crate) destination: Arc<Destination>,
    /// Its [`Word`].
    word: Atomic<u64>,
    /// When its last packet came; a short moment, for no timeout is longer than those reach back.
    last_seen: Atomic<u32>,
    /// When it was scheduled; in sixteen ticks, to reach back for years.
    started: u32,
    /// Persistence: what says where its client's next connection goes.
    hold: Option<Hold>,
    /// Its [`Progress`], if it is watched.
    progress: Atomic<u64>,
}

/// A real server for a new connection.
pub(crate) struct Pick {
    /// The real server.
    pub(crate) destination: Arc<Destination>,
    /// The connection's first state.
    pub(crate) state: ConnState,
    /// What it is expected to fetch, in bytes.
    pub(crate) size_bytes: u64,
    /// What its packets are looked at for, beside being sent on.
    pub(crate) watch: Watch,
    /// What keeps the client on its real server, if the service is persistent.
    pub(crate) hold: Option<Hold>,
    /// Each datagram is a connection of its own: there is no entry to keep.
    pub(crate) one_packet: bool,
}

/// What all connections of a namespace share.
pub(crate) struct Shared {
    /// How long they are kept.
    pub(crate) timeouts: RcuCell<Timeouts>,
    /// How many of those in the table are half-open.
    half_open: Atomic<u32>,
}

impl Shared {
    /// Without connections.
    pub(crate) const fn new(timeouts: RcuCell<Timeouts>) -> Shared {
        Shared {
            timeouts,
            half_open: Atomic::new(0),
        }
    }

    /// How many connections are half-open.
    pub(crate) fn half_open(&self) -> u32 {
        self.half_open.load(Relaxed)
    }

    /// A connection is about to enter the table, or has not entered it; whether it is half-open.
    pub(crate) fn entering(&self, counted: bool) -> Entering<'_> {
        if counted {
            self.half_open.fetch_add(1, Relaxed);
        }
        Entering {
            shared: self,
            counted,
        }
    }

    fn word_changed(&self, old: Word, new: Word) {
        if old.is_half_open() && !new.is_half_open() {
            self.half_open.fetch_sub(1, Relaxed);
        }
    }
}

/// Counts a connection as half-open before it is in the table; dropped, it was never there.
pub(crate) struct Entering<'a> {
    shared: &'a Shared,
    counted: bool,
}

impl Entering<'_> {
    /// Whether it is half-open.
    pub(crate) fn is_half_open(&self) -> bool {
        self.counted
    }

    /// It is in the table: from now on its own changes count.
    pub(crate) fn entered(mut self) {
        self.counted = false;
    }
}

impl Drop for Entering<'_> {
    fn drop(&mut self) {
        if self.counted {
            self.shared.half_open.fetch_sub(1, Relaxed);
        }
    }
}

/// State and size in 64 bits: bits 0 to 7 the state's number (0: ended), bit 8 whether the size is
/// known, bits 9 and 10 what is watched for, 11 to 15 the cap of its capped size, the rest the size.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Word(u64);

const KNOWN_BIT: u64 = 1 << 8;
const REQUEST_BIT: u64 = 1 << 9;
const REMAINING_BIT: u64 = 1 << 10;
const CAP_SHIFT: u32 = 11;
const SIZE_SHIFT: u32 = CAP_SHIFT + Cap::BITS;

const _: () = assert!(
    CONNECTION_SIZE_BYTES_MAX <= u64::MAX >> SIZE_SHIFT,
    "a size fits its bits"
);

impl Word {
    const ENDED: Word = Word(0);

    fn new(state: ConnState, size_bytes: u64, watch: Watch) -> Word {
        let size = size_bytes.min(CONNECTION_SIZE_BYTES_MAX);
        let request = if watch.request { REQUEST_BIT } else { 0 };
        let remaining = if watch.remaining { REMAINING_BIT } else { 0 };
        // A connection starts with the size that is expected of it.
        let cap = u64::from(Cap::of(size).bits()) << CAP_SHIFT;
        Word(size << SIZE_SHIFT | cap | request | remaining | u64::from(state.to_u8()))
    }

    /// The state; `None` if the connection has ended.
    pub(crate) fn state(self) -> Option<ConnState> {
        ConnState::from_u8(self.0 as u8)
    }

    /// The size in bytes.
    pub(crate) fn size_bytes(self) -> u64 {
        self.0 >> SIZE_SHIFT
    }

    /// Whether the size was set, not assumed.
    pub(crate) fn size_known(self) -> bool {
        self.0 & KNOWN_BIT != 0
    }

    /// What its packets are looked at for.
    pub(crate) fn watch(self) -> Watch {
        Watch {
            request: self.0 & REQUEST_BIT != 0,
            remaining: self.0 & REMAINING_BIT != 0,
        }
    }

    /// Whether they are looked at for anything.
    pub(crate) fn is_watched(self) -> bool {
        self.0 & (REQUEST_BIT | REMAINING_BIT) != 0
    }

    fn with_state(self, state: ConnState) -> Word {
        Word(self.0 & !0xff | u64::from(state.to_u8()))
    }

    /// With another size, which is known or assumed; `None` of a connection that has ended.
    fn with_size(self, size_bytes: u64, is_known: bool) -> Option<Word> {
        self.state()?;
        let size = size_bytes.min(CONNECTION_SIZE_BYTES_MAX);
        let rest = self.0 & ((1 << SIZE_SHIFT) - 1) & !KNOWN_BIT;
        let known = if is_known { KNOWN_BIT } else { 0 };
        Some(Word(size << SIZE_SHIFT | rest | known))
    }

    fn is_half_open(self) -> bool {
        self.state()
            .is_some_and(|state| state.class() == LoadClass::Pending)
    }

    /// What the connection adds to its real server's load.
    fn share(self) -> Option<Share> {
        self.state().map(|state| Share {
            class: state.class(),
            size_bytes: self.size_bytes(),
            cap: Cap::from_bits((self.0 >> CAP_SHIFT) as u8),
        })
    }
}

/// How far a connection is, as its client says: in the lower half up to where acknowledgements were
/// counted, in the upper half where the last request began.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Progress(u64);

impl Progress {
    /// Nothing was seen yet.
    const NONE: Progress = Progress(0);

    fn new(request: u32, counted: u32) -> Progress {
        Progress(u64::from(request) << 32 | u64::from(counted))
    }

    fn request(self) -> u32 {
        (self.0 >> 32) as u32
    }

    fn counted(self) -> u32 {
        self.0 as u32
    }
}

/// What a packet means for its connection.
pub(crate) enum Observed {
    /// It goes to the connection's real server.
    Forward {
        /// The state that the connection has come into, if it is another one.
        entered: Option<ConnState>,
    },
    /// The client reuses its port: this connection is over, the packet begins another one.
    Restart,
    /// The connection has ended meanwhile.
    Ended,
}

impl Connection {
    /// A connection that a real server gets now; its load counts from here on, until
    /// [`Connection::end`] or the drop.
    pub(crate) fn start(key: FlowKey, pick: Pick) -> Connection {
        let destination = pick.destination;
        let word = Word::new(pick.state, pick.size_bytes, pick.watch);
        let now = Ticks::now();
        destination.apply(change(None, word.share()));
        destination.traffic.connection();
        Connection {
            key,
            destination,
            word: Atomic::new(word.0),
            last_seen: Atomic::new(now.short()),
            started: Ticks(now.0 >> STARTED_SHIFT).short(),
            hold: pick.hold,
            progress: Atomic::new(Progress::NONE.0),
        }
    }

    /// Client to virtual address.
    pub(crate) fn tuple(&self) -> Tuple {
        self.key.tuple()
    }

    /// State and size.
    pub(crate) fn word(&self) -> Word {
        Word(self.word.load(Relaxed))
    }

    /// The state to list it with; `None` of one that has ended, or whose real server was removed:
    /// nothing is sent there any more.
    pub(crate) fn listed_state(&self) -> Option<ConnState> {
        self.word()
            .state()
            .filter(|_| !self.destination.is_removed())
    }

    /// Whether its client has not acknowledged yet.
    pub(crate) fn is_half_open(&self) -> bool {
        self.word().is_half_open()
    }

    /// When it was scheduled.
    pub(crate) fn started(&self) -> Ticks {
        let now = Ticks(Ticks::now().0 >> STARTED_SHIFT);
        Ticks(Ticks::of_short(self.started, now).0 << STARTED_SHIFT)
    }

    /// When it ends if no packet comes.
    pub(crate) fn deadline_with(&self, timeouts: &Timeouts) -> Ticks {
        let timeout_s = self.word().state().map_or(0, |state| timeouts.of(state));
        Ticks::of_short(self.last_seen.load(Relaxed), Ticks::now()).after_s(timeout_s)
    }

    /// Takes note of a packet from the client; `event` is `None` for UDP.
    #[inline]
    pub(crate) fn observe(&self, event: Option<TcpEvent>, shared: &Shared) -> Observed {
        let now = Ticks::now().short();
        // A store that changes nothing would only take the cache line from other CPUs.
        if self.last_seen.load(Relaxed) != now {
            self.last_seen.store(now, Relaxed);
        }
        match (self.word().state(), event) {
            // Nearly every packet, and it changes nothing.
            (Some(ConnState::Tcp(TcpState::Established)), Some(TcpEvent::Ack))
            | (Some(ConnState::Udp), None) => Observed::Forward { entered: None },
            _ => self.observe_change(event, shared),
        }
    }

    fn observe_change(&self, event: Option<TcpEvent>, shared: &Shared) -> Observed {
        let mut entered = None;
        let updated = self.update(|word| match (word.state(), event) {
            (Some(ConnState::Tcp(state)), Some(event)) => match step(state, event) {
                Transition::To(next) => {
                    entered = (next != state).then_some(ConnState::Tcp(next));
                    Some(word.with_state(ConnState::Tcp(next)))
                }
                Transition::Restart => None,
            },
            (Some(_), _) => Some(word),
            (None, _) => None,
        });
        match updated {
            Ok((old, new)) => {
                shared.word_changed(old, new);
                if let (Some(ConnState::Tcp(TcpState::Established)), Some(hold)) =
                    (entered, &self.hold)
                {
                    hold.assure();
                }
                Observed::Forward { entered }
            }
            Err(word) if word == Word::ENDED => Observed::Ended,
            Err(_) => Observed::Restart,
        }
    }

    /// Sets the size in bytes; false if the connection has ended.
    pub(crate) fn set_size(&self, size_bytes: u64) -> bool {
        self.update(|word| word.with_size(size_bytes, true)).is_ok()
    }

    /// Sets a size in bytes that is only assumed.
    pub(crate) fn assume_size(&self, size_bytes: u64) {
        // One that has ended needs none.
        let _ended = self.update(|word| word.with_size(size_bytes, false));
    }

    /// Takes note of a request that begins at this sequence number and acknowledges everything
    /// before `acknowledgement`. Its size comes next.
    pub(crate) fn begin_request(&self, sequence: u32, acknowledgement: u32) {
        self.progress
            .store(Progress::new(sequence, acknowledgement).0, Relaxed);
    }

    /// Whether a segment with data is not one that was sent again.
    pub(crate) fn is_new_data(&self, sequence: u32) -> bool {
        match Progress(self.progress.load(Relaxed)) {
            Progress::NONE => true,
            progress => !is_repeated(progress.request(), sequence),
        }
    }

    /// What the client had acknowledged when it was last counted, if its last request begins at this
    /// sequence number.
    pub(crate) fn counted_since(&self, sequence: u32) -> Option<u32> {
        let progress = Progress(self.progress.load(Relaxed));
        (progress.request() == sequence).then_some(progress.counted())
    }

    /// Takes off what the client has acknowledged, if that is worth it. A size that is only assumed
    /// stays: nobody knows how much of it is left.
    pub(crate) fn acknowledged(&self, sequence: u32, acknowledgement: u32) {
        let old = Progress(self.progress.load(Relaxed));
        if old == Progress::NONE {
            // No request yet: the next data is new, wherever it begins.
            self.begin_request(sequence.wrapping_sub(1), acknowledgement);
            return;
        }
        let word = self.word();
        let left_bytes = if word.size_known() {
            word.size_bytes()
        } else {
            u64::MAX
        };
        if delivered::left(left_bytes, old.counted(), acknowledgement).is_none() {
            return;
        }
        let new = Progress::new(old.request(), acknowledgement);
        // Of two CPUs with the same client's acknowledgements, one takes them off.
        if self.progress.cmpxchg(old.0, new.0, Relaxed).is_ok() {
            let _ended = self.update(|word| {
                let left = delivered::left(word.size_bytes(), old.counted(), acknowledgement);
                match left {
                    Some(left_bytes) if word.size_known() => word.with_size(left_bytes, true),
                    _ => Some(word),
                }
            });
        }
    }

    fn is_quiet(&self) -> bool {
        self.word().state() == Some(ConnState::Tcp(TcpState::Quiet))
    }

    /// From established; false if it is anything else.
    fn become_quiet(&self) -> bool {
        self.update(|word| match word.state() {
            Some(ConnState::Tcp(TcpState::Established)) => {
                Some(word.with_state(ConnState::Tcp(TcpState::Quiet)))
            }
            _ => None,
        })
        .is_ok()
    }

    /// Ends it: it counts for nothing any more. The second time nothing happens. The word that it
    /// had.
    fn end(&self) -> Word {
        let old = Word(self.word.xchg(Word::ENDED.0, Full));
        if old != Word::ENDED {
            self.destination.apply(change(old.share(), None));
        }
        old
    }

    /// Changes the word as `next` says, and the load with it; the words before and after. `next`
    /// may be asked more than once; if it answers `None`, the word at that time is the error.
    fn update(
        &self,
        mut next: impl FnMut(Word) -> Option<Word>,
    ) -> core::result::Result<(Word, Word), Word> {
        let mut old = self.word();
        loop {
            let new = next(old).ok_or(old)?;
            if new == old {
                return Ok((old, new));
            }
            match self.word.cmpxchg(old.0, new.0, Full) {
                Ok(_) => {
                    self.destination.apply(change(old.share(), new.share()));
                    return Ok((old, new));
                }
                Err(current) => old = Word(current),
            }
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // One that was never inserted has counted as well.
        self.end();
    }
}

impl Entry for Connection {
    type Key = FlowKey;
    type Context = Shared;

    #[inline]
    fn key(&self) -> &FlowKey {
        &self.key
    }

    fn deadline(&self, shared: &Shared) -> Ticks {
        if self.destination.is_removed() {
            return Ticks::now();
        }
        self.deadline_with(shared.timeouts.load(&read_lock()))
    }

    /// An established connection whose timeout has passed becomes quiet, if there is room for it and
    /// its real server may have connections at all.
    fn stays(&self, shared: &Shared, now: Ticks, roomy: bool) -> Option<Ticks> {
        let due = self.deadline(shared) <= now;
        if !due && !self.is_quiet() {
            return Some(self.deadline(shared));
        }
        let welcome = roomy && self.destination.takes_connections();
        if !welcome || (due && !self.become_quiet()) {
            return None;
        }
        let deadline = self.deadline(shared);
        (deadline > now).then(|| deadline.min(now.after_s(QUIET_LOOK_S)))
    }

    fn unlinked(&self, shared: &Shared) {
        shared.word_changed(self.end(), Word::ENDED);
    }

    fn evictable_since(&self) -> Option<Ticks> {
        self.is_half_open().then(|| self.started())
    }
}
