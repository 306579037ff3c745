// SPDX-License-Identifier: MIT
//! Messages between a client, a tool or an iod, and mgr. They carry no payload.

use bincode::{Decode, Encode};

use crate::attr::{Attr, Credentials, FileKind, SetAttr, Space, Timestamp};
use crate::error::FsError;
use crate::ids::{ClientId, FileSystemId, Incarnation, InodeNumber, IodId, ObjectId, OpenId};
use crate::layout::{Layout, LayoutPolicy};
use crate::name::Name;
use crate::proto::backup::BackupPart;
use crate::proto::check::{Finding, Page, Section, Verdict};
use crate::proto::lease::Want;
use crate::proto::lock::{
    HeldLock, LockFamily, LockHolder, LockKind, LockOwner, LockRange, LockRequest,
};
use crate::proto::peer::Peer;
use crate::proto::report::{IodReport, IodState};
use crate::proto::seal::{OrderKey, Seal};

/// A request to mgr.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct MgrRequest {
    /// The sender.
    pub client: ClientId,
    /// Number of a mutating request, counted by the sender from 1; 0 for the others. A request that
    /// arrives again under the same number is answered with the stored reply and not run again.
    pub sequence: u64,
    /// The sender holds replies to all of its mutating requests below this number: mgr forgets them.
    pub answered_below: u64,
    /// On whose behalf.
    pub credentials: Credentials,
    /// What to do.
    pub operation: MgrOperation,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum MgrOperation {
    /// First request on a connection. Starts or renews the client's session. A client with leases
    /// greets without them first, then reports what it wrote, then greets with them.
    Hello {
        /// Larger in each greeting of the client. One that comes after a later one, out of a connection
        /// that has ended, says nothing any more: [`FsError::AlreadyAnswered`].
        number: u64,
        /// Opens that the client holds and mgr may have forgotten in a restart.
        opens: Vec<Reopen>,
        /// The client takes leases, and holds none now: those from before have ended. Otherwise the
        /// greeting says nothing about leases.
        leases: bool,
        /// With `leases`: locks that the client has, as far as it knows. mgr looks at them where it
        /// has restarted.
        locks: Vec<HeldLock>,
        /// Another greeting follows with more opens or locks.
        more: bool,
        /// The client wants to be told of each change of an iod by
        /// [`Notice::Iods`](crate::proto::lease::Notice::Iods).
        news: bool,
        /// Who it is, for people.
        peer: Peer,
    },
    /// A heartbeat: keeps the session alive; sent at least each
    /// [`HEARTBEAT_INTERVAL_MS`](crate::limits::HEARTBEAT_INTERVAL_MS), and every third of the time
    /// in [`HelloResponse`]. With the first one on a connection mgr counts on further ones.
    KeepAlive,
    /// Finds a name.
    Lookup {
        /// Directory.
        parent: InodeNumber,
        /// Name in it; `None` asks for the directory's own parent (`..`).
        name: Option<Name>,
    },
    /// An inode's attributes.
    GetAttr {
        /// Which.
        inode: InodeNumber,
    },
    /// Changes attributes (mutating). A new size below the old one has been carried out on every
    /// iod when the reply arrives.
    SetAttr {
        /// Which.
        inode: InodeNumber,
        /// What changes.
        set: SetAttr,
        /// The open through which a file is truncated: it stands for the right to write.
        open: Option<OpenId>,
    },
    /// Makes a regular file and opens it (mutating).
    Create {
        /// Directory.
        parent: InodeNumber,
        /// Name.
        name: Name,
        /// Permission bits as the caller gave them.
        mode: u16,
        /// The caller's umask: it counts where the directory has no default access control list.
        umask: u16,
        /// Fails where the name exists; otherwise the existing file is opened.
        exclusive: bool,
        /// How it is opened.
        access: Access,
    },
    /// Makes an inode of another kind, or a regular file that is not opened (mutating).
    MakeNode {
        /// Directory.
        parent: InodeNumber,
        /// Name.
        name: Name,
        /// Any kind but a symbolic link.
        kind: FileKind,
        /// Permission bits as the caller gave them.
        mode: u16,
        /// The caller's umask: it counts where the directory has no default access control list.
        umask: u16,
        /// Device number of a device.
        rdev: u32,
    },
    /// Makes a symbolic link (mutating).
    Symlink {
        /// Directory.
        parent: InodeNumber,
        /// Name.
        name: Name,
        /// What it points to, 1 to 4,095 bytes.
        target: Vec<u8>,
    },
    /// A symbolic link's target.
    ReadLink {
        /// Which.
        inode: InodeNumber,
    },
    /// Makes a hard link (mutating).
    Link {
        /// To what.
        inode: InodeNumber,
        /// Directory of the new name.
        parent: InodeNumber,
        /// New name.
        name: Name,
    },
    /// Removes a name that is not a directory's (mutating).
    Unlink {
        /// Directory.
        parent: InodeNumber,
        /// Name.
        name: Name,
    },
    /// Removes an empty directory (mutating).
    RemoveDirectory {
        /// Directory.
        parent: InodeNumber,
        /// Name.
        name: Name,
    },
    /// Renames (mutating).
    Rename {
        /// Old directory.
        parent: InodeNumber,
        /// Old name.
        name: Name,
        /// New directory.
        new_parent: InodeNumber,
        /// New name.
        new_name: Name,
        /// What to do with an existing new name.
        mode: RenameMode,
    },
    /// Opens a file or directory (mutating: the open keeps an unlinked inode alive).
    Open {
        /// Which.
        inode: InodeNumber,
        /// For what.
        access: Access,
        /// Truncate to 0 bytes, as `O_TRUNC` does.
        truncate: bool,
    },
    /// Closes (mutating).
    Close {
        /// Which.
        inode: InodeNumber,
        /// As [`OpenResponse::open`] gave it.
        open: OpenId,
        /// The client's lease when it closed, by its number. Only of this one does mgr take away what is
        /// for writers: another one may be on its way.
        lease: u64,
    },
    /// A writer's report, at flush, fsync, close and before it answers a stat (mutating).
    Report {
        /// Which.
        inode: InodeNumber,
        /// The file is at least this long, bytes.
        size_min: u64,
        /// Content changed since the last report: advances mtime and `change`.
        modified: bool,
        /// The open through which it wrote.
        open: OpenId,
        /// The `change` counter as the writer knows it. Where it has lost its lease and mgr has
        /// another, somebody else has changed the content since: the report comes too late and
        /// changes nothing.
        known_change: u64,
        /// Disk space that the file takes now, where the writer had reason to ask the iods.
        allocated: Option<u64>,
        /// So many bytes from the file's start on have all been written, as far as the writer knows.
        filled: u64,
        /// What the iods may hold beyond what the writer knows. mgr takes all leases to write back and
        /// settles the file before it grants another.
        doubt: Option<Doubt>,
    },
    /// A part of a directory.
    ReadDirectory {
        /// Which.
        inode: InodeNumber,
        /// Starts after the entry of this cookie; 0 starts at the beginning (`.` and `..` are the
        /// client's own affair).
        after: u64,
        /// Ends with the entry of this cookie; `None` ends with the last one that is there now. New
        /// entries get larger cookies, so a listing that keeps its first answer's end has one.
        until: Option<u64>,
        /// At most so many entries.
        entries_max: u32,
        /// With attributes.
        plus: bool,
    },
    /// Totals of the file system.
    StatFs,
    /// An extended attribute's value. `user.pvfs.*` shows the layout.
    GetXattr {
        /// Which inode.
        inode: InodeNumber,
        /// Attribute name with its name space, such as `user.x`.
        name: Vec<u8>,
    },
    /// Sets an extended attribute (mutating).
    SetXattr {
        /// Which inode.
        inode: InodeNumber,
        /// Attribute name.
        name: Vec<u8>,
        /// Value.
        value: Vec<u8>,
        /// Whether it must or must not exist.
        mode: XattrMode,
    },
    /// Names of all extended attributes.
    ListXattr {
        /// Which inode.
        inode: InodeNumber,
    },
    /// Removes an extended attribute (mutating).
    RemoveXattr {
        /// Which inode.
        inode: InodeNumber,
        /// Attribute name.
        name: Vec<u8>,
    },
    /// A file's layout, or the policy that a directory's new files inherit.
    GetLayout {
        /// Which.
        inode: InodeNumber,
    },
    /// Sets a directory's policy, or lays out an empty regular file anew (mutating).
    SetLayout {
        /// Which.
        inode: InodeNumber,
        /// New policy; `None` makes a directory inherit again.
        policy: Option<LayoutPolicy>,
    },
    /// All iods that mgr knows.
    ListIods,
    /// An iod introduces itself, at start and after each reconnection (mutating). It does so again
    /// with the seal that it is given, until it is told to keep the one that it has.
    RegisterIod {
        /// Its id, if it has one; else it is new and gets one.
        iod: Option<IodId>,
        /// The file system that its data belongs to, if it has one.
        file_system: Option<FileSystemId>,
        /// The seal that its data directory holds, if it has one.
        seal: Option<Seal>,
        /// Which run of it this is.
        incarnation: Incarnation,
        /// Its operator knows that the directory is older than the one that was sealed last, and that
        /// there is no newer one.
        accepts_older: bool,
        /// Where clients reach it: `host:port`.
        address: String,
        /// Its disk.
        report: IodReport,
    },
    /// An iod is alive; sent each [`HEARTBEAT_INTERVAL_MS`](crate::limits::HEARTBEAT_INTERVAL_MS).
    IodHeartbeat {
        /// Which.
        iod: IodId,
        /// Its disk.
        report: IodReport,
    },
    /// Asks for a lease on a regular file; it comes in a
    /// [`Notice::Granted`](crate::proto::lease::Notice::Granted) before the reply.
    Acquire {
        /// Which file.
        inode: InodeNumber,
        /// For what.
        want: Want,
    },
    /// The client has done what mgr demanded.
    Acknowledge {
        /// Numbers of [`Recall`](crate::proto::lease::Recall)s.
        recalls: Vec<u64>,
    },
    /// The client gives leases back unasked.
    GiveBack {
        /// Inodes, each with the number of its last grant: a later grant stays.
        leases: Vec<(InodeNumber, u64)>,
    },
    /// The client ends: with this request it loses its opens, leases and locks. From an iod, on the
    /// connection on which it registered, it says that the iod stops.
    Goodbye,
    /// A page of mgr's records, for `pvfs fsck`. Only root may ask.
    Inspect {
        /// Which records.
        section: Section,
        /// As [`Page::next`] said; empty at the section's start.
        after: Vec<u8>,
    },
    /// Which of these objects, all of which an iod was seen to hold before, belong to no file. Only
    /// root may ask.
    FindStray {
        /// Which iod.
        iod: IodId,
        /// At most [`OBJECTS_PER_QUESTION_MAX`](crate::limits::OBJECTS_PER_QUESTION_MAX).
        objects: Vec<ObjectId>,
    },
    /// Looks whether a finding is true. Only root may ask.
    Examine(Finding),
    /// Looks whether a finding is true, and repairs what can be repaired (mutating). Only root may ask.
    Repair(Finding),
    /// Sets or removes a lock (mutating). Answered at once: with
    /// [`MgrResponse::LockQueued`] where it has to wait, and then a
    /// [`Notice::LockSettled`](crate::proto::lease::Notice::LockSettled) follows some time.
    SetLock(LockRequest),
    /// Nobody waits for a lock any more (mutating): takes the wait back, or what it has got.
    CancelLock {
        /// The wait.
        wait: u64,
    },
    /// Finds a lock that stands against one that somebody would like.
    TestLock {
        /// On which file.
        inode: InodeNumber,
        /// Who would like it.
        owner: LockOwner,
        /// Which locks it would meet.
        family: LockFamily,
        /// Which bytes.
        range: LockRange,
        /// How.
        kind: LockKind,
    },
    /// A file's content is about to be changed, and its privileges go before that (mutating): none of
    /// the new bytes is ever executed with them. A truncation by mgr does the same by itself.
    DropPrivileges {
        /// Which file.
        inode: InodeNumber,
        /// The open through which it will be written.
        open: OpenId,
        /// Set-uid and set-gid bits go as well as the capability, as with a write by an ordinary user.
        mode_bits: bool,
    },
    /// A part of a copy of mgr's store. Only root may ask, one at a time. Asking from the copy's start
    /// begins it; asking from its end says that the asker has all of it.
    Backup {
        /// The copy: drawn at random by the asker.
        copy: u64,
        /// Bytes of it that the asker has.
        offset: u64,
    },
}

impl MgrOperation {
    /// Whether the operation changes durable state or opens, and so carries a sequence number.
    #[must_use]
    pub const fn is_mutating(&self) -> bool {
        match self {
            Self::Hello { .. }
            | Self::KeepAlive
            | Self::Lookup { .. }
            | Self::GetAttr { .. }
            | Self::ReadLink { .. }
            | Self::ReadDirectory { .. }
            | Self::StatFs
            | Self::GetXattr { .. }
            | Self::ListXattr { .. }
            | Self::GetLayout { .. }
            | Self::ListIods
            | Self::IodHeartbeat { .. }
            | Self::Acquire { .. }
            | Self::Acknowledge { .. }
            | Self::GiveBack { .. }
            | Self::TestLock { .. }
            | Self::Goodbye
            | Self::Inspect { .. }
            | Self::FindStray { .. }
            | Self::Examine(_)
            | Self::Backup { .. } => false,
            Self::SetAttr { .. }
            | Self::Create { .. }
            | Self::MakeNode { .. }
            | Self::Symlink { .. }
            | Self::Link { .. }
            | Self::Unlink { .. }
            | Self::RemoveDirectory { .. }
            | Self::Rename { .. }
            | Self::Open { .. }
            | Self::Close { .. }
            | Self::Report { .. }
            | Self::DropPrivileges { .. }
            | Self::SetXattr { .. }
            | Self::SetLayout { .. }
            | Self::RemoveXattr { .. }
            | Self::SetLock(_)
            | Self::CancelLock { .. }
            | Self::RegisterIod { .. }
            | Self::Repair(_) => true,
        }
    }
}

/// Why mgr does not know what the iods hold of a file. The greater one decides how it is settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub enum Doubt {
    /// A write failed and may be stored in part. Its writer has told where the file ends: what the
    /// iods hold beyond is cut off.
    Torn,
    /// A writer is gone, or has lost its lease with an append on its way, and may have been told that
    /// a write was done which it did not report: the file is as long as what the iods hold of it.
    Lost,
}

/// For what a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Access {
    /// Reading.
    pub read: bool,
    /// Writing.
    pub write: bool,
}

/// An open that survived mgr's restart at the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Reopen {
    /// Which inode.
    pub inode: InodeNumber,
    /// The number that mgr gave it.
    pub open: OpenId,
    /// For what.
    pub access: Access,
}

/// What a rename does with an existing new name: renameat2's flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum RenameMode {
    /// Replaces it.
    Replace,
    /// Fails (`RENAME_NOREPLACE`).
    NoReplace,
    /// Both names swap their inodes (`RENAME_EXCHANGE`).
    Exchange,
}

/// setxattr's flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum XattrMode {
    /// Creates or replaces.
    Set,
    /// Must not exist (`XATTR_CREATE`).
    Create,
    /// Must exist (`XATTR_REPLACE`).
    Replace,
}

/// mgr's answer.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum MgrResponse {
    /// To [`MgrOperation::Hello`].
    Hello(HelloResponse),
    /// To an operation that returns nothing.
    Done,
    /// To lookups, getattr, setattr, mknod, symlink, link.
    Attr(Attr),
    /// To opens and creates.
    Open(OpenResponse),
    /// To [`MgrOperation::Report`].
    Report {
        /// Attributes after it.
        attr: Attr,
        /// The `change` counter before it: differs from what the writer knew where somebody else
        /// changed the content in between.
        change_before: u64,
    },
    /// To [`MgrOperation::ReadLink`], [`MgrOperation::GetXattr`].
    Bytes(Vec<u8>),
    /// To [`MgrOperation::ListXattr`].
    Names(Vec<Vec<u8>>),
    /// To [`MgrOperation::ReadDirectory`].
    Entries {
        /// In the order of their cookies.
        entries: Vec<DirectoryEntry>,
        /// No entries follow, up to `until`.
        end: bool,
        /// The cookie up to which the directory was read, as it was asked for or chosen.
        until: u64,
    },
    /// To [`MgrOperation::StatFs`].
    StatFs(StatFs),
    /// To [`MgrOperation::GetLayout`].
    Layout {
        /// Of a regular file.
        layout: Option<Layout>,
        /// The stripes' name, of a regular file.
        object: Option<ObjectId>,
        /// Of a directory: what new files in it get.
        policy: Option<LayoutPolicy>,
    },
    /// To [`MgrOperation::ListIods`].
    Iods(Vec<IodStatus>),
    /// To [`MgrOperation::RegisterIod`].
    Registered {
        /// The iod's id.
        iod: IodId,
        /// The file system that it now belongs to.
        file_system: FileSystemId,
        /// The seal to keep. Where it is the one that the iod came with, the iod is admitted: it may
        /// serve its data.
        seal: Seal,
        /// By which it knows mgr's orders.
        key: OrderKey,
    },
    /// To [`MgrOperation::Inspect`].
    Page(Page),
    /// To [`MgrOperation::FindStray`].
    Objects(Vec<ObjectId>),
    /// To [`MgrOperation::Examine`] and [`MgrOperation::Repair`].
    Verdict(Verdict),
    /// To [`MgrOperation::SetLock`]: it waits.
    LockQueued,
    /// To [`MgrOperation::TestLock`]: what stands against it.
    Lock(Option<LockHolder>),
    /// To [`MgrOperation::Backup`].
    Backup(BackupPart),
}

/// What a reply frame's body holds.
pub type MgrReply = Result<MgrResponse, FsError>;

/// mgr's welcome.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct HelloResponse {
    /// Which file system this is.
    pub file_system: FileSystemId,
    /// A client that says nothing for so long loses its opens, milliseconds.
    pub session_timeout_ms: u32,
    /// A client that says nothing for so long loses its leases, milliseconds.
    pub lease_timeout_ms: u32,
    /// Where the iods are.
    pub iods: Vec<IodStatus>,
    /// Of the locks that the greeting told of, those that the client has no more.
    pub locks_lost: Vec<HeldLock>,
}

/// An iod as mgr knows it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct IodStatus {
    /// Which.
    pub iod: IodId,
    /// `host:port`.
    pub address: String,
    /// The run of it that mgr has admitted, or will have: no other one's answers count.
    pub incarnation: Incarnation,
    /// What mgr thinks of it.
    pub state: IodState,
    /// For how long, milliseconds.
    pub state_ms: u64,
    /// Its disk, as it said last.
    pub report: IodReport,
}

/// An open file.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct OpenResponse {
    /// Names this open in [`MgrOperation::Close`].
    pub open: OpenId,
    /// The inode's attributes at the open.
    pub attr: Attr,
    /// Where its stripes are; `None` for anything but a regular file.
    pub layout: Option<Layout>,
}

/// An entry of a directory.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct DirectoryEntry {
    /// Its place in the directory: stable while the entry exists, above 0.
    pub cookie: u64,
    /// Name.
    pub name: Name,
    /// Inode.
    pub inode: InodeNumber,
    /// Kind.
    pub kind: FileKind,
    /// Attributes, where they were asked for.
    pub attr: Option<Attr>,
}

/// Totals of the file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct StatFs {
    /// Of the disks of all iods that are there, each once; free is what new files can use.
    pub space: Space,
    /// Inodes in use.
    pub inodes_used: u64,
    /// Files that may still be made: as mgr's free space over the size of an inode's records and the
    /// iods' free inodes allow.
    pub inodes_free: u64,
    /// mgr's clock.
    pub now: Timestamp,
    /// How long mgr has run, milliseconds.
    pub uptime_ms: u64,
    /// Mounts that mgr knows of: clients with leases.
    pub mounts: u32,
}
