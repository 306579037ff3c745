// SPDX-License-Identifier: MIT
//! Which writes come too late: a write carries the number of the lease under which it was sent, and
//! an object that has been written or cut under a newer one takes no older ones any more. So a write
//! that was on its way while its client lost its leases does not undo what another has written since.
//!
//! The table is in memory: what was on its way to a process that ended does not arrive at the next.

use std::collections::HashMap;

use pvfs::error::FsError;
use pvfs::ids::ObjectId;
use pvfs::runtime::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Objects of one generation of the table, of which there are two: 50 bytes each. Of an object that
/// so many others were written since, the number is forgotten, and late writes to it are taken.
const OBJECTS_MAX: usize = 1 << 16;
/// The number of a write whose client takes no leases: it is neither refused nor remembered.
const UNFENCED: u64 = 0;

/// The largest fence that each object has seen.
pub struct Fences {
    objects_max: usize,
    table: Mutex<Table>,
    left: Condvar,
}

#[derive(Default)]
struct Table {
    recent: HashMap<ObjectId, Entry>,
    older: HashMap<ObjectId, Entry>,
}

#[derive(Clone, Copy, Default)]
struct Entry {
    fence: u64,
    /// Of the last truncation.
    cut: u64,
    /// Pieces that are being stored under this number.
    under_way: u32,
}

/// While it lives, nothing newer is stored.
pub struct Passage<'a> {
    fences: &'a Fences,
    object: Option<ObjectId>,
}

impl Fences {
    pub(super) fn new() -> Self {
        Self::with_capacity(OBJECTS_MAX)
    }

    fn with_capacity(objects_max: usize) -> Self {
        Self {
            objects_max,
            table: Mutex::default(),
            left: Condvar::new(),
        }
    }

    /// Every change of the table is a single step, so a panic leaves it sound.
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets a change of the object pass, to be made while the result lives. A first one under a new
    /// number waits for pieces under older ones that are being stored.
    ///
    /// # Errors
    ///
    /// [`FsError::Fenced`] where the object has been changed under a newer number.
    pub fn pass(&self, object: ObjectId, fence: u64) -> Result<Passage<'_>, FsError> {
        self.enter(object, fence, None)
    }

    /// The same for the truncation `number`: one that comes after a later one is refused, since it
    /// would cut off what was written after that.
    ///
    /// # Errors
    ///
    /// As [`Self::pass`].
    pub fn pass_cut(
        &self,
        object: ObjectId,
        fence: u64,
        number: u64,
    ) -> Result<Passage<'_>, FsError> {
        self.enter(object, fence, Some(number))
    }

    fn enter(
        &self,
        object: ObjectId,
        fence: u64,
        cut: Option<u64>,
    ) -> Result<Passage<'_>, FsError> {
        if fence == UNFENCED {
            return Ok(Passage {
                fences: self,
                object: None,
            });
        }
        let mut table = self.lock();
        loop {
            let entry = table.entry(object, self.objects_max);
            if fence < entry.fence || cut.is_some_and(|number| number < entry.cut) {
                return Err(FsError::Fenced);
            }
            if fence == entry.fence || entry.under_way == 0 {
                let cut = cut.unwrap_or(entry.cut);
                debug_assert!(fence >= entry.fence && cut >= entry.cut, "fences only grow");
                entry.fence = fence;
                entry.cut = cut;
                entry.under_way += 1;
                return Ok(Passage {
                    fences: self,
                    object: Some(object),
                });
            }
            table = self
                .left
                .wait(table)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Drop for Passage<'_> {
    fn drop(&mut self) {
        let Some(object) = self.object else { return };
        let mut table = self.fences.lock();
        let entry = table.entry(object, self.fences.objects_max);
        debug_assert!(entry.under_way > 0, "a passage that nobody counts");
        entry.under_way = entry.under_way.saturating_sub(1);
        if entry.under_way == 0 {
            drop(table);
            self.fences.left.notify_all();
        }
    }
}

impl Table {
    /// The object's entry, among the recent ones from now on.
    fn entry(&mut self, object: ObjectId, objects_max: usize) -> &mut Entry {
        if !self.recent.contains_key(&object) {
            let known = self.older.remove(&object).unwrap_or_default();
            if self.recent.len() >= objects_max {
                let mut forgotten =
                    std::mem::replace(&mut self.older, std::mem::take(&mut self.recent));
                forgotten.retain(|_, entry| entry.under_way > 0);
                self.recent = forgotten;
            }
            self.recent.insert(object, known);
        }
        self.recent.entry(object).or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pvfs::ids::InodeNumber;
    use std::sync::atomic::{AtomicBool, Ordering};

    fn object(inode: u64) -> ObjectId {
        ObjectId {
            inode: InodeNumber(inode),
            generation: 0,
        }
    }

    fn passes(fences: &Fences, inode: u64, fence: u64) -> bool {
        fences.pass(object(inode), fence).is_ok()
    }

    #[test]
    fn what_is_older_than_the_newest_is_refused() {
        let fences = Fences::new();
        for (inode, fence, expected) in [
            (1, 5, true),
            (1, 5, true),
            (1, 4, false),
            (2, 4, true),
            (1, 0, true),
            (1, 6, true),
            (1, 5, false),
        ] {
            assert_eq!(passes(&fences, inode, fence), expected, "{inode} {fence}");
        }
    }

    #[test]
    fn a_late_truncation_is_refused() {
        let fences = Fences::new();
        let cut = |fence, number| fences.pass_cut(object(1), fence, number).is_ok();
        assert!(cut(5, 2) && passes(&fences, 1, 5));
        assert!(!cut(5, 1), "the attempt before it, on another connection");
        assert!(cut(5, 2) && cut(6, 3) && !passes(&fences, 1, 5));
    }

    #[test]
    fn a_newer_one_waits_for_what_is_being_stored() {
        let fences = Fences::new();
        let old = fences.pass(object(1), 5).unwrap();
        let same = fences.pass(object(1), 5).unwrap();
        let passed = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let newer = scope.spawn(|| {
                let passage = fences.pass(object(1), 6).unwrap();
                passed.store(true, Ordering::SeqCst);
                drop(passage);
            });
            assert!(passes(&fences, 2, 1), "others do not wait");
            drop(old);
            assert!(!passed.load(Ordering::SeqCst), "one is still under way");
            drop(same);
            newer.join().unwrap();
        });
        assert!(!passes(&fences, 1, 5));
    }

    #[test]
    fn the_table_is_bounded_and_forgets_what_was_not_used_for_long() {
        let fences = Fences::with_capacity(10);
        let held = fences.pass(object(1), 9).unwrap();
        assert!(passes(&fences, 2, 9));
        for inode in 3..100 {
            assert!(passes(&fences, inode, 9));
            let table = fences.lock();
            assert!(table.recent.len() + table.older.len() <= 22);
        }
        assert!(!passes(&fences, 99, 8) && passes(&fences, 2, 8));
        assert!(!passes(&fences, 1, 8), "it is in use");
        drop(held);
    }
}
