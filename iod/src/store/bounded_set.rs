// SPDX-License-Identifier: MIT
//! A set of objects that forgets which they are when there are too many: it then holds all.

use std::collections::HashSet;

use pvfs::ids::ObjectId;
use pvfs::runtime::sync::{Mutex, MutexGuard, PoisonError};

pub(super) struct BoundedSet {
    objects_max: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    objects: HashSet<ObjectId>,
    overflowed: bool,
}

impl BoundedSet {
    pub(super) fn new(objects_max: usize) -> Self {
        Self {
            objects_max,
            state: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A set is sound after any panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn insert(&self, object: ObjectId) {
        let mut state = self.lock();
        if state.objects.len() < self.objects_max {
            state.objects.insert(object);
        } else if !state.objects.contains(&object) {
            state.overflowed = true;
        }
    }

    pub(super) fn remove(&self, object: ObjectId) {
        self.lock().objects.remove(&object);
    }

    pub(super) fn contains(&self, object: ObjectId) -> bool {
        let state = self.lock();
        state.overflowed || state.objects.contains(&object)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pvfs::ids::InodeNumber;

    #[test]
    fn a_full_set_holds_everything() {
        let object = |inode| ObjectId {
            inode: InodeNumber(inode),
            generation: 0,
        };
        let set = BoundedSet::new(2);
        set.insert(object(1));
        set.insert(object(2));
        set.insert(object(2));
        assert!(set.contains(object(1)) && !set.contains(object(3)));
        set.remove(object(1));
        assert!(!set.contains(object(1)));
        set.insert(object(1));
        set.insert(object(3));
        assert!(set.contains(object(4)));
    }
}
