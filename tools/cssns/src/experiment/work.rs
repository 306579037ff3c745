// SPDX-License-Identifier: MIT
//! Which files a cell needs, and which client asks for which file when. Pure.

use super::cell::{Cell, Files, Work, mix};
use super::links::{LINK_MBIT, bytes_per_second};
use super::topology::CLIENTS;
use crate::simulate::arrivals;
use crate::simulate::world::Arrival;
use crate::workload::FilePlan;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use std::time::Duration;

/// Files of the mix: as many quantiles of it.
pub const MIX_FILES: u32 = 450;

/// The part of the nodes' rates that browsing clients ask for.
pub const BROWSING_LOAD: f64 = 0.75;

/// How long browsing clients keep their connections after a transfer.
const BROWSING_KEEP: Duration = Duration::from_secs(5);

/// Between two processes that a client machine starts, where sizes are equal.
const START_GAP: Duration = Duration::from_millis(1);

/// The same where they are not: a shell starts a hundred programs a second, and the director hears of one
/// request before the next client comes.
const MIXED_START_GAP: Duration = Duration::from_millis(10);

/// A download to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// When, from the round's start.
    pub at: Duration,
    /// From which client machine, from 1.
    pub client: u8,
    /// What: the file's name.
    pub file: String,
    /// How long the connection is kept afterwards.
    pub keep: Duration,
}

/// The files that a cell needs beside the mix's: nobody else's, so that no node has read them.
#[must_use]
pub fn files(cell: &Cell) -> Vec<FilePlan> {
    let Work::Equal {
        processes, files, ..
    } = cell.work
    else {
        return Vec::new();
    };
    let count = match files {
        Files::Shared => 1,
        Files::Own => processes,
    };
    (0..count)
        .map(|number| FilePlan {
            name: own_name(cell, number),
            bytes: cell.file_bytes(),
        })
        .collect()
}

fn own_name(cell: &Cell, number: u32) -> String {
    format!("{}.{number}", cell.key())
}

/// The files of the mix.
#[must_use]
pub fn mix_files(scale: u32) -> Vec<FilePlan> {
    let sizes = mix(scale);
    (0..MIX_FILES)
        .map(|number| FilePlan {
            name: mix_name(scale, number),
            bytes: sizes.quantile((f64::from(number) + 0.5) / f64::from(MIX_FILES)) as u64,
        })
        .collect()
}

fn mix_name(scale: u32, number: u32) -> String {
    format!("mix-k{scale}.{number}")
}

/// The downloads of a cell, round by round; the same for all that have the same work.
///
/// # Errors
/// When a cell asks for no requests.
pub fn rounds(cell: &Cell) -> anyhow::Result<Vec<Vec<Request>>> {
    match cell.work {
        Work::Equal {
            processes, files, ..
        } => {
            let file = |number| match files {
                Files::Shared => own_name(cell, 0),
                Files::Own => own_name(cell, number),
            };
            Ok(vec![together(processes, START_GAP, file)])
        }
        Work::Mixed { processes, rounds } => Ok((0..rounds)
            .map(|round| {
                let lots = shuffled(u64::from(round));
                let file = |number: u32| mix_name(cell.scale, lot(&lots, number));
                together(processes, MIXED_START_GAP, file)
            })
            .collect()),
        Work::Browsing { requests } => {
            let sizes = mix(cell.scale);
            let rate = bytes_per_second(LINK_MBIT) * cell.links() * BROWSING_LOAD;
            let times = arrivals::poisson(requests as usize, rate / sizes.mean(), &sizes, 1)?;
            let lots = shuffled(0);
            let one = |(arrival, number): (&Arrival, u32)| Request {
                at: Duration::from_secs_f64(arrival.at_s),
                client: client_of(number),
                file: mix_name(cell.scale, lot(&lots, number)),
                keep: BROWSING_KEEP,
            };
            Ok(vec![times.iter().zip(0..).map(one).collect()])
        }
    }
}

/// Processes that start as fast as each machine starts them.
fn together(processes: u32, gap: Duration, file: impl Fn(u32) -> String) -> Vec<Request> {
    (0..processes)
        .map(|number| Request {
            at: gap * (number / u32::from(CLIENTS)),
            client: client_of(number),
            file: file(number),
            keep: Duration::ZERO,
        })
        .collect()
}

fn client_of(number: u32) -> u8 {
    // The remainder of a division by a u8 is one.
    u8::try_from(number % u32::from(CLIENTS)).map_or(1, |client| client + 1)
}

/// All files of the mix in an order of its own for each round.
fn shuffled(round: u64) -> Vec<u32> {
    let mut lots: Vec<u32> = (0..MIX_FILES).collect();
    lots.shuffle(&mut StdRng::seed_from_u64(round.wrapping_add(1)));
    lots
}

fn lot(lots: &[u32], number: u32) -> u32 {
    lots.get((number % MIX_FILES) as usize)
        .copied()
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::super::cell::{Choice, Dispatch};
    use super::*;
    use std::collections::HashSet;

    fn cell(work: Work) -> Cell {
        Cell {
            nodes: 3,
            dispatch: Dispatch::Module {
                scheduler: Choice::Mwlc,
            },
            work,
            unequal: false,
            scale: 80,
        }
    }

    #[test]
    fn the_papers_processes_start_together_on_three_machines() {
        let equal = |files| {
            cell(Work::Equal {
                file_mb: 50,
                processes: 450,
                files,
            })
        };
        let shared = rounds(&equal(Files::Shared)).unwrap();
        assert_eq!(shared.len(), 1);
        let names: HashSet<&str> = shared[0].iter().map(|r| r.file.as_str()).collect();
        assert_eq!((shared[0].len(), names.len()), (450, 1));
        for client in 1..=3 {
            let count = shared[0].iter().filter(|r| r.client == client).count();
            assert_eq!(count, 150);
        }
        let last = shared[0].iter().map(|request| request.at).max();
        assert_eq!(last, Some(Duration::from_millis(149)));

        let own = equal(Files::Own);
        let names: HashSet<String> = files(&own).into_iter().map(|file| file.name).collect();
        assert_eq!(names.len(), 450);
        let asked = rounds(&own).unwrap();
        assert!(asked[0].iter().all(|r| names.contains(&r.file)));
    }

    #[test]
    fn a_round_of_the_mix_asks_for_every_file_in_an_order_of_its_own() {
        let mixed = cell(Work::Mixed {
            processes: MIX_FILES,
            rounds: 2,
        });
        let rounds = rounds(&mixed).unwrap();
        let order =
            |round: usize| -> Vec<&str> { rounds[round].iter().map(|r| r.file.as_str()).collect() };
        assert_ne!(order(0), order(1));
        let (first, second): (HashSet<_>, HashSet<_>) = (
            order(0).into_iter().collect(),
            order(1).into_iter().collect(),
        );
        assert_eq!(first, second);
        assert_eq!(first.len(), MIX_FILES as usize);
        let stored: u64 = mix_files(80).iter().map(|file| file.bytes).sum();
        let mean = stored as f64 / f64::from(MIX_FILES);
        assert!((mean / mix(80).mean() - 1.0).abs() < 0.05, "{mean}");
    }

    #[test]
    fn browsing_clients_ask_for_their_part_of_the_links() {
        let browsing = cell(Work::Browsing { requests: 2000 });
        let rounds = rounds(&browsing).unwrap();
        let last = rounds[0].last().unwrap().at.as_secs_f64();
        let offered = 2000.0 * mix(80).mean() / last;
        let load = offered / (3.0 * bytes_per_second(LINK_MBIT));
        assert!((load / BROWSING_LOAD - 1.0).abs() < 0.1, "{load}");
        assert!(files(&browsing).is_empty());
    }
}
