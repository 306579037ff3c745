// SPDX-License-Identifier: MIT
//! The local files that are kept open, the least recently used closed first.
//!
//! A shard's lock is held while a file is opened or unlinked, so that an open file whose name is
//! gone can never enter the cache.

use std::io;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lru::LruCache;
use pvfs::ids::ObjectId;

use super::object_file::ObjectFile;

/// Enough that two threads seldom meet at a lock, few enough that each holds many files.
const SHARDS: usize = 16;

type Shard = LruCache<ObjectId, Arc<ObjectFile>>;

pub(super) struct FileCache {
    shards: Vec<Mutex<Shard>>,
}

impl FileCache {
    /// A cache of about `files_max` files, and of one in each shard at least.
    pub(super) fn new(files_max: usize) -> Self {
        let of_shard = NonZeroUsize::new(files_max / SHARDS).unwrap_or(NonZeroUsize::MIN);
        Self {
            shards: (0..SHARDS)
                .map(|_| Mutex::new(LruCache::new(of_shard)))
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
        if let Some(file) = shard.get(&object) {
            return Ok(Arc::clone(file));
        }
        let file = Arc::new(open()?);
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
        let file = shard.pop(&object);
        drop(shard);
        drop(file);
        Ok(())
    }
}
