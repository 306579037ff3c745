// SPDX-License-Identifier: MIT
//! The tables 1 to 7 and those of the schedulers, out of the cells. Pure.

use super::cell::{Choice, Dispatch, Files};
use super::document::Table;
use super::grid::Part;
use super::picture::{significant, system_name};
use super::profile::percent;
use super::results::{Results, memory_u};
use super::store::Measured;
use super::topology::{IODS, NODES};

/// What of the paper's tables is known here: throughput of 450 processes with 50 MB each, MB/s, by nodes.
const PAPERS_RATES: [(u8, f64); 2] = [(1, 7.9), (3, 15.1)];

/// The work of the paper's rates: FS in MB, PN.
const PAPERS_WORK: (u32, u32) = (50, 450);

/// Tables 1 to 7: completion times and throughputs of the three systems, and one node's memory.
#[must_use]
pub fn papers(results: &Results) -> Vec<Table> {
    let mut tables = Vec::new();
    for nodes in 1..=NODES {
        let title = format!(
            "Table {nodes}: completion time, seconds: {}, {IODS} I/O daemons",
            system_name(nodes)
        );
        tables.push(grid(results, &title, nodes, &|cell, _| {
            format!("{:.2}", cell.times.elapsed_s)
        }));
    }
    for nodes in 1..=NODES {
        let title = format!(
            "Table {}: throughput, MB/s: {}",
            NODES + nodes,
            system_name(nodes)
        );
        let paper = PAPERS_RATES
            .into_iter()
            .find(|known| known.0 == nodes)
            .map(|known| known.1);
        tables.push(grid(results, &title, nodes, &|cell, work| {
            let ours = format!("{:.2}", cell.times.rate_mb_s());
            match paper {
                Some(paper) if work == PAPERS_WORK => format!("{ours} (the paper: {paper})"),
                _ => ours,
            }
        }));
    }
    let title = format!(
        "Table {}: memory utility U, percent, of the busiest node: {}",
        2 * NODES + 1,
        system_name(NODES)
    );
    tables.push(grid(results, &title, NODES, &|cell, _| {
        memory_u(cell).map_or_else(String::new, |u| format!("{u:.3}"))
    }));
    tables
}

/// Sizes by numbers of processes.
fn grid(
    results: &Results,
    title: &str,
    nodes: u8,
    value: &dyn Fn(&Measured, (u32, u32)) -> String,
) -> Table {
    let plan = &results.plan;
    let head = plan.processes.iter().map(|count| format!("PN {count}"));
    let rows = plan.file_mb.iter().map(|&mb| {
        let cells = plan.processes.iter().map(|&processes| {
            let cell = results.system(nodes, mb, processes, Files::Shared);
            cell.map_or_else(String::new, |cell| value(cell, (mb, processes)))
        });
        std::iter::once(format!("FS {mb} MB"))
            .chain(cells)
            .collect()
    });
    Table {
        title: title.to_owned(),
        head: std::iter::once(String::new()).chain(head).collect(),
        rows: rows.collect(),
    }
}

/// How the schedulers did in a part; `None` where it was not measured.
#[must_use]
pub fn schedulers(results: &Results, part: Part, title: &str) -> Option<Table> {
    let cells = results.part(part);
    let wlc = Dispatch::Module {
        scheduler: Choice::Wlc,
    };
    let reference = cells.iter().find(|cell| cell.record.cell.dispatch == wlc);
    let over = |value: f64, of: &dyn Fn(&Measured) -> f64| {
        reference.map_or_else(String::new, |wlc| format!("{:.2}", value / of(wlc)))
    };
    let rows: Vec<Vec<String>> = cells
        .iter()
        .map(|cell| {
            let times = &cell.times;
            let (least, most) = times.p99_interval_s;
            vec![
                scheduler_name(cell.record.cell.dispatch),
                format!("{:.2}", times.elapsed_s),
                format!("{:.2}", times.mean_s),
                format!("{:.2}", times.median_s),
                format!("{:.2} ({least:.2} to {most:.2})", times.p99_s),
                over(times.elapsed_s, &|wlc| wlc.times.elapsed_s),
                over(times.mean_s, &|wlc| wlc.times.mean_s),
                over(times.p99_s, &|wlc| wlc.times.p99_s),
                bytes_by_node(cell),
            ]
        })
        .collect();
    (!rows.is_empty()).then(|| Table {
        title: title.to_owned(),
        head: [
            "scheduler",
            "all done, s",
            "mean, s",
            "median, s",
            "p99, s",
            "all / wlc's",
            "mean / wlc's",
            "p99 / wlc's",
            "bytes by node",
        ]
        .map(str::to_owned)
        .to_vec(),
        rows,
    })
}

fn scheduler_name(dispatch: Dispatch) -> String {
    match dispatch {
        Dispatch::Stock => "wlc of stock ip_vs".to_owned(),
        by @ (Dispatch::Direct | Dispatch::Module { .. }) => by.to_string(),
    }
}

fn bytes_by_node(cell: &Measured) -> String {
    let shares: Vec<String> = (1..=cell.record.cell.nodes)
        .map(|node| {
            let of_node = cell.samples.iter().filter(|one| one.node == node);
            let bytes: u64 = of_node.map(|sample| sample.bytes).sum();
            format!(
                "{:.0}",
                bytes as f64 / cell.times.bytes.max(1) as f64 * 100.0
            )
        })
        .collect();
    format!("{} %", shares.join(" : "))
}

/// Each process with its own file, beside all with the same one.
#[must_use]
pub fn own_files(results: &Results) -> Option<Table> {
    let rows: Vec<Vec<String>> = (1..=NODES)
        .filter_map(|nodes| {
            let own = results.largest_of(nodes, Files::Own)?;
            let shared = results.largest_of(nodes, Files::Shared);
            let first = results.largest_of(1, Files::Own)?;
            let time = |cell: Option<&Measured>| {
                cell.map_or_else(String::new, |cell| format!("{:.2}", cell.times.elapsed_s))
            };
            Some(vec![
                system_name(nodes),
                time(shared),
                time(Some(own)),
                format!("{:.2}", own.times.rate_mb_s()),
                format!("{:.3}", own.times.elapsed_s / first.times.elapsed_s),
            ])
        })
        .collect();
    let (file_mb, processes) = results.largest()?;
    (!rows.is_empty()).then(|| Table {
        title: format!("FS {file_mb} MB, PN {processes}: every process with its own, cold file"),
        head: [
            "system",
            "same file, s",
            "own files, s",
            "own files, MB/s",
            "own files: time over one node's",
        ]
        .map(str::to_owned)
        .to_vec(),
        rows,
    })
}

/// The fitted equations.
#[must_use]
pub fn equations(results: &Results) -> Table {
    let lines = [
        (
            "(4) performance",
            "0.4 N' + 1.2",
            "N'",
            results.equation_4(),
        ),
        (
            "(5) memory utility U",
            "0.001 P S + 0.9051",
            "P S",
            results.equation_5(),
        ),
    ];
    let rows = lines
        .into_iter()
        .filter_map(|(name, paper, variable, line)| {
            let line = line?;
            Some(vec![
                name.to_owned(),
                paper.to_owned(),
                format!(
                    "{} {variable} + {:.4}",
                    significant(line.slope),
                    line.intercept
                ),
                line.points.len().to_string(),
                format!("{:.4}", line.residual_rms()),
                format!("{:.4}", line.residual_max()),
            ])
        })
        .collect();
    Table {
        title: "Fitted equations, by least squares over the grid's cells".to_owned(),
        head: [
            "equation",
            "the paper",
            "ours",
            "points",
            "residual, root mean square",
            "largest residual",
        ]
        .map(str::to_owned)
        .to_vec(),
        rows,
    }
}

/// What held the largest cells up: for each, how much content its nodes' links carried of what they can, and
/// its profile.
#[must_use]
pub fn profiles(results: &Results) -> Vec<String> {
    (1..=NODES)
        .filter_map(|nodes| results.largest_of(nodes, Files::Shared))
        .chain((1..=NODES).filter_map(|nodes| results.largest_of(nodes, Files::Own)))
        .map(|cell| {
            format!(
                "`{}`: content is {} of what nodes' links can carry; {}",
                cell.record.cell.key(),
                percent(super::results::link_share(cell)),
                super::profile::words(cell)
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::grid::{Grid, Plan};
    use super::super::results::tests::ideal;
    use super::*;

    #[test]
    fn there_are_seven_tables_with_every_cell_and_the_papers_two_figures() {
        let results = ideal(Grid::Full, 100);
        let tables = papers(&results);
        assert_eq!(tables.len(), 7);
        for (table, number) in tables.iter().zip(1..) {
            assert!(table.title.starts_with(&format!("Table {number}: ")));
            assert_eq!(table.rows.len(), 5);
            for row in &table.rows {
                assert_eq!((row.len(), table.head.len()), (9, 9));
                assert!(row.iter().all(|value| !value.is_empty()), "{row:?}");
            }
        }
        // 450 x 0.5 MB at 12.5 MB/s.
        assert_eq!(tables[0].rows[4][8], "18.00");
        assert_eq!(tables[3].rows[4][8], "12.50 (the paper: 7.9)");
        assert_eq!(tables[4].rows[4][8], "25.00");
        assert_eq!(tables[5].rows[4][8], "37.50 (the paper: 15.1)");
        assert_eq!(tables[5].rows[4][7], "37.50");
        assert_eq!(tables[6].rows[0][1], "1.000");
    }

    #[test]
    fn a_part_that_was_not_measured_has_no_table() {
        let results = ideal(Grid::Quick, 100);
        let table = schedulers(&results, Part::Mixed, "t").unwrap();
        assert_eq!(table.rows.len(), 6);
        assert_eq!(table.rows[1][0], "wlc");
        assert_eq!(table.rows[1][7], "1.00");
        assert_eq!(own_files(&results).unwrap().rows.len(), 3);
        assert_eq!(equations(&results).rows.len(), 2);
        assert_eq!(profiles(&results).len(), 6);
        let nothing = Results::new(Plan::of(Grid::Quick), 100, Vec::new());
        assert_eq!(schedulers(&nothing, Part::Mixed, "t"), None);
        assert_eq!(own_files(&nothing), None);
        assert!(equations(&nothing).rows.is_empty());
    }
}
