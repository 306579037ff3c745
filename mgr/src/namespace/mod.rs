// SPDX-License-Identifier: MIT
//! The name space as pure code: a request, the state and a moment go in, a reply and records come
//! out. No clock, no randomness, no I/O of its own: the store is behind [`crate::store::View`].
//!
//! One noun a file: [`inode`], [`dentry`], [`layout`], [`xattr`], [`opens`], [`lingering`],
//! [`intent`]; what callers may do is in [`access`], what they do in [`attributes`], [`create`], [`link`],
//! [`rename`], [`open`]. What fsck sees and mends is in [`check`] and [`repair`].

pub mod access;
pub mod acl;
pub mod acl_xattr;
pub mod attributes;
pub mod check;
pub mod create;
pub mod dentry;
pub mod format;
pub mod inode;
pub mod intent;
pub mod key;
pub mod layout;
pub mod layout_xattr;
pub mod lingering;
pub mod link;
pub mod open;
pub mod opens;
pub mod rename;
pub mod repair;
mod stray;
#[cfg(test)]
pub mod testing;
pub mod transaction;
pub mod value;
pub mod xattr;

use pvfs::attr::{Credentials, Timestamp};
use pvfs::error::FsError;
use pvfs::ids::ClientId;
use pvfs::proto::mgr::{MgrOperation, MgrResponse};

use self::create::Create;
use self::inode::NewInode;
use self::layout::IodSlot;
use self::lingering::Linger;
use self::open::Written;
use self::transaction::{Halt, Transaction};

/// What a request may know besides the store and the open table.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// The moment at which it happens.
    pub now: Timestamp,
    /// The generation of new inodes, drawn when mgr started.
    pub generation: u32,
    /// mgr started lately, so that clients may have opens that they have not declared yet: nothing
    /// that has lost its last name is removed.
    pub grace: bool,
    /// How what loses its last name now lingers; `None` where it is to go at once.
    pub linger: Option<Linger>,
    /// The store has room for more.
    pub room: bool,
    /// Who asks.
    pub credentials: &'a Credentials,
    /// Through which client.
    pub client: ClientId,
    /// The client takes leases, and has none under which it may write to what it reports about.
    pub unleased: bool,
    /// All iods, in the order of their ids.
    pub iods: &'a [IodSlot],
}

/// Runs one request on the name space.
///
/// # Errors
///
/// Every refusal is a [`Halt::Fs`], and the transaction must be dropped then.
/// [`FsError::NotSupported`] for what is not about the name space: sessions, leases and iods.
pub fn apply(tx: &mut Transaction<'_>, operation: &MgrOperation) -> Result<MgrResponse, Halt> {
    use MgrOperation as Op;
    if !tx.context.room && needs_room(operation) {
        return Err(FsError::NoSpace.into());
    }
    match operation {
        Op::Lookup { parent, name } => tx.lookup(*parent, name.as_ref()),
        Op::GetAttr { inode } => Ok(MgrResponse::Attr(tx.inode(*inode)?.attr)),
        Op::SetAttr { inode, set, open } => tx.set_attr(*inode, set, *open),
        Op::Create {
            parent,
            name,
            mode,
            umask,
            exclusive,
            access,
        } => {
            let create = Create {
                mode: *mode,
                umask: *umask,
                exclusive: *exclusive,
                access: *access,
            };
            tx.create(*parent, name, create)
        }
        Op::MakeNode {
            parent,
            name,
            kind,
            mode,
            umask,
            rdev,
        } => tx.make_node(
            *parent,
            name,
            NewInode {
                kind: *kind,
                mode: *mode,
                umask: *umask,
                rdev: *rdev,
            },
        ),
        Op::Symlink {
            parent,
            name,
            target,
        } => tx.symlink(*parent, name, target),
        Op::ReadLink { inode } => tx.read_link(*inode),
        Op::Link {
            inode,
            parent,
            name,
        } => tx.link(*inode, *parent, name),
        Op::Unlink { parent, name } => tx.unlink(*parent, name),
        Op::RemoveDirectory { parent, name } => tx.remove_directory(*parent, name),
        Op::Rename {
            parent,
            name,
            new_parent,
            new_name,
            mode,
        } => tx.rename((*parent, name), (*new_parent, new_name), *mode),
        Op::Open {
            inode,
            access,
            truncate,
        } => tx.open(*inode, *access, *truncate),
        Op::Close { inode, open, .. } => tx.close(*inode, *open),
        Op::Report {
            inode,
            size_min,
            modified,
            open,
            known_change,
            allocated,
            filled,
            doubt,
        } => {
            let written = Written {
                size_min: *size_min,
                modified: *modified,
                known_change: *known_change,
                allocated: *allocated,
                filled: *filled,
                doubt: *doubt,
            };
            tx.report(*inode, *open, written)
        }
        Op::DropPrivileges {
            inode,
            open,
            mode_bits,
        } => tx.drop_before_write(*inode, *open, *mode_bits),
        Op::ReadDirectory {
            inode,
            after,
            until,
            entries_max,
            plus,
        } => tx.read_directory(*inode, (*after, *until), *entries_max, *plus),
        Op::GetXattr { inode, name } => tx.get_xattr(*inode, name),
        Op::SetXattr {
            inode,
            name,
            value,
            mode,
        } => tx.set_xattr(*inode, name, value.clone(), *mode),
        Op::ListXattr { inode } => tx.list_xattr(*inode),
        Op::RemoveXattr { inode, name } => tx.remove_xattr(*inode, name),
        Op::GetLayout { inode } => tx.get_layout(*inode),
        Op::SetLayout { inode, policy } => tx.set_layout(*inode, *policy),
        Op::Inspect { section, after } => tx.inspect(*section, after),
        Op::FindStray { iod, objects } => tx.find_stray(*iod, objects),
        Op::Examine(finding) | Op::Repair(finding) => tx.repair(finding),
        Op::Hello { .. }
        | Op::KeepAlive
        | Op::StatFs
        | Op::ListIods
        | Op::RegisterIod { .. }
        | Op::IodHeartbeat { .. }
        | Op::Acquire { .. }
        | Op::Acknowledge { .. }
        | Op::GiveBack { .. }
        | Op::SetLock(_)
        | Op::CancelLock { .. }
        | Op::TestLock { .. }
        | Op::Goodbye
        | Op::Backup { .. } => Err(FsError::NotSupported.into()),
    }
}

/// Whether an operation makes the store grow. A full store still serves what reads, removes, or
/// rewrites records that are there.
const fn needs_room(operation: &MgrOperation) -> bool {
    use MgrOperation as Op;
    match operation {
        Op::Create { .. }
        | Op::MakeNode { .. }
        | Op::Symlink { .. }
        | Op::Link { .. }
        | Op::SetXattr { .. } => true,
        Op::Hello { .. }
        | Op::KeepAlive
        | Op::Lookup { .. }
        | Op::GetAttr { .. }
        | Op::SetAttr { .. }
        | Op::ReadLink { .. }
        | Op::Unlink { .. }
        | Op::RemoveDirectory { .. }
        | Op::Rename { .. }
        | Op::Open { .. }
        | Op::Close { .. }
        | Op::Report { .. }
        | Op::DropPrivileges { .. }
        | Op::ReadDirectory { .. }
        | Op::StatFs
        | Op::GetXattr { .. }
        | Op::ListXattr { .. }
        | Op::RemoveXattr { .. }
        | Op::GetLayout { .. }
        | Op::SetLayout { .. }
        | Op::ListIods
        | Op::RegisterIod { .. }
        | Op::IodHeartbeat { .. }
        | Op::Acquire { .. }
        | Op::Acknowledge { .. }
        | Op::GiveBack { .. }
        | Op::SetLock(_)
        | Op::CancelLock { .. }
        | Op::TestLock { .. }
        | Op::Goodbye
        | Op::Inspect { .. }
        | Op::FindStray { .. }
        | Op::Examine(_)
        | Op::Repair(_)
        | Op::Backup { .. } => false,
    }
}
