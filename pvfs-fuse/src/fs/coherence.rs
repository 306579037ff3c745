// SPDX-License-Identifier: MIT
//! Leases at work: asks mgr for them, gives them up when mgr wants them back, and drops what they
//! allowed to keep.

use pvfs::attr::Credentials;
use pvfs::client::interrupt;
use pvfs::client::leases::LeaseKeeper;
use pvfs::error::FsError;
use pvfs::ids::InodeNumber;
use pvfs::proto::lease::{Demand, Notice, Recall};
use pvfs::proto::lock::HeldLock;
use pvfs::proto::mgr::{MgrOperation, MgrReply, MgrResponse};
use pvfs::runtime::sync::{Arc, MutexGuard, OnceLock, Weak, mpsc};
use pvfs::runtime::time::{Duration, Instant};

use super::inode::{Inode, InodeState};
use super::lease::{Begin, GiveUp, Io, Permit};
use super::{Pvfs, report_operation};

/// A request with pages that finds its lease being given up waits for so long: pages that are being
/// dropped may in turn wait for it.
const PAGES_WAIT_MAX: Duration = Duration::from_millis(100);
/// Any other waiting looks again after so long.
pub(super) const WAIT_SLICE: Duration = Duration::from_millis(500);
/// mgr had no lease to give, as somebody was giving it up: it is asked again after so long.
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(50);
/// Reads that wait for iods hold up whoever wants a lease back for so long at most.
const READS_WAIT_MAX: Duration = Duration::from_millis(100);
/// A lease that could not be given up after so long is lost instead, as one whose time is over: a write
/// waits for an iod that is away. Other nodes wait meanwhile; an iod that is there answers sooner.
const GIVE_UP_TIME_MAX: Duration = Duration::from_secs(5);
/// A pass over a file's pages waits for so long for a page that the kernel is to ask for once more.
const RETRY_WAIT_MAX: Duration = Duration::from_millis(100);
/// A pass over a file's pages looks so often whether it waits for a page that the kernel has asked for
/// since it began.
const PASS_LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// Where the connection to mgr is gone, it is made anew after so long at most, though something that
/// is kept could not be dropped yet.
const DROP_TIME_MAX: Duration = Duration::from_secs(2);
/// How often it is looked whether leases still hold. Their time is over well before mgr gives them
/// to others.
pub const LEASE_CHECK_INTERVAL: Duration = Duration::from_millis(100);

/// The kernel's page cache.
pub trait Kernel: Send + Sync {
    /// Drops the pages of `length` bytes from `offset` on, or all after it; returns when they are
    /// gone and what was written to them has come in as write requests.
    fn drop_pages(&self, inode: u64, offset: u64, length: Option<u64>);
}

/// Hands mgr's notices to the file system, which is made after the connection.
#[derive(Debug, Default)]
pub struct Keeper {
    fs: OnceLock<Weak<Pvfs>>,
}

impl Keeper {
    /// From now on `fs` gets the notices. mgr grants nothing before it is asked.
    pub fn serve(&self, fs: &Arc<Pvfs>) {
        // A second call would be a mistake of no consequence.
        let _ = self.fs.set(Arc::downgrade(fs));
    }

    fn fs(&self) -> Option<Arc<Pvfs>> {
        self.fs.get().and_then(Weak::upgrade)
    }
}

impl LeaseKeeper for Keeper {
    fn notice(&self, notice: Notice) {
        if let Some(fs) = self.fs() {
            fs.notice(notice);
        }
    }

    fn lock_settled(&self, wait: u64, outcome: Result<(), FsError>) {
        if let Some(fs) = self.fs() {
            fs.lock_settled(wait, outcome);
        }
    }

    fn locks_lost(&self, lost: Vec<HeldLock>) {
        if let Some(fs) = self.fs() {
            fs.locks_lost(&lost);
        }
    }

    fn late(&self, reply: &MgrReply) {
        if let Some(fs) = self.fs() {
            fs.changed_by_mgr(reply);
        }
    }

    fn disconnected(&self) {
        if let Some(fs) = self.fs() {
            fs.leave_leases();
        }
    }

    fn reconnecting(&self) {
        if let Some(fs) = self.fs() {
            fs.begin_reports();
        }
    }
}

/// Uses what mgr has answered to whoever asks for a lease; `Err` within: it is lost already.
fn claim<'a>(
    mut state: MutexGuard<'a, InodeState>,
    inode: &Inode,
    io: Io,
    answer: MgrReply,
) -> Result<Result<Permit, MutexGuard<'a, InodeState>>, FsError> {
    inode.wake();
    if let Ok(MgrResponse::Done) = answer {
        return Ok(state.lease.claim(io).ok_or(state));
    }
    state.lease.disclaim();
    match answer {
        Err(FsError::TryAgain) => Ok(Err(inode.wait(state, ASK_AGAIN_AFTER).0)),
        Err(error) => Err(error),
        Ok(_) => Err(FsError::Protocol),
    }
}

/// Drops the kernel's pages of a range of bytes.
fn drop_range(kernel: &dyn Kernel, inode: InodeNumber, (start, end): (u64, u64)) {
    let length = (end != u64::MAX).then(|| end.saturating_sub(start));
    kernel.drop_pages(inode.0, start, length);
}

impl Pvfs {
    /// Which leases this mount relies on at this moment: for the simulation, which looks between two
    /// steps. What is being changed just then is left out.
    #[cfg(feature = "simulation")]
    pub fn believed_leases(&self) -> Vec<(InodeNumber, pvfs::proto::lease::Lease)> {
        if self.mgr.leases_left().is_none() {
            return Vec::new();
        }
        let inodes = self.files.inodes_if_free();
        let held = inodes.iter().filter_map(|inode| {
            let lease = inode.state_if_free()?.lease.held()?;
            Some((inode.number, lease))
        });
        held.collect()
    }

    /// Begins a read or write: asks mgr for a lease where none allows it.
    pub(super) fn begin(self: &Arc<Self>, inode: &Inode, io: Io) -> Result<Permit, FsError> {
        self.begin_within(inode, io, PAGES_WAIT_MAX)
    }

    /// The same for pages that the kernel asks for once more, and not a third time: a pass waits for them.
    pub(super) fn begin_retry(self: &Arc<Self>, inode: &Inode, io: Io) -> Result<Permit, FsError> {
        self.begin_within(inode, io, Duration::ZERO)
    }

    fn begin_within(
        self: &Arc<Self>,
        inode: &Inode,
        io: Io,
        pages_wait: Duration,
    ) -> Result<Permit, FsError> {
        let since = Instant::now();
        let mut state = inode.state();
        loop {
            let valid = self.mgr.leases_left().is_some();
            let writable = state.page_writers > 0;
            match state.lease.begin(io, writable, valid) {
                Begin::Go(permit) => return Ok(permit),
                Begin::Wait if io.has_pages() && since.elapsed() >= pages_wait => {
                    return Ok(state.lease.begin_at_last(io));
                }
                Begin::Wait => {
                    let slice = if io.has_pages() {
                        PAGES_WAIT_MAX
                    } else {
                        interrupt::shorten(WAIT_SLICE)
                    };
                    state = inode.wait(state, slice).0;
                }
                Begin::Join => match state.take_left_answer() {
                    Some(answer) => match claim(state, inode, io, answer)? {
                        Ok(permit) => return Ok(permit),
                        Err(again) => state = again,
                    },
                    None => state = inode.wait(state, interrupt::shorten(WAIT_SLICE)).0,
                },
                Begin::GiveUp => {
                    drop(state);
                    self.give_up(inode, Instant::now() + GIVE_UP_TIME_MAX);
                    state = inode.state();
                }
                Begin::Ask(want) => {
                    let in_doubt = state.is_in_doubt();
                    drop(state);
                    if in_doubt {
                        // Or it could be granted before mgr knows what is to be settled first. Where
                        // this fails, the question will.
                        let _ = self.send_report(inode);
                    }
                    let operation = MgrOperation::Acquire {
                        inode: inode.number,
                        want,
                    };
                    let answer = self.mgr.call_or_leave(&Credentials::ROOT, &operation);
                    state = inode.state();
                    match answer {
                        Ok(answer) => match claim(state, inode, io, answer)? {
                            Ok(permit) => return Ok(permit),
                            Err(again) => state = again,
                        },
                        Err(left) => {
                            state.left_ask = Some(left);
                            inode.wake();
                            return Err(FsError::Interrupted);
                        }
                    }
                }
            }
            if interrupt::is_interrupted() {
                return Err(FsError::Interrupted);
            }
        }
    }

    /// Ends a read or write of the bytes of `range`; false where its lease was lost meanwhile.
    pub(super) fn end(&self, inode: &Inode, permit: Permit, io: Io, range: (u64, u64)) -> bool {
        let kept = inode.state().lease.end(permit, io, range);
        inode.wake();
        kept
    }

    /// Takes what mgr tells.
    fn notice(self: &Arc<Self>, notice: Notice) {
        match notice {
            Notice::Granted {
                grants,
                entries,
                stale,
                acquired,
            } => {
                for (index, grant) in grants.iter().enumerate() {
                    let claimed = acquired && index == 0;
                    let inode = match claimed {
                        true => Some(self.files.intern(&grant.attr)),
                        false => self.files.intern_to_keep(&grant.attr),
                    };
                    if let Some(inode) = inode {
                        let mut state = inode.state();
                        if state.lease.granted(grant, claimed) {
                            state.regained(&grant.attr);
                            state.keep(&grant.attr);
                        }
                        drop(state);
                        inode.wake();
                    }
                }
                for inode in stale {
                    if let Some(inode) = self.files.inode(inode) {
                        inode.state().stale();
                    }
                }
                for entry in entries {
                    if let Some(directory) = self.files.inode(entry.directory) {
                        let mut state = directory.state();
                        state.keep_name(entry.name.as_bytes(), entry.inode);
                    }
                }
            }
            // These have their own ways: `lock_settled`, and the client's table of iods.
            Notice::LockSettled { .. } | Notice::Iods(_) => {}
            Notice::Recalled(recalls) => {
                for recall in recalls {
                    let fs = Arc::clone(self);
                    self.recalls.run(move || fs.obey(&recall));
                }
            }
        }
    }

    /// Does what mgr demands, and says so.
    fn obey(self: &Arc<Self>, recall: &Recall) {
        if let Some(inode) = self.files.inode(recall.inode) {
            match recall.demand {
                Demand::Report => self.report_for_others(&inode),
                Demand::GiveUp => {
                    self.give_up(&inode, Instant::now() + GIVE_UP_TIME_MAX);
                    self.report_for_others(&inode);
                    self.close_idle(&inode);
                    self.declare_streams(&inode);
                    self.files.forget_unused(&inode);
                }
            }
        }
        let recalls = vec![recall.number];
        self.post_as_root(&MgrOperation::Acknowledge { recalls });
    }

    /// Gives up what is kept of an inode; returns when nothing is. Past `deadline` it is lost
    /// instead, whatever is under way.
    fn give_up(self: &Arc<Self>, inode: &Inode, deadline: Instant) {
        let since = Instant::now();
        let mut state = inode.state();
        state.forget();
        state.lease.start_giving_up();
        loop {
            match state.lease.give_up() {
                GiveUp::Drop(start, end) => {
                    drop(state);
                    let gone = self.drop_pages(inode.number, (start, end), Some(deadline));
                    state = inode.state();
                    state.lease.dropped();
                    inode.wake();
                    if !gone {
                        break self.lose_late(inode, state, since);
                    }
                }
                GiveUp::Wait if Instant::now() >= deadline && !state.is_appending() => {
                    break self.lose_late(inode, state, since);
                }
                GiveUp::Wait if since.elapsed() >= READS_WAIT_MAX && state.lease.revoke_reads() => {
                }
                GiveUp::Wait => {
                    let slice = if since.elapsed() < READS_WAIT_MAX {
                        READS_WAIT_MAX
                    } else {
                        WAIT_SLICE
                    };
                    state = inode.wait(state, slice).0;
                    if state.take_left_answer().is_some() {
                        // Nobody is there to use what it brought.
                        state.lease.disclaim();
                    }
                }
                GiveUp::Done => break self.gave_up(inode, state),
            }
        }
    }

    fn gave_up(&self, inode: &Inode, mut state: MutexGuard<'_, InodeState>) {
        // A mapping may have written to pages that were dropped just now; that has come in.
        state.forget();
        drop(state);
        inode.wake();
    }

    /// A lease could not be given up in time.
    fn lose_late(
        self: &Arc<Self>,
        inode: &Inode,
        state: MutexGuard<'_, InodeState>,
        since: Instant,
    ) {
        drop(state);
        tracing::warn!(
            "inode {}: its lease is to go, and something under way here has waited for {:.1} s, for an \
             iod or for mgr: it goes on under another lease",
            inode.number,
            since.elapsed().as_secs_f64()
        );
        self.lose(inode);
    }

    /// A lease's time is over.
    fn lose(self: &Arc<Self>, inode: &Inode) {
        let mut state = inode.state();
        state.forget();
        state.lost();
        let pages = state.lease.lose();
        let streams = state.has_unknown_streams();
        drop(state);
        inode.wake();
        if streams {
            self.declare_streams_later(inode.number);
        }
        if pages {
            // A page may be locked by a request that waits for mgr.
            self.drop_pages_later(inode.number, 0, u64::MAX);
        }
    }

    /// Drops the kernel's pages of the bytes from `start` to `end`; `u64::MAX` is the file's end. Goes
    /// around pages that the kernel waits for: their bytes are fetched anew. False where pages that a
    /// mapping wrote to could not be stored before `deadline`; they are dropped when they are.
    pub(super) fn drop_pages(
        &self,
        inode: InodeNumber,
        (start, end): (u64, u64),
        deadline: Option<Instant>,
    ) -> bool {
        let Some(kernel) = self.kernel.get() else {
            return true;
        };
        let Some(inode) = self.files.inode(inode) else {
            drop_range(kernel.as_ref(), inode, (start, end));
            return true;
        };
        self.answer_questions(&inode);
        inode.wait_while(RETRY_WAIT_MAX, |state| state.fills.is_retry_due());
        inode.state().fills.forget_retries();
        let (done, is_done) = mpsc::channel();
        loop {
            let (gaps, last) = inode.state().fills.pass(start, end);
            let (kernel, done, number) = (Arc::clone(kernel), done.clone(), inode.number);
            self.passes.run(move || {
                for gap in gaps {
                    drop_range(kernel.as_ref(), number, gap);
                }
                // Whoever began it may have gone on without it.
                let _ = done.send(());
            });
            loop {
                if is_done.recv_timeout(PASS_LOOK_INTERVAL).is_ok() {
                    return true;
                }
                if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                    return false;
                }
                if inode.state().fills.began_after(last) {
                    // It may be waiting for that; another pass goes around it.
                    break;
                }
            }
        }
    }

    /// The same, some time soon, for a caller whose own pages are locked.
    pub(super) fn drop_pages_later(self: &Arc<Self>, inode: InodeNumber, start: u64, end: u64) {
        let fs = Arc::clone(self);
        self.recalls.run(move || {
            fs.drop_pages(inode, (start, end), None);
        });
    }

    /// Lets mgr know of a directory's streams when it answers again.
    fn declare_streams_later(self: &Arc<Self>, inode: InodeNumber) {
        let Some(inode) = self.files.inode(inode) else {
            return;
        };
        if std::mem::replace(&mut inode.state().declaring_streams, true) {
            return;
        }
        let fs = Arc::clone(self);
        self.recalls.run(move || {
            fs.declare_streams(&inode);
            inode.state().declaring_streams = false;
        });
    }

    /// Reports without waiting for whoever holds the inode's `reporting` lock: that may be a
    /// truncation which waits, at mgr, for the answer to this.
    fn report_for_others(&self, inode: &Inode) {
        loop {
            {
                let state = inode.state();
                if state.is_reporting() {
                    drop(inode.wait(state, WAIT_SLICE));
                    continue;
                }
            }
            match self.send_report(inode) {
                Ok(Some(_)) => {}
                Ok(None) => return,
                Err(error) => {
                    tracing::warn!("report of inode {} to mgr: {error}", inode.number);
                    return;
                }
            }
        }
    }

    /// Asks mgr, without waiting for it, to note all writes that it has not heard of.
    fn begin_reports(self: &Arc<Self>) {
        for inode in self.files.inodes() {
            let Some(report) = inode.state().begin_report_at_once() else {
                continue;
            };
            // Iods are not waited for here: how much the file takes is for a later report.
            let operation = report_operation(&inode, &report, None);
            if report.asks_for_space {
                inode.state().ask_for_space();
            }
            match self.mgr.begin(&Credentials::ROOT, &operation) {
                Ok(answer) => {
                    let fs = Arc::clone(self);
                    self.reports.run(move || {
                        // It is logged where it fails, and made anew.
                        let _ = fs.reported(&inode, report, answer.wait());
                    });
                }
                Err(_) => {
                    inode.state().report_failed(report);
                    inode.wake();
                }
            }
        }
    }

    /// Closes what mgr has open for handles that are gone.
    fn close_idle(&self, inode: &Inode) {
        let unneeded = inode.state().take_unneeded();
        self.close_all(inode.number, unneeded);
    }

    /// Gives a lease back that mgr has not asked for, with what it let this mount keep.
    pub(super) fn give_back(self: &Arc<Self>, inode: &Arc<Inode>) {
        let number = inode.state().lease.number();
        self.give_up(inode, Instant::now() + GIVE_UP_TIME_MAX);
        self.report_for_others(inode);
        self.close_idle(inode);
        let leases = vec![(inode.number, number)];
        self.post_as_root(&MgrOperation::GiveBack { leases });
    }

    /// The kernel has dropped an inode: what is kept of it is of no more use, unless it is open.
    pub fn forget(self: &Arc<Self>, node: u64) {
        let Some(inode) = self.files.inode(InodeNumber(node)) else {
            return;
        };
        let (handles, kept) = {
            let state = inode.state();
            let handles = state.readers + state.writers + state.streams;
            (handles, !state.lease.is_idle())
        };
        if handles > 0 {
            return;
        }
        if !kept {
            self.files.forget_unused(&inode);
            return;
        }
        // The kernel may know it again by now, with pages: dropping them may have to wait.
        let fs = Arc::clone(self);
        self.recalls.run(move || {
            let handles = {
                let state = inode.state();
                state.readers + state.writers + state.streams
            };
            if handles == 0 {
                fs.give_back(&inode);
                fs.files.forget_unused(&inode);
            }
        });
    }

    /// The connection to mgr is gone: gives up all leases while they still hold. Waits for nothing that
    /// may itself wait for mgr: the thread that calls this makes the next connection.
    fn leave_leases(self: &Arc<Self>) {
        let left = self.mgr.leases_left().unwrap_or_default();
        let deadline = Instant::now() + left.min(DROP_TIME_MAX);
        let (done, all_done) = mpsc::channel::<()>();
        for inode in self.files.inodes() {
            let (idle, streams) = {
                let mut state = inode.state();
                state.forget();
                (state.give_up_at_once(), state.has_unknown_streams())
            };
            if streams {
                self.declare_streams_later(inode.number);
            }
            if idle {
                inode.wake();
                continue;
            }
            let (fs, done) = (Arc::clone(self), done.clone());
            self.recalls.run(move || {
                fs.give_up(&inode, deadline);
                drop(done);
            });
        }
        drop(done);
        // Nothing is ever sent: it ends when all jobs have.
        let _ = all_done.recv_timeout(DROP_TIME_MAX);
        // An append cannot let go of its place, and may be waiting for what mgr says of an iod. mgr is
        // told of it before the greeting with which it gives the lease to others.
        for inode in self.files.inodes() {
            let appending = inode.state().is_appending();
            if appending {
                self.lose(&inode);
            }
        }
    }

    /// Where the leases' time is over without mgr having answered anything: loses them, so that
    /// nothing is served from memory that others may be changing. Called every
    /// [`LEASE_CHECK_INTERVAL`].
    pub fn check_leases(self: &Arc<Self>) {
        if self.mgr.leases_left().is_some() {
            return;
        }
        let mut lost = false;
        for inode in self.files.inodes() {
            let kept = {
                let state = inode.state();
                state.lease.held().is_some() || state.lease.has_pages()
            };
            if kept {
                self.lose(&inode);
                lost = true;
            }
        }
        if lost {
            // A recall under way may wait for a page whose request now waits for a lease, and mgr gives none
            // before that recall is answered: it is to know that there is nothing left to give up.
            self.mgr.greet_anew();
        }
    }
}
