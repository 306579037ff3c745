// SPDX-License-Identifier: MIT
//! Identifiers. Each is its own type, so that an inode number cannot be passed for an iod id.

use bincode::{Decode, Encode};

macro_rules! id {
    ($(#[$meta:meta])* $name:ident($inner:ty)) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
        pub struct $name(pub $inner);

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                std::fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

id!(
    /// An inode number: unique in the file system and never used twice.
    InodeNumber(u64)
);
id!(
    /// An iod, numbered by mgr at its first registration; never used twice.
    IodId(u32)
);
id!(
    /// A client process (one mount, one tool run), drawn at random by the client itself.
    ClientId(u64)
);
id!(
    /// One open of one file by one client, numbered by mgr.
    OpenId(u64)
);
id!(
    /// A file system, drawn at random by mgr when it first starts on an empty data directory.
    FileSystemId(u128)
);
id!(
    /// A client's changes at one iod, drawn at random by the iod; never used twice.
    SessionId(u64)
);
id!(
    /// One run of an iod's process, drawn at random by itself at its start.
    Incarnation(u64)
);

/// The root directory's inode number, as FUSE wants it.
pub const ROOT_INODE: InodeNumber = InodeNumber(1);

/// The name of a file's stripes on an iod: the same on each iod that holds some.
///
/// It is written in hexadecimal, as in the names of an iod's local files. The generation tells apart the
/// stripes of a file system that was restored from an older metadata backup from those written after that
/// backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct ObjectId {
    /// The file's inode number.
    pub inode: InodeNumber,
    /// The file's generation.
    pub generation: u32,
}

impl std::fmt::Display for ObjectId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:016x}.{:08x}", self.inode.0, self.generation)
    }
}
