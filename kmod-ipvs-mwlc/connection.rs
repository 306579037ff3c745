// SPDX-License-Identifier: GPL-2.0-only
//! A connection entry: one client's connection and the real server that has it.
//!
//! State and size are one atomic word, and every change of the word is applied to the real server's
//! load as the difference between the two words. So the sums are exact without a lock, whatever
//! CPUs do at the same time.

use crate::kapi::atomic::{Atomic, Full, Relaxed};
use kernel::sync::rcu::read_lock;
use kernel::sync::Arc;

use crate::destination::Destination;
use crate::director::config::CONNECTION_SIZE_BYTES_MAX;
use crate::director::conn::ConnState;
use crate::director::load::{change, Cap, Share};
use crate::director::packet::Ipv4Tuple;
use crate::director::tcp::{step, TcpEvent, TcpState, Transition};
use crate::director::timeouts::Timeouts;
use crate::dispatch::Pick;
use crate::kapi::clock::{ShortTicks, Ticks};
use crate::kapi::hashtable::Entry;
use crate::kapi::rcu::RcuCell;
use crate::template::Hold;

/// The entry.
pub(crate) struct Connection {
    /// Client to virtual address.
    tuple: Ipv4Tuple,
    /// Who has it.
    pub(crate) destination: Arc<Destination>,
    /// Its [`Word`].
    word: Atomic<u64>,
    started: ShortTicks,
    last_seen: Atomic<u32>,
    /// Persistence: what says where its client's next connection goes.
    hold: Option<Hold>,
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

/// What a connection's packets are looked at for, beside being sent on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Watch {
    /// Requests, in the client's data: the next one's size is to be learned.
    pub(crate) request: bool,
    /// The client's acknowledgements: what was delivered counts no more.
    pub(crate) remaining: bool,
}

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

    fn with_state(self, state: ConnState) -> Word {
        Word(self.0 & !0xff | u64::from(state.to_u8()))
    }

    /// With a size that was set; `None` of a connection that has ended.
    fn with_size(self, size_bytes: u64) -> Option<Word> {
        self.state()?;
        let size = size_bytes.min(CONNECTION_SIZE_BYTES_MAX);
        let rest = self.0 & ((1 << SIZE_SHIFT) - 1);
        Some(Word(size << SIZE_SHIFT | rest | KNOWN_BIT))
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
    pub(crate) fn start(tuple: Ipv4Tuple, pick: Pick) -> Connection {
        let destination = pick.destination;
        let word = Word::new(pick.state, pick.size_bytes, pick.watch);
        let now = Ticks::now();
        destination.apply(change(None, word.share()));
        destination.traffic.connection();
        Connection {
            tuple,
            destination,
            word: Atomic::new(word.0),
            started: now.short(),
            last_seen: Atomic::new(now.short().0),
            hold: pick.hold,
        }
    }

    /// Client to virtual address.
    pub(crate) fn tuple(&self) -> &Ipv4Tuple {
        &self.tuple
    }

    /// State and size.
    pub(crate) fn word(&self) -> Word {
        Word(self.word.load(Relaxed))
    }

    /// When it was scheduled.
    pub(crate) fn started(&self) -> Ticks {
        self.started.before(Ticks::now())
    }

    /// When it ends if no packet comes.
    pub(crate) fn deadline_with(&self, timeouts: &Timeouts) -> Ticks {
        let timeout_s = self.word().state().map_or(0, |state| timeouts.of(state));
        let last_seen = ShortTicks(self.last_seen.load(Relaxed));
        last_seen.before(Ticks::now()).after_s(timeout_s)
    }

    /// Takes note of a packet from the client; `event` is `None` for UDP.
    pub(crate) fn observe(&self, event: Option<TcpEvent>) -> Observed {
        let now = Ticks::now().short().0;
        // A store that changes nothing would only take the cache line from other CPUs.
        if self.last_seen.load(Relaxed) != now {
            self.last_seen.store(now, Relaxed);
        }
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
            Ok(()) => {
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
        self.update(|word| word.with_size(size_bytes)).is_ok()
    }

    /// Ends it: it counts for nothing any more. The second time nothing happens.
    fn end(&self) {
        let old = Word(self.word.xchg(Word::ENDED.0, Full));
        self.destination.apply(change(old.share(), None));
    }

    /// Changes the word as `next` says, and the load with it. `next` may be asked more than once;
    /// if it answers `None`, the word at that time is the error.
    fn update(&self, mut next: impl FnMut(Word) -> Option<Word>) -> core::result::Result<(), Word> {
        let mut old = self.word();
        loop {
            let new = next(old).ok_or(old)?;
            if new == old {
                return Ok(());
            }
            match self.word.cmpxchg(old.0, new.0, Full) {
                Ok(_) => {
                    self.destination.apply(change(old.share(), new.share()));
                    return Ok(());
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
    type Key = Ipv4Tuple;
    type Context = RcuCell<Timeouts>;

    fn key(&self) -> &Ipv4Tuple {
        &self.tuple
    }

    fn deadline(&self, timeouts: &RcuCell<Timeouts>) -> Ticks {
        if self.destination.is_removed() {
            return Ticks::now();
        }
        self.deadline_with(timeouts.load(&read_lock()))
    }

    fn unlinked(&self) {
        self.end();
    }
}
