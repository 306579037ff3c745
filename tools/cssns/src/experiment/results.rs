// SPDX-License-Identifier: MIT
//! What the cells come to: ratios, fitted equations, the summary. Pure.

use super::cell::{Cell, Choice, Dispatch, Files, Work};
use super::fit::Line;
use super::grid::{Part, Plan, SYSTEMS};
use super::links::{LINK_MBIT, bytes_per_second};
use super::store::Measured;
use super::topology::{CLIENTS, Host, NODES, Segment};
use serde::Serialize;
use std::collections::HashMap;

/// A node's memory, of which U is a part: that of an ordinary PC. The issue and the paper do not say what
/// theirs was.
pub const NODE_MEMORY_BYTES: u64 = 8 << 30;

/// Where the paper's equation (5) is compared: 450 processes with 50 MB each, MB.
pub const PAPERS_LARGEST_MB: f64 = 22_500.0;

/// What was measured, and what for.
#[derive(Debug)]
pub struct Results {
    /// What was asked for.
    pub plan: Plan,
    /// What sizes were divided by.
    pub scale: u32,
    measured: HashMap<Cell, Measured>,
}

/// The figures that others read by name. What was not measured is null.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Summary {
    /// What file sizes were divided by.
    pub scale: u32,
    /// Cells measured.
    pub cells: usize,
    /// Completion time of two nodes over one's, all cells of the grid together.
    pub two_nodes_ratio: Option<f64>,
    /// The same of three nodes.
    pub three_nodes_ratio: Option<f64>,
    /// Content that one node sent in the largest cell, of what its link can carry.
    pub one_node_link_share: Option<f64>,
    /// Slope of equation (4): performance over added nodes.
    pub eq4_slope: Option<f64>,
    /// Its value at no added node.
    pub eq4_intercept: Option<f64>,
    /// Slope of equation (5): U over PN x FS in MB before scaling.
    pub eq5_slope: Option<f64>,
    /// Its value at 0.
    pub eq5_intercept: Option<f64>,
    /// Equation (5) at 22,500 MB.
    pub eq5_at_22500: Option<f64>,
    /// Throughput of three nodes with 450 processes over that with 300, all sizes together.
    pub throughput_450_over_300: Option<f64>,
    /// The largest U of any node in the grid, percent.
    pub memory_u_max: Option<f64>,
    /// The largest growth of a node's memory over its idle state in the grid, megabytes.
    pub memory_growth_mb_max: Option<f64>,
    /// Mixed sizes: p99 of mwlc (sizes told, counted whole, as in the paper) over that of wlc.
    pub mwlc_over_wlc_p99: Option<f64>,
    /// The same of mwlc with `remaining`.
    pub mwlc_remaining_over_wlc_p99: Option<f64>,
    /// The same of msed with `remaining`.
    pub msed_remaining_over_wlc_p99: Option<f64>,
    /// The same of mwlc, where a node has half the rate.
    pub unequal_mwlc_over_wlc_p99: Option<f64>,
    /// The same of msed with `remaining`, where a node has half the rate.
    pub unequal_msed_remaining_over_wlc_p99: Option<f64>,
    /// The same of mwlc with `remaining`, where clients come in their own time and keep connections.
    pub browsing_mwlc_remaining_over_wlc_p99: Option<f64>,
    /// The same of msed with `remaining`.
    pub browsing_msed_remaining_over_wlc_p99: Option<f64>,
    /// What the director received of what clients received, in the largest cell of three nodes.
    pub director_byte_share: Option<f64>,
    /// Completion time of three nodes over one's where each process has its own file.
    pub own_files_three_nodes_ratio: Option<f64>,
    /// The same of two nodes.
    pub own_files_two_nodes_ratio: Option<f64>,
}

impl Results {
    /// Results of a plan at a scale.
    #[must_use]
    pub fn new(plan: Plan, scale: u32, measured: Vec<Measured>) -> Self {
        let measured = measured
            .into_iter()
            .map(|measured| (measured.record.cell, measured))
            .collect();
        Self {
            plan,
            scale,
            measured,
        }
    }

    /// A cell, if it was measured.
    #[must_use]
    pub fn get(&self, cell: &Cell) -> Option<&Measured> {
        self.measured.get(cell)
    }

    /// The measured cells of a part, in order.
    #[must_use]
    pub fn part(&self, part: Part) -> Vec<&Measured> {
        let cells = self.plan.part(part, self.scale);
        cells.iter().filter_map(|cell| self.get(cell)).collect()
    }

    /// Every measured cell, in the plan's order.
    #[must_use]
    pub fn all(&self) -> Vec<&Measured> {
        let cells = self.plan.cells(self.scale);
        cells.iter().filter_map(|cell| self.get(cell)).collect()
    }

    /// The cell of a system of so many nodes with this work.
    #[must_use]
    pub fn system(
        &self,
        nodes: u8,
        file_mb: u32,
        processes: u32,
        files: Files,
    ) -> Option<&Measured> {
        let (nodes, dispatch) = SYSTEMS.into_iter().find(|system| system.0 == nodes)?;
        self.get(&Cell {
            nodes,
            dispatch,
            work: Work::Equal {
                file_mb,
                processes,
                files,
            },
            unequal: false,
            scale: self.scale,
        })
    }

    /// The grid's largest size and number of processes.
    #[must_use]
    pub fn largest(&self) -> Option<(u32, u32)> {
        Some((
            *self.plan.file_mb.iter().max()?,
            *self.plan.processes.iter().max()?,
        ))
    }

    /// The cell of a system with the most work.
    #[must_use]
    pub fn largest_of(&self, nodes: u8, files: Files) -> Option<&Measured> {
        let (file_mb, processes) = self.largest()?;
        self.system(nodes, file_mb, processes, files)
    }

    /// Pairs of completion times, one node's and that of so many, for each cell of the grid.
    fn pairs(&self, nodes: u8) -> Vec<(f64, f64)> {
        let sizes = self.plan.file_mb.iter();
        sizes
            .flat_map(|&mb| {
                self.plan
                    .processes
                    .iter()
                    .map(move |&processes| (mb, processes))
            })
            .filter_map(|(mb, processes)| {
                let one = self.system(1, mb, processes, Files::Shared)?;
                let other = self.system(nodes, mb, processes, Files::Shared)?;
                Some((one.times.elapsed_s, other.times.elapsed_s))
            })
            .collect()
    }

    /// Completion time over one node's, all cells of the grid together.
    #[must_use]
    pub fn time_ratio(&self, nodes: u8) -> Option<f64> {
        let pairs = self.pairs(nodes);
        let one: f64 = pairs.iter().map(|pair| pair.0).sum();
        let other: f64 = pairs.iter().map(|pair| pair.1).sum();
        (one > 0.0).then(|| other / one)
    }

    fn own_ratio(&self, nodes: u8) -> Option<f64> {
        let one = self.largest_of(1, Files::Own)?.times.elapsed_s;
        Some(self.largest_of(nodes, Files::Own)?.times.elapsed_s / one)
    }

    /// Equation (4): performance, one node's completion time over that of N' added nodes, for each cell.
    #[must_use]
    pub fn equation_4(&self) -> Option<Line> {
        let points: Vec<(f64, f64)> = (2..=NODES)
            .flat_map(|nodes| {
                let added = f64::from(nodes) - 1.0;
                let pairs = self.pairs(nodes).into_iter();
                pairs.map(move |(one, other)| (added, one / other))
            })
            .collect();
        Line::through(&points)
    }

    /// Equation (5): U of the busiest node over PN x FS in MB before scaling, for each cell of the grid.
    #[must_use]
    pub fn equation_5(&self) -> Option<Line> {
        Line::through(&self.memory_points())
    }

    /// Points of equation (5).
    #[must_use]
    pub fn memory_points(&self) -> Vec<(f64, f64)> {
        self.part(Part::Paper)
            .into_iter()
            .filter_map(|measured| {
                let Work::Equal {
                    file_mb, processes, ..
                } = measured.record.cell.work
                else {
                    return None;
                };
                let work_mb = f64::from(file_mb) * f64::from(processes);
                Some((work_mb, memory_u(measured)?))
            })
            .collect()
    }

    /// Throughput of a system at one number of processes over that at another, all sizes together.
    #[must_use]
    pub fn throughput_ratio(&self, nodes: u8, processes: u32, over: u32) -> Option<f64> {
        let rate = |processes| {
            let cells: Vec<&Measured> = self
                .plan
                .file_mb
                .iter()
                .filter_map(|&mb| self.system(nodes, mb, processes, Files::Shared))
                .collect();
            let bytes: u64 = cells.iter().map(|cell| cell.times.bytes).sum();
            let seconds: f64 = cells.iter().map(|cell| cell.times.elapsed_s).sum();
            (seconds > 0.0).then(|| bytes as f64 / seconds)
        };
        Some(rate(processes)? / rate(over)?)
    }

    /// A scheduler's p99 over wlc's in a part.
    #[must_use]
    pub fn p99_over_wlc(&self, part: Part, by: Dispatch) -> Option<f64> {
        let p99 = |by: Dispatch| {
            let cells = self.part(part).into_iter();
            let mut of = cells.filter(|cell| cell.record.cell.dispatch == by);
            of.next().map(|cell| cell.times.p99_s)
        };
        let wlc = Dispatch::Module {
            scheduler: Choice::Wlc,
        };
        Some(p99(by)? / p99(wlc)?)
    }

    /// Everything that others read by name.
    #[must_use]
    pub fn summary(&self) -> Summary {
        let p99 = |part, scheduler| self.p99_over_wlc(part, Dispatch::Module { scheduler });
        let (eq4, eq5) = (self.equation_4(), self.equation_5());
        let grid = self.part(Part::Paper);
        let max = |of: &dyn Fn(&Measured) -> Option<f64>| {
            let values = grid.iter().filter_map(|measured| of(measured));
            values.reduce(f64::max)
        };
        Summary {
            scale: self.scale,
            cells: self.measured.len(),
            two_nodes_ratio: self.time_ratio(2),
            three_nodes_ratio: self.time_ratio(3),
            one_node_link_share: self.largest_of(1, Files::Shared).map(link_share),
            eq4_slope: eq4.as_ref().map(|line| line.slope),
            eq4_intercept: eq4.as_ref().map(|line| line.intercept),
            eq5_slope: eq5.as_ref().map(|line| line.slope),
            eq5_intercept: eq5.as_ref().map(|line| line.intercept),
            eq5_at_22500: eq5.as_ref().map(|line| line.at(PAPERS_LARGEST_MB)),
            throughput_450_over_300: self.throughput_ratio(NODES, 450, 300),
            memory_u_max: max(&memory_u),
            memory_growth_mb_max: max(&memory_growth_mb),
            mwlc_over_wlc_p99: p99(Part::Mixed, Choice::Mwlc),
            mwlc_remaining_over_wlc_p99: p99(Part::Mixed, Choice::MwlcRemaining),
            msed_remaining_over_wlc_p99: p99(Part::Mixed, Choice::MsedRemaining),
            unequal_mwlc_over_wlc_p99: p99(Part::Unequal, Choice::Mwlc),
            unequal_msed_remaining_over_wlc_p99: p99(Part::Unequal, Choice::MsedRemaining),
            browsing_mwlc_remaining_over_wlc_p99: p99(Part::Browsing, Choice::MwlcRemaining),
            browsing_msed_remaining_over_wlc_p99: p99(Part::Browsing, Choice::MsedRemaining),
            director_byte_share: self
                .largest_of(NODES, Files::Shared)
                .and_then(director_share),
            own_files_three_nodes_ratio: self.own_ratio(3),
            own_files_two_nodes_ratio: self.own_ratio(2),
        }
    }
}

/// Content that the serving nodes sent, of what their links can carry.
#[must_use]
pub fn link_share(measured: &Measured) -> f64 {
    let capacity = bytes_per_second(LINK_MBIT) * measured.record.cell.links();
    measured.times.bytes as f64 / (capacity * measured.times.elapsed_s)
}

/// What the director received, of what the client machines received.
#[must_use]
pub fn director_share(measured: &Measured) -> Option<f64> {
    let carried = &measured.record.carried;
    let to = |host: Host| -> Option<u64> {
        let mut links = host.links().into_iter();
        let link = links.find(|link| link.segment == Segment::Clients)?;
        Some(carried.get(&link.port)?.to_host)
    };
    let clients: u64 = (1..=CLIENTS)
        .filter_map(|client| to(Host::Client(client)))
        .sum();
    (clients > 0).then_some(to(Host::Director)? as f64 / clients as f64)
}

/// The paper's U of the busiest node, percent of [`NODE_MEMORY_BYTES`].
#[must_use]
pub fn memory_u(measured: &Measured) -> Option<f64> {
    let nodes = measured.record.memory.values();
    let max = nodes.map(|memory| memory.max_bytes).max()?;
    Some(max as f64 / NODE_MEMORY_BYTES as f64 * 100.0)
}

/// What the busiest node's memory grew by, megabytes.
#[must_use]
pub fn memory_growth_mb(measured: &Measured) -> Option<f64> {
    let nodes = measured.record.memory.values();
    let grown = nodes.map(|memory| memory.max_bytes.saturating_sub(memory.idle_bytes));
    Some(grown.max()? as f64 / 1e6)
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::grid::Grid;
    use super::super::links::Carried;
    use super::super::sample::Sample;
    use super::super::store::Record;
    use super::super::watch::{Memory, Processor, Segments};
    use super::*;
    use std::collections::BTreeMap;

    /// A cell whose downloads all take as long as it does.
    pub fn made_up(cell: Cell, elapsed_s: f64) -> Measured {
        let sample = |number: u32| Sample {
            round: 0,
            client: 1 + (number % 3) as u8,
            node: 1 + (number % u32::from(cell.nodes)) as u8,
            path: format!("/{}", cell.key()),
            bytes: cell.file_bytes(),
            start_s: 0.0,
            connected_s: 0.001,
            first_byte_s: 0.002,
            end_s: elapsed_s,
        };
        let carried = |to_host| Carried {
            from_host: 0,
            to_host,
        };
        let memory = Memory {
            idle_bytes: 10_000_000,
            max_bytes: NODE_MEMORY_BYTES / 100,
            max_process_bytes: 12_000_000,
        };
        let record = Record {
            cell,
            programs: "p".to_owned(),
            measured_at_s: 0,
            memory: BTreeMap::from([(1, memory)]),
            carried: BTreeMap::from([
                ("client1-0".to_owned(), carried(600)),
                ("client2-0".to_owned(), carried(400)),
                ("director".to_owned(), carried(20)),
            ]),
            processor: Processor::default(),
            segments: Segments::default(),
        };
        let samples = (0..cell.downloads()).map(sample).collect();
        Measured::new(record, samples).unwrap()
    }

    /// Results of a whole grid in which everything is as good as the links allow.
    pub fn ideal(grid: Grid, scale: u32) -> Results {
        ideal_of(Plan::of(grid), scale)
    }

    /// The same of any plan.
    pub fn ideal_of(plan: Plan, scale: u32) -> Results {
        let cells = plan.cells(scale);
        let rate = bytes_per_second(LINK_MBIT);
        let measured = cells
            .into_iter()
            .map(|cell| made_up(cell, cell.bytes() as f64 / rate / cell.links()))
            .collect();
        Results::new(plan, scale, measured)
    }

    #[test]
    fn an_ideal_cluster_has_ideal_figures() {
        let summary = ideal(Grid::Full, 100).summary();
        let near = |value: Option<f64>, wanted: f64| {
            let value = value.unwrap();
            assert!((value - wanted).abs() < 1e-6, "{value} instead of {wanted}");
        };
        near(summary.two_nodes_ratio, 0.5);
        near(summary.three_nodes_ratio, 1.0 / 3.0);
        near(summary.one_node_link_share, 1.0);
        near(summary.eq4_slope, 1.0);
        near(summary.eq4_intercept, 1.0);
        near(summary.throughput_450_over_300, 1.0);
        near(summary.memory_u_max, 1.0);
        near(summary.eq5_slope, 0.0);
        near(summary.eq5_at_22500, 1.0);
        near(summary.mwlc_over_wlc_p99, 1.0);
        near(summary.director_byte_share, 0.02);
        near(summary.own_files_three_nodes_ratio, 1.0 / 3.0);
    }

    #[test]
    fn what_was_not_measured_has_no_figure() {
        let plan = Plan {
            parts: vec![Part::Mixed],
            ..Plan::of(Grid::Quick)
        };
        let nothing = Results::new(plan, 100, Vec::new()).summary();
        let expected = Summary {
            scale: 100,
            ..Summary::default()
        };
        assert_eq!(nothing, expected);
    }

    #[test]
    fn the_largest_cells_weigh_most_in_a_ratio() {
        let plan = Plan {
            parts: vec![Part::Paper],
            file_mb: vec![10],
            processes: vec![100, 200],
            ..Plan::of(Grid::Quick)
        };
        let times = [10.0, 6.0, 4.0, 30.0, 14.0, 10.0];
        let cells = plan.cells(10);
        let measured = cells
            .into_iter()
            .zip(times)
            .map(|(cell, time)| made_up(cell, time))
            .collect();
        let results = Results::new(plan, 10, measured);
        assert!((results.time_ratio(2).unwrap() - 20.0 / 40.0).abs() < 1e-9);
        assert!((results.time_ratio(3).unwrap() - 14.0 / 40.0).abs() < 1e-9);
        let ratio = results.throughput_ratio(3, 200, 100).unwrap();
        assert!((ratio - (2.0 / 10.0) / (1.0 / 4.0)).abs() < 1e-9);
        assert_eq!(results.summary().throughput_450_over_300, None);
    }
}
