// SPDX-License-Identifier: MIT
//! A child that does not outlive its parent: asks the kernel for SIGTERM at the parent's death, then
//! becomes the program.
//!
//! `PR_SET_PDEATHSIG` must be asked for by the child itself. Doing that between fork and exec needs
//! unsafe code; a small program of our own in between needs none. The signal survives exec(2).

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use anyhow::Context;
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::{Pid, getppid};

/// Command line of `pvfs tether`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The parent: if it is gone already, nothing is started
    parent: i32,
    /// Program and its arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
    command: Vec<OsString>,
}

/// Returns only where the program cannot be started.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    prctl::set_pdeathsig(Signal::SIGTERM).context("prctl(PR_SET_PDEATHSIG)")?;
    // The parent may have died before the line above; then its death is never signalled.
    if getppid() != Pid::from_raw(args.parent) {
        anyhow::bail!("the parent process {} is gone", args.parent);
    }
    let (program, arguments) = args.command.split_first().context("no program is given")?;
    let error = Command::new(program).args(arguments).exec();
    Err(error).with_context(|| format!("cannot run {}", program.to_string_lossy()))
}

/// The command that runs `program` tethered to this process.
pub fn command(
    program: &std::path::Path,
    arguments: &[OsString],
) -> std::io::Result<tokio::process::Command> {
    let mut command = tokio::process::Command::new(std::env::current_exe()?);
    command
        .arg("tether")
        .arg(std::process::id().to_string())
        .arg("--")
        .arg(program);
    command.args(arguments);
    Ok(command)
}
