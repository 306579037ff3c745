// SPDX-License-Identifier: MIT
//! The command line: verbs, and what each runs.

use std::io::IsTerminal as _;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};

use pvfs::log_filter::LogFilter;

use crate::output::{self, OutputError};
use crate::{backup, cp, dev, df, fsck, layout, man, ping, scrub, stat, status};

/// Run, inspect and fill a PVFS file system
#[derive(Debug, Parser)]
#[command(
    name = "pvfs",
    version,
    after_help = "Environment: PVFS_MGR names mgr as HOST[:PORT]."
)]
pub struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run mgr, iods and mounts on this machine until Ctrl-C
    ///
    /// The way to try PVFS without any set-up. Prints one line, `ready mgr HOST:PORT, N iods,
    /// mounted on DIR...`, when everything is usable. SIGINT, SIGTERM and SIGHUP stop it with
    /// status 0; a daemon that ends by itself stops it with status 1 and is named, with the end of
    /// its log. The logs are in the data directory under log/.
    Dev(dev::Args),
    /// Ask mgr and every iod whether they are alive
    ///
    /// Without an argument and without PVFS_MGR, mgr is that of the mount in which the command runs,
    /// or of the only PVFS file system mounted here. Status 0: all are alive; 1: something is away,
    /// and its line says what; 2: it is not clear whom to ask.
    Ping(ping::Args),
    /// Show mgr, each iod and their space on one screen, as mgr knows them
    ///
    /// For each iod: whether it is alive, suspect (silent for 1.5 s), away or stopped, and for how
    /// long; the size and use of its disk, the use of its inodes, and whether it can be written to.
    /// Asks mgr alone: where an iod answers mgr but not this machine, `pvfs ping` says so. Status 0:
    /// mgr and all iods are alive; 1: something is not; 2: it is not clear whom to ask.
    Status(status::Args),
    /// Show a file's striping and the bytes on each iod
    ///
    /// For each iod of a file, the length of the part that it holds and the disk space that this
    /// takes; for a directory, what new files in it get. Status 1 where an iod is away.
    Stat(stat::Args),
    /// Copy files into, out of or within PVFS, all iods in parallel
    ///
    /// A file on PVFS is read and written through mgr and the iods themselves where they can be
    /// reached from here, else through its mount. A new file is called `.NAME.NUMBER.part` until it is
    /// whole; Ctrl-C removes it, kill -9 leaves it. A file that was there is written over in
    /// place, through its mount, which takes leases as any program on it does. The
    /// last line says what was copied at how many MB/s (of a million bytes). Status 1 where something
    /// was not copied, 128 and the signal's number where a signal ended it.
    Cp(cp::Args),
    /// Show the space on each iod and in all
    ///
    /// Status 1 where an iod is away; its line then shows what it said last.
    Df(df::Args),
    /// Find and repair contradictions in mgr's records, and between them and the iods
    ///
    /// Works while the file system is used, and changes nothing without --repair. Statuses as of
    /// fsck(8), added up: 0: nothing is wrong; 1: something was, and is repaired; 4: something is
    /// wrong and left; 8: not everything could be looked at. What is repaired: names, counts of
    /// links, entries and inodes, sizes, and records that contradict each other; inodes without a
    /// name get one in /lost+found; stripes of no file become files in /lost+found. Only root may check.
    Fsck(fsck::Args),
    /// Copy mgr's records to a file, while the file system is used
    ///
    /// The copy has everything that was acknowledged before the command began, and is compared with the
    /// records' checksums before it has its name: until then it is called `.NAME.NUMBER.part`. mgr
    /// keeps a copy on its own disk meanwhile, and makes one at a time. `pvfs-mgr --restore FILE` makes
    /// a data directory of it. Files' contents are not in it: they stay at the iods. Status 0: the copy
    /// is whole; 1: there is none; 128 and the signal's number where a signal ended it. Only root may
    /// back up.
    Backup(backup::Args),
    /// Have all iods read what they have and compare it with its checksums
    ///
    /// Names the files that are damaged, and which bytes of them. The iods' page caches forget what
    /// is read, so that it comes from the disks. Status 0: all is well; 4: something is damaged; 8:
    /// not all could be read. Only root may scrub.
    Scrub(scrub::Args),
    /// Show or set how files are striped
    #[command(subcommand)]
    Layout(layout::Verb),
    /// Write a shell's completions to standard output
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Write the manual page of this command (for packagers)
    #[command(hide = true)]
    Man(man::Args),
    /// Run a program that ends when this process's parent ends (used by `pvfs dev`)
    #[command(hide = true)]
    Tether(dev::tether::Args),
}

/// The environment variable that says what is logged.
const LOG_VARIABLE: &str = "PVFS_LOG";

/// Runs the command line; errors are printed here and become status 1. A reader of a pipe that has
/// seen enough is no error.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    start_log();
    let (name, result) = match &cli.verb {
        Verb::Dev(args) => ("dev", dev::run(args)),
        Verb::Ping(args) => ("ping", ping::run(args)),
        Verb::Status(args) => ("status", status::run(args)),
        Verb::Stat(args) => ("stat", stat::run(args)),
        Verb::Cp(args) => ("cp", cp::run(args)),
        Verb::Df(args) => ("df", df::run(args)),
        Verb::Fsck(args) => ("fsck", fsck::run(args)),
        Verb::Backup(args) => ("backup", backup::run(args)),
        Verb::Scrub(args) => ("scrub", scrub::run(args)),
        Verb::Layout(verb) => ("layout", layout::run(verb)),
        Verb::Completions { shell } => ("completions", man::completions(*shell, Cli::command())),
        Verb::Man(args) => ("man", man::run(args, Cli::command())),
        Verb::Tether(args) => ("tether", dev::tether::run(args)),
    };
    match result {
        Ok(status) => status,
        Err(error) if OutputError::is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            output::note(format!("pvfs {name}: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// What the client library logs goes to standard error.
fn start_log() {
    let filter = match std::env::var(LOG_VARIABLE) {
        Ok(text) => text.parse::<LogFilter>().unwrap_or_else(|error| {
            output::note(format!("pvfs: {LOG_VARIABLE}: {error}"));
            LogFilter::WARN
        }),
        Err(_) => LogFilter::WARN,
    };
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::new(filter.as_str()))
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();
}
