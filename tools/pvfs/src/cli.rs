// SPDX-License-Identifier: MIT
//! The command line: verbs, and what each runs.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::{cp, dev, df, layout, man, ping, stat};

/// Run, inspect and fill a PVFS file system
#[derive(Debug, Parser)]
#[command(
    name = "pvfs",
    version,
    after_help = "Environment: PVFS_MGR names mgr as HOST[:PORT]."
)]
pub struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run mgr, iods and mounts on this machine until Ctrl-C
    Dev(dev::Args),
    /// Ask mgr and every iod whether they are alive
    Ping(ping::Args),
    /// Show a file's striping and the bytes on each iod
    Stat(stat::Args),
    /// Copy files into, out of or within PVFS, all iods in parallel
    Cp(cp::Args),
    /// Show the space on each iod and in all
    Df(df::Args),
    /// Show or set how files are striped
    #[command(subcommand)]
    Layout(layout::Verb),
    /// Write the manual page of this command (for packagers)
    #[command(hide = true)]
    Man(man::Args),
    /// Run a program that ends when this process's parent ends (used by `pvfs dev`)
    #[command(hide = true)]
    Tether(dev::tether::Args),
}

/// Runs the command line; errors are printed here and become status 1.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let filter = tracing_subscriber::EnvFilter::try_from_env("PVFS_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
    let (name, result) = match &cli.verb {
        Verb::Dev(args) => ("dev", dev::run(args)),
        Verb::Ping(args) => ("ping", ping::run(args)),
        Verb::Stat(args) => ("stat", stat::run(args)),
        Verb::Cp(args) => ("cp", cp::run(args)),
        Verb::Df(args) => ("df", df::run(args)),
        Verb::Layout(verb) => ("layout", layout::run(verb)),
        Verb::Man(args) => ("man", man::run(args)),
        Verb::Tether(args) => ("tether", dev::tether::run(args)),
    };
    result.unwrap_or_else(|error| {
        eprintln!("pvfs {name}: {error:#}");
        ExitCode::FAILURE
    })
}
