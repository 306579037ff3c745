// SPDX-License-Identifier: MIT
//! Which of the kernel's cached pages are still right: decided at open, by mgr's `change` counter.
//!
//! For each inode whose pages this mount may have cached, the counter under which they were read is
//! kept. An open under the same counter keeps the pages; under another one the kernel drops them
//! before open(2) returns. Forgetting a record is always safe: it costs a cold read.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use pvfs::ids::InodeNumber;

/// Inodes with a record: 48 bytes each make 48 MiB at most. Beyond it, all records go.
const RECORDS_MAX: usize = 1 << 20;

/// What the kernel does with the pages that it has of a file which is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pages {
    /// They are what the file holds.
    Keep,
    /// They may be older.
    Drop,
}

/// What is known of one inode's pages.
#[derive(Clone, Copy, Debug)]
struct Record {
    /// No cached page is older than this change, once `settled`.
    change: u64,
    /// The kernel has dropped what was older: the open under `change` has returned.
    settled: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct PageCache {
    records: Mutex<HashMap<InodeNumber, Record>>,
}

impl PageCache {
    fn lock(&self) -> MutexGuard<'_, HashMap<InodeNumber, Record>> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// mgr granted an open under `change`: says what the kernel is to do with its pages.
    pub(super) fn opened(&self, inode: InodeNumber, change: u64) -> Pages {
        let mut records = self.lock();
        match records.get(&inode) {
            Some(record) if record.change == change && record.settled => Pages::Keep,
            _ => {
                if records.len() >= RECORDS_MAX {
                    records.clear();
                }
                records.insert(
                    inode,
                    Record {
                        change,
                        settled: false,
                    },
                );
                Pages::Drop
            }
        }
    }

    /// An open that was told to drop pages is in use, so the kernel has dropped them.
    pub(super) fn settle(&self, inode: InodeNumber, change: u64) {
        if let Some(record) = self.lock().get_mut(&inode) {
            if record.change == change {
                record.settled = true;
            }
        }
    }

    /// This mount changed the content, and the kernel with it: where nobody else did in between,
    /// the pages are right under the new counter too.
    pub(super) fn changed_here(&self, inode: InodeNumber, before: u64, after: u64) {
        if let Some(record) = self.lock().get_mut(&inode) {
            if record.change == before {
                record.change = after;
            }
        }
    }

    /// The kernel has dropped the inode and its pages.
    pub(super) fn forget(&self, inode: InodeNumber) {
        self.lock().remove(&inode);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: InodeNumber = InodeNumber(7);

    #[test]
    fn pages_stay_while_nothing_changes() {
        let cache = PageCache::default();
        assert_eq!(cache.opened(FILE, 3), Pages::Drop);
        cache.settle(FILE, 3);
        assert_eq!(cache.opened(FILE, 3), Pages::Keep);
        assert_eq!(cache.opened(FILE, 3), Pages::Keep);
    }

    #[test]
    fn a_change_elsewhere_drops_them() {
        let cache = PageCache::default();
        cache.opened(FILE, 3);
        cache.settle(FILE, 3);
        assert_eq!(cache.opened(FILE, 4), Pages::Drop);
        cache.settle(FILE, 4);
        assert_eq!(cache.opened(FILE, 4), Pages::Keep);
    }

    #[test]
    fn until_the_kernel_has_dropped_them_every_open_drops_them() {
        let cache = PageCache::default();
        assert_eq!(cache.opened(FILE, 3), Pages::Drop);
        assert_eq!(cache.opened(FILE, 3), Pages::Drop);
        assert_eq!(cache.opened(FILE, 4), Pages::Drop);
        cache.settle(FILE, 3);
        assert_eq!(
            cache.opened(FILE, 4),
            Pages::Drop,
            "an older open settles nothing"
        );
    }

    #[test]
    fn own_changes_keep_them_and_foreign_ones_in_between_do_not() {
        let cache = PageCache::default();
        cache.opened(FILE, 3);
        cache.settle(FILE, 3);
        cache.changed_here(FILE, 3, 4);
        assert_eq!(cache.opened(FILE, 4), Pages::Keep);
        // Somebody else made it 5, this mount 6: the pages may lack what 5 brought.
        cache.changed_here(FILE, 5, 6);
        assert_eq!(cache.opened(FILE, 6), Pages::Drop);
    }

    #[test]
    fn what_is_forgotten_is_dropped() {
        let cache = PageCache::default();
        cache.opened(FILE, 3);
        cache.settle(FILE, 3);
        cache.forget(FILE);
        assert_eq!(cache.opened(FILE, 3), Pages::Drop);
    }
}
