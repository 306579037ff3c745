// SPDX-License-Identifier: MIT
//! What fsck sees of the records: page by page, each record beside its neighbours. All that a page
//! tells was so at one moment; what needs counting over many pages, whoever asks counts.

use bincode::Decode;
use pvfs::attr::FileKind;
use pvfs::error::FsError;
use pvfs::ids::{InodeNumber, IodId, ObjectId};
use pvfs::layout::Layout;
use pvfs::limits::{
    ACL_ACCESS_XATTR, ACL_DEFAULT_XATTR, CAPABILITY_XATTR, OBJECTS_PER_QUESTION_MAX,
};
use pvfs::proto::check::{Counted, Finding, Page, Section, Seen};
use pvfs::proto::mgr::MgrResponse;

use super::access;
use super::dentry::{CookieEntry, Dentry};
use super::inode::{Garbage, Inode};
use super::key::{self, Tag};
use super::transaction::{Halt, Transaction};
use super::value;
use crate::store::{Record, StoreError};

/// Records of a page: about a millisecond of the owner's time.
const RECORDS_MAX: usize = 1024;
/// Bytes of the records of a page; the last record comes on top. With what is found, they fit a body.
const RECORD_BYTES_MAX: usize = 256 << 10;

const fn tag_of(section: Section) -> Tag {
    match section {
        Section::Dentries => Tag::Dentry,
        Section::Cookies => Tag::Cookie,
        Section::Layouts => Tag::Layout,
        Section::Symlinks => Tag::Symlink,
        Section::Xattrs => Tag::Xattr,
        Section::Orphans => Tag::Orphan,
        Section::Garbage => Tag::Garbage,
        Section::Inodes => Tag::Inode,
    }
}

impl Transaction<'_> {
    /// Whether the caller may look at everything.
    ///
    /// # Errors
    ///
    /// [`FsError::NotPermitted`] unless it is root.
    pub fn check_root(&self) -> Result<(), Halt> {
        match access::is_root(self.context.credentials) {
            true => Ok(()),
            false => Err(FsError::NotPermitted.into()),
        }
    }

    /// A page of a section.
    ///
    /// # Errors
    ///
    /// [`FsError::NotPermitted`]; [`FsError::InvalidArgument`] where `after` is of another section.
    pub fn inspect(&self, section: Section, after: &[u8]) -> Result<MgrResponse, Halt> {
        self.check_root()?;
        let prefix = key::all(tag_of(section));
        let after = if after.is_empty() { &prefix } else { after };
        if !after.starts_with(&prefix) {
            return Err(FsError::InvalidArgument.into());
        }
        let counters = self.counters()?;
        let mut page = Page {
            seen: Vec::new(),
            findings: Vec::new(),
            records: 0,
            next: None,
            counters: Counted {
                inode_next: counters.inode_next,
                inodes_used: counters.inodes_used,
            },
        };
        let (records, damaged) = match self.scan(&prefix, after, RECORDS_MAX) {
            Err(Halt::Store(StoreError::Corrupt { key })) => {
                (self.scan_until(after, Some(&key), RECORDS_MAX)?, Some(key))
            }
            outcome => (outcome?, None),
        };
        let full = records.len() == RECORDS_MAX;
        let mut bytes = 0;
        for record in records {
            if bytes >= RECORD_BYTES_MAX {
                return Ok(MgrResponse::Page(page));
            }
            bytes += record.0.len() + record.1.len();
            page.records += 1;
            self.inspect_record(section, &record, &mut page)?;
            page.next = Some(record.0);
        }
        if let Some(key) = damaged {
            page.records += 1;
            page.findings.push(Finding::Unreadable { key: key.clone() });
            page.next = Some(key);
        } else if !full {
            page.next = None;
        }
        Ok(MgrResponse::Page(page))
    }

    fn inspect_record(
        &self,
        section: Section,
        record: &Record,
        page: &mut Page,
    ) -> Result<(), Halt> {
        let (seen, findings) = (page.seen.len(), page.findings.len());
        let looked = match section {
            Section::Dentries => self.inspect_dentry(record, page),
            Section::Cookies => self.inspect_cookie(record, page),
            Section::Layouts => self.inspect_layout(record, page),
            Section::Symlinks => self.inspect_symlink(record, page),
            Section::Xattrs => self.inspect_xattr(record, page),
            Section::Orphans => self.inspect_orphan(record, page),
            Section::Garbage => self.inspect_garbage(record, page),
            Section::Inodes => self.inspect_inode(record, page),
        };
        match looked {
            // This one, or one beside it: nothing can be said of what it belongs to.
            Err(Halt::Store(StoreError::Corrupt { key } | StoreError::Version { key, .. })) => {
                page.seen.truncate(seen);
                page.findings.truncate(findings);
                page.findings.push(Finding::Unreadable { key });
                Ok(())
            }
            outcome => outcome,
        }
    }

    fn inspect_dentry(&self, (key, bytes): &Record, page: &mut Page) -> Result<(), Halt> {
        let (directory, name) = key::dentry_of(key).ok_or_else(|| corrupt(key))?;
        let dentry: Dentry = value::decode(key, bytes)?;
        let inode = dentry.inode;
        let parent = self.find_inode(directory)?;
        let child = self.find_inode(inode)?;
        let place: Option<CookieEntry> = self.get(&key::cookie(directory, dentry.cookie))?;
        if parent.is_none_or(|parent| parent.directory.is_none()) {
            page.findings.push(Finding::NameWithoutDirectory {
                directory,
                name,
                inode,
            });
            return Ok(());
        }
        page.seen.push(Seen::Dentry {
            directory,
            name: name.clone(),
            inode,
            kind: dentry.kind,
        });
        let Some(child) = child else {
            page.findings.push(Finding::DanglingName {
                directory,
                name,
                inode,
            });
            return Ok(());
        };
        if child.attr.kind != dentry.kind {
            page.findings.push(Finding::WrongKind { directory, name });
            return Ok(());
        }
        let expected = CookieEntry {
            name: name.clone(),
            inode,
            kind: dentry.kind,
        };
        if place.as_ref() != Some(&expected) {
            page.findings.push(Finding::NoPlace {
                directory,
                name: name.clone(),
            });
        }
        if child.directory.is_some_and(|own| own.parent != directory) {
            page.findings.push(Finding::WrongParent {
                inode,
                directory,
                name,
            });
        }
        Ok(())
    }

    fn inspect_cookie(&self, (key, bytes): &Record, page: &mut Page) -> Result<(), Halt> {
        let directory = key::inode_of(key).ok_or_else(|| corrupt(key))?;
        let cookie = key::cookie_of(key).ok_or_else(|| corrupt(key))?;
        let entry: CookieEntry = value::decode(key, bytes)?;
        let dentry = self.find(directory, &entry.name)?;
        if dentry.is_none_or(|dentry| dentry.cookie != cookie) {
            page.findings
                .push(Finding::StrayPlace { directory, cookie });
        }
        Ok(())
    }

    fn inspect_layout(&self, (key, bytes): &Record, page: &mut Page) -> Result<(), Halt> {
        let number = key::inode_of(key).ok_or_else(|| corrupt(key))?;
        let layout: Layout = value::decode(key, bytes)?;
        let layout = layout.validate().map_err(|_| corrupt(key))?;
        let found = self.find_inode(number)?;
        let Some(found) = found.filter(|found| found.attr.kind == FileKind::Regular) else {
            page.findings
                .push(Finding::StrayRecord { key: key.clone() });
            return Ok(());
        };
        for iod in layout.iods() {
            if !self.knows(*iod) {
                page.findings.push(Finding::UnknownIod {
                    inode: number,
                    iod: *iod,
                });
            }
        }
        page.seen.push(Seen::File {
            object: found.attr.object(),
            layout,
            size: found.attr.size,
            ctime: found.attr.ctime,
            filled: found.attr.filled,
        });
        Ok(())
    }

    fn inspect_symlink(&self, (key, bytes): &Record, page: &mut Page) -> Result<(), Halt> {
        value::decode::<Vec<u8>>(key, bytes)?;
        let found = self.find_inode(key::inode_of(key).ok_or_else(|| corrupt(key))?)?;
        if found.is_none_or(|found| found.attr.kind != FileKind::Symlink) {
            page.findings
                .push(Finding::StrayRecord { key: key.clone() });
        }
        Ok(())
    }

    fn inspect_xattr(&self, (key, bytes): &Record, page: &mut Page) -> Result<(), Halt> {
        value::decode::<Vec<u8>>(key, bytes)?;
        let found = self.find_inode(key::inode_of(key).ok_or_else(|| corrupt(key))?)?;
        if found.is_none() {
            page.findings
                .push(Finding::StrayRecord { key: key.clone() });
        }
        Ok(())
    }

    fn inspect_orphan(&self, (key, _): &Record, page: &mut Page) -> Result<(), Halt> {
        let found = self.find_inode(key::inode_of(key).ok_or_else(|| corrupt(key))?)?;
        if found.is_none_or(|found| found.attr.nlink > 0) {
            page.findings
                .push(Finding::StrayRecord { key: key.clone() });
        }
        Ok(())
    }

    fn inspect_garbage(&self, (key, bytes): &Record, page: &mut Page) -> Result<(), Halt> {
        let object = key::object_of(key).ok_or_else(|| corrupt(key))?;
        let garbage: Garbage = value::decode(key, bytes)?;
        for iod in garbage.iods {
            if self.belongs(iod, object)?.is_some() {
                page.findings.push(Finding::LiveGarbage { object });
                break;
            }
        }
        Ok(())
    }

    fn inspect_inode(&self, (key, bytes): &Record, page: &mut Page) -> Result<(), Halt> {
        let found: Inode = value::decode(key, bytes)?;
        let attr = found.attr;
        let inode = attr.inode;
        let is_directory = attr.kind == FileKind::Directory;
        if *key != key::inode(inode) || found.directory.is_some() != is_directory {
            return Err(corrupt(key).into());
        }
        if attr.kind == FileKind::Regular && !self.has(&key::layout(inode))? {
            page.findings.push(Finding::NoLayout { inode });
        }
        if attr.kind == FileKind::Symlink && !self.has(&key::symlink(inode))? {
            page.findings.push(Finding::NoTarget { inode });
        }
        if self.marks(inode)? != (attr.has_acl, attr.has_capability) {
            page.findings.push(Finding::WrongXattrMark { inode });
        }
        page.seen.push(Seen::Inode {
            inode,
            kind: attr.kind,
            nlink: attr.nlink,
            ctime: attr.ctime,
            entries: found.directory.map(|directory| directory.entries),
            orphan: self.has(&key::orphan(inode))?,
        });
        Ok(())
    }

    /// Whether there is an access control list of an inode, and whether a capability.
    pub(super) fn marks(&self, inode: InodeNumber) -> Result<(bool, bool), Halt> {
        let has = |name| self.has(&key::xattr(inode, name));
        Ok((
            has(ACL_ACCESS_XATTR)? || has(ACL_DEFAULT_XATTR)?,
            has(CAPABILITY_XATTR)?,
        ))
    }

    /// An inode, if there is one.
    pub(super) fn find_inode(&self, inode: InodeNumber) -> Result<Option<Inode>, Halt> {
        self.get(&key::inode(inode))
    }

    pub(super) fn knows(&self, iod: IodId) -> bool {
        self.context.iods.iter().any(|slot| slot.iod == iod)
    }

    /// The file that an object at an iod is a part of, with its layout and the iod's place in it.
    pub(super) fn belongs(
        &self,
        iod: IodId,
        object: ObjectId,
    ) -> Result<Option<(Inode, Layout, usize)>, Halt> {
        let Some(found) = self.find_inode(object.inode)? else {
            return Ok(None);
        };
        if found.attr.kind != FileKind::Regular || found.attr.object() != object {
            return Ok(None);
        }
        let layout: Option<Layout> = self.get(&key::layout(object.inode))?;
        Ok(layout.and_then(|layout| {
            let slot = layout.iods().iter().position(|at| *at == iod)?;
            Some((found, layout, slot))
        }))
    }

    /// Whether an object at an iod is nobody's, and is not about to be removed.
    pub(super) fn is_stray(&self, iod: IodId, object: ObjectId) -> Result<bool, Halt> {
        if self.belongs(iod, object)?.is_some() {
            return Ok(false);
        }
        let garbage: Option<Garbage> = self.get(&key::garbage(object))?;
        Ok(garbage.is_none_or(|garbage| !garbage.iods.contains(&iod)))
    }

    /// Which of some objects at an iod are stray. Each was seen there before this is asked: a file
    /// that is made meanwhile cannot be among them, and no number of an inode comes twice.
    ///
    /// # Errors
    ///
    /// [`FsError::NotPermitted`], [`FsError::InvalidArgument`].
    pub fn find_stray(&self, iod: IodId, objects: &[ObjectId]) -> Result<MgrResponse, Halt> {
        self.check_root()?;
        if objects.len() > OBJECTS_PER_QUESTION_MAX || !self.knows(iod) {
            return Err(FsError::InvalidArgument.into());
        }
        let mut stray = Vec::new();
        for object in objects {
            if self.is_stray(iod, *object)? {
                stray.push(*object);
            }
        }
        Ok(MgrResponse::Objects(stray))
    }
}

fn corrupt(key: &[u8]) -> StoreError {
    StoreError::Corrupt { key: key.to_vec() }
}

/// What a key of [`Finding::StrayRecord`] must be of.
pub(super) fn stray_tag(key: &[u8]) -> Option<Tag> {
    let tags = [Tag::Layout, Tag::Symlink, Tag::Xattr, Tag::Orphan];
    tags.into_iter()
        .find(|tag| key.first() == Some(&(*tag as u8)))
}

/// Whether a record decodes.
pub(super) fn reads<T: Decode<()>>(key: &[u8], bytes: &[u8]) -> bool {
    value::decode::<T>(key, bytes).is_ok()
}
