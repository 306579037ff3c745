// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The sizes of files that clients have asked for, in sets of a few entries each.
//!
//! A name belongs to the set that its keyed hash says, and a full set gives up the entry that was
//! used least recently. So the cache has a bound without a list of all entries, and a stranger who
//! asks for many names cannot choose whose entry goes.
//!
//! A name that is not there is *asked* for: it takes an entry, without the name itself, so that many
//! clients who want the same file at once do not all ask.

use core::ops::Deref;

/// Sets of one namespace.
pub const SETS: usize = 2048;
/// Entries of one set; 16,384 in all, each with its name at most 576 bytes: 9 MiB at the very most,
/// 2 MiB with usual names.
pub const WAYS: usize = 8;

/// A size is believed for this long, unless the answer says otherwise.
pub const KNOWN_TTL_MS: u64 = 60_000;
/// Nobody can make the director believe a size for longer than an hour.
pub const TTL_MS_MAX: u64 = 3_600_000;
/// That a size is unknown is believed for this long: soon enough for a file that was just made.
pub const UNKNOWN_TTL_MS: u64 = 5_000;
/// An answer is waited for this long before the question is new again.
pub const ASKED_TTL_MS: u64 = 1_000;
/// This many clients may ask for one name while no answer has come. Each of them gets the answer;
/// those beyond keep their service's expected size.
pub const ASKS_MAX: u8 = 64;

/// What is known of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fact {
    /// The file's size in bytes.
    Known(u64),
    /// Whoever answers could not tell.
    Unknown,
    /// So many clients have asked, and there is no answer yet.
    Asked(u8),
}

/// An entry. `N` owns the bytes of a name; one that is only asked for has none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry<N> {
    hash: u64,
    name: Option<N>,
    fact: Fact,
    expires_ms: u64,
    used_ms: u64,
}

impl<N: Deref<Target = [u8]>> Entry<N> {
    /// The name, if there was an answer.
    pub fn name(&self) -> Option<&[u8]> {
        self.name.as_deref()
    }

    /// What is known.
    pub const fn fact(&self) -> Fact {
        self.fact
    }

    /// Milliseconds for which that is believed after `now_ms`.
    pub const fn left_ms(&self, now_ms: u64) -> u64 {
        self.expires_ms.saturating_sub(now_ms)
    }

    /// Whether it is this name's, or may be: all that is known of one that is asked for is the hash.
    fn is(&self, hash: u64, name: &[u8]) -> bool {
        self.hash == hash && self.name().is_none_or(|own| own == name)
    }
}

/// What a packet gets to hear of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// The file's size in bytes.
    Known(u64),
    /// Nothing: ask.
    Ask,
    /// Nothing: enough others have asked, or nobody knows.
    Nothing,
}

/// One set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set<N> {
    entries: [Option<Entry<N>>; WAYS],
}

impl<N: Deref<Target = [u8]>> Set<N> {
    /// An empty one.
    pub const fn new() -> Set<N> {
        Set {
            entries: [const { None }; WAYS],
        }
    }

    /// Looks for a name; if it is not there, it is asked for from now on.
    pub fn look(&mut self, hash: u64, name: &[u8], now_ms: u64) -> Look {
        let believed = self
            .slot_for(hash, name, now_ms)
            .and_then(Option::as_mut)
            .filter(|entry| entry.is(hash, name) && entry.expires_ms > now_ms);
        let Some(entry) = believed else {
            let asked = Entry {
                hash,
                name: None,
                fact: Fact::Asked(1),
                expires_ms: now_ms.saturating_add(ASKED_TTL_MS),
                used_ms: now_ms,
            };
            // What it takes the place of has expired or was used least; its drop frees the name.
            drop(self.replace(hash, name, asked, now_ms));
            return Look::Ask;
        };
        entry.used_ms = now_ms;
        match entry.fact {
            Fact::Known(bytes) => Look::Known(bytes),
            Fact::Unknown => Look::Nothing,
            Fact::Asked(count) if count >= ASKS_MAX => Look::Nothing,
            Fact::Asked(count) => {
                entry.fact = Fact::Asked(count.saturating_add(1));
                Look::Ask
            }
        }
    }

    /// Takes in an answer for `ttl_ms`: a size, or that it cannot be told. What was there instead is
    /// given back, to be dropped where there is time.
    pub fn put(
        &mut self,
        hash: u64,
        name: N,
        size_bytes: Option<u64>,
        ttl_ms: u64,
        now_ms: u64,
    ) -> Option<Entry<N>> {
        let fact = size_bytes.map_or(Fact::Unknown, Fact::Known);
        let expires_ms = now_ms.saturating_add(ttl_ms.min(TTL_MS_MAX));
        let slot = self.slot_for(hash, &name, now_ms)?;
        slot.replace(Entry {
            hash,
            name: Some(name),
            fact,
            expires_ms,
            used_ms: now_ms,
        })
    }

    /// Takes a name out, if there is an answer for it.
    pub fn remove(&mut self, hash: u64, name: &[u8]) -> Option<Entry<N>> {
        let is_it = |entry: &Entry<N>| entry.hash == hash && entry.name() == Some(name);
        self.entries
            .iter_mut()
            .find(|slot| slot.as_ref().is_some_and(is_it))?
            .take()
    }

    /// The entries that are believed.
    pub fn entries(&self, now_ms: u64) -> impl Iterator<Item = &Entry<N>> {
        self.entries
            .iter()
            .flatten()
            .filter(move |entry| entry.expires_ms > now_ms)
    }

    fn replace(
        &mut self,
        hash: u64,
        name: &[u8],
        entry: Entry<N>,
        now_ms: u64,
    ) -> Option<Entry<N>> {
        self.slot_for(hash, name, now_ms)?.replace(entry)
    }

    /// Where a name's entry goes: where it is, else where nothing is believed any more, else where
    /// it was used least recently.
    fn slot_for(&mut self, hash: u64, name: &[u8], now_ms: u64) -> Option<&mut Option<Entry<N>>> {
        self.entries.iter_mut().min_by_key(|slot| match slot {
            Some(entry) if entry.is(hash, name) => (u8::from(entry.name.is_none()), 0),
            None => (2, 0),
            Some(entry) if entry.expires_ms <= now_ms => (2, entry.used_ms),
            Some(entry) => (3, entry.used_ms),
        })
    }
}

impl<N: Deref<Target = [u8]>> Default for Set<N> {
    fn default() -> Set<N> {
        Set::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;
    use std::vec::Vec;

    use proptest::prelude::*;

    type TestSet = Set<Vec<u8>>;

    fn name(text: &str) -> Vec<u8> {
        text.as_bytes().to_vec()
    }

    #[test]
    fn a_name_is_asked_for_then_known_then_forgotten() {
        let mut set = TestSet::new();
        assert_eq!(set.look(1, b"a", 0), Look::Ask);
        assert_eq!(
            set.put(1, name("a"), Some(77), KNOWN_TTL_MS, 10),
            Some(Entry {
                hash: 1,
                name: None,
                fact: Fact::Asked(1),
                expires_ms: ASKED_TTL_MS,
                used_ms: 0
            })
        );
        assert_eq!(set.look(1, b"a", 11), Look::Known(77));
        assert_eq!(set.look(1, b"a", 9 + KNOWN_TTL_MS), Look::Known(77));
        assert_eq!(set.look(1, b"a", 10 + KNOWN_TTL_MS), Look::Ask);
    }

    #[test]
    fn names_of_one_hash_are_told_apart() {
        let mut set = TestSet::new();
        set.put(1, name("a"), Some(1), 1000, 0);
        assert_eq!(set.look(1, b"b", 0), Look::Ask);
        set.put(1, name("b"), Some(2), 1000, 0);
        assert_eq!(set.look(1, b"a", 1), Look::Known(1));
        assert_eq!(set.look(1, b"b", 1), Look::Known(2));
        assert_eq!(set.entries(1).count(), 2);
    }

    #[test]
    fn a_storm_of_clients_asks_so_often_and_no_more() {
        let mut set = TestSet::new();
        let asks = (0..1000)
            .filter(|_| set.look(5, b"a", 100) == Look::Ask)
            .count();
        assert_eq!(asks, usize::from(ASKS_MAX));
        // No answer came: the question is new again.
        assert_eq!(set.look(5, b"a", 100 + ASKED_TTL_MS), Look::Ask);
    }

    #[test]
    fn what_nobody_knows_is_not_asked_again_at_once() {
        let mut set = TestSet::new();
        set.put(1, name("a"), None, UNKNOWN_TTL_MS, 0);
        assert_eq!(set.look(1, b"a", 1), Look::Nothing);
        assert_eq!(set.look(1, b"a", UNKNOWN_TTL_MS), Look::Ask);
    }

    #[test]
    fn a_full_set_gives_up_what_was_used_least_recently() {
        let mut set = TestSet::new();
        for hash in 0..WAYS as u64 {
            set.put(hash, name("x"), Some(hash), 100_000, hash);
        }
        assert_eq!(set.look(0, b"x", 50), Look::Known(0));
        let given_up = set.put(99, name("y"), Some(99), 100_000, 60).unwrap();
        assert_eq!(
            (given_up.name(), given_up.fact()),
            (Some(&b"x"[..]), Fact::Known(1))
        );
        assert_eq!(set.look(0, b"x", 61), Look::Known(0));
        assert_eq!(set.look(99, b"y", 61), Look::Known(99));
        // What has expired goes first, however recently it was used.
        set.put(2, name("x"), Some(2), 1, 62);
        set.put(100, name("z"), Some(100), 100_000, 70);
        assert_eq!(set.look(100, b"z", 70), Look::Known(100));
        assert_eq!(set.look(3, b"x", 70), Look::Known(3));
    }

    #[test]
    fn a_name_is_taken_out_and_ttls_have_a_bound() {
        let mut set = TestSet::new();
        set.put(1, name("a"), Some(1), u64::MAX, 5);
        assert_eq!(set.entries(5).next().unwrap().left_ms(5), TTL_MS_MAX);
        assert_eq!(set.remove(1, b"b"), None);
        assert!(set.remove(1, b"a").is_some());
        assert_eq!(set.remove(1, b"a"), None);
        assert_eq!(set.look(1, b"a", 6), Look::Ask);
        assert_eq!(set.remove(1, b"a"), None, "nobody has answered yet");
    }

    proptest! {
        /// Against a map without a bound: what the set knows is the last that was put, it holds at
        /// most `WAYS`, and what was just put is there.
        #[test]
        fn a_set_never_says_what_was_not_put(steps in prop::collection::vec((0u8..12, 0u8..4, 0u64..2000), 1..200)) {
            let mut set = TestSet::new();
            let mut truth: HashMap<u8, (Option<u64>, u64)> = HashMap::new();
            let mut now = 0;
            for (which, action, step) in steps {
                now += step;
                let (hash, own) = (u64::from(which / 2), [which]);
                match action {
                    0 => {
                        let size = step.rem_euclid(2).eq(&0).then_some(step);
                        set.put(hash, own.to_vec(), size, 3000, now);
                        truth.insert(which, (size, now + 3000));
                        let there = set.look(hash, &own, now);
                        prop_assert_eq!(there, size.map_or(Look::Nothing, Look::Known));
                    }
                    1 => {
                        set.remove(hash, &own);
                        truth.remove(&which);
                        let there = set.entries(now).any(|entry| entry.name() == Some(&own[..]));
                        prop_assert!(!there);
                    }
                    _ => match (set.look(hash, &own, now), truth.get(&which)) {
                        (Look::Known(size), told) => {
                            let is_told = |(known, until): &(Option<u64>, u64)| {
                                *known == Some(size) && *until > now
                            };
                            prop_assert!(told.is_some_and(is_told));
                        }
                        (Look::Ask | Look::Nothing, _) => {}
                    },
                }
                prop_assert!(set.entries(now).count() <= WAYS);
            }
        }
    }
}
