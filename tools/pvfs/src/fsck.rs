// SPDX-License-Identifier: MIT
//! `pvfs fsck`: finds and repairs contradictions within mgr's records, and between them and what the
//! iods have, while the file system is in use.
//!
//! Everything is looked at in pages, so whatever is found may have been in the middle of a change: mgr
//! examines each finding once more, and only what is still so counts.

mod census;
mod fields;
pub mod objects;
pub mod paths;
mod report;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context;
use pvfs::error::FsError;
use pvfs::proto::check::{Finding, Page, Section, Verdict};
use pvfs::proto::mgr::{MgrOperation, MgrResponse};

use crate::progress::{Progress, Unit};
use crate::rpc::{Mgr, RpcError, TIMEOUT_DEFAULT};
use crate::{output, target};
use report::{Outcome, Report};

/// After a start of mgr, clients may for so long declare what they have open: some findings cannot be
/// decided before. Its longest session timeout, and a little.
const GRACE_MAX: Duration = Duration::from_secs(90);
/// Pause before mgr is asked again meanwhile.
const GRACE_PAUSE: Duration = Duration::from_secs(1);

/// Command line of `pvfs fsck`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where mgr is: HOST[:PORT], or a path on a PVFS mount
    #[arg(env = target::MGR_VARIABLE)]
    mgr: Option<String>,
    /// Repair what can be repaired; without it, nothing is changed
    #[arg(long)]
    repair: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Show no progress
    #[arg(long, short)]
    quiet: bool,
}

/// Checks, prints, and says how it went as fsck(8) does.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    match check(args) {
        Ok(report) => {
            report.print(args.json)?;
            Ok(ExitCode::from(report.status()))
        }
        Err(error) => {
            output::note(format!("pvfs fsck: {error:#}"));
            Ok(ExitCode::from(report::OPERATIONAL_ERROR))
        }
    }
}

fn check(args: &Args) -> anyhow::Result<Report> {
    let endpoint = target::mgr(args.mgr.as_deref())?;
    let mut mgr = Mgr::connect(&endpoint, TIMEOUT_DEFAULT)?;
    let inodes_about = match mgr.call(MgrOperation::StatFs)? {
        MgrResponse::StatFs(statfs) => statfs.inodes_used,
        _ => return Err(mgr.unexpected().into()),
    };
    let mut fsck = Fsck {
        mgr,
        inodes_about,
        repair: args.repair,
        report: Report::new(args.repair),
        progress: Progress::new("pvfs fsck", args.quiet),
    };
    fsck.check_records()?;
    fsck.take_census()?;
    fsck.check_count()?;
    fsck.check_objects()?;
    fsck.find_paths()?;
    fsck.progress.finish();
    Ok(fsck.report)
}

/// A check that goes on.
struct Fsck {
    mgr: Mgr,
    /// As many as mgr says there are, for the progress.
    inodes_about: u64,
    repair: bool,
    report: Report,
    progress: Progress,
}

impl Fsck {
    /// A page of mgr's records.
    fn page(&mut self, section: Section, after: Vec<u8>) -> anyhow::Result<Page> {
        match self.mgr.call(MgrOperation::Inspect { section, after }) {
            Ok(MgrResponse::Page(page)) => {
                self.report.records += page.records;
                self.progress.add(page.records);
                Ok(page)
            }
            Ok(_) => Err(self.mgr.unexpected().into()),
            Err(error) => Err(error).context("only root may check a file system"),
        }
    }

    /// All pages of a section, one after another.
    fn each_page(
        &mut self,
        section: Section,
        visit: &mut dyn FnMut(&mut Self, Page) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let mut after = Vec::new();
        loop {
            let mut page = self.page(section, after)?;
            let next = page.next.take();
            visit(self, page)?;
            match next {
                Some(next) => after = next,
                None => return Ok(()),
            }
        }
    }

    /// What mgr sees of contradictions between records that stand beside each other.
    fn check_records(&mut self) -> anyhow::Result<()> {
        for section in Section::ALL {
            let about = Some(self.inodes_about);
            let (phase, total) = match section {
                Section::Dentries => ("names", about),
                Section::Cookies => ("places", about),
                Section::Layouts => ("layouts", about),
                Section::Symlinks => ("links", None),
                Section::Xattrs => ("attributes", None),
                Section::Orphans => ("nameless", None),
                Section::Garbage => ("garbage", None),
                Section::Inodes => ("inodes", about),
            };
            self.progress.start(phase, Unit::Items, total);
            self.each_page(section, &mut |fsck, page| {
                for finding in page.findings {
                    fsck.judge(finding)?;
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Has mgr look at a finding once more, and repair it if so asked.
    fn judge(&mut self, finding: Finding) -> anyhow::Result<()> {
        self.look(finding, self.repair)
    }

    /// Has mgr look at a finding once more, which is not to be repaired now.
    fn examine(&mut self, finding: Finding) -> anyhow::Result<()> {
        self.look(finding, false)
    }

    fn look(&mut self, finding: Finding, repair: bool) -> anyhow::Result<()> {
        let start = Instant::now();
        loop {
            let operation = match repair {
                true => MgrOperation::Repair(finding.clone()),
                false => MgrOperation::Examine(finding.clone()),
            };
            let outcome = match self.mgr.call(operation) {
                Ok(MgrResponse::Verdict(Verdict::Gone)) => return Ok(()),
                Ok(MgrResponse::Verdict(Verdict::Lost)) => Outcome::Lost,
                Ok(MgrResponse::Verdict(Verdict::Repairable)) if repair => Outcome::Repaired,
                Ok(MgrResponse::Verdict(Verdict::Repairable)) => Outcome::Found,
                Ok(_) => return Err(self.mgr.unexpected().into()),
                Err(RpcError::Refused {
                    error: FsError::TryAgain,
                    ..
                }) if start.elapsed() < GRACE_MAX => {
                    self.progress
                        .say("waits until clients have declared what they have open");
                    // mgr tells nobody when its grace ends.
                    std::thread::sleep(GRACE_PAUSE);
                    continue;
                }
                Err(RpcError::Refused { error, .. }) => Outcome::Failed(error),
                Err(error) => return Err(error.into()),
            };
            self.report.add(finding, outcome);
            return Ok(());
        }
    }
}
