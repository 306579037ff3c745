// SPDX-License-Identifier: MIT
//! Changes that this mount itself has asked mgr for and has no reply to: pure bookkeeping.
//!
//! mgr takes nothing back from whoever makes a change, and the reply brings what to keep from then on.
//! Other nodes may see the change before that reply is here. So what is kept of the inodes that a
//! change concerns answers nothing from when it is sent until its reply has been taken in.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use pvfs::ids::InodeNumber;
use pvfs::name::Name;
use pvfs::proto::mgr::MgrOperation;
use pvfs::runtime::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A name in a directory.
pub(super) type Place = (InodeNumber, Name);

/// What a change concerns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Subject {
    /// Inodes whose attributes, and directories whose names, become others.
    inodes: Vec<InodeNumber>,
    /// Whatever has these names gets other attributes, such as a count of links.
    places: Vec<Place>,
}

impl Subject {
    /// What an operation concerns; nothing, where it changes nothing of which anything is kept.
    fn of(operation: &MgrOperation) -> Self {
        let place = |parent: &InodeNumber, name: &Name| (*parent, name.clone());
        let (inodes, places) = match operation {
            MgrOperation::SetAttr { inode, .. }
            | MgrOperation::SetXattr { inode, .. }
            | MgrOperation::RemoveXattr { inode, .. }
            | MgrOperation::SetLayout { inode, .. }
            | MgrOperation::DropPrivileges { inode, .. }
            | MgrOperation::Open {
                inode,
                truncate: true,
                ..
            } => (vec![*inode], Vec::new()),
            MgrOperation::Create { parent, .. }
            | MgrOperation::MakeNode { parent, .. }
            | MgrOperation::Symlink { parent, .. } => (vec![*parent], Vec::new()),
            MgrOperation::Link { inode, parent, .. } => (vec![*inode, *parent], Vec::new()),
            MgrOperation::Unlink { parent, name }
            | MgrOperation::RemoveDirectory { parent, name } => {
                (vec![*parent], vec![place(parent, name)])
            }
            MgrOperation::Rename {
                parent,
                name,
                new_parent,
                new_name,
                ..
            } => {
                let places = vec![place(parent, name), place(new_parent, new_name)];
                (vec![*parent, *new_parent], places)
            }
            // A report is counted where its inode is: `InodeState::begin_report`.
            MgrOperation::Report { .. }
            | MgrOperation::Open {
                truncate: false, ..
            }
            | MgrOperation::Close { .. }
            | MgrOperation::SetLock(_)
            | MgrOperation::CancelLock { .. }
            | MgrOperation::RegisterIod { .. }
            | MgrOperation::Repair(_)
            | MgrOperation::Hello { .. }
            | MgrOperation::KeepAlive
            | MgrOperation::Lookup { .. }
            | MgrOperation::GetAttr { .. }
            | MgrOperation::ReadLink { .. }
            | MgrOperation::ReadDirectory { .. }
            | MgrOperation::StatFs
            | MgrOperation::GetXattr { .. }
            | MgrOperation::ListXattr { .. }
            | MgrOperation::GetLayout { .. }
            | MgrOperation::ListIods
            | MgrOperation::IodHeartbeat { .. }
            | MgrOperation::Acquire { .. }
            | MgrOperation::Acknowledge { .. }
            | MgrOperation::GiveBack { .. }
            | MgrOperation::TestLock { .. }
            | MgrOperation::Goodbye
            | MgrOperation::Inspect { .. }
            | MgrOperation::FindStray { .. }
            | MgrOperation::Examine(_)
            | MgrOperation::Backup { .. } => return Self::default(),
        };
        Self { inodes, places }
    }
}

/// Whether changes under way concern an inode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Concern {
    /// They do, or may.
    Yes,
    /// They do where it has one of these names; their directories have no other change under way.
    IfNamed(Vec<Place>),
}

/// The changes under way. Bounded by the requests that mgr has from this mount.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// How many are under way: mostly none, and then no lock is taken.
    count: AtomicUsize,
    under_way: Mutex<UnderWay>,
}

#[derive(Debug, Default)]
struct UnderWay {
    last: u64,
    subjects: BTreeMap<u64, Subject>,
}

/// A change that is under way, until this is dropped.
#[derive(Debug)]
pub(super) struct Change {
    changes: Arc<Changes>,
    number: u64,
}

impl Changes {
    fn lock(&self) -> MutexGuard<'_, UnderWay> {
        self.under_way
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// An operation is about to be sent; `None` where it changes nothing that may be kept.
    pub(super) fn begin(self: &Arc<Self>, operation: &MgrOperation) -> Option<Arc<Change>> {
        let subject = Subject::of(operation);
        if subject == Subject::default() {
            return None;
        }
        let mut under_way = self.lock();
        under_way.last += 1;
        let number = under_way.last;
        under_way.subjects.insert(number, subject);
        self.count.store(under_way.subjects.len(), Ordering::SeqCst);
        let changes = Arc::clone(self);
        Some(Arc::new(Change { changes, number }))
    }

    /// Whether any of them concerns the inode.
    pub(super) fn concern(&self, inode: InodeNumber) -> Concern {
        if self.count.load(Ordering::SeqCst) == 0 {
            return Concern::IfNamed(Vec::new());
        }
        let under_way = self.lock();
        let subjects = || under_way.subjects.values();
        let touching = |inode| subjects().filter(move |subject| subject.inodes.contains(&inode));
        if touching(inode).next().is_some() {
            return Concern::Yes;
        }
        let places: Vec<Place> = subjects()
            .flat_map(|subject| subject.places.clone())
            .collect();
        // Where two changes of a directory are under way, the second may find what the first has left.
        match places
            .iter()
            .all(|(directory, _)| touching(*directory).count() == 1)
        {
            true => Concern::IfNamed(places),
            false => Concern::Yes,
        }
    }
}

impl Drop for Change {
    fn drop(&mut self) {
        let mut under_way = self.changes.lock();
        under_way.subjects.remove(&self.number);
        let left = under_way.subjects.len();
        self.changes.count.store(left, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pvfs::attr::SetAttr;
    use pvfs::proto::mgr::{Access, RenameMode};

    const DIRECTORY: InodeNumber = InodeNumber(1);
    const OTHER: InodeNumber = InodeNumber(2);
    const FILE: InodeNumber = InodeNumber(3);
    const NOBODY: Concern = Concern::IfNamed(Vec::new());

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    fn unlink(parent: InodeNumber, text: &str) -> MgrOperation {
        let name = name(text);
        MgrOperation::Unlink { parent, name }
    }

    fn open(truncate: bool) -> MgrOperation {
        MgrOperation::Open {
            inode: FILE,
            access: Access {
                read: true,
                write: true,
            },
            truncate,
        }
    }

    #[test]
    fn a_change_concerns_its_inodes_until_it_is_over() {
        let changes = Arc::new(Changes::default());
        let chmod = MgrOperation::SetAttr {
            inode: FILE,
            set: SetAttr::default(),
            open: None,
        };
        let link = MgrOperation::Link {
            inode: FILE,
            parent: DIRECTORY,
            name: name("a"),
        };
        for operation in [chmod, link, open(true)] {
            let change = changes.begin(&operation).unwrap();
            let held = Arc::clone(&change);
            drop(change);
            assert_eq!(changes.concern(FILE), Concern::Yes, "{operation:?}");
            assert_eq!(changes.concern(OTHER), NOBODY);
            drop(held);
            assert_eq!(changes.concern(FILE), NOBODY);
        }
        assert!(changes.begin(&open(false)).is_none());
        assert!(
            changes
                .begin(&MgrOperation::GetAttr { inode: FILE })
                .is_none()
        );
    }

    #[test]
    fn what_has_a_name_is_concerned_by_its_removal() {
        let changes = Arc::new(Changes::default());
        let rename = MgrOperation::Rename {
            parent: DIRECTORY,
            name: name("a"),
            new_parent: OTHER,
            new_name: name("b"),
            mode: RenameMode::Replace,
        };
        let renaming = changes.begin(&rename).unwrap();
        assert_eq!(changes.concern(DIRECTORY), Concern::Yes);
        assert_eq!(changes.concern(OTHER), Concern::Yes);
        let places = vec![(DIRECTORY, name("a")), (OTHER, name("b"))];
        assert_eq!(changes.concern(FILE), Concern::IfNamed(places));
        // What it removes has perhaps got its name just now.
        let removing = changes.begin(&unlink(OTHER, "c")).unwrap();
        assert_eq!(changes.concern(FILE), Concern::Yes);
        drop(renaming);
        let places = vec![(OTHER, name("c"))];
        assert_eq!(changes.concern(FILE), Concern::IfNamed(places));
        drop(removing);
        assert_eq!(changes.concern(FILE), NOBODY);
    }
}
