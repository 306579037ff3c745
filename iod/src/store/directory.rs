// SPDX-License-Identifier: MIT
//! The data directory on disk: names, making it, locking it, replacing the identity file.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::fcntl::{Flock, FlockArg};
use pvfs::attr::Space;
use pvfs::ids::{ClientId, ObjectId};
use pvfs::runtime::random_u64;
use thiserror::Error;

use super::disk::Disk;
use super::identity::{Identity, IdentityError};
use super::object_file::{ObjectFile, is_full};
use super::sums::{Damage, claims_data};
use super::unsettled::Unsettled;

/// Hash directories. PVFS 1 had 101; inode numbers are dealt in turn, so a power of two does.
pub(super) const HASH_DIRECTORIES: u64 = 256;
const IDENTITY: &str = "identity";
const IDENTITY_NEW: &str = "identity.new";
const LOCK: &str = "lock";
const OBJECTS: &str = "objects";
/// An object's checksums are named as its data, and this.
pub(super) const SUMS_SUFFIX: &str = ".sums";
/// What may stand in a directory that is not a data directory yet: what an interrupted start left,
/// and what mkfs makes at the root of a file system.
const HARMLESS_NAMES: [&str; 4] = [IDENTITY_NEW, LOCK, OBJECTS, "lost+found"];
/// An identity file is a handful of lines.
const IDENTITY_BYTES_MAX: u64 = 4096;

/// Why a data directory cannot be used.
#[derive(Debug, Error)]
pub enum OpenError {
    /// A system call failed.
    #[error("data directory: {action} {path}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What came of it.
        source: io::Error,
    },
    /// Another process has it.
    #[error(
        "data directory {0} is in use by another pvfs-iod: stop that one or use another --data"
    )]
    Locked(PathBuf),
    /// Something else is in there.
    #[error(
        "directory {path} holds `{name}` and no pvfs-iod data: \
         give --data an empty directory or an iod's own"
    )]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// The first thing in it that is not an iod's.
        name: String,
    },
    /// The identity file is no good.
    #[error("identity file {path}: {source}")]
    Identity {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: IdentityError,
    },
}

/// A data directory that this process has locked.
pub(super) struct DataDirectory {
    path: PathBuf,
    objects: PathBuf,
    disk: Arc<dyn Disk>,
    _lock: Flock<File>,
}

/// Names the system call and the path in an error.
fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> OpenError {
    let path = path.to_owned();
    move |source| OpenError::Io {
        action,
        path,
        source,
    }
}

impl DataDirectory {
    pub(super) fn open(path: &Path, disk: Arc<dyn Disk>) -> Result<(Self, Identity), OpenError> {
        fs::create_dir_all(path).map_err(failed("make", path))?;
        let identity_path = path.join(IDENTITY);
        let is_new = match fs::symlink_metadata(&identity_path) {
            Ok(_) => false,
            Err(error) if error.kind() == io::ErrorKind::NotFound => true,
            Err(error) => return Err(failed("look at", &identity_path)(error)),
        };
        if is_new {
            refuse_foreign(path)?;
        }
        let lock = lock(path)?;
        let directory = Self {
            path: path.to_owned(),
            objects: path.join(OBJECTS),
            disk,
            _lock: lock,
        };
        let identity = if is_new {
            directory.format()?
        } else {
            directory.load_and_upgrade(&identity_path)?
        };
        Ok((directory, identity))
    }

    /// Reads the identity and, where an earlier version wrote it, raises its format.
    fn load_and_upgrade(&self, path: &Path) -> Result<Identity, OpenError> {
        let text = load(path)?;
        let identity: Identity = text.parse().map_err(|source| OpenError::Identity {
            path: path.to_owned(),
            source,
        })?;
        if Identity::is_old(&text) {
            self.save(&identity).map_err(failed("upgrade", path))?;
            tracing::info!(
                "data directory {}: raised to format 3; what is there is taken as it is, and summed up \
                 when it is first used where it has no checksums",
                self.path.display()
            );
        }
        Ok(identity)
    }

    pub(super) fn space(&self) -> io::Result<Space> {
        self.disk.space(&self.path)
    }

    /// Makes all hash directories durably, then the identity file: where that exists, they do.
    fn format(&self) -> Result<Identity, OpenError> {
        for hash in 0..HASH_DIRECTORIES {
            let path = self.hash_directory(hash);
            fs::create_dir_all(&path).map_err(failed("make", &path))?;
        }
        sync_directory(&self.objects).map_err(failed("sync", &self.objects))?;
        let identity = Identity {
            client: ClientId(random_u64()),
            membership: None,
        };
        self.save(&identity)
            .map_err(failed("write the identity file of", &self.path))?;
        Ok(identity)
    }

    /// Replaces the identity file: after a power failure there is the old one or the new one.
    pub(super) fn save(&self, identity: &Identity) -> io::Result<()> {
        let new = self.path.join(IDENTITY_NEW);
        let mut file = File::create(&new)?;
        file.write_all(identity.to_string().as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, self.path.join(IDENTITY))?;
        sync_directory(&self.path)
    }

    pub(super) fn hash_directory(&self, hash: u64) -> PathBuf {
        self.objects.join(format!("{hash:02x}"))
    }

    fn parent(&self, object: ObjectId) -> PathBuf {
        self.hash_directory(object.inode.0 % HASH_DIRECTORIES)
    }

    pub(super) fn object_path(&self, object: ObjectId) -> PathBuf {
        self.parent(object)
            .join(format!("{:016x}.{:08x}", object.inode.0, object.generation))
    }

    fn sums_path(&self, object: ObjectId) -> PathBuf {
        let mut path = self.object_path(object).into_os_string();
        path.push(SUMS_SUFFIX);
        path.into()
    }

    /// Opens an object's data and its checksums.
    pub(super) fn open_object(
        &self,
        object: ObjectId,
        create: bool,
        unsettled: &Arc<Unsettled>,
    ) -> io::Result<ObjectFile> {
        let path = self.object_path(object);
        let data = match self.disk.open(&path, create) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(self.missing(object).unwrap_or(error));
            }
            opened => opened?,
        };
        let sums = match self.disk.open(&self.sums_path(object), true) {
            Ok(sums) => Some(sums),
            Err(error) if is_full(&error) => {
                tracing::warn!(
                    "object {object} is read unchecked: no checksums can be made for {}: {error}",
                    path.display()
                );
                None
            }
            Err(error) => return Err(error),
        };
        let unsettled = Arc::clone(unsettled);
        ObjectFile::new(object, path, data, sums, unsettled)
    }

    /// What is wrong with an object that has no data: it may have been lost.
    fn missing(&self, object: ObjectId) -> Option<io::Error> {
        let sums = match self.disk.open(&self.sums_path(object), false) {
            Ok(sums) => sums,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => return Some(error),
        };
        match claims_data(object, sums.as_ref()) {
            Ok(false) => None,
            Ok(true) => Some(Damage::Lost.into()),
            Err(error) => Some(error),
        }
    }

    /// Removes both files, the sums first: a crash in between leaves data without sums, which is no
    /// contradiction.
    pub(super) fn remove_object(&self, object: ObjectId) -> io::Result<()> {
        self.disk.remove(&self.sums_path(object))?;
        self.disk.remove(&self.object_path(object))
    }

    pub(super) fn sync_parent(&self, object: ObjectId) -> io::Result<()> {
        self.disk.sync_directory(&self.parent(object))
    }
}

/// A mistyped `--data /home` must not become a data directory.
fn refuse_foreign(path: &Path) -> Result<(), OpenError> {
    for entry in fs::read_dir(path).map_err(failed("read", path))? {
        let name = entry.map_err(failed("read", path))?.file_name();
        let name = name.to_string_lossy().into_owned();
        if !HARMLESS_NAMES.contains(&name.as_str()) {
            return Err(OpenError::Foreign {
                path: path.to_owned(),
                name,
            });
        }
    }
    Ok(())
}

fn lock(path: &Path) -> Result<Flock<File>, OpenError> {
    let lock_path = path.join(LOCK);
    let mut options = OpenOptions::new();
    let file = options
        .write(true)
        .create(true)
        .truncate(false)
        .open(&lock_path);
    let file = file.map_err(failed("open", &lock_path))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
        nix::errno::Errno::EWOULDBLOCK => OpenError::Locked(path.to_owned()),
        errno => failed("lock", &lock_path)(errno.into()),
    })
}

fn load(path: &Path) -> Result<String, OpenError> {
    let file = File::open(path).map_err(failed("open", path))?;
    let mut text = String::new();
    file.take(IDENTITY_BYTES_MAX)
        .read_to_string(&mut text)
        .map_err(failed("read", path))?;
    Ok(text)
}

fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}
