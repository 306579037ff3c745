// SPDX-License-Identifier: MIT
//! The objects whose sums are not settled yet: names only, so that a burst of new files costs little.

use std::collections::HashSet;

use pvfs::ids::ObjectId;
use pvfs::runtime::sync::{Mutex, MutexGuard, PoisonError};

/// Objects remembered. What is forgotten beyond is settled when it is next used or scrubbed: until
/// then a crash or a restart makes its sums be computed anew, so that damage before that is not seen.
pub const UNSETTLED_OBJECTS_MAX: usize = 1 << 18;

/// The objects whose checksums are not on the disk yet.
#[derive(Debug, Default)]
pub(super) struct Unsettled {
    objects: Mutex<HashSet<ObjectId>>,
}

impl Unsettled {
    fn lock(&self) -> MutexGuard<'_, HashSet<ObjectId>> {
        // A set is sound after any panic.
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn insert(&self, object: ObjectId) {
        let mut objects = self.lock();
        if objects.len() < UNSETTLED_OBJECTS_MAX {
            objects.insert(object);
        }
    }

    pub(super) fn remove(&self, object: ObjectId) {
        self.lock().remove(&object);
    }

    /// All of them, in order.
    pub(super) fn all(&self) -> Vec<ObjectId> {
        let mut objects: Vec<_> = self.lock().iter().copied().collect();
        objects.sort_unstable();
        objects
    }
}
