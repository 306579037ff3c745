// SPDX-License-Identifier: MIT
//! Every order in which copies of changes may arrive.

use std::collections::hash_map::Entry;

use super::*;
use proptest::prelude::*;

const SESSION: SessionId = SessionId(9);
const LATE: Result<(), FsError> = Err(FsError::AlreadyAnswered);

fn change(slot: u32, sequence: u64) -> Change {
    Change {
        session: SESSION,
        slot,
        sequence,
    }
}

fn sessions() -> Sessions {
    let sessions = Sessions::with_capacity(SESSIONS_MAX, SLOTS_MAX);
    sessions.open(SESSION, Instant::now()).unwrap();
    sessions
}

fn begin(sessions: &Sessions, slot: u32, sequence: u64) -> Result<Attempt, FsError> {
    sessions.begin(&change(slot, sequence), Instant::now())
}

fn make(sessions: &Sessions, slot: u32, sequence: u64, made: &mut u32) -> Result<(), FsError> {
    begin(sessions, slot, sequence)?.make(|| {
        *made += 1;
        Ok(())
    })
}

#[test]
fn a_change_is_made_once_and_none_before_it_any_more() {
    let sessions = sessions();
    let mut made = 0;
    for (slot, sequence, outcome, times) in [
        (0, 1, Ok(()), 1),
        (0, 1, Ok(()), 1),
        (1, 1, Ok(()), 2),
        // The one between them never arrived.
        (0, 3, Ok(()), 3),
        (0, 1, LATE, 3),
        (0, 2, LATE, 3),
        (0, 3, Ok(()), 3),
        (1, 1, Ok(()), 3),
        (0, 0, LATE, 3),
        (2, 0, LATE, 3),
        (SLOTS_PER_SESSION_MAX, 1, Err(FsError::InvalidArgument), 3),
    ] {
        let found = make(&sessions, slot, sequence, &mut made);
        assert_eq!((found, made), (outcome, times), "{slot} {sequence}");
    }
}

#[test]
fn a_failure_is_an_outcome() {
    let sessions = sessions();
    let attempt = begin(&sessions, 0, 1).unwrap();
    let full = Err(FsError::NoSpace);
    assert_eq!(attempt.make(|| full), full);
    assert_eq!(make(&sessions, 0, 1, &mut 0), full);
    assert_eq!(attempt.settle(), Err(FsError::NoSpace));
}

#[test]
fn what_is_settled_is_not_made() {
    let sessions = sessions();
    let late = begin(&sessions, 0, 1).unwrap();
    late.store(b"ab", 0, |_, _| Ok(())).unwrap();
    let settle = |slot, sequence| begin(&sessions, slot, sequence).unwrap().settle();
    let unmade = |stored| Ok(IodResponse::Unmade { stored });
    assert_eq!(settle(0, 1), unmade(2));
    assert_eq!(settle(0, 1), unmade(2), "its reply was lost");
    assert_eq!(late.store(b"cd", 2, |_, _| panic!()), LATE);
    assert_eq!(late.finish(), LATE);
    assert_eq!(settle(1, 1), unmade(0), "it never arrived");
    assert_eq!(make(&sessions, 1, 1, &mut 0), LATE);
    assert_eq!(make(&sessions, 2, 1, &mut 0), Ok(()));
    assert_eq!(settle(2, 1), Ok(IodResponse::Done));
}

/// A copy that comes while another stores a piece waits for it, and does not store it again; so does
/// the next change in the slot.
#[test]
fn a_copy_waits_for_the_one_that_is_being_made() {
    let sessions = sessions();
    let made = std::sync::atomic::AtomicU32::new(0);
    let count = || {
        made.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        Ok(())
    };
    let first = begin(&sessions, 0, 1).unwrap();
    std::thread::scope(|scope| {
        let mut others = Vec::new();
        let outcome = first.make(|| {
            for sequence in [1, 2, 2] {
                let (sessions, count) = (&sessions, &count);
                let other = move || begin(sessions, 0, sequence)?.make(count);
                others.push(scope.spawn(other));
            }
            assert_eq!(made.load(std::sync::atomic::Ordering::SeqCst), 0);
            count()
        });
        assert!(outcome.is_ok() && others.len() == 3);
    });
    assert_eq!(made.into_inner(), 2);
}

#[test]
fn sessions_are_bounded_and_one_in_use_is_not_forgotten() {
    let sessions = Sessions::with_capacity(2, 3);
    let start = Instant::now();
    let later = start + Duration::from_secs(IDLE_SECONDS_MIN);
    let begin = |session, slot, now| {
        let change = Change {
            session: SessionId(session),
            slot,
            sequence: 1,
        };
        sessions.begin(&change, now)
    };
    let lost = |session| begin(session, 0, later).err() == Some(FsError::SessionLost);
    sessions.open(SessionId(1), start).unwrap();
    sessions.open(SessionId(2), start).unwrap();
    drop(begin(1, 0, start).unwrap());
    // The second has changed nothing.
    sessions.open(SessionId(3), start).unwrap();
    assert!(lost(2));
    let busy = begin(3, 0, start).unwrap();
    assert_eq!(sessions.open(SessionId(4), start), Err(FsError::TryAgain));
    drop(begin(1, 1, start).unwrap());
    assert_eq!(begin(1, 2, start).err(), Some(FsError::TryAgain), "slots");
    // The third is idle for long as well, but a disk holds it up.
    sessions.open(SessionId(4), later).unwrap();
    assert!(lost(1));
    assert_eq!(sessions.lock().slots, 2);
    sessions.open(SessionId(5), later).unwrap();
    assert!(lost(4));
    drop(begin(5, 0, later).unwrap());
    assert_eq!(sessions.open(SessionId(6), later), Err(FsError::TryAgain));
    drop(busy);
    sessions.open(SessionId(6), later).unwrap();
    assert!(lost(3));
}

/// Payloads of three bytes, handed over one at a time.
const PIECES: u64 = 3;

#[derive(Clone, Debug)]
enum Step {
    /// The next piece of a copy of this change arrives on this connection.
    Piece {
        copy: usize,
        slot: u32,
        sequence: u64,
    },
    Settle {
        slot: u32,
        sequence: u64,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let name = (0u32..2, 1u64..4);
    prop_oneof![
        9 => (0usize..3, name.clone()).prop_map(|(copy, (slot, sequence))| {
            Step::Piece { copy, slot, sequence }
        }),
        1 => name.prop_map(|(slot, sequence)| Step::Settle { slot, sequence }),
    ]
}

proptest! {
    /// However copies of changes mix, each byte is stored once, in order, and none of a change after
    /// one that follows it in its slot has begun, or after it was settled.
    #[test]
    fn each_byte_of_a_change_is_stored_once(steps in prop::collection::vec(step(), 0..80)) {
        let sessions = sessions();
        let mut copies: HashMap<(usize, u32, u64), (Attempt, u64)> = HashMap::new();
        let mut log: Vec<(u32, u64, u64)> = Vec::new();
        let mut begun: HashMap<u32, u64> = HashMap::new();
        let mut settled: HashMap<(u32, u64), u64> = HashMap::new();
        for step in steps {
            match step {
                Step::Piece { copy, slot, sequence } => {
                    let (attempt, at) = match copies.entry((copy, slot, sequence)) {
                        Entry::Occupied(known) => known.into_mut(),
                        Entry::Vacant(new) => {
                            let newest = begun.entry(slot).or_default();
                            let attempt = begin(&sessions, slot, sequence);
                            prop_assert_eq!(attempt.is_ok(), sequence >= *newest);
                            *newest = sequence.max(*newest);
                            let Ok(attempt) = attempt else { continue };
                            new.insert((attempt, 0))
                        }
                    };
                    if *at == PIECES {
                        continue;
                    }
                    let outcome = attempt.store(&[0], *at, |bytes, at| {
                        log.push((slot, sequence, at));
                        assert_eq!(bytes.len(), 1);
                        Ok(())
                    });
                    let is_over = sequence < begun[&slot];
                    match outcome {
                        Ok(()) => {
                            prop_assert!(!is_over);
                            *at += 1;
                            if *at == PIECES {
                                prop_assert_eq!(attempt.finish(), Ok(()));
                            }
                        }
                        Err(error) => {
                            prop_assert_eq!(error, FsError::AlreadyAnswered);
                            prop_assert!(is_over || settled.contains_key(&(slot, sequence)));
                        }
                    }
                }
                Step::Settle { slot, sequence } => {
                    let newest = begun.entry(slot).or_default();
                    let Ok(attempt) = begin(&sessions, slot, sequence) else { continue };
                    *newest = sequence.max(*newest);
                    if let IodResponse::Unmade { stored } = attempt.settle().unwrap() {
                        let before = settled.entry((slot, sequence)).or_insert(stored);
                        prop_assert_eq!(*before, stored);
                    }
                }
            }
            for ((slot, sequence), stored) in &settled {
                let of = log.iter().filter(|(s, q, _)| (s, q) == (slot, sequence));
                prop_assert_eq!(of.count() as u64, *stored);
            }
        }
        for (index, (slot, sequence, at)) in log.iter().enumerate() {
            let before = &log[..index];
            let same = before.iter().filter(|(s, q, _)| (s, q) == (slot, sequence));
            prop_assert_eq!(same.count() as u64, *at);
            prop_assert!(before.iter().all(|(s, q, _)| s != slot || q <= sequence));
        }
    }
}
