// SPDX-License-Identifier: MIT
//! A change is made once: whatever becomes of its reply and of its first copy, and whatever others
//! have written in between.
//!
//! ```text
//!   client --- Tap ---> iod       the tap loses a reply that it has read, or holds a request back
//!   other  -----------> iod       writes to the same place meanwhile
//! ```

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail by panicking, as tests do"
)]

mod common;

use std::io::{Error, ErrorKind, Read, Result, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::peer::{Peer, read, write};
use common::{Cluster, KEY, object, pattern, place, stripe};
use pvfs::address::Endpoint;
use pvfs::client::pool::{IodPool, PoolOptions};
use pvfs::client::striped;
use pvfs::client::transport::{ByteStream, Tcp, Transport};
use pvfs::error::FsError;
use pvfs::layout::Layout;
use pvfs::proto::iod::{Change, IodRequest, IodResponse};
use pvfs::wire::codec::encode;
use pvfs::wire::header::{FrameHeader, FrameKind};

type Meanwhile = Box<dyn FnOnce() + Send>;
type Act = fn(&IodPool, &Layout) -> std::result::Result<(), FsError>;

/// A connection, and what was to be sent on it.
type Held = (Box<dyn ByteStream>, Vec<u8>);

/// What happens to the next request.
enum Fate {
    /// The iod answers it, then this happens, and its connection breaks.
    ReplyLost(Meanwhile),
    /// It does not arrive, and its connection breaks for the client.
    HeldBack,
}

#[derive(Clone, Default)]
struct Tap {
    fate: Arc<Mutex<Option<Fate>>>,
    held: Arc<Mutex<Option<Held>>>,
}

struct Tapped {
    tap: Tap,
    inner: Option<Box<dyn ByteStream>>,
    held: Vec<u8>,
}

impl Tap {
    fn pool(&self, cluster: &Cluster) -> IodPool {
        let options = PoolOptions {
            transport: Arc::new(self.clone()),
            ..PoolOptions::default()
        };
        IodPool::new(cluster.table.clone(), options)
    }

    fn next(&self, fate: Fate) {
        *self.fate.lock().unwrap() = Some(fate);
    }

    fn was_used(&self) -> bool {
        self.fate.lock().unwrap().is_none()
    }

    /// What was held back arrives now; returns when the iod has answered.
    fn let_go(&self) {
        let (mut stream, bytes) = self.held.lock().unwrap().take().unwrap();
        stream.write_all(&bytes).unwrap();
        assert!(read_some(&mut stream, &mut [0; 100]).unwrap() > 0);
    }
}

fn read_some(stream: &mut Box<dyn ByteStream>, bytes: &mut [u8]) -> Result<usize> {
    loop {
        match stream.read(bytes) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            outcome => return outcome,
        }
    }
}

impl Transport for Tap {
    fn connect(&self, endpoint: &Endpoint, timeout: Duration) -> Result<Box<dyn ByteStream>> {
        Ok(Box::new(Tapped {
            tap: self.clone(),
            inner: Some(Tcp.connect(endpoint, timeout)?),
            held: Vec::new(),
        }))
    }
}

impl ByteStream for Tapped {}

impl Tapped {
    fn inner(&mut self) -> Result<&mut Box<dyn ByteStream>> {
        let gone = || Error::from(ErrorKind::ConnectionReset);
        self.inner.as_mut().ok_or_else(gone)
    }
}

impl Read for Tapped {
    fn read(&mut self, bytes: &mut [u8]) -> Result<usize> {
        let fate = self.tap.fate.lock().unwrap().take();
        match fate {
            None => self.inner()?.read(bytes),
            Some(Fate::ReplyLost(meanwhile)) => {
                assert!(read_some(self.inner()?, bytes)? > 0);
                self.inner = None;
                meanwhile();
                Err(ErrorKind::ConnectionReset.into())
            }
            Some(Fate::HeldBack) => {
                let held = (self.inner.take().unwrap(), std::mem::take(&mut self.held));
                *self.tap.held.lock().unwrap() = Some(held);
                Err(ErrorKind::ConnectionReset.into())
            }
        }
    }
}

impl Write for Tapped {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        if let Some(Fate::HeldBack) = *self.tap.fate.lock().unwrap() {
            self.held.extend_from_slice(bytes);
            return Ok(bytes.len());
        }
        self.inner()?.write(bytes)
    }

    fn flush(&mut self) -> Result<()> {
        Ok(())
    }
}

const LENGTH: usize = 6000;
const RANGE: std::ops::Range<u64> = 0..LENGTH as u64;

/// All that changes bytes of a file, each with what is there afterwards. File 2 has bytes of 2.
const ACTS: [(&str, u8, Act); 4] = [
    ("write", 1, |pool, layout| {
        striped::write(pool, layout, object(1), 0, &[1; LENGTH])
    }),
    ("punch", 0, |pool, layout| {
        striped::punch(pool, layout, object(1), 0, RANGE)
    }),
    ("copy", 2, |pool, layout| {
        let (from, to) = (place(layout, object(2), 0), place(layout, object(1), 0));
        striped::copy_at_iods(pool, &from, &to, 0, LENGTH as u64)
    }),
    ("truncate", 0, |pool, layout| {
        striped::truncate(pool, layout, object(1), 0, KEY)
    }),
];

fn content(pool: &IodPool, layout: &Layout) -> Vec<u8> {
    let mut bytes = vec![9; LENGTH];
    striped::read(pool, &place(layout, object(1), 0), &mut bytes).unwrap();
    bytes
}

/// An iod with both files, and a client that has a connection and has changed something.
fn start(tap: &Tap) -> (Cluster, Layout, IodPool) {
    let cluster = Cluster::start(1);
    let layout = cluster.layout(64 << 10);
    let client = tap.pool(&cluster);
    for inode in [1, 2] {
        let old = [if inode == 1 { 7 } else { 2 }; LENGTH];
        striped::write(&client, &layout, object(inode), 0, &old).unwrap();
    }
    (cluster, layout, client)
}

/// The other client reads what was changed, and writes. Its write returns.
fn others_write(cluster: &Cluster, layout: &Layout, expected: u8) -> Meanwhile {
    let (pool, layout) = (cluster.pool.clone(), layout.clone());
    Box::new(move || {
        assert_eq!(content(&pool, &layout), [expected; LENGTH]);
        striped::write(&pool, &layout, object(1), 0, &[3; LENGTH]).unwrap();
    })
}

#[test]
fn a_change_whose_reply_was_lost_is_not_made_again_over_what_another_wrote() {
    for (name, after, act) in ACTS {
        let tap = Tap::default();
        let (cluster, layout, client) = start(&tap);
        tap.next(Fate::ReplyLost(others_write(&cluster, &layout, after)));
        assert_eq!(act(&client, &layout), Ok(()), "{name}");
        assert!(tap.was_used());
        assert_eq!(content(&cluster.pool, &layout), [3; LENGTH], "{name}");
    }
}

#[test]
fn a_first_copy_that_arrives_after_the_second_changes_nothing() {
    for (name, after, act) in ACTS {
        let tap = Tap::default();
        let (cluster, layout, client) = start(&tap);
        tap.next(Fate::HeldBack);
        assert_eq!(act(&client, &layout), Ok(()), "{name}");
        others_write(&cluster, &layout, after)();
        tap.let_go();
        assert_eq!(content(&cluster.pool, &layout), [3; LENGTH], "{name}");
        // And after the client's next change, which may have the same slot.
        tap.next(Fate::HeldBack);
        assert_eq!(act(&client, &layout), Ok(()), "{name}");
        striped::write(&client, &layout, object(1), 0, &[4; LENGTH]).unwrap();
        tap.let_go();
        assert_eq!(content(&cluster.pool, &layout), [4; LENGTH], "{name}");
    }
}

/// An iod that is started again still knows what it has made.
#[test]
fn a_change_is_not_made_again_after_a_restart_of_the_iod() {
    for (name, after, act) in ACTS {
        let tap = Tap::default();
        let (cluster, layout, client) = start(&tap);
        let write = others_write(&cluster, &layout, after);
        let cluster = Arc::new(Mutex::new(cluster));
        let restart = {
            let cluster = Arc::clone(&cluster);
            move || {
                let iod = &mut cluster.lock().unwrap().iods[0];
                iod.stop();
                iod.run();
                write();
            }
        };
        tap.next(Fate::ReplyLost(Box::new(restart)));
        assert_eq!(act(&client, &layout), Ok(()), "{name}");
        let pool = cluster.lock().unwrap().pool.clone();
        assert_eq!(content(&pool, &layout), [3; LENGTH], "{name}");
    }
}

/// Where the iod has forgotten what it has made, as after a restart of its machine, a change that
/// others may have seen is not made anew, and its caller is told; one that nobody else can have seen is.
#[test]
fn where_it_is_forgotten_a_change_is_made_anew_only_by_whoever_is_alone() {
    for is_alone in [false, true] {
        let tap = Tap::default();
        let (cluster, layout, client) = start(&tap);
        let client = client.while_held(Arc::new(|| true), is_alone);
        let cluster = Arc::new(Mutex::new(cluster));
        let forget = {
            let cluster = Arc::clone(&cluster);
            move || {
                let iod = &mut cluster.lock().unwrap().iods[0];
                iod.stop();
                std::fs::remove_file(iod.directory.path().join("sessions")).unwrap();
                iod.run();
            }
        };
        tap.next(Fate::ReplyLost(Box::new(forget)));
        let expected = match is_alone {
            true => Ok(()),
            false => Err(FsError::SessionLost),
        };
        let (_, _, write) = ACTS[0];
        assert_eq!(write(&client, &layout), expected);
        assert_eq!(write(&client, &layout), Ok(()), "in a new session");
    }
}

/// What its caller has given up is over when the same client changes anything else.
#[test]
fn a_change_that_was_given_up_is_not_made_after_the_next_one() {
    for (name, _, act) in ACTS {
        let tap = Tap::default();
        let (cluster, layout, client) = start(&tap);
        tap.next(Fate::HeldBack);
        let patience = pvfs::client::patience::Patience::endless().at_most(Duration::ZERO);
        let given_up = act(&client.with_patience(patience), &layout);
        assert_eq!(given_up, Err(FsError::Io), "{name}");
        striped::write(&client, &layout, object(1), 0, &[4; LENGTH]).unwrap();
        tap.let_go();
        assert_eq!(content(&cluster.pool, &layout), [4; LENGTH], "{name}");
    }
}

/// Where the lease ends before the reply comes, the client learns what became of its change, and does
/// not make it anew where it was made.
#[test]
fn a_change_under_a_lost_lease_is_asked_for_and_not_sent_again() {
    for (name, after, act) in ACTS {
        let tap = Tap::default();
        let (cluster, layout, client) = start(&tap);
        let held = Arc::new(AtomicBool::new(true));
        let under_lease = {
            let held = Arc::clone(&held);
            client.while_held(Arc::new(move || held.load(Ordering::SeqCst)), false)
        };
        let lose = {
            let (held, write) = (Arc::clone(&held), others_write(&cluster, &layout, after));
            move || {
                held.store(false, Ordering::SeqCst);
                write();
            }
        };
        tap.next(Fate::ReplyLost(Box::new(lose)));
        assert_eq!(act(&under_lease, &layout), Ok(()), "{name} was made");
        assert_eq!(content(&cluster.pool, &layout), [3; LENGTH], "{name}");
        tap.next(Fate::HeldBack);
        let late = act(&under_lease, &layout);
        assert_eq!(late, Err(FsError::Fenced), "{name} was not made");
        tap.let_go();
        assert_eq!(content(&cluster.pool, &layout), [3; LENGTH], "{name}");
    }
}

/// Two copies of a write dribble in, and another client writes over what is stored already: what
/// either brings is stored where it was not yet, and nowhere else.
#[test]
fn each_piece_of_a_write_is_stored_once_whichever_copy_brings_it() {
    let cluster = Cluster::start(1);
    let iod = &cluster.iods[0];
    let bytes = pattern(1, 1_000_000);
    let (mut first, mut second, mut other) =
        (Peer::connect(iod), Peer::connect(iod), Peer::connect(iod));
    let request = first.named(&write(1, 0));
    let body = encode(&request).unwrap();
    let header = FrameHeader::new(FrameKind::IodRequest, 7, &body, bytes.len());
    first.stream.write_all(&header.to_bytes()).unwrap();
    first.stream.write_all(&body).unwrap();
    first.stream.write_all(&bytes[..300_000]).unwrap();
    // The first piece of 256 KiB is there, and is seen.
    while other.call(&read(1, 0, 10), &[]).1 != bytes[..10] {}
    assert_eq!(other.call(&write(1, 0), &[3; 10]).0, Ok(IodResponse::Done));
    assert_eq!(second.call(&request, &bytes).0, Ok(IodResponse::Done));
    let far = 900_000;
    assert_eq!(
        other.call(&write(1, far), &[4; 10]).0,
        Ok(IodResponse::Done)
    );
    first.stream.write_all(&bytes[300_000..]).unwrap();
    assert_eq!(first.receive().1, Ok(IodResponse::Done));
    let mut expected = bytes;
    expected[..10].fill(3);
    expected[900_000..900_010].fill(4);
    let found = other.call(&read(1, 0, 1_000_000), &[]).1;
    assert!(found == expected);
}

#[test]
fn a_change_without_a_session_is_refused_and_changes_nothing() {
    let cluster = Cluster::start(1);
    let mut peer = Peer::connect(&cluster.iods[0]);
    let named = peer.named(&write(1, 0));
    let IodRequest::Write { change, .. } = named else {
        panic!()
    };
    let with = |change: Change| IodRequest::Write {
        stripe: stripe(1),
        offset: 0,
        fence: 0,
        change,
    };
    let unknown = Change {
        session: pvfs::ids::SessionId(change.session.0 ^ 1),
        ..change
    };
    let huge = Change {
        slot: u32::MAX,
        ..change
    };
    for (change, error) in [
        (unknown, FsError::SessionLost),
        (huge, FsError::InvalidArgument),
    ] {
        assert_eq!(peer.call(&with(change), b"abc").0, Err(error));
        let settle = IodRequest::Settle { change };
        assert_eq!(peer.call(&settle, &[]).0, Err(error));
    }
    assert_eq!(peer.call(&read(1, 0, 3), &[]).1, b"");
    assert_eq!(peer.call(&named, b"abc").0, Ok(IodResponse::Done));
}
