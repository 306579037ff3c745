// SPDX-License-Identifier: MIT
//! What a command is about: an mgr, or a path on a PVFS mount.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use pvfs::address::{AddressError, Endpoint, MGR_PORT_DEFAULT, MountSource};
use pvfs::ids::InodeNumber;
use pvfs::mountinfo::{self, Mount};
use thiserror::Error;

/// The environment variable that names mgr.
pub const MGR_VARIABLE: &str = "PVFS_MGR";

/// Why a command does not know what it is about.
#[derive(Debug, Error)]
pub enum TargetError {
    /// The user's address is none.
    #[error("{0}")]
    Address(#[from] AddressError),
    /// The path cannot be looked at.
    #[error("{path}: {why}", path = path.display())]
    Path {
        /// Which.
        path: PathBuf,
        /// What the kernel said.
        why: io::Error,
    },
    /// The path is on another file system.
    #[error(
        "{path} is not on a PVFS mount (it is on {fs_type}): mount one with \
         `mount -t fuse.pvfs HOST:/ DIR`",
        path = path.display()
    )]
    NotPvfs {
        /// Which.
        path: PathBuf,
        /// The type of the file system that it is on.
        fs_type: String,
    },
    /// Nothing names an mgr.
    #[error("which mgr? Give HOST[:PORT], set {MGR_VARIABLE}, or run this in a PVFS mount")]
    NoMgr,
    /// The table of mounts cannot be read.
    #[error("/proc/self/mountinfo: {0}: is /proc mounted?")]
    Mounts(io::Error),
}

/// A path on a PVFS mount.
#[derive(Clone, Debug)]
pub struct PvfsPath {
    /// As the user gave it.
    pub path: PathBuf,
    /// Its inode number, the same on every mount.
    pub inode: InodeNumber,
    /// The mgr of the mount.
    pub mgr: Endpoint,
}

/// Finds the mount on which `path` lies; symbolic links are followed.
///
/// # Errors
///
/// [`TargetError`], which says what to do.
pub fn pvfs_path(path: &Path) -> Result<PvfsPath, TargetError> {
    let failed = |why| TargetError::Path {
        path: path.to_owned(),
        why,
    };
    let real = path.canonicalize().map_err(failed)?;
    let mounts = mountinfo::read().map_err(TargetError::Mounts)?;
    let mount = mountinfo::containing(&mounts, &real).filter(|mount| mount.is_pvfs());
    let Some(mount) = mount else {
        let fs_type = mountinfo::containing(&mounts, &real)
            .map_or_else(|| "no mount".to_owned(), |mount| mount.fs_type.clone());
        return Err(TargetError::NotPvfs {
            path: path.to_owned(),
            fs_type,
        });
    };
    let inode = InodeNumber(std::fs::metadata(&real).map_err(failed)?.ino());
    Ok(PvfsPath {
        path: path.to_owned(),
        inode,
        mgr: mgr_of(mount)?,
    })
}

fn mgr_of(mount: &Mount) -> Result<Endpoint, AddressError> {
    mount.source.parse::<MountSource>().map(|source| source.mgr)
}

/// The mgr that the user means: `given` (an address, a mount source `HOST:/` or a path on a mount;
/// clap has already put [`MGR_VARIABLE`] in its place), else that of the mount in which the command
/// runs, else that of the only PVFS file system mounted here.
///
/// # Errors
///
/// [`TargetError`], which says what to do.
pub fn mgr(given: Option<&str>) -> Result<Endpoint, TargetError> {
    if let Some(text) = given {
        return named_mgr(text);
    }
    let mounts = mountinfo::read().map_err(TargetError::Mounts)?;
    let here = std::env::current_dir().unwrap_or_default();
    match mountinfo::containing(&mounts, &here).filter(|mount| mount.is_pvfs()) {
        Some(mount) => Ok(mgr_of(mount)?),
        None => only_mgr(&mounts),
    }
}

fn named_mgr(text: &str) -> Result<Endpoint, TargetError> {
    // A name that is there on a PVFS mount is a path; so is what can be nothing else.
    match pvfs_path(Path::new(text)) {
        Ok(path) => return Ok(path.mgr),
        Err(error) if text.starts_with(['/', '.']) => return Err(error),
        Err(_) => {}
    }
    match text.parse::<MountSource>() {
        Ok(source) => Ok(source.mgr),
        Err(AddressError::NoRoot(_)) => Ok(Endpoint::parse(text, MGR_PORT_DEFAULT)?),
        Err(error) => Err(error.into()),
    }
}

fn only_mgr(mounts: &[Mount]) -> Result<Endpoint, TargetError> {
    let mut sources: Vec<&str> = mounts
        .iter()
        .filter(|mount| mount.is_pvfs())
        .map(|mount| mount.source.as_str())
        .collect();
    sources.sort_unstable();
    sources.dedup();
    match sources.as_slice() {
        [source] => Ok(source.parse::<MountSource>()?.mgr),
        _ => Err(TargetError::NoMgr),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(point: &str, source: &str) -> Mount {
        let line = format!("40 22 0:35 / {point} rw - fuse.pvfs {source} rw\n");
        mountinfo::parse(line.as_bytes()).remove(0)
    }

    #[test]
    fn an_address_is_taken_in_each_form() {
        for (text, endpoint) in [
            ("node1", "node1:3000"),
            ("node1:4", "node1:4"),
            ("node1:4:/", "node1:4"),
        ] {
            assert_eq!(mgr(Some(text)).unwrap().to_string(), endpoint);
        }
        assert!(matches!(mgr(Some("node1:x")), Err(TargetError::Address(_))));
    }

    #[test]
    fn the_only_file_system_is_meant_when_nothing_is_named() {
        let one = [mount("/a", "n:1:/"), mount("/b", "n:1:/")];
        assert_eq!(only_mgr(&one).unwrap().to_string(), "n:1");
        let two = [mount("/a", "n:1:/"), mount("/b", "n:2:/")];
        assert!(matches!(only_mgr(&two), Err(TargetError::NoMgr)));
        assert!(matches!(only_mgr(&[]), Err(TargetError::NoMgr)));
    }

    #[test]
    fn a_path_elsewhere_says_where_it_is() {
        let error = pvfs_path(Path::new("/proc/self/status"))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("not on a PVFS mount (it is on proc)"),
            "{error}"
        );
    }
}
