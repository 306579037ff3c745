// SPDX-License-Identifier: MIT
//! The opens of this mount: FUSE file handles, and the inodes that are open or of which something
//! is kept.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use pvfs::attr::Attr;
use pvfs::client::striped::Place;
use pvfs::error::FsError;
use pvfs::ids::{InodeNumber, ObjectId, OpenId};
use pvfs::layout::Layout;
use pvfs::proto::mgr::Access;
use pvfs::runtime::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use super::inode::{Inode, InodeState, MgrOpen, Unneeded};

/// Inodes of which something is kept without their being open, 400 bytes each; what comes beyond it
/// is asked for each time. The kernel forgets inodes long before.
const INODES_KEPT_MAX: usize = 1 << 18;

/// One open of a regular file.
#[derive(Debug)]
pub(super) struct OpenFile {
    pub(super) inode: Arc<Inode>,
    /// mgr's open behind it, which may be shared with others.
    pub(super) open: OpenId,
    pub(super) access: Access,
    pub(super) layout: Layout,
    pub(super) object: ObjectId,
    /// The kernel keeps no pages for this handle, unless it is mapped.
    pub(super) direct: bool,
}

impl OpenFile {
    /// Whether the kernel may write to pages through this handle: as it writes through its cache, or
    /// as it is mapped.
    pub(super) const fn writes_pages(&self) -> bool {
        self.access.write && (self.access.read || !self.direct)
    }

    /// A place in the file, for the iods, which must have the bytes up to `filled`.
    pub(super) const fn place(&self, offset: u64, filled: u64) -> Place<'_> {
        Place {
            layout: &self.layout,
            object: self.object,
            filled,
            offset,
        }
    }
}

/// All opens of the mount, bounded by what mgr grants to one client.
#[derive(Debug, Default)]
pub(super) struct OpenFiles {
    handles: RwLock<HashMap<u64, Arc<OpenFile>>>,
    handle_last: AtomicU64,
    inodes: Mutex<HashMap<InodeNumber, Arc<Inode>>>,
}

impl OpenFiles {
    fn lock_inodes(&self) -> MutexGuard<'_, HashMap<InodeNumber, Arc<Inode>>> {
        self.inodes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The inode of these attributes, known from now on.
    pub(super) fn intern(&self, attr: &Attr) -> Arc<Inode> {
        let mut inodes = self.lock_inodes();
        let inode = inodes
            .entry(attr.inode)
            .or_insert_with(|| Arc::new(Inode::new(attr)));
        Arc::clone(inode)
    }

    /// The same for something that is merely kept: `None` where that would be too much.
    pub(super) fn intern_to_keep(&self, attr: &Attr) -> Option<Arc<Inode>> {
        let full = self.lock_inodes().len() >= INODES_KEPT_MAX;
        match full {
            true => self.inode(attr.inode),
            false => Some(self.intern(attr)),
        }
    }

    /// Adds a handle of an inode under `open`, which mgr has granted. Both become known in one step:
    /// an open that no handle is seen to need is closed.
    pub(super) fn insert(
        &self,
        inode: &Arc<Inode>,
        access: Access,
        open: &MgrOpen,
        direct: bool,
    ) -> u64 {
        let mut state = inode.state();
        if state.opens.iter().all(|known| known.open != open.open) {
            state.opens.push(open.clone());
        }
        self.count(state, inode, access, open, direct)
    }

    /// Adds a handle under an open that `choose` finds good, with what else it says; `None` where it
    /// finds none.
    pub(super) fn share<T>(
        &self,
        inode: &Arc<Inode>,
        access: Access,
        direct: bool,
        choose: impl FnOnce(&InodeState) -> Option<(MgrOpen, T)>,
    ) -> Option<(u64, T)> {
        let state = inode.state();
        let (open, more) = choose(&state)?;
        Some((self.count(state, inode, access, &open, direct), more))
    }

    fn count(
        &self,
        mut state: MutexGuard<'_, InodeState>,
        inode: &Arc<Inode>,
        access: Access,
        open: &MgrOpen,
        direct: bool,
    ) -> u64 {
        let file = OpenFile {
            inode: Arc::clone(inode),
            open: open.open,
            access,
            layout: open.layout.clone(),
            object: open.object,
            direct,
        };
        state.readers += usize::from(!access.write);
        state.writers += usize::from(access.write);
        state.page_writers += usize::from(file.writes_pages());
        drop(state);
        let handle = self.handle_last.fetch_add(1, Ordering::Relaxed) + 1;
        let mut handles = self.handles.write().unwrap_or_else(PoisonError::into_inner);
        handles.insert(handle, Arc::new(file));
        handle
    }

    /// The open behind a handle.
    pub(super) fn get(&self, handle: u64) -> Result<Arc<OpenFile>, FsError> {
        let handles = self.handles.read().unwrap_or_else(PoisonError::into_inner);
        handles.get(&handle).cloned().ok_or(FsError::Stale)
    }

    /// Takes the open out; the file counts it until [`Self::closed`].
    pub(super) fn remove(&self, handle: u64) -> Option<Arc<OpenFile>> {
        let mut handles = self.handles.write().unwrap_or_else(PoisonError::into_inner);
        handles.remove(&handle)
    }

    /// mgr has heard of all that an open which was taken out had to tell: gives mgr's opens that
    /// nobody needs any more.
    pub(super) fn closed(&self, file: &OpenFile) -> Unneeded {
        let mut state = file.inode.state();
        state.readers -= usize::from(!file.access.write).min(state.readers);
        state.writers -= usize::from(file.access.write).min(state.writers);
        if file.writes_pages() {
            state.closed_page_writer();
        }
        state.take_unneeded()
    }

    /// An inode that is open here or of which something is kept.
    pub(super) fn inode(&self, inode: InodeNumber) -> Option<Arc<Inode>> {
        self.lock_inodes().get(&inode).map(Arc::clone)
    }

    /// All of them, in the order of their numbers.
    pub(super) fn inodes(&self) -> Vec<Arc<Inode>> {
        let mut inodes: Vec<_> = self.lock_inodes().values().map(Arc::clone).collect();
        inodes.sort_unstable_by_key(|inode| inode.number);
        inodes
    }

    /// The same for a look from outside of all tasks: none where somebody is changing them.
    #[cfg(feature = "simulation")]
    pub(super) fn inodes_if_free(&self) -> Vec<Arc<Inode>> {
        let inodes = self.inodes.try_lock();
        inodes.map_or_else(
            |_| Vec::new(),
            |inodes| inodes.values().map(Arc::clone).collect(),
        )
    }

    /// Forgets an inode of which nothing is in use, `inode` being the caller's only reference to it.
    pub(super) fn forget_unused(&self, inode: &Arc<Inode>) {
        let mut inodes = self.lock_inodes();
        // Whoever else is about to use it has a reference.
        if Arc::strong_count(inode) <= 2 && inode.state().is_unused() {
            inodes.remove(&inode.number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::inode::tests::attr;
    use crate::fs::lease::tests::grant;
    use pvfs::ids::IodId;
    use pvfs::proto::lease::Lease;

    const READ: Access = Access {
        read: true,
        write: false,
    };
    const WRITE: Access = Access {
        read: false,
        write: true,
    };

    fn open(files: &OpenFiles, number: u64, access: Access) -> u64 {
        let inode = files.intern(&attr(0, 1));
        let open = MgrOpen {
            open: OpenId(number),
            access,
            layout: Layout::new(4096, 0, vec![IodId(1)]).unwrap(),
            object: attr(0, 1).object(),
        };
        files.insert(&inode, access, &open, false)
    }

    fn close(files: &OpenFiles, handle: u64) -> Vec<OpenId> {
        let file = files.remove(handle).unwrap();
        let closed = files.closed(&file);
        assert!(files.get(handle).is_err());
        closed.opens
    }

    #[test]
    fn what_nobody_needs_is_closed_at_mgr() {
        let files = OpenFiles::default();
        let (reader, writer) = (open(&files, 1, READ), open(&files, 2, WRITE));
        let another = open(&files, 3, READ);
        assert_eq!(
            close(&files, reader),
            [],
            "another reads on, under any of them"
        );
        assert_eq!(close(&files, writer), [OpenId(2)]);
        assert_eq!(close(&files, another), [OpenId(1), OpenId(3)]);
        let inode = files.inode(InodeNumber(7)).unwrap();
        files.forget_unused(&inode);
        assert!(files.inode(InodeNumber(7)).is_none());
    }

    #[test]
    fn under_a_lease_one_open_for_reading_stays() {
        let files = OpenFiles::default();
        let (first, second) = (open(&files, 1, READ), open(&files, 2, READ));
        let inode = files.inode(InodeNumber(7)).unwrap();
        inode.state().lease.granted(&grant(Lease::Read, 1), false);
        assert_eq!(close(&files, first), []);
        assert_eq!(close(&files, second), [OpenId(2)]);
        files.forget_unused(&inode);
        assert!(files.inode(InodeNumber(7)).is_some());
    }

    #[test]
    fn who_may_write_to_pages_is_counted() {
        let files = OpenFiles::default();
        let writer = open(&files, 1, WRITE);
        let inode = files.inode(InodeNumber(7)).unwrap();
        let count = || {
            let state = inode.state();
            (state.writers, state.page_writers)
        };
        assert_eq!(count(), (1, 1));
        close(&files, writer);
        assert_eq!(count(), (0, 0));
        let file = OpenFile {
            inode,
            open: OpenId(1),
            access: WRITE,
            layout: Layout::new(4096, 0, vec![IodId(1)]).unwrap(),
            object: attr(0, 1).object(),
            direct: true,
        };
        assert!(!file.writes_pages(), "what cannot be read cannot be mapped");
    }
}
