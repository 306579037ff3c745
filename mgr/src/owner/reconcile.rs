// SPDX-License-Identifier: MIT
//! Settles files of which the iods may hold more than mgr knows, before anybody else may extend them:
//! see [`crate::namespace::intent`] and docs/decisions/0104-write-intents.md.
//!
//! First all who may write to the file give that up, having reported what they wrote. Where a write
//! failed in part, what the iods hold beyond the file's end is cut off, as by a truncation. Where a
//! writer is gone, the iods refuse what may still be on its way from it, say how much they have, and
//! the file is as long as that.
//!
//! # Invariants
//!
//! While a file is in doubt nobody gets a lease to write to it, opens it for writing or changes its
//! size. A file shrinks by nothing that happens here.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use pvfs::ids::{ClientId, InodeNumber, IodId, ObjectId};
use pvfs::layout::Layout;
use pvfs::limits::FILE_SIZE_BYTES_MAX;
use pvfs::proto::lease::Lease;

use super::batch::Batch;
use super::leases::{Parked, Reported};
use super::work::{LocalFile, Order, RETRY_MS, StripeWork, Target, WorkDone};
use super::{Action, State};
use crate::leases::Need;
use crate::namespace::inode::Inode;
use crate::namespace::intent::{Doubt, Intent, Measure};
use crate::namespace::key::{self, Tag};
use crate::namespace::transaction::{Halt, Transaction};
use crate::namespace::value;
use crate::store::{Records, StoreError, View};

/// Files that are settled at a time though nobody waits for them: enough to be done soon after many
/// writers were lost at once, few enough not to disturb others at the iods.
pub const RECONCILING_MAX: usize = 32;
/// Files that wait for their turn and are looked at in one batch.
const QUEUED_PER_BATCH_MAX: usize = 64;
/// A file that nobody writes to keeps its intent for so long: whoever writes to it again meanwhile
/// costs no commit.
pub const INTENT_IDLE_MS: u64 = 5_000;
/// Intents that go in one batch: more than a batch's requests can leave behind.
const INTENTS_PER_BATCH_MAX: usize = 1024;
/// Stands for mgr itself where leases are demanded; no client draws this number.
const NOBODY: ClientId = ClientId(0);

/// How far a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Its writers are asked for their leases, or its iods are to be asked.
    Waiting,
    /// Its iods are asked.
    Fencing,
    /// They have answered; readers may have to forget its size.
    Measured(Measure),
}

/// A file in doubt.
#[derive(Debug)]
struct File {
    doubt: Doubt,
    phase: Phase,
    /// Another writer was lost since its iods were asked.
    again: bool,
    /// An iod has not answered: readers go on with the size that is known.
    late: bool,
    retry_ms: u64,
}

/// The files that may be being written, and those that are being settled.
#[derive(Debug, Default)]
pub(super) struct Intents {
    doubts: BTreeMap<InodeNumber, File>,
    /// Those that are being settled.
    active: BTreeSet<InodeNumber>,
    /// Those that wait for their turn.
    queue: VecDeque<InodeNumber>,
    /// Intents that a full store did not take, or that are missing.
    unstored: BTreeSet<InodeNumber>,
    /// Files that nobody wrote to any more, and since when.
    idle: VecDeque<(u64, InodeNumber)>,
}

impl Intents {
    /// Takes an intent that was found in the store at start. Clients may declare opens for writing
    /// until `grace_end_ms`.
    pub(super) fn restore(&mut self, inode: InodeNumber, intent: Intent, grace_end_ms: u64) {
        match intent.doubt {
            Some(doubt) => self.raise(inode, doubt),
            None => self.idle.push_back((grace_end_ms, inode)),
        }
    }

    /// Whether a file is in doubt.
    pub(super) fn is_in_doubt(&self, inode: InodeNumber) -> bool {
        self.doubts.contains_key(&inode)
    }

    /// Whether who looks at a file is to wait until it is settled: its size may be larger than what
    /// is known, and that will be known soon.
    pub(super) fn holds_up_readers(&self, inode: InodeNumber) -> bool {
        let file = self.doubts.get(&inode);
        file.is_some_and(|file| file.doubt == Doubt::Lost && !file.late)
    }

    /// Somebody waits for a file: it is settled before others.
    pub(super) fn want(&mut self, inode: InodeNumber) {
        if self.is_in_doubt(inode) {
            self.active.insert(inode);
        }
    }

    /// Nobody writes to a file at this moment.
    pub(super) fn note_idle(&mut self, inode: InodeNumber, ms: u64) {
        self.idle.push_back((ms, inode));
    }

    /// A file that nobody has written to for long enough.
    fn take_idle(&mut self, ms: u64) -> Option<InodeNumber> {
        let (since, inode) = *self.idle.front()?;
        if since + INTENT_IDLE_MS > ms {
            return None;
        }
        self.idle.pop_front();
        Some(inode)
    }

    /// The store lacks the intent of a file that somebody may write to: the next batch stores it.
    pub(super) fn note_missing(&mut self, inode: InodeNumber) {
        self.unstored.insert(inode);
    }

    fn raise(&mut self, inode: InodeNumber, doubt: Doubt) {
        let queue = &mut self.queue;
        let file = self.doubts.entry(inode).or_insert_with(|| {
            queue.push_back(inode);
            File {
                doubt,
                phase: Phase::Waiting,
                again: false,
                late: false,
                retry_ms: 0,
            }
        });
        file.doubt = file.doubt.max(doubt);
        match file.phase {
            Phase::Waiting => {}
            Phase::Fencing => file.again = true,
            Phase::Measured(_) => file.phase = Phase::Waiting,
        }
    }

    /// Fills up what is being settled.
    fn activate(&mut self, ms: u64, retry_now: bool) {
        for _ in 0..self.queue.len().min(QUEUED_PER_BATCH_MAX) {
            if self.active.len() >= RECONCILING_MAX {
                return;
            }
            let Some(inode) = self.queue.pop_front() else {
                return;
            };
            match self.doubts.get(&inode) {
                Some(file) if retry_now || file.retry_ms <= ms => drop(self.active.insert(inode)),
                Some(_) => self.queue.push_back(inode),
                None => {}
            }
        }
    }

    /// An iod of the file does not answer: true where nobody knew yet.
    fn put_off(&mut self, inode: InodeNumber, ms: u64) -> bool {
        let Some(file) = self.doubts.get_mut(&inode) else {
            return false;
        };
        file.phase = Phase::Waiting;
        file.retry_ms = ms + RETRY_MS;
        if self.active.remove(&inode) {
            self.queue.push_back(inode);
        }
        !std::mem::replace(&mut file.late, true)
    }

    fn forget(&mut self, inode: InodeNumber) {
        self.doubts.remove(&inode);
        self.active.remove(&inode);
    }
}

impl<W> State<W> {
    /// Notes that a client has lost the leases and opens under which it may have written to a file.
    /// Nothing happens where the file is gone.
    pub(super) fn note_lost_writer(
        &mut self,
        view: &dyn View,
        batch: &mut Batch<W>,
        inode: InodeNumber,
    ) -> Result<(), StoreError> {
        let key = key::intent(inode);
        let Some(mut intent) = read::<Intent>(view, &batch.records, &key)? else {
            return Ok(());
        };
        intent.doubt = Some(Doubt::Lost);
        batch.records.insert(key, Some(value::encode(&intent)?));
        self.intents.raise(inode, Doubt::Lost);
        batch.doubted.push(inode);
        Ok(())
    }

    /// A client that may have had leases before the start has not come back: nobody knows to which
    /// files it wrote.
    pub(super) fn note_lost_writers_of_all(
        &mut self,
        view: &dyn View,
        batch: &mut Batch<W>,
    ) -> Result<(), StoreError> {
        let prefix = key::all(Tag::Intent);
        let end = key::end_of_prefix(&prefix);
        let mut inodes = Vec::new();
        view.scan(&prefix, end.as_deref(), &mut |key, _| {
            inodes.extend(key::inode_of(key));
            true
        })?;
        for inode in inodes {
            self.note_lost_writer(view, batch, inode)?;
        }
        Ok(())
    }

    /// Takes the doubts that a request has raised.
    pub(super) fn note_doubts(
        &mut self,
        records: &Records,
        doubted: &mut Vec<InodeNumber>,
    ) -> Result<(), StoreError> {
        let prefix = key::all(Tag::Intent);
        for (key, bytes) in records.range(prefix..) {
            let inode = key::inode_of(key).filter(|inode| *key == key::intent(*inode));
            let Some(inode) = inode else { break };
            let Some(bytes) = bytes else { continue };
            if let Some(doubt) = value::decode::<Intent>(key, bytes)?.doubt {
                self.intents.raise(inode, doubt);
                doubted.push(inode);
            }
        }
        Ok(())
    }

    /// Adds intents that the store should have, before any request looks at them.
    pub(super) fn add_intents(
        &mut self,
        view: &dyn View,
        batch: &mut Batch<W>,
    ) -> Result<(), StoreError> {
        for inode in &self.intents.unstored {
            batch.stored.push(*inode);
            let Some(found) = read::<Inode>(view, &batch.records, &key::inode(*inode))? else {
                continue;
            };
            let intent = Intent {
                generation: found.attr.generation,
                doubt: self.intents.doubts.get(inode).map(|file| file.doubt),
            };
            let value = value::encode(&intent)?;
            batch.records.insert(key::intent(*inode), Some(value));
        }
        Ok(())
    }

    /// Lets the intents of files that nobody writes to any more go along with the batch's other
    /// records.
    pub(super) fn drop_intents(
        &mut self,
        view: &dyn View,
        batch: &mut Batch<W>,
    ) -> Result<(), StoreError> {
        let ms = batch.moment.ms;
        if (batch.records.is_empty() && !batch.tick) || self.in_grace(ms) {
            return Ok(());
        }
        for _ in 0..INTENTS_PER_BATCH_MAX {
            let Some(inode) = self.intents.take_idle(ms) else {
                break;
            };
            if self.opens.has_writers(inode) || self.intents.is_in_doubt(inode) {
                // The last of its writers makes it idle again.
                continue;
            }
            if self.leases.is_written(inode) {
                self.intents.note_idle(inode, ms);
                continue;
            }
            let key = key::intent(inode);
            if read::<Intent>(view, &batch.records, &key)?.is_some() {
                batch.records.insert(key, None);
                batch.dropped.push(inode);
            }
        }
        Ok(())
    }

    /// Goes on with files in doubt as far as that is possible now.
    pub(super) fn reconcile(
        &mut self,
        view: &dyn View,
        batch: &mut Batch<W>,
    ) -> Result<(), StoreError> {
        // They may have reports to make.
        if !self.returning.is_empty() {
            return Ok(());
        }
        let ms = batch.moment.ms;
        self.intents.activate(ms, self.work.is_to_retry_now());
        for inode in self.intents.active.clone() {
            self.reconcile_file(view, batch, inode)?;
        }
        Ok(())
    }

    fn reconcile_file(
        &mut self,
        view: &dyn View,
        batch: &mut Batch<W>,
        inode: InodeNumber,
    ) -> Result<(), StoreError> {
        let found = read::<Inode>(view, &batch.records, &key::inode(inode))?;
        let layout = read::<Layout>(view, &batch.records, &key::layout(inode))?;
        let (Some(found), Some(layout)) = (found, layout) else {
            batch.settled.push(inode);
            return Ok(());
        };
        let cut = batch.records.get(&key::cut(inode));
        if self.work.is_cutting(inode) || cut.is_some_and(Option::is_some) {
            return Ok(());
        }
        let nobody = Reported::default();
        let writers = Need::Hold(Lease::Read);
        if !self
            .leases
            .demand(NOBODY, inode, writers, &nobody)
            .is_empty()
        {
            return Ok(());
        }
        debug_assert!(!self.leases.is_written(inode), "a writer of inode {inode}");
        let Some(file) = self.intents.doubts.get(&inode) else {
            return Ok(());
        };
        match (file.doubt, file.phase) {
            (Doubt::Torn, _) => self.settle(view, batch, &found, None),
            (Doubt::Lost, Phase::Waiting) => {
                self.fence(batch, &found, &layout);
                Ok(())
            }
            (Doubt::Lost, Phase::Fencing) => Ok(()),
            (Doubt::Lost, Phase::Measured(measure)) => {
                // Readers rely on the size.
                let grows = measure.end > found.attr.size;
                if grows
                    && !self
                        .leases
                        .demand(NOBODY, inode, Need::Resize, &nobody)
                        .is_empty()
                {
                    return Ok(());
                }
                self.settle(view, batch, &found, Some(measure))
            }
        }
    }

    /// Makes the records that end a doubt.
    fn settle(
        &mut self,
        view: &dyn View,
        batch: &mut Batch<W>,
        found: &Inode,
        measure: Option<Measure>,
    ) -> Result<(), StoreError> {
        let inode = found.attr.inode;
        let context = self.own_context(batch);
        let mut tx = Transaction::new(view, &batch.records, &context, &mut self.opens);
        let settled = match measure {
            Some(measure) => tx.settle_by_growth(found.clone(), measure),
            None => tx.settle_by_cut(found),
        };
        let mut records = tx.into_records();
        match settled {
            Ok(()) => {}
            Err(Halt::Store(error)) => return Err(error),
            Err(Halt::Fs(error)) => {
                tracing::error!("inode {inode} cannot be settled: {error}");
                return Ok(());
            }
            Err(Halt::Blocked(_)) => return Ok(()),
        }
        if let Some(measure) = measure.filter(|measure| measure.end > found.attr.size) {
            tracing::info!(
                "inode {inode}: a writer is gone that had not reported all: it has {} bytes, not {}",
                measure.end,
                found.attr.size
            );
        }
        if let Some(Some(bytes)) = records.get(&key::cut(inode)) {
            let cut = value::decode(&key::cut(inode), bytes)?;
            batch.cuts_begun.push((inode, cut));
        }
        batch.records.append(&mut records);
        batch.settled.push(inode);
        Ok(())
    }

    /// Asks the iods of a file, if all of them are there.
    fn fence(&mut self, batch: &mut Batch<W>, found: &Inode, layout: &Layout) {
        let (inode, ms) = (found.attr.inode, batch.moment.ms);
        let mut iods = layout.iods().iter();
        let away = iods.find(|iod| !self.registry.is_here(**iod));
        if let Some(away) = away {
            self.wait_for_iod(inode, *away, "it is away", ms);
            return;
        }
        let (fence, number) = self.leases.fence_for_cut(inode);
        let object = found.attr.object();
        let stripes = layout.stripes_of(object);
        let slots = layout.iods().iter().enumerate();
        let targets = slots.map(|(slot, iod)| Target {
            iod: *iod,
            address: self.registry.address(*iod).unwrap_or_default().to_owned(),
            length: 0,
            place: stripes(slot).place,
            fence,
            number,
        });
        let work = StripeWork {
            object,
            order: Order::Fence,
            targets: targets.collect(),
        };
        batch.actions.push(Action::Work(work));
        if let Some(file) = self.intents.doubts.get_mut(&inode) {
            file.phase = Phase::Fencing;
            file.again = false;
        }
    }

    /// Takes what the iods of a file have said.
    pub(super) fn fenced(
        &mut self,
        view: &dyn View,
        batch: &mut Batch<W>,
        done: &WorkDone,
    ) -> Result<(), StoreError> {
        let WorkDone { object, .. } = done;
        let inode = object.inode;
        let Some(file) = self.intents.doubts.get_mut(&inode) else {
            return Ok(());
        };
        if file.phase != Phase::Fencing {
            return Ok(());
        }
        file.phase = Phase::Waiting;
        if let Some((iod, reason)) = done.failed.first() {
            self.wait_for_iod(inode, *iod, reason, batch.moment.ms);
            return Ok(());
        }
        if file.again {
            return Ok(());
        }
        let layout = read::<Layout>(view, &batch.records, &key::layout(inode))?;
        if let Some(layout) = layout {
            file.phase = Phase::Measured(measure(&layout, *object, &done.measured));
        }
        Ok(())
    }

    /// A file cannot be settled now: whoever reads what is known of it goes on.
    fn wait_for_iod(&mut self, inode: InodeNumber, iod: IodId, reason: &str, ms: u64) {
        if self.intents.put_off(inode, ms) {
            tracing::warn!(
                "inode {inode}: a writer is gone, and who extends the file waits for iod {iod} \
                 ({reason}): is it running?"
            );
            self.wake(inode);
        }
    }

    /// Lets those run who wait for a file, after this batch.
    fn wake(&mut self, inode: InodeNumber) {
        for parked in self.acquiring.remove(&inode).unwrap_or_default() {
            self.parking.again(parked);
        }
        for blocked in self.blocked.remove(&inode).unwrap_or_default() {
            let parked = Parked::new(blocked.connection, None, blocked.request);
            self.parking.again(parked);
        }
    }

    /// The batch is committed.
    pub(super) fn intents_committed(&mut self, batch: &mut Batch<W>) {
        for inode in &batch.stored {
            self.intents.unstored.remove(inode);
        }
        for (inode, cut) in batch.cuts_begun.drain(..) {
            self.work.add_cut(inode, cut);
        }
        for inode in std::mem::take(&mut batch.settled) {
            self.intents.forget(inode);
            self.intents.note_idle(inode, batch.moment.ms);
            self.wake(inode);
        }
    }

    /// The store is full: nothing of the batch has been stored.
    pub(super) fn intents_rolled_back(&mut self, batch: &mut Batch<W>) {
        self.intents.unstored.extend(batch.doubted.drain(..));
        for inode in batch.dropped.drain(..) {
            self.intents.note_idle(inode, batch.moment.ms);
        }
    }
}

/// What a file is like whose iods have these local files.
fn measure(layout: &Layout, object: ObjectId, local: &[(IodId, LocalFile)]) -> Measure {
    let mut whole = Measure {
        end: 0,
        allocated: 0,
    };
    for (iod, file) in local {
        whole.allocated = whole.allocated.saturating_add(file.allocated);
        let slot = layout.iods().iter().position(|at| at == iod);
        let Some((slot, last)) = slot.zip(file.length.checked_sub(1)) else {
            continue;
        };
        match layout.file_offset(slot, last) {
            Some(offset) if offset < FILE_SIZE_BYTES_MAX => whole.end = whole.end.max(offset + 1),
            _ => tracing::error!("iod {iod} has more of object {object} than any file may have"),
        }
    }
    whole
}

/// A record as it is after what the batch has changed so far.
fn read<T: bincode::Decode<()>>(
    view: &dyn View,
    changed: &Records,
    key: &[u8],
) -> Result<Option<T>, StoreError> {
    let bytes = match changed.get(key) {
        Some(changed) => changed.as_deref(),
        None => view.get(key)?,
    };
    bytes.map(|bytes| value::decode(key, bytes)).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;
    use pvfs::ids::InodeNumber;

    const OBJECT: ObjectId = ObjectId {
        inode: InodeNumber(4),
        generation: 1,
    };

    fn file(length: u64) -> LocalFile {
        LocalFile {
            length,
            allocated: 4096,
        }
    }

    #[test]
    fn a_file_ends_with_the_last_byte_that_any_iod_has() {
        let layout = Layout::new(4096, 0, vec![IodId(1), IodId(2), IodId(3)]).unwrap();
        for (lengths, end) in [
            ([0, 0, 0], 0),
            ([10, 0, 0], 10),
            ([4096, 0, 1], 2 * 4096 + 1),
            ([4096, 100, 0], 4096 + 100),
            ([4097, 4096, 4096], 3 * 4096 + 1),
        ] {
            let local: Vec<_> = (1..).map(IodId).zip(lengths.map(file)).collect();
            let whole = measure(&layout, OBJECT, &local);
            assert_eq!((whole.end, whole.allocated), (end, 3 * 4096), "{lengths:?}");
        }
        let absurd = [(IodId(1), file(u64::MAX)), (IodId(9), file(5))];
        assert_eq!(measure(&layout, OBJECT, &absurd).end, 0);
    }

    #[test]
    fn what_is_wanted_is_settled_before_others() {
        let mut intents = Intents::default();
        for n in 0..100 {
            intents.raise(InodeNumber(n), Doubt::Lost);
        }
        intents.activate(0, false);
        assert_eq!(intents.active.len(), RECONCILING_MAX);
        intents.want(InodeNumber(99));
        intents.want(InodeNumber(1000));
        assert!(intents.active.contains(&InodeNumber(99)));
        assert!(
            !intents.active.contains(&InodeNumber(1000)),
            "it is in no doubt"
        );
        // One that cannot be settled now makes room for others.
        assert!(intents.put_off(InodeNumber(0), 0) && !intents.put_off(InodeNumber(0), 0));
        intents.put_off(InodeNumber(1), 0);
        intents.activate(1, false);
        assert!(!intents.active.contains(&InodeNumber(0)));
        assert!(intents.active.contains(&InodeNumber(32)));
    }

    #[test]
    fn a_writer_that_is_lost_later_counts_too() {
        let mut intents = Intents::default();
        let inode = InodeNumber(1);
        intents.raise(inode, Doubt::Torn);
        assert!(intents.is_in_doubt(inode) && !intents.holds_up_readers(inode));
        intents.raise(inode, Doubt::Lost);
        intents.raise(inode, Doubt::Torn);
        assert!(intents.holds_up_readers(inode));
        intents.doubts.get_mut(&inode).unwrap().phase = Phase::Fencing;
        intents.raise(inode, Doubt::Lost);
        assert!(intents.doubts[&inode].again);
        intents.forget(inode);
        assert!(!intents.is_in_doubt(inode));
    }
}
