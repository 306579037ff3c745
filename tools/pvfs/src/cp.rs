// SPDX-License-Identifier: MIT
//! `pvfs cp`: copies files into, out of or within PVFS (u2p of PVFS 1), with all iods in parallel.
//!
//! [`plan`] says what is copied where, [`content`] opens both ends of a file: a PVFS file through
//! the client library where mgr and iods can be reached, anything else through the kernel.
//! [`transfer`] moves blocks between the ends with several threads, [`progress`] shows how it goes.
//! A new file has a temporary name until it is whole ([`crate::unfinished`]).

mod content;
mod direct;
mod plan;
mod progress;
mod transfer;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};

use content::Gateways;
use plan::{Item, Plan};
use progress::Progress;
use transfer::Transfer;

use crate::interruption::Interruption;
use crate::output;

/// Command line of `pvfs cp`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Files (with -r also directories) to copy, and where to
    #[arg(required = true, num_args = 2.., value_names = ["SRC", "DST"])]
    paths: Vec<PathBuf>,
    /// Copy directories with all that is in them; symbolic links are copied as links
    #[arg(short, long)]
    recursive: bool,
    /// Preserve mode, times and, as root, owner and group
    #[arg(short, long)]
    preserve: bool,
    /// Read everything again afterwards and compare
    #[arg(long)]
    verify: bool,
    /// Return only when the copies are on disk
    #[arg(long)]
    sync: bool,
    /// Copy through the mount even where mgr and iods can be reached
    #[arg(long)]
    no_direct: bool,
    /// Blocks on their way at a time
    #[arg(short, long, default_value_t = 4,
          value_parser = clap::value_parser!(u16).range(1..=64))]
    jobs: u16,
    /// Show no progress
    #[arg(short, long)]
    quiet: bool,
}

/// Copies. Status 1 where something was not copied: a line on stderr says what and why.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let Some((destination, sources)) = args.paths.split_last() else {
        bail!("give a source and a destination");
    };
    let plan = Plan::make(sources, destination, args.recursive)?;
    let progress = Progress::new(plan.bytes(), args.quiet);
    let interruption = Interruption::watch("pvfs cp").context("cannot take signals")?;
    let gateways = Gateways::new(!args.no_direct, &interruption);
    let transfer = Transfer {
        gateways: &gateways,
        progress: &progress,
        interruption: &interruption,
        jobs: args.jobs,
        sync: args.sync,
    };
    let mut failures = plan.problems.clone();
    failures.extend(make_directories(&plan));
    let not_copied = transfer.copy(&plan.files);
    let copied = plan.files.len() - not_copied.len();
    failures.extend(not_copied);
    failures.extend(make_links(&plan));
    if args.verify && failures.is_empty() {
        progress.restart("verifying");
        failures.extend(transfer.verify(&plan.files));
    }
    if args.preserve {
        failures.extend(preserve(&plan));
    }
    progress.finish();
    match interruption.status() {
        // Each file that was not copied would say the same.
        Some(_) => output::note(format!("pvfs cp: interrupted; {copied} files are whole")),
        None => failures
            .iter()
            .for_each(|failure| output::note(format!("pvfs cp: {failure}"))),
    }
    let how = if gateways.used_direct() {
        "direct"
    } else {
        "through the mount"
    };
    output::line(format!(
        "{}{}",
        progress.summary(copied, how),
        verified(args, &failures)
    ))?;
    Ok(match interruption.status() {
        Some(status) => status,
        None if failures.is_empty() => ExitCode::SUCCESS,
        None => ExitCode::FAILURE,
    })
}

fn verified(args: &Args, failures: &[String]) -> &'static str {
    if args.verify && failures.is_empty() {
        ", verified"
    } else {
        ""
    }
}

/// Failures in words.
fn each<'p>(
    items: impl IntoIterator<Item = &'p Item>,
    action: impl Fn(&Item) -> anyhow::Result<()>,
) -> Vec<String> {
    items
        .into_iter()
        .filter_map(|item| action(item).err())
        .map(|e| format!("{e:#}"))
        .collect()
}

fn make_directories(plan: &Plan) -> Vec<String> {
    each(&plan.directories, |item| {
        match std::fs::create_dir(&item.to) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists && item.to.is_dir() => {
                Ok(())
            }
            result => result.with_context(|| format!("cannot make {}", item.to.display())),
        }
    })
}

fn make_links(plan: &Plan) -> Vec<String> {
    each(&plan.links, |item| {
        let target = std::fs::read_link(&item.from)
            .with_context(|| format!("cannot read {}", item.from.display()))?;
        if item.to.is_symlink() {
            std::fs::remove_file(&item.to)
                .with_context(|| format!("cannot replace {}", item.to.display()))?;
        }
        std::os::unix::fs::symlink(target, &item.to)
            .with_context(|| format!("cannot make {}", item.to.display()))
    })
}

/// Owners first, since chown drops set-uid bits; directories last and deepest first, since their
/// times change when something is made in them.
fn preserve(plan: &Plan) -> Vec<String> {
    let items = plan.files.iter().chain(plan.directories.iter().rev());
    let mut failures = each(items, |item| {
        plan::preserve(item).with_context(|| {
            format!(
                "{} is copied, but not all its attributes",
                item.to.display()
            )
        })
    });
    failures.extend(each(&plan.links, |item| {
        plan::preserve_owner(item)
            .with_context(|| format!("{} is copied, but not its owner", item.to.display()))
    }));
    failures
}
