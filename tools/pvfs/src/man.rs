// SPDX-License-Identifier: MIT
//! `pvfs man` and `pvfs completions`: made from the command line's own description so that they
//! stay true. A test compares the manual pages with those in docs/man.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::output;
use anyhow::Context;

/// Command line of `pvfs man`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Directory for pvfs.1 and one page for each subcommand
    out: PathBuf,
}

/// Writes `pvfs.1` and `pvfs-VERB.1` of the command line `command`.
pub fn run(args: &Args, command: clap::Command) -> anyhow::Result<ExitCode> {
    std::fs::create_dir_all(&args.out).with_context(|| args.out.display().to_string())?;
    // `pvfs help` needs no page of its own.
    let command = command.disable_help_subcommand(true);
    clap_mangen::generate_to(command, &args.out).with_context(|| args.out.display().to_string())?;
    Ok(ExitCode::SUCCESS)
}

/// Writes a shell's completions of the command line `command`.
pub fn completions(
    shell: clap_complete::Shell,
    mut command: clap::Command,
) -> anyhow::Result<ExitCode> {
    // clap_complete panics if its output fails, so it writes into memory.
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, "pvfs", &mut script);
    output::raw(&script)?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Cli;
    use clap::CommandFactory;
    use std::path::Path;

    #[test]
    fn the_pages_in_the_documentation_are_these() {
        let dir = tempfile::tempdir().unwrap();
        let args = Args {
            out: dir.path().to_owned(),
        };
        run(&args, Cli::command()).unwrap();
        let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/man");
        let mut pages = 0;
        for entry in std::fs::read_dir(dir.path()).unwrap() {
            let name = entry.unwrap().file_name();
            let page = std::fs::read_to_string(dir.path().join(&name)).unwrap();
            let old = std::fs::read_to_string(kept.join(&name)).unwrap_or_default();
            assert_eq!(page, old, "{name:?} has changed: run `pvfs man docs/man`");
            pages += 1;
        }
        assert!(pages > 5);
    }
}
