// SPDX-License-Identifier: MIT
//! chmod, chown, truncate, utimensat.

use pvfs::attr::{Attr, FileKind, SetAttr, SetTime, Timestamp};
use pvfs::error::FsError;
use pvfs::ids::{InodeNumber, OpenId};
use pvfs::limits::FILE_SIZE_BYTES_MAX;
use pvfs::proto::mgr::MgrResponse;

use super::access::{self, Want};
use super::transaction::{Halt, Transaction};

impl Transaction<'_> {
    /// Changes attributes. A smaller size leaves a note that stripes are to be cut; the reply waits
    /// for that.
    ///
    /// # Errors
    ///
    /// [`FsError::NotPermitted`], [`FsError::AccessDenied`], and those of [`Self::resize`].
    pub fn set_attr(
        &mut self,
        inode: InodeNumber,
        set: &SetAttr,
        open: Option<OpenId>,
    ) -> Result<MgrResponse, Halt> {
        let mut found = self.inode(inode)?;
        if *set == SetAttr::default() {
            return Ok(MgrResponse::Attr(found.attr));
        }
        let before = found.attr;
        let attr = &mut found.attr;
        self.change_owner(&before, attr, set)?;
        self.change_mode(&before, attr, set)?;
        if let Some(size) = set.size {
            if !self.open_grants_write(inode, open)? {
                self.check_writable(&before)?;
            }
            self.resize(attr, size)?;
        }
        self.change_times(&before, attr, set)?;
        attr.ctime = self.context.now;
        self.put_inode(&found)?;
        Ok(MgrResponse::Attr(found.attr))
    }

    /// chown: root gives files away; an owner may hand a file to a group of its own.
    fn change_owner(&self, before: &Attr, attr: &mut Attr, set: &SetAttr) -> Result<(), Halt> {
        let who = self.context.credentials;
        if set.uid.is_none() && set.gid.is_none() {
            return Ok(());
        }
        let uid = set.uid.unwrap_or(before.uid);
        let gid = set.gid.unwrap_or(before.gid);
        let owner_may =
            who.uid == before.uid && uid == before.uid && (gid == before.gid || who.in_group(gid));
        if !access::is_root(who) && !owner_may {
            return Err(FsError::NotPermitted.into());
        }
        attr.uid = uid;
        attr.gid = gid;
        if before.kind != FileKind::Directory {
            attr.mode = access::without_privilege(attr.mode);
        }
        Ok(())
    }

    fn change_mode(&mut self, before: &Attr, attr: &mut Attr, set: &SetAttr) -> Result<(), Halt> {
        let Some(mode) = set.mode else { return Ok(()) };
        let who = self.context.credentials;
        if !access::is_owner_or_root(before, who) {
            return Err(FsError::NotPermitted.into());
        }
        self.set_mode(attr, mode);
        self.acl_follows_mode(attr)
    }

    /// utimensat: the owner sets any time; whoever may write may set the present. A truncation has
    /// set its own times already, and needs no right besides.
    fn change_times(&self, before: &Attr, attr: &mut Attr, set: &SetAttr) -> Result<(), Halt> {
        let times = [set.atime, set.mtime];
        if times == [None, None] {
            return Ok(());
        }
        let explicit = times
            .iter()
            .flatten()
            .any(|time| matches!(time, SetTime::To(_)));
        if !access::is_owner_or_root(before, self.context.credentials) {
            if explicit {
                return Err(FsError::NotPermitted.into());
            }
            if set.size.is_none() {
                self.check_writable(before)?;
            }
        }
        for (set, field) in [(set.atime, &mut attr.atime), (set.mtime, &mut attr.mtime)] {
            match set {
                None => {}
                Some(SetTime::Now) => *field = self.context.now,
                Some(SetTime::To(time)) => *field = check_time(time)?,
            }
        }
        Ok(())
    }

    /// Sets the size of a regular file in `attr`, as truncate(2) does.
    ///
    /// # Errors
    ///
    /// [`FsError::IsDirectory`], [`FsError::InvalidArgument`] for other kinds,
    /// [`FsError::FileTooLarge`]; [`Halt::Blocked`] while an earlier truncation goes on.
    pub fn resize(&mut self, attr: &mut Attr, size: u64) -> Result<(), Halt> {
        match attr.kind {
            FileKind::Regular => {}
            FileKind::Directory => return Err(FsError::IsDirectory.into()),
            FileKind::Symlink
            | FileKind::Fifo
            | FileKind::Socket
            | FileKind::CharDevice
            | FileKind::BlockDevice => return Err(FsError::InvalidArgument.into()),
        }
        if size > FILE_SIZE_BYTES_MAX {
            return Err(FsError::FileTooLarge.into());
        }
        self.check_settled(attr.inode)?;
        // A writer may have written beyond the size that it has reported so far.
        let written_beyond = size == attr.size && self.opens.has_writers(attr.inode);
        if size < attr.size || written_beyond {
            self.note_cut(attr, size)?;
        }
        let space = attr.space();
        let grown = size > attr.size;
        attr.size = size;
        let dense = Attr {
            allocated: None,
            ..*attr
        };
        // What is new is a hole, and what is cut off takes no space. How much is left of a file with
        // holes, the next writer says.
        attr.allocated = match (grown, attr.allocated) {
            (true, _) => Some(space).filter(|space| *space != dense.space()),
            (false, Some(allocated)) if size > 0 => Some(allocated.min(dense.space())),
            (false, _) => None,
        };
        self.content_changed(attr);
        Ok(())
    }

    /// Advances times and the change counter, and drops privileges as write(2) does.
    pub fn content_changed(&self, attr: &mut Attr) {
        attr.mtime = self.context.now;
        attr.ctime = self.context.now;
        attr.change += 1;
        if !access::is_root(self.context.credentials) {
            attr.mode = access::without_privilege(attr.mode);
        }
    }

    /// Whether the caller may write to an inode by its mode.
    fn check_writable(&self, attr: &Attr) -> Result<(), Halt> {
        self.permit(attr, Want::WRITE)
    }

    /// Whether `open` is an open for writing of this inode by this client.
    fn open_grants_write(&self, inode: InodeNumber, open: Option<OpenId>) -> Result<bool, Halt> {
        match open {
            None => Ok(false),
            Some(open) => Ok(self.held(inode, open)?.access.write),
        }
    }
}

const fn check_time(time: Timestamp) -> Result<Timestamp, FsError> {
    if time.nanoseconds < 1_000_000_000 {
        Ok(time)
    } else {
        Err(FsError::InvalidArgument)
    }
}
