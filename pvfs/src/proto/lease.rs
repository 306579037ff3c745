// SPDX-License-Identifier: MIT
//! Leases: what a client may keep of an inode, and how mgr takes it back. docs/SEMANTICS.md says
//! what they promise, docs/WIRE.md in which order these messages travel.

use bincode::{Decode, Encode};

use crate::attr::Attr;
use crate::error::FsError;
use crate::ids::InodeNumber;
use crate::name::Name;
use crate::proto::mgr::IodStatus;

/// What a client may keep of an inode. Its opens are another matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub enum Lease {
    /// Attributes, names in a directory, pages of a file. Any number of clients at a time.
    Read,
    /// The same, and it may write. No other client has any lease on the inode.
    Write,
    /// It may read and write but keeps nothing. Any number of clients at a time, none with another
    /// kind of lease.
    Shared,
}

impl Lease {
    /// Whether its holder may write.
    #[must_use]
    pub const fn writes(self) -> bool {
        match self {
            Self::Read => false,
            Self::Write | Self::Shared => true,
        }
    }
}

/// For what a client wants a lease on a regular file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub enum Want {
    /// To read and keep pages.
    Read,
    /// To read past its page cache: shared while another client has the file open for writing.
    ReadDirect,
    /// To write and keep pages, or to append.
    Write,
    /// To write past its page cache: shared while another client has the file open.
    WriteDirect,
}

/// Stands for no lease, where one is named by its number.
pub const NO_LEASE: u64 = 0;

/// A lease that a client has from now on, with the attributes that it may keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Grant {
    /// Counts up with each grant, from 1; a lease that is given back is named by it.
    pub number: u64,
    /// The inode's attributes.
    pub attr: Attr,
    /// What the client has.
    pub lease: Lease,
    /// Goes with each write under this lease. Larger than that of any lease on the inode before it
    /// that excludes this one, also of those before a restart of mgr.
    pub fence: u64,
}

/// What a name stands for, in a directory on which the client has a lease.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Entry {
    /// The directory.
    pub directory: InodeNumber,
    /// The name in it.
    pub name: Name,
    /// Its inode; `None` where there is no such name.
    pub inode: Option<InodeNumber>,
}

/// What a client is to do with its lease on an inode, because another client needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub enum Demand {
    /// Report its writes; it keeps the lease.
    Report,
    /// Finish what is under way, drop what it keeps, report its writes, close what nobody uses.
    GiveUp,
}

/// A demand; the client answers it with its number in
/// [`MgrOperation::Acknowledge`](super::mgr::MgrOperation::Acknowledge).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Recall {
    /// Names this demand.
    pub number: u64,
    /// Of which inode.
    pub inode: InodeNumber,
    /// What to do.
    pub demand: Demand,
}

/// What mgr tells a client unasked. Notices and replies of one connection arrive in the order in
/// which what they tell of happened.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Notice {
    /// Leases that come with the reply that follows.
    Granted {
        /// What the client has from now on.
        grants: Vec<Grant>,
        /// Names that it may keep.
        entries: Vec<Entry>,
        /// What it knows of these inodes is no longer so.
        stale: Vec<InodeNumber>,
        /// The first grant is the answer to an
        /// [`MgrOperation::Acquire`](super::mgr::MgrOperation::Acquire).
        acquired: bool,
    },
    /// Demands.
    Recalled(Vec<Recall>),
    /// The client no longer waits for a lock.
    LockSettled {
        /// See [`LockRequest::wait`](super::lock::LockRequest::wait).
        wait: u64,
        /// `None`: it has the lock; otherwise it cannot have it.
        error: Option<FsError>,
    },
    /// What mgr thinks of these iods from now on, or where they are. Told to clients that asked for
    /// news in their greeting.
    Iods(Vec<IodStatus>),
}
