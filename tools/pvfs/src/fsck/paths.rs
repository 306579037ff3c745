// SPDX-License-Identifier: MIT
//! Which paths inodes have. An inode does not know its names, so the names are read until the root is
//! reached: once for each level, but only for what is asked about.

use std::collections::{BTreeMap, BTreeSet};

use pvfs::ids::{InodeNumber, ROOT_INODE};
use pvfs::name::Name;
use pvfs::proto::check::{Section, Seen};
use pvfs::proto::mgr::{MgrOperation, MgrResponse};

use super::Fsck;
use crate::progress::Unit;
use crate::rpc::Mgr;

/// Directories above each other that are followed.
const DEPTH_MAX: usize = 256;

/// One name of each inode that was asked about, and of the directories above it.
#[derive(Debug, Default)]
pub struct Paths {
    names: BTreeMap<InodeNumber, (InodeNumber, Name)>,
}

impl Paths {
    /// Reads the names of `inodes`, page by page from `page`.
    ///
    /// # Errors
    ///
    /// Those of `pages`, which shows each page of the names to whom it is given.
    pub fn find<E>(
        inodes: BTreeSet<InodeNumber>,
        mut pages: impl FnMut(&mut dyn FnMut(&[Seen])) -> Result<(), E>,
    ) -> Result<Self, E> {
        let mut found = Self::default();
        let mut wanted = inodes;
        wanted.remove(&ROOT_INODE);
        for _ in 0..DEPTH_MAX {
            if wanted.is_empty() {
                break;
            }
            let mut above = BTreeSet::new();
            pages(&mut |page| {
                for seen in page {
                    if let Seen::Dentry {
                        directory,
                        name,
                        inode,
                        ..
                    } = seen
                    {
                        if wanted.contains(inode) && !found.names.contains_key(inode) {
                            found.names.insert(*inode, (*directory, name.clone()));
                            above.insert(*directory);
                        }
                    }
                }
            })?;
            above.remove(&ROOT_INODE);
            above.retain(|inode| !found.names.contains_key(inode));
            wanted = above;
        }
        Ok(found)
    }

    /// A path from the root; `None` for what is not below it.
    pub fn path(&self, inode: InodeNumber) -> Option<String> {
        let mut parts = Vec::new();
        let mut at = inode;
        while at != ROOT_INODE {
            let (directory, name) = self.names.get(&at)?;
            parts.push(String::from_utf8_lossy(name.as_bytes()).into_owned());
            if parts.len() > DEPTH_MAX {
                return None;
            }
            at = *directory;
        }
        parts.reverse();
        Some(format!("/{}", parts.join("/")))
    }
}

/// The paths of some inodes, by the records of mgr.
///
/// # Errors
///
/// Where mgr does not show them.
pub fn of_inodes(mgr: &mut Mgr, inodes: BTreeSet<InodeNumber>) -> anyhow::Result<Paths> {
    Paths::find(inodes, |visit| {
        let mut after = Vec::new();
        loop {
            let section = Section::Dentries;
            match mgr.call(MgrOperation::Inspect { section, after })? {
                MgrResponse::Page(page) => {
                    visit(&page.seen);
                    match page.next {
                        Some(next) => after = next,
                        None => return Ok(()),
                    }
                }
                _ => return Err(mgr.unexpected().into()),
            }
        }
    })
}

impl Fsck {
    /// Finds the paths of what was found.
    pub(super) fn find_paths(&mut self) -> anyhow::Result<()> {
        let inodes = self.report.inodes_found();
        self.progress.start("paths", Unit::Items, None);
        self.report.paths = of_inodes(&mut self.mgr, inodes)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pvfs::attr::FileKind;

    fn dentry(directory: u64, name: &str, inode: u64) -> Seen {
        Seen::Dentry {
            directory: InodeNumber(directory),
            name: Name::new(name).unwrap(),
            inode: InodeNumber(inode),
            kind: FileKind::Regular,
        }
    }

    #[test]
    fn paths_are_found_level_by_level() {
        let names = [
            dentry(1, "a", 2),
            dentry(2, "b", 3),
            dentry(3, "c", 4),
            dentry(7, "loop", 8),
            dentry(8, "loop", 7),
        ];
        let wanted = [1, 3, 4, 7, 99].map(InodeNumber).into();
        let mut passes = 0;
        let paths = Paths::find(wanted, |visit| {
            passes += 1;
            names.chunks(2).for_each(&mut *visit);
            Ok::<(), ()>(())
        })
        .unwrap();
        assert!(passes <= 3);
        let path = |inode| paths.path(InodeNumber(inode));
        assert_eq!(path(1).as_deref(), Some("/"));
        assert_eq!(path(4).as_deref(), Some("/a/b/c"));
        assert_eq!(path(3).as_deref(), Some("/a/b"));
        assert_eq!(path(7), None, "not below the root");
        assert_eq!(path(99), None);
    }
}
