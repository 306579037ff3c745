// SPDX-License-Identifier: MIT
//! What the name space's tests share.

use pvfs::attr::{Attr, Credentials, FileKind, Timestamp};
use pvfs::ids::{ClientId, InodeNumber, IodId};

use super::Context;
use super::layout::IodSlot;

/// Three iods for new files.
pub const IODS: [IodSlot; 3] = [
    IodSlot {
        iod: IodId(1),
        usable: true,
    },
    IodSlot {
        iod: IodId(2),
        usable: true,
    },
    IodSlot {
        iod: IodId(3),
        usable: true,
    },
];

/// Attributes of root's.
#[must_use]
pub fn attr(kind: FileKind) -> Attr {
    Attr {
        inode: InodeNumber(9),
        generation: 1,
        kind,
        mode: 0o755,
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        size: 0,
        atime: Timestamp::default(),
        mtime: Timestamp::default(),
        ctime: Timestamp::default(),
        change: 0,
        allocated: None,
        filled: 0,
        has_acl: false,
        has_capability: false,
    }
}

static ROOT: Credentials = Credentials::ROOT;

/// Root asks, long after the start.
#[must_use]
pub fn context() -> Context<'static> {
    Context {
        now: Timestamp {
            seconds: 100,
            nanoseconds: 0,
        },
        generation: 7,
        grace: false,
        linger: None,
        room: true,
        credentials: &ROOT,
        client: ClientId(1),
        unleased: false,
        iods: &IODS,
    }
}
