// SPDX-License-Identifier: MIT
//! The file system between a transport of FUSE requests and the PVFS client library.
//!
//! Nothing here knows how requests arrive or how replies leave: a transport (today
//! [`crate::fuser_adapter`]) calls a method for each request and sends what it returns; bulk data
//! and directory entries go into sinks of the transport's own ([`ReadSink`], [`DirectorySink`]), so
//! that they are not copied on the way.
//!
//! # Coherence
//!
//! Attributes, names and pages are kept under leases that mgr grants and takes back ([`lease`],
//! [`coherence`]); what no lease covers is asked for each time. The kernel keeps pages and nothing
//! else: it asks here for every name and attribute. A write is on the iods before it is
//! acknowledged; mgr hears of size and time at close, fsync, when another client asks, before this
//! mount answers a stat of the file, and every [`REPORT_INTERVAL`]. docs/SEMANTICS.md says what that
//! promises.

mod caller;
mod calling_thread;
mod changes;
mod coherence;
mod copy;
mod data;
mod directory;
mod fills;
mod inode;
mod lease;
mod locks;
mod metadata;
mod open_files;
mod privileges;
mod questions;
mod space;
mod streams;
mod turn;
pub(crate) mod workers;
mod xattr;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use pvfs::attr::{Attr, Credentials};
use pvfs::client::buffer::BufferPool;
use pvfs::client::interrupt;
use pvfs::client::iod::IodDirectory;
use pvfs::client::mgr::{Hold, MgrClient};
use pvfs::client::patience::{Cancel, Patience};
use pvfs::client::pool::{IodPool, PoolOptions};
use pvfs::error::FsError;
use pvfs::ids::InodeNumber;
use pvfs::limits::ACL_ACCESS_XATTR;
use pvfs::name::Name;
use pvfs::proto::mgr::{MgrOperation, MgrReply, MgrResponse, StatFs};
use pvfs::runtime::sync::Mutex;

pub use caller::Caller;
use changes::{Changes, Concern};
use coherence::WAIT_SLICE;
pub use coherence::{Keeper, Kernel, LEASE_CHECK_INTERVAL};
pub use copy::CopyPlace;
pub use data::{OpenHow, Opened, ReadRequest, ReadSink, WriteRequest};
pub use directory::{DirectoryEntryRef, DirectorySink};
use inode::{Inode, Report};
use locks::LockBook;
pub use locks::{FoundLock, LockDone, LockPlace, interrupt_lock_waits};
pub use metadata::NewNode;
use open_files::OpenFiles;
pub use questions::{AttrReply, Question};
pub use space::Allocation;
use streams::Streams;
use workers::Workers;

/// Largest read or write request that the kernel sends, bytes.
pub const REQUEST_BYTES_MAX: usize = 1 << 20;
/// mgr hears of writes at least so often, so that a client that crashes loses the size of no older
/// ones, and other nodes see a log grow.
pub const REPORT_INTERVAL: Duration = Duration::from_secs(5);
/// An answer of mgr that an own report has overtaken is asked for again, so often at most.
const SETTLE_ATTEMPTS_MAX: u32 = 4;

/// What a mount may choose about the file system.
#[derive(Clone, Copy, Debug)]
pub struct FsOptions {
    /// Session threads, each of which handles one request at a time.
    pub threads: usize,
    /// The page cache is bypassed.
    pub direct_io: bool,
}

/// The file system: see the module.
pub struct Pvfs {
    mgr: Arc<MgrClient>,
    pool: IodPool,
    cancel: Cancel,
    buffers: BufferPool,
    files: OpenFiles,
    changes: Arc<Changes>,
    streams: Streams,
    kernel: OnceLock<Arc<dyn Kernel>>,
    recalls: Workers,
    /// Wait in the kernel for the locks of pages.
    passes: Workers,
    /// Apart from `recalls`, whose jobs wait for these.
    reports: Workers,
    locks: LockBook,
    options: FsOptions,
    /// What mgr said last of the whole.
    totals: Mutex<Option<StatFs>>,
    /// What mgr said last of the root.
    root: Mutex<Option<Attr>>,
}

impl Pvfs {
    /// A file system over a client that mgr has welcomed.
    #[must_use]
    pub fn new(mgr: Arc<MgrClient>, options: FsOptions) -> Self {
        let cancel = Cancel::new();
        let directory: Arc<dyn IodDirectory> = Arc::clone(&mgr) as Arc<dyn IodDirectory>;
        let pool_options = PoolOptions {
            idle_connections_max: options.threads,
            ..PoolOptions::default()
        };
        let pool = IodPool::new(directory, pool_options);
        Self {
            mgr,
            pool: pool.with_patience(Patience::until_cancelled(&cancel)),
            cancel,
            // As many as are in use most of the time.
            buffers: BufferPool::new(REQUEST_BYTES_MAX, options.threads),
            files: OpenFiles::default(),
            changes: Arc::default(),
            streams: Streams::default(),
            kernel: OnceLock::new(),
            recalls: Workers::new("recalls"),
            passes: Workers::new("passes"),
            reports: Workers::new("reports"),
            locks: LockBook::new(),
            options,
            totals: Mutex::default(),
            root: Mutex::default(),
        }
    }

    /// The kernel's page cache, known once the mount is made.
    pub fn set_kernel(&self, kernel: Arc<dyn Kernel>) {
        // A second one would be of the same mount.
        let _ = self.kernel.set(kernel);
    }

    /// How the mount behaves.
    #[must_use]
    pub const fn options(&self) -> &FsOptions {
        &self.options
    }

    /// Asks mgr on behalf of `caller`. Where it denies the request, asks once more with the
    /// caller's supplementary groups.
    fn ask(&self, caller: Caller, operation: MgrOperation) -> Result<MgrResponse, FsError> {
        let credentials = match operation_needs_groups(&operation) {
            true if caller.uid != 0 => caller.credentials_with_groups(),
            _ => None,
        };
        if let Some(credentials) = credentials {
            return self.ask_with(&credentials, &operation);
        }
        let reply = self.ask_with(&caller.credentials(), &operation);
        match reply {
            Err(FsError::AccessDenied | FsError::NotPermitted) if caller.uid != 0 => {
                match caller.credentials_with_groups() {
                    Some(credentials) => self.ask_with(&credentials, &operation),
                    None => reply,
                }
            }
            _ => reply,
        }
    }

    /// Asks for something that the kernel has already decided the caller may have.
    fn ask_as_root(&self, operation: MgrOperation) -> Result<MgrResponse, FsError> {
        self.ask_with(&Credentials::ROOT, &operation)
    }

    /// Asks mgr. While the operation may be changing something, nothing is answered from what is kept
    /// of that.
    fn ask_with(&self, credentials: &Credentials, operation: &MgrOperation) -> MgrReply {
        let Some(change) = self.changes.begin(operation) else {
            return self.mgr.call(credentials, operation.clone());
        };
        let hold: Hold = change;
        let reply = self.mgr.call_holding(credentials, operation, Some(&hold));
        self.changed_by_mgr(&reply);
        reply
    }

    /// Takes in what the reply to a change tells of its inode. Of a truncation there is no other news.
    fn changed_by_mgr(&self, reply: &MgrReply) {
        let attr = match reply {
            Ok(MgrResponse::Attr(attr)) => attr,
            Ok(MgrResponse::Open(opened)) => &opened.attr,
            _ => return,
        };
        if let Some(inode) = self.files.inode(attr.inode) {
            inode.state().changed_at_mgr(attr);
        }
    }

    /// Whether a change of this mount's own that is under way may concern the inode: what is kept of
    /// it may be old then. To be asked before what is kept is looked at.
    fn is_changing(&self, inode: InodeNumber) -> bool {
        match self.changes.concern(inode) {
            Concern::Yes => true,
            Concern::IfNamed(places) => places.iter().any(|(directory, name)| {
                match self.name_under_lease(*directory, name.as_bytes()) {
                    Some(named) => named == Some(inode),
                    // Whatever it is.
                    None => true,
                }
            }),
        }
    }

    /// Tells mgr something whose answer nobody waits for.
    fn post_as_root(&self, operation: &MgrOperation) {
        self.mgr.post(&Credentials::ROOT, operation);
    }

    /// Makes sure that attributes which came from mgr tell of everything that this mount has
    /// written.
    fn settle(&self, mut attr: Attr) -> Result<Attr, FsError> {
        let Some(inode) = self.files.inode(attr.inode) else {
            return Ok(attr);
        };
        for _ in 0..SETTLE_ATTEMPTS_MAX {
            if let Some(reported) = self.report(&inode)? {
                return Ok(reported);
            }
            if inode.state().learn(&attr) {
                return Ok(attr);
            }
            let inode = attr.inode;
            attr = expect_attr(self.ask_as_root(MgrOperation::GetAttr { inode })?)?;
        }
        Ok(attr)
    }

    /// Tells mgr what this mount has written to the file; `None` where there is nothing to tell.
    fn report(&self, inode: &Inode) -> Result<Option<Attr>, FsError> {
        let _reporting = inode.lock_reporting()?;
        self.report_locked(inode)
    }

    /// The same for a caller that holds the inode's `reporting` lock.
    ///
    /// Reports that others have begun without the lock are waited for: what they tell is not known
    /// to mgr before they are answered, and the open that they name must not be closed before.
    fn report_locked(&self, inode: &Inode) -> Result<Option<Attr>, FsError> {
        let mut state = inode.state();
        while state.is_reporting() {
            state = inode.wait(state, interrupt::shorten(WAIT_SLICE)).0;
            if interrupt::is_interrupted() {
                return Err(FsError::Interrupted);
            }
        }
        // In one step with that look: a recall may begin a report at any moment.
        let report = state.begin_report();
        drop(state);
        report.map_or(Ok(None), |report| self.tell(inode, report))
    }

    fn send_report(&self, inode: &Inode) -> Result<Option<Attr>, FsError> {
        let report = inode.state().begin_report();
        report.map_or(Ok(None), |report| self.tell(inode, report))
    }

    fn tell(&self, inode: &Inode, report: Report) -> Result<Option<Attr>, FsError> {
        let allocated = self.space_for_report(inode, &report);
        let operation = report_operation(inode, &report, allocated);
        let reply = self.ask_as_root(operation);
        self.reported(inode, report, reply)
    }

    /// Takes mgr's answer to a report.
    fn reported(
        &self,
        inode: &Inode,
        report: Report,
        reply: MgrReply,
    ) -> Result<Option<Attr>, FsError> {
        let outcome = match reply {
            Ok(MgrResponse::Report { attr, .. }) => {
                let mut state = inode.state();
                state.report_done(&report, &attr);
                let unneeded = state.take_unneeded();
                drop(state);
                self.close_all(inode.number, unneeded);
                Ok(Some(attr))
            }
            Err(FsError::Stale) => {
                let lost = inode.state().report_refused(report);
                if lost {
                    tracing::error!(
                        "inode {}: mgr no longer knows the open under which this mount wrote: \
                         what it wrote last may be lost, and the next fsync or close says so",
                        inode.number
                    );
                }
                Err(FsError::Stale)
            }
            outcome => {
                inode.state().report_failed(report);
                Err(outcome.err().unwrap_or(FsError::Protocol))
            }
        };
        inode.wake();
        outcome
    }

    /// Tells mgr of all writes that it has not heard of; for the timer and the end of the mount.
    pub fn report_all(&self) {
        for inode in self.files.inodes() {
            let dirty = inode.state().is_dirty();
            if dirty {
                if let Err(error) = self.report(&inode) {
                    tracing::warn!("report of inode {} to mgr: {error}", inode.number);
                }
            }
        }
    }

    /// Tells mgr that this mount is over: nobody needs to wait for its leases.
    pub fn say_goodbye(&self) {
        self.post_as_root(&MgrOperation::Goodbye);
    }

    /// Ends the waiting for daemons that are away: what waits fails with an I/O error.
    pub fn cancel(&self) {
        self.cancel.cancel();
    }
}

/// Whether the caller's groups decide how the operation turns out even where mgr allows it without
/// them: a set-gid bit stays only for a member of the file's group.
fn operation_needs_groups(operation: &MgrOperation) -> bool {
    const SET_GID: u16 = 0o2000;
    match operation {
        MgrOperation::SetAttr { set, .. } => {
            let drops = set.size.is_some() || set.uid.is_some() || set.gid.is_some();
            drops || set.mode.is_some_and(|mode| mode & SET_GID != 0)
        }
        MgrOperation::Open { truncate, .. } => *truncate,
        MgrOperation::Create { mode, .. } | MgrOperation::MakeNode { mode, .. } => {
            *mode & SET_GID != 0
        }
        // The list's mode comes with it.
        MgrOperation::SetXattr { name, .. } => name == ACL_ACCESS_XATTR,
        _ => false,
    }
}

fn expect_attr(response: MgrResponse) -> Result<Attr, FsError> {
    match response {
        MgrResponse::Attr(attr) => Ok(attr),
        _ => Err(FsError::Protocol),
    }
}

fn expect_done(response: MgrResponse) -> Result<(), FsError> {
    match response {
        MgrResponse::Done => Ok(()),
        _ => Err(FsError::Protocol),
    }
}

fn name(bytes: &[u8]) -> Result<Name, FsError> {
    Name::new(bytes)
}

/// The inode number of a FUSE node id: they are the same.
fn number(node: u64) -> InodeNumber {
    InodeNumber(node)
}

/// What mgr is told of a report.
fn report_operation(inode: &Inode, report: &Report, allocated: Option<u64>) -> MgrOperation {
    MgrOperation::Report {
        inode: inode.number,
        size_min: report.size_min,
        modified: true,
        open: report.writer,
        known_change: report.known_change,
        allocated,
        filled: report.filled,
        doubt: report.doubt,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pvfs::attr::SetAttr;
    use pvfs::proto::mgr::Access;

    #[test]
    fn groups_decide_over_set_gid_bits_only() {
        let chmod = |mode| {
            let set = SetAttr {
                mode: Some(mode),
                ..SetAttr::default()
            };
            MgrOperation::SetAttr {
                inode: InodeNumber(1),
                set,
                open: None,
            }
        };
        assert!(operation_needs_groups(&chmod(0o2755)));
        assert!(!operation_needs_groups(&chmod(0o4755)));
        let open = |truncate| MgrOperation::Open {
            inode: InodeNumber(1),
            access: Access {
                read: false,
                write: true,
            },
            truncate,
        };
        assert!(operation_needs_groups(&open(true)) && !operation_needs_groups(&open(false)));
        assert!(!operation_needs_groups(&MgrOperation::StatFs));
    }
}
