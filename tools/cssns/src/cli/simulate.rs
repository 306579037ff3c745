// SPDX-License-Identifier: MIT
//! `cssns simulate`: which scheduler does best, without a cluster.

use anyhow::{Context as _, ensure};
use clap::Args;
use cssns::markdown::Section;
use cssns::simulate::policy::Policy;
use cssns::simulate::scenario::{self, Scenario};
use cssns::simulate::sizes::Sizes;
use cssns::simulate::world::{Cluster, Node};
use cssns::simulate::{Experiment, Results, Traffic, arrivals, picture, table};
use indicatif::{ProgressBar, ProgressStyle};
use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Compares the director's schedulers in a simulated cluster with shared links.
///
/// Every policy sees the same requests. `-remaining` after a scheduler's name: sizes shrink as clients
/// acknowledge. Two marks are compared as well: `random`, any node by lot, and `pooled`, all links as
/// one, which no choice of a node can surpass.
#[derive(Debug, Args)]
pub struct Simulate {
    /// How many nodes; weights and rates go around.
    #[arg(long, default_value_t = 10)]
    nodes: usize,
    /// Their weights.
    #[arg(long, value_delimiter = ',', default_value = "1")]
    weights: Vec<u32>,
    /// Their links' rates, Mbit/s; 1000 for each unit of weight of the lightest unless given.
    #[arg(long, value_delimiter = ',', value_name = "MBIT")]
    rates_mbit: Vec<f64>,
    /// The rate of each client's own link, Mbit/s; unlimited unless given.
    #[arg(long, value_name = "MBIT")]
    client_mbit: Option<f64>,
    /// The part of all nodes' rates that clients ask for.
    #[arg(long, default_value_t = 0.8)]
    load: f64,
    /// What they fetch: pareto:ALPHA:MIN:MAX, lognormal:MEAN:SIGMA, exponential:MEAN or constant:BYTES.
    #[arg(
        long,
        default_value = "pareto:1.2:100k:1G",
        value_name = "DISTRIBUTION"
    )]
    sizes: Sizes,
    /// A recorded trace instead, of lines `time_s,size_bytes` in the order of time.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["load", "sizes", "requests"])]
    trace: Option<PathBuf>,
    /// Requests in each replication.
    #[arg(long, default_value_t = 200_000)]
    requests: usize,
    /// From a client's SYN to its request, ms.
    #[arg(long, default_value_t = scenario::ROUND_TRIP_S * 1e3)]
    round_trip_ms: f64,
    /// How long clients keep their connections after a transfer, seconds.
    #[arg(long, default_value_t = 0.0)]
    keep_alive_s: f64,
    /// How long the director holds a closed connection, seconds.
    #[arg(long, default_value_t = scenario::FIN_WAIT_S)]
    fin_wait_s: f64,
    /// The director never learns sizes: each connection counts what is expected.
    #[arg(long)]
    sizes_unknown: bool,
    /// The part of the requests, at the start, that is not counted.
    #[arg(long, default_value_t = 0.2)]
    warm_up: f64,
    /// How often it is repeated with other numbers.
    #[arg(long, default_value_t = 5)]
    replications: usize,
    /// The first replication's seed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The policies; all that are worth comparing unless given.
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    policies: Vec<Policy>,
    /// Also writes the setting and every figure here.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Also draws the distribution of completion times here, as SVG.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Runs the scenarios of docs/SCHEDULING.md instead and puts their tables into that file, between
    /// its marks, and pictures beside it. Only --requests, --replications, --seed and --json count.
    #[arg(long, value_name = "FILE")]
    docs: Option<PathBuf>,
}

/// The lines between which the docs' tables stand.
const SECTION: Section = Section {
    heading: "## Results",
    begin: "<!-- simulate: begin -->",
    end: "<!-- simulate: end -->",
};

/// The scenarios that get a picture in the docs.
const PICTURED: [&str; 2] = ["close", "keep-alive"];

/// Runs the verb.
pub fn run(arguments: &Simulate) -> anyhow::Result<ExitCode> {
    let policies = match &arguments.policies[..] {
        [] => Policy::COMPARED.to_vec(),
        given => given.to_vec(),
    };
    let mut values = Vec::new();
    if let Some(docs) = &arguments.docs {
        let scenarios = scenario::all(arguments.requests, arguments.replications, arguments.seed);
        let mut text = String::new();
        for scenario in &scenarios {
            let Scenario {
                name,
                title,
                experiment,
            } = scenario;
            let results = simulate(name, experiment, &policies)?;
            text += &section(scenario, &results);
            print(&format!("{name}: {title}\n{}\n", table::text(&results)));
            if PICTURED.contains(name) {
                let file = docs.with_file_name(format!("scheduling-{name}.svg"));
                write(&file, &picture::svg(title, &results)?)?;
            }
            values.push(table::json(name, experiment, &results));
        }
        SECTION.write(docs, &text)?;
    } else {
        let experiment = experiment(arguments)?;
        let results = simulate("simulating", &experiment, &policies)?;
        let said = table::describe(&experiment);
        print(&format!(
            "{said}\n\n{}\n{}\n",
            table::text(&results),
            table::LEGEND
        ));
        if let Some(file) = &arguments.svg {
            write(file, &picture::svg("Completion times", &results)?)?;
        }
        values.push(table::json("simulate", &experiment, &results));
    }
    if let Some(file) = &arguments.json {
        let value = serde_json::json!({ "experiments": values });
        write(file, &format!("{value:#}\n"))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn experiment(arguments: &Simulate) -> anyhow::Result<Experiment> {
    ensure!(!arguments.weights.is_empty(), "--weights: no weight");
    let mut cluster = scenario::cluster(arguments.nodes, &arguments.weights);
    if !arguments.rates_mbit.is_empty() {
        let rates = arguments.rates_mbit.iter().cycle();
        for (node, rate) in cluster.nodes.iter_mut().zip(rates) {
            *node = Node {
                rate: rate * 1e6 / 8.0,
                ..*node
            };
        }
    }
    ensure!(
        (0.0..1.0).contains(&arguments.warm_up),
        "--warm-up is a part, from 0 to below 1"
    );
    for (name, value) in [
        ("--round-trip-ms", arguments.round_trip_ms),
        ("--keep-alive-s", arguments.keep_alive_s),
        ("--fin-wait-s", arguments.fin_wait_s),
    ] {
        ensure!(
            value.is_finite() && value >= 0.0,
            "{name} is negative or no number"
        );
    }
    let traffic = match &arguments.trace {
        Some(path) => Traffic::Trace {
            name: path.display().to_string(),
            arrivals: arrivals::trace(path)?,
        },
        None => Traffic::Poisson {
            load: arguments.load,
            sizes: arguments.sizes,
            requests: arguments.requests,
        },
    };
    Ok(Experiment {
        cluster: Cluster {
            client_rate: arguments.client_mbit.map(|mbit| mbit * 1e6 / 8.0),
            round_trip_s: arguments.round_trip_ms / 1e3,
            keep_alive_s: arguments.keep_alive_s,
            fin_wait_s: arguments.fin_wait_s,
            sizes_known: !arguments.sizes_unknown,
            ..cluster
        },
        traffic,
        warm_up: arguments.warm_up,
        replications: arguments.replications,
        seed: arguments.seed,
    })
}

fn simulate(name: &str, experiment: &Experiment, policies: &[Policy]) -> anyhow::Result<Results> {
    let runs = experiment.replications.saturating_mul(policies.len()) as u64;
    let bar = if std::io::stderr().is_terminal() {
        ProgressBar::new(runs)
    } else {
        ProgressBar::hidden()
    };
    if let Ok(style) = ProgressStyle::with_template("{msg} {bar:30} {pos}/{len} runs ETA {eta}") {
        bar.set_style(style);
    }
    bar.set_message(name.to_owned());
    let results = experiment.run(policies, || bar.inc(1));
    bar.finish_and_clear();
    results
}

fn section(scenario: &Scenario, results: &Results) -> String {
    let Scenario {
        name,
        title,
        experiment,
    } = scenario;
    let picture = if PICTURED.contains(name) {
        format!("![Completion times: {title}](scheduling-{name}.svg)\n\n")
    } else {
        String::new()
    };
    let said = table::describe(experiment);
    format!(
        "### {name}: {title}\n{said}\n\n{}\n{picture}",
        table::markdown(results)
    )
}

fn write(file: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(file, text).with_context(|| file.display().to_string())
}

/// A reader who has seen enough (`| head`) is no error.
fn print(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}
