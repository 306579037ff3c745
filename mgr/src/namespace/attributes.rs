// SPDX-License-Identifier: MIT
//! chmod, chown, truncate, utimensat.

use pvfs::attr::{Attr, FileKind, SetAttr, SetTime, Timestamp};
use pvfs::error::FsError;
use pvfs::ids::{InodeNumber, OpenId};
use pvfs::limits::{CAPABILITY_XATTR, FILE_SIZE_BYTES_MAX};
use pvfs::proto::mgr::MgrResponse;

use super::access::{self, Want};
use super::key;
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
    fn change_owner(&mut self, before: &Attr, attr: &mut Attr, set: &SetAttr) -> Result<(), Halt> {
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
        if before.kind != FileKind::Directory {
            self.drop_privileges(attr, true);
        }
        attr.uid = uid;
        attr.gid = gid;
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
        attr.filled = attr.filled.min(size);
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
        self.drop_privileges(attr, !access::is_root(self.context.credentials));
        Ok(())
    }

    /// Advances times and the change counter.
    pub const fn content_changed(&self, attr: &mut Attr) {
        attr.mtime = self.context.now;
        attr.ctime = self.context.now;
        attr.change += 1;
    }

    /// Takes an inode's capability away, and with `mode_bits` set-uid and set-gid too. The caller stores
    /// the inode.
    pub(super) fn drop_privileges(&mut self, attr: &mut Attr, mode_bits: bool) {
        if mode_bits {
            attr.mode = access::without_privilege(attr, self.context.credentials);
        }
        if attr.has_capability {
            attr.has_capability = false;
            self.delete(key::xattr(attr.inode, CAPABILITY_XATTR));
        }
    }

    /// What a file loses before a client changes its content.
    ///
    /// # Errors
    ///
    /// [`FsError::Stale`] for an unknown open, [`FsError::AccessDenied`] for one that is not for writing.
    pub fn drop_before_write(
        &mut self,
        inode: InodeNumber,
        open: OpenId,
        mode_bits: bool,
    ) -> Result<MgrResponse, Halt> {
        if !self.held(inode, open)?.access.write {
            return Err(FsError::AccessDenied.into());
        }
        let mut found = self.inode(inode)?;
        let before = found.attr.privileges();
        self.drop_privileges(&mut found.attr, mode_bits);
        if found.attr.privileges() != before {
            found.attr.ctime = self.context.now;
            self.put_inode(&found)?;
        }
        Ok(MgrResponse::Attr(found.attr))
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
