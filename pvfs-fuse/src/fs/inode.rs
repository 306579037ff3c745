// SPDX-License-Identifier: MIT
//! What this mount knows of a file that it has open: mgr's size, and what it wrote beyond mgr's
//! knowledge.
//!
//! A write is on the iods when it is acknowledged, but mgr learns of it only by a report. Until
//! then this mount alone knows how long the file is. Lock order: `reporting`, then `state`.

use std::sync::{Mutex, MutexGuard, PoisonError};

use pvfs::attr::{Attr, Credentials};
use pvfs::ids::{InodeNumber, OpenId};

/// A writer, in whose name mgr hears of the writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Writer {
    /// Its open.
    pub(super) open: OpenId,
    /// Whose writes: mgr drops set-uid and set-gid bits unless they are root's.
    pub(super) credentials: Credentials,
}

/// What mgr is to hear.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Report {
    /// The file is at least so long, bytes.
    pub(super) size_min: u64,
    /// Who says so.
    pub(super) writer: Writer,
}

/// A file that is open here.
#[derive(Debug)]
pub(super) struct Inode {
    pub(super) number: InodeNumber,
    /// Held while a report or a truncation is under way, so that whoever asks for the attributes
    /// waits for its outcome.
    pub(super) reporting: Mutex<()>,
    state: Mutex<InodeState>,
}

impl Inode {
    pub(super) fn new(attr: &Attr) -> Self {
        Self {
            number: attr.inode,
            reporting: Mutex::new(()),
            state: Mutex::new(InodeState::new(attr)),
        }
    }

    /// The state; a thread that panicked left it as good as any.
    pub(super) fn state(&self) -> MutexGuard<'_, InodeState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Taken before a report, a truncation, or anything else that changes the size at mgr.
    pub(super) fn lock_reporting(&self) -> MutexGuard<'_, ()> {
        self.reporting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Pure: see the module.
#[derive(Debug)]
pub(super) struct InodeState {
    /// As mgr said last.
    size: u64,
    /// The counter under which it said so.
    change: u64,
    /// End of the furthest write since the last report began.
    written_end: u64,
    /// End of the furthest write that the report under way tells of.
    reporting_end: u64,
    /// Who wrote since the last report began.
    writer: Option<Writer>,
    /// Something may be on an iod that is not on its disk.
    unsynced: bool,
}

impl InodeState {
    const fn new(attr: &Attr) -> Self {
        Self {
            size: attr.size,
            change: attr.change,
            written_end: 0,
            reporting_end: 0,
            writer: None,
            // An open that was closed before may have written.
            unsynced: true,
        }
    }

    /// Where the file ends for readers on this mount.
    pub(super) fn end(&self) -> u64 {
        self.size.max(self.written_end).max(self.reporting_end)
    }

    /// Notes an acknowledged write that ends at `end`.
    pub(super) fn wrote(&mut self, end: u64, writer: Writer) {
        self.written_end = self.written_end.max(end);
        self.unsynced = true;
        // Privileges are dropped if any of several writers makes it so.
        let keeps_older = self
            .writer
            .as_ref()
            .is_some_and(|old| old.credentials.uid != 0 && writer.credentials.uid == 0);
        if keeps_older {
            if let Some(old) = &mut self.writer {
                old.open = writer.open;
            }
        } else {
            self.writer = Some(writer);
        }
    }

    /// Whether mgr is to hear of a write.
    pub(super) fn is_dirty(&self) -> bool {
        self.writer.is_some()
    }

    /// Takes what mgr is to hear; `None` where it knows all.
    pub(super) fn begin_report(&mut self) -> Option<Report> {
        let writer = self.writer.take()?;
        self.reporting_end = self.written_end;
        self.written_end = 0;
        Some(Report {
            size_min: self.reporting_end,
            writer,
        })
    }

    /// mgr has heard it.
    pub(super) fn report_done(&mut self, attr: &Attr) {
        self.reporting_end = 0;
        self.learn(attr);
    }

    /// mgr has not: it is to be told again.
    pub(super) fn report_failed(&mut self, report: Report) {
        self.reporting_end = 0;
        let unsynced = self.unsynced;
        self.wrote(report.size_min, report.writer);
        self.unsynced = unsynced;
    }

    /// Takes attributes from mgr; false where newer ones came before them.
    pub(super) fn learn(&mut self, attr: &Attr) -> bool {
        let current = attr.change >= self.change;
        if current {
            self.change = attr.change;
            self.size = attr.size;
        }
        current
    }

    /// The counter of the last change that this mount knows of.
    pub(super) const fn change(&self) -> u64 {
        self.change
    }

    /// Whether an fsync has something to do; from now on only new writes make it so.
    pub(super) fn begin_sync(&mut self) -> bool {
        std::mem::replace(&mut self.unsynced, false)
    }

    /// The fsync failed.
    pub(super) fn sync_failed(&mut self) {
        self.unsynced = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pvfs::attr::{FileKind, Timestamp};

    fn attr(size: u64, change: u64) -> Attr {
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
        }
    }

    fn writer(open: u64, uid: u32) -> Writer {
        let credentials = Credentials {
            uid,
            gid: uid,
            groups: Vec::new(),
        };
        Writer {
            open: OpenId(open),
            credentials,
        }
    }

    #[test]
    fn a_write_is_seen_here_before_mgr_hears_of_it() {
        let mut state = InodeState::new(&attr(10, 1));
        state.wrote(100, writer(1, 0));
        assert_eq!(state.end(), 100);
        let report = state.begin_report().unwrap();
        assert_eq!((report.size_min, state.end()), (100, 100));
        state.report_done(&attr(100, 2));
        assert_eq!((state.end(), state.is_dirty()), (100, false));
        assert_eq!(state.begin_report(), None);
    }

    #[test]
    fn a_write_during_a_report_is_reported_later() {
        let mut state = InodeState::new(&attr(0, 1));
        state.wrote(100, writer(1, 0));
        state.begin_report().unwrap();
        state.wrote(50, writer(1, 0));
        state.report_done(&attr(100, 2));
        assert!(state.is_dirty());
        assert_eq!(
            state.begin_report().unwrap().size_min,
            50,
            "no more than was written since"
        );
    }

    #[test]
    fn a_failed_report_is_made_again() {
        let mut state = InodeState::new(&attr(0, 1));
        state.wrote(100, writer(1, 0));
        let report = state.begin_report().unwrap();
        state.report_failed(report);
        assert_eq!(state.end(), 100);
        assert_eq!(state.begin_report().unwrap().size_min, 100);
    }

    #[test]
    fn older_attributes_do_not_replace_newer_ones() {
        let mut state = InodeState::new(&attr(0, 5));
        assert!(state.learn(&attr(30, 7)));
        assert!(!state.learn(&attr(0, 6)));
        assert_eq!((state.end(), state.change()), (30, 7));
        assert!(state.learn(&attr(0, 8)), "a truncation elsewhere");
        assert_eq!(state.end(), 0);
    }

    #[test]
    fn an_ordinary_writer_drops_privileges_whatever_root_writes_beside_it() {
        let mut state = InodeState::new(&attr(0, 5));
        state.wrote(1, writer(1, 1000));
        state.wrote(2, writer(2, 0));
        let report = state.begin_report().unwrap();
        assert_eq!(
            (report.writer.credentials.uid, report.writer.open),
            (1000, OpenId(2))
        );
    }

    #[test]
    fn a_sync_is_needed_once_for_each_write() {
        let mut state = InodeState::new(&attr(0, 5));
        assert!(state.begin_sync(), "an earlier open may have written");
        assert!(!state.begin_sync());
        state.wrote(1, writer(1, 0));
        assert!(state.begin_sync());
        state.sync_failed();
        assert!(state.begin_sync());
    }
}
