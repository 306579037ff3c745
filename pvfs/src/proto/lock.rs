// SPDX-License-Identifier: MIT
//! Locks on files, as fcntl(2) and flock(2) have them: what clients ask of mgr, which holds them for
//! all nodes. docs/SEMANTICS.md says what they promise, docs/WIRE.md how waiting goes.

use bincode::{Decode, Encode};

use crate::ids::{ClientId, InodeNumber};
use crate::limits::FILE_SIZE_BYTES_MAX;

/// Who has a lock, within one client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub enum LockOwner {
    /// A process, by a number that its node chose: POSIX locks.
    Process(u64),
    /// An open file description, by its handle at the client: OFD locks and flock(2).
    File(u64),
}

/// A process, for `F_GETLK`: its number means something to others in its PID namespace only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Encode, Decode)]
pub struct ProcessNumber {
    /// Stands for the machine, since it was started last, and the PID namespace.
    pub namespace: u64,
    /// The process there; 0 for none.
    pub pid: u32,
}

/// Which locks know of each other: fcntl's and flock's do not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub enum LockFamily {
    /// Ranges of bytes: fcntl(2), POSIX and OFD.
    Range,
    /// The whole file: flock(2).
    Whole,
}

/// How a lock is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub enum LockKind {
    /// `F_RDLCK`, `LOCK_SH`: any number of owners.
    Shared,
    /// `F_WRLCK`, `LOCK_EX`: one owner.
    Exclusive,
}

impl LockKind {
    /// Whether two owners cannot have these at the same time on the same byte.
    #[must_use]
    pub const fn conflicts(self, other: Self) -> bool {
        matches!(self, Self::Exclusive) || matches!(other, Self::Exclusive)
    }
}

/// The bytes from `start` to `last`, both among them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct LockRange {
    /// First byte.
    pub start: u64,
    /// Last byte; [`FILE_SIZE_BYTES_MAX`] where it goes on for ever.
    pub last: u64,
}

impl LockRange {
    /// Every byte that there can be.
    pub const ALL: Self = Self {
        start: 0,
        last: FILE_SIZE_BYTES_MAX,
    };

    /// Whether it has a byte, and none that no file can have.
    #[must_use]
    pub const fn is_sound(self) -> bool {
        self.start <= self.last && self.last <= FILE_SIZE_BYTES_MAX
    }

    /// Whether some byte is in both.
    #[must_use]
    pub const fn overlaps(self, other: Self) -> bool {
        self.start <= other.last && other.start <= self.last
    }
}

/// Sets or removes a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct LockRequest {
    /// On which file; the client has it open.
    pub inode: InodeNumber,
    /// Whose.
    pub owner: LockOwner,
    /// Which locks it meets.
    pub family: LockFamily,
    /// Which bytes.
    pub range: LockRange,
    /// How; `None` unlocks.
    pub kind: Option<LockKind>,
    /// Which process asks.
    pub process: ProcessNumber,
    /// Waits while others have conflicting locks; this client names its waits by numbers that it
    /// uses once. A request with the number of a wait that is known already asks what became of it.
    pub wait: Option<u64>,
    /// The client knows what became of all its waits below this number: mgr forgets them.
    pub settled_below: u64,
}

/// A lock that a client has, as it tells mgr after a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct HeldLock {
    /// On which file.
    pub inode: InodeNumber,
    /// Whose.
    pub owner: LockOwner,
    /// Which locks it meets.
    pub family: LockFamily,
    /// Which bytes.
    pub range: LockRange,
    /// How.
    pub kind: LockKind,
    /// Which process has locked it.
    pub process: ProcessNumber,
}

/// A lock that stands against another, for `F_GETLK`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct LockHolder {
    /// Whose node.
    pub client: ClientId,
    /// Whose, there.
    pub owner: LockOwner,
    /// Which bytes.
    pub range: LockRange,
    /// How.
    pub kind: LockKind,
    /// Which process has locked it.
    pub process: ProcessNumber,
}
