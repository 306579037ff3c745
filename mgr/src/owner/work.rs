// SPDX-License-Identifier: MIT
//! Work on stripes that outlives a request: truncations and the removal of garbage. Each is a
//! record in the store from the commit that caused it until every iod has done it, so a restart of
//! anybody only makes it happen again; both are idempotent.

use std::collections::{BTreeMap, HashSet};

use pvfs::ids::{ClientId, InodeNumber, IodId, ObjectId};
use pvfs::layout::LayoutSlot;

use super::{Action, State};
use crate::namespace::inode::Garbage;
use crate::namespace::key::{self, Tag};
use crate::namespace::layout::Cut;
use crate::namespace::value;
use crate::store::{Records, StoreError, View};

/// Removals under way at a time: enough to keep the iods busy, few enough not to disturb reads.
pub const REMOVALS_RUNNING_MAX: usize = 32;
/// Garbage records that are looked at in one batch.
const GARBAGE_PER_BATCH_MAX: usize = 256;
/// Pause before an iod that failed is asked again, unless it registers before.
pub const RETRY_MS: u64 = 1000;

/// Which part of which copy a client would like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartWanted {
    /// The client that asks.
    pub client: ClientId,
    /// The copy's number, as the client drew it.
    pub copy: u64,
    /// Where the part begins, bytes.
    pub offset: u64,
}

/// What to do with an object on its iods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StripeWork {
    /// Which object.
    pub object: ObjectId,
    /// What.
    pub order: Order,
    /// Where.
    pub targets: Vec<Target>,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Cut the local files.
    Truncate,
    /// Remove the local files.
    Remove,
    /// Refuse writes under older leases, and say how much there is.
    Fence,
}

/// An iod and what it should be left with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Which.
    pub iod: IodId,
    /// Where it was at last.
    pub address: String,
    /// For [`Order::Truncate`] and [`Order::Fence`]: which stripes of the file it has.
    pub place: LayoutSlot,
    /// Bytes of the local file that stay, for [`Order::Truncate`].
    pub length: u64,
    /// For [`Order::Truncate`] and [`Order::Fence`]: writes under smaller ones come too late.
    pub fence: u64,
    /// For the same: which attempt this is; an earlier one comes too late.
    pub number: u64,
}

/// What became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkDone {
    /// Which object.
    pub object: ObjectId,
    /// What was to be done.
    pub order: Order,
    /// The iods that have not done it, each with the reason.
    pub failed: Vec<(IodId, String)>,
    /// For [`Order::Fence`]: what the others have.
    pub measured: Vec<(IodId, LocalFile)>,
}

/// What an iod has of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalFile {
    /// Length of the local file, bytes; 0 where there is none.
    pub length: u64,
    /// Disk space that it takes, bytes.
    pub allocated: u64,
}

#[derive(Debug)]
struct Cutting {
    cut: Cut,
    /// The iods that have not acknowledged yet.
    left: Vec<IodId>,
    running: bool,
    retry_ms: u64,
    /// The log says once that an iod is away.
    warned: bool,
}

/// The work on stripes that is to be done.
#[derive(Debug, Default)]
pub struct Work {
    cuts: BTreeMap<InodeNumber, Cutting>,
    removing: HashSet<ObjectId>,
    /// Where the next look at the garbage begins; `None`: at its start.
    garbage_after: Option<Vec<u8>>,
    /// There may be garbage that nobody has looked at.
    look_at_garbage: bool,
    /// Next look at the garbage in any case.
    garbage_ms: u64,
    retry_now: bool,
}

impl Work {
    /// Adds a truncation whose record is stored.
    pub fn add_cut(&mut self, inode: InodeNumber, cut: Cut) {
        let left = cut.layout.iods().to_vec();
        let cutting = Cutting {
            cut,
            left,
            running: false,
            retry_ms: 0,
            warned: false,
        };
        self.cuts.insert(inode, cutting);
    }

    /// Whether a truncation of the inode goes on.
    #[must_use]
    pub fn is_cutting(&self, inode: InodeNumber) -> bool {
        self.cuts.contains_key(&inode)
    }

    /// An iod registered: what waits for it is tried at once.
    pub const fn iod_is_back(&mut self) {
        self.retry_now = true;
    }

    /// Whether what waits for iods is to be tried again in this batch.
    #[must_use]
    pub const fn is_to_retry_now(&self) -> bool {
        self.retry_now
    }

    /// Starts a finished truncation again, whose record could not be removed.
    pub fn again(&mut self, inode: InodeNumber, ms: u64) {
        if let Some(cutting) = self.cuts.get_mut(&inode) {
            cutting.running = false;
            cutting.retry_ms = ms + RETRY_MS;
        }
    }

    /// Notes what became of some work. Where it is done, its record goes into `records`; a
    /// truncation that is done is returned.
    pub fn done(&mut self, done: WorkDone, ms: u64, records: &mut Records) -> Option<InodeNumber> {
        match done.order {
            Order::Remove => {
                self.removing.remove(&done.object);
                if done.failed.is_empty() {
                    records.insert(key::garbage(done.object), None);
                    self.look_at_garbage = true;
                }
                None
            }
            Order::Truncate => self.cut_done(done, ms, records),
            // That is for [`super::reconcile`].
            Order::Fence => None,
        }
    }

    fn cut_done(&mut self, done: WorkDone, ms: u64, records: &mut Records) -> Option<InodeNumber> {
        let inode = done.object.inode;
        let cutting = self.cuts.get_mut(&inode)?;
        cutting.left = done.failed.iter().map(|(iod, _)| *iod).collect();
        if cutting.left.is_empty() {
            records.insert(key::cut(inode), None);
            return Some(inode);
        }
        cutting.running = false;
        cutting.retry_ms = ms + RETRY_MS;
        if !std::mem::replace(&mut cutting.warned, true) {
            for (iod, reason) in &done.failed {
                tracing::warn!(
                    "truncation of inode {inode} waits for iod {iod} ({reason}): is it running?"
                );
            }
        }
        None
    }

    /// Says that the record of a truncation is gone.
    fn forget_cut(&mut self, inode: InodeNumber) {
        let cutting = self.cuts.remove(&inode);
        if cutting.is_some_and(|cutting| cutting.warned) {
            tracing::info!("truncation of inode {inode} is done");
        }
    }
}

impl<W> State<W> {
    /// Starts what may start now.
    pub(super) fn start_work(
        &mut self,
        view: &dyn View,
        ms: u64,
        actions: &mut Vec<Action<W>>,
    ) -> Result<(), StoreError> {
        self.start_cuts(ms, actions);
        let due = self.work.look_at_garbage || ms >= self.work.garbage_ms;
        if due || self.work.retry_now {
            self.work.look_at_garbage = false;
            self.work.garbage_ms = ms + RETRY_MS;
            self.start_removals(view, actions)?;
        }
        self.work.retry_now = false;
        Ok(())
    }

    fn start_cuts(&mut self, ms: u64, actions: &mut Vec<Action<W>>) {
        let Work {
            cuts, retry_now, ..
        } = &mut self.work;
        let waiting = cuts.iter_mut().filter(|(_, cutting)| {
            !cutting.running && !cutting.left.is_empty() && (*retry_now || cutting.retry_ms <= ms)
        });
        for (inode, cutting) in waiting {
            cutting.running = true;
            let (fence, number) = self.leases.fence_for_cut(*inode);
            let Cut {
                generation,
                layout,
                size,
            } = &cutting.cut;
            let object = ObjectId {
                inode: *inode,
                generation: *generation,
            };
            let stripes = layout.stripes_of(object);
            let slots = layout.iods().iter().enumerate();
            let targets = slots
                .filter(|(_, iod)| cutting.left.contains(iod))
                .map(|(slot, iod)| Target {
                    iod: *iod,
                    address: self.registry.address(*iod).unwrap_or_default().to_owned(),
                    place: stripes(slot).place,
                    length: layout.local_size(slot, *size),
                    fence,
                    number,
                });
            actions.push(Action::Work(StripeWork {
                object,
                order: Order::Truncate,
                targets: targets.collect(),
            }));
        }
    }

    /// Removes garbage whose iods are all there. What waits for an iod does not hold up the rest.
    fn start_removals(
        &mut self,
        view: &dyn View,
        actions: &mut Vec<Action<W>>,
    ) -> Result<(), StoreError> {
        let prefix = key::all(Tag::Garbage);
        let end = key::end_of_prefix(&prefix);
        let after = self.work.garbage_after.take().unwrap_or(prefix);
        let room = REMOVALS_RUNNING_MAX.saturating_sub(self.work.removing.len());
        let mut seen = Vec::new();
        if room > 0 {
            view.scan(&after, end.as_deref(), &mut |key, value| {
                seen.push((key.to_vec(), value.to_vec()));
                seen.len() < GARBAGE_PER_BATCH_MAX
            })?;
        }
        let mut started = 0;
        for (key, value) in &seen {
            if started == room {
                break;
            }
            self.work.garbage_after = Some(key.clone());
            let garbage: Garbage = value::decode(key, value)?;
            let Some(object) = key::object_of(key) else {
                continue;
            };
            let ready = garbage.iods.iter().all(|iod| self.registry.is_here(*iod));
            if ready && self.work.removing.insert(object) {
                started += 1;
                actions.push(Action::Work(self.removal(object, &garbage)));
            }
        }
        // A full look starts from the beginning again; an unfinished one goes on where it stopped.
        if started < room && seen.len() < GARBAGE_PER_BATCH_MAX {
            self.work.garbage_after = None;
        } else if started == room && room > 0 {
            self.work.look_at_garbage = false;
        }
        Ok(())
    }

    fn removal(&self, object: ObjectId, garbage: &Garbage) -> StripeWork {
        let targets = garbage.iods.iter().map(|iod| Target {
            iod: *iod,
            address: self.registry.address(*iod).unwrap_or_default().to_owned(),
            place: LayoutSlot::default(),
            length: 0,
            fence: 0,
            number: 0,
        });
        StripeWork {
            object,
            order: Order::Remove,
            targets: targets.collect(),
        }
    }

    /// The records of these truncations are gone.
    pub(super) fn forget_cuts(&mut self, inodes: &[InodeNumber]) {
        for inode in inodes {
            self.work.forget_cut(*inode);
        }
    }
}
