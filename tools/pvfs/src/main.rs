// SPDX-License-Identifier: MIT
//! `pvfs`: run, inspect and fill a PVFS file system from the command line.

#![deny(clippy::print_stdout, clippy::print_stderr)]

mod backup;
mod cli;
mod cp;
mod dev;
mod df;
mod fsck;
mod human;
mod interruption;
mod layout;
mod left_out;
mod man;
mod output;
mod ping;
mod progress;
mod rpc;
mod scrub;
mod stat;
mod status;
mod table;
mod target;
mod unfinished;

fn main() -> std::process::ExitCode {
    cli::main()
}
