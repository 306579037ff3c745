// SPDX-License-Identifier: MIT
//! What a check found, in words, as JSON and as an exit status.

use std::collections::BTreeSet;

use pvfs::error::FsError;
use pvfs::ids::{InodeNumber, IodId};
use pvfs::proto::check::Finding;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::left_out::{JsonIod, LeftOut};
use crate::output;

use super::fields::fields;
use super::paths::Paths;

/// Exit statuses of fsck(8).
const REPAIRED: u8 = 1;
const LEFT: u8 = 4;
/// The check itself could not be done, or not on all.
pub const OPERATIONAL_ERROR: u8 = 8;

/// Findings that are told one by one; the rest are only counted.
const FINDINGS_TOLD_MAX: usize = 100_000;

/// What became of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It can be repaired.
    Found,
    /// It was.
    Repaired,
    /// What is lost cannot be made again.
    Lost,
    /// mgr could not repair it.
    Failed(FsError),
}

/// What a check has found.
#[derive(Debug, Default)]
pub struct Report {
    repair: bool,
    findings: Vec<(Finding, Outcome)>,
    /// Findings beyond those.
    untold: u64,
    repaired: u64,
    left: u64,
    /// Iods of which not everything was seen, each with the first reason.
    left_out: LeftOut,
    /// Parts of files that no iod could be asked about.
    pub unseen: u64,
    /// Records looked at, some more than once.
    pub records: u64,
    /// Inodes.
    pub inodes: u64,
    /// Objects at the iods.
    pub objects: u64,
    /// Of what was found.
    pub paths: Paths,
}

#[derive(Serialize)]
struct Json<'a> {
    repair: bool,
    inodes: u64,
    objects: u64,
    repaired: u64,
    left: u64,
    findings: Vec<JsonFinding>,
    findings_untold: u64,
    iods_left_out: Vec<JsonIod<'a>>,
    parts_unseen: u64,
    status: u8,
}

#[derive(Serialize)]
struct JsonFinding {
    #[serde(flatten)]
    fields: Map<String, Value>,
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    words: String,
}

impl Report {
    /// Of a check that has not begun.
    pub fn new(repair: bool) -> Self {
        Self {
            repair,
            ..Self::default()
        }
    }

    /// Notes a finding.
    pub fn add(&mut self, finding: Finding, outcome: Outcome) {
        match outcome {
            Outcome::Repaired => self.repaired += 1,
            Outcome::Found | Outcome::Lost | Outcome::Failed(_) => self.left += 1,
        }
        if self.findings.len() < FINDINGS_TOLD_MAX {
            self.findings.push((finding, outcome));
        } else {
            self.untold += 1;
        }
    }

    /// Notes that not all of an iod was seen.
    pub fn leave_out(&mut self, iod: IodId, why: String) {
        self.left_out.add(iod, why);
    }

    /// Whether all iods have answered so far.
    pub fn is_complete(&self) -> bool {
        self.left_out.is_empty()
    }

    /// The inodes that the findings are about.
    pub fn inodes_found(&self) -> BTreeSet<InodeNumber> {
        let of_all = self.findings.iter();
        of_all.filter_map(|(finding, _)| inode(finding)).collect()
    }

    /// The exit status.
    pub fn status(&self) -> u8 {
        let flag = |is_so: bool, flag: u8| if is_so { flag } else { 0 };
        flag(self.repaired > 0, REPAIRED)
            | flag(self.left > 0, LEFT)
            | flag(!self.left_out.is_empty(), OPERATIONAL_ERROR)
    }

    /// Prints it.
    pub fn print(&self, json: bool) -> anyhow::Result<()> {
        if json {
            output::json(&self.json())?;
        } else {
            output::lines(self.lines())?;
        }
        Ok(())
    }

    fn json(&self) -> Json<'_> {
        let findings = self.findings.iter().map(|(finding, outcome)| JsonFinding {
            fields: fields(finding),
            outcome: outcome_field(*outcome),
            path: inode(finding).and_then(|inode| self.paths.path(inode)),
            words: words(finding),
        });
        Json {
            repair: self.repair,
            inodes: self.inodes,
            objects: self.objects,
            repaired: self.repaired,
            left: self.left,
            findings: findings.collect(),
            findings_untold: self.untold,
            iods_left_out: self.left_out.json(),
            parts_unseen: self.unseen,
            status: self.status(),
        }
    }

    fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        let mut line = |what: String| lines.push(what);
        for (finding, outcome) in &self.findings {
            let path = inode(finding).and_then(|inode| self.paths.path(inode));
            let path = path.map(|path| format!(" ({path})")).unwrap_or_default();
            let outcome = outcome_word(*outcome);
            line(format!("{}{path}: {outcome}", words(finding)));
        }
        if self.untold > 0 {
            line(format!("and {} more findings", self.untold));
        }
        for (iod, why) in self.left_out.iter() {
            line(format!("iod {iod} was left out: {why}"));
        }
        if self.unseen > 0 {
            line(format!("{} parts of files were not looked at", self.unseen));
        }
        let counts = format!("{} inodes, {} objects", self.inodes, self.objects);
        line(match (self.repaired, self.left) {
            (0, 0) if self.left_out.is_empty() => format!("clean: {counts}"),
            (0, 0) => format!("nothing wrong in what was seen: {counts}"),
            (repaired, 0) => format!("{counts}: {repaired} repaired"),
            (0, left) if !self.repair => {
                format!("{counts}: {left} found; pvfs fsck --repair repairs what can be repaired")
            }
            (repaired, left) => format!("{counts}: {repaired} repaired, {left} left"),
        });
        lines
    }
}

const fn outcome_word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Found => "can be repaired",
        Outcome::Repaired => "repaired",
        Outcome::Lost => "cannot be repaired",
        Outcome::Failed(_) => "could not be repaired, mgr's log may say why",
    }
}

const fn outcome_field(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Found => "repairable",
        Outcome::Repaired => "repaired",
        Outcome::Lost => "lost",
        Outcome::Failed(_) => "failed",
    }
}

/// The inode that a finding is about, where it has a path that helps.
const fn inode(finding: &Finding) -> Option<InodeNumber> {
    match finding {
        Finding::Unreadable { .. }
        | Finding::StrayRecord { .. }
        | Finding::WrongCount { .. }
        | Finding::StrayObject { .. } => None,
        Finding::DanglingName { directory, .. }
        | Finding::WrongKind { directory, .. }
        | Finding::NoPlace { directory, .. }
        | Finding::StrayPlace { directory, .. } => Some(*directory),
        Finding::NameWithoutDirectory { inode, .. }
        | Finding::WrongParent { inode, .. }
        | Finding::WrongXattrMark { inode }
        | Finding::NoLayout { inode }
        | Finding::NoTarget { inode }
        | Finding::UnknownIod { inode, .. }
        | Finding::NoName { inode, .. }
        | Finding::ManyNames { inode, .. }
        | Finding::WrongLinks { inode, .. }
        | Finding::WrongEntries { inode, .. } => Some(*inode),
        Finding::LiveGarbage { object }
        | Finding::LostObject { object, .. }
        | Finding::ShortObject { object, .. }
        | Finding::SmallSize { object, .. } => Some(object.inode),
    }
}

fn words(finding: &Finding) -> String {
    match finding {
        Finding::Unreadable { key } => {
            format!("record {} of mgr is damaged", key.escape_ascii())
        }
        Finding::DanglingName {
            directory,
            name,
            inode,
        } => {
            format!("name {name} in directory {directory} stands for inode {inode}, which is gone")
        }
        Finding::NameWithoutDirectory {
            directory,
            name,
            inode,
        } => format!("name {name} of inode {inode} is in {directory}, which is no directory"),
        Finding::WrongKind { directory, name } => {
            format!("name {name} in directory {directory} says the wrong kind")
        }
        Finding::NoPlace { directory, name } => {
            format!("name {name} has no place in directory {directory}")
        }
        Finding::StrayPlace { directory, cookie } => {
            format!("place {cookie} of directory {directory} is of no name")
        }
        Finding::WrongParent {
            inode, directory, ..
        } => format!("directory {inode} does not know that it is in directory {directory}"),
        Finding::StrayRecord { key } => {
            format!("record {} of mgr is of no inode", key.escape_ascii())
        }
        Finding::LiveGarbage { object } => {
            format!("stripes {object} of a living file are marked for removal")
        }
        Finding::WrongXattrMark { inode } => {
            format!(
                "inode {inode} says wrongly whether it has access control lists or a capability"
            )
        }
        Finding::NoLayout { inode } => format!("file {inode} has no layout"),
        Finding::NoTarget { inode } => format!("symbolic link {inode} has no target"),
        Finding::UnknownIod { inode, iod } => {
            format!("file {inode} has stripes on iod {iod}, which does not exist")
        }
        Finding::NoName { inode, .. } => format!("inode {inode} has no name"),
        Finding::ManyNames { inode, names, .. } => {
            format!("directory {inode} has {names} names")
        }
        Finding::WrongLinks {
            inode,
            nlink,
            counted,
            ..
        } => format!("inode {inode} says it has {nlink} links and has {counted}"),
        Finding::WrongEntries {
            inode,
            entries,
            counted,
            ..
        } => format!("directory {inode} says it has {entries} entries and has {counted}"),
        Finding::WrongCount { counters, counted } => format!(
            "mgr says that there are {} inodes and there are {counted}",
            counters.inodes_used
        ),
        Finding::StrayObject { object, parts } => {
            let iods: Vec<_> = parts.iter().map(|part| part.iod.to_string()).collect();
            let bytes: u64 = parts.iter().map(|part| part.length).sum();
            format!(
                "stripes {object} on iod {} are of no file ({bytes} bytes; a repair puts them into \
                 /lost+found)",
                iods.join(", ")
            )
        }
        Finding::LostObject { iod, object } => {
            format!("iod {iod} has lost the data of stripes {object}")
        }
        Finding::ShortObject {
            iod,
            object,
            length: Some(length),
            ..
        } => format!(
            "iod {iod} has {length} bytes of stripes {object}, less than the file's size says"
        ),
        Finding::ShortObject {
            iod,
            object,
            length: None,
            ..
        } => {
            format!("iod {iod} has nothing of stripes {object}, and the file's size says it should")
        }
        Finding::SmallSize {
            iod,
            object,
            length,
            ..
        } => format!(
            "iod {iod} has {length} bytes of stripes {object}, more than the file's size says"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pvfs::attr::Timestamp;

    fn finding(inode: u64) -> Finding {
        Finding::WrongLinks {
            inode: InodeNumber(inode),
            ctime: Timestamp::default(),
            nlink: 2,
            counted: 1,
        }
    }

    #[test]
    fn statuses_are_those_of_fsck() {
        let mut report = Report::new(true);
        assert_eq!(report.status(), 0);
        report.add(finding(5), Outcome::Repaired);
        assert_eq!(report.status(), 1);
        report.add(finding(6), Outcome::Lost);
        assert_eq!(report.status(), 5);
        report.leave_out(IodId(2), "is away".into());
        assert_eq!(report.status(), 13);
        let text = report.lines().join("\n");
        assert!(text.contains("inode 5 says it has 2 links and has 1: repaired\n"));
        assert!(text.contains("iod 2 was left out: is away\n"));
        assert!(
            text.ends_with("0 inodes, 0 objects: 1 repaired, 1 left"),
            "{text}"
        );
    }
}
