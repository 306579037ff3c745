// SPDX-License-Identifier: MIT
//! What slots know of their changes, on disk: an iod that is killed and started again still knows
//! what it has made.
//!
//! Nothing here is ever flushed. A process that is killed leaves it to the kernel, as it leaves the
//! data; after a restart of the machine neither need be what it was, so the log begins anew.
//! Format: `docs/ON_DISK.md`.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use bincode::{Decode, Encode};
use pvfs::ids::SessionId;
use pvfs::runtime::sync::{Mutex, PoisonError};
use pvfs::wire::codec::{decode, encode};
use pvfs::wire::header::checksum;

use super::sessions::End;

/// The log's head, and each record: checksum, length and body, filled up with zeros.
const RECORD_BYTES: usize = 64;
/// Where the kernel says which start of the machine this is.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
const TITLE: &str = "pvfs-iod sessions 1\n";
/// Only the daemon reads it: it says nothing of the data, but whoever writes to it hides changes.
const MODE: u32 = 0o600;

/// What a slot knows of its last change.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(super) struct Record {
    pub(super) session: SessionId,
    pub(super) slot: u32,
    pub(super) sequence: u64,
    pub(super) stored: u64,
    pub(super) end: End,
}

/// Where a record stands in the log, counted from the head.
pub(super) type Place = u32;

/// The file in which sessions outlive the process.
pub(super) struct SessionLog {
    file: File,
    places: Mutex<Places>,
}

#[derive(Default)]
struct Places {
    /// All from here on are free.
    next: Place,
    free: Vec<Place>,
}

impl SessionLog {
    /// Opens the log, and empties it where it is of another start of the machine.
    pub(super) fn open(path: &Path) -> io::Result<(Self, Vec<(Place, Record)>)> {
        let boot = fs::read_to_string(BOOT_ID)?;
        Self::open_in(path, &boot)
    }

    fn open_in(path: &Path, boot: &str) -> io::Result<(Self, Vec<(Place, Record)>)> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let file = options.mode(MODE).open(path)?;
        let mut head = format!("{TITLE}{}", boot.trim()).into_bytes();
        head.resize(RECORD_BYTES, 0);
        let bytes = fs::read(path)?;
        let content = match bytes.split_at_checked(RECORD_BYTES) {
            Some((found, records)) if found == head => read(records),
            Some(_) | None => None,
        };
        let (places, records) = if let Some(content) = content {
            content
        } else {
            file.set_len(0)?;
            file.write_all_at(&head, 0)?;
            Default::default()
        };
        let places = Mutex::new(places);
        Ok((Self { file, places }, records))
    }

    /// A place for a record.
    pub(super) fn take(&self) -> Place {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let Places { next, free } = &mut *places;
        free.pop().unwrap_or_else(|| {
            *next += 1;
            *next - 1
        })
    }

    /// Writes a record. Where that fails, a restart may make its change again.
    pub(super) fn write(&self, place: Place, record: &Record) {
        let written = bytes_of(record).and_then(|bytes| self.write_at(place, &bytes));
        if let Err(error) = written {
            tracing::warn!("a change is not noted ({error}): a restart may make it again");
        }
    }

    /// Empties a place and gives it back; false where it stays as it is.
    pub(super) fn clear(&self, place: Place) -> bool {
        if let Err(error) = self.write_at(place, &[0; RECORD_BYTES]) {
            tracing::warn!("a session's record is not removed: {error}");
            return false;
        }
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        places.free.push(place);
        true
    }

    fn write_at(&self, place: Place, bytes: &[u8]) -> io::Result<()> {
        let offset = (u64::from(place) + 1) * RECORD_BYTES as u64;
        self.file.write_all_at(bytes, offset)
    }
}

fn bytes_of(record: &Record) -> io::Result<Vec<u8>> {
    let body = encode(record).map_err(io::Error::other)?;
    let length = u32::try_from(body.len()).map_err(io::Error::other)?;
    let mut bytes = checksum(&body).to_le_bytes().to_vec();
    bytes.extend(length.to_le_bytes());
    bytes.extend(body);
    debug_assert!(bytes.len() <= RECORD_BYTES, "each record has its place");
    bytes.resize(RECORD_BYTES, 0);
    Ok(bytes)
}

/// What the log has behind its head. `None` where a record is damaged: nobody knows whose it was, and
/// a session that has forgotten a change would make it again.
fn read(bytes: &[u8]) -> Option<(Places, Vec<(Place, Record)>)> {
    let mut records = Vec::new();
    let mut places = Places::default();
    for (place, chunk) in (0..).zip(bytes.chunks(RECORD_BYTES)) {
        places.next = place + 1;
        if let Some(record) = parse(chunk) {
            records.push((place, record));
        } else if chunk.iter().all(|byte| *byte == 0) {
            places.free.push(place);
        } else {
            tracing::warn!(
                "what changes have been made is forgotten: record {place} of it is damaged"
            );
            return None;
        }
    }
    Some((places, records))
}

fn parse(bytes: &[u8]) -> Option<Record> {
    let (sum, rest) = bytes.split_first_chunk::<4>()?;
    let (length, rest) = rest.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
    let body = rest.get(..length)?;
    let is_sound = length > 0 && checksum(body) == u32::from_le_bytes(*sum);
    is_sound.then(|| decode(body).ok()).flatten()
}

const _: () = assert!(TITLE.len() + 36 <= RECORD_BYTES);

#[cfg(test)]
mod tests {
    use super::*;
    use pvfs::error::FsError;

    fn record(slot: u32) -> Record {
        Record {
            session: SessionId(u64::MAX),
            slot,
            sequence: u64::MAX,
            stored: u64::MAX,
            end: End::Made(Err(FsError::NoSpace)),
        }
    }

    #[test]
    fn records_survive_the_process_and_not_the_machine() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("sessions");
        let (log, found) = SessionLog::open_in(&path, "one\n").unwrap();
        assert_eq!(found, []);
        let places = [log.take(), log.take(), log.take()];
        for place in places {
            log.write(place, &record(place));
        }
        assert!(log.clear(places[1]));
        drop(log);
        let (log, found) = SessionLog::open_in(&path, "one\n").unwrap();
        assert_eq!(found, [(0, record(0)), (2, record(2))]);
        assert_eq!((log.take(), log.take()), (1, 3));
        let (_, found) = SessionLog::open_in(&path, "two\n").unwrap();
        assert_eq!(found, []);
        let (_, found) = SessionLog::open_in(&path, "one\n").unwrap();
        assert_eq!(found, []);
    }

    /// A change whose record is damaged must not be made again, whichever it was.
    #[test]
    fn a_damaged_record_makes_the_log_begin_anew() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("sessions");
        let (log, _) = SessionLog::open_in(&path, "one\n").unwrap();
        for slot in 0..3 {
            log.write(log.take(), &record(slot));
        }
        let mut bytes = fs::read(&path).unwrap();
        bytes[2 * RECORD_BYTES + 9] ^= 1;
        fs::write(&path, bytes).unwrap();
        for _ in 0..2 {
            let (log, found) = SessionLog::open_in(&path, "one\n").unwrap();
            assert_eq!((found, log.take()), (Vec::new(), 0));
        }
    }

    #[test]
    fn a_torn_record_is_none() {
        let mut bytes = bytes_of(&record(7)).unwrap();
        assert_eq!(parse(&bytes), Some(record(7)));
        let length = 8 + encode(&record(7)).unwrap().len();
        for at in 0..length {
            bytes[at] ^= 1;
            assert_eq!(parse(&bytes), None, "byte {at}");
            bytes[at] ^= 1;
        }
        assert_eq!(parse(&[0; RECORD_BYTES]), None);
    }

    /// The bytes that docs/ON_DISK.md shows.
    #[test]
    fn golden_record() {
        let record = Record {
            session: SessionId(0x0102_0304),
            slot: 2,
            sequence: 300,
            stored: 4096,
            end: End::Made(Ok(())),
        };
        let bytes = bytes_of(&record).unwrap();
        let lines = bytes.chunks(16).map(|line| {
            let line: Vec<String> = line.iter().map(|byte| format!("{byte:02x}")).collect();
            line.join(" ")
        });
        let grid = lines.collect::<Vec<_>>().join("\n");
        assert!(
            include_str!("../../../docs/ON_DISK.md").contains(&grid),
            "{grid}"
        );
    }
}
