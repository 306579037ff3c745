// SPDX-License-Identifier: MIT
//! Locks: fcntl's and flock's, held by mgr for all nodes.
//!
//! The kernel tells who locks by a number: one for each process, one for each open file description.
//! A process' locks on a file end with any close of the file, which is a FLUSH with that number;
//! those of a description end with its RELEASE.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use pvfs::attr::Credentials;
use pvfs::client::interrupt::LOOK_INTERVAL;
use pvfs::error::FsError;
use pvfs::ids::InodeNumber;
use pvfs::proto::lock::{
    HeldLock, LockFamily, LockKind, LockOwner, LockRange, LockRequest, ProcessNumber,
};
use pvfs::proto::mgr::{MgrOperation, MgrResponse};
use pvfs::runtime::sync::{Condvar, Mutex, MutexGuard, PoisonError, Weak};
use pvfs::runtime::thread;
use pvfs::runtime::time::{Duration, Instant};

use super::calling_thread::{self, Interruption, LockCall};
use super::{Pvfs, expect_done, number};

/// Looking whether waiting threads were interrupted takes at most one part in so many of a
/// processor's time.
const LOOKING_PART: u32 = 10;

/// Takes the outcome of a request for a lock.
pub type LockDone = Box<dyn FnOnce(Result<(), FsError>) + Send>;

/// What the kernel says of a lock.
#[derive(Clone, Copy, Debug)]
pub struct LockPlace {
    /// FUSE node.
    pub node: u64,
    /// Open file.
    pub handle: u64,
    /// The kernel's number for who locks.
    pub owner: u64,
    /// First byte.
    pub start: u64,
    /// Last byte.
    pub last: u64,
    /// Process.
    pub pid: u32,
    /// Thread that waits for the answer.
    pub thread: u32,
}

impl LockPlace {
    const fn range(&self) -> LockRange {
        LockRange {
            start: self.start,
            last: self.last,
        }
    }
}

/// A lock that stands against another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FoundLock {
    /// First byte.
    pub start: u64,
    /// Last byte.
    pub last: u64,
    /// How it is held.
    pub kind: LockKind,
    /// The process, where it is one that has a number here; else 0.
    pub pid: u32,
}

/// What is known of one of the kernel's numbers, for one file.
#[derive(Clone, Debug)]
struct Known {
    owner: LockOwner,
    /// Through which open files it has locked.
    handles: BTreeSet<u64>,
    families: BTreeSet<LockFamily>,
}

/// A thread that waits for a lock.
struct Waiting {
    done: LockDone,
    place: LockPlace,
    name: (LockOwner, LockFamily),
}

#[derive(Default)]
struct Book {
    /// By inode and the kernel's number. Bounded by the open files and the processes that use them.
    known: BTreeMap<(InodeNumber, u64), Known>,
    waiting: HashMap<u64, Waiting>,
    /// Who had locks that mgr has given away.
    lost: HashSet<(InodeNumber, LockOwner)>,
    /// Open files through which those were locked.
    tainted: HashMap<u64, BTreeSet<(InodeNumber, LockOwner)>>,
}

impl Book {
    /// What mgr knows the owner as and which locks it meets, where that is known here.
    fn name(&self, place: &LockPlace, inode: InodeNumber) -> Option<(LockOwner, LockFamily)> {
        let known = self.known.get(&(inode, place.owner))?;
        match known.owner {
            // flock(2) is by open files, whose numbers are not those of processes.
            LockOwner::Process(_) => Some((known.owner, LockFamily::Range)),
            // A description's number may be used again for another one before its end is known; and
            // what is about the whole file may be flock's.
            LockOwner::File(handle) => {
                let sure = handle == place.handle && place.range() != LockRange::ALL;
                sure.then_some((known.owner, LockFamily::Range))
            }
        }
    }

    /// Notes that an owner may have locks, which end with its close.
    fn note(&mut self, place: &LockPlace, inode: InodeNumber, name: (LockOwner, LockFamily)) {
        let (owner, family) = name;
        let fresh = Known {
            owner,
            handles: BTreeSet::new(),
            families: BTreeSet::new(),
        };
        let entry = self.known.entry((inode, place.owner));
        let known = entry.or_insert_with(|| fresh.clone());
        if known.owner != owner {
            *known = fresh;
        }
        known.handles.insert(place.handle);
        known.families.insert(family);
    }

    fn forgive(&mut self, inode: InodeNumber, owner: LockOwner) {
        if self.lost.remove(&(inode, owner)) {
            self.tainted.retain(|_, owners| {
                owners.remove(&(inode, owner));
                !owners.is_empty()
            });
        }
    }
}

/// The locks that this mount has for its processes.
pub(super) struct LockBook {
    /// Where the numbers of processes that this mount's kernel gives mean something.
    namespace: Option<u64>,
    book: Mutex<Book>,
    /// Signals: somebody waits.
    somebody_waits: Condvar,
}

impl LockBook {
    pub(super) fn new() -> Self {
        Self {
            namespace: calling_thread::pid_namespace(),
            book: Mutex::default(),
            somebody_waits: Condvar::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether I/O through the handle is refused since locks behind it were lost.
    pub(super) fn is_tainted(&self, handle: u64) -> bool {
        let book = self.lock();
        !book.tainted.is_empty() && book.tainted.contains_key(&handle)
    }
}

impl Pvfs {
    /// What mgr is to know the owner as, and which locks it meets.
    fn name_lock(&self, place: &LockPlace) -> (LockOwner, LockFamily) {
        let inode = number(place.node);
        let known = self.locks.lock().name(place, inode);
        let name = known.unwrap_or_else(|| match calling_thread::lock_call(place.thread) {
            Some(LockCall::Flock) => (LockOwner::File(place.handle), LockFamily::Whole),
            Some(LockCall::Ofd) => (LockOwner::File(place.handle), LockFamily::Range),
            // Where /proc does not say, flock's locks are fcntl's on the whole file, as on NFS.
            Some(LockCall::Posix) | None => (LockOwner::Process(place.owner), LockFamily::Range),
        });
        self.locks.lock().note(place, inode, name);
        name
    }

    /// Finds a lock that stands against one that `place` would like.
    ///
    /// # Errors
    ///
    /// mgr's.
    pub fn test_lock(
        &self,
        place: &LockPlace,
        kind: LockKind,
    ) -> Result<Option<FoundLock>, FsError> {
        let inode = number(place.node);
        let (owner, family) = self.name_lock(place);
        let operation = MgrOperation::TestLock {
            inode,
            owner,
            family,
            range: place.range(),
            kind,
        };
        match self.ask_as_root(operation)? {
            MgrResponse::Lock(None) => Ok(None),
            MgrResponse::Lock(Some(holder)) => {
                let here = self.locks.namespace == Some(holder.process.namespace);
                let process = matches!(holder.owner, LockOwner::Process(_));
                Ok(Some(FoundLock {
                    start: holder.range.start,
                    last: holder.range.last,
                    kind: holder.kind,
                    pid: if here && process {
                        holder.process.pid
                    } else {
                        0
                    },
                }))
            }
            _ => Err(FsError::Protocol),
        }
    }

    /// Locks, or unlocks where `kind` is `None`. With `waits` the outcome may come much later, from
    /// another thread.
    pub fn set_lock(&self, place: &LockPlace, kind: Option<LockKind>, waits: bool, done: LockDone) {
        let inode = number(place.node);
        let name @ (owner, family) = self.name_lock(place);
        let lost = self.locks.lock().lost.contains(&(inode, owner));
        if lost && kind.is_some() {
            return done(Err(FsError::NoLocks));
        }
        let request = LockRequest {
            inode,
            owner,
            family,
            range: place.range(),
            kind,
            process: ProcessNumber {
                namespace: self.locks.namespace.unwrap_or_default(),
                pid: place.pid,
            },
            wait: None,
            settled_below: 0,
        };
        if kind.is_none() {
            return done(self.unlock(request));
        }
        if !waits {
            let outcome = self.ask_as_root(MgrOperation::SetLock(request));
            // Another thread may have closed a descriptor of the file meanwhile.
            self.locks.lock().note(place, inode, name);
            return done(outcome.and_then(expect_done));
        }
        let place = *place;
        self.mgr.wait_for_lock(request, |wait| {
            let waiting = Waiting { done, place, name };
            self.locks.lock().waiting.insert(wait, waiting);
            self.locks.somebody_waits.notify_all();
        });
    }

    /// Unlocks; mgr gets to it, though the caller may not wait for that.
    fn unlock(&self, request: LockRequest) -> Result<(), FsError> {
        if request.range == LockRange::ALL {
            self.locks.lock().forgive(request.inode, request.owner);
        }
        let operation = MgrOperation::SetLock(request);
        let outcome = self.mgr.call_to_the_end(&Credentials::ROOT, &operation);
        outcome.and_then(expect_done)
    }

    fn unlock_all(&self, inode: InodeNumber, known: &Known) -> Result<(), FsError> {
        let mut outcome = Ok(());
        for family in &known.families {
            let request = LockRequest {
                inode,
                owner: known.owner,
                family: *family,
                range: LockRange::ALL,
                kind: None,
                process: ProcessNumber::default(),
                wait: None,
                settled_below: 0,
            };
            outcome = outcome.and(self.unlock(request));
        }
        outcome
    }

    /// A process closes one of its descriptors of a file: its locks on the file end.
    ///
    /// # Errors
    ///
    /// [`FsError::Interrupted`] where the caller does not wait for mgr; the locks end all the same.
    pub fn process_closes(&self, node: u64, owner: u64) -> Result<(), FsError> {
        let inode = number(node);
        let known = {
            let mut book = self.locks.lock();
            let key = (inode, owner);
            let process = |known: &Known| matches!(known.owner, LockOwner::Process(_));
            match book.known.get(&key).is_some_and(process) {
                true => book.known.remove(&key),
                false => None,
            }
        };
        match known {
            Some(known) => self.unlock_all(inode, &known),
            None => Ok(()),
        }
    }

    /// An open file is gone, and its locks with it.
    pub(super) fn file_closes(&self, inode: InodeNumber, handle: u64) {
        let gone: Vec<Known> = {
            let mut book = self.locks.lock();
            let numbers = book.known.range((inode, 0)..=(inode, u64::MAX));
            let used = numbers.filter(|(_, known)| known.handles.contains(&handle));
            let used: Vec<u64> = used.map(|((_, number), _)| *number).collect();
            let gone = used
                .iter()
                .filter_map(|number| book.known.remove(&(inode, *number)))
                .collect();
            book.tainted.remove(&handle);
            gone
        };
        for known in gone {
            // Nobody waits for a release; mgr gets to it in any case.
            if let Err(error) = self.unlock_all(inode, &known) {
                tracing::warn!("unlocking inode {inode}: {error}");
            }
        }
    }

    /// The waiting for a lock is over.
    pub(super) fn lock_settled(&self, wait: u64, outcome: Result<(), FsError>) {
        let waiting = {
            let mut book = self.locks.lock();
            let waiting = book.waiting.remove(&wait);
            if let (Some(Waiting { place, name, .. }), Ok(())) = (&waiting, outcome) {
                book.note(place, number(place.node), *name);
            }
            waiting
        };
        if let Some(waiting) = waiting {
            (waiting.done)(outcome);
        }
    }

    /// mgr has given locks of this mount away.
    pub(super) fn locks_lost(&self, lost: &[HeldLock]) {
        let mut book = self.locks.lock();
        let mut inodes = BTreeSet::new();
        for lock in lost {
            inodes.insert(lock.inode);
            book.lost.insert((lock.inode, lock.owner));
            let numbers = book.known.range((lock.inode, 0)..=(lock.inode, u64::MAX));
            let handles = numbers
                .filter(|(_, known)| known.owner == lock.owner)
                .flat_map(|(_, known)| known.handles.iter().copied());
            for handle in handles.collect::<Vec<u64>>() {
                let owners = book.tainted.entry(handle).or_default();
                owners.insert((lock.inode, lock.owner));
            }
        }
        drop(book);
        for inode in inodes {
            tracing::error!(
                "locks on inode {inode} are lost, as mgr has not heard of this mount for too long: \
                 programs that had them get EIO until they unlock or close the file"
            );
        }
    }

    /// Ends the waiting of threads that were interrupted; gives how long the look took.
    fn interrupt_waits(&self) -> Duration {
        let start = Instant::now();
        let threads: Vec<(u64, u32)> = {
            let book = self.locks.lock();
            let waiting = book.waiting.iter();
            waiting
                .map(|(wait, waiting)| (*wait, waiting.place.thread))
                .collect()
        };
        for (wait, thread) in threads {
            if !calling_thread::is_interrupted(thread, Interruption::Any) {
                continue;
            }
            let waiting = self.locks.lock().waiting.remove(&wait);
            if let Some(waiting) = waiting {
                let node = waiting.place.node;
                tracing::debug!("thread {thread} no longer waits for a lock of inode {node}");
                self.mgr.cancel_lock(wait);
                (waiting.done)(Err(FsError::Interrupted));
            }
        }
        start.elapsed()
    }
}

/// Looks whether threads that wait for locks were interrupted, until the mount ends.
pub fn interrupt_lock_waits(fs: &Weak<Pvfs>) {
    loop {
        let Some(fs) = fs.upgrade() else { return };
        let book = fs.locks.lock();
        // An upgraded reference must not be held for ever: the mount may end.
        let (book, _) = fs
            .locks
            .somebody_waits
            .wait_timeout_while(book, IDLE_LOOK, |book| book.waiting.is_empty())
            .unwrap_or_else(PoisonError::into_inner);
        let somebody = !book.waiting.is_empty();
        drop(book);
        if somebody {
            let took = fs.interrupt_waits();
            drop(fs);
            thread::sleep(LOOK_INTERVAL.max(took * LOOKING_PART));
        }
    }
}

/// How long an ended mount's file system is kept by a thread that has nothing to do.
const IDLE_LOOK: Duration = Duration::from_millis(500);
