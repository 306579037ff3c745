// SPDX-License-Identifier: GPL-2.0-only
//! The size cache: what is known of the files that clients want. Each of its sets is allocated when a
//! name falls into it; some sets share a lock.

use kernel::prelude::*;

use crate::director::http::Name;
use crate::director::mwlc_family::SizeAnswer;
use crate::director::size_cache::{Entry, Look, Set, KNOWN_TTL_MS, SETS, UNKNOWN_TTL_MS};
use crate::kapi::clock::Ticks;
use crate::kapi::lock::BhLock;
use crate::kapi::random::NameKey;

/// Sets that share a lock: enough locks that CPUs rarely meet.
const SETS_PER_LOCK: usize = 64;

type StoredEntry = Entry<KVec<u8>>;
type StoredSet = Option<KBox<Set<KVec<u8>>>>;

/// Some sets of the cache; each is allocated when a name falls into it.
#[pin_data]
struct Shard {
    #[pin]
    sets: BhLock<[StoredSet; SETS_PER_LOCK]>,
}

/// A namespace's size cache.
pub(crate) struct Sizes {
    key: NameKey,
    shards: Pin<KBox<[Shard]>>,
}

impl Sizes {
    /// An empty cache.
    pub(crate) fn new() -> Result<Sizes> {
        // `pin_slice` wants an initialiser with an error of its own.
        let shard = |_| {
            try_pin_init!(Shard {
                sets <- BhLock::new([const { None }; SETS_PER_LOCK]),
            }? Error)
        };
        let shards = KBox::pin_slice(shard, SETS / SETS_PER_LOCK, GFP_KERNEL)?;
        Ok(Sizes {
            key: NameKey::random(),
            shards,
        })
    }

    /// What is known of a file; if nothing is, whether to ask.
    pub(crate) fn look(&self, name: &Name) -> Look {
        let hash = self.key.hash(name.bytes());
        self.with_set(hash, |set| match set_or_new(set) {
            Some(set) => set.look(hash, name.bytes(), now_ms()),
            None => Look::Nothing,
        })
        .unwrap_or(Look::Nothing)
    }

    /// Takes in what somebody says about a file. Sleeps.
    pub(crate) fn put(&self, answer: &SizeAnswer) -> Result {
        let name = answer.name.bytes();
        let hash = self.key.hash(name);
        let mut stored = KVec::with_capacity(name.len(), GFP_KERNEL)?;
        stored.extend_from_slice(name, GFP_KERNEL)?;
        let default_ms = match answer.size_bytes {
            Some(_) => KNOWN_TTL_MS,
            None => UNKNOWN_TTL_MS,
        };
        let ttl_ms = answer.ttl_ms.unwrap_or(default_ms);
        let replaced = self.with_set(hash, |set| {
            let set = set_or_new(set).ok_or(ENOMEM)?;
            Ok(set.put(hash, stored, answer.size_bytes, ttl_ms, now_ms()))
        });
        // Dropped here, without the lock.
        replaced.unwrap_or(Ok(None)).map(drop)
    }

    /// Forgets one file; false if it is not known.
    pub(crate) fn forget(&self, name: &Name) -> bool {
        let hash = self.key.hash(name.bytes());
        let removed = self.with_set(hash, |set| set.as_mut()?.remove(hash, name.bytes()));
        removed.flatten().is_some()
    }

    /// Forgets everything.
    pub(crate) fn clear(&self) {
        for index in 0..SETS as u64 {
            drop(self.with_set(index, Option::take));
        }
    }

    /// Shows the entries of one set, until `show` answers false; false if it did.
    pub(crate) fn entries(
        &self,
        index: u64,
        mut show: impl FnMut(&StoredEntry, u64) -> bool,
    ) -> bool {
        let now_ms = now_ms();
        self.with_set(index, |set| match set {
            Some(set) => set.entries(now_ms).all(|entry| show(entry, now_ms)),
            None => true,
        })
        .unwrap_or(true)
    }

    /// The set that a hash belongs to, under its lock.
    fn with_set<R>(&self, hash: u64, critical: impl FnOnce(&mut StoredSet) -> R) -> Option<R> {
        let index = hash as usize & (SETS - 1);
        let shard = self.shards.get(index / SETS_PER_LOCK)?;
        shard.sets.with(|sets| {
            let set = sets.get_mut(index & (SETS_PER_LOCK - 1))?;
            Some(critical(set))
        })
    }
}

/// The set, made if need be; `None` if there is no memory.
fn set_or_new(set: &mut StoredSet) -> Option<&mut Set<KVec<u8>>> {
    if set.is_none() {
        *set = KBox::new(Set::new(), GFP_ATOMIC).ok();
    }
    set.as_deref_mut()
}

fn now_ms() -> u64 {
    Ticks::now().ms_since(Ticks(0))
}
