// SPDX-License-Identifier: MIT
//! What `pvfs fsck` asks mgr, and what it finds. mgr shows its records page by page; whoever checks
//! counts, compares, and asks mgr to examine each finding once more. What holds for one record and its
//! neighbours, mgr sees itself. Only root may ask.

use bincode::{Decode, Encode};

use crate::attr::{FileKind, Timestamp};
use crate::ids::{InodeNumber, IodId, ObjectId};
use crate::layout::{Layout, LayoutSlot};
use crate::name::Name;

/// A kind of records of mgr, in the order in which they are best looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Section {
    /// Names.
    Dentries,
    /// Names by their places.
    Cookies,
    /// Layouts of files.
    Layouts,
    /// Targets of symbolic links.
    Symlinks,
    /// Extended attributes, access control lists among them.
    Xattrs,
    /// Inodes that have no name and may be open.
    Orphans,
    /// Stripes that are to be removed.
    Garbage,
    /// Inodes.
    Inodes,
}

impl Section {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Dentries,
        Self::Cookies,
        Self::Layouts,
        Self::Symlinks,
        Self::Xattrs,
        Self::Orphans,
        Self::Garbage,
        Self::Inodes,
    ];
}

/// A part of a section.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Page {
    /// What counting needs, in the order of the records.
    pub seen: Vec<Seen>,
    /// What contradicts its neighbours.
    pub findings: Vec<Finding>,
    /// Records looked at.
    pub records: u64,
    /// Where the next page begins; `None` at the end.
    pub next: Option<Vec<u8>>,
    /// The counters as they were.
    pub counters: Counted,
}

/// mgr's counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct Counted {
    /// The next new inode's number: it grows with each.
    pub inode_next: u64,
    /// Inodes in use.
    pub inodes_used: u64,
}

/// What a record says that only counting can check.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Seen {
    /// An inode.
    Inode {
        /// Which.
        inode: InodeNumber,
        /// What it is.
        kind: FileKind,
        /// Links that it says it has.
        nlink: u32,
        /// Its last change: whatever gives it a name or takes one advances this.
        ctime: Timestamp,
        /// Entries that a directory says it has.
        entries: Option<u64>,
        /// It is known to have no name.
        orphan: bool,
    },
    /// A name.
    Dentry {
        /// Of which directory.
        directory: InodeNumber,
        /// The name.
        name: Name,
        /// What it stands for.
        inode: InodeNumber,
        /// What that is.
        kind: FileKind,
    },
    /// A file's layout.
    File {
        /// The name of its stripes.
        object: ObjectId,
        /// Where they are.
        layout: Layout,
        /// Bytes of the file.
        size: u64,
        /// Its last change.
        ctime: Timestamp,
        /// As in [`Attr::filled`](crate::attr::Attr::filled).
        filled: u64,
    },
}

/// Something that is not as it should be. The order of the variants is the wire format.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub enum Finding {
    /// A record that does not decode.
    Unreadable {
        /// Its key.
        key: Vec<u8>,
    },
    /// A name that stands for no inode. Repair: the name goes.
    DanglingName {
        /// Of which directory.
        directory: InodeNumber,
        /// The name.
        name: Name,
        /// What it stands for.
        inode: InodeNumber,
    },
    /// A name in what is no directory. Repair: the name goes; its inode is counted afterwards.
    NameWithoutDirectory {
        /// Where it is.
        directory: InodeNumber,
        /// The name.
        name: Name,
        /// What it stands for.
        inode: InodeNumber,
    },
    /// A name that says its inode is of another kind. Repair: it is told.
    WrongKind {
        /// Of which directory.
        directory: InodeNumber,
        /// The name.
        name: Name,
    },
    /// A name that has no place in the order of its directory. Repair: it gets one.
    NoPlace {
        /// Of which directory.
        directory: InodeNumber,
        /// The name.
        name: Name,
    },
    /// A place of a directory that belongs to no name. Repair: it goes.
    StrayPlace {
        /// Which directory.
        directory: InodeNumber,
        /// Which place.
        cookie: u64,
    },
    /// A directory that says it stands elsewhere than its name. Repair: it is told.
    WrongParent {
        /// Which directory.
        inode: InodeNumber,
        /// Where its name is.
        directory: InodeNumber,
        /// The name.
        name: Name,
    },
    /// A layout, target, attribute or note of no inode that could have it. Repair: it goes.
    StrayRecord {
        /// Its key.
        key: Vec<u8>,
    },
    /// Stripes of a living file that are to be removed. Repair: they are not.
    LiveGarbage {
        /// Which.
        object: ObjectId,
    },
    /// An inode that says wrongly whether it has an access control list, or a capability. Repair: it
    /// is told.
    WrongXattrMark {
        /// Which.
        inode: InodeNumber,
    },
    /// A regular file that has no layout: what it held cannot be found.
    NoLayout {
        /// Which.
        inode: InodeNumber,
    },
    /// A symbolic link without a target.
    NoTarget {
        /// Which.
        inode: InodeNumber,
    },
    /// A layout with an iod that mgr does not know.
    UnknownIod {
        /// Whose.
        inode: InodeNumber,
        /// Which iod.
        iod: IodId,
    },
    /// An inode without a name that is not noted as such. Repair: it gets one in `/lost+found`, or
    /// goes with its last open where it is to have none.
    NoName {
        /// Which.
        inode: InodeNumber,
        /// Its last change before its names were counted.
        ctime: Timestamp,
    },
    /// A directory with more than one name.
    ManyNames {
        /// Which.
        inode: InodeNumber,
        /// Its last change before its names were counted.
        ctime: Timestamp,
        /// So many.
        names: u64,
    },
    /// A wrong count of links. Repair: it is set.
    WrongLinks {
        /// Of which inode.
        inode: InodeNumber,
        /// Its last change before they were counted.
        ctime: Timestamp,
        /// What it says.
        nlink: u32,
        /// What was counted.
        counted: u32,
    },
    /// A wrong count of entries. Repair: it is set.
    WrongEntries {
        /// Of which directory.
        inode: InodeNumber,
        /// Its last change before they were counted.
        ctime: Timestamp,
        /// What it says.
        entries: u64,
        /// What was counted.
        counted: u64,
    },
    /// A wrong count of inodes. Repair: it is set.
    WrongCount {
        /// mgr's counters before and after they were counted.
        counters: Counted,
        /// What was counted.
        counted: u64,
    },
    /// Stripes on iods that belong to no file. Repair: a file below `/lost+found` gets them; those
    /// without a byte go.
    StrayObject {
        /// Which.
        object: ObjectId,
        /// What each iod has of them.
        parts: Vec<StrayPart>,
    },
    /// An object of which an iod has lost the data.
    LostObject {
        /// Which iod.
        iod: IodId,
        /// Which object.
        object: ObjectId,
    },
    /// An iod holds less of a file than its size says, and nobody said that it has holes.
    ShortObject {
        /// Which iod.
        iod: IodId,
        /// Which object.
        object: ObjectId,
        /// Bytes that it holds; `None` where it has no such object.
        length: Option<u64>,
        /// The file's last change before it was looked at.
        ctime: Timestamp,
    },
    /// An iod holds more of a file than its size says. Repair: the size grows, so that nothing that
    /// was written is lost.
    SmallSize {
        /// Which iod.
        iod: IodId,
        /// Which object.
        object: ObjectId,
        /// Bytes that it holds.
        length: u64,
        /// The file's last change before it was looked at.
        ctime: Timestamp,
    },
}

/// What an iod has of stripes that belong to no file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct StrayPart {
    /// Which iod.
    pub iod: IodId,
    /// Bytes of the local file.
    pub length: u64,
    /// Which stripes of the file it holds; `None` where nobody has said so.
    pub place: Option<LayoutSlot>,
}

/// What mgr says of a finding after it has looked again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Verdict {
    /// It is not so, or no longer.
    Gone,
    /// It is so, and can be repaired; after a repair: it was.
    Repairable,
    /// It is so, and what is lost cannot be made again.
    Lost,
}
