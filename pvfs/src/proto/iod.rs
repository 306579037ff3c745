// SPDX-License-Identifier: MIT
//! Messages between a client (or mgr) and an iod. Stripes travel as the frame's payload.

use bincode::{Decode, Encode};

use crate::attr::Space;
use crate::error::FsError;
use crate::ids::{FileSystemId, Incarnation, IodId, ObjectId, SessionId};
use crate::layout::LayoutSlot;
pub use crate::layout::StripeRef;
use crate::proto::seal::OrderKey;

/// Names a change of an object, so that it is made once however often its request arrives.
///
/// A client has at most one change under way in a slot. The next one there has a larger sequence
/// number, and with its arrival all earlier ones of the slot are over: those that come later, or
/// are half stored, change nothing any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub struct Change {
    /// Given by the iod; refused with [`FsError::SessionLost`] where it does not know it (any more).
    pub session: SessionId,
    /// Below [`SLOTS_PER_SESSION_MAX`](crate::limits::SLOTS_PER_SESSION_MAX).
    pub slot: u32,
    /// Counts up from 1 in its slot. Refused with [`FsError::AlreadyAnswered`] where a larger one
    /// has arrived.
    pub sequence: u64,
}

impl Change {
    /// Stands for one that has no name yet. No iod makes it.
    pub const UNNAMED: Self = Self {
        session: SessionId(0),
        slot: 0,
        sequence: 0,
    };
}

/// A request to an iod. Every one may be sent again after a lost reply: a [`Change`] is made once,
/// and the others change nothing that a second time would change again.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum IodRequest {
    /// Who are you, and are you alive?
    Ping,
    /// Bytes of a local file; the reply's payload is shorter where the local file ends first, and
    /// the reader fills the rest with zeros.
    Read {
        /// Whose stripes.
        stripe: StripeRef,
        /// Offset in the local file, bytes.
        offset: u64,
        /// Bytes wanted, at most [`PAYLOAD_BYTES_MAX`](crate::limits::PAYLOAD_BYTES_MAX).
        length: u32,
        /// So many bytes of the local file have been written, as far as the client knows. Refused with
        /// [`FsError::Missing`] where the reply would end before them, though more is wanted.
        filled: u64,
    },
    /// Stores the frame's payload; makes the local file if there is none.
    Write {
        /// Whose stripes.
        stripe: StripeRef,
        /// Offset in the local file, bytes.
        offset: u64,
        /// [`Grant::fence`](crate::proto::lease::Grant::fence) of the lease under which it is sent;
        /// 0 from a client that takes no leases. Refused with [`FsError::Fenced`] where the object
        /// has been written or cut under a larger one.
        fence: u64,
        /// Makes it once.
        change: Change,
    },
    /// mgr orders: cuts the local file to `length`, never extends it.
    Truncate {
        /// Whose stripes.
        stripe: StripeRef,
        /// New length of the local file, bytes.
        length: u64,
        /// Writes under smaller ones are refused from now on.
        fence: u64,
        /// Counts up with each attempt; refused with [`FsError::Fenced`] where one with a larger
        /// number has been carried out.
        number: u64,
        /// Makes it once.
        change: Change,
        /// Proves that it is mgr's; refused with [`FsError::Deposed`] otherwise.
        key: OrderKey,
    },
    /// mgr orders: refuses writes under smaller fences from now on, also where there is no local
    /// file; answered with [`IodResponse::Stat`] when none is under way any more.
    Fence {
        /// Which stripes.
        stripe: StripeRef,
        /// As in [`IodRequest::Truncate`].
        fence: u64,
        /// As in [`IodRequest::Truncate`], in the same count.
        number: u64,
        /// As in [`IodRequest::Truncate`].
        key: OrderKey,
    },
    /// mgr orders: removes the local file; no error where there is none. Writes under a lease are
    /// refused from now on.
    Remove {
        /// Whose stripes.
        object: ObjectId,
        /// As in [`IodRequest::Truncate`].
        key: OrderKey,
    },
    /// Returns when all acknowledged writes of the local file are on disk.
    Sync {
        /// Whose stripes.
        stripe: StripeRef,
    },
    /// Length and disk use of the local file.
    Stat {
        /// Whose stripes.
        object: ObjectId,
    },
    /// Totals of the iod's disk.
    Space,
    /// Reserves disk space; the local file's length and content stay as they are.
    Allocate {
        /// Whose stripes.
        stripe: StripeRef,
        /// Offset in the local file, bytes.
        offset: u64,
        /// How much, bytes.
        length: u64,
        /// As in [`IodRequest::Write`].
        fence: u64,
        /// Makes it once.
        change: Change,
    },
    /// Makes bytes of the local file zeros and gives their disk space back; its length stays.
    Punch {
        /// Whose stripes.
        stripe: StripeRef,
        /// Offset in the local file, bytes.
        offset: u64,
        /// How much, bytes.
        length: u64,
        /// As in [`IodRequest::Write`].
        fence: u64,
        /// Makes it once.
        change: Change,
    },
    /// Where data or a hole is in the local file, at or after a place. After the local file's end
    /// there is a hole.
    Seek {
        /// Whose stripes.
        stripe: StripeRef,
        /// Offset in the local file, bytes.
        offset: u64,
        /// What is sought.
        target: SeekTarget,
        /// As in [`IodRequest::Read`]: refused where the local file is shorter.
        filled: u64,
    },
    /// Copies bytes between two local files of this iod. Where the first ends early, the rest are
    /// zeros.
    Copy {
        /// From whose stripes.
        from: StripeRef,
        /// Offset in that local file, bytes.
        from_offset: u64,
        /// As in [`IodRequest::Read`]: refused where the local file is shorter.
        from_filled: u64,
        /// To whose stripes.
        to: StripeRef,
        /// Offset in that local file, bytes.
        to_offset: u64,
        /// How much, bytes, at most [`COPY_BYTES_MAX`](crate::limits::COPY_BYTES_MAX).
        length: u64,
        /// Of the lease on the file that is copied to, as in [`IodRequest::Write`].
        fence: u64,
        /// Makes it once.
        change: Change,
    },
    /// Names of objects, in an order of the iod's own.
    List {
        /// The last object of the page before; `None` begins.
        after: Option<ObjectId>,
        /// At most so many, and at most
        /// [`OBJECTS_PER_PAGE_MAX`](crate::limits::OBJECTS_PER_PAGE_MAX).
        objects_max: u32,
    },
    /// What there is of some objects.
    Survey {
        /// At most [`OBJECTS_PER_QUESTION_MAX`](crate::limits::OBJECTS_PER_QUESTION_MAX).
        objects: Vec<ObjectId>,
    },
    /// Reads a part of an object from the disk and compares it with its checksums.
    Scrub {
        /// Which.
        object: ObjectId,
        /// Offset in the local file, bytes.
        offset: u64,
        /// How much, bytes, at most [`SCRUB_BYTES_MAX`](crate::limits::SCRUB_BYTES_MAX).
        length: u32,
    },
    /// Asks for a session, in which the client names its changes.
    OpenSession,
    /// What became of a change? One that has not been made never will be.
    Settle {
        /// Which.
        change: Change,
    },
    /// The client that alone may write to a file cuts off what a write of its own left beyond the
    /// end: as [`IodRequest::Truncate`], with its fence as the number.
    CutTail {
        /// Whose stripes.
        stripe: StripeRef,
        /// New length of the local file, bytes.
        length: u64,
        /// As in [`IodRequest::Write`].
        fence: u64,
        /// Makes it once.
        change: Change,
    },
}

impl IodRequest {
    /// Where the name of the change stands that it makes, if it makes one.
    pub const fn change_mut(&mut self) -> Option<&mut Change> {
        match self {
            Self::Write { change, .. }
            | Self::Truncate { change, .. }
            | Self::CutTail { change, .. }
            | Self::Allocate { change, .. }
            | Self::Punch { change, .. }
            | Self::Copy { change, .. } => Some(change),
            Self::Ping
            | Self::Read { .. }
            | Self::Fence { .. }
            | Self::Remove { .. }
            | Self::Sync { .. }
            | Self::Stat { .. }
            | Self::Space
            | Self::Seek { .. }
            | Self::List { .. }
            | Self::Survey { .. }
            | Self::Scrub { .. }
            | Self::OpenSession
            | Self::Settle { .. } => None,
        }
    }

    /// What proves that the request is mgr's, where only mgr may make it.
    #[must_use]
    pub const fn order(&self) -> Option<OrderKey> {
        match self {
            Self::Truncate { key, .. } | Self::Fence { key, .. } | Self::Remove { key, .. } => {
                Some(*key)
            }
            Self::Ping
            | Self::Read { .. }
            | Self::Write { .. }
            | Self::CutTail { .. }
            | Self::Sync { .. }
            | Self::Stat { .. }
            | Self::Space
            | Self::Allocate { .. }
            | Self::Punch { .. }
            | Self::Seek { .. }
            | Self::Copy { .. }
            | Self::List { .. }
            | Self::Survey { .. }
            | Self::Scrub { .. }
            | Self::OpenSession
            | Self::Settle { .. } => None,
        }
    }

    /// The stripes whose place in a layout the request names.
    pub fn stripes(&self) -> impl Iterator<Item = StripeRef> {
        let (first, second) = match self {
            Self::Read { stripe, .. }
            | Self::Write { stripe, .. }
            | Self::Truncate { stripe, .. }
            | Self::CutTail { stripe, .. }
            | Self::Fence { stripe, .. }
            | Self::Sync { stripe }
            | Self::Allocate { stripe, .. }
            | Self::Punch { stripe, .. }
            | Self::Seek { stripe, .. } => (Some(*stripe), None),
            Self::Copy { from, to, .. } => (Some(*from), Some(*to)),
            Self::Ping
            | Self::Remove { .. }
            | Self::Stat { .. }
            | Self::Space
            | Self::List { .. }
            | Self::Survey { .. }
            | Self::Scrub { .. }
            | Self::OpenSession
            | Self::Settle { .. } => (None, None),
        };
        first.into_iter().chain(second)
    }
}

/// What [`IodRequest::Seek`] seeks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum SeekTarget {
    /// Bytes that are stored (`SEEK_DATA`).
    Data,
    /// Bytes that are not (`SEEK_HOLE`).
    Hole,
}

/// An iod's answer.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum IodResponse {
    /// To [`IodRequest::Ping`].
    Pong {
        /// The iod's id, once it has registered.
        iod: Option<IodId>,
        /// The file system it belongs to, once it has registered.
        file_system: Option<FileSystemId>,
        /// Which run of it this is, once mgr has admitted it: it serves no data before.
        incarnation: Option<Incarnation>,
    },
    /// To [`IodRequest::Read`]: the payload holds the bytes.
    Data,
    /// To a request that returns nothing.
    Done,
    /// To [`IodRequest::Stat`] and [`IodRequest::Fence`].
    Stat {
        /// Length of the local file, bytes.
        length: u64,
        /// Disk space that it takes, bytes.
        allocated: u64,
    },
    /// To [`IodRequest::Space`].
    Space(Space),
    /// To [`IodRequest::Seek`].
    Position(
        /// Offset in the local file, bytes; `None` where no data follows.
        Option<u64>,
    ),
    /// To [`IodRequest::List`].
    Objects {
        /// Some.
        objects: Vec<ObjectId>,
        /// No others follow.
        end: bool,
    },
    /// To [`IodRequest::Survey`], in the order of the question.
    Surveyed(Vec<Surveyed>),
    /// To [`IodRequest::Scrub`].
    Scrubbed {
        /// Bytes that were read.
        bytes: u64,
        /// Where what is damaged begins and ends, as local offsets.
        damage: Vec<(u64, u64)>,
        /// Where there is more to compare; `None` at the end.
        next: Option<u64>,
    },
    /// To [`IodRequest::OpenSession`].
    Session(SessionId),
    /// To [`IodRequest::Settle`], where the change has not been made, or in part.
    Unmade {
        /// Bytes of a [`IodRequest::Write`]'s payload that have been stored, from its start on.
        stored: u64,
    },
}

/// What an iod has of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Surveyed {
    /// Nothing.
    Absent,
    /// A local file.
    Present {
        /// So many bytes.
        length: u64,
        /// Which stripes of the file it holds; `None` where nobody has said so.
        place: Option<LayoutSlot>,
    },
    /// Checksums of data that is gone.
    Lost,
    /// Something that the disk does not let it look at.
    Failed,
}

/// What a reply frame's body holds.
pub type IodReply = Result<IodResponse, FsError>;
