// SPDX-License-Identifier: MIT
//! What a store holds when it is new, and what is read from it at start.

use bincode::{Decode, Encode};
use pvfs::attr::{Attr, FileKind, Timestamp};
use pvfs::ids::{FileSystemId, ROOT_INODE};
use pvfs::limits::IODS_MAX;

use super::inode::{Counters, Directory, Inode};
use super::{key, value};
use crate::store::{Records, Store, StoreError, View};

/// A file system's identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct FileSystem {
    /// Drawn when the file system was made.
    pub id: FileSystemId,
    /// When that was.
    pub made: Timestamp,
}

/// What a start found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Started {
    /// Which file system this is.
    pub file_system: FileSystemId,
    /// How often mgr has started on it, this time included.
    pub starts: u32,
    /// How often an era has begun.
    pub era: u32,
    /// The store was empty.
    pub fresh: bool,
}

/// What a new era leaves out, since a backup does not know what was used after it: starts, numbers of
/// inodes and of iods. None of them is used twice, where fewer of each were used meanwhile.
const ERA_STARTS: u32 = 1 << 16;
const ERA_INODES: u64 = 1 << 32;
const ERA_IODS: u32 = IODS_MAX as u32;
/// Starts, those that eras leave out among them: numbers that begin with one have 24 bits for it.
const STARTS_MAX: u32 = (1 << 24) - 1;

/// Makes an empty store a file system with the identity `drawn`; counts the start in any case. Where
/// `new_era` is said, the store was restored from a backup: what is numbered from now on has numbers
/// that were not used before, and what the iods have seen since is believed once.
///
/// # Errors
///
/// [`StoreError`].
pub fn start(
    store: &mut impl Store,
    drawn: FileSystemId,
    new_era: bool,
    now: Timestamp,
) -> Result<Started, StoreError> {
    let (known, counters) = {
        let view = store.view()?;
        let counters = read::<Counters>(&view, &key::counters())?;
        (read::<FileSystem>(&view, &key::file_system())?, counters)
    };
    let mut counters = match (&known, counters) {
        (None, None) => Counters::FIRST,
        (Some(_), Some(counters)) => counters,
        (Some(_), None) => {
            return Err(StoreError::Missing {
                key: key::counters(),
            });
        }
        (None, Some(_)) => {
            return Err(StoreError::Missing {
                key: key::file_system(),
            });
        }
    };
    if new_era {
        counters.era = counters.era.saturating_add(1);
        counters.starts = counters.starts.saturating_add(ERA_STARTS);
        counters.inode_next = counters.inode_next.saturating_add(ERA_INODES);
        counters.iod_next = counters.iod_next.saturating_add(ERA_IODS);
    }
    counters.starts = counters.starts.saturating_add(1);
    if counters.starts > STARTS_MAX {
        let spent = format!("it has been started {STARTS_MAX} times, and more are not foreseen");
        return Err(StoreError::Backend(spent));
    }
    let mut records = Records::new();
    records.insert(key::counters(), Some(value::encode(&counters)?));
    if known.is_none() {
        let file_system = FileSystem {
            id: drawn,
            made: now,
        };
        records.insert(key::file_system(), Some(value::encode(&file_system)?));
        records.insert(key::inode(ROOT_INODE), Some(value::encode(&root(now))?));
    }
    store.commit(&records)?;
    let file_system = known.map_or(drawn, |known| known.id);
    Ok(Started {
        file_system,
        starts: counters.starts,
        era: counters.era,
        fresh: known.is_none(),
    })
}

fn read<T: Decode<()>>(view: &impl View, key: &[u8]) -> Result<Option<T>, StoreError> {
    view.get(key)?
        .map(|bytes| value::decode(key, bytes))
        .transpose()
}

/// The root as a new file system has it: root's, and for all to read.
const fn root(now: Timestamp) -> Inode {
    Inode {
        attr: Attr {
            inode: ROOT_INODE,
            generation: 0,
            kind: FileKind::Directory,
            mode: 0o755,
            nlink: 2,
            uid: 0,
            gid: 0,
            rdev: 0,
            size: 0,
            atime: now,
            mtime: now,
            ctime: now,
            change: 0,
            allocated: None,
            filled: 0,
            has_acl: false,
            has_capability: false,
        },
        directory: Some(Directory::new(ROOT_INODE)),
    }
}
