// SPDX-License-Identifier: MIT
//! `pvfs man`: the manual page, made from the command line's own description so that it stays true.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::CommandFactory;

use crate::cli::Cli;

/// Command line of `pvfs man`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Directory for pvfs.1 and one page for each subcommand
    out: PathBuf,
}

/// Writes `pvfs.1` and `pvfs-VERB.1`.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    std::fs::create_dir_all(&args.out).with_context(|| args.out.display().to_string())?;
    clap_mangen::generate_to(Cli::command(), &args.out)
        .with_context(|| args.out.display().to_string())?;
    Ok(ExitCode::SUCCESS)
}
