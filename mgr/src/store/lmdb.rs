// SPDX-License-Identifier: MIT
//! The store on disk: LMDB, one database, one file. It is looked at as a whole before LMDB opens it,
//! and each record is looked at when it is read (docs/decisions/0109).

use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Bound;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use heed::types::Bytes;
use heed::{Database, Env, EnvFlags, EnvOpenOptions, MdbError, RoTxn, RwTxn, WithoutTls};
use nix::fcntl::{Flock, FlockArg};
use nix::sys::statvfs::statvfs;
use pvfs::data_directory::{DataDirectoryError, Kind};
use thiserror::Error;

use super::copy::Copier;
use super::integrity::{IntegrityError, Verified, verify};
use super::seal::{self, Digest, PROOF_KEY, Proof, Sums};
use super::{Records, Store, StoreError, Usage, View};

/// LMDB maps its file with this much room unless told otherwise, 64 GiB: address space only, the
/// file is as long as what it holds. Enough for 100 million inodes.
pub const METADATA_BYTES_MAX_DEFAULT: u64 = 64 << 30;
/// Least room: below it, the reserve would take most of it.
pub const METADATA_BYTES_MIN: u64 = 16 << 20;
/// Room of the map beyond the limit that callers see, as a share: removing things needs fresh pages
/// too (copy on write), so it must go on when nothing new may be made.
const RESERVE_SHARE: u64 = 4;
/// Least reserve, bytes: a whole batch's dirty pages fit.
const RESERVE_BYTES_MIN: u64 = 64 << 20;
/// The store may grow by this share of its reserve while it is copied.
const COPY_GROWTH_SHARE: u64 = 2;
/// What is left free of a small disk, as a share, for the same reason; of a large one,
/// [`RESERVE_BYTES_MIN`].
const DISK_RESERVE_SHARE: u64 = 16;
/// What LMDB writes at once: less is free of a disk that took only a part of it.
const WRITE_BYTES_MAX: u64 = 1 << 20;
/// LMDB's data file, and what it is called until it is whole.
const DATA: &str = "data.mdb";
const DATA_NEW: &str = "data.mdb.new";
/// LMDB's own lock file beside it.
const DATA_NEW_LOCK: &str = "data.mdb.new-lock";
/// The file whose lock keeps a second pvfs-mgr out.
const LOCK: &str = "lock";
/// Permission bits of what is made here; LMDB gives its own files the same.
pub(super) const FILE_MODE: u32 = 0o600;
/// What mgr demands of its directory. The data file gets its name when it is whole.
const KIND: Kind = Kind {
    program: "pvfs-mgr",
    marker: DATA,
    harmless: &[DATA_NEW, DATA_NEW_LOCK, LOCK, "lost+found"],
};
/// Room of the map of a data file that is being made: it has two pages.
const MAP_NEW_BYTES: usize = 1 << 20;
/// LMDB maps whole pages; this is a multiple of each page size in use.
const MAP_GRANULE_BYTES: u64 = 64 << 10;

/// Why a data directory cannot be used.
#[derive(Debug, Error)]
pub enum OpenError {
    /// It holds no file system, or somebody else may change it.
    #[error(transparent)]
    Refused(#[from] DataDirectoryError),
    /// The lock file in it cannot be made, or its names cannot be flushed.
    #[error("cannot use data directory {path}: {error}")]
    Directory {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// Another process has it.
    #[error(
        "data directory {0} is in use by another pvfs-mgr: stop that one, or give another --data"
    )]
    InUse(PathBuf),
    /// LMDB refuses.
    #[error("cannot open the metadata store in {path}: {error}")]
    Lmdb {
        /// Which.
        path: PathBuf,
        /// Why.
        error: heed::Error,
    },
    /// The file is not what was committed.
    #[error(
        "the metadata store {path} is damaged: {error}; restore the data directory from a backup"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        error: IntegrityError,
    },
}

/// A data directory, locked and open.
#[derive(Debug)]
pub struct LmdbStore {
    env: Env<WithoutTls>,
    database: Database<Bytes, Bytes>,
    bytes_max: u64,
    /// Of what is committed.
    digest: Digest,
    /// Held as long as the store is: see [`OpenError::InUse`].
    _lock: Flock<File>,
}

impl LmdbStore {
    /// Makes an empty store in `directory`, which is empty or missing.
    ///
    /// # Errors
    ///
    /// See [`OpenError`].
    pub fn create(directory: &Path) -> Result<(), OpenError> {
        KIND.prepare_new(directory)?;
        let _lock = lock(directory)?;
        make_data(directory).map_err(|error| OpenError::Lmdb {
            path: directory.to_owned(),
            error,
        })?;
        sync_names(directory)
    }

    /// Makes a store in `directory`, which is empty or missing, of a copy of one.
    ///
    /// # Errors
    ///
    /// See [`OpenError`]; the directory holds no store then.
    pub fn restore(directory: &Path, copy: &Path) -> Result<(), OpenError> {
        KIND.prepare_new(directory)?;
        let _lock = lock(directory)?;
        let new = directory.join(DATA_NEW);
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |error| OpenError::Directory { path, error }
        };
        let mut from = File::open(copy).map_err(failed(copy))?;
        let mut to = OpenOptions::new()
            .create(true)
            .truncate(true)
            .read(true)
            .write(true)
            .mode(FILE_MODE)
            .open(&new)
            .map_err(failed(&new))?;
        let copied = io::copy(&mut from, &mut to).and_then(|_| to.sync_all());
        copied.map_err(failed(&new))?;
        look_at(&to, copy, u64::MAX)?;
        std::fs::rename(&new, directory.join(DATA)).map_err(failed(&new))?;
        sync_names(directory)
    }

    /// Opens the store in `directory`, which [`Self::create`] has made; it takes at most `bytes_max`.
    ///
    /// # Errors
    ///
    /// See [`OpenError`].
    pub fn open(directory: &Path, bytes_max: u64) -> Result<Self, OpenError> {
        KIND.prepare(directory)?;
        let lock = lock(directory)?;
        let path = || directory.to_owned();
        let failed = |error| OpenError::Lmdb {
            path: path(),
            error,
        };
        let map = usize::try_from(map_bytes(bytes_max)).unwrap_or(usize::MAX);
        sync_names(directory)?;
        let verified = verify_data(directory, map as u64)?;
        let env = open_env(directory, map, EnvFlags::empty()).map_err(failed)?;
        let database = create_database(&env).map_err(failed)?;
        Ok(Self {
            env,
            database,
            bytes_max,
            digest: verified.digest,
            _lock: lock,
        })
    }
}

/// What is kept free of the map, for removing things when nothing new may be made.
const fn reserve_bytes(bytes_max: u64) -> u64 {
    let share = bytes_max / RESERVE_SHARE;
    match share > RESERVE_BYTES_MIN {
        true => share,
        false => RESERVE_BYTES_MIN,
    }
}

fn map_bytes(bytes_max: u64) -> u64 {
    bytes_max
        .saturating_add(reserve_bytes(bytes_max))
        .next_multiple_of(MAP_GRANULE_BYTES)
}

/// LMDB believes its file, so it is looked at before. What is damaged within single records is
/// refused when it is used.
fn verify_data(directory: &Path, map_bytes: u64) -> Result<Verified, OpenError> {
    let path = directory.join(DATA);
    let file = OpenOptions::new().read(true).write(true).open(&path);
    let file = file.map_err(|error| OpenError::Directory {
        path: path.clone(),
        error,
    })?;
    look_at(&file, &path, map_bytes)
}

/// Looks at a store's file; the log names what is damaged in it.
fn look_at(file: &File, path: &Path, map_bytes: u64) -> Result<Verified, OpenError> {
    let verified = verify(file, map_bytes).map_err(|error| OpenError::Damaged {
        path: path.to_owned(),
        error,
    })?;
    for key in &verified.damaged {
        let damaged = StoreError::Corrupt { key: key.clone() };
        tracing::error!("{damaged}");
    }
    if verified.damaged_records > 0 {
        let (damaged, all) = (verified.damaged_records, verified.digest.records);
        tracing::error!("{damaged} of {all} metadata records are damaged: what needs them fails");
    }
    Ok(verified)
}

/// Makes the names of the store's files durable, and that of their directory: LMDB flushes only what
/// is in them.
fn sync_names(directory: &Path) -> Result<(), OpenError> {
    let parent = directory.join("..");
    [directory, &parent].into_iter().try_for_each(|path| {
        let synced = File::open(path).and_then(|directory| directory.sync_all());
        synced.map_err(|error| OpenError::Directory {
            path: path.to_owned(),
            error,
        })
    })
}

fn lock(directory: &Path) -> Result<Flock<File>, OpenError> {
    let failed = |error| OpenError::Directory {
        path: directory.to_owned(),
        error,
    };
    let path = directory.join(LOCK);
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(FILE_MODE)
        .open(path);
    match Flock::lock(file.map_err(failed)?, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(lock),
        Err((_, nix::errno::Errno::EWOULDBLOCK)) => Err(OpenError::InUse(directory.to_owned())),
        Err((_, errno)) => Err(failed(errno.into())),
    }
}

/// Makes the data file. LMDB would write its first pages without a flush, and a power
/// cut at that moment leave a file that is none of its; so it is made under another name and flushed.
fn make_data(directory: &Path) -> Result<(), heed::Error> {
    let data = directory.join(DATA);
    let new = directory.join(DATA_NEW);
    let lock = directory.join(DATA_NEW_LOCK);
    remove_if_there(&new)?;
    remove_if_there(&lock)?;
    let env = open_env(&new, MAP_NEW_BYTES, EnvFlags::NO_SUB_DIR)?;
    let database = create_database(&env)?;
    let mut transaction = env.write_txn()?;
    put_proof(&database, &mut transaction, Digest::default())?;
    transaction.commit()?;
    env.force_sync()?;
    env.prepare_for_closing().wait();
    remove_if_there(&lock)?;
    Ok(std::fs::rename(&new, &data)?)
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        outcome => outcome,
    }
}

#[expect(
    unsafe_code,
    reason = "LMDB maps its file; docs/decisions/0010-lmdb.md"
)]
fn open_env(
    path: &Path,
    map_bytes: usize,
    flags: EnvFlags,
) -> Result<Env<WithoutTls>, heed::Error> {
    let mut options = EnvOpenOptions::new().read_txn_without_tls();
    options.map_size(map_bytes);
    // SAFETY: the callers pass no flag, or `NO_SUB_DIR`, which only says how the path is meant.
    unsafe { options.flags(flags) };
    // SAFETY: the map is sound as long as nobody else changes the file. `lock` above holds the
    // directory's lock, which every pvfs-mgr takes first, and LMDB is told of no flag that would
    // relax its own checks. Whoever edits the file by other means has root's power over this
    // process anyway.
    unsafe { options.open(path) }
}

fn create_database(env: &Env<WithoutTls>) -> Result<Database<Bytes, Bytes>, heed::Error> {
    let mut transaction = env.write_txn()?;
    let database = env.create_database(&mut transaction, None)?;
    transaction.commit()?;
    Ok(database)
}

/// Puts the proof of what a transaction leaves in the store.
fn put_proof(
    database: &Database<Bytes, Bytes>,
    transaction: &mut RwTxn<'_>,
    digest: Digest,
) -> Result<(), heed::Error> {
    let proof = Proof {
        transaction: transaction.id() as u64,
        digest,
    };
    let mut sealed = Vec::new();
    seal::seal(PROOF_KEY, &proof.encode(), &mut sealed);
    database.put(transaction, PROOF_KEY, &sealed)
}

/// What a disk has left.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    /// Bytes that are free for mgr.
    pub(super) available: u64,
    /// So many of these are to stay free.
    pub(super) reserve: u64,
}

impl Room {
    /// On the disk of a directory.
    ///
    /// # Errors
    ///
    /// [`StoreError::Backend`].
    pub(super) fn on_disk_of(directory: &Path) -> Result<Self, StoreError> {
        let disk = statvfs(directory).map_err(|errno| StoreError::Backend(errno.to_string()))?;
        let total = disk.blocks().saturating_mul(disk.fragment_size());
        Ok(Self {
            available: disk.blocks_available().saturating_mul(disk.fragment_size()),
            reserve: (total / DISK_RESERVE_SHARE).min(RESERVE_BYTES_MIN),
        })
    }

    /// What something may take that goes again, beside a store that grows meanwhile.
    pub(super) const fn usable(self) -> u64 {
        self.available.saturating_sub(2 * self.reserve)
    }
}

fn store_error(error: heed::Error) -> StoreError {
    match error {
        heed::Error::Mdb(MdbError::MapFull) => StoreError::Full,
        heed::Error::Io(error) if error.raw_os_error() == Some(nix::libc::ENOSPC) => {
            StoreError::Full
        }
        other => StoreError::Backend(other.to_string()),
    }
}

/// A read transaction.
pub struct LmdbView<'a> {
    transaction: RoTxn<'a, WithoutTls>,
    database: Database<Bytes, Bytes>,
}

impl View for LmdbView<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<&[u8]>, StoreError> {
        let sealed = self.database.get(&self.transaction, key);
        let sealed = sealed.map_err(store_error)?;
        sealed.map(|sealed| seal::open(key, sealed)).transpose()
    }

    fn scan(
        &self,
        after: &[u8],
        before: Option<&[u8]>,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StoreError> {
        if before.is_some_and(|before| before <= after) {
            return Ok(());
        }
        let range = (
            Bound::Excluded(after),
            before.map_or(Bound::Unbounded, Bound::Excluded),
        );
        for record in self
            .database
            .range(&self.transaction, &range)
            .map_err(store_error)?
        {
            let (key, sealed) = record.map_err(store_error)?;
            if key != PROOF_KEY && !visit(key, seal::open(key, sealed)?) {
                break;
            }
        }
        Ok(())
    }
}

impl Store for LmdbStore {
    type View<'a> = LmdbView<'a>;

    fn view(&self) -> Result<LmdbView<'_>, StoreError> {
        let transaction = self.env.read_txn().map_err(store_error)?;
        Ok(LmdbView {
            transaction,
            database: self.database,
        })
    }

    fn commit(&mut self, records: &Records) -> Result<(), StoreError> {
        self.digest = self.put_all(records).map_err(|error| match error {
            // LMDB says EIO where only a part of a write found room. It has given the transaction up
            // then; had it failed later, at the page that ends a commit, it would refuse all others.
            heed::Error::Io(_) if self.is_disk_full() => StoreError::Full,
            other => store_error(other),
        })?;
        Ok(())
    }

    /// The limit is the one given, or the end of the disk less a reserve where that comes first.
    fn usage(&self) -> Result<Usage, StoreError> {
        let view = self.view()?;
        let stat = self.database.stat(&view.transaction).map_err(store_error)?;
        let pages = stat.branch_pages + stat.leaf_pages + stat.overflow_pages;
        let bytes_used = (pages as u64).saturating_mul(u64::from(stat.page_size));
        let bytes_max = self.bytes_max.min(self.disk_bytes()?);
        Ok(Usage {
            bytes_used,
            bytes_max,
        })
    }
}

impl LmdbStore {
    /// Stores the records and the proof of what is there then; returns its digest.
    fn put_all(&self, records: &Records) -> Result<Digest, heed::Error> {
        let mut transaction = self.env.write_txn()?;
        let mut digest = self.digest;
        let mut sealed = Vec::new();
        for (key, value) in records {
            match value {
                Some(value) => {
                    let sums = seal::seal(key, value, &mut sealed);
                    let older = self.database.get_or_put(&mut transaction, key, &sealed)?;
                    if let Some(older) = older.map(|older| sums.of_older(older)) {
                        digest.remove(older);
                        self.database.put(&mut transaction, key, &sealed)?;
                    }
                    digest.add(sums);
                }
                None => {
                    let older = self.database.get(&transaction, key)?;
                    if let Some(older) = older.map(|older| Sums::of(key, &[]).of_older(older)) {
                        digest.remove(older);
                        self.database.delete(&mut transaction, key)?;
                    }
                }
            }
        }
        put_proof(&self.database, &mut transaction, digest)?;
        transaction.commit()?;
        Ok(digest)
    }

    /// What makes copies of the store, beside it and without it.
    ///
    /// # Errors
    ///
    /// [`StoreError::Backend`].
    pub fn copier(&self) -> Result<Copier, StoreError> {
        let view = self.view()?;
        let stat = self.database.stat(&view.transaction).map_err(store_error)?;
        Ok(Copier {
            env: self.env.clone(),
            directory: self.env.path().to_owned(),
            page_bytes: stat.page_size.into(),
            map_bytes: map_bytes(self.bytes_max),
            growth_bytes_max: reserve_bytes(self.bytes_max) / COPY_GROWTH_SHARE,
        })
    }

    fn is_disk_full(&self) -> bool {
        Room::on_disk_of(self.env.path()).is_ok_and(|room| room.available < WRITE_BYTES_MAX)
    }

    /// How large the file may grow before its disk's reserve is touched.
    fn disk_bytes(&self) -> Result<u64, StoreError> {
        let room = Room::on_disk_of(self.env.path())?;
        let file_bytes = self.env.real_disk_size().map_err(store_error)?;
        let all = file_bytes.saturating_add(room.available);
        Ok(all.saturating_sub(room.reserve))
    }
}
