// SPDX-License-Identifier: MIT
//! What this mount knows of an inode: what its lease lets it keep, mgr's size, and what it wrote
//! beyond mgr's knowledge.
//!
//! A write is on the iods when it is acknowledged, but mgr learns of it only by a report. Until
//! then this mount alone knows how long the file is. Lock order: `reporting`, then `state`.

use std::collections::HashMap;
use std::ops::Range;
use std::time::Duration;

use pvfs::attr::{Attr, Privileges};
use pvfs::error::FsError;
use pvfs::ids::{InodeNumber, ObjectId, OpenId};
use pvfs::layout::Layout;
use pvfs::proto::mgr::{Access, Doubt, MgrReply};
use pvfs::runtime::sync::mpsc::{Receiver, TryRecvError};
use pvfs::runtime::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::Caller;
use super::fills::Fills;
use super::lease::{FileLease, GiveUp, Permit};
use super::questions::Asked;
use super::turn::{Turn, TurnGuard};

/// Less than an iod's disk gives out at a time is no hole.
const HOLE_BYTES_MIN: u64 = 4096;

/// Names of one directory that are kept; beyond it, all are forgotten.
const NAMES_MAX: usize = 1 << 16;

/// What mgr is to hear.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Report {
    /// Counts the inode's reports.
    number: u64,
    /// The file is at least so long, bytes.
    pub(super) size_min: u64,
    /// The `change` counter that this mount knows.
    pub(super) known_change: u64,
    /// The open through which it was written.
    pub(super) writer: OpenId,
    /// The file has, or may have, holes or reserved space: only the iods know how much it takes.
    pub(super) asks_for_space: bool,
    /// So many bytes from the file's start on have all been written.
    pub(super) filled: u64,
    /// What iods may hold beyond that.
    pub(super) doubt: Option<Doubt>,
}

/// An open that mgr granted; several handles of the kernel's may share it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct MgrOpen {
    pub(super) open: OpenId,
    pub(super) access: Access,
    pub(super) layout: Layout,
    pub(super) object: ObjectId,
}

/// Opens that are to be closed at mgr.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unneeded {
    pub(super) opens: Vec<OpenId>,
    /// Number of the lease which nobody writes under any more.
    pub(super) lease: u64,
}

/// An inode that is open here, or of which something is kept.
#[derive(Debug)]
pub(super) struct Inode {
    pub(super) number: InodeNumber,
    /// Held while a report or a truncation is under way, so that whoever asks for the attributes
    /// waits for its outcome.
    reporting: Turn,
    /// Held while an append chooses its place and writes there.
    appending: Turn,
    state: Mutex<InodeState>,
    /// Signals: a request or a report is done, or a lease came or went.
    changed: Condvar,
}

impl Inode {
    pub(super) fn new(attr: &Attr) -> Self {
        Self {
            number: attr.inode,
            reporting: Turn::default(),
            appending: Turn::default(),
            state: Mutex::new(InodeState::new(attr)),
            changed: Condvar::new(),
        }
    }

    /// Waits for a change, at most `timeout`; false where none came.
    pub(super) fn wait<'a>(
        &self,
        state: MutexGuard<'a, InodeState>,
        timeout: Duration,
    ) -> (MutexGuard<'a, InodeState>, bool) {
        let (state, outcome) = self
            .changed
            .wait_timeout(state, timeout)
            .unwrap_or_else(PoisonError::into_inner);
        (state, !outcome.timed_out())
    }

    /// Taken by an append before it chooses its place.
    ///
    /// # Errors
    ///
    /// [`FsError::Interrupted`].
    pub(super) fn lock_appending(&self) -> Result<TurnGuard<'_>, FsError> {
        self.appending.take()
    }

    /// Waits until nothing is left of what `is_left` finds, at most `timeout`.
    pub(super) fn wait_while(&self, timeout: Duration, is_left: impl Fn(&InodeState) -> bool) {
        let state = self.state();
        drop(
            self.changed
                .wait_timeout_while(state, timeout, |state| is_left(state)),
        );
    }

    /// Wakes whoever waits.
    pub(super) fn wake(&self) {
        self.changed.notify_all();
    }

    /// The state, where nobody is changing it.
    #[cfg(feature = "simulation")]
    pub(super) fn state_if_free(&self) -> Option<MutexGuard<'_, InodeState>> {
        self.state.try_lock().ok()
    }

    /// The state; a thread that panicked left it as good as any.
    pub(super) fn state(&self) -> MutexGuard<'_, InodeState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Taken before a report, a truncation, or anything else that changes the size at mgr.
    ///
    /// # Errors
    ///
    /// [`FsError::Interrupted`].
    pub(super) fn lock_reporting(&self) -> Result<TurnGuard<'_>, FsError> {
        self.reporting.take()
    }
}

/// A truncation by this mount, until its outcome is known.
#[derive(Debug)]
pub(super) struct Truncating<'a>(&'a Inode);

impl<'a> Truncating<'a> {
    /// To `size`, under the inode's `reporting` lock.
    pub(super) fn begin(inode: &'a Inode, size: u64) -> Self {
        inode.state().truncating_to = Some(size);
        Self(inode)
    }
}

impl Drop for Truncating<'_> {
    fn drop(&mut self) {
        self.0.state().truncating_to = None;
        self.0.wake();
    }
}

/// An append that is about to choose its place, until it is there.
#[derive(Debug)]
pub(super) struct Appending<'a>(&'a Inode);

impl<'a> Appending<'a> {
    /// Begins it under a lease.
    ///
    /// # Errors
    ///
    /// [`FsError::Fenced`] where that is lost.
    pub(super) fn begin(inode: &'a Inode, permit: Permit, open: OpenId) -> Result<Self, FsError> {
        let mut state = inode.state();
        if !state.lease.is_current(permit) {
            return Err(FsError::Fenced);
        }
        state.appends = Some(open);
        Ok(Self(inode))
    }
}

impl Drop for Appending<'_> {
    fn drop(&mut self) {
        self.0.state().appends = None;
    }
}

/// A request of the kernel's for pages, until it is answered.
#[derive(Debug)]
pub(super) struct Filling<'a> {
    inode: &'a Inode,
    number: u64,
    retry: bool,
}

impl<'a> Filling<'a> {
    pub(super) fn begin(inode: &'a Inode, range: (u64, u64)) -> Self {
        let mut state = inode.state();
        state.kernel_end = state.kernel_end.max(state.end());
        let number = state.fills.begin(range);
        let retry = state.fills.is_retry(number);
        drop(state);
        Self {
            inode,
            number,
            retry,
        }
    }

    /// Whether the kernel asks for the second time.
    pub(super) const fn is_retry(&self) -> bool {
        self.retry
    }

    /// Its number among the inode's [`Fills`].
    pub(super) const fn number(&self) -> u64 {
        self.number
    }
}

impl Drop for Filling<'_> {
    fn drop(&mut self) {
        self.inode.state().fills.end(self.number);
    }
}

/// Pure: see the module.
#[derive(Debug)]
pub(super) struct InodeState {
    /// As mgr said last, whatever has become of it.
    told: Attr,
    /// End of the furthest write since the last report began.
    written_end: u64,
    /// End of the furthest write that the report under way tells of.
    reporting_end: u64,
    /// So many bytes from the file's start on have all been written, as mgr said last.
    filled: u64,
    /// The same, with what was written here and mgr may not have heard of.
    filled_here: u64,
    /// The open through which something was written since the last report began.
    writer: Option<OpenId>,
    /// A lease was lost while mgr was to hear of writes under it.
    lost_unreported: bool,
    /// mgr heard of writes too late: the next fsync(2) or close(2) is to say so.
    lost_writes: bool,
    /// What iods may hold beyond the end, of which mgr has not heard.
    doubt: Option<Doubt>,
    /// Something may be on an iod that is not on its disk.
    unsynced: bool,
    /// Something was written since the last report began that may have made it so.
    space_unknown: bool,
    /// Reports under way.
    reports: u32,
    /// Number of the last report that was begun.
    report_last: u64,
    /// mgr has taken in what all reports up to this one tell.
    report_taken: u64,
    /// The open that the last of them names, and the greatest doubt that they tell of.
    reporting: Option<(OpenId, Option<Doubt>)>,
    /// Questions of the kernel's for the attributes that have no answer.
    pub(super) questions: Vec<Arc<Asked>>,
    /// The kernel believes the file to be no longer than this.
    kernel_end: u64,
    /// What this mount is truncating the file to.
    truncating_to: Option<u64>,
    /// What may be done without asking mgr.
    pub(super) lease: FileLease,
    /// Pages that the kernel waits for.
    pub(super) fills: Fills,
    /// The open of an append that has chosen its place and is on its way to it.
    appends: Option<OpenId>,
    /// Where the answer for a lease will be, whose asker was interrupted.
    pub(super) left_ask: Option<Receiver<MgrReply>>,
    /// As mgr said last, while the lease lets it be kept.
    attr: Option<Attr>,
    /// The same, also where this mount has written since.
    last: Option<Attr>,
    /// What the file gives to whoever executes it, as the last grant said. It holds under any lease;
    /// `None` is not known.
    privileges: Option<Privileges>,
    /// An ordinary user who may have written to pages by a mapping.
    pages_user: Option<Caller>,
    /// Access control lists by the names of their attributes, as of the last grant; `None` is a list
    /// that does not exist.
    acls: HashMap<Box<[u8]>, Option<Vec<u8>>>,
    /// Of a directory, while the lease lets them be kept; `None` is a name that does not exist.
    names: HashMap<Box<[u8]>, Option<InodeNumber>>,
    /// mgr's opens of the file, some of which may be idle.
    pub(super) opens: Vec<MgrOpen>,
    /// Of a directory: streams that are open.
    pub(super) streams: usize,
    /// mgr's open for them, where it needed to know of them: it keeps the directory if that is
    /// removed.
    pub(super) stream_open: Option<OpenId>,
    /// Somebody is about to let mgr know of them.
    pub(super) declaring_streams: bool,
    /// Handles for reading only.
    pub(super) readers: usize,
    /// Handles for writing.
    pub(super) writers: usize,
    /// Of those, the ones through which pages of the kernel's may be written.
    pub(super) page_writers: usize,
}

impl InodeState {
    fn new(attr: &Attr) -> Self {
        Self {
            told: *attr,
            written_end: 0,
            reporting_end: 0,
            filled: attr.filled,
            filled_here: 0,
            writer: None,
            lost_unreported: false,
            lost_writes: false,
            doubt: None,
            // An open that was closed before may have written.
            unsynced: true,
            space_unknown: false,
            reports: 0,
            report_last: 0,
            report_taken: 0,
            reporting: None,
            questions: Vec::new(),
            kernel_end: attr.size,
            truncating_to: None,
            lease: FileLease::new(),
            fills: Fills::default(),
            appends: None,
            left_ask: None,
            attr: None,
            last: None,
            privileges: None,
            pages_user: None,
            acls: HashMap::new(),
            names: HashMap::new(),
            opens: Vec::new(),
            streams: 0,
            stream_open: None,
            declaring_streams: false,
            readers: 0,
            writers: 0,
            page_writers: 0,
        }
    }

    /// The answer for a lease whose asker was interrupted, once it is there: whoever takes it is
    /// the asker from now on.
    pub(super) fn take_left_answer(&mut self) -> Option<MgrReply> {
        let answer = match self.left_ask.as_ref()?.try_recv() {
            Ok(answer) => answer,
            Err(TryRecvError::Disconnected) => Err(FsError::Io),
            Err(TryRecvError::Empty) => return None,
        };
        self.left_ask = None;
        Some(answer)
    }

    /// Takes attributes that the lease lets this mount keep.
    pub(super) fn keep(&mut self, attr: &Attr) {
        self.acls.clear();
        self.privileges = Some(attr.privileges());
        if self.learn(attr) && self.lease.keeps() {
            self.attr = Some(*attr);
            self.last = Some(*attr);
        }
    }

    /// Under a lease: what the file gives to whoever executes it, where that is known.
    pub(super) const fn privileges(&self) -> Option<Privileges> {
        self.privileges
    }

    /// mgr says that something has changed, but not what.
    pub(super) fn stale(&mut self) {
        self.forget();
        self.privileges = None;
    }

    /// Notes who may write to pages by a mapping.
    pub(super) fn may_map(&mut self, user: Option<Caller>) {
        self.pages_user = user.or(self.pages_user);
    }

    /// An ordinary user who may have written to pages by a mapping.
    pub(super) const fn pages_user(&self) -> Option<Caller> {
        self.pages_user
    }

    /// A handle through which pages could be written is closed.
    pub(super) fn closed_page_writer(&mut self) {
        self.page_writers = self.page_writers.saturating_sub(1);
        if self.page_writers == 0 {
            self.pages_user = None;
        }
    }

    /// The attributes of the last grant or report, which may lack what this mount has written since.
    pub(super) const fn last_known(&self) -> Option<Attr> {
        self.last
    }

    /// The attributes, where they are known without asking.
    pub(super) fn kept(&self) -> Option<Attr> {
        let known = self.lease.keeps() && !self.is_dirty() && self.reports == 0;
        self.attr.filter(|_| known)
    }

    /// Whether anything that is kept still holds, and since which grant.
    pub(super) fn kept_since(&self) -> Option<u64> {
        self.lease.keeps().then(|| self.lease.number())
    }

    /// Takes an access control list that mgr told of after the grant of this number.
    pub(super) fn keep_acl(&mut self, grant: u64, name: &[u8], acl: Option<Vec<u8>>) {
        if self.kept_since() == Some(grant) && self.kept_acl(name).is_none() {
            self.acls.insert(name.into(), acl);
        }
    }

    /// An access control list, where it is known without asking.
    pub(super) fn kept_acl(&self, name: &[u8]) -> Option<Option<&[u8]>> {
        self.kept_since()?;
        if self.last.is_some_and(|attr| !attr.has_acl) {
            return Some(None);
        }
        self.acls.get(name).map(Option::as_deref)
    }

    /// Takes a name of this directory.
    pub(super) fn keep_name(&mut self, name: &[u8], inode: Option<InodeNumber>) {
        if self.lease.keeps() {
            if self.names.len() >= NAMES_MAX {
                self.names.clear();
            }
            self.names.insert(name.into(), inode);
        }
    }

    /// What a name of this directory stands for, where that is known without asking.
    pub(super) fn kept_name(&self, name: &[u8]) -> Option<Option<InodeNumber>> {
        let found = self.names.get(name).copied();
        found.filter(|_| self.lease.keeps())
    }

    /// Forgets attributes and names.
    pub(super) fn forget(&mut self) {
        self.attr = None;
        self.last = None;
        self.acls.clear();
        self.names = HashMap::new();
    }

    /// mgr has changed the file for this mount, and says so in `attr`.
    pub(super) fn changed_at_mgr(&mut self, attr: &Attr) {
        if self.attr.is_some_and(|kept| kept.change < attr.change) {
            self.attr = None;
        }
        self.learn(attr);
    }

    /// Whether a report is under way.
    pub(super) const fn is_reporting(&self) -> bool {
        self.reports > 0
    }

    /// Whether nothing of the file is in use or kept here.
    pub(super) fn is_unused(&self) -> bool {
        let handles = self.readers + self.writers + self.streams;
        handles == 0
            && self.opens.is_empty()
            && self.lease.is_idle()
            && self.left_ask.is_none()
            && !self.is_dirty()
    }

    /// Takes out mgr's opens that nobody needs any more, for them to be closed. Reports name the open
    /// of a writer, so those stay until mgr has heard of everything; then the lease is no longer a
    /// writer's.
    pub(super) fn take_unneeded(&mut self) -> Unneeded {
        let dirty = self.is_dirty() || self.is_reporting();
        if self.writers == 0 && !dirty {
            self.lease.stopped_writing();
        }
        let (writers, readers) = (self.writers, self.readers);
        let mut spare = usize::from(self.lease.keeps() && !dirty);
        let mut opens = Vec::new();
        self.opens.retain(|open| {
            let needed = if open.access.write {
                writers > 0 || dirty
            } else {
                // An idle one lets the next open for reading do without mgr.
                readers > 0 || std::mem::take(&mut spare) > 0
            };
            if !needed {
                opens.push(open.open);
            }
            needed
        });
        let lease = self.lease.number();
        Unneeded { opens, lease }
    }

    /// The report failed as mgr does not know the open that it names: it is made anew under another
    /// open for writing. Where there is none, what was written is lost, and whoever syncs is told:
    /// gives whether that is so.
    pub(super) fn report_refused(&mut self, mut report: Report) -> bool {
        let stale = report.writer;
        let mut opens = self.opens.iter();
        match opens.find(|open| open.access.write && open.open != stale) {
            Some(other) => {
                report.writer = other.open;
                self.report_failed(report);
                false
            }
            None => {
                self.end_report();
                self.lost_writes = true;
                true
            }
        }
    }

    /// Where the file ends for readers on this mount.
    pub(super) fn end(&self) -> u64 {
        let known = self.told.size;
        known.max(self.written_end).max(self.reporting_end)
    }

    /// Attributes with the size that the file has, where the lease lets nobody else change that. The other
    /// ones may be old.
    pub(super) fn size_under_lease(&self) -> Option<Attr> {
        let known = self.lease.knows_size() && self.truncating_to.is_none();
        known.then(|| Attr {
            size: self.end(),
            ..self.told
        })
    }

    /// So many bytes from the file's start on have all been written: iods must have them.
    pub(super) fn filled(&self) -> u64 {
        self.filled.max(self.filled_here).min(self.end())
    }

    /// What is known of bytes that were written is what mgr says now.
    pub(super) const fn know_filled(&mut self, attr: &Attr) {
        self.filled = attr.filled;
        self.filled_here = 0;
    }

    /// Whether bytes up to `end` may be going, as this mount is truncating the file: the kernel believes
    /// in its old end until that is done.
    pub(super) fn is_cutting_below(&self, end: u64) -> bool {
        self.truncating_to.is_some_and(|size| size < end)
    }

    /// Pages are about to be filled up to `end`, and not further though more was asked for: whether the
    /// kernel learns by that where the file ends. Where it does not, and believes in a later end, it
    /// would show zeros up to there; it asks again for pages that it does not get.
    pub(super) fn ends_for_kernel(&mut self, fill: u64, end: u64) -> bool {
        if self.fills.is_overtaken(fill) {
            return end >= self.kernel_end;
        }
        self.kernel_end = self.kernel_end.min(end);
        true
    }

    /// The next report is to say how much space the file takes.
    pub(super) const fn ask_for_space(&mut self) {
        self.space_unknown = true;
    }

    /// Notes an acknowledged write of these bytes.
    pub(super) fn wrote(&mut self, range: Range<u64>, writer: OpenId) {
        if range.start <= self.filled() {
            self.filled_here = self.filled_here.max(range.end);
        }
        self.changed(range, writer);
    }

    /// Notes a change of these bytes that need not have written all of them.
    pub(super) fn changed(&mut self, range: Range<u64>, writer: OpenId) {
        self.attr = None;
        // Between the end and what was written beyond it there is a hole.
        self.space_unknown |= range.start > self.end().saturating_add(HOLE_BYTES_MIN);
        self.written_end = self.written_end.max(range.end);
        self.unsynced = true;
        self.writer = Some(writer);
    }

    /// A write failed, and what iods may hold of it beyond the end could not be cut off: mgr is to hear
    /// of it, and until this mount has given its lease up nothing is written behind it.
    pub(super) fn tear(&mut self, writer: OpenId) {
        self.raise_doubt(Doubt::Torn, writer);
        self.lease.tear();
    }

    /// mgr is to hear that iods may hold more than this mount knows.
    fn raise_doubt(&mut self, doubt: Doubt, writer: OpenId) {
        self.changed(0..0, writer);
        self.doubt = self.doubt.max(Some(doubt));
    }

    /// Whether mgr is to hear of something that iods may hold.
    pub(super) const fn is_in_doubt(&self) -> bool {
        self.doubt.is_some()
    }

    /// The lease was lost with writes unreported, and is there again with these attributes: where
    /// somebody else has changed the content meanwhile, the reports are of no more use.
    pub(super) fn regained(&mut self, attr: &Attr) {
        let late = std::mem::take(&mut self.lost_unreported) && attr.change > self.told.change;
        if late && self.is_dirty() {
            tracing::warn!(
                "inode {}: others changed it after this mount lost its lease; what it wrote last \
                 may be lost",
                attr.inode
            );
            self.writer = None;
            self.written_end = 0;
            self.filled_here = 0;
            self.lost_writes = true;
        }
    }

    /// Whether writes were lost since somebody was told so.
    pub(super) fn tell_lost_writes(&mut self) -> bool {
        std::mem::take(&mut self.lost_writes)
    }

    /// The lease is lost. Where an append is on its way, mgr is to have its iods asked whether they have
    /// it before another node chooses a place.
    pub(super) fn lost(&mut self) {
        self.lost_unreported |= self.is_dirty();
        if let Some(open) = self.appends {
            self.raise_doubt(Doubt::Lost, open);
        }
    }

    /// Gives the lease up, where that needs no waiting: whether it did.
    pub(super) fn give_up_at_once(&mut self) -> bool {
        if self.lease.has_pages() {
            return false;
        }
        self.lease.is_idle() || {
            self.lease.start_giving_up();
            self.lease.give_up() == GiveUp::Done
        }
    }

    /// Whether an append is on its way to the place that it has chosen: were the lease lost meanwhile,
    /// another node would choose the same.
    pub(super) const fn is_appending(&self) -> bool {
        self.appends.is_some()
    }

    /// Whether a stream is open of which mgr does not know.
    pub(super) const fn has_unknown_streams(&self) -> bool {
        self.streams > 0 && self.stream_open.is_none()
    }

    /// Whether mgr is to hear of a write.
    pub(super) fn is_dirty(&self) -> bool {
        self.writer.is_some()
    }

    /// Takes what mgr is to hear; `None` where it knows all.
    pub(super) fn begin_report(&mut self) -> Option<Report> {
        let writer = self.writer.take()?;
        self.reporting_end = self.reporting_end.max(self.written_end);
        self.written_end = 0;
        self.reports += 1;
        let space_unknown = std::mem::take(&mut self.space_unknown);
        let doubt = self.doubt.take();
        let told = self.reporting.and_then(|(_, told)| told);
        self.reporting = Some((writer, doubt.max(told)));
        self.report_last += 1;
        Some(Report {
            number: self.report_last,
            size_min: self.reporting_end,
            known_change: self.told.change,
            writer,
            asks_for_space: space_unknown || self.told.allocated.is_some(),
            filled: self.filled(),
            doubt,
        })
    }

    /// The same, also where another report tells of it that is under way: that one may be waiting for
    /// iods, and not be sent before mgr must know.
    pub(super) fn begin_report_at_once(&mut self) -> Option<Report> {
        if self.is_dirty() {
            return self.begin_report();
        }
        let (writer, doubt) = self.reporting?;
        self.reports += 1;
        self.report_last += 1;
        Some(Report {
            number: self.report_last,
            size_min: self.reporting_end,
            known_change: self.told.change,
            writer,
            asks_for_space: false,
            filled: self.filled(),
            doubt,
        })
    }

    /// mgr has heard it: a file that is shorter after it was changed by others before, unless mgr had
    /// heard the same by a later report, which was sent at once.
    pub(super) fn report_done(&mut self, report: &Report, attr: &Attr) {
        match attr.size < report.size_min {
            true => self.lost_writes |= report.number > self.report_taken,
            false => self.report_taken = self.report_taken.max(report.number),
        }
        self.changed_at_mgr(attr);
        self.end_report();
    }

    fn end_report(&mut self) {
        debug_assert!(self.reports > 0, "a report that nobody counts");
        self.reports = self.reports.saturating_sub(1);
        if self.reports == 0 {
            self.reporting_end = 0;
            if !self.is_dirty() {
                self.filled_here = 0;
            }
            self.reporting = None;
        }
    }

    /// mgr has not: it is to be told again.
    pub(super) fn report_failed(&mut self, report: Report) {
        self.end_report();
        let unsynced = self.unsynced;
        self.changed(0..report.size_min, report.writer);
        self.filled_here = self.filled_here.max(report.filled);
        self.unsynced = unsynced;
        self.space_unknown |= report.asks_for_space;
        self.doubt = self.doubt.max(report.doubt);
    }

    /// Takes attributes from mgr; false where newer ones came before them.
    pub(super) fn learn(&mut self, attr: &Attr) -> bool {
        debug_assert!(
            attr.filled <= attr.size,
            "more is written than there is: {attr:?}"
        );
        let current = attr.change >= self.told.change;
        if current {
            if attr.size < self.told.size {
                self.filled_here = 0;
            }
            self.told = *attr;
            self.filled = attr.filled;
        }
        current
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
#[path = "inode_tests.rs"]
pub(super) mod tests;
