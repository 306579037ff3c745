// SPDX-License-Identifier: MIT
//! The directory under a mount: made ready before, cleared after.

use std::io;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};
use thiserror::Error;

use pvfs::mountinfo;

/// Why a directory cannot be mounted on.
#[derive(Debug, Error)]
pub enum MountpointError {
    /// Something lives there.
    #[error("{} is not empty: what is in it would be hidden; give an empty or new directory", .0.display())]
    NotEmpty(PathBuf),
    /// Something is mounted there.
    #[error("{} is already a mount point ({fs_type} {mount_source}): umount it or give another directory",
            path.display())]
    Mounted {
        /// Which.
        path: PathBuf,
        /// Of what type.
        fs_type: String,
        /// What is mounted.
        mount_source: String,
    },
    /// It cannot be made or looked at.
    #[error("{}: {why}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// What the kernel said.
        why: io::Error,
    },
    /// The same directory twice.
    #[error("{} is given twice", .0.display())]
    Twice(PathBuf),
}

/// Makes `path` if needed and checks that it can be mounted on. The dead mount that a killed run
/// left is detached. Returns the absolute path.
///
/// # Errors
///
/// [`MountpointError`], which says what to do.
pub fn prepare(path: &Path) -> Result<PathBuf, MountpointError> {
    let failed = |why| MountpointError::Io {
        path: path.to_owned(),
        why,
    };
    if is_dead(path) {
        detach(path).map_err(failed)?;
    }
    std::fs::create_dir_all(path).map_err(failed)?;
    let real = path.canonicalize().map_err(failed)?;
    let mounts = mountinfo::read().map_err(failed)?;
    if let Some(mount) = mountinfo::at(&mounts, &real) {
        let (fs_type, mount_source) = (mount.fs_type.clone(), mount.source.clone());
        return Err(MountpointError::Mounted {
            path: real,
            fs_type,
            mount_source,
        });
    }
    if std::fs::read_dir(&real).map_err(failed)?.next().is_some() {
        return Err(MountpointError::NotEmpty(real));
    }
    Ok(real)
}

/// A FUSE mount whose process is gone answers every call with ENOTCONN.
fn is_dead(path: &Path) -> bool {
    match std::fs::metadata(path) {
        Err(error) => error.raw_os_error() == Some(Errno::ENOTCONN as i32),
        Ok(_) => false,
    }
}

/// Whether a PVFS file system is mounted on `path`, dead or alive.
pub fn is_mounted(path: &Path) -> bool {
    mountinfo::read()
        .is_ok_and(|mounts| mountinfo::at(&mounts, path).is_some_and(mountinfo::Mount::is_pvfs))
}

/// Takes the mount off the name space at once; programs that still use it keep it until they let go.
///
/// # Errors
///
/// As umount2(2).
pub fn detach(path: &Path) -> io::Result<()> {
    umount2(path, MntFlags::MNT_DETACH).map_err(io::Error::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_or_new_directory_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        let new = dir.path().join("a/b");
        assert_eq!(prepare(&new).unwrap(), new.canonicalize().unwrap());
        assert!(prepare(&new).is_ok());
    }

    #[test]
    fn a_directory_in_use_is_refused_with_the_reason() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("f"), "").unwrap();
        let error = prepare(dir.path()).unwrap_err().to_string();
        assert!(error.contains("is not empty"), "{error}");
        let error = prepare(Path::new("/proc")).unwrap_err().to_string();
        assert!(error.contains("already a mount point (proc"), "{error}");
        let error = prepare(&dir.path().join("f")).unwrap_err();
        assert!(matches!(error, MountpointError::Io { .. }));
    }
}
