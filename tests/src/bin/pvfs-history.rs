// SPDX-License-Identifier: MIT
//! `pvfs-history`: the worker of [`cssns_tests::history`], until its input ends.
//!
//! A process of its own, because one that starts a daemon while it has a file open on a mount may wait
//! for that daemon: exec(2) closes the child's copy, and close waits.

use std::process::ExitCode;

fn main() -> ExitCode {
    let (input, output) = (std::io::stdin().lock(), std::io::stdout().lock());
    match cssns_tests::history::worker::serve(input, output) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
