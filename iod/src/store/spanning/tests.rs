// SPDX-License-Identifier: MIT
//! A file of several parts is as one file is: each of its calls against a vector of bytes.

use std::io::Read;

use proptest::prelude::*;
use tempfile::TempDir;

use super::super::disk::KernelDisk;
use super::super::faulty::{Act, Fault, FaultyDisk, Part as Of};
use super::*;
use pvfs::runtime::net::{TcpListener, TcpStream};

/// Short, so that a range lies in many.
const SHORT_PART_BYTES: u64 = 1000;
/// Offsets of the tests end here.
const SPACE_BYTES: u64 = 8_500;

#[derive(Clone, Debug)]
enum Call {
    Write(u64, Vec<u8>),
    SetLength(u64),
    Punch(u64, u64),
    Allocate(u64, u64),
    Reopen,
    Sync,
}

fn calls() -> impl Strategy<Value = Vec<Call>> {
    let range = || (0..SPACE_BYTES, 1..3000_u64);
    let call = prop_oneof![
        4 => (0..SPACE_BYTES, proptest::collection::vec(1..255_u8, 1..2500))
            .prop_map(|(at, bytes)| Call::Write(at, bytes)),
        2 => (0..SPACE_BYTES).prop_map(Call::SetLength),
        2 => range().prop_map(|(at, length)| Call::Punch(at, length)),
        1 => range().prop_map(|(at, length)| Call::Allocate(at, length)),
        1 => Just(Call::Reopen),
        1 => Just(Call::Sync),
    ];
    proptest::collection::vec(call, 1..20)
}

struct Bench {
    directory: TempDir,
    disk: SpanningDisk,
}

impl Bench {
    fn new(disk: Arc<dyn Disk>) -> Self {
        Self {
            directory: tempfile::tempdir_in("/dev/shm").unwrap(),
            disk: SpanningDisk::new(disk, SHORT_PART_BYTES),
        }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("f")
    }

    fn open(&self) -> Box<dyn LocalFile> {
        self.disk.open(&self.path(), true).unwrap()
    }

    fn names(&self) -> usize {
        std::fs::read_dir(self.directory.path()).unwrap().count()
    }
}

fn resize(model: &mut Vec<u8>, end: u64) {
    let end = usize::try_from(end).unwrap();
    model.resize(model.len().max(end), 0);
}

/// What the file says of itself is what the model is.
fn compare(file: &dyn LocalFile, model: &[u8]) {
    let length = model.len() as u64;
    assert_eq!(file.length().unwrap(), length);
    assert_eq!(file.stat().unwrap().length, length);
    assert_eq!(file.stamp().unwrap().length, length);
    let mut bytes = vec![0xff; model.len() + 10];
    let filled = file.read_full(&mut bytes, 0).unwrap();
    assert!(bytes[..filled] == *model, "what is read");
    // Between one piece of data and the next there is nothing but zeros, and the end is a hole.
    let mut at = 0;
    while let Some(data) = file.next_data(at).unwrap().filter(|data| *data < length) {
        assert!(
            data >= at
                && model[at as usize..data as usize]
                    .iter()
                    .all(|byte| *byte == 0)
        );
        at = file.next_hole(data).unwrap();
        assert!(at > data && at <= length, "{data} {at} {length}");
    }
    assert!(model[at as usize..].iter().all(|byte| *byte == 0));
    assert_eq!(file.next_hole(length + 5).unwrap(), length + 5);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn many_parts_are_as_one_file(calls in calls()) {
        let bench = Bench::new(Arc::new(KernelDisk));
        let mut file = bench.open();
        let mut model: Vec<u8> = Vec::new();
        for call in calls {
            match call {
                Call::Write(at, bytes) => {
                    file.write_full(&bytes, at).unwrap();
                    resize(&mut model, at + bytes.len() as u64);
                    model[at as usize..at as usize + bytes.len()].copy_from_slice(&bytes);
                }
                Call::SetLength(length) => {
                    file.set_length(length).unwrap();
                    model.resize(length as usize, 0);
                }
                Call::Punch(at, length) => {
                    file.punch(at, length).unwrap();
                    let end = model.len().min((at + length) as usize);
                    let start = end.min(at as usize);
                    model[start..end].fill(0);
                }
                Call::Allocate(at, length) => file.allocate(at, length).unwrap(),
                Call::Reopen => {
                    drop(file);
                    file = bench.open();
                }
                Call::Sync => file.sync().unwrap(),
            }
            compare(file.as_ref(), &model);
        }
        drop(file);
        bench.disk.remove(&bench.path()).unwrap();
        prop_assert_eq!(bench.names(), 0, "nothing is left");
    }
}

#[test]
fn holes_are_sent_where_no_part_is() {
    let bench = Bench::new(Arc::new(KernelDisk));
    let file = bench.open();
    file.write_full(b"first", 0).unwrap();
    file.write_full(b"last", 5 * SHORT_PART_BYTES).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let sender = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let mut receiver = listener.accept().unwrap().0;
    let length = 5 * SHORT_PART_BYTES as usize + 4;
    let mut sent = 0;
    loop {
        match file.send(&sender, sent as u64, 1 << 20).unwrap() {
            0 => break,
            count => sent += count,
        }
    }
    assert_eq!(sent, length);
    let mut bytes = vec![1; length];
    receiver.read_exact(&mut bytes).unwrap();
    let mut expected = vec![0; length];
    expected[..5].copy_from_slice(b"first");
    expected[length - 4..].copy_from_slice(b"last");
    assert!(bytes == expected);
}

#[test]
fn what_a_part_could_not_flush_is_told_and_tried_again() {
    let disk = FaultyDisk::default();
    let bench = Bench::new(Arc::new(disk.clone()));
    let file = bench.open();
    for (part, act) in [(3, Act::Sync), (5, Act::SyncDirectory)] {
        file.write_full(b"far", part * SHORT_PART_BYTES).unwrap();
        let mut fault = Fault::once(act, Of::Any, libc::EIO);
        // The first part's flush succeeds.
        fault.after = u32::from(act == Act::Sync);
        disk.add(fault);
        assert!(file.sync().is_err(), "{act:?}");
        let before = disk.count(act, Of::Any);
        file.sync().unwrap();
        assert!(disk.count(act, Of::Any) > before, "{act:?} is done again");
    }
    let counts = || {
        let directories = disk.count(Act::SyncDirectory, Of::Any);
        (disk.count(Act::Sync, Of::Any), directories)
    };
    let before = counts();
    file.write_full(b"far", 3 * SHORT_PART_BYTES).unwrap();
    file.sync().unwrap();
    assert_eq!(counts(), (before.0 + 2, before.1), "two parts, no new name");
}

#[test]
fn an_interrupted_removal_is_done_by_the_next() {
    let disk = FaultyDisk::default();
    let bench = Bench::new(Arc::new(disk.clone()));
    let file = bench.open();
    for part in 1..5 {
        file.write_full(b"x", part * SHORT_PART_BYTES).unwrap();
    }
    drop(file);
    let mut fault = Fault::once(Act::Remove, Of::Any, libc::EIO);
    fault.after = 2;
    disk.add(fault);
    assert!(bench.disk.remove(&bench.path()).is_err());
    assert!(bench.path().exists(), "who lists objects still finds it");
    bench.disk.remove(&bench.path()).unwrap();
    assert_eq!(bench.names(), 0);
    bench.disk.remove(&bench.path()).unwrap();
}

#[test]
fn a_file_that_is_longer_than_a_part_is_refused() {
    let bench = Bench::new(Arc::new(KernelDisk));
    std::fs::write(bench.path(), [1; SHORT_PART_BYTES as usize + 1]).unwrap();
    let error = bench.disk.open(&bench.path(), true).unwrap_err();
    assert!(error.to_string().contains("before format 3"), "{error}");
}

#[test]
fn names_of_parts_are_parsed_strictly() {
    assert_eq!(part_of(OsStr::new("0000000a")), Some(10));
    for bad in [
        "",
        "a",
        "00000000",
        "+000000a",
        "0000000A",
        "0000000a ",
        "00000000a",
    ] {
        assert_eq!(part_of(OsStr::new(bad)), None, "{bad}");
    }
}

#[test]
fn the_last_byte_that_a_file_can_have_has_a_place() {
    let bench = Bench {
        disk: SpanningDisk::new(Arc::new(KernelDisk), PART_BYTES),
        // ext4's files end at 16 TiB, those of tmpfs do not.
        directory: tempfile::tempdir().unwrap(),
    };
    let file = bench.open();
    let last = pvfs::limits::FILE_SIZE_BYTES_MAX - 1;
    file.write_full(b"x", last).unwrap();
    assert_eq!(file.next_data(0).unwrap(), Some(last / 4096 * 4096));
    assert_eq!(file.length().unwrap(), last + 1);
}
