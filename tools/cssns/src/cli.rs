// SPDX-License-Identifier: MIT
//! The command line: verbs, and what each does first.

mod vm;

use clap::{Parser, Subcommand};
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
        .without_time()
        .init();
    let result = match Cli::parse().verb {
        Verb::Vm(verb) => vm::run(verb),
    };
    result.unwrap_or_else(|error| {
        eprintln!("cssns: {error:#}");
        ExitCode::FAILURE
    })
}
