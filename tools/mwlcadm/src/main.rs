// SPDX-License-Identifier: MIT
//! Administer the ipvs_mwlc director.

use std::process::ExitCode;

fn main() -> ExitCode {
    mwlcadm::run(std::env::args_os())
}
