// SPDX-License-Identifier: MIT
//! Directory entries. Each stands twice in the store: by name for lookups, by cookie for reading a
//! directory in an order that changes of other entries do not disturb.

use bincode::{Decode, Encode};
use pvfs::attr::{Attr, FileKind};
use pvfs::error::FsError;
use pvfs::ids::InodeNumber;
use pvfs::limits::READDIR_ENTRIES_MAX;
use pvfs::name::Name;
use pvfs::proto::mgr::{DirectoryEntry, MgrResponse};

use super::access::Want;
use super::inode::Directory;
use super::transaction::{Halt, Transaction};
use super::{key, value};

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Dentry {
    /// The inode.
    pub inode: InodeNumber,
    /// The inode's kind, which never changes.
    pub kind: FileKind,
    /// The entry's place in its directory.
    pub cookie: u64,
}

/// An entry as it stands under its cookie.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct CookieEntry {
    /// Name.
    pub name: Name,
    /// The inode.
    pub inode: InodeNumber,
    /// The inode's kind.
    pub kind: FileKind,
}

/// A directory that a request changes, in memory until it is stored.
#[derive(Clone, Copy, Debug)]
pub struct OpenDirectory {
    /// Its attributes.
    pub attr: Attr,
    /// What it has besides.
    pub directory: Directory,
}

impl Transaction<'_> {
    /// What `name` stands for in `directory`.
    ///
    /// # Errors
    ///
    /// [`Halt::Store`].
    pub fn find(&self, directory: InodeNumber, name: &Name) -> Result<Option<Dentry>, Halt> {
        self.get(&key::dentry(directory, name))
    }

    /// A directory whose entries the caller may change.
    ///
    /// # Errors
    ///
    /// [`FsError::AccessDenied`]; [`FsError::NotFound`] for a directory that has been removed.
    pub fn changeable(&self, inode: InodeNumber) -> Result<OpenDirectory, Halt> {
        let (attr, directory) = self.searchable(inode)?;
        self.permit(&attr, Want::WRITE)?;
        if attr.nlink == 0 {
            return Err(FsError::NotFound.into());
        }
        Ok(OpenDirectory { attr, directory })
    }

    /// Adds a name at the directory's end. The caller knows that it is not there yet, and stores
    /// the directory.
    ///
    /// # Errors
    ///
    /// [`Halt::Store`].
    pub fn add_entry(
        &mut self,
        parent: &mut OpenDirectory,
        name: &Name,
        child: &Attr,
    ) -> Result<(), Halt> {
        let cookie = parent.directory.cookie_next;
        parent.directory.cookie_next += 1;
        parent.directory.entries += 1;
        self.put_entry(parent, name, child, cookie)
    }

    /// Points a name, known to be at `cookie`, at `child`.
    ///
    /// # Errors
    ///
    /// [`Halt::Store`].
    pub fn put_entry(
        &mut self,
        parent: &mut OpenDirectory,
        name: &Name,
        child: &Attr,
        cookie: u64,
    ) -> Result<(), Halt> {
        self.touch(parent);
        if child.kind == FileKind::Directory {
            parent.attr.nlink += 1;
        }
        let (inode, kind) = (child.inode, child.kind);
        let number = parent.attr.inode;
        self.put(
            key::dentry(number, name),
            &Dentry {
                inode,
                kind,
                cookie,
            },
        )?;
        self.put(
            key::cookie(number, cookie),
            &CookieEntry {
                name: name.clone(),
                inode,
                kind,
            },
        )
    }

    /// Takes a name away. The caller stores the directory.
    pub fn remove_entry(&mut self, parent: &mut OpenDirectory, name: &Name, dentry: &Dentry) {
        parent.directory.entries = parent.directory.entries.saturating_sub(1);
        self.forget_child(parent, dentry.kind);
        self.delete(key::dentry(parent.attr.inode, name));
        self.delete(key::cookie(parent.attr.inode, dentry.cookie));
    }

    /// Notes that a child of `kind` leaves, whose name goes or will point elsewhere.
    pub fn forget_child(&self, parent: &mut OpenDirectory, kind: FileKind) {
        self.touch(parent);
        if kind == FileKind::Directory {
            parent.attr.nlink = parent.attr.nlink.saturating_sub(1);
        }
    }

    fn touch(&self, parent: &mut OpenDirectory) {
        parent.attr.mtime = self.context.now;
        parent.attr.ctime = self.context.now;
        parent.attr.change += 1;
    }

    /// Stores a directory that has been changed.
    ///
    /// # Errors
    ///
    /// [`Halt::Store`].
    pub fn put_open_directory(&mut self, directory: &OpenDirectory) -> Result<(), Halt> {
        self.put_directory(&directory.attr, &directory.directory)
    }

    /// Finds a name, or a directory's own parent.
    ///
    /// # Errors
    ///
    /// [`FsError::NotFound`] and those of [`Self::searchable`].
    pub fn lookup(&self, parent: InodeNumber, name: Option<&Name>) -> Result<MgrResponse, Halt> {
        let (attr, directory) = self.searchable(parent)?;
        let found = match name {
            Some(name) => self.find(parent, name)?.map(|dentry| dentry.inode),
            None if attr.nlink > 0 => Some(directory.parent),
            None => None,
        };
        let inode = found.ok_or(FsError::NotFound)?;
        Ok(MgrResponse::Attr(self.named_inode(inode)?.attr))
    }

    /// A part of a directory, after one cookie and up to another; without one, up to the last that
    /// has been given out. The right to read was checked when it was opened: as with a local file
    /// system, a later chmod does not end the reading of an open directory.
    ///
    /// # Errors
    ///
    /// Those of [`Self::directory`].
    pub fn read_directory(
        &self,
        inode: InodeNumber,
        (after, until): (u64, Option<u64>),
        entries_max: u32,
        plus: bool,
    ) -> Result<MgrResponse, Halt> {
        let (_, directory) = self.directory(inode)?;
        let until = until.unwrap_or(directory.cookie_next.saturating_sub(1));
        let wanted = entries_max.clamp(1, READDIR_ENTRIES_MAX) as usize;
        let prefix = key::cookie_prefix(inode);
        let mut records = self.scan(&prefix, &key::cookie(inode, after), wanted + 1)?;
        records.retain(|(key, _)| key::cookie_of(key).is_some_and(|cookie| cookie <= until));
        let end = records.len() <= wanted;
        records.truncate(wanted);
        let mut entries = Vec::with_capacity(records.len());
        for (key, bytes) in records {
            let entry: CookieEntry = value::decode(&key, &bytes)?;
            let cookie = key::cookie_of(&key).unwrap_or_default();
            let attr = if plus {
                Some(self.named_inode(entry.inode)?.attr)
            } else {
                None
            };
            let CookieEntry { name, inode, kind } = entry;
            entries.push(DirectoryEntry {
                cookie,
                name,
                inode,
                kind,
                attr,
            });
        }
        Ok(MgrResponse::Entries {
            entries,
            end,
            until,
        })
    }
}
