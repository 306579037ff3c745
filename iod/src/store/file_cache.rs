// SPDX-License-Identifier: MIT
//! The local files that are kept open, the least recently used closed first.
//!
//! A shard's lock is held while a file is opened or unlinked, so that an open file whose name is
//! gone can never enter the cache.
//!
//! # Invariants
//!
//! An object has one [`ObjectFile`] at a time, whose lock orders its writers: one that left the cache
//! while somebody uses it comes back into it.

use std::collections::HashMap;
use std::io;
use std::num::NonZeroUsize;

use lru::LruCache;
use pvfs::ids::ObjectId;
use pvfs::runtime::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::object_file::ObjectFile;

/// Enough that two threads seldom meet at a lock, few enough that each holds many files.
const SHARDS: usize = 16;

struct Shard {
    recent: LruCache<ObjectId, Arc<ObjectFile>>,
    /// In use and not among the recent ones: no more than there are connections.
    lingering: HashMap<ObjectId, Weak<ObjectFile>>,
}

impl Shard {
    /// Adds a file and returns the one that had to leave for it.
    fn push(&mut self, object: ObjectId, file: Arc<ObjectFile>) -> Option<Arc<ObjectFile>> {
        let (object, evicted) = self.recent.push(object, file)?;
        if Arc::strong_count(&evicted) > 1 {
            self.lingering.retain(|_, file| file.strong_count() > 0);
            self.lingering.insert(object, Arc::downgrade(&evicted));
        }
        Some(evicted)
    }
}

pub(super) struct FileCache {
    shards: Vec<Mutex<Shard>>,
}

impl FileCache {
    /// A cache of about `files_max` files, and of one in each shard at least.
    pub(super) fn new(files_max: usize) -> Self {
        let of_shard = NonZeroUsize::new(files_max / SHARDS).unwrap_or(NonZeroUsize::MIN);
        Self {
            shards: (0..SHARDS)
                .map(|_| {
                    Mutex::new(Shard {
                        recent: LruCache::new(of_shard),
                        lingering: HashMap::new(),
                    })
                })
                .collect(),
        }
    }

    fn shard(&self, object: ObjectId) -> io::Result<MutexGuard<'_, Shard>> {
        let index = usize::try_from(object.inode.0 % SHARDS as u64).unwrap_or_default();
        let shard = self
            .shards
            .get(index)
            .ok_or_else(|| io::Error::other("no such shard"))?;
        // The cache is changed by single calls, so a panic leaves it sound.
        Ok(shard.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The object's file, from the cache or opened by `open`.
    pub(super) fn get(
        &self,
        object: ObjectId,
        open: impl FnOnce() -> io::Result<ObjectFile>,
    ) -> io::Result<Arc<ObjectFile>> {
        let mut shard = self.shard(object)?;
        if let Some(file) = shard.recent.get(&object) {
            return Ok(Arc::clone(file));
        }
        let lingering = shard.lingering.remove(&object);
        let file = match lingering.and_then(|file| file.upgrade()) {
            Some(file) => file,
            None => Arc::new(open()?),
        };
        let evicted = shard.push(object, Arc::clone(&file));
        drop(shard);
        // Closing may take long, on the last reference to a removed file.
        drop(evicted);
        Ok(file)
    }

    /// Removes the object by `unlink`, and its file from the cache.
    pub(super) fn remove(
        &self,
        object: ObjectId,
        unlink: impl FnOnce() -> io::Result<()>,
    ) -> io::Result<()> {
        let mut shard = self.shard(object)?;
        unlink()?;
        let file = shard.recent.pop(&object);
        shard.lingering.remove(&object);
        drop(shard);
        drop(file);
        Ok(())
    }
}
