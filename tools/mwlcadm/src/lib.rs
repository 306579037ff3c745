// SPDX-License-Identifier: MIT
//! mwlcadm: ipvsadm's command line, and what IPVS has no words for, on the director `ipvs_mwlc`.
//!
//! - [`genl`] is the only file that talks to a socket: generic netlink messages and their errors.
//! - [`ipvs`] and [`mwlc`] speak the two families in typed form.
//! - [`names`] and [`values`] are what the command line is made of.
//! - [`ipvsadm`] is ipvsadm's grammar and its listings; [`commands`] are the subcommands of our own.
//! - `check` finds what commonly goes wrong.
//! - [`saved`] writes and reads the whole configuration as text.

pub mod arguments;
mod check;
pub mod commands;
pub mod documents;
mod drain;
pub mod error;
pub mod genl;
pub mod ipvs;
pub mod ipvsadm;
mod monitor;
pub mod mwlc;
pub mod names;
pub mod saved;
pub mod show;
mod sizes;
mod state;
mod top;
mod turned_away;
mod utc;
pub mod values;

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use crate::error::Error;
use crate::ipvsadm::Action;

/// Runs the command line and answers the exit code: 0, 1 for a failure, 2 for a wrong command line.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let mut output = std::io::stdout().lock();
    let result = if commands::is_ours(&arguments) {
        commands::run(&arguments, &mut output)
    } else {
        run_ipvsadm(arguments.into_iter().skip(1), &mut output)
    };
    let result = result.and_then(|()| output.flush().map_err(Error::Output));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        // The reader of a pipe has seen enough.
        Err(Error::Output(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => {
            ExitCode::SUCCESS
        }
        Err(Error::CommandLine(error)) => {
            // clap knows whether this is help for stdout or a complaint for stderr.
            let code = u8::try_from(error.exit_code()).unwrap_or(2);
            match error.print() {
                Ok(()) => ExitCode::from(code),
                Err(_) => ExitCode::FAILURE,
            }
        }
        Err(error) => {
            eprintln!("mwlcadm: {error}");
            ExitCode::from(if matches!(error, Error::Usage(_)) {
                2
            } else {
                1
            })
        }
    }
}

/// Runs a command line of ipvsadm's, without the program's name.
fn run_ipvsadm(
    arguments: impl Iterator<Item = OsString>,
    output: &mut impl Write,
) -> Result<(), Error> {
    match ipvsadm::parse(arguments)? {
        Action::Restore => saved::restore(std::io::stdin().lock(), saved::Start::AsItIs),
        Action::Save { numeric } => saved::save(numeric, output),
        action => ipvsadm::run(action, output),
    }
}
