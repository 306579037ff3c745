// SPDX-License-Identifier: MIT
//! Open, close, and the reports of writers.

use pvfs::attr::{Attr, FileKind};
use pvfs::error::FsError;
use pvfs::ids::{InodeNumber, OpenId};
use pvfs::limits::FILE_SIZE_BYTES_MAX;
use pvfs::proto::mgr::{Access, MgrResponse, OpenResponse};

use super::access::Want;
use super::intent::Doubt;
use super::key;
use super::opens::Open;
use super::transaction::{Halt, Transaction};
use crate::placement::Placement;

/// What a writer reports.
#[derive(Clone, Copy, Debug)]
pub struct Written {
    /// The file is at least this long, bytes.
    pub size_min: u64,
    /// Its content changed.
    pub modified: bool,
    /// The `change` counter as the writer knows it.
    pub known_change: u64,
    /// Disk space that it takes now, where the writer asked the iods.
    pub allocated: Option<u64>,
    /// So many bytes from the file's start on have all been written, as far as the writer knows.
    pub filled: u64,
    /// What the iods may hold beyond what the writer knows.
    pub doubt: Option<Doubt>,
}

impl Transaction<'_> {
    /// open(2) and opendir(3).
    ///
    /// # Errors
    ///
    /// [`FsError::AccessDenied`]; [`FsError::IsDirectory`] for writing to a directory;
    /// [`FsError::InvalidArgument`] for what is neither file nor directory; [`Halt::Blocked`] for
    /// writing while a truncation goes on.
    pub fn open(
        &mut self,
        inode: InodeNumber,
        access: Access,
        truncate: bool,
    ) -> Result<MgrResponse, Halt> {
        let mut found = self.inode(inode)?;
        match found.attr.kind {
            FileKind::Regular => {}
            FileKind::Directory if access.write || truncate => {
                return Err(FsError::IsDirectory.into());
            }
            FileKind::Directory => {}
            FileKind::Symlink
            | FileKind::Fifo
            | FileKind::Socket
            | FileKind::CharDevice
            | FileKind::BlockDevice => return Err(FsError::InvalidArgument.into()),
        }
        let mut want = Want::NOTHING;
        if access.read {
            want = want.and(Want::READ);
        }
        if access.write || truncate {
            want = want.and(Want::WRITE);
        }
        self.check_openable(&found.attr, access, want)?;
        if access.write || truncate {
            self.check_settled(inode)?;
        }
        if truncate {
            self.resize(&mut found.attr, 0)?;
            self.put_inode(&found)?;
        }
        self.grant(&found.attr, access)
    }

    /// The kernel opens a program for reading in order to execute it, for whoever may execute it.
    fn check_openable(&self, attr: &Attr, access: Access, want: Want) -> Result<(), Halt> {
        let for_execution = access.read && !access.write && attr.kind == FileKind::Regular;
        match self.permit(attr, want) {
            Err(Halt::Fs(_)) if for_execution => self.permit(attr, Want::EXECUTE),
            decided => decided,
        }
    }

    /// Adds an open to the table.
    pub(super) fn grant(&mut self, attr: &Attr, access: Access) -> Result<MgrResponse, Halt> {
        let layout = match attr.kind {
            FileKind::Regular => Some(self.required(key::layout(attr.inode))?),
            _ => None,
        };
        let open = Open {
            client: self.context.client,
            inode: attr.inode,
            access,
        };
        let open = self.opens.insert(open).ok_or(FsError::TryAgain)?;
        if access.write {
            self.intend(attr)?;
        }
        Ok(MgrResponse::Open(OpenResponse {
            open,
            attr: *attr,
            layout,
        }))
    }

    /// close(2). An open that is not known has been closed before or was lost; either way it is
    /// closed now.
    ///
    /// # Errors
    ///
    /// [`FsError::InvalidArgument`] where the open is one of another inode.
    pub fn close(&mut self, inode: InodeNumber, open: OpenId) -> Result<MgrResponse, Halt> {
        let Some(known) = self.opens.get(self.context.client, open) else {
            return Ok(MgrResponse::Done);
        };
        if known.inode != inode {
            return Err(FsError::InvalidArgument.into());
        }
        self.opens.remove(self.context.client, open);
        self.reap(inode)?;
        Ok(MgrResponse::Done)
    }

    /// Removes an inode that has neither name nor open and does not linger, if it is one.
    ///
    /// # Errors
    ///
    /// [`Halt::Store`].
    pub fn reap(&mut self, inode: InodeNumber) -> Result<(), Halt> {
        let gone =
            !self.context.grace && !self.opens.is_needed(inode) && self.has(&key::orphan(inode))?;
        if gone {
            let found = self.inode(inode)?;
            self.remove_inode(&found)?;
        }
        Ok(())
    }

    /// A writer's report.
    ///
    /// # Errors
    ///
    /// [`FsError::Stale`] for an unknown open, [`FsError::AccessDenied`] for one that is not for
    /// writing, [`FsError::FileTooLarge`]; [`Halt::Blocked`] while a truncation goes on.
    pub fn report(
        &mut self,
        inode: InodeNumber,
        open: OpenId,
        written: Written,
    ) -> Result<MgrResponse, Halt> {
        let Written {
            size_min,
            modified,
            known_change,
            allocated,
            filled,
            doubt,
        } = written;
        let held = self.held(inode, open)?;
        let mut found = self.inode(inode)?;
        let change_before = found.attr.change;
        if !held.access.write {
            return Err(FsError::AccessDenied.into());
        }
        if size_min > FILE_SIZE_BYTES_MAX {
            return Err(FsError::FileTooLarge.into());
        }
        self.check_uncut(inode)?;
        if let Some(doubt) = doubt {
            self.raise_doubt(inode, doubt)?;
        }
        if self.context.unleased && known_change != change_before {
            tracing::warn!(
                "client {} reports writes to inode {inode} after it lost its lease and others \
                 changed it: what it wrote last may be lost",
                self.context.client
            );
            return Ok(MgrResponse::Report {
                attr: found.attr,
                change_before,
            });
        }
        let grown = size_min > found.attr.size;
        if grown {
            let layout = self.required(key::layout(inode))?;
            self.note_placed(Placement {
                layout,
                end_before: Some(found.attr.size),
                end: size_min,
            });
        }
        if grown || modified {
            found.attr.size = found.attr.size.max(size_min);
            found.attr.filled = found.attr.filled.max(filled).min(found.attr.size);
            note_space(&mut found.attr, allocated);
            self.content_changed(&mut found.attr);
            self.put_inode(&found)?;
        }
        Ok(MgrResponse::Report {
            attr: found.attr,
            change_before,
        })
    }

    /// An open of this client.
    ///
    /// # Errors
    ///
    /// [`FsError::Stale`] where it is unknown, [`FsError::InvalidArgument`] where it is of another
    /// inode.
    pub fn held(&self, inode: InodeNumber, open: OpenId) -> Result<Open, Halt> {
        let held = self
            .opens
            .get(self.context.client, open)
            .ok_or(FsError::Stale)?;
        if held.inode == inode {
            Ok(held)
        } else {
            Err(FsError::InvalidArgument.into())
        }
    }
}

/// Takes what iods said about a file's disk space. A file that takes what its size says is like any
/// other again, and later writers need not ask.
pub(super) fn note_space(attr: &mut Attr, allocated: Option<u64>) {
    if let Some(allocated) = allocated {
        attr.allocated = None;
        if attr.space() != allocated {
            attr.allocated = Some(allocated);
        }
    }
}
