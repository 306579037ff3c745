// SPDX-License-Identifier: MIT
//! A finding of fsck, looked at once more and repaired. Both happen in one request of the owner, so
//! nothing comes in between; what was counted over many requests stands only where the inode has not
//! changed since before the counting: whatever gives an inode a name, takes one or changes its size
//! advances its ctime.

use pvfs::attr::{FileKind, Timestamp};
use pvfs::error::FsError;
use pvfs::ids::{InodeNumber, IodId, ObjectId, ROOT_INODE};
use pvfs::layout::Layout;
use pvfs::name::Name;
use pvfs::proto::check::{Counted, Finding, Verdict};
use pvfs::proto::mgr::MgrResponse;

use super::check::{reads, stray_tag};
use super::dentry::{CookieEntry, Dentry, OpenDirectory};
use super::inode::{Counters, Garbage, Inode, NewInode};
use super::intent::Doubt;
use super::key::{self, Tag};
use super::transaction::{Halt, Transaction};
use super::value;

/// Where inodes without a name get one, below the root, as with other file systems.
pub const LOST_AND_FOUND: &[u8] = b"lost+found";

impl Transaction<'_> {
    /// Looks at a finding once more, and makes the records that repair it; whoever only wants to
    /// know drops them.
    ///
    /// # Errors
    ///
    /// [`FsError::NotPermitted`] unless the caller is root; [`FsError::TryAgain`] where clients may
    /// still declare opens that decide it; [`FsError::Exists`] where `/lost+found` is no directory.
    pub fn repair(&mut self, finding: &Finding) -> Result<MgrResponse, Halt> {
        self.check_root()?;
        let verdict = match finding {
            Finding::Unreadable { key } => self.still_unreadable(key),
            Finding::DanglingName {
                directory, name, ..
            }
            | Finding::NameWithoutDirectory {
                directory, name, ..
            } => self.drop_bad_name(*directory, name),
            Finding::WrongKind { directory, name } => self.set_kind(*directory, name),
            Finding::NoPlace { directory, name } => self.give_place(*directory, name),
            Finding::StrayPlace { directory, cookie } => self.drop_place(*directory, *cookie),
            Finding::WrongParent {
                inode,
                directory,
                name,
            } => self.set_parent(*inode, *directory, name),
            Finding::StrayRecord { key } => self.drop_record(key),
            Finding::LiveGarbage { object } => self.spare(*object),
            Finding::WrongXattrMark { inode } => self.mark_xattrs(*inode),
            Finding::NoLayout { inode } => self.lacks(*inode, FileKind::Regular),
            Finding::NoTarget { inode } => self.lacks(*inode, FileKind::Symlink),
            Finding::UnknownIod { inode, iod } => self.lacks_iod(*inode, *iod),
            Finding::NoName { inode, ctime } => self.name_again(*inode, *ctime),
            Finding::ManyNames { inode, ctime, .. } => self
                .unchanged(*inode, *ctime)
                .map(|found| verdict_of(found.is_some())),
            Finding::WrongLinks {
                inode,
                ctime,
                nlink,
                counted,
            } => self.set_links(*inode, *ctime, *nlink, *counted),
            Finding::WrongEntries {
                inode,
                ctime,
                entries,
                counted,
            } => self.set_entries(*inode, *ctime, *entries, *counted),
            Finding::WrongCount { counters, counted } => self.set_count(*counters, *counted),
            Finding::StrayObject { object, parts } => self.put_together(*object, parts),
            Finding::LostObject { iod, object } => {
                Ok(verdict_of(self.belongs(*iod, *object)?.is_some()))
            }
            Finding::ShortObject {
                iod,
                object,
                length,
                ctime,
            } => self.is_short(*iod, *object, length.unwrap_or_default(), *ctime),
            Finding::SmallSize {
                iod,
                object,
                length,
                ctime,
            } => self.grow(*iod, *object, *length, *ctime),
        };
        Ok(MgrResponse::Verdict(verdict?))
    }

    fn still_unreadable(&self, key: &[u8]) -> Result<Verdict, Halt> {
        let Some(bytes) = self.raw(key)? else {
            return Ok(Verdict::Gone);
        };
        let good = match key.first().copied() {
            Some(tag) if tag == Tag::Dentry as u8 => {
                key::dentry_of(key).is_some() && reads::<Dentry>(key, bytes)
            }
            Some(tag) if tag == Tag::Cookie as u8 => reads::<CookieEntry>(key, bytes),
            Some(tag) if tag == Tag::Layout as u8 => {
                let layout = value::decode::<Layout>(key, bytes);
                layout.is_ok_and(|layout| layout.validate().is_ok())
            }
            Some(tag) if tag == Tag::Symlink as u8 || tag == Tag::Xattr as u8 => {
                reads::<Vec<u8>>(key, bytes)
            }
            Some(tag) if tag == Tag::Garbage as u8 => reads::<Garbage>(key, bytes),
            Some(tag) if tag == Tag::Counters as u8 => reads::<Counters>(key, bytes),
            Some(tag) if tag == Tag::Inode as u8 => {
                value::decode::<Inode>(key, bytes).is_ok_and(|inode| {
                    key == key::inode(inode.attr.inode)
                        && inode.directory.is_some() == (inode.attr.kind == FileKind::Directory)
                })
            }
            _ => true,
        };
        Ok(verdict_of(!good))
    }

    /// Removes a name that stands for nothing, or stands in what is no directory.
    fn drop_bad_name(&mut self, directory: InodeNumber, name: &Name) -> Result<Verdict, Halt> {
        let Some(dentry) = self.find(directory, name)? else {
            return Ok(Verdict::Gone);
        };
        let parent = self.open_directory(directory)?;
        if parent.is_some() && self.find_inode(dentry.inode)?.is_some() {
            return Ok(Verdict::Gone);
        }
        match parent {
            Some(mut parent) => {
                let owns_place = self.owns_place(directory, name, &dentry)?;
                let place = key::cookie(directory, dentry.cookie);
                let other = match owns_place {
                    true => None,
                    false => self.get::<CookieEntry>(&place)?,
                };
                self.remove_entry(&mut parent, name, &dentry);
                if let Some(other) = other {
                    self.put(place, &other)?;
                }
                self.put_open_directory(&parent)?;
            }
            None => self.delete(key::dentry(directory, name)),
        }
        Ok(Verdict::Repairable)
    }

    /// Whether the entry under the name's cookie is of this name.
    fn owns_place(
        &self,
        directory: InodeNumber,
        name: &Name,
        dentry: &Dentry,
    ) -> Result<bool, Halt> {
        let place: Option<CookieEntry> = self.get(&key::cookie(directory, dentry.cookie))?;
        Ok(place.is_none_or(|place| place.name == *name))
    }

    fn open_directory(&self, inode: InodeNumber) -> Result<Option<OpenDirectory>, Halt> {
        Ok(self.find_inode(inode)?.and_then(|found| {
            let directory = found.directory?;
            Some(OpenDirectory {
                attr: found.attr,
                directory,
            })
        }))
    }

    /// A name with its directory and inode, where all three are there.
    fn whole_name(
        &self,
        directory: InodeNumber,
        name: &Name,
    ) -> Result<Option<(OpenDirectory, Dentry, Inode)>, Halt> {
        let (Some(parent), Some(dentry)) =
            (self.open_directory(directory)?, self.find(directory, name)?)
        else {
            return Ok(None);
        };
        let child = self.find_inode(dentry.inode)?;
        Ok(child.map(|child| (parent, dentry, child)))
    }

    fn set_kind(&mut self, directory: InodeNumber, name: &Name) -> Result<Verdict, Halt> {
        match self.whole_name(directory, name)? {
            Some((mut parent, dentry, child)) if dentry.kind != child.attr.kind => {
                self.forget_child(&mut parent, dentry.kind);
                self.put_entry(&mut parent, name, &child.attr, dentry.cookie)?;
                self.put_open_directory(&parent)?;
                Ok(Verdict::Repairable)
            }
            _ => Ok(Verdict::Gone),
        }
    }

    fn give_place(&mut self, directory: InodeNumber, name: &Name) -> Result<Verdict, Halt> {
        let Some((mut parent, dentry, child)) = self.whole_name(directory, name)? else {
            return Ok(Verdict::Gone);
        };
        let expected = CookieEntry {
            name: name.clone(),
            inode: dentry.inode,
            kind: dentry.kind,
        };
        let place: Option<CookieEntry> = self.get(&key::cookie(directory, dentry.cookie))?;
        if place.as_ref() == Some(&expected) {
            return Ok(Verdict::Gone);
        }
        // At the end: the old place may be another's. The name is counted already.
        let cookie = parent.directory.cookie_next.max(dentry.cookie + 1);
        parent.directory.cookie_next = cookie + 1;
        self.forget_child(&mut parent, dentry.kind);
        self.put_entry(&mut parent, name, &child.attr, cookie)?;
        self.put_open_directory(&parent)?;
        if place.is_some_and(|place| place.name == *name) {
            self.delete(key::cookie(directory, dentry.cookie));
        }
        Ok(Verdict::Repairable)
    }

    fn drop_place(&mut self, directory: InodeNumber, cookie: u64) -> Result<Verdict, Halt> {
        let place = key::cookie(directory, cookie);
        let Some(entry) = self.get::<CookieEntry>(&place)? else {
            return Ok(Verdict::Gone);
        };
        let dentry = self.find(directory, &entry.name)?;
        if dentry.is_some_and(|dentry| dentry.cookie == cookie) {
            return Ok(Verdict::Gone);
        }
        self.delete(place);
        if let Some(mut parent) = self.open_directory(directory)? {
            // Whoever keeps what it read of the directory reads it anew.
            self.touch_directory(&mut parent);
            self.put_open_directory(&parent)?;
        }
        Ok(Verdict::Repairable)
    }

    fn touch_directory(&self, parent: &mut OpenDirectory) {
        self.forget_child(parent, FileKind::Regular);
    }

    fn set_parent(
        &mut self,
        inode: InodeNumber,
        directory: InodeNumber,
        name: &Name,
    ) -> Result<Verdict, Halt> {
        let Some((_, dentry, mut child)) = self.whole_name(directory, name)? else {
            return Ok(Verdict::Gone);
        };
        match &mut child.directory {
            Some(own) if dentry.inode == inode && own.parent != directory => {
                own.parent = directory;
                child.attr.ctime = self.context.now;
                self.put_inode(&child)?;
                Ok(Verdict::Repairable)
            }
            _ => Ok(Verdict::Gone),
        }
    }

    fn drop_record(&mut self, key: &[u8]) -> Result<Verdict, Halt> {
        let tag = stray_tag(key).ok_or(FsError::InvalidArgument)?;
        let inode = key::inode_of(key).ok_or(FsError::InvalidArgument)?;
        if self.raw(key)?.is_none() {
            return Ok(Verdict::Gone);
        }
        let found = self.find_inode(inode)?;
        let stray = found.is_none_or(|found| match tag {
            Tag::Layout => found.attr.kind != FileKind::Regular,
            Tag::Symlink => found.attr.kind != FileKind::Symlink,
            Tag::Orphan => found.attr.nlink > 0,
            _ => false,
        });
        if stray {
            self.delete(key.to_vec());
            Ok(Verdict::Repairable)
        } else {
            Ok(Verdict::Gone)
        }
    }

    /// Takes the iods of a living file off the note that they are to remove its stripes.
    fn spare(&mut self, object: ObjectId) -> Result<Verdict, Halt> {
        let key = key::garbage(object);
        let Some(garbage) = self.get::<Garbage>(&key)? else {
            return Ok(Verdict::Gone);
        };
        let all = garbage.iods.len();
        let mut iods = Vec::new();
        for iod in garbage.iods {
            if self.belongs(iod, object)?.is_none() {
                iods.push(iod);
            }
        }
        if iods.len() == all {
            return Ok(Verdict::Gone);
        }
        match iods.is_empty() {
            true => self.delete(key),
            false => self.put(key, &Garbage { iods })?,
        }
        Ok(Verdict::Repairable)
    }

    fn mark_xattrs(&mut self, inode: InodeNumber) -> Result<Verdict, Halt> {
        let marks = self.marks(inode)?;
        match self.find_inode(inode)? {
            Some(mut found) if (found.attr.has_acl, found.attr.has_capability) != marks => {
                (found.attr.has_acl, found.attr.has_capability) = marks;
                found.attr.ctime = self.context.now;
                self.put_inode(&found)?;
                Ok(Verdict::Repairable)
            }
            _ => Ok(Verdict::Gone),
        }
    }

    fn lacks(&self, inode: InodeNumber, kind: FileKind) -> Result<Verdict, Halt> {
        let key = match kind {
            FileKind::Symlink => key::symlink(inode),
            _ => key::layout(inode),
        };
        let found = self.find_inode(inode)?;
        let is_kind = found.is_some_and(|found| found.attr.kind == kind);
        Ok(verdict_of(is_kind && !self.has(&key)?))
    }

    fn lacks_iod(&self, inode: InodeNumber, iod: IodId) -> Result<Verdict, Halt> {
        let layout: Option<Layout> = self.get(&key::layout(inode))?;
        let in_it = layout.is_some_and(|layout| layout.iods().contains(&iod));
        Ok(verdict_of(in_it && !self.knows(iod)))
    }

    /// An inode that has not changed since `ctime`.
    fn unchanged(&self, inode: InodeNumber, ctime: Timestamp) -> Result<Option<Inode>, Halt> {
        let found = self.find_inode(inode)?;
        Ok(found.filter(|found| found.attr.ctime == ctime))
    }

    fn name_again(&mut self, inode: InodeNumber, ctime: Timestamp) -> Result<Verdict, Halt> {
        let found = self.unchanged(inode, ctime)?;
        let Some(mut found) = found.filter(|_| inode != ROOT_INODE) else {
            return Ok(Verdict::Gone);
        };
        if self.has(&key::orphan(inode))? {
            return Ok(Verdict::Gone);
        }
        if found.attr.nlink == 0 {
            self.orphan_or_remove(&found)?;
            return Ok(Verdict::Repairable);
        }
        let mut parent = self.lost_and_found()?;
        let name = Name::new(format!("#{inode}"))?;
        if self.find(parent.attr.inode, &name)?.is_some() {
            return Err(FsError::Exists.into());
        }
        found.attr.ctime = self.context.now;
        match &mut found.directory {
            Some(directory) => directory.parent = parent.attr.inode,
            None => found.attr.nlink = 1,
        }
        self.put_inode(&found)?;
        self.add_entry(&mut parent, &name, &found.attr)?;
        self.put_open_directory(&parent)?;
        Ok(Verdict::Repairable)
    }

    /// The directory for what has lost its name, made if there is none.
    pub(super) fn lost_and_found(&mut self) -> Result<OpenDirectory, Halt> {
        let name = Name::new(LOST_AND_FOUND)?;
        let inode = match self.find(ROOT_INODE, &name)? {
            Some(found) => found.inode,
            None => {
                let new = NewInode {
                    kind: FileKind::Directory,
                    mode: 0o700,
                    umask: 0,
                    rdev: 0,
                };
                match self.make_node(ROOT_INODE, &name, new)? {
                    MgrResponse::Attr(attr) => attr.inode,
                    _ => return Err(FsError::Protocol.into()),
                }
            }
        };
        let directory = self.open_directory(inode)?;
        directory.ok_or(Halt::Fs(FsError::Exists))
    }

    fn set_links(
        &mut self,
        inode: InodeNumber,
        ctime: Timestamp,
        nlink: u32,
        counted: u32,
    ) -> Result<Verdict, Halt> {
        match self.unchanged(inode, ctime)? {
            Some(mut found) if found.attr.nlink == nlink && nlink != counted && counted > 0 => {
                found.attr.nlink = counted;
                self.put_inode(&found)?;
                if self.has(&key::orphan(inode))? {
                    self.delete(key::orphan(inode));
                }
                Ok(Verdict::Repairable)
            }
            _ => Ok(Verdict::Gone),
        }
    }

    fn set_entries(
        &mut self,
        inode: InodeNumber,
        ctime: Timestamp,
        entries: u64,
        counted: u64,
    ) -> Result<Verdict, Halt> {
        let Some(mut found) = self.unchanged(inode, ctime)? else {
            return Ok(Verdict::Gone);
        };
        match &mut found.directory {
            Some(directory) if directory.entries == entries && entries != counted => {
                directory.entries = counted;
                self.put_inode(&found)?;
                Ok(Verdict::Repairable)
            }
            _ => Ok(Verdict::Gone),
        }
    }

    /// Whatever makes an inode advances one counter, whatever removes one the other.
    fn set_count(&mut self, seen: Counted, counted: u64) -> Result<Verdict, Halt> {
        let mut counters = self.counters()?;
        let now = Counted {
            inode_next: counters.inode_next,
            inodes_used: counters.inodes_used,
        };
        if now != seen || now.inodes_used == counted {
            return Ok(Verdict::Gone);
        }
        counters.inodes_used = counted;
        self.put(key::counters(), &counters)?;
        Ok(Verdict::Repairable)
    }

    /// A file that an object belongs to, which has not changed since `ctime` and is not being
    /// written: its size is what it should be.
    fn resting(
        &self,
        iod: IodId,
        object: ObjectId,
        ctime: Timestamp,
    ) -> Result<Option<(Inode, Layout, usize)>, Halt> {
        let Some(found) = self.belongs(iod, object)? else {
            return Ok(None);
        };
        let inode = object.inode;
        if found.0.attr.ctime != ctime || self.opens.has_writers(inode) {
            return Ok(None);
        }
        if self.context.grace {
            return Err(FsError::TryAgain.into());
        }
        match self.check_settled(inode) {
            Ok(()) => Ok(Some(found)),
            Err(Halt::Blocked(_)) => Ok(None),
            Err(halt) => Err(halt),
        }
    }

    fn is_short(
        &self,
        iod: IodId,
        object: ObjectId,
        length: u64,
        ctime: Timestamp,
    ) -> Result<Verdict, Halt> {
        let found = self.resting(iod, object, ctime)?;
        Ok(verdict_of(found.is_some_and(|(inode, layout, slot)| {
            let attr = inode.attr;
            layout.local_size(slot, attr.filled) > length
        })))
    }

    fn grow(
        &mut self,
        iod: IodId,
        object: ObjectId,
        length: u64,
        ctime: Timestamp,
    ) -> Result<Verdict, Halt> {
        let Some((found, layout, slot)) = self.resting(iod, object, ctime)? else {
            return Ok(Verdict::Gone);
        };
        let last = length.checked_sub(1);
        let end = last.and_then(|last| layout.file_offset(slot, last));
        if end.is_none_or(|end| end < found.attr.size) {
            return Ok(Verdict::Gone);
        }
        // As after a writer that is gone: late writes are fenced off, and all iods are asked.
        self.intend(&found.attr)?;
        self.raise_doubt(object.inode, Doubt::Lost)?;
        Ok(Verdict::Repairable)
    }
}

/// Of what can only be told.
const fn verdict_of(is_so: bool) -> Verdict {
    match is_so {
        true => Verdict::Lost,
        false => Verdict::Gone,
    }
}
