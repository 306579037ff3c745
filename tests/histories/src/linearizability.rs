// SPDX-License-Identifier: MIT
//! Whether a history of calls on one object could have happened one after another: linearizability
//! (Herlihy and Wing, "Linearizability: A Correctness Condition for Concurrent Objects", TOPLAS
//! 1990), decided by the search of Wing and Gong ("Testing and Verifying Concurrent Objects", JPDC
//! 1993) with Lowe's memory of states that were tried ("Testing for Linearizability", Concurrency and
//! Computation 2017). Objects that have nothing to do with each other are judged one by one, which is
//! as good and much faster (Horn and Kroening, "Faster Linearizability Checking via
//! P-Compositionality", FORTE 2015).
//!
//! What the object is says a [`Model`]: here [`Register`], and a small file system in
//! [`crate::model`]. A call takes effect at one moment between its start and its end. One that never
//! returned may have taken effect at any moment after its start, or never.

use std::collections::HashSet;
use std::hash::Hash;

/// The search goes one call deeper for each event: room for a million of them, taken only when used.
const STACK_BYTES: usize = 512 << 20;

/// What an object is and does, one call after another.
pub trait Model: Clone + Eq + Hash + Send {
    /// A call with what it returned.
    type Call: Clone + Send + Sync;

    /// The object after the call; `None` where the call cannot have returned what it did.
    fn after(&self, call: &Self::Call) -> Option<Self>;
}

/// Holds one value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Register(pub u64);

/// What a call on a [`Register`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// It returned this value.
    Read(u64),
    /// It set this value.
    Write(u64),
}

impl Model for Register {
    type Call = Call;

    fn after(&self, call: &Call) -> Option<Self> {
        match *call {
            Call::Read(value) => (value == self.0).then_some(*self),
            Call::Write(value) => Some(Self(value)),
        }
    }
}

/// A call with its time, in any unit that all calls share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event<C> {
    /// What it did.
    pub call: C,
    /// Just before it was made.
    pub start: u64,
    /// Just after it returned; `u64::MAX` where it never did.
    pub end: u64,
}

/// No order explains a history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// Where in the history an event stands that fits nowhere; `None` where the search itself failed,
    /// which is no success.
    pub event: Option<usize>,
}

/// Whether calls on an object that was `initial` at first could have taken effect one after another,
/// each within its time.
///
/// # Errors
///
/// The earliest event, by its end, that no order explains.
pub fn check<M: Model>(initial: M, events: &[Event<M::Call>]) -> Result<(), Rejected> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(STACK_BYTES);
        let search = thread.spawn_scoped(scope, || search(initial, events));
        let outcome = search.ok().and_then(|search| search.join().ok());
        outcome.unwrap_or(Err(Rejected { event: None }))
    })
}

fn search<M: Model>(initial: M, events: &[Event<M::Call>]) -> Result<(), Rejected> {
    let mut order: Vec<usize> = (0..events.len()).collect();
    order.sort_by_key(|at| (events[*at].start, events[*at].end));
    let mut search = Search {
        done: vec![false; events.len()],
        events: order.iter().map(|at| &events[*at]).collect(),
        tried: HashSet::new(),
        furthest: 0,
        culprit: None,
    };
    if search.go_on(0, 0, initial) {
        Ok(())
    } else {
        Err(Rejected {
            event: search.culprit.map(|at| order[at]),
        })
    }
}

struct Search<'e, M: Model> {
    /// In the order of their starts.
    events: Vec<&'e Event<M::Call>>,
    done: Vec<bool>,
    /// Which events are done, from the first that is not, and the object then.
    tried: HashSet<(usize, Vec<bool>, M)>,
    furthest: usize,
    culprit: Option<usize>,
}

impl<M: Model> Search<'_, M> {
    /// Takes one event after another that may be the next. `first` is the earliest that is not
    /// done, `count` how many are.
    fn go_on(&mut self, mut first: usize, count: usize, object: M) -> bool {
        while self.done.get(first) == Some(&true) {
            first += 1;
        }
        let open = (first..self.events.len()).filter(|at| !self.done[*at]);
        let Some(ends) = open.clone().map(|at| self.events[at].end).min() else {
            return true;
        };
        if ends == u64::MAX {
            // What is left never returned: it need not have happened.
            return true;
        }
        // Whatever starts after somebody else's end cannot come before it.
        let last = self.events.partition_point(|event| event.start <= ends);
        let key = (first, self.done[first..last].to_vec(), object.clone());
        if !self.tried.insert(key) {
            return false;
        }
        for at in first..last {
            if self.done[at] {
                continue;
            }
            let Some(next) = object.after(&self.events[at].call) else {
                continue;
            };
            self.done[at] = true;
            if self.go_on(first, count + 1, next) {
                return true;
            }
            self.done[at] = false;
        }
        if count >= self.furthest {
            self.furthest = count;
            let open = (first..last).filter(|at| !self.done[*at]);
            self.culprit = open.min_by_key(|at| self.events[*at].end);
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(value: u64, start: u64, end: u64) -> Event<Call> {
        Event {
            call: Call::Read(value),
            start,
            end,
        }
    }

    fn write(value: u64, start: u64, end: u64) -> Event<Call> {
        Event {
            call: Call::Write(value),
            start,
            end,
        }
    }

    #[test]
    fn what_can_be_put_in_order_passes() {
        for history in [
            vec![],
            vec![read(0, 0, 1), write(1, 2, 3), read(1, 4, 5)],
            // Both reads are concurrent with the write, and see it one after the other.
            vec![write(1, 0, 10), read(0, 1, 2), read(1, 3, 4)],
            vec![
                write(1, 0, 10),
                write(2, 0, 10),
                read(2, 11, 12),
                read(2, 13, 14),
            ],
            // A write that never returned may be seen at any time.
            vec![write(1, 0, u64::MAX), read(0, 5, 6), read(1, 7, 8)],
            vec![write(1, 0, u64::MAX), read(0, 5, 6)],
        ] {
            assert_eq!(check(Register(0), &history), Ok(()), "{history:?}");
        }
    }

    #[test]
    fn what_cannot_is_named() {
        for (history, culprit) in [
            // A stale read.
            (vec![write(1, 0, 1), read(0, 2, 3)], read(0, 2, 3)),
            // A value that nobody wrote.
            (vec![read(7, 0, 1)], read(7, 0, 1)),
            // The new value and then the old one again.
            (
                vec![write(1, 0, 10), read(1, 1, 2), read(0, 3, 4)],
                read(0, 3, 4),
            ),
            // A write that is lost under an older one.
            (
                vec![write(1, 0, 1), write(2, 2, 3), read(1, 4, 5)],
                read(1, 4, 5),
            ),
        ] {
            let event = history.iter().position(|event| *event == culprit);
            assert_eq!(
                check(Register(0), &history),
                Err(Rejected { event }),
                "{history:?}"
            );
        }
    }

    /// Every history that a register really had passes, whatever overlaps.
    #[test]
    fn real_histories_pass_and_changed_ones_do_not() {
        let mut rng = fastrand::Rng::with_seed(4);
        for _ in 0..200 {
            let mut value = 0;
            let mut moment = 100;
            let mut history = Vec::new();
            for number in 1..60 {
                moment += rng.u64(1..10);
                let (before, after) = (rng.u64(0..30), rng.u64(0..30));
                let call = if rng.bool() {
                    value = number;
                    Call::Write(number)
                } else {
                    Call::Read(value)
                };
                history.push(Event {
                    call,
                    start: moment - before,
                    end: moment + after,
                });
            }
            assert_eq!(check(Register(0), &history), Ok(()));
            history.push(read(u64::MAX, moment, moment + 1));
            assert!(check(Register(0), &history).is_err());
        }
    }
}
