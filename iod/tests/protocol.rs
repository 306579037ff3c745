// SPDX-License-Identifier: MIT
//! Hostile and unlucky peers: whatever one connection sends, the others are served.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail by panicking, as tests do"
)]

mod common;

use std::io::{Read, Write};
use std::net::Shutdown;
use std::time::{Duration, Instant};

use common::peer::{Peer, read, write, write_under};
use common::{Iod, KEY, TEST_TIMEOUT, object, pattern, stripe};
use proptest::prelude::*;
use pvfs::error::FsError;
use pvfs::ids::{FileSystemId, IodId, ObjectId};
use pvfs::layout::LayoutSlot;
use pvfs::limits::{BODY_BYTES_MAX, PAYLOAD_BYTES_MAX};
use pvfs::proto::iod::{Change, IodRequest, IodResponse, StripeRef};
use pvfs::proto::seal::OrderKey;
use pvfs::wire::blocking::write_message;
use pvfs::wire::codec::encode;
use pvfs::wire::header::{FrameHeader, FrameKind, checksum};
use pvfs_iod::server::ServerLimits;

fn iod() -> Iod {
    Iod::start(1, ServerLimits::default())
}

fn alive(iod: &Iod) -> bool {
    let (pong, payload) = Peer::connect(iod).call(&IodRequest::Ping, &[]);
    let is_it = matches!(
        pong,
        Ok(IodResponse::Pong {
            iod: Some(IodId(1)),
            file_system: Some(FileSystemId(0xf5)),
            incarnation: Some(_),
        })
    );
    is_it && payload.is_empty()
}

/// A frame of a request with header fields of the attacker's choice and right checksums.
fn forged(body: &[u8], body_length: u32, payload_length: u32) -> Vec<u8> {
    let mut header = FrameHeader::new(FrameKind::IodRequest, 1, body, 0).to_bytes();
    header[16..20].copy_from_slice(&body_length.to_le_bytes());
    header[20..24].copy_from_slice(&payload_length.to_le_bytes());
    let sum = checksum(&header[..28]).to_le_bytes();
    header[28..].copy_from_slice(&sum);
    [&header[..], body].concat()
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let iod = iod();
    let mut peer = Peer::connect(&iod);
    let bytes = pattern(1, 100_000);
    peer.send(1, &write(5, 10), &bytes);
    peer.send(2, &read(5, 10, 100_000), &[]);
    peer.send(3, &IodRequest::Stat { object: object(5) }, &[]);
    peer.send(4, &read(5, 100_000, 500), &[]);
    peer.send(5, &read(5, 200_000, 500), &[]);
    assert_eq!(peer.receive(), (1, Ok(IodResponse::Done), vec![]));
    assert_eq!(peer.receive(), (2, Ok(IodResponse::Data), bytes.clone()));
    let (id, stat, _) = peer.receive();
    assert!(
        id == 3
            && matches!(
                stat,
                Ok(IodResponse::Stat {
                    length: 100_010,
                    ..
                })
            )
    );
    assert_eq!(
        peer.receive(),
        (4, Ok(IodResponse::Data), bytes[99_990..].to_vec())
    );
    assert_eq!(peer.receive(), (5, Ok(IodResponse::Data), vec![]));
}

#[test]
fn garbage_ends_its_own_connection_only() {
    let iod = iod();
    let body = encode(&IodRequest::Ping).unwrap();
    let mut wrong_kind = FrameHeader::new(FrameKind::IodReply, 1, &body, 0)
        .to_bytes()
        .to_vec();
    wrong_kind.extend(&body);
    let attacks = [
        b"GET / HTTP/1.1\r\nHost: iod\r\n\r\nAccept: */*\r\n\r\n".to_vec(),
        forged(&body, BODY_BYTES_MAX as u32 + 1, 0),
        forged(&body, u32::MAX, 0),
        forged(&body, body.len() as u32, PAYLOAD_BYTES_MAX as u32 + 1),
        forged(&body, body.len() as u32, u32::MAX),
        forged(&body, body.len() as u32, 5),
        forged(&[0xff; 9], 9, 0),
        wrong_kind,
    ];
    for (number, attack) in attacks.into_iter().enumerate() {
        let mut peer = Peer::connect(&iod);
        peer.stream.write_all(&attack).unwrap();
        assert!(peer.ends_by_a_cut(), "attack {number}");
        assert!(alive(&iod), "attack {number}");
    }
}

#[test]
fn a_refused_write_consumes_its_payload() {
    let iod = iod();
    let mut peer = Peer::connect(&iod);
    let beyond = IodRequest::Write {
        stripe: stripe(1),
        offset: u64::MAX - 3,
        fence: 0,
        change: Change::UNNAMED,
    };
    let (reply, _) = peer.call(&beyond, &pattern(1, 300_000));
    assert_eq!(reply, Err(FsError::FileTooLarge));
    assert_eq!(peer.call(&write(1, 0), b"abc").0, Ok(IodResponse::Done));
    assert_eq!(
        peer.call(&read(1, 0, 9), &[]),
        (Ok(IodResponse::Data), b"abc".to_vec())
    );
}

#[test]
fn a_torn_write_is_not_acknowledged_and_may_be_repeated() {
    let iod = iod();
    let bytes = pattern(3, 500_000);
    for sent in [0, 1, 40, 255 << 10, 499_999] {
        let mut peer = Peer::connect(&iod);
        let body = encode(&write(2, 0)).unwrap();
        let header = FrameHeader::new(FrameKind::IodRequest, 1, &body, bytes.len());
        peer.stream.write_all(&header.to_bytes()).unwrap();
        peer.stream.write_all(&body).unwrap();
        peer.stream.write_all(&bytes[..sent]).unwrap();
        peer.stream.shutdown(Shutdown::Write).unwrap();
        assert!(peer.ends_by_a_cut(), "{sent} bytes sent");
    }
    let mut peer = Peer::connect(&iod);
    assert_eq!(peer.call(&write(2, 0), &bytes).0, Ok(IodResponse::Done));
    assert!(peer.call(&read(2, 0, 500_000), &[]).1 == bytes);
}

#[test]
fn a_header_in_single_bytes_is_a_header() {
    let iod = iod();
    let mut peer = Peer::connect(&iod);
    for byte in forged(&encode(&IodRequest::Ping).unwrap(), 1, 0) {
        peer.stream.write_all(&[byte]).unwrap();
    }
    assert!(matches!(
        peer.receive(),
        (1, Ok(IodResponse::Pong { .. }), _)
    ));
}

#[test]
fn a_peer_that_stalls_within_a_frame_is_cut_and_one_that_rests_between_frames_is_not() {
    let stall_timeout = Duration::from_millis(200);
    let iod = Iod::start(
        1,
        ServerLimits {
            stall_timeout,
            ..ServerLimits::default()
        },
    );
    let mut resting = Peer::connect(&iod);
    assert!(resting.call(&IodRequest::Ping, &[]).0.is_ok());
    let start = Instant::now();
    let mut stalling = Peer::connect(&iod);
    stalling
        .stream
        .write_all(&forged(&[0], 1, 0)[..20])
        .unwrap();
    assert!(stalling.ends_by_a_cut());
    let mut stalling = Peer::connect(&iod);
    let body = encode(&write(2, 0)).unwrap();
    stalling
        .stream
        .write_all(&forged(&body, body.len() as u32, 1000))
        .unwrap();
    assert!(stalling.ends_by_a_cut());
    assert!(start.elapsed() >= 2 * stall_timeout);
    assert!(resting.call(&IodRequest::Ping, &[]).0.is_ok());
}

#[test]
fn a_peer_that_trickles_is_cut() {
    let frame_timeout = Duration::from_millis(300);
    let iod = Iod::start(
        1,
        ServerLimits {
            frame_timeout,
            ..ServerLimits::default()
        },
    );
    let mut peer = Peer::connect(&iod);
    let body = encode(&write(2, 0)).unwrap();
    peer.stream
        .write_all(&forged(&body, body.len() as u32, PAYLOAD_BYTES_MAX as u32))
        .unwrap();
    let start = Instant::now();
    // Ends when the iod's reset arrives.
    while peer.stream.write_all(&[0]).is_ok() {
        assert!(start.elapsed() < TEST_TIMEOUT);
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(start.elapsed() >= frame_timeout);
    assert!(alive(&iod));
}

#[test]
fn a_peer_that_takes_no_replies_is_cut() {
    let stall_timeout = Duration::from_millis(200);
    // Nothing is read until the iod has given up: its end of the connection is gone from the table
    // of a server that accepts a single connection.
    let limits = ServerLimits {
        stall_timeout,
        connections_max: 1,
        ..ServerLimits::default()
    };
    let iod = Iod::start(1, limits);
    let mut peer = Peer::connect(&iod);
    assert!(peer.call(&write(1, 0), &pattern(1, 4 << 20)).0.is_ok());
    for _ in 0..20 {
        peer.send(1, &read(1, 0, 4 << 20), &[]);
    }
    let start = Instant::now();
    loop {
        let mut other = Peer::connect(&iod);
        let sent = write_message(
            &mut other.stream,
            FrameKind::IodRequest,
            1,
            &IodRequest::Ping,
            &[],
        );
        let mut first = [0];
        if sent.is_ok() && matches!(other.stream.read(&mut first), Ok(1)) {
            break;
        }
        assert!(
            start.elapsed() < TEST_TIMEOUT,
            "the stalling peer still holds the connection"
        );
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A file that is cut while it is read: every reply has the announced length, and each byte is
/// the file's or zero.
#[test]
fn a_file_that_shrinks_under_a_reader_keeps_frames_whole() {
    let iod = iod();
    let length = 3 << 20;
    let bytes = vec![0xabu8; length];
    let address = iod.address;
    let done = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let reader = std::thread::spawn({
        let done = std::sync::Arc::clone(&done);
        move || {
            let mut peer = Peer::connect_to(address);
            let mut replies = 0;
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                let (reply, data) = peer.call(&read(1, 0, length as u32), &[]);
                assert_eq!(reply, Ok(IodResponse::Data));
                assert!(data.iter().all(|byte| matches!(byte, 0 | 0xab)));
                replies += 1;
            }
            replies
        }
    });
    let mut peer = Peer::connect(&iod);
    for _ in 0..150 {
        assert_eq!(peer.call(&write(1, 0), &bytes).0, Ok(IodResponse::Done));
        let cut = IodRequest::Truncate {
            stripe: stripe(1),
            length: 100,
            fence: 0,
            number: 0,
            change: Change::UNNAMED,
            key: KEY,
        };
        assert_eq!(peer.call(&cut, &[]).0, Ok(IodResponse::Done));
    }
    done.store(true, std::sync::atomic::Ordering::Relaxed);
    assert!(reader.join().unwrap() > 0);
}

#[test]
fn random_bytes_and_random_requests_never_take_the_iod_down() {
    let iod = iod();
    let request = prop_oneof![
        (any::<u64>(), any::<u32>(), any::<u64>(), any::<u32>()).prop_map(|(inode, g, o, l)| {
            let object = ObjectId {
                inode: pvfs::ids::InodeNumber(inode),
                generation: g,
            };
            IodRequest::Read {
                stripe: StripeRef {
                    object,
                    place: LayoutSlot::default(),
                },
                offset: o,
                length: l,
                filled: o,
            }
        }),
        (any::<u64>(), any::<u64>()).prop_map(|(i, length)| IodRequest::Truncate {
            stripe: stripe(i),
            length,
            fence: 0,
            number: 0,
            change: Change::UNNAMED,
            key: KEY,
        }),
        any::<u64>().prop_map(|i| IodRequest::Remove {
            object: object(i),
            key: KEY,
        }),
        any::<u64>().prop_map(|i| IodRequest::Sync { stripe: stripe(i) }),
        any::<u64>().prop_map(|i| IodRequest::Stat { object: object(i) }),
    ];
    let noise = prop::collection::vec(any::<u8>(), 1..200);
    let config = ProptestConfig {
        cases: 100,
        failure_persistence: None,
        ..Default::default()
    };
    let mut runner = proptest::test_runner::TestRunner::new(config);
    let outcome = runner.run(&(request, noise), |(request, noise)| {
        let mut peer = Peer::connect(&iod);
        // The object does not exist, so no reply carries data; a refusal is a reply.
        let (reply, data) = peer.call(&request, &[]);
        prop_assert!(data.is_empty());
        prop_assert!(!matches!(reply, Err(FsError::Io)), "{:?}", reply);
        // The iod may have cut the connection already, so either may fail.
        let _ = peer
            .stream
            .write_all(&noise)
            .and_then(|()| peer.stream.shutdown(Shutdown::Write));
        prop_assert!(peer.ends_by_a_cut());
        Ok(())
    });
    outcome.unwrap();
    assert!(alive(&iod));
}

fn local_path(iod: &Iod, inode: u64) -> std::path::PathBuf {
    let directory = iod
        .directory
        .path()
        .join(format!("objects/{:02x}", inode % 256));
    directory.join(format!("{inode:016x}.{:08x}", 0))
}

#[test]
fn a_full_disk_is_told_and_the_next_request_is_served() {
    let iod = iod();
    std::os::unix::fs::symlink("/dev/full", local_path(&iod, 3)).unwrap();
    let mut peer = Peer::connect(&iod);
    assert_eq!(
        peer.call(&write(3, 0), &pattern(1, 700_000)).0,
        Err(FsError::NoSpace)
    );
    assert_eq!(peer.call(&write(4, 0), b"abc").0, Ok(IodResponse::Done));
}

/// The kernel reports a failed flush once and forgets it; the iod does not.
#[test]
fn a_failed_flush_fails_every_later_one() {
    let iod = iod();
    let mut peer = Peer::connect(&iod);
    let mut sync = |inode| {
        peer.call(
            &IodRequest::Sync {
                stripe: stripe(inode),
            },
            &[],
        )
        .0
    };
    // fdatasync(2) of a device without it fails.
    std::os::unix::fs::symlink("/dev/full", local_path(&iod, 3)).unwrap();
    assert_eq!(sync(3), Err(FsError::Io));
    // The disk has recovered, and the file has left the cache of open files.
    std::fs::remove_file(local_path(&iod, 3)).unwrap();
    std::fs::write(local_path(&iod, 3), "").unwrap();
    for round in 1..20 {
        let inode = 3 + 16 * round;
        std::fs::write(local_path(&iod, inode), "").unwrap();
        assert_eq!(sync(inode), Ok(IodResponse::Done));
    }
    assert_eq!(sync(3), Err(FsError::Io));
    let mut peer = Peer::connect(&iod);
    let object = object(3);
    assert_eq!(
        peer.call(&IodRequest::Remove { object, key: KEY }, &[]).0,
        Ok(IodResponse::Done)
    );
    assert_eq!(
        peer.call(&IodRequest::Sync { stripe: stripe(3) }, &[]).0,
        Ok(IodResponse::Done)
    );
}

/// A client or a mgr that knows the layout wrongly neither reads nor changes what is here.
#[test]
fn a_request_for_another_place_of_the_layout_is_refused() {
    let iod = iod();
    let mut peer = Peer::connect(&iod);
    assert_eq!(peer.call(&write(1, 0), b"abc").0, Ok(IodResponse::Done));
    let (mut slot, mut layout) = (stripe(1), stripe(1));
    slot.place.slot = 1;
    layout.place.layout_hash = 7;
    for stripe in [slot, layout] {
        let (offset, length, fence) = (0, 3, 0);
        let change = Change::UNNAMED;
        for request in [
            IodRequest::Read {
                stripe,
                offset,
                length: 3,
                filled: 0,
            },
            IodRequest::Write {
                stripe,
                offset,
                fence,
                change,
            },
            IodRequest::Truncate {
                stripe,
                length: 0,
                fence,
                number: 0,
                change,
                key: KEY,
            },
            IodRequest::CutTail {
                stripe,
                length: 0,
                fence,
                change,
            },
            IodRequest::Punch {
                stripe,
                offset,
                length,
                fence,
                change,
            },
            IodRequest::Copy {
                from: stripe,
                from_offset: offset,
                from_filled: 0,
                to: self::stripe(2),
                to_offset: offset,
                length,
                fence,
                change,
            },
            IodRequest::Sync { stripe },
        ] {
            let payload: &[u8] = match request {
                IodRequest::Write { .. } => b"xyz",
                _ => b"",
            };
            assert_eq!(
                peer.call(&request, payload).0,
                Err(FsError::Io),
                "{request:?}"
            );
        }
    }
    assert_eq!(peer.call(&read(1, 0, 3), &[]).1, b"abc");
    assert_eq!(peer.call(&read(2, 0, 3), &[]).1, b"");
}

/// What was under way while its client lost its lease, or while mgr gave up waiting.
#[test]
fn writes_and_truncations_that_come_too_late_are_refused() {
    let iod = iod();
    let (mut old, mut new) = (Peer::connect(&iod), Peer::connect(&iod));
    let done = |peer: &mut Peer, request: &IodRequest, bytes: &[u8]| peer.call(request, bytes).0;
    let late = Err(FsError::Fenced);
    let cut = |length, fence, number| IodRequest::Truncate {
        stripe: stripe(1),
        length,
        fence,
        number,
        change: Change::UNNAMED,
        key: KEY,
    };
    assert_eq!(
        done(&mut old, &write_under(1, 0, 5), b"aaaa"),
        Ok(IodResponse::Done)
    );
    assert_eq!(
        done(&mut new, &write_under(1, 2, 6), b"bb"),
        Ok(IodResponse::Done)
    );
    assert_eq!(done(&mut old, &write_under(1, 0, 5), b"aaaa"), late);
    assert_eq!(new.call(&read(1, 0, 9), &[]).1, b"aabb");
    assert_eq!(done(&mut new, &cut(3, 6, 8), &[]), Ok(IodResponse::Done));
    assert_eq!(
        done(&mut new, &write_under(1, 3, 6), b"c"),
        Ok(IodResponse::Done)
    );
    assert_eq!(
        done(&mut old, &cut(3, 6, 7), &[]),
        late,
        "an earlier attempt"
    );
    assert_eq!(new.call(&read(1, 0, 9), &[]).1, b"aabc");
    let remove = IodRequest::Remove {
        object: object(1),
        key: KEY,
    };
    assert_eq!(done(&mut new, &remove, &[]), Ok(IodResponse::Done));
    assert_eq!(done(&mut old, &write_under(1, 0, 9), b"garbage"), late);
    assert_eq!(new.call(&read(1, 0, 9), &[]).1, b"");
}

/// What a client that is gone may still have on its way, also to an iod that has nothing of the file.
#[test]
fn a_fence_refuses_late_writes_where_there_is_no_object_too_and_tells_the_length() {
    let iod = iod();
    let mut peer = Peer::connect(&iod);
    let late = Err(FsError::Fenced);
    let fence = |inode, fence, number| IodRequest::Fence {
        stripe: stripe(inode),
        fence,
        number,
        key: KEY,
    };
    let length = |reply| match reply {
        Ok(IodResponse::Stat { length, .. }) => length,
        other => panic!("{other:?}"),
    };
    assert_eq!(
        peer.call(&write_under(1, 10, 5), b"aaaa").0,
        Ok(IodResponse::Done)
    );
    assert_eq!(length(peer.call(&fence(1, 6, 6), &[]).0), 14);
    assert_eq!(length(peer.call(&fence(2, 6, 7), &[]).0), 0);
    for inode in [1, 2] {
        assert_eq!(peer.call(&write_under(inode, 14, 5), b"b").0, late);
        assert_eq!(
            peer.call(&fence(inode, 6, 5), &[]).0,
            late,
            "an earlier attempt"
        );
        assert_eq!(
            peer.call(&write_under(inode, 0, 6), b"c").0,
            Ok(IodResponse::Done)
        );
    }
    assert_eq!(peer.call(&read(2, 0, 9), &[]).1, b"c");
}

/// A payload that dribbles in is stored piece by piece: those after the newer write are not.
#[test]
fn a_late_write_that_began_in_time_does_not_go_on() {
    let iod = iod();
    let bytes = pattern(1, 600_000);
    let mut old = Peer::connect(&iod);
    let body = encode(&old.named(&write_under(1, 0, 5))).unwrap();
    let header = FrameHeader::new(FrameKind::IodRequest, 7, &body, bytes.len());
    old.stream.write_all(&header.to_bytes()).unwrap();
    old.stream.write_all(&body).unwrap();
    old.stream.write_all(&bytes[..300_000]).unwrap();
    let mut new = Peer::connect(&iod);
    let whole = pattern(2, 600_000);
    assert_eq!(
        new.call(&write_under(1, 0, 6), &whole).0,
        Ok(IodResponse::Done)
    );
    old.stream.write_all(&bytes[300_000..]).unwrap();
    assert_eq!(old.receive().1, Err(FsError::Fenced));
    assert!(new.call(&read(1, 0, 600_000), &[]).1 == whole);
}

/// Whoever is not mgr could make a file unwritable by one large number, or remove it.
#[test]
fn orders_that_are_not_mgrs_are_refused() {
    let iod = iod();
    let mut peer = Peer::connect(&iod);
    let key = OrderKey(KEY.0 + 1);
    let (fence, number, length) = (u64::MAX - 1, u64::MAX - 1, 0);
    let (object, stripe, change) = (object(1), stripe(1), Change::UNNAMED);
    assert_eq!(
        peer.call(&write_under(1, 0, 5), b"abc").0,
        Ok(IodResponse::Done)
    );
    for order in [
        IodRequest::Truncate {
            stripe,
            length,
            fence,
            number,
            change,
            key,
        },
        IodRequest::Fence {
            stripe,
            fence,
            number,
            key,
        },
        IodRequest::Remove { object, key },
    ] {
        let refused = peer.call(&order, &[]).0;
        assert_eq!(refused, Err(FsError::Deposed), "{order:?}");
    }
    assert_eq!(
        peer.call(&write_under(1, 3, 5), b"d").0,
        Ok(IodResponse::Done)
    );
    assert_eq!(peer.call(&read(1, 0, 9), &[]).1, b"abcd");
}

/// Its data may be old: it is as good as away. What it refuses then it does when it is admitted.
#[test]
fn an_iod_that_is_not_admitted_serves_nothing_and_remembers_no_refusal() {
    let iod = iod();
    let mut peer = Peer::connect(&iod);
    assert_eq!(peer.call(&write(1, 0), b"abc").0, Ok(IodResponse::Done));
    let change = peer.named(&write(1, 3));
    let store = iod.store();
    store.admission().withdraw();
    for (request, payload) in [
        (read(1, 0, 3), &b""[..]),
        (change.clone(), b"d"),
        (IodRequest::OpenSession, b""),
        (IodRequest::Space, b""),
    ] {
        peer.send(9, &request, payload);
        assert_eq!(peer.receive().1, Err(FsError::TryAgain), "{request:?}");
    }
    peer.send(10, &IodRequest::Ping, &[]);
    let pong = peer.receive().1;
    let none = Ok(IodResponse::Pong {
        iod: Some(IodId(1)),
        file_system: Some(FileSystemId(0xf5)),
        incarnation: None,
    });
    assert_eq!(pong, none);
    store.admission().grant();
    peer.send(11, &change, b"d");
    assert_eq!(peer.receive().1, Ok(IodResponse::Done));
    assert_eq!(peer.call(&read(1, 0, 9), &[]).1, b"abcd");
}
