// SPDX-License-Identifier: MIT
//! fuser's words for PVFS's nouns. Pure.

use std::time::SystemTime;

use fuser::{
    Errno, FileAttr, FileType, Generation, INodeNo, OpenAccMode, OpenFlags, RenameFlags, Request,
    TimeOrNow,
};
use pvfs::attr::{Attr, FileKind, SetTime};
use pvfs::error::FsError;
use pvfs::proto::iod::SeekTarget;
use pvfs::proto::lock::LockKind;
use pvfs::proto::mgr::{Access, RenameMode, XattrMode};

use crate::fs::{Allocation, Caller, OpenHow};

/// What stat(2) calls the best size of a transfer: `cp` and `cat` use buffers of this size.
const PREFERRED_IO_BYTES: u32 = 1 << 20;
/// Unit of `st_blocks` (POSIX).
const STAT_BLOCK_BYTES: u64 = 512;

pub(super) fn errno(error: FsError) -> Errno {
    Errno::from_i32(error.errno())
}

pub(super) fn caller(request: &Request) -> Caller {
    Caller {
        uid: request.uid(),
        gid: request.gid(),
        pid: request.pid(),
    }
}

pub(super) const fn file_type(kind: FileKind) -> FileType {
    match kind {
        FileKind::Regular => FileType::RegularFile,
        FileKind::Directory => FileType::Directory,
        FileKind::Symlink => FileType::Symlink,
        FileKind::Fifo => FileType::NamedPipe,
        FileKind::Socket => FileType::Socket,
        FileKind::CharDevice => FileType::CharDevice,
        FileKind::BlockDevice => FileType::BlockDevice,
    }
}

/// The kind in a mode of mknod(2); `None` for one that it does not make.
pub(super) const fn kind_of_mode(mode: u32) -> Option<FileKind> {
    match mode & libc::S_IFMT {
        libc::S_IFREG | 0 => Some(FileKind::Regular),
        libc::S_IFIFO => Some(FileKind::Fifo),
        libc::S_IFSOCK => Some(FileKind::Socket),
        libc::S_IFCHR => Some(FileKind::CharDevice),
        libc::S_IFBLK => Some(FileKind::BlockDevice),
        _ => None,
    }
}

/// The bits of a mode that chmod(2) sets.
pub(super) fn permissions(mode: u32) -> u16 {
    u16::try_from(mode & 0o7777).unwrap_or_default()
}

/// How fcntl(2) and flock(2) lock; `None` within is to unlock, and outside is none of the three.
pub(super) const fn lock_kind(kind: i32) -> Option<Option<LockKind>> {
    match kind {
        libc::F_RDLCK => Some(Some(LockKind::Shared)),
        libc::F_WRLCK => Some(Some(LockKind::Exclusive)),
        libc::F_UNLCK => Some(None),
        _ => None,
    }
}

fn access_of(flags: OpenFlags) -> Access {
    match flags.acc_mode() {
        OpenAccMode::O_RDONLY => Access {
            read: true,
            write: false,
        },
        OpenAccMode::O_WRONLY => Access {
            read: false,
            write: true,
        },
        OpenAccMode::O_RDWR => Access {
            read: true,
            write: true,
        },
    }
}

pub(super) fn open_how(flags: OpenFlags) -> OpenHow {
    OpenHow {
        access: access_of(flags),
        truncate: flags.0 & libc::O_TRUNC != 0,
        append: flags.0 & libc::O_APPEND != 0,
    }
}

pub(super) fn generation(attr: &Attr) -> Generation {
    Generation(u64::from(attr.generation))
}

pub(super) fn file_attr(attr: &Attr) -> FileAttr {
    let ctime = SystemTime::from(attr.ctime);
    FileAttr {
        ino: INodeNo(attr.inode.0),
        size: attr.size,
        blocks: attr.space().div_ceil(STAT_BLOCK_BYTES),
        atime: attr.atime.into(),
        mtime: attr.mtime.into(),
        ctime,
        crtime: ctime,
        kind: file_type(attr.kind),
        perm: attr.mode,
        nlink: attr.nlink,
        uid: attr.uid,
        gid: attr.gid,
        rdev: attr.rdev,
        blksize: PREFERRED_IO_BYTES,
        flags: 0,
    }
}

pub(super) fn set_time(time: TimeOrNow) -> SetTime {
    match time {
        TimeOrNow::Now => SetTime::Now,
        TimeOrNow::SpecificTime(time) => SetTime::To(time.into()),
    }
}

pub(super) fn rename_mode(flags: RenameFlags) -> Result<RenameMode, FsError> {
    if flags.is_empty() {
        Ok(RenameMode::Replace)
    } else if flags == RenameFlags::RENAME_NOREPLACE {
        Ok(RenameMode::NoReplace)
    } else if flags == RenameFlags::RENAME_EXCHANGE {
        Ok(RenameMode::Exchange)
    } else {
        Err(FsError::InvalidArgument)
    }
}

pub(super) const fn xattr_mode(flags: i32) -> Result<XattrMode, FsError> {
    match flags {
        0 => Ok(XattrMode::Set),
        libc::XATTR_CREATE => Ok(XattrMode::Create),
        libc::XATTR_REPLACE => Ok(XattrMode::Replace),
        _ => Err(FsError::InvalidArgument),
    }
}

/// What fallocate(2)'s mode asks for. The kernel lets no other modes through.
pub(super) const fn allocation(mode: i32) -> Result<Allocation, FsError> {
    use libc::{FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE, FALLOC_FL_ZERO_RANGE};
    const PUNCH: i32 = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
    const ZERO_KEEP: i32 = FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE;
    match mode {
        0 => Ok(Allocation::Reserve { keep_size: false }),
        FALLOC_FL_KEEP_SIZE => Ok(Allocation::Reserve { keep_size: true }),
        PUNCH => Ok(Allocation::Punch),
        FALLOC_FL_ZERO_RANGE => Ok(Allocation::Zero { keep_size: false }),
        ZERO_KEEP => Ok(Allocation::Zero { keep_size: true }),
        _ => Err(FsError::NotSupported),
    }
}

pub(super) const fn seek_target(whence: i32) -> Result<SeekTarget, FsError> {
    match whence {
        libc::SEEK_DATA => Ok(SeekTarget::Data),
        libc::SEEK_HOLE => Ok(SeekTarget::Hole),
        _ => Err(FsError::InvalidArgument),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_become_what_mgr_takes() {
        assert_eq!(rename_mode(RenameFlags::empty()), Ok(RenameMode::Replace));
        assert_eq!(
            rename_mode(RenameFlags::RENAME_EXCHANGE),
            Ok(RenameMode::Exchange)
        );
        assert_eq!(
            rename_mode(RenameFlags::RENAME_NOREPLACE),
            Ok(RenameMode::NoReplace)
        );
        let whiteout = RenameFlags::RENAME_WHITEOUT;
        assert_eq!(rename_mode(whiteout), Err(FsError::InvalidArgument));
        assert_eq!(xattr_mode(libc::XATTR_REPLACE), Ok(XattrMode::Replace));
        assert_eq!(xattr_mode(3), Err(FsError::InvalidArgument));
    }

    #[test]
    fn modes_of_fallocate_are_taken_or_refused() {
        let keep = libc::FALLOC_FL_KEEP_SIZE;
        let punch = libc::FALLOC_FL_PUNCH_HOLE | keep;
        assert_eq!(allocation(0), Ok(Allocation::Reserve { keep_size: false }));
        assert_eq!(allocation(punch), Ok(Allocation::Punch));
        assert_eq!(
            allocation(libc::FALLOC_FL_ZERO_RANGE | keep),
            Ok(Allocation::Zero { keep_size: true })
        );
        for refused in [
            libc::FALLOC_FL_COLLAPSE_RANGE,
            libc::FALLOC_FL_INSERT_RANGE,
            libc::FALLOC_FL_UNSHARE_RANGE,
        ] {
            assert_eq!(allocation(refused), Err(FsError::NotSupported));
        }
        assert_eq!(seek_target(libc::SEEK_HOLE), Ok(SeekTarget::Hole));
        assert_eq!(seek_target(libc::SEEK_SET), Err(FsError::InvalidArgument));
    }

    #[test]
    fn modes_become_kinds() {
        assert_eq!(kind_of_mode(libc::S_IFIFO | 0o644), Some(FileKind::Fifo));
        assert_eq!(kind_of_mode(0o644), Some(FileKind::Regular));
        assert_eq!(kind_of_mode(libc::S_IFLNK), None);
        assert_eq!(permissions(libc::S_IFREG | 0o6755), 0o6755);
    }

    #[test]
    fn access_follows_the_open_mode() {
        assert_eq!(
            access_of(OpenFlags(libc::O_WRONLY)),
            Access {
                read: false,
                write: true
            }
        );
        assert!(access_of(OpenFlags(libc::O_RDWR | libc::O_APPEND)).write);
        assert_eq!(
            access_of(OpenFlags(libc::O_RDONLY)),
            Access {
                read: true,
                write: false
            }
        );
    }
}
