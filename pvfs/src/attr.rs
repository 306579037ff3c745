// SPDX-License-Identifier: MIT
//! An inode's attributes, and the changes that a caller may ask for.

use bincode::{Decode, Encode};

use crate::ids::{InodeNumber, ObjectId};

/// A point in time since the epoch, as `struct timespec` has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct Timestamp {
    /// Seconds since 1970-01-01 UTC; negative before.
    pub seconds: i64,
    /// Nanoseconds after `seconds`, below 1,000,000,000.
    pub nanoseconds: u32,
}

impl Timestamp {
    /// The system clock, for the rim of a process; pure code takes `now` as an argument.
    #[must_use]
    pub fn now() -> Self {
        Self::from(crate::runtime::time::time_of_day())
    }
}

impl From<std::time::SystemTime> for Timestamp {
    fn from(time: std::time::SystemTime) -> Self {
        match time.duration_since(std::time::UNIX_EPOCH) {
            Ok(after) => Self {
                seconds: i64::try_from(after.as_secs()).unwrap_or(i64::MAX),
                nanoseconds: after.subsec_nanos(),
            },
            Err(before) => {
                let before = before.duration();
                let whole = i64::try_from(before.as_secs()).unwrap_or(i64::MAX);
                match before.subsec_nanos() {
                    0 => Self {
                        seconds: -whole,
                        nanoseconds: 0,
                    },
                    part => Self {
                        seconds: (-whole).saturating_sub(1),
                        nanoseconds: 1_000_000_000 - part,
                    },
                }
            }
        }
    }
}

impl From<Timestamp> for std::time::SystemTime {
    fn from(time: Timestamp) -> Self {
        let part = std::time::Duration::from_nanos(u64::from(time.nanoseconds));
        let whole = std::time::Duration::from_secs(time.seconds.unsigned_abs());
        let base = if time.seconds >= 0 {
            std::time::UNIX_EPOCH.checked_add(whole)
        } else {
            std::time::UNIX_EPOCH.checked_sub(whole)
        };
        base.and_then(|base| base.checked_add(part))
            .unwrap_or(std::time::UNIX_EPOCH)
    }
}

/// What an inode is. The order of the variants is the wire format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub enum FileKind {
    /// A regular file: the only kind with a layout and stripes.
    Regular,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A named pipe.
    Fifo,
    /// A socket's name.
    Socket,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
}

/// An inode's attributes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Attr {
    /// Inode number.
    pub inode: InodeNumber,
    /// Generation: see [`ObjectId`].
    pub generation: u32,
    /// What it is.
    pub kind: FileKind,
    /// Permission bits with set-uid, set-gid and sticky: `0o7777`.
    pub mode: u16,
    /// Hard links.
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Device number of a device inode, else 0.
    pub rdev: u32,
    /// Size in bytes.
    pub size: u64,
    /// Last access. Reads do not advance it (as under `noatime`).
    pub atime: Timestamp,
    /// Last change of the content.
    pub mtime: Timestamp,
    /// Last change of the inode.
    pub ctime: Timestamp,
    /// Counts changes of the content: equal counters mean that cached pages are valid.
    pub change: u64,
    /// Disk space that the iods said a file with holes or reserved space takes, bytes; `None` is a
    /// file that takes what its size says.
    pub allocated: Option<u64>,
    /// So many bytes from the file's start on have all been written: an iod whose local file ends
    /// before its part of them has lost something. Less than the size where bytes were left out.
    pub filled: u64,
    /// It has an access control list, of itself or for what is made in it.
    pub has_acl: bool,
    /// It has the extended attribute `security.capability`.
    pub has_capability: bool,
}

/// What a file gives to whoever executes it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Privileges {
    /// A set-uid or set-gid bit.
    pub mode_bits: bool,
    /// A capability.
    pub capability: bool,
}

impl Privileges {
    /// Whether there are any.
    #[must_use]
    pub const fn is_some(self) -> bool {
        self.mode_bits || self.capability
    }
}

/// Set-uid and set-gid.
const PRIVILEGE_BITS: u16 = 0o6000;

/// Space is given out in units of this size, bytes, as by most local file systems.
const ALLOCATION_UNIT_BYTES: u64 = 4096;

impl Attr {
    /// Disk space that it takes, bytes: what `st_blocks` is about.
    #[must_use]
    pub const fn space(&self) -> u64 {
        match (self.allocated, self.kind) {
            (Some(allocated), _) => allocated,
            (None, FileKind::Regular) => self
                .size
                .div_ceil(ALLOCATION_UNIT_BYTES)
                .saturating_mul(ALLOCATION_UNIT_BYTES),
            // Names and links are mgr's, in its store.
            (None, _) => 0,
        }
    }

    /// What it gives to whoever executes it.
    #[must_use]
    pub const fn privileges(&self) -> Privileges {
        Privileges {
            mode_bits: self.mode & PRIVILEGE_BITS != 0,
            capability: self.has_capability,
        }
    }

    /// The name of this file's stripes.
    #[must_use]
    pub const fn object(&self) -> ObjectId {
        ObjectId {
            inode: self.inode,
            generation: self.generation,
        }
    }
}

/// A time that a caller sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum SetTime {
    /// mgr's clock when it applies the request.
    Now,
    /// This time.
    To(Timestamp),
}

/// What a caller of chmod, chown, truncate and utimensat changes; `None` leaves a field as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct SetAttr {
    /// New permission bits, `0o7777`.
    pub mode: Option<u16>,
    /// New owner.
    pub uid: Option<u32>,
    /// New group.
    pub gid: Option<u32>,
    /// New size in bytes.
    pub size: Option<u64>,
    /// New access time.
    pub atime: Option<SetTime>,
    /// New modification time.
    pub mtime: Option<SetTime>,
}

/// Who asks: the caller's effective ids.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Credentials {
    /// Effective user id.
    pub uid: u32,
    /// Effective group id.
    pub gid: u32,
    /// Supplementary group ids, at most [`GROUPS_MAX`](crate::limits::GROUPS_MAX).
    pub groups: Vec<u32>,
}

impl Credentials {
    /// The superuser, for tools and daemons.
    pub const ROOT: Self = Self {
        uid: 0,
        gid: 0,
        groups: Vec::new(),
    };

    /// Whether the caller is in group `gid`.
    #[must_use]
    pub fn in_group(&self, gid: u32) -> bool {
        self.gid == gid || self.groups.contains(&gid)
    }
}

/// Totals of a file system or of one iod's disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Space {
    /// Bytes in all.
    pub bytes_total: u64,
    /// Bytes free for root.
    pub bytes_free: u64,
    /// Bytes free for ordinary users.
    pub bytes_available: u64,
}
