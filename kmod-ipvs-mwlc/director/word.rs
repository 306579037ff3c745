// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What a connection's entry says of it in one word, so that it can change in one step: its state, its size,
//! how its packets are sent on and what they are looked at for. And how far its client is.

use crate::director::config::Forwarding;
use crate::director::conn::ConnState;
use crate::director::limits::CONNECTION_SIZE_BYTES_MAX;
use crate::director::load::{Cap, LoadClass, Share};

/// What a connection's packets are looked at for, beside being sent on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Watch {
    /// Requests, in the client's data: the next one's size is to be learned.
    pub request: bool,
    /// The client's acknowledgements: what was delivered counts no more.
    pub remaining: bool,
}

/// The word. Bits 0 to 7 are the state's number (0: ended), bit 8 whether the size is known, bits 9 and 10 what
/// packets are looked at for, 11 to 15 the cap of its capped size, 16 to 18 the number of the way to send, the
/// rest the size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Word(u64);

const KNOWN_BIT: u64 = 1 << 8;
const REQUEST_BIT: u64 = 1 << 9;
const REMAINING_BIT: u64 = 1 << 10;
const CAP_SHIFT: u32 = 11;
const FORWARDING_SHIFT: u32 = CAP_SHIFT + Cap::BITS;
const FORWARDING_MASK: u64 = 7;
const SIZE_SHIFT: u32 = FORWARDING_SHIFT + 3;

const _: () = assert!(
    CONNECTION_SIZE_BYTES_MAX <= u64::MAX >> SIZE_SHIFT,
    "a size fits its bits"
);

impl Word {
    /// That of a connection that has ended.
    pub const ENDED: Word = Word(0);

    /// That of a new connection, with a size that is only expected.
    pub fn new(state: ConnState, forwarding: Forwarding, size_bytes: u64, watch: Watch) -> Word {
        let size = size_bytes.min(CONNECTION_SIZE_BYTES_MAX);
        let request = if watch.request { REQUEST_BIT } else { 0 };
        let remaining = if watch.remaining { REMAINING_BIT } else { 0 };
        // A connection starts with the size that is expected of it.
        let cap = u64::from(Cap::of(size).bits()) << CAP_SHIFT;
        let forwarding = u64::from(forwarding.number()) << FORWARDING_SHIFT;
        Word(size << SIZE_SHIFT | forwarding | cap | request | remaining | u64::from(state.to_u8()))
    }

    /// The word as an entry keeps it.
    #[inline(always)]
    pub const fn to_bits(self) -> u64 {
        self.0
    }

    /// The word from [`Word::to_bits`].
    #[inline(always)]
    pub const fn from_bits(bits: u64) -> Word {
        Word(bits)
    }

    /// The state; `None` if the connection has ended.
    #[inline(always)]
    pub const fn state(self) -> Option<ConnState> {
        ConnState::from_u8(self.0 as u8)
    }

    /// How its packets are sent on. It is fixed when a real server gets the connection.
    #[inline(always)]
    pub const fn forwarding(self) -> Forwarding {
        match Forwarding::from_number((self.0 >> FORWARDING_SHIFT & FORWARDING_MASK) as u32) {
            Some(forwarding) => forwarding,
            // No word of ours has another number.
            None => Forwarding::DirectRouting,
        }
    }

    /// The size in bytes.
    pub const fn size_bytes(self) -> u64 {
        self.0 >> SIZE_SHIFT
    }

    /// Whether the size was set, not assumed.
    pub const fn size_known(self) -> bool {
        self.0 & KNOWN_BIT != 0
    }

    /// What its packets are looked at for.
    pub const fn watch(self) -> Watch {
        Watch {
            request: self.0 & REQUEST_BIT != 0,
            remaining: self.0 & REMAINING_BIT != 0,
        }
    }

    /// Whether its packets are looked at for anything.
    #[inline(always)]
    pub const fn is_watched(self) -> bool {
        self.0 & (REQUEST_BIT | REMAINING_BIT) != 0
    }

    /// The word in another state.
    #[must_use]
    pub const fn with_state(self, state: ConnState) -> Word {
        Word(self.0 & !0xff | state.to_u8() as u64)
    }

    /// The word with another size, which is known or assumed; `None` of a connection that has ended.
    pub fn with_size(self, size_bytes: u64, is_known: bool) -> Option<Word> {
        self.state()?;
        let size = size_bytes.min(CONNECTION_SIZE_BYTES_MAX);
        let rest = self.0 & ((1 << SIZE_SHIFT) - 1) & !KNOWN_BIT;
        let known = if is_known { KNOWN_BIT } else { 0 };
        Some(Word(size << SIZE_SHIFT | rest | known))
    }

    /// The word with another way to send.
    #[must_use]
    pub const fn with_forwarding(self, forwarding: Forwarding) -> Word {
        let number = (forwarding.number() as u64) << FORWARDING_SHIFT;
        Word(self.0 & !(FORWARDING_MASK << FORWARDING_SHIFT) | number)
    }

    /// Whether its client has not acknowledged yet.
    pub fn is_half_open(self) -> bool {
        self.state()
            .is_some_and(|state| state.class() == LoadClass::Pending)
    }

    /// What the connection adds to its real server's load.
    pub fn share(self) -> Option<Share> {
        self.state().map(|state| Share {
            class: state.class(),
            size_bytes: self.size_bytes(),
            cap: Cap::from_bits((self.0 >> CAP_SHIFT) as u8),
        })
    }
}

/// How far a connection is, as its client says: in the lower half up to where acknowledgements were
/// counted, in the upper half where the last request began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress(u64);

impl Progress {
    /// Nothing was seen yet.
    pub const NONE: Progress = Progress(0);

    /// The last request begins at `request`, and everything before `counted` is acknowledged and counted.
    pub const fn new(request: u32, counted: u32) -> Progress {
        Progress((request as u64) << 32 | counted as u64)
    }

    /// The progress as an entry keeps it.
    pub const fn to_bits(self) -> u64 {
        self.0
    }

    /// The progress from [`Progress::to_bits`].
    pub const fn from_bits(bits: u64) -> Progress {
        Progress(bits)
    }

    /// The sequence number where the last request begins.
    pub const fn request(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// The acknowledgement up to which everything was counted.
    pub const fn counted(self) -> u32 {
        self.0 as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::director::tcp::TcpState;

    const WATCH: Watch = Watch {
        request: true,
        remaining: false,
    };

    #[test]
    fn every_part_of_a_word_changes_alone() {
        for forwarding in Forwarding::ALL {
            for state in ConnState::ALL {
                let word = Word::new(state, forwarding, CONNECTION_SIZE_BYTES_MAX, WATCH);
                assert_eq!(word.state(), Some(state));
                assert_eq!(word.forwarding(), forwarding);
                assert_eq!(word.size_bytes(), CONNECTION_SIZE_BYTES_MAX);
                assert!(!word.size_known() && word.is_watched() && word.watch() == WATCH);

                let closed = word.with_state(ConnState::Tcp(TcpState::Close));
                assert_eq!(closed.with_state(state), word);
                let sized = word.with_size(7, true).and_then(|sized| {
                    assert!(sized.size_known() && sized.size_bytes() == 7);
                    sized.with_size(u64::MAX, false)
                });
                assert_eq!(sized, Some(word));
                for other in Forwarding::ALL {
                    let moved = word.with_forwarding(other);
                    assert_eq!(moved.forwarding(), other);
                    assert_eq!(moved.with_forwarding(forwarding), word);
                    assert_eq!(moved.share(), word.share());
                }
                assert_eq!(Word::from_bits(word.to_bits()), word);
            }
        }
        assert_eq!(Word::ENDED.state(), None);
        assert_eq!(Word::ENDED.share(), None);
        assert_eq!(Word::ENDED.with_size(1, true), None);
    }

    #[test]
    fn progress_keeps_both_numbers() {
        let progress = Progress::new(u32::MAX, 7);
        assert_eq!((progress.request(), progress.counted()), (u32::MAX, 7));
        assert_eq!(Progress::from_bits(progress.to_bits()), progress);
        assert_ne!(progress, Progress::NONE);
    }
}
