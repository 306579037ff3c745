// SPDX-License-Identifier: MIT
//! Whether this run of the iod may serve its data, and whose orders it obeys: as mgr said last.

use pvfs::ids::Incarnation;
use pvfs::proto::seal::{OrderKey, Reign, Seal};
use pvfs::runtime::random_u64;
use pvfs::runtime::sync::{Mutex, MutexGuard, PoisonError};
use thiserror::Error;

/// What mgr lets this run of the iod do.
pub struct Admission {
    incarnation: Incarnation,
    state: Mutex<State>,
}

#[derive(Clone, Copy, Default)]
struct State {
    is_granted: bool,
    key: Option<OrderKey>,
}

impl Admission {
    /// Of a run that begins now: not granted.
    pub(crate) fn new() -> Self {
        Self {
            incarnation: Incarnation(random_u64()),
            state: Mutex::default(),
        }
    }

    /// Which run this is.
    #[must_use]
    pub const fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// The state is replaced as a whole, so a panic leaves a sound one.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on orders with this key are obeyed, and no others.
    pub fn obey(&self, key: OrderKey) {
        self.lock().key = Some(key);
    }

    /// mgr has admitted this run.
    pub fn grant(&self) {
        self.lock().is_granted = true;
    }

    /// mgr has refused this run: it serves nothing and obeys nobody any more.
    pub fn withdraw(&self) {
        *self.lock() = State::default();
    }

    /// Whether the iod may serve its data.
    #[must_use]
    pub fn is_granted(&self) -> bool {
        self.lock().is_granted
    }

    /// Whether an order is of the mgr that rules here.
    #[must_use]
    pub fn obeys(&self, key: OrderKey) -> bool {
        self.lock().key == Some(key)
    }
}

/// Why a mgr that would rule is not obeyed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Usurper {
    /// A later one has ruled here.
    #[error(
        "it is start {} of era {}, and start {} of era {} has ruled this iod: its store is a copy, or \
         older; stop it, or, if it was restored from a backup, start it with --new-era",
        .mgr.starts, .mgr.era, .known.starts, .known.era
    )]
    Older {
        /// Which one it is.
        mgr: Reign,
        /// Which one ruled here last.
        known: Reign,
    },
    /// It counts as the one that rules here, and is another.
    #[error(
        "it and the mgr that ruled this iod are both start {} of era {}: they run on copies of one \
         store; stop it",
        .0.starts, .0.era
    )]
    Twin(Reign),
}

/// Judges a mgr that would rule an iod whose directory holds a seal.
///
/// # Errors
///
/// [`Usurper`].
pub fn judge(held: Option<&Seal>, mgr: Reign) -> Result<(), Usurper> {
    let Some(known) = held.map(|held| held.reign) else {
        return Ok(());
    };
    match mgr.rank().cmp(&known.rank()) {
        std::cmp::Ordering::Less => Err(Usurper::Older { mgr, known }),
        std::cmp::Ordering::Equal if mgr.nonce != known.nonce => Err(Usurper::Twin(mgr)),
        std::cmp::Ordering::Equal | std::cmp::Ordering::Greater => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn reign(era: u32, starts: u32, nonce: u64) -> Reign {
        Reign { era, starts, nonce }
    }

    #[test]
    fn only_the_newest_mgr_is_obeyed() {
        let known = reign(1, 7, 77);
        let held = Seal {
            reign: known,
            number: 3,
            secret: 5,
        };
        assert_eq!(judge(None, reign(0, 1, 2)), Ok(()), "a new iod");
        for (mgr, expected) in [
            (known, Ok(())),
            (reign(1, 8, 1), Ok(())),
            (reign(2, 1, 1), Ok(())),
            (reign(1, 7, 78), Err(Usurper::Twin(reign(1, 7, 78)))),
        ] {
            assert_eq!(judge(Some(&held), mgr), expected, "{mgr:?}");
        }
        for mgr in [reign(1, 6, 77), reign(0, 9, 77)] {
            assert_eq!(judge(Some(&held), mgr), Err(Usurper::Older { mgr, known }));
        }
    }

    #[test]
    fn a_run_serves_from_its_admission_to_its_refusal() {
        let admission = Admission::new();
        assert!(!admission.is_granted() && !admission.obeys(OrderKey(0)));
        admission.obey(OrderKey(1));
        admission.grant();
        assert!(admission.is_granted() && admission.obeys(OrderKey(1)));
        admission.obey(OrderKey(2));
        assert!(!admission.obeys(OrderKey(1)), "an earlier mgr's");
        admission.withdraw();
        assert!(!admission.is_granted() && !admission.obeys(OrderKey(2)));
        assert_ne!(admission.incarnation(), Admission::new().incarnation());
    }
}
