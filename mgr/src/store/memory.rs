// SPDX-License-Identifier: MIT
//! The store as an ordered map in memory: for tests, and the model that LMDB is compared with.

use std::collections::BTreeMap;
use std::ops::Bound;

use super::{Records, Store, StoreError, Usage, View};

/// A store that forgets everything with its process.
#[derive(Clone, Debug, Default)]
pub struct MemoryStore {
    records: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Every commit fails with [`StoreError::Full`] while this is set.
    pub full: bool,
    /// Commits so far.
    pub commits: u64,
}

impl MemoryStore {
    /// All records.
    #[must_use]
    pub const fn records(&self) -> &BTreeMap<Vec<u8>, Vec<u8>> {
        &self.records
    }
}

impl View for &MemoryStore {
    fn get(&self, key: &[u8]) -> Result<Option<&[u8]>, StoreError> {
        Ok(self.records.get(key).map(Vec::as_slice))
    }

    fn scan(
        &self,
        after: &[u8],
        before: Option<&[u8]>,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StoreError> {
        let range = (
            Bound::Excluded(after),
            before.map_or(Bound::Unbounded, Bound::Excluded),
        );
        if before.is_some_and(|before| before <= after) {
            return Ok(());
        }
        for (key, value) in self.records.range::<[u8], _>(range) {
            if !visit(key, value) {
                break;
            }
        }
        Ok(())
    }
}

impl Store for MemoryStore {
    type View<'a> = &'a Self;

    fn view(&self) -> Result<&Self, StoreError> {
        Ok(self)
    }

    fn commit(&mut self, records: &Records) -> Result<(), StoreError> {
        if self.full {
            return Err(StoreError::Full);
        }
        self.commits += 1;
        for (key, value) in records {
            match value {
                Some(value) => self.records.insert(key.clone(), value.clone()),
                None => self.records.remove(key),
            };
        }
        Ok(())
    }

    fn usage(&self) -> Result<Usage, StoreError> {
        let bytes = self
            .records
            .iter()
            .map(|(key, value)| key.len() + value.len());
        Ok(Usage {
            bytes_used: bytes.sum::<usize>() as u64,
            bytes_max: 1 << 40,
        })
    }
}
