// SPDX-License-Identifier: MIT
//! `cssns experiment`: the paper's experiment.

use clap::Args;
use cssns::experiment::grid::{Grid, Part, Plan};
use cssns::experiment::report::{self, Machine};
use cssns::experiment::results::Results;
use cssns::experiment::store::Store;
use cssns::experiment::{self, Options, document, goals};
use cssns::progress::Steps;
use cssns::vm::Acceleration;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

/// Runs the paper's experiment (its section 4) for real, and writes its tables and figures beside the
/// paper's.
///
/// Three networks, every link of 100 Mbit/s, three client machines, the director's guest, nginx on PVFS
/// mounts. One node without a director, two nodes, three nodes; then schedulers with equal and mixed sizes.
/// Cells that an interrupted run has measured are not measured again.
#[derive(Debug, Args)]
pub struct Experiment {
    /// How much is measured.
    #[arg(long, value_enum, default_value = "full")]
    grid: Grid,
    /// What file sizes are divided by; as little as lets it end in 20 minutes unless given.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    scale: Option<u32>,
    /// Other sizes than the grid's, MB before scaling.
    #[arg(long, value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=1000))]
    file_mb: Vec<u32>,
    /// Other numbers of processes than the grid's.
    #[arg(long, value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=900))]
    processes: Vec<u32>,
    /// Other rounds of the mix than the grid's.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: Option<u32>,
    /// Other numbers of browsing requests than the grid's.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    requests: Option<u32>,
    /// Only these parts.
    #[arg(long, value_enum, value_delimiter = ',')]
    parts: Vec<Part>,
    /// Where cells and results go.
    #[arg(long, value_name = "DIR", default_value = "build/experiment")]
    out: PathBuf,
    /// Measures again what is there.
    #[arg(long)]
    fresh: bool,
    /// Measures nothing: writes the results of the cells that are there.
    #[arg(long, conflicts_with = "fresh")]
    report_only: bool,
    /// Also writes the documentation's page here, with its pictures beside it.
    #[arg(long, value_name = "FILE")]
    docs: Option<PathBuf>,
    /// How a guest's instructions are executed.
    #[arg(long, env = "ACCEL", default_value = "tcg", value_name = "tcg|kvm")]
    accel: Acceleration,
}

/// Runs the verb.
pub fn run(arguments: &Experiment) -> anyhow::Result<ExitCode> {
    let plan = plan(arguments);
    let scale = arguments.scale.unwrap_or_else(|| plan.scale());
    let cells = plan.cells(scale);
    let steps = Steps::new();
    let measured = if arguments.report_only {
        experiment::load(&Store::open(&arguments.out)?, &cells, None)?
    } else {
        steps.say(&format!(
            "{} cells, file sizes divided by {scale}: about {:.0} minutes",
            cells.len(),
            (plan.planned_s(scale) / 60.0).ceil()
        ));
        let options = Options {
            out: &arguments.out,
            acceleration: arguments.accel,
            fresh: arguments.fresh,
        };
        experiment::measure(&cells, &options, &steps)?
    };
    let results = Results::new(plan, scale, measured);
    let machine = Machine::this();
    report::write(&results, &machine, &arguments.out)?;
    if let Some(docs) = &arguments.docs {
        report::write_docs(&results, &machine, docs)?;
    }
    let summary = results.summary();
    let goals = goals::all(&results, &summary);
    let mut text = document::text_table(&goals::table(&goals));
    for why in goals::why(&goals) {
        text += &format!("\n{why}\n");
    }
    text += &format!(
        "\nresults: {} (and summary.json, samples.csv, figures)\n",
        arguments.out.join("report.html").display()
    );
    // A reader who has seen enough (`| head`) is no error.
    let _ = std::io::stdout().write_all(text.as_bytes());
    Ok(ExitCode::SUCCESS)
}

fn plan(arguments: &Experiment) -> Plan {
    let mut plan = Plan::of(arguments.grid);
    if !arguments.file_mb.is_empty() {
        plan.file_mb.clone_from(&arguments.file_mb);
    }
    if !arguments.processes.is_empty() {
        plan.processes.clone_from(&arguments.processes);
    }
    if !arguments.parts.is_empty() {
        plan.parts.clone_from(&arguments.parts);
    }
    plan.rounds = arguments.rounds.unwrap_or(plan.rounds);
    plan.requests = arguments.requests.unwrap_or(plan.requests);
    plan
}
