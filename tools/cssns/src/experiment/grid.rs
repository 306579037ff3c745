// SPDX-License-Identifier: MIT
//! Which cells an experiment has, and what file sizes are divided by so that it ends in time. Pure.

use super::cell::{Cell, Choice, Dispatch, Files, Work};
use super::topology::NODES;
use super::work::MIX_FILES;
use std::collections::HashSet;

/// How long the default may take, seconds; the limit is 20 minutes.
pub const BUDGET_S: f64 = 18.0 * 60.0;

/// Bringing two labs up and down, storing files, drawing: not in the cells' times.
pub const SETUP_S: f64 = 100.0;

/// What sizes may be divided by when the program chooses.
const SCALES: [u32; 14] = [1, 2, 4, 8, 10, 16, 20, 32, 40, 50, 64, 80, 100, 128];

/// How much is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Grid {
    /// The paper's: five sizes, eight numbers of processes.
    Full,
    /// Its smallest and largest sizes with 100, 300 and 450 processes.
    PaperCorners,
    /// Two sizes, two numbers of processes, few rounds; a few minutes with `--scale 100`.
    Quick,
}

/// A part of the experiment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Part {
    /// One node without a director, two and three with one: the paper's tables.
    Paper,
    /// The largest cell with a file for each process.
    Own,
    /// Schedulers with equal sizes.
    Equal,
    /// Schedulers with the heavy-tailed mix.
    Mixed,
    /// The same with a node at half rate and weights 2:2:1.
    Unequal,
    /// Schedulers with clients that come in their own time and keep their connections.
    Browsing,
}

impl Part {
    /// All of them, in the order in which they are measured.
    pub const ALL: [Self; 6] = [
        Self::Paper,
        Self::Own,
        Self::Equal,
        Self::Mixed,
        Self::Unequal,
        Self::Browsing,
    ];
}

/// What was asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// FS, megabytes before scaling.
    pub file_mb: Vec<u32>,
    /// PN.
    pub processes: Vec<u32>,
    /// Which parts.
    pub parts: Vec<Part>,
    /// Rounds of the mix.
    pub rounds: u32,
    /// Requests of browsing clients.
    pub requests: u32,
}

impl Plan {
    /// The plan of a grid, with all parts.
    #[must_use]
    pub fn of(grid: Grid) -> Self {
        let (file_mb, processes, rounds, requests): (&[u32], &[u32], u32, u32) = match grid {
            Grid::Full => (
                &[10, 20, 30, 40, 50],
                &[100, 150, 200, 250, 300, 350, 400, 450],
                3,
                900,
            ),
            Grid::PaperCorners => (&[10, 50], &[100, 300, 450], 3, 900),
            Grid::Quick => (&[10, 50], &[100, 450], 1, 300),
        };
        Self {
            file_mb: file_mb.to_vec(),
            processes: processes.to_vec(),
            parts: Part::ALL.to_vec(),
            rounds,
            requests,
        }
    }

    /// The cells, each once, in the order in which they are measured.
    #[must_use]
    pub fn cells(&self, scale: u32) -> Vec<Cell> {
        let mut seen = HashSet::new();
        self.parts
            .iter()
            .flat_map(|&part| self.part(part, scale))
            .filter(|cell| cell.is_possible() && seen.insert(*cell))
            .collect()
    }

    /// The cells of a part.
    #[must_use]
    pub fn part(&self, part: Part, scale: u32) -> Vec<Cell> {
        let cell = |nodes, dispatch, work| Cell {
            nodes,
            dispatch,
            work,
            unequal: false,
            scale,
        };
        match part {
            Part::Paper => self
                .works(Files::Shared)
                .into_iter()
                .flat_map(|work| SYSTEMS.map(|(nodes, dispatch)| cell(nodes, dispatch, work)))
                .collect(),
            Part::Own => SYSTEMS
                .into_iter()
                .filter_map(|(nodes, dispatch)| {
                    Some(cell(nodes, dispatch, self.largest(Files::Own)?))
                })
                .collect(),
            Part::Equal => self
                .largest(Files::Shared)
                .into_iter()
                .flat_map(|work| directors().map(move |by| cell(NODES, by, work)))
                .collect(),
            Part::Mixed => directors()
                .map(|by| cell(NODES, by, self.mixed()))
                .collect(),
            Part::Unequal => directors()
                .map(|by| Cell {
                    unequal: true,
                    ..cell(NODES, by, self.mixed())
                })
                .collect(),
            Part::Browsing => directors()
                .map(|by| {
                    let requests = self.requests;
                    cell(NODES, by, Work::Browsing { requests })
                })
                .collect(),
        }
    }

    /// The grid's work, small before large.
    fn works(&self, files: Files) -> Vec<Work> {
        let sizes = self.file_mb.iter();
        sizes
            .flat_map(|&file_mb| {
                self.processes.iter().map(move |&processes| Work::Equal {
                    file_mb,
                    processes,
                    files,
                })
            })
            .collect()
    }

    /// The work with the largest files and the most processes.
    fn largest(&self, files: Files) -> Option<Work> {
        Some(Work::Equal {
            file_mb: *self.file_mb.iter().max()?,
            processes: *self.processes.iter().max()?,
            files,
        })
    }

    fn mixed(&self) -> Work {
        Work::Mixed {
            processes: self.processes.iter().max().copied().unwrap_or(MIX_FILES),
            rounds: self.rounds,
        }
    }

    /// How long it takes at this scale, seconds.
    #[must_use]
    pub fn planned_s(&self, scale: u32) -> f64 {
        SETUP_S + self.cells(scale).iter().map(Cell::planned_s).sum::<f64>()
    }

    /// The least scale at which it ends within [`BUDGET_S`]; the largest one if none does.
    #[must_use]
    pub fn scale(&self) -> u32 {
        let fits = |scale: &u32| self.planned_s(*scale) <= BUDGET_S;
        let last = SCALES.last().copied().unwrap_or(1);
        SCALES.into_iter().find(fits).unwrap_or(last)
    }
}

/// The paper's three systems.
pub const SYSTEMS: [(u8, Dispatch); 3] = [
    (1, Dispatch::Direct),
    (2, PAPERS_DIRECTOR),
    (3, PAPERS_DIRECTOR),
];

/// The director of the paper's systems.
const PAPERS_DIRECTOR: Dispatch = Dispatch::Module {
    scheduler: Choice::Mwlc,
};

/// The directors that are compared.
fn directors() -> impl Iterator<Item = Dispatch> {
    Choice::ALL
        .into_iter()
        .map(|scheduler| Dispatch::Module { scheduler })
        .chain([Dispatch::Stock])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_full_grid_has_the_papers_cells_and_no_cell_twice() {
        let plan = Plan::of(Grid::Full);
        assert_eq!(plan.part(Part::Paper, 80).len(), 3 * 5 * 8);
        let cells = plan.cells(80);
        let keys: HashSet<String> = cells.iter().map(Cell::key).collect();
        assert_eq!(keys.len(), cells.len());
        // The scheduler mwlc with equal sizes is the paper's system of three nodes.
        assert_eq!(cells.len(), 120 + 3 + 5 + 3 * 6);
        assert!(plan.part(Part::Unequal, 80).iter().all(|cell| cell.unequal));
    }

    #[test]
    fn what_the_program_chooses_ends_in_twenty_minutes() {
        for grid in [Grid::Full, Grid::PaperCorners, Grid::Quick] {
            let plan = Plan::of(grid);
            let scale = plan.scale();
            let planned = plan.planned_s(scale);
            assert!(planned < 20.0 * 60.0, "{grid:?}: {planned} s at {scale}");
            assert!(plan.planned_s(scale / 2) > planned);
        }
    }

    #[test]
    fn parts_that_are_not_asked_for_are_left_out() {
        let plan = Plan {
            parts: vec![Part::Own],
            file_mb: vec![20],
            processes: vec![5],
            ..Plan::of(Grid::Quick)
        };
        let keys: Vec<String> = plan.cells(10).iter().map(Cell::key).collect();
        let expected = [
            "equal-own-fs20-pn5-n1-direct-k10",
            "equal-own-fs20-pn5-n2-mwlc-k10",
            "equal-own-fs20-pn5-n3-mwlc-k10",
        ];
        assert_eq!(keys, expected);
        let nothing = Plan {
            file_mb: vec![],
            ..plan
        };
        assert!(nothing.cells(10).is_empty());
    }
}
