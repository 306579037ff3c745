// SPDX-License-Identifier: MIT
//! The bytes that docs/WIRE.md shows: a change here is a change of the protocol. Here are those of
//! greetings, heartbeats, fsck and scrub, and of changes; [`super::codec`] has the others.

use bincode::{Decode, Encode};

use super::codec::{decode, encode};
use super::header::{FrameHeader, FrameKind};
use crate::attr::{Credentials, FileKind, Space, Timestamp};
use crate::error::FsError;
use crate::ids::{ClientId, FileSystemId, Incarnation, InodeNumber, IodId, ObjectId, SessionId};
use crate::layout::{Layout, LayoutSlot};
use crate::name::Name;
use crate::proto::backup::BackupPart;
use crate::proto::check::{Counted, Finding, Page, Section, Seen, StrayPart, Verdict};
use crate::proto::iod::{Change, IodReply, IodRequest, IodResponse, StripeRef, Surveyed};
use crate::proto::lease::Notice;
use crate::proto::mgr::{IodStatus, MgrOperation, MgrReply, MgrRequest, MgrResponse};
use crate::proto::peer::Peer;
use crate::proto::report::{DiskId, IodReport, IodState};
use crate::proto::seal::{OrderKey, Reign, Seal};

const FIVE: ObjectId = ObjectId {
    inode: InodeNumber(5),
    generation: 0,
};
const SIX: ObjectId = ObjectId {
    inode: InodeNumber(6),
    generation: 300,
};
const PLACE: LayoutSlot = LayoutSlot {
    slot: 1,
    slots: 3,
    stripe_size: 64 << 10,
    layout_hash: 0x0506_0708,
};
const CTIME: Timestamp = Timestamp {
    seconds: 1_000_000,
    nanoseconds: 9,
};

/// Panics unless docs/WIRE.md shows the frame with this body.
pub(super) fn assert_documented(kind: FrameKind, request_id: u64, body: &[u8]) {
    let header = FrameHeader::new(kind, request_id, body, 0).to_bytes();
    let frame: Vec<u8> = header.iter().chain(body).copied().collect();
    let hex: Vec<String> = frame.iter().map(|byte| format!("{byte:02x}")).collect();
    let lines: Vec<String> = hex.chunks(16).map(|line| line.join(" ")).collect();
    let grid = format!("```\n{}\n```", lines.join("\n"));
    let document = include_str!("../../../docs/WIRE.md");
    assert!(
        document.contains(&grid),
        "{kind:?} {request_id} is not in docs/WIRE.md:\n{grid}"
    );
}

/// The frame is documented, and nothing shorter or longer is taken for it.
fn golden<T>(kind: FrameKind, request_id: u64, message: &T)
where
    T: Encode + Decode<()> + PartialEq + std::fmt::Debug,
{
    let mut body = encode(message).unwrap();
    assert_documented(kind, request_id, &body);
    assert_eq!(decode::<T>(&body).as_ref(), Ok(message));
    for length in 0..body.len() {
        assert!(decode::<T>(&body[..length]).is_err(), "{length} bytes");
    }
    body.push(0);
    assert!(decode::<T>(&body).is_err(), "a byte too many");
}

fn ask_mgr(request_id: u64, sequence: u64, operation: MgrOperation) {
    let request = MgrRequest {
        client: ClientId(9),
        sequence,
        answered_below: 1,
        credentials: Credentials::ROOT,
        operation,
    };
    golden(FrameKind::MgrRequest, request_id, &request);
}

fn mgr_says(request_id: u64, response: MgrResponse) {
    golden(FrameKind::MgrReply, request_id, &MgrReply::Ok(response));
}

fn ask_iod(request_id: u64, request: &IodRequest) {
    golden(FrameKind::IodRequest, request_id, request);
}

fn iod_says(request_id: u64, reply: &IodReply) {
    golden(FrameKind::IodReply, request_id, reply);
}

#[test]
fn what_a_backup_asks_mgr() {
    let (copy, offset) = (7, 512 << 10);
    ask_mgr(60, 0, MgrOperation::Backup { copy, offset });
    let copying = BackupPart::Copying {
        bytes_done: 4096,
        bytes_total: 1_000_000,
    };
    mgr_says(60, MgrResponse::Backup(copying));
    mgr_says(61, MgrResponse::Backup(BackupPart::Checking));
    let bytes = BackupPart::Bytes {
        bytes: b"copy".to_vec(),
        bytes_total: offset + 4,
        records: 3,
        damaged_records: 1,
    };
    mgr_says(62, MgrResponse::Backup(bytes));
}

#[test]
fn what_fsck_asks_mgr() {
    let name = || Name::new(*b"f").unwrap();
    let directory = InodeNumber(1);
    let counters = Counted {
        inode_next: 8,
        inodes_used: 4,
    };
    let after = Vec::new();
    let section = Section::Dentries;
    ask_mgr(20, 0, MgrOperation::Inspect { section, after });
    let (inode, kind) = (InodeNumber(5), FileKind::Regular);
    let dangling = Finding::DanglingName {
        directory,
        name: name(),
        inode,
    };
    let dentry = Seen::Dentry {
        directory,
        name: name(),
        inode,
        kind,
    };
    let page = |seen, findings, next| {
        MgrResponse::Page(Page {
            seen,
            findings,
            records: 1,
            next,
            counters,
        })
    };
    let next = Some(b"D\0\0\0\0\0\0\0\x01f".to_vec());
    mgr_says(20, page(vec![dentry], vec![dangling.clone()], next));
    let seen = Seen::Inode {
        inode,
        kind,
        nlink: 1,
        ctime: CTIME,
        entries: None,
        orphan: false,
    };
    mgr_says(21, page(vec![seen], vec![], None));
    let seen = Seen::File {
        object: FIVE,
        layout: Layout::new(65_536, 0, vec![IodId(1), IodId(2)]).unwrap(),
        size: 70_000,
        ctime: CTIME,
        filled: 70_000,
    };
    mgr_says(22, page(vec![seen], vec![], None));
    let objects = vec![FIVE, SIX];
    let iod = IodId(2);
    ask_mgr(23, 0, MgrOperation::FindStray { iod, objects });
    mgr_says(23, MgrResponse::Objects(vec![SIX]));
    ask_mgr(24, 1, MgrOperation::Examine(dangling));
    mgr_says(24, MgrResponse::Verdict(Verdict::Repairable));
    let part = StrayPart {
        iod,
        length: 7,
        place: Some(PLACE),
    };
    let stray = Finding::StrayObject {
        object: SIX,
        parts: vec![part],
    };
    ask_mgr(25, 2, MgrOperation::Repair(stray));
}

const REPORT: IodReport = IodReport {
    space: Space {
        bytes_total: 1 << 30,
        bytes_free: 1 << 20,
        bytes_available: 65_536,
    },
    inodes_total: 1000,
    inodes_free: 10,
    writable: true,
    disk: Some(DiskId {
        boot: 0x0102_0304,
        device: 2049,
    }),
};

#[test]
fn greetings_and_heartbeats() {
    let hello = MgrOperation::Hello {
        number: 7,
        opens: vec![],
        leases: true,
        locks: vec![],
        more: false,
        news: true,
        peer: Peer {
            host: "node3".into(),
            place: Some("/mnt".into()),
            program: "pvfs-fuse".into(),
            pid: 123,
        },
    };
    ask_mgr(40, 0, hello);
    ask_mgr(41, 0, MgrOperation::KeepAlive);
    let (iod, report) = (IodId(2), REPORT);
    ask_mgr(42, 0, MgrOperation::IodHeartbeat { iod, report });
    let status = IodStatus {
        iod,
        address: "node2:7000".into(),
        incarnation: Incarnation(77),
        state: IodState::Suspect,
        state_ms: 4,
        report,
    };
    golden(FrameKind::MgrNotice, 0, &Notice::Iods(vec![status]));
}

#[test]
fn seals_and_orders() {
    let seal = Seal {
        reign: Reign {
            era: 1,
            starts: 65_539,
            nonce: 0x0102,
        },
        number: 7,
        secret: 0x0304,
    };
    let (iod, file_system) = (IodId(2), FileSystemId(9));
    let introduction = MgrOperation::RegisterIod {
        iod: Some(iod),
        file_system: Some(file_system),
        seal: Some(seal),
        incarnation: Incarnation(77),
        accepts_older: false,
        address: "node2:7000".into(),
        report: REPORT,
    };
    ask_mgr(50, 1, introduction);
    let key = OrderKey(0x0506);
    let registered = MgrResponse::Registered {
        iod,
        file_system,
        seal,
        key,
    };
    mgr_says(50, registered);
    ask_iod(51, &IodRequest::Ping);
    let pong = IodResponse::Pong {
        iod: Some(iod),
        file_system: Some(file_system),
        incarnation: Some(Incarnation(77)),
    };
    iod_says(51, &Ok(pong));
    ask_iod(52, &IodRequest::Remove { object: FIVE, key });
    iod_says(52, &Err(FsError::Deposed));
}

#[test]
fn what_fsck_and_scrub_ask_an_iod() {
    let after = Some(FIVE);
    let objects_max = 1000;
    ask_iod(30, &IodRequest::List { after, objects_max });
    let objects = vec![SIX];
    iod_says(30, &Ok(IodResponse::Objects { objects, end: true }));
    let objects = vec![FIVE, SIX];
    ask_iod(31, &IodRequest::Survey { objects });
    let answers = vec![
        Surveyed::Absent,
        Surveyed::Present {
            length: 4096,
            place: Some(PLACE),
        },
        Surveyed::Present {
            length: 0,
            place: None,
        },
        Surveyed::Lost,
        Surveyed::Failed,
    ];
    iod_says(31, &Ok(IodResponse::Surveyed(answers)));
    let scrub = IodRequest::Scrub {
        object: FIVE,
        offset: 65_536,
        length: 8 << 20,
    };
    ask_iod(32, &scrub);
    let scrubbed = IodResponse::Scrubbed {
        bytes: 1 << 20,
        damage: vec![(65_536, 69_632)],
        next: Some(1 << 20),
    };
    iod_says(32, &Ok(scrubbed));
    // A read of what the disk damaged.
    iod_says(33, &Err(FsError::Io));
}

#[test]
fn what_names_a_change() {
    let change = Change {
        session: SessionId(0x0102_0304),
        slot: 2,
        sequence: 300,
    };
    ask_iod(40, &IodRequest::OpenSession);
    iod_says(40, &Ok(IodResponse::Session(change.session)));
    let stripe = StripeRef {
        object: FIVE,
        place: PLACE,
    };
    let (offset, length, fence) = (65_536, 4096, 1 << 40);
    ask_iod(
        41,
        &IodRequest::Punch {
            stripe,
            offset,
            length,
            fence,
            change,
        },
    );
    iod_says(41, &Err(FsError::SessionLost));
    ask_iod(42, &IodRequest::Settle { change });
    iod_says(42, &Ok(IodResponse::Unmade { stored: 4096 }));
}
