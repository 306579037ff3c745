// SPDX-License-Identifier: MIT
//! What checksums promise: damage is told, good data never called damaged, whatever fails and
//! whenever the process ends.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use super::faulty::{Act, Fault, FaultyDisk, Part};
use super::sums_format::{BLOCK_BYTES, CLUSTER_BYTES};
use super::tests::stripe;
use super::*;
use pvfs::ids::InodeNumber;
use tempfile::TempDir;

const OBJECT: ObjectId = ObjectId {
    inode: InodeNumber(0x12ab),
    generation: 2,
};
const BLOCK: usize = BLOCK_BYTES as usize;

/// A store, and the same directory opened again as after a crash.
struct Bench {
    directory: TempDir,
    disk: FaultyDisk,
    store: Option<Store>,
}

impl Bench {
    fn new() -> Self {
        let mut bench = Self {
            // In memory: these tests flush much, and the disk is not what they try.
            directory: tempfile::tempdir_in("/dev/shm").unwrap(),
            disk: FaultyDisk::default(),
            store: None,
        };
        Store::create(bench.directory.path()).unwrap();
        bench.reopen();
        bench
    }

    fn store(&self) -> &Store {
        self.store.as_ref().unwrap()
    }

    /// As after kill -9: nothing is settled.
    fn reopen(&mut self) {
        drop(self.store.take());
        let disk = Arc::new(self.disk.clone());
        self.store = Some(Store::open_on(disk, self.directory.path(), 64).unwrap());
    }

    fn write(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.store()
            .find_or_create(stripe(OBJECT))?
            .write_at(bytes, offset)
    }

    fn read(&self, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let file = self.store().find(OBJECT)?.unwrap();
        let mut bytes = vec![0; length];
        let filled = file.read_at(&mut bytes, offset)?;
        bytes.truncate(filled);
        Ok(bytes)
    }

    fn settle(&self) {
        assert_eq!(self.store().settle(Duration::ZERO, &|| false), 0);
    }

    fn data_path(&self) -> PathBuf {
        self.directory
            .path()
            .join("objects/ab/00000000000012ab.00000002")
    }

    fn sums_path(&self) -> PathBuf {
        self.data_path().with_extension("00000002.sums")
    }

    fn flip(path: &Path, byte: u64) {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(path)
            .unwrap();
        let mut one = [0];
        file.read_exact_at(&mut one, byte).unwrap();
        file.write_all_at(&[one[0] ^ 0x10], byte).unwrap();
    }

    fn flip_data(&self, byte: u64) {
        Self::flip(&self.data_path(), byte);
    }
}

fn damaged(outcome: io::Result<Vec<u8>>) -> Damage {
    let error = outcome.expect_err("damage was not seen");
    Damage::of(&error).unwrap_or_else(|| panic!("another error: {error}"))
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 7 + at / 251) as u8).collect()
}

#[test]
fn a_flipped_bit_is_damage_and_never_data() {
    let mut bench = Bench::new();
    let bytes = pattern(3 * BLOCK + 100);
    bench.write(&bytes, 0).unwrap();
    for settled in [false, true] {
        if settled {
            bench.settle();
            bench.reopen();
        }
        for byte in [0, BLOCK as u64 - 1, 2 * BLOCK as u64, 3 * BLOCK as u64 + 99] {
            bench.flip_data(byte);
            let offset = byte / BLOCK_BYTES * BLOCK_BYTES;
            assert_eq!(
                damaged(bench.read(0, bytes.len())),
                Damage::Block { offset }
            );
            assert_eq!(damaged(bench.read(byte, 1)), Damage::Block { offset });
            // The blocks beside it are as good as ever.
            if let Some(before) = offset.checked_sub(BLOCK_BYTES) {
                let expected = &bytes[before as usize..offset as usize];
                assert_eq!(bench.read(before, BLOCK).unwrap(), expected);
            }
            bench.flip_data(byte);
            assert_eq!(bench.read(0, bytes.len()).unwrap(), bytes);
        }
    }
}

#[test]
fn bytes_in_a_hole_are_damage() {
    let bench = Bench::new();
    bench.write(b"end", 10 * BLOCK_BYTES).unwrap();
    assert_eq!(bench.read(0, BLOCK).unwrap(), [0; BLOCK]);
    let file = OpenOptions::new().write(true).open(bench.data_path());
    file.unwrap().write_all_at(b"x", 5 * BLOCK_BYTES).unwrap();
    assert_eq!(
        damaged(bench.read(5 * BLOCK_BYTES, 1)),
        Damage::Block {
            offset: 5 * BLOCK_BYTES
        }
    );
}

#[test]
fn a_file_that_was_cut_or_lost_on_the_disk_is_damage() {
    let mut bench = Bench::new();
    let bytes = pattern(4 * BLOCK);
    bench.write(&bytes, 0).unwrap();
    bench.settle();
    bench.reopen();
    let file = OpenOptions::new().write(true).open(bench.data_path());
    file.unwrap().set_len(2 * BLOCK_BYTES).unwrap();
    let file = bench.store().find(OBJECT).unwrap().unwrap();
    let mut buffer = vec![0; VERIFY_BUFFER_BYTES];
    assert_eq!(
        file.verified(0, 2 * BLOCK, &mut buffer).unwrap(),
        &bytes[..2 * BLOCK]
    );
    let error = file.verified(0, 3 * BLOCK, &mut buffer).unwrap_err();
    let offset = 2 * BLOCK_BYTES;
    assert_eq!(Damage::of(&error), Some(Damage::Block { offset }));
    drop(file);
    fs::remove_file(bench.data_path()).unwrap();
    bench.reopen();
    let error = bench.store().find(OBJECT).unwrap_err();
    assert_eq!(Damage::of(&error), Some(Damage::Lost));
    // Whoever writes to it anew does not make the rest look whole.
    bench.write(&bytes[..BLOCK], 0).unwrap();
    assert_eq!(bench.read(0, BLOCK).unwrap(), &bytes[..BLOCK]);
    assert!(bench.store().find(OBJECT).unwrap().is_some());
    let file = bench.store().find(OBJECT).unwrap().unwrap();
    assert!(file.verified(0, 3 * BLOCK, &mut buffer).is_err());
    drop(file);
    // A removal takes both.
    bench.store().remove(OBJECT).unwrap();
    assert!(bench.store().find(OBJECT).unwrap().is_none());
    assert!(!bench.sums_path().exists());
}

/// Else a truncation of a file that lost an object would wait for ever.
#[test]
fn a_lost_object_can_be_truncated() {
    let mut bench = Bench::new();
    let bytes = pattern(4 * BLOCK);
    bench.write(&bytes, 0).unwrap();
    bench.settle();
    for keep in [BLOCK + 100, 0] {
        fs::remove_file(bench.data_path()).unwrap();
        bench.reopen();
        bench.store().truncate(stripe(OBJECT), keep as u64).unwrap();
        // What is left is still damaged; what was cut off is a hole.
        bench.reopen();
        match bench.store().find(OBJECT) {
            Err(error) => assert_eq!(Damage::of(&error), Some(Damage::Lost)),
            Ok(file) => {
                let file = file.unwrap();
                let mut buffer = vec![0; VERIFY_BUFFER_BYTES];
                assert_eq!(file.verified(0, BLOCK, &mut buffer).is_err(), keep > 0);
                assert!(file.verified(2 * BLOCK_BYTES, BLOCK, &mut buffer).is_ok());
            }
        }
    }
    bench.write(&bytes, 0).unwrap();
    assert_eq!(bench.read(0, bytes.len()).unwrap(), bytes);
}

#[test]
fn damaged_sums_are_told_and_heal_by_truncation() {
    let mut bench = Bench::new();
    bench.write(&pattern(2 * BLOCK), 0).unwrap();
    bench.settle();
    bench.reopen();
    Bench::flip(&bench.sums_path(), 20);
    assert_eq!(damaged(bench.read(0, 1)), Damage::Header { offset: 0 });
    assert!(bench.write(b"x", 0).is_err());
    bench.store().truncate(stripe(OBJECT), 0).unwrap();
    bench.write(b"new", 0).unwrap();
    assert_eq!(bench.read(0, 9).unwrap(), b"new");
    Bench::flip(&bench.sums_path(), super::sums_format::sum_offset(0));
    assert_eq!(damaged(bench.read(0, 1)), Damage::Block { offset: 0 });
}

/// To overwrite a part of a damaged block would launder the rest; to overwrite all of it heals it.
#[test]
fn a_damaged_block_is_healed_by_a_whole_block_only() {
    let bench = Bench::new();
    bench.write(&pattern(2 * BLOCK), 0).unwrap();
    bench.flip_data(100);
    let error = bench.write(b"part", 0).unwrap_err();
    assert_eq!(Damage::of(&error), Some(Damage::Block { offset: 0 }));
    // Nor does cutting it in two.
    bench.store().truncate(stripe(OBJECT), 200).unwrap();
    assert_eq!(damaged(bench.read(0, 10)), Damage::Block { offset: 0 });
    bench.write(&pattern(BLOCK), 0).unwrap();
    assert_eq!(bench.read(0, BLOCK).unwrap(), pattern(BLOCK));
}

/// Settled sums hold after a crash: an overwrite says first, durably, that they no longer do.
#[test]
fn an_overwrite_of_settled_data_is_announced_before_it_happens() {
    let mut bench = Bench::new();
    bench.write(&pattern(8 * BLOCK), 0).unwrap();
    bench.settle();
    let syncs = bench.disk.count(Act::Sync, Part::Sums);
    bench.write(&pattern(BLOCK), 4096).unwrap();
    assert_eq!(bench.disk.count(Act::Sync, Part::Sums), syncs + 1);
    // Once for all that follows, until it is settled again. What is behind the covered part is free.
    bench.write(&pattern(3 * BLOCK), 0).unwrap();
    bench.write(&pattern(3 * BLOCK), 8 * BLOCK_BYTES).unwrap();
    assert_eq!(bench.disk.count(Act::Sync, Part::Sums), syncs + 1);
    bench.reopen();
    assert_eq!(bench.read(0, 3 * BLOCK).unwrap(), pattern(3 * BLOCK));
    // If it cannot be announced, nothing is overwritten.
    bench.settle();
    bench
        .disk
        .add(Fault::once(Act::Sync, Part::Sums, libc::EIO));
    assert!(bench.write(b"other", 0).is_err());
    assert_eq!(bench.read(0, 5).unwrap(), pattern(5));
    bench.write(b"other", 0).unwrap();
    assert_eq!(bench.read(0, 5).unwrap(), b"other");
}

#[test]
fn appending_to_settled_data_costs_no_flush() {
    let bench = Bench::new();
    bench.write(&pattern(2 * BLOCK), 0).unwrap();
    bench.settle();
    let syncs = bench.disk.count(Act::Sync, Part::Any);
    bench.write(&pattern(100 * BLOCK), 2 * BLOCK_BYTES).unwrap();
    assert_eq!(bench.disk.count(Act::Sync, Part::Any), syncs);
}

/// kill -9 between sums and data, in each order, at each call: good data is never called damaged.
#[test]
fn a_write_that_ends_anywhere_leaves_no_false_damage() {
    let ends = [
        (Act::Write, Part::Sums, 0),
        (Act::Write, Part::Sums, 3),
        (Act::Write, Part::Data, 0),
        (Act::Write, Part::Data, 512),
        (Act::Write, Part::Data, BLOCK + 512),
    ];
    for settled in [false, true] {
        for (act, part, torn_bytes) in ends {
            for after in 0..2 {
                let mut bench = Bench::new();
                bench.write(&pattern(3 * BLOCK), 0).unwrap();
                if settled {
                    bench.settle();
                }
                bench.disk.add(Fault {
                    after,
                    torn_bytes,
                    ..Fault::once(act, part, libc::EIO)
                });
                let _ = bench.write(&[9; 2 * BLOCK], 100);
                bench.disk.heal();
                // The same process goes on, and then another one.
                for _ in 0..2 {
                    let found = bench.read(0, 3 * BLOCK).unwrap();
                    let old = pattern(3 * BLOCK);
                    for (at, byte) in found.iter().enumerate() {
                        assert!(*byte == old[at] || *byte == 9, "byte {at}");
                    }
                    bench.reopen();
                }
            }
        }
    }
}

#[test]
fn short_writes_are_completed() {
    let mut bench = Bench::new();
    bench.disk.write_at_most(1000);
    let bytes = pattern(5 * BLOCK + 17);
    bench.write(&bytes, 3).unwrap();
    bench.settle();
    bench.reopen();
    assert_eq!(bench.read(3, bytes.len()).unwrap(), bytes);
}

#[test]
fn a_full_disk_refuses_writes_and_goes_on_when_there_is_room() {
    for part in [Part::Data, Part::Sums] {
        let mut bench = Bench::new();
        let bytes = pattern(4 * BLOCK);
        bench.write(&bytes, 0).unwrap();
        bench.disk.add(Fault {
            torn_bytes: 700,
            ..Fault::always(Act::Write, part, libc::ENOSPC)
        });
        for offset in [0, 4 * BLOCK_BYTES, 100 * BLOCK_BYTES] {
            let error = bench.write(&bytes, offset).unwrap_err();
            assert_eq!(FsError::from_io(&error), FsError::NoSpace);
        }
        // What is there can be read, if only unchecked; in an old store too, where no sums fit.
        assert_eq!(bench.read(0, 1).unwrap(), &bytes[..1]);
        bench.reopen();
        bench.read(0, BLOCK).unwrap();
        bench.disk.heal();
        bench.write(&bytes, 0).unwrap();
        assert_eq!(bench.read(0, bytes.len()).unwrap(), bytes);
        bench.settle();
        bench.flip_data(5);
        damaged(bench.read(0, 1));
    }
}

/// After a failed flush the kernel reports success, though what was written is lost. The object's
/// syncs go on failing, whoever asked for the flush, a client or the settler.
#[test]
fn a_failed_flush_is_never_forgotten() {
    for by_settler in [false, true] {
        let bench = Bench::new();
        bench.write(b"abc", 0).unwrap();
        bench
            .disk
            .add(Fault::once(Act::Sync, Part::Data, libc::EIO));
        if by_settler {
            bench.settle();
        } else {
            assert!(bench.store().sync(OBJECT).is_err());
        }
        for _ in 0..3 {
            assert!(bench.store().sync(OBJECT).is_err(), "acknowledged again");
            bench.write(b"more", 0).unwrap();
        }
        // Other objects are not concerned.
        let other = ObjectId {
            generation: 3,
            ..OBJECT
        };
        let file = bench.store().find_or_create(stripe(other)).unwrap();
        file.write_at(b"abc", 0).unwrap();
        bench.store().sync(other).unwrap();
        bench.store().remove(OBJECT).unwrap();
        bench.write(b"anew", 0).unwrap();
        bench.store().sync(OBJECT).unwrap();
    }
}

#[test]
fn a_directory_that_cannot_be_synced_is_told() {
    let bench = Bench::new();
    bench.write(b"abc", 0).unwrap();
    let fault = Fault::once(Act::SyncDirectory, Part::Any, libc::EIO);
    bench.disk.add(fault);
    assert!(bench.store().sync(OBJECT).is_err());
    assert!(bench.store().sync(OBJECT).is_err());
}

#[test]
fn a_read_error_is_an_error() {
    let bench = Bench::new();
    bench.write(&pattern(BLOCK), 0).unwrap();
    for part in [Part::Data, Part::Sums] {
        bench.disk.add(Fault::once(Act::Read, part, libc::EIO));
        assert!(bench.read(0, BLOCK).is_err());
        assert_eq!(bench.read(0, BLOCK).unwrap(), pattern(BLOCK));
    }
}

/// Stores that an older version wrote have no sums: their data is taken as it is, then checked.
#[test]
fn a_store_without_checksums_is_taken_over() {
    let mut bench = Bench::new();
    bench.write(&pattern(3 * BLOCK), 0).unwrap();
    drop(bench.store.take());
    fs::remove_file(bench.sums_path()).unwrap();
    bench.reopen();
    assert_eq!(bench.read(0, 3 * BLOCK).unwrap(), pattern(3 * BLOCK));
    bench.settle();
    bench.reopen();
    bench.flip_data(BLOCK_BYTES);
    damaged(bench.read(0, 3 * BLOCK));
}

#[test]
fn objects_that_left_the_cache_are_settled_too() {
    let mut bench = Bench::new();
    drop(bench.store.take());
    let disk = Arc::new(bench.disk.clone());
    bench.store = Some(Store::open_on(disk, bench.directory.path(), 1).unwrap());
    let object = |n: u64| ObjectId {
        inode: InodeNumber(0x12ab + 16 * n),
        generation: 2,
    };
    for n in 0..50 {
        let file = bench.store().find_or_create(stripe(object(n))).unwrap();
        file.write_at(&pattern(BLOCK), 0).unwrap();
    }
    bench.settle();
    bench.reopen();
    bench.flip_data(0);
    damaged(bench.read(0, 1));
}

#[test]
fn clusters_are_settled_one_by_one_and_a_busy_one_waits() {
    let mut bench = Bench::new();
    bench.write(&pattern(BLOCK), 0).unwrap();
    bench.write(&pattern(BLOCK), CLUSTER_BYTES).unwrap();
    bench
        .write(&pattern(2 * BLOCK), 3 * CLUSTER_BYTES - BLOCK_BYTES)
        .unwrap();
    let hour = Duration::from_secs(3600);
    assert_eq!(bench.store().settle(hour, &|| false), 1, "not rested yet");
    bench.settle();
    let length = 3 * CLUSTER_BYTES + BLOCK_BYTES;
    assert_eq!(bench.store().stat(OBJECT).unwrap().length, length);
    bench.reopen();
    for offset in [
        0,
        CLUSTER_BYTES,
        3 * CLUSTER_BYTES - BLOCK_BYTES,
        3 * CLUSTER_BYTES,
    ] {
        bench.flip_data(offset);
        assert_eq!(damaged(bench.read(offset, 1)), Damage::Block { offset });
        bench.flip_data(offset);
        bench.read(offset, 1).unwrap();
    }
}

/// A model of plain bytes beside the store: writes, cuts, settling and crashes in any order.
#[test]
fn random_operations_match_plain_bytes() {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    };
    let mut bench = Bench::new();
    let mut model: Vec<u8> = Vec::new();
    bench.write(b"", 0).unwrap();
    for step in 0..1500 {
        let offset = random(20 * BLOCK_BYTES);
        let length = random(3 * BLOCK_BYTES) as usize;
        match random(10) {
            0..=4 => {
                let bytes: Vec<u8> = (0..length).map(|_| random(256) as u8).collect();
                bench.write(&bytes, offset).unwrap();
                let end = offset as usize + length;
                if !bytes.is_empty() {
                    model.resize(model.len().max(end), 0);
                    model[offset as usize..end].copy_from_slice(&bytes);
                }
            }
            5 => {
                bench.store().truncate(stripe(OBJECT), offset).unwrap();
                model.truncate(offset as usize);
            }
            6 => {
                let file = bench.store().find(OBJECT).unwrap().unwrap();
                file.punch(offset, length as u64).unwrap();
                file.allocate(offset, length as u64).unwrap();
                let end = model.len().min(offset as usize + length);
                if let Some(hole) = model.get_mut(offset as usize..end) {
                    hole.fill(0);
                }
            }
            7 if step % 3 == 0 => bench.settle(),
            7 => bench.reopen(),
            _ => {
                let end = model.len().min(offset as usize + length);
                let expected = model.get(offset as usize..end).unwrap_or_default();
                assert_eq!(bench.read(offset, length).unwrap(), expected, "step {step}");
            }
        }
    }
    assert_eq!(bench.read(0, model.len() + 9).unwrap(), model);
}

#[test]
fn writers_and_readers_at_once_see_no_damage() {
    let bench = Bench::new();
    bench.write(&pattern(64 * BLOCK), 0).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4_u64 {
            let bench = &bench;
            scope.spawn(move || {
                for round in 0..400_u64 {
                    // Parts of the same blocks, so that each write reads what another one wrote.
                    let offset = (round * 997 + thread * 1024) % (60 * BLOCK_BYTES);
                    if thread < 2 {
                        bench.write(&[thread as u8; 3000], offset).unwrap();
                    } else {
                        bench.read(offset, 9000).unwrap();
                    }
                }
            });
        }
    });
    bench.read(0, 64 * BLOCK).unwrap();
}
