// SPDX-License-Identifier: MIT
//! Names for this client's changes at one iod: which slots of its session are free.

use crate::ids::SessionId;
use crate::limits::SLOTS_PER_SESSION_MAX;
use crate::proto::iod::Change;

/// The slots of a session at one iod.
#[derive(Debug)]
pub(super) struct Slots {
    session: SessionId,
    /// The last sequence number of each slot that was ever used.
    last: Vec<u64>,
    /// The one that came free last is used first. So what its last change left on the way, where
    /// its caller gave up, is over as soon as anything else is changed.
    free: Vec<u32>,
}

impl Slots {
    /// Those of a new session.
    pub(super) const fn new(session: SessionId) -> Self {
        Self {
            session,
            last: Vec::new(),
            free: Vec::new(),
        }
    }

    pub(super) const fn session(&self) -> SessionId {
        self.session
    }

    /// A name that no change had before; `None` where all slots are in use.
    pub(super) fn take(&mut self) -> Option<Change> {
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None => {
                let next = u32::try_from(self.last.len()).ok()?;
                if next >= SLOTS_PER_SESSION_MAX {
                    return None;
                }
                self.last.push(0);
                next
            }
        };
        let last = self.last.get_mut(usize::try_from(slot).ok()?)?;
        *last += 1;
        Some(Change {
            session: self.session,
            slot,
            sequence: *last,
        })
    }

    /// The change has its reply, or its caller has given up. One of another session is ignored.
    pub(super) fn give_back(&mut self, change: &Change) {
        if change.session == self.session {
            debug_assert!(
                !self.free.contains(&change.slot),
                "a name is given back once"
            );
            self.free.push(change.slot);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(slots: &mut Slots) -> (u32, u64) {
        let change = slots.take().unwrap();
        assert_eq!(change.session, slots.session());
        (change.slot, change.sequence)
    }

    #[test]
    fn no_name_is_given_twice_and_the_slot_used_last_is_used_first() {
        let mut slots = Slots::new(SessionId(7));
        let first = slots.take().unwrap();
        assert_eq!((first.slot, first.sequence), (0, 1));
        assert_eq!(take(&mut slots), (1, 1));
        slots.give_back(&first);
        assert_eq!(take(&mut slots), (0, 2));
        assert_eq!(take(&mut slots), (2, 1));
        slots.give_back(&Change {
            session: SessionId(6),
            slot: 2,
            sequence: 1,
        });
        assert_eq!(take(&mut slots), (3, 1), "what an earlier session had");
    }

    #[test]
    fn slots_are_bounded() {
        let mut slots = Slots::new(SessionId(7));
        let all: Vec<Change> = std::iter::from_fn(|| slots.take()).collect();
        assert_eq!(all.len(), SLOTS_PER_SESSION_MAX as usize);
        slots.give_back(&all[9]);
        assert_eq!(take(&mut slots), (9, 2));
        assert_eq!(slots.take(), None);
    }
}
