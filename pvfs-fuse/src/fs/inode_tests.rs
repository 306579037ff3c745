// SPDX-License-Identifier: MIT
//! Tests of [`super`].

use super::*;
use crate::fs::lease::Io;
use crate::fs::lease::tests::grant;
use pvfs::attr::{FileKind, Timestamp};
use pvfs::ids::IodId;
use pvfs::proto::lease::Lease;

pub(in crate::fs) fn attr(size: u64, change: u64) -> Attr {
    Attr {
        inode: InodeNumber(7),
        generation: 1,
        kind: FileKind::Regular,
        mode: 0o644,
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        size,
        atime: Timestamp::default(),
        mtime: Timestamp::default(),
        ctime: Timestamp::default(),
        change,
        allocated: None,
        filled: 0,
        has_acl: false,
        has_capability: false,
    }
}

/// What was written without a gap is filled; what others cut off is not.
#[test]
fn filled_ends_at_the_first_gap() {
    let filled = |size, change, filled| Attr {
        filled,
        ..attr(size, change)
    };
    let mut state = InodeState::new(&filled(10, 1, 10));
    assert_eq!(state.filled(), 10);
    state.wrote(10..100, OpenId(1));
    state.wrote(101..200, OpenId(1));
    assert_eq!((state.filled(), state.end()), (100, 200));
    let report = state.begin_report().unwrap();
    assert_eq!((report.filled, report.size_min), (100, 200));
    state.report_failed(report);
    assert_eq!(state.filled(), 100);
    let report = state.begin_report().unwrap();
    state.report_done(&report, &filled(200, 2, 100));
    assert_eq!(state.filled(), 100);
    // Space that is reserved beyond the end is not written.
    state.changed(0..300, OpenId(1));
    assert_eq!((state.filled(), state.end()), (100, 300));
    let report = state.begin_report().unwrap();
    state.report_done(&report, &filled(300, 3, 100));
    state.learn(&filled(0, 4, 0));
    state.learn(&filled(300, 5, 0));
    assert_eq!(state.filled(), 0);
    state.wrote(0..7, OpenId(1));
    assert_eq!(state.filled(), 7);
    state.know_filled(&filled(300, 5, 3));
    assert_eq!(state.filled(), 3);
}

fn mgr_open(number: u64) -> MgrOpen {
    MgrOpen {
        open: OpenId(number),
        access: Access {
            read: true,
            write: true,
        },
        layout: Layout::new(4096, 0, vec![IodId(1)]).unwrap(),
        object: attr(0, 1).object(),
    }
}

#[test]
fn a_write_is_seen_here_before_mgr_hears_of_it() {
    let mut state = InodeState::new(&attr(10, 1));
    state.wrote(0..100, OpenId(1));
    assert_eq!(state.end(), 100);
    let report = state.begin_report().unwrap();
    assert_eq!((report.size_min, state.end()), (100, 100));
    state.report_done(&report, &attr(100, 2));
    assert_eq!((state.end(), state.is_dirty()), (100, false));
    assert_eq!(state.begin_report(), None);
}

#[test]
fn a_write_during_a_report_is_reported_later() {
    let mut state = InodeState::new(&attr(0, 1));
    state.wrote(0..100, OpenId(1));
    let report = state.begin_report().unwrap();
    state.wrote(0..50, OpenId(1));
    state.report_done(&report, &attr(100, 2));
    assert!(state.is_dirty());
    assert_eq!(
        state.begin_report().unwrap().size_min,
        50,
        "no more than was written since"
    );
}

#[test]
fn a_report_that_came_too_late_is_told_of_once() {
    let mut state = InodeState::new(&attr(0, 1));
    state.wrote(0..100, OpenId(1));
    let report = state.begin_report().unwrap();
    state.report_done(&report, &attr(7, 9));
    assert_eq!(state.end(), 7, "as others left it");
    assert!(state.tell_lost_writes() && !state.tell_lost_writes());
    // The lease comes back before the report is made.
    state.wrote(7..100, OpenId(1));
    state.lost();
    state.regained(&attr(8, 11));
    assert!(state.tell_lost_writes() && state.begin_report().is_none());
}

#[test]
fn an_open_that_a_report_names_stays_until_mgr_has_heard_it() {
    let mut state = InodeState::new(&attr(0, 1));
    state.opens = vec![mgr_open(1), mgr_open(2)];
    state.wrote(0..100, OpenId(1));
    assert_eq!(state.take_unneeded().opens, [], "it is to be reported");
    let report = state.begin_report().unwrap();
    assert_eq!(state.take_unneeded().opens, [], "it is being reported");
    state.report_done(&report, &attr(100, 2));
    assert_eq!(state.take_unneeded().opens, [OpenId(1), OpenId(2)]);
    assert!(state.opens.is_empty());
}

#[test]
fn a_lease_is_a_writers_until_mgr_has_heard_of_all_writes() {
    let mut state = InodeState::new(&attr(0, 1));
    state.opens = vec![mgr_open(1)];
    state.lease.granted(&grant(Lease::Write, 1), false);
    state.wrote(0..100, OpenId(1));
    assert!(state.take_unneeded().opens.is_empty());
    assert_eq!(state.lease.held(), Some(Lease::Write));
    let report = state.begin_report().unwrap();
    // Somebody has asked for the attributes meanwhile.
    state.lease.granted(&grant(Lease::Write, 2), false);
    state.report_done(&report, &attr(100, 2));
    let Unneeded { opens, lease } = state.take_unneeded();
    assert_eq!((opens, lease), (vec![OpenId(1)], 2));
    assert_eq!(state.lease.held(), Some(Lease::Read));
}

#[test]
fn a_report_under_an_open_that_is_gone_is_made_under_another_or_lost_once() {
    let mut state = InodeState::new(&attr(0, 1));
    state.opens = vec![mgr_open(1), mgr_open(2)];
    state.wrote(0..100, OpenId(1));
    let report = state.begin_report().unwrap();
    assert!(!state.report_refused(report));
    let report = state.begin_report().unwrap();
    assert_eq!((report.writer, report.size_min), (OpenId(2), 100));
    state.opens.clear();
    assert!(state.report_refused(report));
    assert!(!state.is_dirty() && !state.is_reporting());
    assert!(state.tell_lost_writes() && !state.tell_lost_writes());
}

#[test]
fn a_failed_report_is_made_again() {
    let mut state = InodeState::new(&attr(0, 1));
    state.wrote(0..100, OpenId(1));
    let report = state.begin_report().unwrap();
    state.report_failed(report);
    assert_eq!(state.end(), 100);
    assert_eq!(state.begin_report().unwrap().size_min, 100);
}

#[test]
fn what_a_report_tells_that_waits_for_iods_is_told_at_once_where_it_must_be() {
    let mut state = InodeState::new(&attr(0, 1));
    assert_eq!(state.begin_report_at_once(), None);
    state.tear(OpenId(1));
    state.wrote(0..100, OpenId(1));
    let waiting = state.begin_report().unwrap();
    let report = state.begin_report_at_once().unwrap();
    assert_eq!((report.size_min, report.doubt), (100, Some(Doubt::Torn)));
    state.report_done(&report, &attr(100, 2));
    state.report_done(&waiting, &attr(100, 2));
    assert_eq!(state.begin_report_at_once(), None, "mgr knows all");
    state.wrote(0..200, OpenId(1));
    assert!(state.begin_report_at_once().is_some() && !state.is_dirty());
}

/// The first was sent when others had truncated the file.
#[test]
fn what_mgr_has_heard_by_a_later_report_is_not_lost() {
    for told in [true, false] {
        let mut state = InodeState::new(&attr(0, 1));
        state.wrote(0..100, OpenId(1));
        let waiting = state.begin_report().unwrap();
        if told {
            let report = state.begin_report_at_once().unwrap();
            state.report_done(&report, &attr(100, 2));
        }
        state.report_done(&waiting, &attr(0, 3));
        assert_eq!(state.tell_lost_writes(), !told);
    }
}

/// Or another node would be given the place that the append has chosen.
#[test]
fn mgr_hears_of_an_append_whose_lease_is_lost() {
    let inode = Inode::new(&attr(50, 1));
    inode.state().lease.granted(&grant(Lease::Write, 1), false);
    let permit = inode.state().lease.begin_at_last(Io::Append);
    let appending = Appending::begin(&inode, permit, OpenId(3)).unwrap();
    let mut state = inode.state();
    state.lost();
    state.lease.lose();
    let report = state.begin_report_at_once().unwrap();
    assert_eq!(
        (report.writer, report.doubt),
        (OpenId(3), Some(Doubt::Lost))
    );
    state.report_done(&report, &attr(50, 1));
    drop(state);
    drop(appending);
    let mut state = inode.state();
    state.lost();
    assert_eq!(state.begin_report_at_once(), None, "nothing is on its way");
}

#[test]
fn a_torn_end_is_told_until_mgr_has_heard_of_it() {
    let mut state = InodeState::new(&attr(50, 1));
    state.lease.granted(&grant(Lease::Write, 1), false);
    state.tear(OpenId(1));
    assert!(state.is_dirty() && state.lease.is_torn());
    let report = state.begin_report().unwrap();
    assert_eq!((report.size_min, report.doubt), (0, Some(Doubt::Torn)));
    state.report_failed(report);
    let report = state.begin_report().unwrap();
    assert!(report.doubt == Some(Doubt::Torn) && !state.is_in_doubt());
    state.report_done(&report, &attr(50, 2));
    assert!(state.lease.is_torn(), "until the lease is given up");
    state.lease.start_giving_up();
    state.lease.give_up();
    assert!(!state.lease.is_torn());
}

#[test]
fn a_shorter_end_is_told_by_pages_unless_a_pass_came_between() {
    let mut state = InodeState::new(&attr(8192, 1));
    let fill = state.fills.begin((4096, 8192));
    state.fills.pass(0, 4096);
    assert!(state.ends_for_kernel(fill, 8192), "it knows that end");
    assert!(!state.ends_for_kernel(fill, 4096));
    state.fills.end(fill);
    // It asks again.
    let fill = state.fills.begin((4096, 8192));
    assert!(state.ends_for_kernel(fill, 4096));
    state.fills.pass(0, 4096);
    assert!(state.ends_for_kernel(fill, 4096), "it has heard of it");
}

#[test]
fn bytes_are_going_where_this_mount_truncates() {
    let inode = Inode::new(&attr(8192, 1));
    let truncating = Truncating::begin(&inode, 100);
    assert!(inode.state().is_cutting_below(101));
    assert!(!inode.state().is_cutting_below(100));
    drop(truncating);
    assert!(!inode.state().is_cutting_below(u64::MAX));
}

#[test]
fn older_attributes_do_not_replace_newer_ones() {
    let mut state = InodeState::new(&attr(0, 5));
    assert!(state.learn(&attr(30, 7)));
    assert!(!state.learn(&attr(0, 6)));
    assert_eq!((state.end(), state.told.change), (30, 7));
    assert!(state.learn(&attr(0, 8)), "a truncation elsewhere");
    assert_eq!(state.end(), 0);
}

#[test]
fn privileges_are_known_by_grants_alone() {
    let mut state = InodeState::new(&attr(0, 5));
    assert_eq!(state.privileges(), None);
    state.lease.granted(&grant(Lease::Shared, 1), false);
    state.keep(&attr(0, 5));
    assert_eq!(state.privileges(), Some(Privileges::default()));
    let program = Attr {
        mode: 0o4755,
        ..attr(0, 5)
    };
    state.keep(&program);
    assert!(state.privileges().is_some_and(|known| known.mode_bits));
    // Until a lease has been given up nobody else gives the file any.
    state.forget();
    assert!(state.privileges().is_some());
    state.stale();
    assert_eq!(state.privileges(), None);
}

#[test]
fn who_may_write_to_pages_is_known_as_long_as_anybody_may() {
    let user = |uid| Caller {
        uid,
        gid: 1,
        pid: 1,
    };
    let mut state = InodeState::new(&attr(0, 5));
    state.page_writers = 2;
    state.may_map(user(0).if_ordinary());
    assert_eq!(state.pages_user(), None);
    state.may_map(user(7).if_ordinary());
    state.may_map(user(0).if_ordinary());
    assert_eq!(state.pages_user(), Some(user(7)));
    state.closed_page_writer();
    assert_eq!(state.pages_user(), Some(user(7)));
    state.closed_page_writer();
    assert_eq!(state.pages_user(), None);
}

#[test]
fn a_sync_is_needed_once_for_each_write() {
    let mut state = InodeState::new(&attr(0, 5));
    assert!(state.begin_sync(), "an earlier open may have written");
    assert!(!state.begin_sync());
    state.wrote(0..1, OpenId(1));
    assert!(state.begin_sync());
    state.sync_failed();
    assert!(state.begin_sync());
}

#[test]
fn the_iods_are_asked_for_space_where_a_hole_may_be() {
    let mut state = InodeState::new(&attr(10_000, 5));
    state.wrote(10_000..20_000, OpenId(1));
    assert!(!state.begin_report().unwrap().asks_for_space);
    state.wrote(30_000..30_001, OpenId(1));
    let report = state.begin_report().unwrap();
    assert!(report.asks_for_space);
    state.report_failed(report);
    let report = state.begin_report().unwrap();
    assert!(report.asks_for_space);
    let sparse = Attr {
        allocated: Some(8192),
        ..attr(30_001, 6)
    };
    state.report_done(&report, &sparse);
    state.wrote(0..1, OpenId(1));
    assert!(state.begin_report().unwrap().asks_for_space);
}
