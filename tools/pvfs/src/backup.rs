// SPDX-License-Identifier: MIT
//! `pvfs backup`: fetches a copy of mgr's store, part by part, while the file system is in use.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use pvfs::error::FsError;
use pvfs::proto::backup::BackupPart;
use pvfs::proto::mgr::{MgrOperation, MgrResponse};
use pvfs::runtime::random_u64;

use crate::interruption::Interruption;
use crate::progress::{Progress, Unit};
use crate::rpc::{Mgr, RpcError, TIMEOUT_DEFAULT};
use crate::unfinished::{Existing, Unfinished};
use crate::{human, output, target};

/// Names are not for everybody.
const MODE: u32 = 0o600;
/// Pause before mgr is asked again for what is not there yet.
const PAUSE: Duration = Duration::from_millis(100);

/// Command line of `pvfs backup`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where the copy goes
    file: PathBuf,
    /// Where mgr is: HOST[:PORT], or a path on a PVFS mount
    #[arg(env = target::MGR_VARIABLE)]
    mgr: Option<String>,
    /// Replace FILE where it is there, and keep a copy with damaged records
    #[arg(long)]
    force: bool,
    /// Show no progress
    #[arg(long, short)]
    quiet: bool,
}

/// Fetches, and says what there is.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let existing = match args.force {
        true => Existing::Replaced,
        false => Existing::Kept,
    };
    let path = &args.file;
    ensure!(
        existing == Existing::Replaced || path.symlink_metadata().is_err(),
        "{} is there already: --force replaces it",
        path.display()
    );
    let endpoint = target::mgr(args.mgr.as_deref())?;
    let interruption = Interruption::watch("pvfs backup").context("cannot take signals")?;
    let mut backup = Backup {
        mgr: Mgr::connect(&endpoint, TIMEOUT_DEFAULT)?,
        copy: random_u64(),
        interruption: interruption.clone(),
        progress: Progress::new("pvfs backup", args.quiet),
        forced: args.force,
    };
    let start = Instant::now();
    let outcome = backup.make(path, existing);
    backup.progress.finish();
    if let Some(status) = interruption.status() {
        return Ok(status);
    }
    let Copied { bytes, records } = outcome?;
    let (size, seconds) = (human::decimal(bytes), start.elapsed().as_secs_f64());
    output::line(format!(
        "{}: {records} records, {size} in {seconds:.2} s",
        path.display()
    ))?;
    Ok(ExitCode::SUCCESS)
}

/// What a copy has.
struct Copied {
    bytes: u64,
    records: u64,
}

/// A copy that is being fetched.
struct Backup {
    mgr: Mgr,
    /// Its number.
    copy: u64,
    interruption: Interruption,
    progress: Progress,
    /// A copy with damaged records will do.
    forced: bool,
}

impl Backup {
    /// Fetches a copy, and gives it its name when all of it is on the disk.
    fn make(&mut self, path: &Path, existing: Existing) -> anyhow::Result<Copied> {
        let unfinished = Unfinished::new(path);
        let temporary = unfinished.temporary();
        let failed = || format!("cannot write {}", temporary.display());
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(MODE)
            .open(temporary)
            .with_context(failed)?;
        let copied = self.fetch(&mut file)?;
        file.sync_all().with_context(failed)?;
        unfinished.finish(existing)?;
        sync_directory_of(path)?;
        Ok(copied)
    }

    fn fetch(&mut self, file: &mut File) -> anyhow::Result<Copied> {
        let mut offset = 0;
        let mut phase = "";
        loop {
            self.interruption.check()?;
            match self.part(offset)? {
                BackupPart::Copying {
                    bytes_done,
                    bytes_total,
                } => {
                    self.enter(&mut phase, "copying at mgr", Some(bytes_total));
                    self.progress.set(bytes_done);
                    std::thread::sleep(PAUSE);
                }
                BackupPart::Checking => {
                    self.enter(&mut phase, "checking at mgr", None);
                    std::thread::sleep(PAUSE);
                }
                BackupPart::Bytes {
                    bytes,
                    bytes_total,
                    records,
                    damaged_records,
                } => {
                    self.enter(&mut phase, "fetching", Some(bytes_total));
                    ensure!(
                        damaged_records == 0 || self.forced,
                        "{damaged_records} of mgr's {records} records are damaged: --force makes the \
                         copy all the same; the log of mgr at its next start names them"
                    );
                    if bytes.is_empty() {
                        ensure!(
                            offset == bytes_total,
                            "mgr gave {offset} of {bytes_total} bytes"
                        );
                        return Ok(Copied {
                            bytes: offset,
                            records,
                        });
                    }
                    file.write_all(&bytes).context("cannot write the copy")?;
                    offset += bytes.len() as u64;
                    self.progress.set(offset);
                }
            }
        }
    }

    /// Shows another phase.
    fn enter(&self, phase: &mut &'static str, next: &'static str, total: Option<u64>) {
        if *phase != next {
            *phase = next;
            self.progress.start(next, Unit::Bytes, total);
        }
    }

    fn part(&mut self, offset: u64) -> anyhow::Result<BackupPart> {
        let copy = self.copy;
        match self.mgr.call(MgrOperation::Backup { copy, offset }) {
            Ok(MgrResponse::Backup(part)) => Ok(part),
            Ok(_) => Err(self.mgr.unexpected().into()),
            Err(RpcError::Refused { error, .. }) => bail!("mgr {}", in_words(error)),
            Err(error) => Err(error.into()),
        }
    }
}

fn in_words(error: FsError) -> String {
    match error {
        FsError::NotPermitted => "gives a copy of its records to root alone".to_owned(),
        FsError::Busy => "makes a backup for somebody else: try again later".to_owned(),
        FsError::Stale => "has given the copy up, since it was fetched too slowly".to_owned(),
        FsError::NoSpace => "has no room for a copy on its own disk; its log says more".to_owned(),
        other => format!("cannot make a copy ({other}); its log says more"),
    }
}

fn sync_directory_of(path: &Path) -> anyhow::Result<()> {
    let parent = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    let directory = parent.unwrap_or(Path::new("."));
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .with_context(|| format!("cannot flush {}", directory.display()))
}
