// SPDX-License-Identifier: MIT
//! `cssns compare`: schedulers by turns in a real cluster.

use anyhow::Context as _;
use clap::Args;
use cssns::cluster::Options;
use cssns::compare::{self, Comparison};
use cssns::director::Specification;
use cssns::plan::Code;
use cssns::progress::Steps;
use cssns::simulate::policy::Policy;
use cssns::simulate::sizes::Sizes;
use cssns::simulate::table;
use cssns::vm::Acceleration;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Compares schedulers in a real cluster: a director guest, nodes with narrow links, the same
/// heavy-tailed requests for each.
///
/// Clients ask in their own time, whether earlier answers have come or not. `-remaining` after a
/// scheduler's name: sizes shrink as clients acknowledge. One run: its figures vary more than the
/// simulator's, and are to agree with them.
#[derive(Debug, Args)]
pub struct Compare {
    /// The schedulers, in the order of their turns.
    #[arg(
        long,
        value_delimiter = ',',
        value_name = "NAMES",
        default_value = "wlc,sed,mwlc-remaining,msed-remaining"
    )]
    schedulers: Vec<Policy>,
    /// How many nodes.
    #[arg(long, default_value_t = 3)]
    nodes: u8,
    /// Each node's link towards the clients, Mbit/s.
    #[arg(long, default_value_t = 20)]
    link_mbit: u32,
    /// The part of all links' rates that clients ask for.
    #[arg(long, default_value_t = 0.7)]
    load: f64,
    /// What they fetch, as for `cssns simulate`; 64 files of so many quantiles.
    #[arg(
        long,
        default_value = "pareto:1.2:100k:20M",
        value_name = "DISTRIBUTION"
    )]
    sizes: Sizes,
    /// Requests of each turn.
    #[arg(long, default_value_t = 400)]
    requests: usize,
    /// How long clients keep their connections after a transfer, seconds.
    #[arg(long, default_value_t = 10)]
    keep_alive_s: u64,
    /// What the arrivals are drawn from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How a guest's instructions are executed.
    #[arg(long, env = "ACCEL", default_value = "tcg", value_name = "tcg|kvm")]
    accel: Acceleration,
    /// Also writes every figure here.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Runs the verb.
pub fn run(arguments: &Compare) -> anyhow::Result<ExitCode> {
    let comparison = Comparison {
        policies: arguments.schedulers.clone(),
        link_mbit: arguments.link_mbit,
        load: arguments.load,
        sizes: arguments.sizes,
        requests: arguments.requests,
        keep_alive: Duration::from_secs(arguments.keep_alive_s),
        seed: arguments.seed,
    };
    let options = Options {
        director: Specification {
            code: Code::Mwlc,
            scheduler: "wlc".to_owned(),
            on_host: false,
            learns: comparison.learns(),
            second_link: None,
        },
        acceleration: arguments.accel,
        nodes: arguments.nodes,
        keep: false,
    };
    let results = compare::run(&options, &comparison, &Steps::new())?;
    let text = format!(
        "\n{} nodes of {} Mbit/s at {} % load, connections kept {} s; sizes {}\n\n{}",
        arguments.nodes,
        arguments.link_mbit,
        arguments.load * 100.0,
        arguments.keep_alive_s,
        arguments.sizes,
        table::text(&results)
    );
    // A reader who has seen enough (`| head`) is no error.
    let _ = std::io::stdout().write_all(text.as_bytes());
    if let Some(file) = &arguments.json {
        let value = serde_json::json!({ "policies": table::json_policies(&results) });
        std::fs::write(file, format!("{value:#}\n")).with_context(|| file.display().to_string())?;
    }
    Ok(ExitCode::SUCCESS)
}
