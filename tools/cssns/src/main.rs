// SPDX-License-Identifier: MIT
//! `cssns`: the cluster on one machine, from the command line.

mod cli;

fn main() -> std::process::ExitCode {
    cli::main()
}
