// SPDX-License-Identifier: MIT
//! The data directory on disk: names, making it, locking it, replacing the identity file.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::fcntl::{Flock, FlockArg};
use pvfs::data_directory::{DataDirectoryError, Kind};
use pvfs::ids::{ClientId, ObjectId};
use pvfs::proto::report::IodReport;
use pvfs::runtime::random_u64;
use pvfs::runtime::time::Instant;
use thiserror::Error;

use super::disk::{DIRECTORY_MODE, Disk, FILE_MODE};
use super::identity::{Identity, IdentityError};
use super::object_file::{ObjectFile, is_full};
use super::session_log::SessionLog;
use super::sessions::Sessions;
use super::sums::{Damage, claims_data};
use super::unsettled::Unsettled;

/// Hash directories. PVFS 1 had 101; inode numbers are dealt in turn, so a power of two does.
pub(super) const HASH_DIRECTORIES: u64 = 256;
const IDENTITY: &str = "identity";
const IDENTITY_NEW: &str = "identity.new";
const LOCK: &str = "lock";
const SESSIONS: &str = "sessions";
const OBJECTS: &str = "objects";
/// An object's checksums are named as its data, and this.
pub(super) const SUMS_SUFFIX: &str = ".sums";
/// What an iod demands of its directory. The identity file is made last.
const KIND: Kind = Kind {
    program: "pvfs-iod",
    marker: IDENTITY,
    harmless: &[IDENTITY_NEW, LOCK, OBJECTS, "lost+found"],
};
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
    /// It is not an iod's, or somebody else may change it.
    #[error(transparent)]
    Refused(#[from] DataDirectoryError),
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
    /// Makes a data directory of an empty or missing one: all hash directories durably, then the
    /// identity file. Where that exists, they do.
    pub(super) fn create(path: &Path) -> Result<(), OpenError> {
        KIND.prepare_new(path)?;
        let _lock = lock(path)?;
        let objects = path.join(OBJECTS);
        for hash in 0..HASH_DIRECTORIES {
            let path = hash_directory(&objects, hash);
            let mut builder = DirBuilder::new();
            builder.recursive(true).mode(DIRECTORY_MODE);
            builder.create(&path).map_err(failed("make", &path))?;
        }
        sync_directory(&objects).map_err(failed("sync", &objects))?;
        let identity = Identity {
            client: ClientId(random_u64()),
            membership: None,
        };
        save(path, &identity).map_err(failed("write the identity file of", path))?;
        let parent = path.join("..");
        sync_directory(&parent).map_err(failed("sync", &parent))
    }

    pub(super) fn open(path: &Path, disk: Arc<dyn Disk>) -> Result<(Self, Identity), OpenError> {
        KIND.prepare(path)?;
        let lock = lock(path)?;
        let identity_path = path.join(IDENTITY);
        let identity = load(&identity_path)?.parse();
        let identity = identity.map_err(|source| OpenError::Identity {
            path: identity_path,
            source,
        })?;
        let directory = Self {
            path: path.to_owned(),
            objects: path.join(OBJECTS),
            disk,
            _lock: lock,
        };
        Ok((directory, identity))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// What is known of changes that were made.
    pub(super) fn open_sessions(&self) -> Result<Sessions, OpenError> {
        let path = self.path.join(SESSIONS);
        let (log, records) = SessionLog::open(&path).map_err(failed("open", &path))?;
        Ok(Sessions::restore(log, records, Instant::now()))
    }

    pub(super) fn report(&self) -> io::Result<IodReport> {
        self.disk.report(&self.path)
    }

    /// Replaces the identity file.
    pub(super) fn save(&self, identity: &Identity) -> io::Result<()> {
        save(&self.path, identity)
    }

    pub(super) fn hash_directory(&self, hash: u64) -> PathBuf {
        hash_directory(&self.objects, hash)
    }

    fn parent(&self, object: ObjectId) -> PathBuf {
        self.hash_directory(object.inode.0 % HASH_DIRECTORIES)
    }

    pub(super) fn object_path(&self, object: ObjectId) -> PathBuf {
        self.parent(object).join(object.to_string())
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

fn hash_directory(objects: &Path, hash: u64) -> PathBuf {
    objects.join(format!("{hash:02x}"))
}

/// Replaces the identity file: after a power failure there is the old one or the new one.
fn save(directory: &Path, identity: &Identity) -> io::Result<()> {
    let new = directory.join(IDENTITY_NEW);
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    let mut file = options.mode(FILE_MODE).open(&new)?;
    file.write_all(identity.to_string().as_bytes())?;
    file.sync_all()?;
    fs::rename(&new, directory.join(IDENTITY))?;
    sync_directory(directory)
}

fn lock(path: &Path) -> Result<Flock<File>, OpenError> {
    let lock_path = path.join(LOCK);
    let mut options = OpenOptions::new();
    let file = options
        .write(true)
        .create(true)
        .truncate(false)
        .mode(FILE_MODE)
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
