// SPDX-License-Identifier: MIT
//! The opens of this mount: FUSE file handles, and the files that they share.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use pvfs::attr::Attr;
use pvfs::error::FsError;
use pvfs::ids::{InodeNumber, ObjectId, OpenId};
use pvfs::layout::Layout;
use pvfs::proto::mgr::Access;

use super::inode::Inode;

/// One open of a regular file.
#[derive(Debug)]
pub(super) struct OpenFile {
    pub(super) inode: Arc<Inode>,
    pub(super) open: OpenId,
    pub(super) access: Access,
    pub(super) layout: Layout,
    pub(super) object: ObjectId,
    /// mgr's counter at the open.
    pub(super) change: u64,
    /// The kernel was told to drop pages at this open, and has not used it since.
    unsettled: AtomicBool,
}

impl OpenFile {
    /// True once, for the first use of an open at which the kernel dropped pages.
    pub(super) fn is_first_use(&self) -> bool {
        self.unsettled.load(Ordering::Relaxed) && self.unsettled.swap(false, Ordering::AcqRel)
    }
}

/// An open as mgr granted it.
pub(super) struct Grant {
    pub(super) open: OpenId,
    pub(super) attr: Attr,
    pub(super) access: Access,
    pub(super) layout: Layout,
    /// The kernel is told to drop pages.
    pub(super) unsettled: bool,
}

/// A file that is open, and by how many handles.
#[derive(Debug)]
struct Shared {
    inode: Arc<Inode>,
    opens: usize,
}

/// All opens of the mount, bounded by what mgr grants to one client.
#[derive(Debug, Default)]
pub(super) struct OpenFiles {
    handles: RwLock<HashMap<u64, Arc<OpenFile>>>,
    inodes: Mutex<HashMap<InodeNumber, Shared>>,
}

impl OpenFiles {
    fn lock_inodes(&self) -> MutexGuard<'_, HashMap<InodeNumber, Shared>> {
        self.inodes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds an open; its FUSE handle is mgr's number of it.
    pub(super) fn insert(&self, grant: Grant) -> u64 {
        let inode = match self.lock_inodes().entry(grant.attr.inode) {
            Entry::Occupied(mut entry) => {
                let shared = entry.get_mut();
                shared.opens += 1;
                Arc::clone(&shared.inode)
            }
            Entry::Vacant(entry) => {
                let inode = Arc::new(Inode::new(&grant.attr));
                entry.insert(Shared {
                    inode: Arc::clone(&inode),
                    opens: 1,
                });
                inode
            }
        };
        // A stale reply is of no harm: the state keeps what is newer.
        inode.state().learn(&grant.attr);
        let file = OpenFile {
            inode,
            open: grant.open,
            access: grant.access,
            layout: grant.layout,
            object: grant.attr.object(),
            change: grant.attr.change,
            unsettled: AtomicBool::new(grant.unsettled),
        };
        let handle = grant.open.0;
        let mut handles = self.handles.write().unwrap_or_else(PoisonError::into_inner);
        handles.insert(handle, Arc::new(file));
        handle
    }

    /// The open behind a handle.
    pub(super) fn get(&self, handle: u64) -> Result<Arc<OpenFile>, FsError> {
        let handles = self.handles.read().unwrap_or_else(PoisonError::into_inner);
        handles.get(&handle).cloned().ok_or(FsError::Stale)
    }

    /// Takes the open out; the file itself stays until [`Self::closed`].
    pub(super) fn remove(&self, handle: u64) -> Option<Arc<OpenFile>> {
        let mut handles = self.handles.write().unwrap_or_else(PoisonError::into_inner);
        handles.remove(&handle)
    }

    /// mgr has heard of all that an open which was taken out had to tell.
    pub(super) fn closed(&self, inode: InodeNumber) {
        if let Entry::Occupied(mut entry) = self.lock_inodes().entry(inode) {
            let shared = entry.get_mut();
            shared.opens = shared.opens.saturating_sub(1);
            if shared.opens == 0 {
                entry.remove();
            }
        }
    }

    /// A file that is open here.
    pub(super) fn inode(&self, inode: InodeNumber) -> Option<Arc<Inode>> {
        self.lock_inodes()
            .get(&inode)
            .map(|shared| Arc::clone(&shared.inode))
    }

    /// All files that are open here.
    pub(super) fn inodes(&self) -> Vec<Arc<Inode>> {
        self.lock_inodes()
            .values()
            .map(|shared| Arc::clone(&shared.inode))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pvfs::attr::{FileKind, Timestamp};
    use pvfs::ids::IodId;

    fn grant(open: u64) -> Grant {
        let attr = Attr {
            inode: InodeNumber(7),
            generation: 1,
            kind: FileKind::Regular,
            mode: 0o644,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            size: 0,
            atime: Timestamp::default(),
            mtime: Timestamp::default(),
            ctime: Timestamp::default(),
            change: 1,
        };
        Grant {
            open: OpenId(open),
            attr,
            access: Access {
                read: true,
                write: false,
            },
            layout: Layout::new(4096, 0, vec![IodId(1)]).unwrap(),
            unsettled: true,
        }
    }

    #[test]
    fn opens_of_one_file_share_it_until_the_last_is_closed() {
        let files = OpenFiles::default();
        let (first, second) = (files.insert(grant(1)), files.insert(grant(2)));
        let inode = files.inode(InodeNumber(7)).unwrap();
        assert!(Arc::ptr_eq(&inode, &files.get(second).unwrap().inode));
        files.remove(first).unwrap();
        files.closed(InodeNumber(7));
        assert!(files.get(first).is_err());
        assert!(files.inode(InodeNumber(7)).is_some());
        files.remove(second).unwrap();
        files.closed(InodeNumber(7));
        assert!(files.inode(InodeNumber(7)).is_none());
    }

    #[test]
    fn an_open_settles_once() {
        let files = OpenFiles::default();
        let file = files.get(files.insert(grant(1))).unwrap();
        assert!(file.is_first_use());
        assert!(!file.is_first_use());
    }
}
