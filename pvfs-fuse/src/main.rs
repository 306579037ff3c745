// SPDX-License-Identifier: MIT
//! PVFS FUSE client: `pvfs-fuse`, and under the names `mount.fuse.pvfs` and `mount.pvfs` the helper
//! that mount(8) calls.

use std::process::ExitCode;

use pvfs_fuse::cli::{Arguments, How};
use pvfs_fuse::{background, cli, guard, log, mount};

fn main() -> ExitCode {
    let words: Vec<_> = std::env::args_os().collect();
    if let Some(status) = guard::run(&words) {
        return status;
    }
    let arguments = match cli::parse(words) {
        Ok(arguments) => arguments,
        Err(code) => return code,
    };
    match arguments.how {
        How::Fake => ExitCode::SUCCESS,
        _ if arguments.options.remount => ended(mount::remount(&arguments)),
        How::Background => background::launch(&arguments),
        How::Foreground => run(&arguments, || {
            println!("ready {}", arguments.mountpoint.display())
        }),
        How::Detached => run(&arguments, background::detached),
    }
}

fn run(arguments: &Arguments, ready: impl FnOnce()) -> ExitCode {
    log::start(&arguments.log, arguments.how == How::Detached);
    ended(mount::run(arguments, ready))
}

fn ended(outcome: anyhow::Result<()>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("pvfs-fuse: {error:#}");
            ExitCode::from(cli::MOUNT_FAILURE)
        }
    }
}
