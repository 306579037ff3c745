// SPDX-License-Identifier: MIT
//! `pvfs cp`
use std::process::ExitCode;
/// Command line of `pvfs cp`.
#[derive(Debug, clap::Args)]
pub struct Args {}
/// x
pub fn run(_args: &Args) -> anyhow::Result<ExitCode> {
    Ok(ExitCode::FAILURE)
}
