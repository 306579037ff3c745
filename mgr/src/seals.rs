// SPDX-License-Identifier: MIT
//! Whether an iod that introduces itself has the data directory that mgr sealed last. Pure; why it is
//! so: docs/decisions/0106.
//!
//! mgr gives an iod a new seal whenever the iod or mgr has started, and admits the iod when it comes
//! with that one. So of two directories with one seal the first that comes back has the place, and
//! the other one is known as what it is: nothing is served under a seal that mgr has not seen kept.

use std::net::IpAddr;

use bincode::{Decode, Encode};
use pvfs::ids::Incarnation;
use pvfs::proto::seal::{Reign, Seal};
use thiserror::Error;

/// An iod as it is stored.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct IodRecord {
    /// Where it was at last.
    pub address: String,
    /// Which peer added it.
    pub founder: IpAddr,
    /// Which run of it may serve.
    pub incarnation: Incarnation,
    /// What it was given last.
    pub seal: Seal,
    /// What it came with then, until it has come with that.
    pub before: Option<Seal>,
    /// It has come with that.
    pub confirmed: bool,
}

/// What an iod comes with.
#[derive(Clone, Copy, Debug)]
pub struct Claim {
    /// The seal that its directory holds.
    pub held: Option<Seal>,
    /// Which run of it comes.
    pub incarnation: Incarnation,
    /// Its operator says that an older directory is to be believed.
    pub accepts_older: bool,
}

/// What is to be done with an iod that may have its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It keeps its seal and is admitted.
    Admit,
    /// It gets a new one, and shows it.
    Renew,
    /// The same; mgr's store is older than what it holds, and an era has begun since that backup.
    Adopt,
    /// The same; what it holds is older than what was given last, and its operator knows that.
    AcceptOlder,
}

/// Why an iod may not have its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    /// Nothing is in the directory but the number.
    #[error(
        "its data directory holds no seal: it was emptied, or made by hand. Give it back the disk that \
         belongs there; a new iod needs a directory that pvfs-iod --init makes"
    )]
    NoSeal,
    /// Somebody has come with the seal before, and was given another.
    #[error(
        "its data directory holds {held}, and {given} was given since: it is a copy, or was restored \
         from a backup. What it holds is old: start the iod on the directory that was used last; where \
         that is lost for good, start it once with --accept-older (man pvfs-iod)"
    )]
    Older {
        /// What it holds.
        held: Seal,
        /// What the place's owner was given last.
        given: Seal,
    },
    /// Its number is right, and it is another.
    #[error(
        "its data directory holds another {0} than was given: it is a copy that another mgr has ruled. \
         Start the iod on the directory that was used last"
    )]
    Foreign(Seal),
    /// mgr's store is behind.
    #[error(
        "its data directory holds {held}, and the last that this store knows is {known}: this store is \
         a copy, or was restored from a backup. Where another pvfs-mgr rules the iods, stop this one; \
         where this store was restored, start pvfs-mgr once with --new-era"
    )]
    Newer {
        /// What it holds.
        held: Seal,
        /// What the store knows.
        known: Seal,
    },
}

impl Refusal {
    /// Whether the iod is at fault, and not mgr's store.
    #[must_use]
    pub const fn is_of_the_iod(&self) -> bool {
        match self {
            Self::NoSeal | Self::Older { .. } | Self::Foreign(_) => true,
            Self::Newer { .. } => false,
        }
    }
}

/// Judges an iod whose record is there, under `reign`.
///
/// # Errors
///
/// [`Refusal`].
pub fn judge(record: &IodRecord, claim: &Claim, reign: Reign) -> Result<Step, Refusal> {
    let given = record.seal;
    let held = claim.held.ok_or(Refusal::NoSeal)?;
    if held == given {
        let is_same_run = given.reign == reign && record.incarnation == claim.incarnation;
        return Ok(if is_same_run {
            Step::Admit
        } else {
            Step::Renew
        });
    }
    // The reply with the last seal may have been lost; nothing has been served under it.
    if record.before == Some(held) {
        return Ok(Step::Renew);
    }
    match held.rank().cmp(&given.rank()) {
        std::cmp::Ordering::Less if claim.accepts_older => Ok(Step::AcceptOlder),
        std::cmp::Ordering::Less => Err(Refusal::Older { held, given }),
        std::cmp::Ordering::Equal => Err(Refusal::Foreign(held)),
        std::cmp::Ordering::Greater if given.reign.era < reign.era => Ok(Step::Adopt),
        std::cmp::Ordering::Greater => Err(Refusal::Newer { held, known: given }),
    }
}

/// The seal that follows.
#[must_use]
pub fn next(given: Option<Seal>, held: Option<Seal>, reign: Reign, secret: u128) -> Seal {
    let numbers = [given, held].into_iter().flatten().map(|seal| seal.number);
    Seal {
        reign,
        number: numbers.max().unwrap_or_default().saturating_add(1),
        secret,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUN: Incarnation = Incarnation(1);
    const OTHER_RUN: Incarnation = Incarnation(2);
    const REIGN: Reign = reign(0, 5);

    const fn reign(era: u32, starts: u32) -> Reign {
        Reign {
            era,
            starts,
            nonce: 9,
        }
    }

    const fn seal(reign: Reign, number: u64) -> Seal {
        Seal {
            reign,
            number,
            secret: 100 + number as u128,
        }
    }

    fn record(number: u64, before: Option<u64>) -> IodRecord {
        IodRecord {
            address: "a:1".into(),
            founder: [127, 0, 0, 1].into(),
            incarnation: RUN,
            seal: seal(REIGN, number),
            before: before.map(|number| seal(REIGN, number)),
            confirmed: before.is_none(),
        }
    }

    fn claim(number: u64, incarnation: Incarnation) -> Claim {
        Claim {
            held: Some(seal(REIGN, number)),
            incarnation,
            accepts_older: false,
        }
    }

    #[test]
    fn who_comes_with_what_was_given_last_has_the_place() {
        let record = record(7, None);
        let judged = |number, run, reign| judge(&record, &claim(number, run), reign);
        assert_eq!(judged(7, RUN, REIGN), Ok(Step::Admit));
        assert_eq!(judged(7, OTHER_RUN, REIGN), Ok(Step::Renew), "it restarted");
        assert_eq!(judged(7, RUN, reign(0, 6)), Ok(Step::Renew), "mgr did");
        assert_eq!(judged(7, RUN, reign(1, 6)), Ok(Step::Renew), "an era began");
    }

    #[test]
    fn copies_and_backups_are_refused() {
        let record = record(7, None);
        let given = record.seal;
        for run in [RUN, OTHER_RUN] {
            let older = Refusal::Older {
                held: seal(REIGN, 6),
                given,
            };
            assert_eq!(judge(&record, &claim(6, run), REIGN), Err(older));
            let foreign = Seal { secret: 1, ..given };
            let claim = Claim {
                held: Some(foreign),
                incarnation: run,
                accepts_older: false,
            };
            let refused = judge(&record, &claim, REIGN);
            assert_eq!(refused, Err(Refusal::Foreign(foreign)));
            let empty = Claim {
                held: None,
                incarnation: run,
                accepts_older: false,
            };
            assert_eq!(judge(&record, &empty, REIGN), Err(Refusal::NoSeal));
        }
    }

    #[test]
    fn an_older_directory_is_taken_where_its_operator_says_so() {
        let record = record(7, None);
        let judged = |number| {
            let claim = Claim {
                accepts_older: true,
                ..claim(number, OTHER_RUN)
            };
            judge(&record, &claim, REIGN)
        };
        assert_eq!(judged(6), Ok(Step::AcceptOlder));
        assert_eq!(judged(7), Ok(Step::Renew), "it is the newest");
        assert!(
            matches!(judged(8), Err(Refusal::Newer { .. })),
            "mgr's store is older"
        );
        let next = next(Some(record.seal), Some(seal(REIGN, 6)), REIGN, 1);
        assert!(
            next.rank() > record.seal.rank(),
            "all others are older from now on"
        );
        let emptied = Claim {
            held: None,
            incarnation: RUN,
            accepts_older: true,
        };
        assert_eq!(judge(&record, &emptied, REIGN), Err(Refusal::NoSeal));
    }

    /// Until mgr has seen the new seal, whoever holds the one before may have its reply lost.
    #[test]
    fn a_lost_reply_locks_nobody_out() {
        let unconfirmed = record(7, Some(6));
        for run in [RUN, OTHER_RUN] {
            assert_eq!(judge(&unconfirmed, &claim(6, run), REIGN), Ok(Step::Renew));
        }
        assert_eq!(judge(&unconfirmed, &claim(7, RUN), REIGN), Ok(Step::Admit));
        assert!(judge(&unconfirmed, &claim(5, RUN), REIGN).is_err());
    }

    #[test]
    fn a_restored_store_takes_newer_seals_once_and_only_in_a_new_era() {
        let restored = record(7, None);
        let newer = claim(9, RUN);
        let refusal = Refusal::Newer {
            held: seal(REIGN, 9),
            known: restored.seal,
        };
        assert!(!refusal.is_of_the_iod());
        for starts in [5, 6, 1000] {
            let judged = judge(&restored, &newer, reign(0, starts));
            assert_eq!(judged, Err(refusal), "starts alone mean nothing");
        }
        let era = reign(1, 6);
        assert_eq!(judge(&restored, &newer, era), Ok(Step::Adopt));
        let adopted = IodRecord {
            seal: next(Some(restored.seal), newer.held, era, 1),
            ..record(7, None)
        };
        assert_eq!(adopted.seal.number, 10);
        let second = judge(&adopted, &claim(11, OTHER_RUN), era).unwrap_err();
        assert!(matches!(second, Refusal::Older { .. }), "the second of two");
        assert!(second.is_of_the_iod());
    }
}
