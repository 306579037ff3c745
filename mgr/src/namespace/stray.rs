// SPDX-License-Identifier: MIT
//! Stripes of no file, which fsck has found on iods: a store that was restored from a backup knows
//! nothing of the files that were made after it. They become files below `/lost+found`, where they
//! are; nothing that holds a byte is ever removed for being unknown (docs/decisions/0106).

use std::collections::BTreeMap;

use pvfs::attr::{Attr, FileKind};
use pvfs::error::FsError;
use pvfs::ids::{IodId, ObjectId};
use pvfs::layout::{Layout, LayoutSlot};
use pvfs::limits::FILE_SIZE_BYTES_MAX;
use pvfs::name::Name;
use pvfs::proto::check::{StrayPart, Verdict};

use super::inode::{Garbage, Inode};
use super::key;
use super::transaction::{Halt, Transaction};

/// A newly put together file is its finder's alone.
const MODE: u16 = 0o600;

impl Transaction<'_> {
    /// Makes a file of stray stripes, or adds them to the one that was made of their siblings.
    /// Stripes without a byte are noted as garbage.
    ///
    /// # Errors
    ///
    /// [`FsError::InvalidArgument`] for an iod that mgr does not know, or parts of one iod twice;
    /// [`FsError::Busy`] where the file that they would be added to is open.
    pub(super) fn put_together(
        &mut self,
        object: ObjectId,
        parts: &[StrayPart],
    ) -> Result<Verdict, Halt> {
        let mut strays = Vec::new();
        for part in parts {
            if !self.knows(part.iod) {
                return Err(FsError::InvalidArgument.into());
            }
            if self.is_stray(part.iod, object)? {
                strays.push(*part);
            }
        }
        if strays.is_empty() {
            return Ok(Verdict::Gone);
        }
        if strays.iter().all(|part| part.length == 0) {
            return self.discard(object, &strays);
        }
        // A number that is yet to be given would be given to a file, too: the store was restored
        // without a new era.
        let is_given = object.inode.0 < self.counters()?.inode_next;
        let Some((place, at)) = common_place(&strays).filter(|_| is_given) else {
            return Ok(Verdict::Lost);
        };
        match self.find_inode(object.inode)? {
            None => self.make_of(object, place, &at, &strays),
            Some(found) if found.attr.object() == object => self.add_to(found, place, &at, &strays),
            Some(_) => Ok(Verdict::Lost),
        }
    }

    fn discard(&mut self, object: ObjectId, strays: &[StrayPart]) -> Result<Verdict, Halt> {
        let key = key::garbage(object);
        let garbage: Option<Garbage> = self.get(&key)?;
        let mut iods = garbage.map(|garbage| garbage.iods).unwrap_or_default();
        iods.extend(strays.iter().map(|part| part.iod));
        self.put(key, &Garbage { iods })?;
        Ok(Verdict::Repairable)
    }

    fn make_of(
        &mut self,
        object: ObjectId,
        place: LayoutSlot,
        at: &BTreeMap<u16, IodId>,
        strays: &[StrayPart],
    ) -> Result<Verdict, Halt> {
        let known: Vec<IodId> = self.context.iods.iter().map(|slot| slot.iod).collect();
        let Some(layout) = layout_of(place, at, &known) else {
            return Ok(Verdict::Lost);
        };
        let mut parent = self.lost_and_found()?;
        let name = Name::new(format!("#{object}"))?;
        if self.find(parent.attr.inode, &name)?.is_some() {
            return Err(FsError::Exists.into());
        }
        let mut counters = self.counters()?;
        counters.inodes_used += 1;
        self.put(key::counters(), &counters)?;
        let now = self.context.now;
        let attr = Attr {
            inode: object.inode,
            generation: object.generation,
            kind: FileKind::Regular,
            mode: MODE,
            nlink: 1,
            uid: self.context.credentials.uid,
            gid: self.context.credentials.gid,
            rdev: 0,
            size: size_of(&layout, strays),
            atime: now,
            mtime: now,
            ctime: now,
            change: 0,
            allocated: Some(strays.iter().map(|part| part.length).sum()),
            filled: 0,
            has_acl: false,
            has_capability: false,
        };
        let made = Inode {
            attr,
            directory: None,
        };
        self.put_inode(&made)?;
        self.put(key::layout(object.inode), &layout)?;
        self.add_entry(&mut parent, &name, &made.attr)?;
        self.put_open_directory(&parent)?;
        Ok(Verdict::Repairable)
    }

    /// An iod that was away then has come with more of the file.
    fn add_to(
        &mut self,
        mut found: Inode,
        place: LayoutSlot,
        at: &BTreeMap<u16, IodId>,
        strays: &[StrayPart],
    ) -> Result<Verdict, Halt> {
        let inode = found.attr.inode;
        let layout: Option<Layout> = self.get(&key::layout(inode))?;
        let Some(layout) = layout.filter(|layout| {
            layout.is_put_together() && {
                let stripe = layout.stripes_of(found.attr.object())(0);
                LayoutSlot { slot: 0, ..place } == stripe.place
            }
        }) else {
            return Ok(Verdict::Lost);
        };
        if self.opens.is_open(inode) {
            return Err(FsError::Busy.into());
        }
        let mut iods = layout.iods().to_vec();
        for (slot, iod) in at {
            if let Some(before) = iods.get_mut(usize::from(*slot)) {
                *before = *iod;
            }
        }
        let Ok(layout) = Layout::put_together(place, iods) else {
            return Ok(Verdict::Lost);
        };
        let more: u64 = strays.iter().map(|part| part.length).sum();
        found.attr.size = found.attr.size.max(size_of(&layout, strays));
        found.attr.allocated = found.attr.allocated.map(|had| had.saturating_add(more));
        found.attr.change += 1;
        found.attr.ctime = self.context.now;
        self.put_inode(&found)?;
        self.put(key::layout(inode), &layout)?;
        Ok(Verdict::Repairable)
    }
}

/// The layout that all parts say they are of, and which slots they have of it; `None` where one does
/// not know its place, or two contradict each other.
fn common_place(strays: &[StrayPart]) -> Option<(LayoutSlot, BTreeMap<u16, IodId>)> {
    let first = strays.first()?.place?;
    let mut at = BTreeMap::new();
    for part in strays {
        let place = part.place?;
        let slot = place.slot;
        let is_same = LayoutSlot { slot, ..first } == place;
        if !is_same || slot >= place.slots || at.insert(slot, part.iod).is_some() {
            return None;
        }
    }
    Some((first, at))
}

/// A layout with these iods at their slots. Slots of which nothing was found get others, which have
/// nothing of the file.
fn layout_of(place: LayoutSlot, at: &BTreeMap<u16, IodId>, known: &[IodId]) -> Option<Layout> {
    let mut others = known
        .iter()
        .filter(|iod| !at.values().any(|taken| taken == *iod));
    let slots = 0..place.slots;
    let iods = slots.map(|slot| at.get(&slot).or_else(|| others.next()).copied());
    Layout::put_together(place, iods.collect::<Option<_>>()?).ok()
}

/// The size of a file that ends where the last of its parts does.
fn size_of(layout: &Layout, strays: &[StrayPart]) -> u64 {
    let end = |part: &StrayPart| {
        let last = part.length.checked_sub(1)?;
        let slot = usize::from(part.place?.slot);
        Some(layout.file_offset(slot, last)?.saturating_add(1))
    };
    let size = strays.iter().filter_map(end).max().unwrap_or_default();
    size.min(FILE_SIZE_BYTES_MAX)
}
