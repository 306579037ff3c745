// SPDX-License-Identifier: MIT
//! Which iods new files may use, and what the file system can still take: by what iods report.
//! Pure. Weights, hosts and racks would be further words of a [`Candidate`].

use std::collections::BTreeSet;

use pvfs::attr::Space;
use pvfs::ids::IodId;
use pvfs::layout::Layout;
use pvfs::proto::report::{IodReport, IodState};

use crate::limits::BATCH_INPUTS_MAX;

/// An iod with less than one part in so many of its disk left, or of what the roomiest has, is
/// passed over while others have more: files of others that are being written fill it up.
const LOW_PARTS: u64 = 16;
/// A disk with fewer bytes left than one request carries is full.
const FULL_BYTES: u64 = 4 << 20;
/// Inodes that a file's stripes take on an iod: their data and their checksums.
const INODES_PER_OBJECT: u64 = 2;
/// A disk with fewer inodes left is out of them: what one batch places is counted at its end.
const OUT_OF_INODES: u64 = INODES_PER_OBJECT * BATCH_INPUTS_MAX as u64;

/// What was placed on a disk that its report does not have yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Placed {
    /// New files.
    pub files: u64,
    /// Bytes that were written, as their writers say.
    pub bytes: u64,
}

impl Placed {
    /// Together with what was placed elsewhere on the same disk.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self {
            files: self.files.saturating_add(other.files),
            bytes: self.bytes.saturating_add(other.bytes),
        }
    }

    /// What a disk will say when it has heard of it.
    #[must_use]
    pub fn taken_from(self, mut report: IodReport) -> IodReport {
        let Self { files, bytes } = self;
        let space = &mut report.space;
        space.bytes_available = space.bytes_available.saturating_sub(bytes);
        let inodes = files.saturating_mul(INODES_PER_OBJECT);
        report.inodes_free = report.inodes_free.saturating_sub(inodes);
        report
    }
}

/// What a request has placed on the iods of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// Where the file's stripes are.
    pub layout: Layout,
    /// Its end before; `None` where it is new.
    pub end_before: Option<u64>,
    /// Its end since.
    pub end: u64,
}

impl Placement {
    /// What each of its iods gets.
    pub fn parts(&self) -> impl Iterator<Item = (IodId, Placed)> + '_ {
        let files = u64::from(self.end_before.is_none());
        let before = self.end_before.unwrap_or_default();
        let part = move |(slot, iod): (usize, &IodId)| {
            let local = |end| self.layout.local_size(slot, end);
            let bytes = local(self.end).saturating_sub(local(before));
            (*iod, Placed { files, bytes })
        };
        self.layout.iods().iter().enumerate().map(part)
    }
}

/// An iod, as far as new files are concerned.
#[derive(Clone, Copy, Debug)]
pub struct Candidate {
    /// Whether it is there.
    pub state: IodState,
    /// What it said last, less what was placed there since.
    pub report: IodReport,
}

/// How well a disk can take a new file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fitness {
    Full,
    Low,
    Roomy,
}

/// Which of these iods new files may use: of those that are alive the ones whose disks are fittest.
/// Where none is alive, those that may only be busy; none where all are away.
#[must_use]
pub fn usable(candidates: &[Candidate]) -> Vec<bool> {
    let in_state = |state| candidates.iter().any(|one| one.state == state);
    let state = match in_state(IodState::Alive) {
        true => IodState::Alive,
        false => IodState::Suspect,
    };
    let there = || candidates.iter().filter(|one| one.state == state);
    let room = |one: &Candidate| one.report.space.bytes_available;
    let roomiest = there().map(room).max().unwrap_or_default();
    let best = there().map(|one| fitness(&one.report, roomiest)).max();
    let is_usable =
        |one: &Candidate| one.state == state && Some(fitness(&one.report, roomiest)) == best;
    candidates.iter().map(is_usable).collect()
}

fn fitness(report: &IodReport, roomiest: u64) -> Fitness {
    let Space {
        bytes_total,
        bytes_available,
        ..
    } = report.space;
    let limited = report.inodes_total > 0;
    if !takes_files(report) || bytes_available < FULL_BYTES {
        Fitness::Full
    } else if bytes_available < bytes_total.max(roomiest) / LOW_PARTS
        || (limited && report.inodes_free < report.inodes_total / LOW_PARTS)
    {
        Fitness::Low
    } else {
        Fitness::Roomy
    }
}

/// Whether local files can be made there at all.
const fn takes_files(report: &IodReport) -> bool {
    report.writable && (report.inodes_total == 0 || report.inodes_free >= OUT_OF_INODES)
}

/// What the disks of these iods, of which each counts once, have and can take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Bytes; free are those that new files can use.
    pub space: Space,
    /// Files that the disks' inodes allow; `None` where a disk has no limit.
    pub files_free: Option<u64>,
}

/// The totals of the iods that are there.
#[must_use]
pub fn totals(candidates: impl Iterator<Item = Candidate>) -> Totals {
    let mut seen = BTreeSet::new();
    let mut space = Space::default();
    let mut files_free = Some(0_u64);
    for Candidate { state, report } in candidates {
        let is_there = matches!(state, IodState::Alive | IodState::Suspect);
        if !is_there || report.disk.is_some_and(|disk| !seen.insert(disk)) {
            continue;
        }
        let add = u64::saturating_add;
        space.bytes_total = add(space.bytes_total, report.space.bytes_total);
        if takes_files(&report) {
            space.bytes_free = add(space.bytes_free, report.space.bytes_free);
            space.bytes_available = add(space.bytes_available, report.space.bytes_available);
            let files = report.inodes_free / INODES_PER_OBJECT;
            let limited = report.inodes_total > 0;
            files_free = files_free.filter(|_| limited).map(|sum| add(sum, files));
        }
    }
    Totals { space, files_free }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pvfs::proto::report::DiskId;

    const GIB: u64 = 1 << 30;

    fn disk(total: u64, available: u64) -> IodReport {
        IodReport {
            space: Space {
                bytes_total: total,
                bytes_free: available,
                bytes_available: available,
            },
            inodes_total: 100_000,
            inodes_free: 50_000,
            writable: true,
            disk: None,
        }
    }

    fn placed(iods: &[(IodState, IodReport)]) -> Vec<usize> {
        let candidate = |(state, report): &(IodState, IodReport)| Candidate {
            state: *state,
            report: *report,
        };
        let candidates: Vec<Candidate> = iods.iter().map(candidate).collect();
        let usable = usable(&candidates);
        (0..iods.len()).filter(|at| usable[*at]).collect()
    }

    #[test]
    fn new_files_use_the_fittest_of_those_that_are_there() {
        use IodState::{Alive, Away, Left, Suspect};
        let good = disk(100 * GIB, 50 * GIB);
        let full = disk(100 * GIB, 1 << 20);
        let small = disk(64 << 20, 60 << 20);
        let read_only = IodReport {
            writable: false,
            ..good
        };
        let no_inodes = IodReport {
            inodes_free: 3,
            ..good
        };
        let few_inodes = IodReport {
            inodes_free: 3000,
            ..good
        };
        let unlimited = IodReport {
            inodes_total: 0,
            inodes_free: 0,
            ..good
        };
        for (iods, expected) in [
            (vec![(Alive, good), (Alive, good)], vec![0, 1]),
            (vec![(Alive, good), (Suspect, good)], vec![0]),
            (vec![(Left, good), (Alive, good), (Away, good)], vec![1]),
            (vec![(Suspect, good), (Away, good)], vec![0]),
            (vec![(Away, good), (Left, good)], vec![]),
            (vec![], vec![]),
            (vec![(Alive, full), (Alive, good)], vec![1]),
            (vec![(Alive, small), (Alive, good)], vec![1]),
            (vec![(Alive, small), (Suspect, good)], vec![0]),
            (vec![(Alive, read_only), (Alive, good)], vec![1]),
            (vec![(Alive, no_inodes), (Alive, good)], vec![1]),
            (vec![(Alive, few_inodes), (Alive, good)], vec![1]),
            (vec![(Alive, few_inodes), (Alive, full)], vec![0]),
            (vec![(Alive, unlimited), (Alive, good)], vec![0, 1]),
            (vec![(Alive, full), (Alive, read_only)], vec![0, 1]),
        ] {
            assert_eq!(placed(&iods), expected, "{iods:?}");
        }
    }

    #[test]
    fn a_disk_counts_once_and_only_what_can_be_used_is_free() {
        let at = |device, report| IodReport {
            disk: Some(DiskId { boot: 1, device }),
            ..report
        };
        let read_only = IodReport {
            writable: false,
            ..disk(10, 5)
        };
        let unlimited = IodReport {
            inodes_total: 0,
            inodes_free: 0,
            ..disk(10, 5)
        };
        let sum = |iods: &[(IodState, IodReport)]| {
            let candidates = iods.iter().map(|(state, report)| Candidate {
                state: *state,
                report: *report,
            });
            let Totals { space, files_free } = totals(candidates);
            (space.bytes_total, space.bytes_available, files_free)
        };
        let alive = |report| (IodState::Alive, report);
        let good = disk(10, 5);
        for (iods, expected) in [
            (vec![alive(good), alive(good)], (20, 10, Some(50_000))),
            (
                vec![alive(at(1, good)), alive(at(1, good))],
                (10, 5, Some(25_000)),
            ),
            (
                vec![alive(at(1, good)), alive(at(2, good))],
                (20, 10, Some(50_000)),
            ),
            (
                vec![alive(good), (IodState::Suspect, good)],
                (20, 10, Some(50_000)),
            ),
            (
                vec![alive(good), (IodState::Away, good)],
                (10, 5, Some(25_000)),
            ),
            (vec![alive(good), alive(read_only)], (20, 5, Some(25_000))),
            (vec![alive(good), alive(unlimited)], (20, 10, None)),
            (vec![], (0, 0, Some(0))),
        ] {
            assert_eq!(sum(&iods), expected, "{iods:?}");
        }
    }
}
