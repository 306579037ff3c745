// SPDX-License-Identifier: MIT
//! One request's view of the state: what is committed, under what earlier requests of the batch
//! changed, under what this request changes.

use std::borrow::Cow;
use std::collections::BTreeMap;

use bincode::{Decode, Encode};
use pvfs::error::FsError;
use pvfs::ids::InodeNumber;

use super::key::end_of_prefix;
use super::opens::OpenTable;
use super::{Context, value};
use crate::placement::Placement;
use crate::store::{Record, Records, StoreError, View};

/// Why a request stops.
#[derive(Debug)]
pub enum Halt {
    /// It fails, and this is its reply.
    Fs(FsError),
    /// It must wait until the stripes of this inode have been cut, and be run again then.
    Blocked(InodeNumber),
    /// The store failed.
    Store(StoreError),
}

impl From<FsError> for Halt {
    fn from(error: FsError) -> Self {
        Self::Fs(error)
    }
}

impl From<StoreError> for Halt {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// The records that one request reads and changes. Dropping it drops the request's records; changes of the
/// open table are undone by whoever made the savepoint.
pub struct Transaction<'a> {
    committed: &'a dyn View,
    batch: &'a Records,
    own: Records,
    placements: Vec<Placement>,
    /// What the request may know besides the store.
    pub context: &'a Context<'a>,
    /// Who has what open.
    pub opens: &'a mut OpenTable,
}

impl<'a> Transaction<'a> {
    /// A transaction without changes of its own.
    pub const fn new(
        committed: &'a dyn View,
        batch: &'a Records,
        context: &'a Context<'a>,
        opens: &'a mut OpenTable,
    ) -> Self {
        Self {
            committed,
            batch,
            own: Records::new(),
            placements: Vec::new(),
            context,
            opens,
        }
    }

    /// What the request changed.
    #[must_use]
    pub fn into_records(self) -> Records {
        self.own
    }

    /// Notes that the request places something on iods.
    pub(super) fn note_placed(&mut self, placement: Placement) {
        self.placements.push(placement);
    }

    /// What the request has placed on iods, once.
    pub fn take_placements(&mut self) -> Vec<Placement> {
        std::mem::take(&mut self.placements)
    }

    /// The bytes under `key`, whatever they are.
    pub(super) fn raw(&self, key: &[u8]) -> Result<Option<&[u8]>, StoreError> {
        match self.own.get(key).or_else(|| self.batch.get(key)) {
            Some(changed) => Ok(changed.as_deref()),
            None => self.committed.get(key),
        }
    }

    /// The value under `key`.
    ///
    /// # Errors
    ///
    /// [`Halt::Store`].
    pub fn get<T: Decode<()>>(&self, key: &[u8]) -> Result<Option<T>, Halt> {
        match self.raw(key)? {
            Some(bytes) => Ok(Some(value::decode(key, bytes)?)),
            None => Ok(None),
        }
    }

    /// The value under `key`, which other records say is there.
    ///
    /// # Errors
    ///
    /// [`Halt::Store`], also where it is not.
    pub fn required<T: Decode<()>>(&self, key: Vec<u8>) -> Result<T, Halt> {
        match self.get(&key)? {
            Some(value) => Ok(value),
            None => Err(StoreError::Missing { key }.into()),
        }
    }

    /// Whether there is a value under `key`.
    ///
    /// # Errors
    ///
    /// [`Halt::Store`].
    pub fn has(&self, key: &[u8]) -> Result<bool, Halt> {
        Ok(self.raw(key)?.is_some())
    }

    /// Puts `value` under `key`.
    ///
    /// # Errors
    ///
    /// [`Halt::Store`] where it is above its limit.
    pub fn put<T: Encode>(&mut self, key: Vec<u8>, value: &T) -> Result<(), Halt> {
        self.own.insert(key, Some(value::encode(value)?));
        Ok(())
    }

    /// Removes what is under `key`, if anything is.
    pub fn delete(&mut self, key: Vec<u8>) {
        self.own.insert(key, None);
    }

    /// At most `records_max` records whose keys start with `prefix` and come after `after`, in
    /// order.
    ///
    /// # Errors
    ///
    /// [`Halt::Store`].
    pub fn scan(
        &self,
        prefix: &[u8],
        after: &[u8],
        records_max: usize,
    ) -> Result<Vec<Record>, Halt> {
        self.scan_until(after, end_of_prefix(prefix).as_deref(), records_max)
    }

    /// At most `records_max` records after `after` and before `end`, in the order of their keys.
    ///
    /// # Errors
    ///
    /// [`Halt::Store`].
    pub fn scan_until(
        &self,
        after: &[u8],
        end: Option<&[u8]>,
        records_max: usize,
    ) -> Result<Vec<Record>, Halt> {
        let changed = self.changed_between(after, end);
        // Each changed key hides at most one committed record.
        let committed_max = records_max.saturating_add(changed.len());
        let mut found = BTreeMap::new();
        if committed_max > 0 {
            self.committed.scan(after, end, &mut |key, value| {
                found.insert(Cow::<[u8]>::Owned(key.to_vec()), value.to_vec());
                found.len() < committed_max
            })?;
        }
        for (key, value) in changed {
            match value {
                Some(value) => found.insert(Cow::Borrowed(key), value.to_vec()),
                None => found.remove(key),
            };
        }
        let found = found.into_iter().take(records_max);
        Ok(found
            .map(|(key, value)| (key.into_owned(), value))
            .collect())
    }

    fn changed_between(&self, after: &[u8], end: Option<&[u8]>) -> BTreeMap<&[u8], Option<&[u8]>> {
        use std::ops::Bound::{Excluded, Unbounded};
        if end.is_some_and(|end| end <= after) {
            return BTreeMap::new();
        }
        let range = (Excluded(after), end.map_or(Unbounded, Excluded));
        let layers = [self.batch, &self.own].into_iter();
        layers
            .flat_map(|layer| layer.range::<[u8], _>(range))
            .map(|(key, value)| (key.as_slice(), value.as_deref()))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::context;
    use super::*;
    use crate::store::Store;
    use crate::store::memory::MemoryStore;

    fn layer(pairs: &[(&str, Option<u32>)]) -> Records {
        let encode = |n: u32| value::encode(&n).unwrap();
        pairs
            .iter()
            .map(|(k, v)| (k.as_bytes().to_vec(), v.map(encode)))
            .collect()
    }

    #[test]
    fn later_layers_hide_earlier_ones() {
        let mut store = MemoryStore::default();
        store
            .commit(&layer(&[
                ("pa", Some(1)),
                ("pb", Some(2)),
                ("pc", Some(3)),
                ("q", Some(9)),
            ]))
            .unwrap();
        let batch = layer(&[("pa", None), ("pd", Some(4)), ("pb", Some(20))]);
        let (context, mut opens) = (context(), OpenTable::default());
        let view = &store;
        let mut tx = Transaction::new(&view, &batch, &context, &mut opens);
        tx.put(b"pa0".to_vec(), &10u32).unwrap();
        tx.delete(b"pd".to_vec());
        assert_eq!(tx.get::<u32>(b"pb").unwrap(), Some(20));
        assert!(!tx.has(b"pa").unwrap() && !tx.has(b"pd").unwrap());
        let keys = |after: &str, max| {
            let found = tx.scan(b"p", after.as_bytes(), max).unwrap();
            let keys = found
                .into_iter()
                .map(|(key, _)| String::from_utf8(key).unwrap());
            keys.collect::<Vec<_>>().join(" ")
        };
        assert_eq!(keys("p", 9), "pa0 pb pc");
        assert_eq!(keys("p", 2), "pa0 pb");
        assert_eq!(keys("pb", 9), "pc");
        assert_eq!(keys("p", 0), "");
    }
}
