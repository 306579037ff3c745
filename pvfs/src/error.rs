// SPDX-License-Identifier: MIT
//! What can go wrong for a caller of the file system, and the errno each becomes: decided here, once.

use bincode::{Decode, Encode};
use thiserror::Error;

/// A file system operation's failure, as it travels on the wire.
///
/// The order of the variants is the wire format: add at the end, remove none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error, Encode, Decode)]
pub enum FsError {
    /// No such name, inode or directory.
    #[error("no such file or directory")]
    NotFound,
    /// The name exists already.
    #[error("file exists")]
    Exists,
    /// A directory was needed.
    #[error("not a directory")]
    NotDirectory,
    /// A directory was given where none may be.
    #[error("is a directory")]
    IsDirectory,
    /// The directory still has entries.
    #[error("directory not empty")]
    NotEmpty,
    /// The mode bits deny it to the caller.
    #[error("permission denied")]
    AccessDenied,
    /// Only the owner or root may do this.
    #[error("operation not permitted")]
    NotPermitted,
    /// A name or target above its limit.
    #[error("file name too long")]
    NameTooLong,
    /// The inode has all the links it may have.
    #[error("too many links")]
    TooManyLinks,
    /// A disk of an iod or of mgr is full.
    #[error("no space left")]
    NoSpace,
    /// An offset or size beyond the largest file.
    #[error("file too large")]
    FileTooLarge,
    /// The request makes no sense.
    #[error("invalid argument")]
    InvalidArgument,
    /// The inode number or open names something that is gone.
    #[error("stale file handle")]
    Stale,
    /// No such extended attribute.
    #[error("no such attribute")]
    NoAttribute,
    /// The caller's buffer is too small for the value.
    #[error("result too large for the buffer")]
    Range,
    /// An extended attribute's value or list above its limit.
    #[error("value too large")]
    TooBig,
    /// This file system does not do that.
    #[error("operation not supported")]
    NotSupported,
    /// In use in a way that forbids the operation.
    #[error("resource busy")]
    Busy,
    /// A disk or a peer failed; the daemon's log says which.
    #[error("input/output error")]
    Io,
    /// A rename between file systems.
    #[error("cross-device link")]
    CrossDevice,
    /// The file system is mounted, or a file is open, for reading only.
    #[error("read-only")]
    ReadOnly,
    /// The daemon is at a limit or not ready; the same request may succeed later.
    #[error("temporarily unavailable")]
    TryAgain,
    /// The peer speaks a message or version that this one does not.
    #[error("protocol error")]
    Protocol,
    /// A message above its limit.
    #[error("message too long")]
    MessageTooLong,
    /// A mutating request arrived again after its reply was discarded.
    #[error("request already answered")]
    AlreadyAnswered,
    /// A write under a lease that has ended: the place has been written or cut under a newer one.
    #[error("the lease of this write has ended")]
    Fenced,
    /// No data, or no byte of the file, at or after a place.
    #[error("no such place in the file")]
    NoSuchPlace,
    /// Somebody else has a lock that stands against it.
    #[error("locked by another")]
    Locked,
    /// Waiting for the lock would never end: its holder waits for the caller.
    #[error("resource deadlock avoided")]
    Deadlock,
    /// A limit of locks is reached, or the locks were lost with mgr's session.
    #[error("no locks available")]
    NoLocks,
    /// The caller was interrupted while it waited.
    #[error("interrupted")]
    Interrupted,
    /// An iod does not know (any more) what a client has changed: a change that was sent before may
    /// have been made.
    #[error("the iod has forgotten this client's changes")]
    SessionLost,
    /// An iod does not have bytes any more that were written to it; its log says which.
    #[error("bytes that were written are missing")]
    Missing,
    /// An iod's data directory is not the one that mgr sealed last.
    #[error("another data directory has this one's place")]
    Superseded,
    /// mgr's store is older than what the iod knows, or an order is not from the mgr that it obeys.
    #[error("this mgr does not rule this iod")]
    Deposed,
}

impl FsError {
    /// The errno that a caller of a system call sees.
    #[must_use]
    pub const fn errno(self) -> i32 {
        match self {
            Self::NotFound => libc::ENOENT,
            Self::Exists => libc::EEXIST,
            Self::NotDirectory => libc::ENOTDIR,
            Self::IsDirectory => libc::EISDIR,
            Self::NotEmpty => libc::ENOTEMPTY,
            Self::AccessDenied => libc::EACCES,
            Self::NotPermitted => libc::EPERM,
            Self::NameTooLong => libc::ENAMETOOLONG,
            Self::TooManyLinks => libc::EMLINK,
            Self::NoSpace => libc::ENOSPC,
            Self::FileTooLarge => libc::EFBIG,
            Self::InvalidArgument => libc::EINVAL,
            Self::Stale => libc::ESTALE,
            Self::NoAttribute => libc::ENODATA,
            Self::Range => libc::ERANGE,
            Self::TooBig => libc::E2BIG,
            Self::NotSupported => libc::EOPNOTSUPP,
            Self::Busy => libc::EBUSY,
            Self::Io => libc::EIO,
            Self::CrossDevice => libc::EXDEV,
            Self::ReadOnly => libc::EROFS,
            Self::TryAgain => libc::EAGAIN,
            Self::Protocol => libc::EPROTO,
            Self::MessageTooLong => libc::EMSGSIZE,
            Self::AlreadyAnswered => libc::EALREADY,
            Self::Fenced => libc::ESTALE,
            Self::NoSuchPlace => libc::ENXIO,
            Self::Locked => libc::EAGAIN,
            Self::Deadlock => libc::EDEADLK,
            Self::NoLocks => libc::ENOLCK,
            Self::Interrupted => libc::EINTR,
            Self::SessionLost | Self::Missing | Self::Superseded | Self::Deposed => libc::EIO,
        }
    }

    /// What a failed local system call means to a remote caller. Anything that is not the caller's
    /// doing is [`FsError::Io`]; the daemon that meets it logs the errno itself.
    #[must_use]
    pub fn from_io(error: &std::io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::ENOSPC | libc::EDQUOT) => Self::NoSpace,
            Some(libc::EFBIG) => Self::FileTooLarge,
            Some(libc::EROFS) => Self::ReadOnly,
            _ => Self::Io,
        }
    }
}
