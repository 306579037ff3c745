// SPDX-License-Identifier: MIT
//! The key-value store under the name space: a small trait, LMDB on disk, a map in tests.

pub mod copy;
pub mod integrity;
pub mod lmdb;
pub mod memory;
pub mod pages;
mod seal;

use std::collections::BTreeMap;

use thiserror::Error;

/// What a batch changes: a key's new value, or `None` where the key goes.
pub type Records = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// A key and its value.
pub type Record = (Vec<u8>, Vec<u8>);

/// What can go wrong with the store.
#[derive(Debug, Error)]
pub enum StoreError {
    /// A value that is not what its key says.
    #[error(
        "metadata record {} is damaged: restore the data directory from a backup",
        escape(key)
    )]
    Corrupt {
        /// Where it stands.
        key: Vec<u8>,
    },
    /// A record that another one says must be there.
    #[error(
        "metadata record {} is missing: restore the data directory from a backup, or see pvfs fsck",
        escape(key)
    )]
    Missing {
        /// Where it should stand.
        key: Vec<u8>,
    },
    /// A value that another version wrote.
    #[error(
        "metadata record {} has format version {version}, which this pvfs-mgr does not read: \
         run the version that wrote it",
        escape(key)
    )]
    Version {
        /// Where it stands.
        key: Vec<u8>,
        /// What it says.
        version: u8,
    },
    /// A value above its limit.
    #[error("metadata record is above its limit")]
    TooLong,
    /// The store's own limit or its disk is full; nothing of the batch has been stored.
    #[error("the metadata store is full")]
    Full,
    /// The store or the disk under it failed.
    #[error("the metadata store failed: {0}")]
    Backend(String),
}

fn escape(key: &[u8]) -> String {
    key.escape_ascii().to_string()
}

/// The committed state at one moment.
pub trait View {
    /// A key's value.
    ///
    /// # Errors
    ///
    /// [`StoreError::Backend`].
    fn get(&self, key: &[u8]) -> Result<Option<&[u8]>, StoreError>;

    /// Shows the records after `after` and before `before`, both exclusive (`None`: to the end), in
    /// the order of their keys, until `visit` returns false.
    ///
    /// # Errors
    ///
    /// [`StoreError::Backend`].
    fn scan(
        &self,
        after: &[u8],
        before: Option<&[u8]>,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StoreError>;
}

/// A store of records.
pub trait Store {
    /// See [`View`].
    type View<'a>: View
    where
        Self: 'a;

    /// The committed state.
    ///
    /// # Errors
    ///
    /// [`StoreError::Backend`].
    fn view(&self) -> Result<Self::View<'_>, StoreError>;

    /// Stores all of `records` or none of them, durably: they survive whatever happens after this
    /// returned.
    ///
    /// # Errors
    ///
    /// [`StoreError::Full`]: nothing was stored and the store goes on. Any other: what is on disk is
    /// unknown, and the caller must stop.
    fn commit(&mut self, records: &Records) -> Result<(), StoreError>;

    /// How much is used of how much.
    ///
    /// # Errors
    ///
    /// [`StoreError::Backend`].
    fn usage(&self) -> Result<Usage, StoreError>;
}

/// How full a store is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Bytes in use.
    pub bytes_used: u64,
    /// Bytes that may be used.
    pub bytes_max: u64,
}

impl Usage {
    /// Whether more may be stored.
    #[must_use]
    pub const fn has_room(&self) -> bool {
        self.bytes_used < self.bytes_max
    }
}
