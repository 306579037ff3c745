// SPDX-License-Identifier: MIT
//! Images of an iod's data directory with flipped bits: what is read is what was stored, or an error
//! names what is damaged, or the directory is not opened. Never anything else.
//!
//! `PVFS_DAMAGE_IMAGES` sets the number of images, `PVFS_DAMAGE_SEED` the first seed; `make test-damage`
//! takes ten thousand.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail as tests do"
)]

mod common;

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use common::{FILE_SYSTEM, SEAL, stripe};
use fastrand::Rng;
use pvfs::error::FsError;
use pvfs::ids::{IodId, ObjectId, SessionId};
use pvfs::proto::iod::Change;
use pvfs_iod::store::{Damage, Identity, Membership, OpenError, Store};
use tempfile::TempDir;

/// Images in `make test`.
const IMAGES: u64 = 300;
/// Bits that are flipped in an image, at most.
const FLIPS_MAX: u64 = 4;
const BLOCK_BYTES: usize = 4096;
const CLUSTER_BYTES: u64 = 64 << 20;
const OPEN_OBJECTS_MAX: usize = 16;

const SESSION: SessionId = SessionId(0x5e55);

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().unwrap())
}

/// The pieces of an object that were written, by their offsets. The rest is a hole.
type Pieces = BTreeMap<u64, Vec<u8>>;

/// What the directory holds, as it was written.
struct Truth {
    identity: Identity,
    objects: BTreeMap<ObjectId, Pieces>,
    /// How far each slot of the session has come.
    slots: BTreeMap<u32, u64>,
}

/// Objects of all shapes: of many blocks, with holes, in two clusters, with a part of a block at the
/// end, empty.
fn shapes(rng: &mut Rng) -> Vec<Pieces> {
    let mut bytes =
        |length| -> Vec<u8> { std::iter::repeat_with(|| rng.u8(..)).take(length).collect() };
    vec![
        [(0, bytes(50 * BLOCK_BYTES))].into(),
        [(0, bytes(3 * BLOCK_BYTES + 17))].into(),
        [(0, bytes(10)), (40_960, bytes(5000)), (120_000, bytes(1))].into(),
        [
            (0, bytes(BLOCK_BYTES)),
            (CLUSTER_BYTES + 8192, bytes(BLOCK_BYTES + 1)),
        ]
        .into(),
        [(CLUSTER_BYTES - 100, bytes(200))].into(),
        [(0, Vec::new())].into(),
    ]
}

fn open(directory: &Path) -> Result<Store, OpenError> {
    Store::open(directory, OPEN_OBJECTS_MAX)
}

fn change(slot: u32, sequence: u64) -> Change {
    Change {
        session: SESSION,
        slot,
        sequence,
    }
}

/// A directory as it is when nothing was written for a while.
fn make(directory: &Path, rng: &mut Rng) -> Truth {
    Store::create(directory).unwrap();
    let store = open(directory).unwrap();
    store
        .join(Membership {
            iod: IodId(3),
            file_system: FILE_SYSTEM,
            seal: SEAL,
        })
        .unwrap();
    let mut objects = BTreeMap::new();
    for (inode, pieces) in (0x100..).zip(shapes(rng)) {
        let file = store.find_or_create(stripe(inode)).unwrap();
        for (offset, bytes) in &pieces {
            file.write_at(bytes, *offset).unwrap();
        }
        objects.insert(stripe(inode).object, pieces);
    }
    assert_eq!(store.settle(Duration::ZERO, &|| false), 0);
    let sessions = store.sessions();
    sessions.open(SESSION, Instant::now()).unwrap();
    let slots: BTreeMap<u32, u64> = (0..40).map(|slot| (slot, rng.u64(2..9))).collect();
    for (slot, sequence) in &slots {
        let attempt = sessions.begin(&change(*slot, *sequence), Instant::now());
        attempt.unwrap().make(|| Ok(())).unwrap();
    }
    Truth {
        identity: store.identity(),
        objects,
        slots,
    }
}

/// A file of the directory: how long it is, and where it has data.
struct Original {
    path: PathBuf,
    length: u64,
    data: Pieces,
}

fn originals(directory: &Path) -> Vec<Original> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(originals(&path));
        } else {
            found.push(original(path));
        }
    }
    found.sort_by(|one, other| one.path.cmp(&other.path));
    found
}

fn original(path: PathBuf) -> Original {
    let file = File::open(&path).unwrap();
    let length = file.metadata().unwrap().len();
    let mut data = Pieces::new();
    let mut block = vec![0; BLOCK_BYTES];
    for at in (0..length).step_by(BLOCK_BYTES) {
        let filled = file.read_at(&mut block, at).unwrap();
        if block[..filled].iter().any(|byte| *byte != 0) {
            data.insert(at, block[..filled].to_vec());
        }
    }
    Original { path, length, data }
}

impl Original {
    /// Makes the file what it was.
    fn restore(&self) {
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .open(&self.path);
        let file = file.unwrap();
        file.set_len(self.length).unwrap();
        for (at, bytes) in &self.data {
            file.write_all_at(bytes, *at).unwrap();
        }
    }

    /// Flips a bit: mostly where there is something, and often in what the rest depends on.
    fn flip(&self, rng: &mut Rng) {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&self.path)
            .unwrap();
        let pieces: Vec<_> = self.data.iter().collect();
        let at = match (rng.u8(..4), rng.choice(&pieces)) {
            (0, _) | (_, None) => rng.u64(..self.length),
            (1, Some((at, bytes))) => **at + rng.u64(..bytes.len().min(64) as u64),
            (_, Some((at, bytes))) => **at + rng.u64(..bytes.len() as u64),
        };
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        byte[0] ^= 1 << rng.u8(..8);
        file.write_all_at(&byte, at).unwrap();
    }
}

/// The block that begins at `at`, as it was written, as far as the object goes.
fn expected(pieces: &Pieces, at: u64) -> Vec<u8> {
    let end = pieces
        .iter()
        .map(|(start, bytes)| start + bytes.len() as u64)
        .max();
    let length = end.unwrap_or(0).saturating_sub(at).min(BLOCK_BYTES as u64);
    let mut block = vec![0; usize::try_from(length).unwrap()];
    for (start, bytes) in pieces {
        for (place, byte) in (at..).zip(&mut block) {
            let index = place
                .checked_sub(*start)
                .and_then(|index| usize::try_from(index).ok());
            if let Some(written) = index.and_then(|index| bytes.get(index)) {
                *byte = *written;
            }
        }
    }
    block
}

/// Where something is to be seen of an object: its blocks that were written and their neighbours.
fn places(pieces: &Pieces) -> Vec<u64> {
    let block = BLOCK_BYTES as u64;
    let mut places: Vec<u64> = Vec::new();
    for (start, bytes) in pieces {
        let first = (start / block).saturating_sub(1);
        let last = (start + bytes.len() as u64) / block + 1;
        places.extend((first..=last).map(|number| number * block));
    }
    places.sort_unstable();
    places.dedup();
    places
}

/// An error must say what is damaged.
fn assert_named(error: &io::Error) {
    assert!(Damage::of(error).is_some(), "{error}");
}

/// Reads all; gives how many blocks are damaged.
fn compare(store: &Store, truth: &Truth) -> u64 {
    assert_eq!(store.identity(), truth.identity);
    let mut damaged = 0;
    for (object, pieces) in &truth.objects {
        let file = match store.find(*object) {
            Ok(file) => file.unwrap(),
            Err(error) => {
                assert_named(&error);
                damaged += 1;
                continue;
            }
        };
        let mut block = vec![0; BLOCK_BYTES];
        for at in places(pieces) {
            match file.read_at(&mut block, at) {
                Ok(filled) => assert_eq!(block[..filled], expected(pieces, at), "{object} at {at}"),
                Err(error) => {
                    assert_named(&error);
                    damaged += 1;
                }
            }
        }
    }
    damaged
}

/// A change that was made is not made again.
fn compare_sessions(store: &Store, truth: &Truth) -> bool {
    let mut known = 0;
    for (slot, sequence) in &truth.slots {
        match store
            .sessions()
            .begin(&change(*slot, *sequence), Instant::now())
        {
            Ok(attempt) => {
                assert_eq!(attempt.make(|| panic!("it is made again")), Ok(()));
                known += 1;
            }
            Err(error) => assert_eq!(error, FsError::SessionLost),
        }
        let earlier = store
            .sessions()
            .begin(&change(*slot, sequence - 1), Instant::now());
        let earlier = earlier.map(drop).unwrap_err();
        assert!(matches!(
            earlier,
            FsError::SessionLost | FsError::AlreadyAnswered
        ));
    }
    assert!(known == 0 || known == truth.slots.len());
    known > 0
}

/// Whole blocks heal what they replace, and hide nothing of what they do not.
fn overwrite(store: &Store, truth: &Truth, rng: &mut Rng) {
    for (object, pieces) in &truth.objects {
        let Ok(Some(file)) = store.find(*object) else {
            continue;
        };
        let places = places(pieces);
        let at = *rng.choice(&places).unwrap();
        let after = expected(pieces, at);
        let start = rng.usize(..=after.len());
        if start == 0 && after.len() == BLOCK_BYTES {
            // A header that is damaged stays so.
            if let Err(error) = file.write_at(&after, at) {
                assert_named(&error);
            }
        } else if let Some(part) = after.get(start..).filter(|part| !part.is_empty())
            && let Err(error) = file.write_at(part, at + start as u64)
        {
            assert_named(&error);
        }
    }
    store.settle(Duration::ZERO, &|| false);
}

#[test]
fn flipped_bits_are_errors_and_never_data() {
    let seed = number("PVFS_DAMAGE_SEED", 1);
    let images = number("PVFS_DAMAGE_IMAGES", IMAGES);
    let base = TempDir::new_in("/dev/shm").unwrap();
    let truth = make(base.path(), &mut Rng::with_seed(seed));
    let files = originals(base.path());
    let with_content: Vec<_> = files.iter().filter(|file| file.length > 0).collect();
    let (mut refused, mut damaged, mut whole, mut forgotten) = (0, 0, 0, 0);
    for image in 0..images {
        let seed = seed.wrapping_mul(1_000_003).wrapping_add(image);
        let mut rng = Rng::with_seed(seed);
        for _ in 0..rng.u64(1..=FLIPS_MAX) {
            rng.choice(&with_content).unwrap().flip(&mut rng);
        }
        println!("image {seed}");
        match open(base.path()) {
            Err(error) => {
                assert!(error.to_string().contains("identity"), "{error}");
                refused += 1;
            }
            Ok(store) => {
                let blocks = compare(&store, &truth);
                damaged += u64::from(blocks > 0);
                whole += u64::from(blocks == 0);
                forgotten += u64::from(!compare_sessions(&store, &truth));
                overwrite(&store, &truth, &mut rng);
                compare(&store, &truth);
                drop(store);
                compare(&open(base.path()).unwrap(), &truth);
            }
        }
        for file in &files {
            file.restore();
        }
    }
    eprintln!(
        "{images} images: {refused} refused, {damaged} with damaged blocks, {whole} whole, \
         {forgotten} with sessions forgotten"
    );
    assert!(refused > 0 && damaged > 0 && whole > 0 && forgotten > 0);
}
