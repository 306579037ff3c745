// SPDX-License-Identifier: MIT
//! The iods of which a check has not seen all, and why.

use std::collections::BTreeMap;

use pvfs::ids::IodId;
use serde::Serialize;

/// The iods that could not be looked at, each with the reason.
#[derive(Debug, Default)]
pub struct LeftOut(BTreeMap<IodId, String>);

/// One of them.
#[derive(Serialize)]
pub struct JsonIod<'a> {
    iod: u32,
    why: &'a str,
}

impl LeftOut {
    /// Notes one; the first reason is the one that is told.
    pub fn add(&mut self, iod: IodId, why: String) {
        self.0.entry(iod).or_insert(why);
    }

    /// Whether all was seen.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Each with its reason.
    pub fn iter(&self) -> impl Iterator<Item = (&IodId, &String)> {
        self.0.iter()
    }

    /// The same for machines.
    pub fn json(&self) -> Vec<JsonIod<'_>> {
        self.iter()
            .map(|(iod, why)| JsonIod { iod: iod.0, why })
            .collect()
    }
}
