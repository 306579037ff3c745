// SPDX-License-Identifier: MIT
//! `pvfs scrub`: has every iod read all that it has from its disk and compare it with the checksums, so
//! that damage is found while there may still be another copy.

mod report;

use std::process::ExitCode;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use pvfs::error::FsError;
use pvfs::ids::{IodId, ObjectId};
use pvfs::limits::SCRUB_BYTES_MAX;
use pvfs::proto::iod::{IodRequest, IodResponse};
use pvfs::proto::mgr::{MgrOperation, MgrResponse};

use crate::fsck::objects::list;
use crate::fsck::paths;
use crate::human;
use crate::progress::{Progress, Unit};
use crate::rpc::{Iod, Mgr, RpcError, TIMEOUT_DEFAULT};
use crate::{output, target};
use report::{Damaged, Report, What};

/// A session with mgr lives for a minute; this is far below.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// Damaged parts that are told one by one; the rest are only counted.
const DAMAGE_TOLD_MAX: usize = 10_000;

/// Command line of `pvfs scrub`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where mgr is: HOST[:PORT], or a path on a PVFS mount
    #[arg(env = target::MGR_VARIABLE)]
    mgr: Option<String>,
    /// Bytes to read in a second of all iods together, such as 100M; no limit without it
    #[arg(long, value_name = "BYTES", value_parser = human::parse_u32)]
    rate: Option<u32>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Show no progress
    #[arg(long, short)]
    quiet: bool,
}

/// What a thread that reads at an iod tells.
enum Event {
    /// So much was compared.
    Bytes(u64),
    /// An object was gone through.
    Object,
    /// Something is wrong with one.
    Damaged(Damaged),
    /// The iod could not be gone through to its end.
    LeftOut(IodId, String),
}

/// Scrubs, prints, and says how it went: 0 all is well, 4 something is damaged, 8 not all could be
/// read.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    match scrub(args) {
        Ok(report) => {
            report.print(args.json)?;
            Ok(ExitCode::from(report.status()))
        }
        Err(error) => {
            output::note(format!("pvfs scrub: {error:#}"));
            Ok(ExitCode::from(report::OPERATIONAL_ERROR))
        }
    }
}

fn scrub(args: &Args) -> anyhow::Result<Report> {
    // It keeps all disks busy and names files that not everybody may see.
    anyhow::ensure!(
        nix::unistd::geteuid().is_root(),
        "only root may scrub a file system"
    );
    let endpoint = target::mgr(args.mgr.as_deref())?;
    let mut mgr = Mgr::connect(&endpoint, TIMEOUT_DEFAULT)?;
    let mut report = Report::default();
    let progress = Progress::new("pvfs scrub", args.quiet);
    let mut iods = Vec::new();
    let mut bytes_about = 0;
    for status in mgr.iods()? {
        match Iod::connect(&status, mgr.hello.file_system, TIMEOUT_DEFAULT) {
            Ok(iod) => {
                let space = status.report.space;
                bytes_about += space.bytes_total.saturating_sub(space.bytes_free);
                iods.push((status.iod, iod));
            }
            Err(error) => report.leave_out(status.iod, error.to_string()),
        }
    }
    let pace = Pace::new(args.rate);
    // The disks may hold other things, so this is an upper limit.
    progress.start("scrubbing", Unit::Bytes, Some(bytes_about));
    let (sender, events) = mpsc::channel();
    std::thread::scope(|scope| -> anyhow::Result<()> {
        for (id, mut iod) in iods {
            let (events, pace) = (sender.clone(), &pace);
            scope.spawn(move || {
                if let Err(error) = scrub_iod(id, &mut iod, pace, &events) {
                    // Nobody listens only when the command ends.
                    let _ = events.send(Event::LeftOut(id, error.to_string()));
                }
            });
        }
        drop(sender);
        let mut heard = Instant::now();
        loop {
            match events.recv_timeout(KEEP_ALIVE) {
                Ok(Event::Bytes(bytes)) => {
                    report.bytes += bytes;
                    progress.add(bytes);
                }
                Ok(Event::Object) => report.objects += 1,
                Ok(Event::Damaged(damaged)) if report.damaged.len() < DAMAGE_TOLD_MAX => {
                    report.damaged.push(damaged);
                }
                Ok(Event::Damaged(_)) => report.untold += 1,
                Ok(Event::LeftOut(iod, why)) => report.leave_out(iod, why),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
            if heard.elapsed() >= KEEP_ALIVE {
                mgr.call(MgrOperation::KeepAlive)?;
                heard = Instant::now();
            }
        }
    })?;
    progress.start("paths", Unit::Items, None);
    name_files(&mut mgr, &mut report)?;
    progress.finish();
    Ok(report)
}

fn scrub_iod(
    id: IodId,
    iod: &mut Iod,
    pace: &Pace,
    events: &Sender<Event>,
) -> Result<(), RpcError> {
    let mut after = None;
    loop {
        let (objects, end) = list(iod, after)?;
        after = objects.last().copied();
        for object in objects {
            scrub_object(id, iod, object, pace, events)?;
            let _ = events.send(Event::Object);
        }
        if end || after.is_none() {
            return Ok(());
        }
    }
}

fn scrub_object(
    id: IodId,
    iod: &mut Iod,
    object: ObjectId,
    pace: &Pace,
    events: &Sender<Event>,
) -> Result<(), RpcError> {
    let mut next = Some(0);
    while let Some(offset) = next {
        // No more than a second's worth at once, so that the rate is even.
        let length = pace
            .rate
            .map_or(SCRUB_BYTES_MAX, |rate| rate.clamp(1, SCRUB_BYTES_MAX));
        let request = IodRequest::Scrub {
            object,
            offset,
            length: u32::try_from(length).unwrap_or(u32::MAX),
        };
        let what = match iod.call(&request) {
            Ok(IodResponse::Scrubbed {
                bytes,
                damage,
                next: more,
            }) => {
                // An iod that goes back would be asked for ever.
                next = more.filter(|more| *more > offset);
                let _ = events.send(Event::Bytes(bytes));
                pace.wait(bytes);
                if damage.is_empty() {
                    continue;
                }
                What::Blocks(damage)
            }
            Ok(_) => return Err(iod.unexpected()),
            // It says so in its log, with the reason.
            Err(RpcError::Refused {
                error: FsError::Io, ..
            }) => {
                next = None;
                What::From(offset)
            }
            Err(error) => return Err(error),
        };
        let _ = events.send(Event::Damaged(Damaged {
            iod: id,
            object,
            what,
            path: None,
            of_file: Vec::new(),
        }));
    }
    Ok(())
}

/// Finds out of which file, and of which bytes of it, each damaged part is.
fn name_files(mgr: &mut Mgr, report: &mut Report) -> anyhow::Result<()> {
    let damaged = report.damaged.iter();
    let inodes = damaged.map(|damaged| damaged.object.inode).collect();
    let paths = paths::of_inodes(mgr, inodes)?;
    for damaged in &mut report.damaged {
        let inode = damaged.object.inode;
        let layout = match mgr.call(MgrOperation::GetLayout { inode }) {
            Ok(MgrResponse::Layout {
                layout: Some(layout),
                object: Some(object),
                ..
            }) if object == damaged.object => layout,
            Ok(_)
            | Err(RpcError::Refused {
                error: FsError::Stale,
                ..
            }) => continue,
            Err(error) => return Err(error.into()),
        };
        damaged.path = paths.path(inode);
        damaged.locate(&layout);
    }
    Ok(())
}

/// Keeps all threads together under a rate.
struct Pace {
    rate: Option<u64>,
    /// When what has been read so far may have been read.
    due: Mutex<Instant>,
}

impl Pace {
    fn new(bytes_per_second: Option<u32>) -> Self {
        Self {
            rate: bytes_per_second.map(u64::from),
            due: Mutex::new(Instant::now()),
        }
    }

    /// Waits as long as `bytes` may take.
    fn wait(&self, bytes: u64) {
        let Some(rate) = self.rate else { return };
        let now = Instant::now();
        let due = {
            let mut due = self.due.lock().unwrap_or_else(PoisonError::into_inner);
            *due = after(*due, now, bytes, rate);
            *due
        };
        std::thread::sleep(due.saturating_duration_since(now));
    }
}

/// When the next bytes are due. Time that nobody used is not made up for.
fn after(due: Instant, now: Instant, bytes: u64, rate: u64) -> Instant {
    due.max(now) + Duration::from_secs_f64(bytes as f64 / rate.max(1) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_kept_by_all_together() {
        let start = Instant::now();
        let mut due = start;
        for _ in 0..4 {
            due = after(due, start, 500, 1000);
        }
        assert_eq!(due - start, Duration::from_secs(2));
        let later = start + Duration::from_secs(10);
        assert_eq!(after(due, later, 0, 1000), later);
    }
}
