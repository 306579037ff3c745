// SPDX-License-Identifier: MIT
//! Counting: how many names each inode has, how many entries each directory. Bounded memory: where
//! there are more inodes than fit, the names are read again for each part of them.

use std::collections::HashMap;

use pvfs::attr::{FileKind, Timestamp};
use pvfs::ids::{InodeNumber, ROOT_INODE};
use pvfs::proto::check::{Finding, Section, Seen};

use super::Fsck;
use crate::progress::Unit;

/// Inodes counted at a time: about 100 MiB.
const INODES_AT_ONCE_MAX: usize = 1 << 20;

/// What an inode says, and what was counted.
#[derive(Clone, Copy, Debug)]
struct Tally {
    kind: FileKind,
    nlink: u32,
    ctime: Timestamp,
    says_entries: u64,
    orphan: bool,
    names: u64,
    entries: u64,
    subdirectories: u64,
}

impl Fsck {
    /// Compares what inodes say with what there is. The inodes are read before the names: whatever
    /// changes an inode's names in between changes its ctime, and mgr drops the finding then.
    pub(super) fn take_census(&mut self) -> anyhow::Result<()> {
        let mut after = Vec::new();
        loop {
            let mut tallies = HashMap::new();
            // Inodes, and a name of each.
            self.progress
                .start("counting", Unit::Items, Some(self.inodes_about * 2));
            let next = loop {
                let page = self.page(Section::Inodes, after)?;
                for seen in page.seen {
                    if let Seen::Inode {
                        inode,
                        kind,
                        nlink,
                        ctime,
                        entries,
                        orphan,
                    } = seen
                    {
                        let tally = Tally {
                            kind,
                            nlink,
                            ctime,
                            says_entries: entries.unwrap_or_default(),
                            orphan,
                            names: 0,
                            entries: 0,
                            subdirectories: 0,
                        };
                        tallies.insert(inode, tally);
                    }
                }
                match page.next {
                    Some(next) if tallies.len() < INODES_AT_ONCE_MAX => after = next,
                    next => break next,
                }
            };
            self.each_page(Section::Dentries, &mut |_, page| {
                for seen in &page.seen {
                    count(&mut tallies, seen);
                }
                Ok(())
            })?;
            let mut found: Vec<Finding> = tallies
                .iter()
                .flat_map(|(inode, tally)| contradictions(*inode, tally))
                .collect();
            found.sort();
            for finding in found {
                self.judge(finding)?;
            }
            match next {
                Some(next) => after = next,
                None => return Ok(()),
            }
        }
    }

    /// Compares mgr's count of inodes with how many there are now: repairs may have made some.
    pub(super) fn check_count(&mut self) -> anyhow::Result<()> {
        let (mut counters, mut counted) = (None, 0);
        self.progress
            .start("inodes", Unit::Items, Some(self.inodes_about));
        self.each_page(Section::Inodes, &mut |_, page| {
            counters.get_or_insert(page.counters);
            counted += page.records;
            Ok(())
        })?;
        self.report.inodes = counted;
        match counters {
            Some(counters) if counters.inodes_used != counted => {
                self.judge(Finding::WrongCount { counters, counted })
            }
            Some(_) | None => Ok(()),
        }
    }
}

fn count(tallies: &mut HashMap<InodeNumber, Tally>, seen: &Seen) {
    let Seen::Dentry {
        directory,
        inode,
        kind,
        ..
    } = seen
    else {
        return;
    };
    if let Some(tally) = tallies.get_mut(inode) {
        tally.names += 1;
    }
    if let Some(tally) = tallies.get_mut(directory) {
        tally.entries += 1;
        tally.subdirectories += u64::from(*kind == FileKind::Directory);
    }
}

/// What an inode says that is not so, in the order in which it must be repaired: a new name changes
/// the ctime that the others are about.
fn contradictions(inode: InodeNumber, tally: &Tally) -> Vec<Finding> {
    let Tally { nlink, ctime, .. } = *tally;
    let is_directory = tally.kind == FileKind::Directory;
    let mut found = Vec::new();
    if is_directory && tally.says_entries != tally.entries {
        found.push(Finding::WrongEntries {
            inode,
            ctime,
            entries: tally.says_entries,
            counted: tally.entries,
        });
    }
    let nameless = tally.names == 0 && inode != ROOT_INODE;
    let links = match is_directory {
        true => tally.subdirectories.saturating_add(2),
        false => tally.names,
    };
    let counted = u32::try_from(links).unwrap_or(u32::MAX);
    // One without a name that is to have none has no links, a directory neither.
    let to_go = nameless && nlink == 0;
    if counted != nlink && !to_go && (is_directory || !nameless) {
        found.push(Finding::WrongLinks {
            inode,
            ctime,
            nlink,
            counted,
        });
    }
    if is_directory && tally.names > 1 {
        found.push(Finding::ManyNames {
            inode,
            ctime,
            names: tally.names,
        });
    }
    if nameless && !tally.orphan {
        found.push(Finding::NoName { inode, ctime });
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const INODE: InodeNumber = InodeNumber(7);
    const CTIME: Timestamp = Timestamp {
        seconds: 5,
        nanoseconds: 6,
    };

    fn tally(kind: FileKind, nlink: u32, names: u64) -> Tally {
        Tally {
            kind,
            nlink,
            ctime: CTIME,
            says_entries: 0,
            orphan: false,
            names,
            entries: 0,
            subdirectories: 0,
        }
    }

    fn wrong_links(nlink: u32, counted: u32) -> Finding {
        Finding::WrongLinks {
            inode: INODE,
            ctime: CTIME,
            nlink,
            counted,
        }
    }

    #[test]
    fn files_have_as_many_links_as_names() {
        let file = |nlink, names| contradictions(INODE, &tally(FileKind::Regular, nlink, names));
        let no_name = Finding::NoName {
            inode: INODE,
            ctime: CTIME,
        };
        assert_eq!(file(1, 1), []);
        assert_eq!(file(3, 3), []);
        assert_eq!(file(2, 3), [wrong_links(2, 3)]);
        assert_eq!(file(0, 1), [wrong_links(0, 1)]);
        assert_eq!(file(2, 0), std::slice::from_ref(&no_name));
        assert_eq!(file(0, 0), [no_name]);
        let open = Tally {
            orphan: true,
            ..tally(FileKind::Regular, 0, 0)
        };
        assert_eq!(contradictions(INODE, &open), []);
    }

    #[test]
    fn directories_have_a_link_for_each_directory_in_them() {
        let directory = Tally {
            says_entries: 3,
            entries: 3,
            subdirectories: 2,
            ..tally(FileKind::Directory, 4, 1)
        };
        assert_eq!(contradictions(INODE, &directory), []);
        let root = Tally {
            names: 0,
            ..directory
        };
        assert_eq!(contradictions(ROOT_INODE, &root), []);
        let wrong = Tally {
            says_entries: 2,
            nlink: 2,
            names: 0,
            ..directory
        };
        let found = contradictions(INODE, &wrong);
        assert!(matches!(
            found[..],
            [
                Finding::WrongEntries {
                    entries: 2,
                    counted: 3,
                    ..
                },
                Finding::WrongLinks {
                    nlink: 2,
                    counted: 4,
                    ..
                },
                Finding::NoName { .. },
            ]
        ));
        let twice = Tally {
            names: 2,
            ..directory
        };
        assert!(matches!(
            contradictions(INODE, &twice)[..],
            [Finding::ManyNames { names: 2, .. }]
        ));
        // A removed one that somebody has open.
        let removed = Tally {
            orphan: true,
            ..tally(FileKind::Directory, 0, 0)
        };
        assert_eq!(contradictions(INODE, &removed), []);
    }
}
