// SPDX-License-Identifier: MIT
//! Images of mgr's store with flipped bits: what is read is what was stored, or an error names what is
//! damaged, or the store is not opened. Never anything else: a crash ends this test.
//!
//! `PVFS_DAMAGE_IMAGES` sets the number of images, `PVFS_DAMAGE_SEED` the first seed; `make test-damage`
//! takes ten thousand.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail as tests do"
)]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use fastrand::Rng;
use pvfs_mgr::store::lmdb::{LmdbStore, METADATA_BYTES_MIN, OpenError};
use pvfs_mgr::store::{Records, Store, StoreError, View};
use tempfile::TempDir;

/// Images in `make test`.
const IMAGES: u64 = 300;
const PAGE_BYTES: u64 = 4096;
/// Bits that are flipped in an image, at most.
const FLIPS_MAX: u64 = 4;

type Truth = BTreeMap<Vec<u8>, Vec<u8>>;

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().unwrap())
}

fn open(directory: &Path) -> Result<LmdbStore, OpenError> {
    LmdbStore::open(directory, METADATA_BYTES_MIN)
}

/// Keys of the name space's shapes: few of them long, some values on pages of their own.
fn random_batch(rng: &mut Rng, size: u64) -> Records {
    let record = |rng: &mut Rng| {
        let tag = *rng.choice(b"CDIKLSXOTGVRM").unwrap();
        let mut key = vec![tag];
        key.extend(rng.u64(..500).to_be_bytes());
        key.extend(std::iter::repeat_n(b'n', rng.usize(..40)));
        let length = match rng.u8(..50) {
            0 => rng.usize(..20_000),
            1 => 0,
            _ => rng.usize(..120),
        };
        let value = std::iter::repeat_with(|| rng.u8(..)).take(length).collect();
        let value = (rng.u8(..4) > 0).then_some(value);
        (key, value)
    };
    (0..size).map(|_| record(rng)).collect()
}

fn apply(truth: &mut Truth, batch: &Records) {
    for (key, value) in batch {
        match value {
            Some(value) => truth.insert(key.clone(), value.clone()),
            None => truth.remove(key),
        };
    }
}

/// A store with a past: pages have been freed and used again.
fn store(directory: &Path, rng: &mut Rng) -> Truth {
    let mut truth = Truth::new();
    LmdbStore::create(directory).unwrap();
    let mut store = open(directory).unwrap();
    for round in 0..60 {
        let batch = random_batch(rng, if round < 20 { 200 } else { 20 });
        store.commit(&batch).unwrap();
        apply(&mut truth, &batch);
    }
    truth
}

/// Where to flip a bit: anywhere, in what leads to everything, or in what leads on a page to the rest.
fn place(rng: &mut Rng, length: u64) -> u64 {
    match rng.u8(..4) {
        0 => rng.u64(..2) * PAGE_BYTES + rng.u64(..152),
        1 => rng.u64(..length / PAGE_BYTES) * PAGE_BYTES + rng.u64(..64),
        _ => rng.u64(..length),
    }
}

/// Reads all in every way; gives how many records are damaged.
fn compare(store: &LmdbStore, truth: &Truth) -> u64 {
    let view = store.view().unwrap();
    let mut damaged = 0;
    for (key, value) in truth {
        match view.get(key) {
            Ok(found) => assert_eq!(found, Some(&value[..]), "{key:?}"),
            Err(StoreError::Corrupt { key: named }) => {
                assert_eq!(&named, key);
                damaged += 1;
            }
            Err(error) => panic!("{error}"),
        }
    }
    // A key that was never stored, beside each that was.
    for key in truth.keys() {
        let beside = [&key[..], b"!"].concat();
        assert_eq!(view.get(&beside).unwrap(), None);
    }
    let mut rest = truth.iter();
    let scanned = view.scan(b"\0", None, &mut |key, value| {
        let expected = rest.next().unwrap();
        assert_eq!((key, value), (&expected.0[..], &expected.1[..]));
        true
    });
    match scanned {
        Ok(()) => assert_eq!((rest.next(), damaged), (None, 0)),
        Err(StoreError::Corrupt { key }) => assert_eq!(rest.next().unwrap().0, &key),
        Err(error) => panic!("{error}"),
    }
    damaged
}

/// What a store is worth that opened: right, also after more commits and another start.
fn use_on(mut store: LmdbStore, directory: &Path, mut truth: Truth, rng: &mut Rng) -> u64 {
    let damaged = compare(&store, &truth);
    for _ in 0..3 {
        let batch = random_batch(rng, 30);
        store.commit(&batch).unwrap();
        apply(&mut truth, &batch);
    }
    compare(&store, &truth);
    drop(store);
    compare(&open(directory).unwrap(), &truth);
    damaged
}

#[test]
fn flipped_bits_are_errors_and_never_data() {
    let seed = number("PVFS_DAMAGE_SEED", 1);
    let images = number("PVFS_DAMAGE_IMAGES", IMAGES);
    let base = TempDir::new_in("/dev/shm").unwrap();
    let truth = store(base.path(), &mut Rng::with_seed(seed));
    let content = fs::read(base.path().join("data.mdb")).unwrap();
    assert!(content.len() as u64 > 100 * PAGE_BYTES);
    let (mut refused, mut damaged, mut whole) = (0, 0, 0);
    for image in 0..images {
        let seed = seed.wrapping_mul(1_000_003).wrapping_add(image);
        let mut rng = Rng::with_seed(seed);
        let mut bad = content.clone();
        for _ in 0..rng.u64(1..=FLIPS_MAX) {
            let at = usize::try_from(place(&mut rng, bad.len() as u64)).unwrap();
            bad[at] ^= 1 << rng.u8(..8);
        }
        let directory = TempDir::new_in("/dev/shm").unwrap();
        fs::write(directory.path().join("data.mdb"), bad).unwrap();
        // Printed if the process is ended.
        println!("image {seed}");
        match open(directory.path()) {
            Err(error @ (OpenError::Damaged { .. } | OpenError::Lmdb { .. })) => {
                assert!(
                    error.to_string().contains("damaged") || image > 0,
                    "{error}"
                );
                refused += 1;
            }
            Err(error) => panic!("{error}"),
            Ok(store) => match use_on(store, directory.path(), truth.clone(), &mut rng) {
                0 => whole += 1,
                _ => damaged += 1,
            },
        }
    }
    eprintln!("{images} images: {refused} refused, {damaged} with damaged records, {whole} whole");
    assert!(refused > 0 && damaged > 0 && whole > 0);
}

/// Also the file beside it, which LMDB keeps for its readers.
#[test]
fn a_damaged_table_of_readers_does_no_harm() {
    let base = TempDir::new_in("/dev/shm").unwrap();
    let mut rng = Rng::with_seed(7);
    let truth = store(base.path(), &mut rng);
    let path = base.path().join("lock.mdb");
    let content = fs::read(&path).unwrap();
    for _ in 0..50 {
        let mut bad = content.clone();
        for _ in 0..20 {
            let at = rng.usize(..bad.len());
            bad[at] ^= 1 << rng.u8(..8);
        }
        fs::write(&path, bad).unwrap();
        compare(&open(base.path()).unwrap(), &truth);
    }
}

#[test]
fn a_file_that_lost_its_end_or_whose_records_went_back_in_time_is_refused() {
    let base = TempDir::new_in("/dev/shm").unwrap();
    let mut rng = Rng::with_seed(9);
    let mut truth = store(base.path(), &mut rng);
    let data = base.path().join("data.mdb");
    let older = fs::read(&data).unwrap();
    let batch = random_batch(&mut rng, 30);
    open(base.path()).unwrap().commit(&batch).unwrap();
    apply(&mut truth, &batch);
    let newer = fs::read(&data).unwrap();
    let refused = |content: &[u8]| {
        fs::write(&data, content).unwrap();
        matches!(open(base.path()), Err(OpenError::Damaged { .. }))
    };
    let page = usize::try_from(PAGE_BYTES).unwrap();
    assert!(refused(&newer[..page]));
    assert!(refused(&newer[..newer.len() / 2]));
    // A write of a page that never reached the disk.
    let pages = older.len().min(newer.len()) / page;
    let mut lost_writes = 0;
    for number in 2..pages {
        let (start, end) = (number * page, (number + 1) * page);
        if older[start..end] != newer[start..end] {
            let mut lost = newer.clone();
            lost[start..end].copy_from_slice(&older[start..end]);
            lost_writes += 1;
            assert!(refused(&lost), "page {number}");
        }
    }
    assert!(lost_writes > 2);
    // A commit's last page without its number, as LMDB leaves it when writing it has failed: neither
    // an older state nor a refusal.
    let newest = |at: usize| u64::from_ne_bytes(newer[at..at + 8].try_into().unwrap());
    let places = [144, page + 144];
    let at = *places.iter().max_by_key(|at| newest(**at)).unwrap();
    let mut unnumbered = newer.clone();
    unnumbered[at..at + 8].copy_from_slice(&(newest(at) - 2).to_ne_bytes());
    for content in [newer, unnumbered] {
        fs::write(&data, &content).unwrap();
        let store = open(base.path()).unwrap();
        use_on(store, base.path(), truth.clone(), &mut rng);
    }
}
