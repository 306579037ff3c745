// SPDX-License-Identifier: MIT
//! The command line: verbs, and what each does first.

mod cluster;
mod compare;
mod experiment;
mod simulate;
mod vm;

use clap::{Parser, Subcommand};
use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;

/// The cluster on one machine: the director VM, network namespaces, daemons, the demo.
#[derive(Debug, Parser)]
#[command(name = "cssns", version)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// The whole cluster at work: stores files through one node, downloads them through the VIP.
    Demo(cluster::Demo),
    /// Takes a kept cluster apart, or what an earlier run left.
    Down {
        #[command(flatten)]
        which: cluster::Which,
        /// Every run there is.
        #[arg(long, conflicts_with = "run")]
        all: bool,
    },
    /// Lists the runs that are there.
    List,
    /// Nodes of a kept cluster.
    #[command(subcommand)]
    Node(cluster::NodeVerb),
    /// Runs a command on the director: `cssns director -- ipvsadm -Ln`.
    Director {
        #[command(flatten)]
        which: cluster::Which,
        /// The command.
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
    /// Runs a command where the clients are: `cssns client -- curl http://198.18.0.100/`.
    Client {
        #[command(flatten)]
        which: cluster::Which,
        /// The command.
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
    /// Compares schedulers by turns in a real cluster with narrow links.
    Compare(compare::Compare),
    /// Runs the paper's experiment: tables, figures, and a report beside the paper's.
    Experiment(experiment::Experiment),
    /// Compares the director's schedulers in a simulated cluster.
    Simulate(simulate::Simulate),
    /// A guest with the target kernel, alone.
    #[command(subcommand)]
    Vm(vm::Verb),
}

/// Runs the command line; errors are printed here and become status 1.
pub fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_env("CSSNS_LOG")
                .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn")),
        )
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .without_time()
        .init();
    let result = match Cli::parse().verb {
        Verb::Demo(arguments) => cluster::demo(&arguments),
        Verb::Down { which, all } => cluster::down(&which, all),
        Verb::List => Ok(cluster::list()),
        Verb::Node(verb) => cluster::node(&verb),
        Verb::Director { which, command } => cluster::director(&which, &command),
        Verb::Client { which, command } => cluster::client(&which, &command),
        Verb::Compare(arguments) => compare::run(&arguments),
        Verb::Experiment(arguments) => experiment::run(&arguments),
        Verb::Simulate(arguments) => simulate::run(&arguments),
        Verb::Vm(verb) => vm::run(verb),
    };
    result.unwrap_or_else(|error| {
        eprintln!("cssns: {error:#}");
        ExitCode::FAILURE
    })
}

/// Prints what a command in the cluster said. A reader who has seen enough (`| head`) is no error.
fn print_output(output: &cssns::vm::Output) {
    let _ = std::io::stdout().write_all(output.stdout.as_bytes());
    let _ = std::io::stderr().write_all(output.stderr.as_bytes());
}
