// SPDX-License-Identifier: MIT
//! The data directory on disk: names, making it, locking it, replacing the identity file.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use nix::fcntl::{Flock, FlockArg};
use pvfs::data_directory::{DataDirectoryError, Kind};
use pvfs::ids::{ClientId, ObjectId};
use pvfs::proto::report::IodReport;
use pvfs::runtime::random_u64;
use pvfs::runtime::time::Instant;
use thiserror::Error;

use super::disk::{DIRECTORY_MODE, Disk, FILE_MODE};
use super::identity::{Identity, IdentityError, Place};
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
/// Among the objects: which directory they belong to.
const MARK: &str = "mark";
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
    /// Its objects are gone, or are those of another one.
    #[error(
        "the objects in data directory {0} are not those of its identity file: it was emptied, or that \
         file was copied. Give the iod its own disk; a new iod needs a directory that --init makes"
    )]
    Emptied(PathBuf),
    /// It is a copy of one whose iod had not stopped.
    #[error(
        "data directory {0} is a copy of one on which an iod ran, or was restored from such a copy: what \
         that iod stored afterwards is missing here. Start the original; or stop it in order before it \
         is copied. Where the iod was killed, and nothing was stored since, say --moved"
    )]
    Copied(PathBuf),
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
        let client = ClientId(random_u64());
        let mark = objects.join(MARK);
        write_synced(&mark, &mark_of(client)).map_err(failed("write", &mark))?;
        sync_directory(&objects).map_err(failed("sync", &objects))?;
        let identity = Identity {
            client,
            membership: None,
            open_at: None,
        };
        save(path, &identity).map_err(failed("write the identity file of", path))?;
        let parent = path.join("..");
        sync_directory(&parent).map_err(failed("sync", &parent))
    }

    /// Where `moved` is said, the directory may be a copy of one whose iod did not stop in order.
    pub(super) fn open(
        path: &Path,
        disk: Arc<dyn Disk>,
        moved: bool,
    ) -> Result<(Self, Identity), OpenError> {
        KIND.prepare(path)?;
        let lock = lock(path)?;
        let identity_path = path.join(IDENTITY);
        let identity = load(&identity_path)?.parse();
        let identity: Identity = identity.map_err(|source| OpenError::Identity {
            path: identity_path,
            source,
        })?;
        let mark = path.join(OBJECTS).join(MARK);
        match fs::read(&mark) {
            Ok(text) if text == mark_of(identity.client).as_bytes() => {}
            Ok(_) => return Err(OpenError::Emptied(path.to_owned())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(OpenError::Emptied(path.to_owned()));
            }
            Err(error) => return Err(failed("read", &mark)(error)),
        }
        let here = place_of(&lock).map_err(failed("look at the lock of", path))?;
        if identity.open_at.is_some_and(|at| at != here) && !moved {
            return Err(OpenError::Copied(path.to_owned()));
        }
        let identity = Identity {
            open_at: Some(here),
            ..identity
        };
        match save(path, &identity) {
            // Nothing will be stored that a copy could lack.
            Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => {}
            saved => saved.map_err(failed("write the identity file of", path))?,
        }
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
    write_synced(&new, &identity.to_string())?;
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

fn write_synced(path: &Path, text: &str) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    let mut file = options.mode(FILE_MODE).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// What the mark among the objects says: an identity file is of no other ones.
fn mark_of(client: ClientId) -> String {
    format!("objects of client {:016x}\n", client.0)
}

fn place_of(lock: &File) -> io::Result<Place> {
    let found = lock.metadata()?;
    let made = found.created().ok();
    let made = made.and_then(|made| made.duration_since(SystemTime::UNIX_EPOCH).ok());
    Ok(Place {
        inode: found.ino(),
        made: made.map_or(0, |made| made.as_nanos()),
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
