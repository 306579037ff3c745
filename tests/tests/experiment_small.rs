// SPDX-License-Identifier: MIT
//! The paper's experiment in small: it is interrupted, goes on, and its figures follow from its samples.

use anyhow::{Context as _, ensure};
use cssns::experiment::sample::{Sample, from_csv};
use cssns_tests::leftovers::left_of;
use cssns_tests::programs;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::SystemTime;

/// A few small cells of every kind, with both directors.
fn experiment(out: &Path) -> anyhow::Result<Command> {
    let mut command = Command::new(programs::find("cssns")?);
    command
        .args(["experiment", "--grid", "quick", "--scale", "200"])
        .args(["--file-mb", "20", "--processes", "9,18"])
        .args(["--rounds", "2", "--requests", "12"])
        .args(["--parts", "paper,own,mixed"])
        .arg("--out")
        .arg(out);
    Ok(command)
}

/// Cells of that experiment: six of the grid, three with own files, six schedulers.
const CELLS: usize = 15;

/// When each cell that is there was written, by its record's name.
fn written(out: &Path) -> anyhow::Result<BTreeMap<String, SystemTime>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(out.join("cells"))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.ends_with(".json") {
            found.insert(name, entry.metadata()?.modified()?);
        }
    }
    Ok(found)
}

fn run_id(line: &str) -> Option<String> {
    let (id, _) = line.strip_prefix("run ")?.split_once(',')?;
    Some(id.to_owned())
}

/// Runs until the second cell is measured, and interrupts it.
fn interrupted_run(out: &Path) -> anyhow::Result<()> {
    let mut child = experiment(out)?
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut stderr = BufReader::new(child.stderr.take().context("standard error")?);
    let (mut said, mut run, mut cells) = (String::new(), None, 0);
    while cells < 2 {
        let mut line = String::new();
        ensure!(stderr.read_line(&mut line)? > 0, "it ended early:\n{said}");
        run = run.or_else(|| run_id(&line));
        cells += usize::from(line.contains(" MB/s, "));
        said += &line;
    }
    kill(Pid::from_raw(i32::try_from(child.id())?), Signal::SIGINT)?;
    stderr.read_to_string(&mut said)?;
    let status = child.wait()?;
    ensure!(!status.success(), "an interrupted run is no success");
    ensure!(said.contains("interrupted; taking run"), "{said}");
    let run = run.context("the run's id")?;
    assert_eq!(left_of(&run), Vec::<String>::new(), "left behind");
    Ok(())
}

/// From the first start to the last end in each round, added up.
fn elapsed_s(samples: &[&Sample]) -> f64 {
    let rounds: std::collections::BTreeSet<u32> = samples.iter().map(|one| one.round).collect();
    rounds
        .into_iter()
        .map(|round| {
            let of_round = samples.iter().filter(|one| one.round == round);
            let (start, end) = of_round.fold((f64::MAX, 0.0f64), |(start, end), one| {
                (start.min(one.start_s), end.max(one.end_s))
            });
            end - start
        })
        .sum()
}

#[test]
fn an_interrupted_experiment_goes_on_and_its_figures_follow_from_its_samples() -> anyhow::Result<()>
{
    programs::require_root()?;
    let home = tempfile::tempdir()?;
    let out = home.path().join("experiment");
    interrupted_run(&out)?;
    let before = written(&out)?;
    ensure!((2..CELLS).contains(&before.len()), "{} cells", before.len());

    let output = experiment(&out)?.output()?;
    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{}\n{stdout}\n{stderr}",
        output.status
    );
    let there = format!("{} of {CELLS} cells are there", before.len());
    assert!(stderr.contains(&there), "{there}\n{stderr}");
    let runs: Vec<String> = stderr.lines().filter_map(run_id).collect();
    assert_eq!(runs.len(), 2, "one lab for each director:\n{stderr}");
    for run in &runs {
        assert_eq!(left_of(run), Vec::<String>::new(), "left behind");
    }
    let after = written(&out)?;
    assert_eq!(after.len(), CELLS);
    for (name, at) in &before {
        assert_eq!(after.get(name), Some(at), "{name} was measured again");
    }

    let read = |name: &str| {
        std::fs::read_to_string(out.join(name)).with_context(|| format!("reading {name}"))
    };
    let samples = from_csv(&read("samples.csv")?)?;
    let mut cells: BTreeMap<&str, Vec<&Sample>> = BTreeMap::new();
    for (key, sample) in &samples {
        cells.entry(key).or_default().push(sample);
    }
    assert_eq!(cells.len(), CELLS);
    check_cells(&cells)?;
    check_summary(&cells, &serde_json::from_str(&read("summary.json")?)?)?;
    check_report(&cells, &read("report.html")?)?;
    for figure in ["figure4", "figure5", "figure6"] {
        assert!(read(&format!("{figure}.svg"))?.starts_with("<svg"));
        let png = std::fs::read(out.join(format!("{figure}.png")))?;
        assert_eq!(png.get(1..4), Some(b"PNG".as_slice()));
    }

    // With every cell there, nothing is started.
    let again = experiment(&out)?.output()?;
    let stderr = String::from_utf8_lossy(&again.stderr);
    assert!(again.status.success(), "{stderr}");
    assert_eq!(stderr.lines().filter_map(run_id).count(), 0, "{stderr}");
    assert_eq!(written(&out)?, after);
    Ok(())
}

/// Every download is there with its size, from nodes that serve, and rr deals them out evenly.
fn check_cells(cells: &BTreeMap<&str, Vec<&Sample>>) -> anyhow::Result<()> {
    for (key, samples) in cells {
        let expected = match key {
            key if key.starts_with("mixed-") => 2 * 18,
            key if key.contains("-pn9-") => 9,
            _ => 18,
        };
        assert_eq!(samples.len(), expected, "{key}");
        let nodes: u8 = if key.contains("-n1-") {
            1
        } else if key.contains("-n2-") {
            2
        } else {
            3
        };
        for sample in samples {
            assert!((1..=nodes).contains(&sample.node), "{key}: {sample:?}");
            assert!(sample.start_s <= sample.connected_s, "{key}: {sample:?}");
            assert!(
                sample.connected_s <= sample.first_byte_s,
                "{key}: {sample:?}"
            );
            assert!(sample.first_byte_s <= sample.end_s, "{key}: {sample:?}");
            if key.starts_with("equal-") {
                assert_eq!(sample.bytes, 100_000, "{key}");
            }
        }
        let paths: std::collections::BTreeSet<&str> =
            samples.iter().map(|one| one.path.as_str()).collect();
        if key.starts_with("equal-own-") {
            assert_eq!(paths.len(), samples.len(), "{key}");
        } else if key.starts_with("equal-") {
            assert_eq!(paths.len(), 1, "{key}");
        }
    }
    let turns = cells.get("mixed-pn18-r2-n3-rr-k200").context("rr")?;
    for node in 1..=3 {
        let count = turns.iter().filter(|one| one.node == node).count();
        assert_eq!(count, 12, "rr sent node{node} {count} of 36");
    }
    Ok(())
}

fn check_summary(
    cells: &BTreeMap<&str, Vec<&Sample>>,
    summary: &serde_json::Value,
) -> anyhow::Result<()> {
    let time = |key: &str| -> anyhow::Result<f64> {
        Ok(elapsed_s(cells.get(key).with_context(|| key.to_owned())?))
    };
    let system = |system: &str| -> anyhow::Result<f64> {
        let of = |processes: u32| time(&format!("equal-fs20-pn{processes}-{system}-k200"));
        Ok(of(9)? + of(18)?)
    };
    let near = |name: &str, expected: f64| -> anyhow::Result<()> {
        let value = summary[name].as_f64().with_context(|| name.to_owned())?;
        assert!(
            (value - expected).abs() < 1e-4 * expected.abs().max(1.0),
            "{name}: {value} instead of {expected}"
        );
        Ok(())
    };
    near("two_nodes_ratio", system("n2-mwlc")? / system("n1-direct")?)?;
    near(
        "three_nodes_ratio",
        system("n3-mwlc")? / system("n1-direct")?,
    )?;
    let one = time("equal-fs20-pn18-n1-direct-k200")?;
    near("one_node_link_share", 18.0 * 0.1 / one / 12.5)?;
    let p99 = |scheduler: &str| -> anyhow::Result<f64> {
        let key = format!("mixed-pn18-r2-n3-{scheduler}-k200");
        let samples = cells.get(key.as_str()).context(key)?;
        // The slowest of 36.
        Ok(samples
            .iter()
            .map(|one| one.end_s - one.start_s)
            .fold(0.0, f64::max))
    };
    near("mwlc_over_wlc_p99", p99("mwlc")? / p99("wlc")?)?;
    // What was not asked for has no figure.
    assert!(summary["throughput_450_over_300"].is_null());
    for name in [
        "eq4_slope",
        "eq4_intercept",
        "eq5_slope",
        "memory_u_max",
        "director_byte_share",
    ] {
        assert!(summary[name].is_f64(), "{name}");
    }
    let share = summary["director_byte_share"].as_f64().unwrap_or(1.0);
    assert!(share > 0.0 && share < 0.5, "{share}");
    Ok(())
}

/// Tables 1 and 6 once more from the samples.
fn check_report(cells: &BTreeMap<&str, Vec<&Sample>>, report: &str) -> anyhow::Result<()> {
    for (table, system, processes) in [(1, "n1-direct", [9, 18]), (3, "n3-mwlc", [9, 18])] {
        let values = processes.iter().map(|processes| {
            let key = format!("equal-fs20-pn{processes}-{system}-k200");
            let samples = cells.get(key.as_str()).context(key)?;
            Ok(format!("<td>{:.2}</td>", elapsed_s(samples)))
        });
        let row: String = values.collect::<anyhow::Result<String>>()?;
        let start = report
            .find(&format!("Table {table}: "))
            .with_context(|| format!("table {table}"))?;
        let text = report.get(start..).unwrap_or_default();
        let text = text.split("</table>").next().unwrap_or_default();
        assert!(text.contains(&row), "{row} in\n{text}");
    }
    assert!(report.contains("File sizes are the paper's divided by 200"));
    Ok(())
}
