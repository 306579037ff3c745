// SPDX-License-Identifier: GPL-2.0-only
//! A connection entry: one client's connection and the real server that has it.
//!
//! State, size and the way to send are one atomic word, and every change of the word is applied to the real server's
//! load as the difference between the two words. So the sums are exact without a lock, whatever
//! CPUs do at the same time.

use kernel::sync::rcu::read_lock;
use kernel::sync::Arc;

use crate::director::conn::ConnState;
use crate::director::delivered::{self, is_repeated};
use crate::director::flow::{FlowKey, Tuple};
use crate::director::load::change;
use crate::director::record::ConnectionRecord;
use crate::director::tcp::{step, TcpEvent, TcpState, Transition};
use crate::director::timeouts::Timeouts;
use crate::director::word::{Progress, Watch, Word};
use crate::kapi::atomic::{Atomic, Full, Relaxed};
use crate::kapi::clock::Ticks;
use crate::kapi::hashtable::Entry;
use crate::kapi::rcu::RcuCell;
use crate::state::destination::Destination;
use crate::state::template::Hold;

/// Sixteen ticks: exact enough to say which of two connections is older.
const STARTED_SHIFT: u32 = 4;

/// How often it is asked whether there is still room for a quiet connection, in seconds.
const QUIET_LOOK_S: u32 = 60;

/// The entry.
pub(crate) struct Connection {
    /// Client to virtual address.
    key: FlowKey,
    /// The real server that has it, from its start to its end.
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

/// What a service gives a connection.
pub(crate) struct Pick {
    /// The real server.
    pub(crate) destination: Arc<Destination>,
    /// What a connection that begins now is expected to fetch, in bytes.
    pub(crate) size_bytes: u64,
    /// What the packets of a connection that begins now are looked at for, beside being sent on.
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
    /// A connection that begins now, in this state, and that a real server gets. Its load counts from here
    /// on, until its end or the drop.
    pub(crate) fn start(key: FlowKey, state: ConnState, pick: Pick) -> Connection {
        let forwarding = pick.destination.forwarding();
        let word = Word::new(state, forwarding, pick.size_bytes, pick.watch);
        let now = Ticks::now();
        Connection::counted(Connection {
            key,
            destination: pick.destination,
            word: Atomic::new(word.to_bits()),
            last_seen: Atomic::new(now.short()),
            started: Ticks(now.0 >> STARTED_SHIFT).short(),
            hold: pick.hold,
            progress: Atomic::new(Progress::NONE.to_bits()),
        })
    }

    /// The connection that a record tells of, with this real server and the way to send that this one has. Its
    /// load counts there from here on.
    pub(crate) fn adopt(
        record: &ConnectionRecord,
        destination: Arc<Destination>,
        hold: Option<Hold>,
    ) -> Connection {
        let word = record.word.with_forwarding(destination.forwarding());
        let now = Ticks::now();
        Connection::counted(Connection {
            key: record.key,
            destination,
            word: Atomic::new(word.to_bits()),
            last_seen: Atomic::new(now.before_ms(record.idle_ms).short()),
            started: Ticks(now.before_ms(record.age_ms).0 >> STARTED_SHIFT).short(),
            hold,
            progress: Atomic::new(record.progress.to_bits()),
        })
    }

    /// Counts a connection that its real server has just got.
    #[inline(always)]
    fn counted(self) -> Connection {
        let destination = &self.destination;
        destination.apply(change(None, self.word().share()));
        destination.traffic.connection();
        self
    }

    /// Ends this connection and goes on with it at another real server. To be put in the place of this one.
    pub(crate) fn move_to(&self, pick: Pick, timeouts: &Timeouts) -> Connection {
        let record = self.record_with(self.end(), timeouts);
        Connection::adopt(&record, pick.destination, pick.hold)
    }

    /// Everything that there is to say of it, for as long as it is to be listed: nothing of one that has ended,
    /// or whose real server was removed, for nothing is sent there any more.
    pub(crate) fn record(&self, timeouts: &Timeouts) -> Option<ConnectionRecord> {
        let record = self.record_with(self.word(), timeouts);
        let is_over = record.word.state().is_none() || self.destination.is_removed();
        (!is_over).then_some(record)
    }

    fn record_with(&self, word: Word, timeouts: &Timeouts) -> ConnectionRecord {
        let now = Ticks::now();
        ConnectionRecord {
            key: self.key,
            destination: self.destination.key(),
            word,
            progress: self.progress(),
            age_ms: now.ms_since(self.started()),
            idle_ms: now.ms_since(self.last_seen()),
            expires_ms: self.deadline_of(word, timeouts).ms_since(now),
        }
    }

    /// Client to virtual address.
    pub(crate) fn tuple(&self) -> Tuple {
        self.key.tuple()
    }

    /// State and size.
    #[inline(always)]
    pub(crate) fn word(&self) -> Word {
        Word::from_bits(self.word.load(Relaxed))
    }

    fn progress(&self) -> Progress {
        Progress::from_bits(self.progress.load(Relaxed))
    }

    /// Whether its client has not acknowledged yet.
    pub(crate) fn is_half_open(&self) -> bool {
        self.word().is_half_open()
    }

    fn last_seen(&self) -> Ticks {
        Ticks::of_short(self.last_seen.load(Relaxed), Ticks::now())
    }

    /// When it was scheduled.
    fn started(&self) -> Ticks {
        let now = Ticks(Ticks::now().0 >> STARTED_SHIFT);
        Ticks(Ticks::of_short(self.started, now).0 << STARTED_SHIFT)
    }

    /// When a connection with this word ends if no packet comes.
    fn deadline_of(&self, word: Word, timeouts: &Timeouts) -> Ticks {
        let timeout_s = word.state().map_or(0, |state| timeouts.of(state));
        self.last_seen().after_s(timeout_s)
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
        let progress = Progress::new(sequence, acknowledgement);
        self.progress.store(progress.to_bits(), Relaxed);
    }

    /// Whether a segment with data is not one that was sent again.
    pub(crate) fn is_new_data(&self, sequence: u32) -> bool {
        match self.progress() {
            Progress::NONE => true,
            progress => !is_repeated(progress.request(), sequence),
        }
    }

    /// What the client had acknowledged when it was last counted, if its last request begins at this
    /// sequence number.
    pub(crate) fn counted_since(&self, sequence: u32) -> Option<u32> {
        let progress = self.progress();
        (progress.request() == sequence).then_some(progress.counted())
    }

    /// Takes off what the client has acknowledged, if that is worth it. A size that is only assumed
    /// stays: nobody knows how much of it is left.
    pub(crate) fn acknowledged(&self, sequence: u32, acknowledgement: u32) {
        let old = self.progress();
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
        let taken = self.progress.cmpxchg(old.to_bits(), new.to_bits(), Relaxed);
        if taken.is_ok() {
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
        let old = Word::from_bits(self.word.xchg(Word::ENDED.to_bits(), Full));
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
            match self.word.cmpxchg(old.to_bits(), new.to_bits(), Full) {
                Ok(_) => {
                    self.destination.apply(change(old.share(), new.share()));
                    return Ok((old, new));
                }
                Err(current) => old = Word::from_bits(current),
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
        self.deadline_of(self.word(), shared.timeouts.load(&read_lock()))
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
