// SPDX-License-Identifier: MIT
//! How mgr and an iod know each other again (docs/decisions/0106). mgr seals an iod's data directory
//! anew at each start of either of them: who comes with an older seal has been copied or restored.

use bincode::{Decode, Encode};

/// One start of mgr on its store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Reign {
    /// Counts what an operator has declared by `pvfs-mgr --new-era` after restoring a backup.
    pub era: u32,
    /// Grows with each start.
    pub starts: u32,
    /// Drawn at this start: tells it from one on a copy of the store.
    pub nonce: u64,
}

impl Reign {
    /// Larger in later eras, and at later starts of one era.
    #[must_use]
    pub const fn rank(&self) -> (u32, u32) {
        (self.era, self.starts)
    }
}

/// What mgr gave an iod last, to be kept in its data directory. Nobody else learns of it.
#[derive(Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Seal {
    /// Under which it was given.
    pub reign: Reign,
    /// Grows with each seal of the iod.
    pub number: u64,
    /// Drawn with it.
    pub secret: u128,
}

impl Seal {
    /// Larger for a seal that was given later.
    #[must_use]
    pub const fn rank(&self) -> (u32, u64) {
        (self.reign.era, self.number)
    }
}

/// The secret is for nobody's log.
impl std::fmt::Debug for Seal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Seal({self})")
    }
}

impl std::fmt::Display for Seal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (era, number) = self.rank();
        write!(f, "seal {number} of era {era}")
    }
}

/// What only mgr knows, and the iods that it has admitted since its start: orders that only mgr may
/// give carry it.
#[derive(Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct OrderKey(pub u128);

/// It is for nobody's log.
impl std::fmt::Debug for OrderKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OrderKey")
    }
}
