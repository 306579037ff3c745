// SPDX-License-Identifier: MIT
//! The content of one file, whichever way leads to it.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;
use nix::sys::stat::{Mode, umask};
use pvfs::ids::InodeNumber;

use super::direct::{DirectFile, Gateway};
use crate::interruption::Interruption;
use crate::unfinished::Unfinished;
use crate::{output, target};

/// The ways into the PVFS file systems of this copy, each opened when it is first needed.
pub struct Gateways {
    enabled: bool,
    /// By mgr's address; `None` where mgr or an iod cannot be reached from here.
    open: Mutex<HashMap<String, Option<Arc<Gateway>>>>,
    used: AtomicBool,
    umask: u32,
    interruption: Interruption,
}

impl Gateways {
    /// Without `enabled`, everything goes through the kernel.
    pub fn new(enabled: bool, interruption: &Interruption) -> Self {
        // The mask can only be read by setting it; no other thread runs yet.
        let mask = umask(Mode::empty());
        umask(mask);
        Self {
            enabled,
            open: Mutex::default(),
            used: AtomicBool::new(false),
            umask: mask.bits(),
            interruption: interruption.clone(),
        }
    }

    /// Whether any file went the direct way.
    pub fn used_direct(&self) -> bool {
        self.used.load(Ordering::Relaxed)
    }

    /// The way into the file system on which `path` lies; `None` where the kernel is to be used.
    fn of(&self, path: &Path) -> Option<(Arc<Gateway>, InodeNumber)> {
        if !self.enabled {
            return None;
        }
        let target = target::pvfs_path(path).ok()?;
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let gateway = open.entry(target.mgr.to_string()).or_insert_with(|| {
            match Gateway::open(&target.mgr, self.interruption.cancel()) {
                Ok(gateway) => Some(Arc::new(gateway)),
                Err(error) => {
                    output::note(format!("pvfs cp: {error:#}; copying through the mount"));
                    None
                }
            }
        });
        let gateway = gateway.clone()?;
        self.used.store(true, Ordering::Relaxed);
        Some((gateway, target.inode))
    }

    /// Opens for reading.
    ///
    /// # Errors
    ///
    /// As open(2), or mgr's.
    pub fn read(&self, path: &Path) -> anyhow::Result<Content> {
        match self.of(path) {
            Some((gateway, inode)) => gateway.read(inode).map(Content::Direct),
            None => Ok(Content::Kernel(File::open(path)?)),
        }
    }

    /// Empties a file that is there; makes a new one, under a temporary name, with the permissions
    /// of `mode` that the umask leaves.
    ///
    /// # Errors
    ///
    /// As open(2), or mgr's.
    pub fn write(&self, path: &Path, mode: u32) -> anyhow::Result<(Content, Option<Unfinished>)> {
        match std::fs::metadata(path) {
            // Others may have it open: through its mount, what is written goes under a lease.
            Ok(_) => Ok((through_the_kernel(path, mode)?, None)),
            // A link that leads nowhere: what it leads to is made.
            Err(_) if path.is_symlink() => Ok((through_the_kernel(path, mode)?, None)),
            Err(_) => {
                let unfinished = Unfinished::new(path);
                let content = self.create(unfinished.temporary(), mode)?;
                Ok((content, Some(unfinished)))
            }
        }
    }

    fn create(&self, path: &Path, mode: u32) -> anyhow::Result<Content> {
        let parent = path
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty());
        match self.of(parent.unwrap_or(Path::new("."))) {
            Some((gateway, _)) => {
                let mode = u16::try_from(mode & 0o777 & !self.umask)?;
                gateway.create(path, mode).map(Content::Direct)
            }
            None => through_the_kernel(path, mode),
        }
    }
}

fn through_the_kernel(path: &Path, mode: u32) -> anyhow::Result<Content> {
    let mut options = OpenOptions::new();
    options
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode & 0o777);
    Ok(Content::Kernel(options.open(path)?))
}

/// An open file.
pub enum Content {
    /// Of any file system, or of PVFS through its mount.
    Kernel(File),
    /// Of PVFS.
    Direct(DirectFile),
}

impl Content {
    /// Fills `buffer` from `offset` on.
    ///
    /// # Errors
    ///
    /// Where reading fails or the file ends first: it became shorter during the copy.
    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> anyhow::Result<()> {
        match self {
            Self::Kernel(file) => file
                .read_exact_at(buffer, offset)
                .with_context(|| format!("reading {} bytes at {offset}", buffer.len())),
            Self::Direct(file) => file.read_at(offset, buffer),
        }
    }

    /// Stores `bytes` at `offset`.
    ///
    /// # Errors
    ///
    /// Where writing fails.
    pub fn write_at(&self, offset: u64, bytes: &[u8]) -> anyhow::Result<()> {
        match self {
            Self::Kernel(file) => file
                .write_all_at(bytes, offset)
                .with_context(|| format!("writing {} bytes at {offset}", bytes.len())),
            Self::Direct(file) => file.write_at(offset, bytes),
        }
    }

    /// Makes what was written durable.
    ///
    /// # Errors
    ///
    /// Where a disk fails.
    pub fn sync(&self) -> anyhow::Result<()> {
        match self {
            Self::Kernel(file) => file.sync_all().context("fsync"),
            Self::Direct(file) => file.sync(),
        }
    }

    /// Closes: only now is a copy complete, so that a failure here counts.
    ///
    /// # Errors
    ///
    /// What close(2) or mgr says.
    pub fn close(self) -> anyhow::Result<()> {
        match self {
            Self::Kernel(file) => nix::unistd::close(file).context("close"),
            Self::Direct(file) => file.close(),
        }
    }
}
