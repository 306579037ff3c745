// SPDX-License-Identifier: MIT
//! Inodes: their records, how one is made and how one goes.

use bincode::{Decode, Encode};
use pvfs::attr::{Attr, FileKind};
use pvfs::error::FsError;
use pvfs::ids::{InodeNumber, IodId, ROOT_INODE};
use pvfs::layout::{Layout, LayoutPolicy};

use super::transaction::{Halt, Transaction};
use super::{access, key};

/// An inode as it is stored.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Inode {
    /// Its attributes.
    pub attr: Attr,
    /// What a directory has besides.
    pub directory: Option<Directory>,
}

/// What a directory has that other inodes do not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Directory {
    /// Where it stands; the root is its own parent.
    pub parent: InodeNumber,
    /// Entries in it.
    pub entries: u64,
    /// The next new entry's cookie; cookies are never used twice in a directory.
    pub cookie_next: u64,
    /// What new files in it get; `None` is what its parent says.
    pub policy: Option<LayoutPolicy>,
}

impl Directory {
    /// A new directory in `parent`.
    #[must_use]
    pub const fn new(parent: InodeNumber) -> Self {
        Self {
            parent,
            entries: 0,
            cookie_next: 1,
            policy: None,
        }
    }
}

/// Counters that outlive a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Counters {
    /// The next new inode's number.
    pub inode_next: u64,
    /// Inodes in use, the root among them.
    pub inodes_used: u64,
    /// The next new iod's number.
    pub iod_next: u32,
    /// How often mgr has started.
    pub starts: u32,
    /// Files that were dealt out in turn: see [`super::layout::place`].
    pub turn: u64,
    /// How often an era has begun: see [`super::format::start`].
    pub era: u32,
}

impl Counters {
    /// Of a file system that has a root and nothing else.
    pub const FIRST: Self = Self {
        inode_next: ROOT_INODE.0 + 1,
        inodes_used: 1,
        iod_next: 1,
        starts: 0,
        turn: 0,
        era: 0,
    };
}

/// Stripes to be removed from iods.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Garbage {
    /// Where they may be.
    pub iods: Vec<IodId>,
}

/// What a new inode is like.
#[derive(Clone, Copy, Debug)]
pub struct NewInode {
    /// What it is.
    pub kind: FileKind,
    /// Permission bits, as asked for.
    pub mode: u16,
    /// The bits that its maker takes away.
    pub umask: u16,
    /// Device number.
    pub rdev: u32,
}

impl Transaction<'_> {
    /// An inode, whether it still has a name or not.
    ///
    /// # Errors
    ///
    /// [`FsError::Stale`] where there is none.
    pub fn inode(&self, inode: InodeNumber) -> Result<Inode, Halt> {
        self.get(&key::inode(inode))?
            .ok_or(Halt::Fs(FsError::Stale))
    }

    /// The inode that a name stands for.
    ///
    /// # Errors
    ///
    /// [`Halt::Store`], also where there is none.
    pub fn named_inode(&self, inode: InodeNumber) -> Result<Inode, Halt> {
        self.required(key::inode(inode))
    }

    /// A directory that is still in the tree or still open.
    ///
    /// # Errors
    ///
    /// [`FsError::NotDirectory`], [`FsError::Stale`].
    pub fn directory(&self, inode: InodeNumber) -> Result<(Attr, Directory), Halt> {
        let found = self.inode(inode)?;
        match found.directory {
            Some(directory) => Ok((found.attr, directory)),
            None => Err(FsError::NotDirectory.into()),
        }
    }

    /// A directory in which the caller may look names up.
    ///
    /// # Errors
    ///
    /// As [`Self::directory`], and [`FsError::AccessDenied`].
    pub fn searchable(&self, inode: InodeNumber) -> Result<(Attr, Directory), Halt> {
        let (attr, directory) = self.directory(inode)?;
        self.permit(&attr, access::Want::EXECUTE)?;
        Ok((attr, directory))
    }

    /// Stores an inode.
    ///
    /// # Errors
    ///
    /// [`Halt::Store`].
    pub fn put_inode(&mut self, inode: &Inode) -> Result<(), Halt> {
        let Attr { size, filled, .. } = inode.attr;
        debug_assert!(filled <= size, "{filled} of {size} bytes were written");
        self.put(key::inode(inode.attr.inode), inode)
    }

    /// Stores a directory.
    ///
    /// # Errors
    ///
    /// [`Halt::Store`].
    pub fn put_directory(&mut self, attr: &Attr, directory: &Directory) -> Result<(), Halt> {
        self.put_inode(&Inode {
            attr: *attr,
            directory: Some(*directory),
        })
    }

    /// The counters.
    ///
    /// # Errors
    ///
    /// [`Halt::Store`].
    pub fn counters(&self) -> Result<Counters, Halt> {
        self.required(key::counters())
    }

    /// Numbers a new inode in the directory `parent`, whose attributes decide its group. The inode
    /// is not stored yet.
    ///
    /// # Errors
    ///
    /// [`Halt::Store`].
    pub fn new_inode(&mut self, parent: &Attr, new: NewInode) -> Result<Inode, Halt> {
        let mut counters = self.counters()?;
        let inode = InodeNumber(counters.inode_next);
        counters.inode_next += 1;
        counters.inodes_used += 1;
        self.put(key::counters(), &counters)?;
        let (mode, gid) = self.inherited(parent, new);
        let now = self.context.now;
        let directory = (new.kind == FileKind::Directory).then(|| Directory::new(parent.inode));
        let mut attr = Attr {
            inode,
            generation: self.context.generation,
            kind: new.kind,
            mode,
            nlink: if directory.is_some() { 2 } else { 1 },
            uid: self.context.credentials.uid,
            gid,
            rdev: new.rdev,
            size: 0,
            atime: now,
            mtime: now,
            ctime: now,
            change: 0,
            allocated: None,
            filled: 0,
            has_acl: false,
            has_capability: false,
        };
        self.inherit_acl(parent, &mut attr, new.umask)?;
        Ok(Inode { attr, directory })
    }

    /// Mode and group of a new inode: a set-group-ID directory hands on its group, and the bit
    /// itself to directories.
    fn inherited(&self, parent: &Attr, new: NewInode) -> (u16, u32) {
        let who = self.context.credentials;
        let mode = new.mode & access::MODE_BITS;
        if parent.mode & access::SET_GID == 0 {
            return (mode, who.gid);
        }
        if new.kind == FileKind::Directory {
            return (mode | access::SET_GID, parent.gid);
        }
        let privileged = access::is_root(who) || who.in_group(parent.gid);
        let executable = mode & access::GROUP_EXECUTE != 0;
        let keeps = privileged || !executable;
        (
            if keeps { mode } else { mode & !access::SET_GID },
            parent.gid,
        )
    }

    /// Notes that an inode has lost its last name: it goes when it has lingered, and nobody has it
    /// open or may have (see [`super::Context::grace`]).
    ///
    /// # Errors
    ///
    /// [`Halt::Store`].
    pub fn orphan_or_remove(&mut self, inode: &Inode) -> Result<(), Halt> {
        let number = inode.attr.inode;
        let bytes = inode.attr.allocated.unwrap_or(inode.attr.size);
        let linger = self
            .context
            .linger
            .filter(|linger| bytes <= linger.bytes_max);
        let lingers = linger.is_some_and(|linger| self.opens.linger(number, linger.until_ms));
        if lingers || self.context.grace || self.opens.is_needed(number) {
            self.put_inode(inode)?;
            return self.put(key::orphan(number), &());
        }
        self.remove_inode(inode)
    }

    /// Removes an inode that has neither name nor open, and leaves a note for its stripes.
    ///
    /// # Errors
    ///
    /// [`Halt::Store`].
    pub fn remove_inode(&mut self, inode: &Inode) -> Result<(), Halt> {
        let number = inode.attr.inode;
        self.delete(key::inode(number));
        if self.has(&key::orphan(number))? {
            self.delete(key::orphan(number));
        }
        match inode.attr.kind {
            FileKind::Regular => self.discard_stripes(&inode.attr)?,
            FileKind::Symlink => self.delete(key::symlink(number)),
            FileKind::Directory
            | FileKind::Fifo
            | FileKind::Socket
            | FileKind::CharDevice
            | FileKind::BlockDevice => {}
        }
        let prefix = key::xattr(number, b"");
        for (key, _) in self.scan(&prefix, &prefix, usize::MAX)? {
            self.delete(key);
        }
        let mut counters = self.counters()?;
        counters.inodes_used = counters.inodes_used.saturating_sub(1);
        self.put(key::counters(), &counters)
    }

    /// Takes a file's layout away and leaves a note that its stripes are garbage.
    ///
    /// # Errors
    ///
    /// [`Halt::Store`].
    pub fn discard_stripes(&mut self, attr: &Attr) -> Result<(), Halt> {
        let layout_key = key::layout(attr.inode);
        if let Some(layout) = self.get::<Layout>(&layout_key)? {
            let garbage = Garbage {
                iods: layout.iods().to_vec(),
            };
            self.put(key::garbage(attr.object()), &garbage)?;
            self.delete(layout_key);
        }
        // A cut that is still under way is of no more use, nor is what else is known of the stripes: they
        // go altogether.
        for key in [key::cut(attr.inode), key::intent(attr.inode)] {
            if self.has(&key)? {
                self.delete(key);
            }
        }
        Ok(())
    }
}
