// SPDX-License-Identifier: MIT
//! Copies of the store for `pvfs backup` (docs/decisions/0120): one at a time, made and handed out by
//! threads of their own, so that the owner of mgr's state waits for none of it.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use pvfs::error::FsError;
use pvfs::ids::ClientId;
use pvfs::proto::backup::BackupPart;
use pvfs::proto::mgr::MgrResponse;

use crate::owner::work::PartWanted;
use crate::server::connection::Waiter;
use crate::store::copy::{Copier, CopyError, Going, StoreCopy};

/// Questions that wait for the thread that answers them: further ones are told to try again.
const QUESTIONS_WAITING_MAX: usize = 64;
/// Bytes of a part: two of them fit a message.
const PART_BYTES_MAX: usize = 512 << 10;
/// A copy whose asker is silent for so long goes: it takes room on mgr's disk, and nobody else can have
/// one.
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// For the same reason, so long is allowed for fetching a small copy, and of a large one at least so
/// many bytes are to be fetched each second.
const FETCHING_TIME_MIN: Duration = Duration::from_secs(60);
const FETCHED_BYTES_PER_SECOND_MIN: u64 = 1 << 20;
/// How often silence is looked for.
const LOOK: Duration = Duration::from_secs(1);

/// Takes questions for copies. Its thread ends with it.
#[derive(Debug)]
pub struct Desk {
    questions: SyncSender<(Waiter, PartWanted)>,
}

impl Desk {
    /// Starts to answer questions with copies of a store.
    ///
    /// # Errors
    ///
    /// Those of making a thread.
    pub fn open(copier: Copier) -> io::Result<Self> {
        let (questions, asked) = sync_channel(QUESTIONS_WAITING_MAX);
        let clerk = Clerk {
            copier,
            current: None,
        };
        std::thread::Builder::new()
            .name("backups".to_owned())
            .spawn(move || serve(&asked, clerk))?;
        Ok(Self { questions })
    }

    /// Has a question answered; does not wait for the answer.
    pub fn ask(&self, waiter: Waiter, wanted: PartWanted) {
        match self.questions.try_send((waiter, wanted)) {
            Ok(()) => {}
            Err(TrySendError::Full((waiter, _)) | TrySendError::Disconnected((waiter, _))) => {
                waiter.send(Err(FsError::TryAgain));
            }
        }
    }
}

fn serve(asked: &Receiver<(Waiter, PartWanted)>, mut clerk: Clerk) {
    loop {
        let question = match clerk.current {
            Some(_) => asked.recv_timeout(LOOK),
            None => asked.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        match question {
            Ok((waiter, wanted)) => {
                let part = clerk.answer(wanted, Instant::now());
                waiter.send(part.map(MgrResponse::Backup));
            }
            Err(RecvTimeoutError::Timeout) => clerk.look(Instant::now()),
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

/// Who makes copies and hands them out.
struct Clerk {
    copier: Copier,
    current: Option<Current>,
}

/// A copy, and for whom.
struct Current {
    client: ClientId,
    copy: u64,
    /// When its client asked last.
    asked: Instant,
    stage: Stage,
}

enum Stage {
    Making {
        going: Arc<Going>,
        made: Receiver<Result<StoreCopy, CopyError>>,
    },
    Made {
        copy: StoreCopy,
        /// Until then it must have been fetched.
        until: Instant,
    },
}

impl Drop for Current {
    fn drop(&mut self) {
        if let Stage::Making { going, .. } = &self.stage {
            going.is_abandoned.store(true, Ordering::Relaxed);
        }
    }
}

impl Clerk {
    /// Gives up a copy that its client no longer fetches.
    fn look(&mut self, now: Instant) {
        let is_over = |current: &mut Current| {
            let is_late = match &current.stage {
                Stage::Making { .. } => false,
                Stage::Made { until, .. } => now > *until,
            };
            is_late || now.duration_since(current.asked) > SILENCE_MAX
        };
        if let Some(current) = self.current.take_if(is_over) {
            let client = current.client;
            tracing::warn!("a backup ends: client {client} does not fetch it, or too slowly");
        }
    }

    fn answer(&mut self, wanted: PartWanted, now: Instant) -> Result<BackupPart, FsError> {
        self.look(now);
        match &self.current {
            Some(current) if (current.client, current.copy) == (wanted.client, wanted.copy) => {}
            Some(_) => return Err(FsError::Busy),
            None if wanted.offset == 0 => {
                self.current = Some(begin(&self.copier, wanted, now).map_err(|e| failed(&e))?);
            }
            None => return Err(FsError::Stale),
        }
        let outcome = match &mut self.current {
            Some(current) => current.part(wanted.offset, now),
            None => Err(CopyError::Abandoned),
        };
        let is_over = match &outcome {
            Ok(BackupPart::Bytes { bytes, .. }) => bytes.is_empty(),
            Ok(BackupPart::Copying { .. } | BackupPart::Checking) => false,
            Err(_) => true,
        };
        if is_over {
            self.current = None;
        }
        outcome.map_err(|error| failed(&error))
    }
}

fn begin(copier: &Copier, wanted: PartWanted, now: Instant) -> Result<Current, CopyError> {
    let going = Arc::new(Going::default());
    let (told, made) = sync_channel(1);
    let (copier, seen) = (copier.clone(), Arc::clone(&going));
    std::thread::Builder::new()
        .name("backup".to_owned())
        .spawn(move || {
            // Nobody listens where the copy was given up meanwhile.
            let _ = told.send(copier.copy(&seen));
        })?;
    let PartWanted { client, copy, .. } = wanted;
    tracing::info!("client {client} makes a backup of the metadata store");
    Ok(Current {
        client,
        copy,
        asked: now,
        stage: Stage::Making { going, made },
    })
}

impl Current {
    fn part(&mut self, offset: u64, now: Instant) -> Result<BackupPart, CopyError> {
        self.asked = now;
        if let Stage::Making { going, made } = &self.stage {
            match made.try_recv() {
                Ok(outcome) => {
                    let copy = outcome?;
                    let seconds = copy.bytes / FETCHED_BYTES_PER_SECOND_MIN;
                    let until = now + FETCHING_TIME_MIN + Duration::from_secs(seconds);
                    self.stage = Stage::Made { copy, until };
                }
                Err(_) if going.is_checking.load(Ordering::Relaxed) => {
                    return Ok(BackupPart::Checking);
                }
                Err(_) => {
                    return Ok(BackupPart::Copying {
                        bytes_done: going.bytes_done.load(Ordering::Relaxed),
                        bytes_total: going.bytes_total.load(Ordering::Relaxed),
                    });
                }
            }
        }
        match &self.stage {
            Stage::Made { copy, .. } => Ok(BackupPart::Bytes {
                bytes: copy.read(offset, PART_BYTES_MAX)?,
                bytes_total: copy.bytes,
                records: copy.verified.digest.records,
                damaged_records: copy.verified.damaged_records,
            }),
            Stage::Making { .. } => Ok(BackupPart::Checking),
        }
    }
}

/// What the asker hears of it; the log has the words.
fn failed(error: &CopyError) -> FsError {
    tracing::error!("no backup can be made: {error}");
    match error {
        CopyError::NoRoom { .. } | CopyError::Grown(_) => FsError::NoSpace,
        CopyError::Io(error) => FsError::from_io(error),
        CopyError::Abandoned | CopyError::Lmdb(_) | CopyError::Store(_) | CopyError::Damaged(_) => {
            FsError::Io
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;
    use crate::store::lmdb::{LmdbStore, METADATA_BYTES_MIN};

    const RECORDS: u32 = 5000;

    fn store(directory: &std::path::Path) -> LmdbStore {
        LmdbStore::create(directory).unwrap();
        let mut store = LmdbStore::open(directory, METADATA_BYTES_MIN).unwrap();
        let records = (0..RECORDS).map(|number| {
            let key = number.to_be_bytes();
            ([&b"k"[..], &key].concat(), Some(vec![7; 100]))
        });
        store.commit(&records.collect()).unwrap();
        store
    }

    fn clerk(store: &LmdbStore) -> Clerk {
        Clerk {
            copier: store.copier().unwrap(),
            current: None,
        }
    }

    fn wanted(copy: u64, offset: u64) -> PartWanted {
        PartWanted {
            client: ClientId(9),
            copy,
            offset,
        }
    }

    /// The first part, when it is there.
    fn first_part(clerk: &mut Clerk, now: Instant) -> BackupPart {
        loop {
            match clerk.answer(wanted(1, 0), now).unwrap() {
                BackupPart::Copying { .. } | BackupPart::Checking => std::thread::yield_now(),
                part @ BackupPart::Bytes { .. } => return part,
            }
        }
    }

    fn fetch(clerk: &mut Clerk, now: Instant) -> Vec<u8> {
        let mut copy = Vec::new();
        let mut part = first_part(clerk, now);
        loop {
            match part {
                BackupPart::Bytes { bytes, .. } if bytes.is_empty() => return copy,
                BackupPart::Bytes { bytes, records, .. } => {
                    assert_eq!(records, u64::from(RECORDS));
                    copy.extend(bytes);
                }
                other => panic!("{other:?}"),
            }
            part = clerk.answer(wanted(1, copy.len() as u64), now).unwrap();
        }
    }

    #[test]
    fn a_copy_is_a_store_of_what_was_there_when_it_began() {
        let dir = tempfile::tempdir().unwrap();
        let (original, restored) = (dir.path().join("a"), dir.path().join("b"));
        let mut store = store(&original);
        let mut clerk = clerk(&store);
        let bytes = fetch(&mut clerk, Instant::now());
        assert!(clerk.current.is_none(), "it goes when all of it is fetched");
        let later = (b"later".to_vec(), Some(vec![1]));
        store.commit(&[later].into()).unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, &bytes).unwrap();
        LmdbStore::restore(&restored, &file).unwrap();
        let copy = LmdbStore::open(&restored, METADATA_BYTES_MIN).unwrap();
        let view = copy.view().unwrap();
        let mut records = 0;
        crate::store::View::scan(&view, &[1], None, &mut |_, value| {
            records += 1;
            value == [7; 100]
        })
        .unwrap();
        assert_eq!(records, RECORDS);
        let left = std::fs::read_dir(&original).unwrap().count();
        assert_eq!(left, 3, "data, LMDB's lock and ours");
    }

    #[test]
    fn one_copy_at_a_time_and_not_for_ever() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(&dir.path().join("a"));
        let mut clerk = clerk(&store);
        let now = Instant::now();
        assert_eq!(clerk.answer(wanted(1, 5), now), Err(FsError::Stale));
        first_part(&mut clerk, now);
        assert_eq!(clerk.answer(wanted(2, 0), now), Err(FsError::Busy));
        // Who says nothing loses it.
        let late = now + SILENCE_MAX + LOOK;
        assert_eq!(clerk.answer(wanted(1, 100), late), Err(FsError::Stale));
        // Who fetches it too slowly, too.
        let mut now = late;
        first_part(&mut clerk, now);
        let mut asked = 0;
        while clerk.answer(wanted(1, 100), now).is_ok() {
            now += SILENCE_MAX;
            asked += 1;
        }
        assert_eq!(asked, 3, "a minute, and a second for each MiB");
        first_part(&mut clerk, now);
    }

    #[test]
    fn a_copy_ends_where_it_costs_too_much_or_nobody_wants_it() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = store(&dir.path().join("a"));
        // More than is written at once.
        let large = (0..200).map(|number: u8| (vec![b'l', number], Some(vec![0; 64 << 10])));
        store.commit(&large.collect()).unwrap();
        let copier = store.copier().unwrap();
        let abandoned = Going::default();
        abandoned.is_abandoned.store(true, Ordering::Relaxed);
        let outcome = copier.copy(&abandoned).map(|_| ());
        assert!(matches!(outcome, Err(CopyError::Abandoned)), "{outcome:?}");
        assert!(copier.copy(&Going::default()).is_ok());
    }
}
