// SPDX-License-Identifier: MIT
//! Layouts of files, policies of directories, and the cutting of stripes.

use bincode::{Decode, Encode};
use pvfs::attr::{Attr, FileKind};
use pvfs::error::FsError;
use pvfs::ids::{InodeNumber, IodId, ROOT_INODE};
use pvfs::layout::{Layout, LayoutPolicy};
use pvfs::limits::IODS_PER_FILE_MAX;
use pvfs::proto::mgr::MgrResponse;

use super::access::Want;
use super::dentry::OpenDirectory;
use super::inode::Inode;
use super::key;
use super::transaction::{Halt, Transaction};
use crate::placement::Placement;

/// Directories above one another in which a policy is sought; beyond, the default holds.
const DEPTH_MAX: usize = 65_536;

/// An iod that may hold stripes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IodSlot {
    /// Which.
    pub iod: IodId,
    /// New files may use it.
    pub usable: bool,
}

/// Stripes to be cut on the iods of a file. The record goes when every iod has done it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Cut {
    /// The file's generation.
    pub generation: u32,
    /// Where the stripes are.
    pub layout: Layout,
    /// What is left of the file, bytes.
    pub size: u64,
}

/// The layout of a new file: the usable ones of `iods` (in the order of their ids), starting at the
/// policy's base or, where it has none, with `turn`. `None` where none is usable.
#[must_use]
pub fn place(policy: LayoutPolicy, iods: &[IodSlot], turn: u64) -> Option<Layout> {
    let count = iods.len() as u64;
    let base = policy.base.map_or(turn, u64::from).checked_rem(count)?;
    let base = usize::try_from(base).ok()?;
    let wanted = match policy.pcount {
        0 => IODS_PER_FILE_MAX,
        pcount => (pcount as usize).min(IODS_PER_FILE_MAX),
    };
    let dealt = iods.iter().cycle().skip(base).take(iods.len());
    let chosen: Vec<IodId> = dealt
        .filter(|slot| slot.usable)
        .map(|slot| slot.iod)
        .take(wanted)
        .collect();
    let first = chosen.first()?;
    let position = iods.iter().position(|slot| slot.iod == *first)?;
    Layout::new(policy.stripe_size, u32::try_from(position).ok()?, chosen).ok()
}

/// Whether there are as many iods as the policy asks for, and one at its base.
fn can_be_met(policy: LayoutPolicy, iods: usize) -> bool {
    policy.pcount as usize <= iods && policy.base.is_none_or(|base| (base as usize) < iods)
}

impl Transaction<'_> {
    /// Gives a new file in `directory` its layout.
    ///
    /// # Errors
    ///
    /// [`FsError::TryAgain`] while no iod is there.
    pub fn lay_out(&mut self, inode: InodeNumber, directory: &OpenDirectory) -> Result<(), Halt> {
        let found = Inode {
            attr: directory.attr,
            directory: Some(directory.directory),
        };
        let policy = self.policy_of(&found)?;
        self.put_layout(inode, policy)
    }

    fn put_layout(&mut self, inode: InodeNumber, policy: LayoutPolicy) -> Result<(), Halt> {
        let mut counters = self.counters()?;
        let layout = place(policy, self.context.iods, counters.turn).ok_or(FsError::TryAgain)?;
        if policy.base.is_none() {
            counters.turn = counters.turn.wrapping_add(1);
            self.put(key::counters(), &counters)?;
        }
        self.put(key::layout(inode), &layout)?;
        self.note_placed(Placement {
            layout,
            end_before: None,
            end: 0,
        });
        Ok(())
    }

    /// What new files in a directory get: its own policy, or that of the nearest directory above
    /// that has one, or the default.
    ///
    /// # Errors
    ///
    /// [`FsError::NotDirectory`].
    pub fn policy_of(&self, inode: &Inode) -> Result<LayoutPolicy, Halt> {
        let mut number = inode.attr.inode;
        let mut directory = inode.directory.ok_or(FsError::NotDirectory)?;
        for _ in 0..DEPTH_MAX {
            if let Some(policy) = directory.policy {
                return Ok(policy);
            }
            if number == ROOT_INODE {
                break;
            }
            number = directory.parent;
            match self.directory(number) {
                Ok((_, parent)) => directory = parent,
                // An open directory that was removed may outlive those above it.
                Err(Halt::Fs(_)) => break,
                Err(halt) => return Err(halt),
            }
        }
        Ok(LayoutPolicy::default())
    }

    /// A file's layout, or a directory's policy.
    ///
    /// # Errors
    ///
    /// [`FsError::Stale`].
    pub fn get_layout(&self, inode: InodeNumber) -> Result<MgrResponse, Halt> {
        let found = self.inode(inode)?;
        let (mut layout, mut object, mut policy) = (None, None, None);
        match found.attr.kind {
            FileKind::Regular => {
                layout = Some(self.required(key::layout(inode))?);
                object = Some(found.attr.object());
            }
            FileKind::Directory => policy = Some(self.policy_of(&found)?),
            FileKind::Symlink
            | FileKind::Fifo
            | FileKind::Socket
            | FileKind::CharDevice
            | FileKind::BlockDevice => {}
        }
        Ok(MgrResponse::Layout {
            layout,
            object,
            policy,
        })
    }

    /// Sets a directory's policy, or lays an empty file out anew.
    ///
    /// # Errors
    ///
    /// [`FsError::InvalidArgument`] for a policy outside its limits or beyond the iods that there
    /// are, no policy for a file, or an inode of another kind; [`FsError::Busy`] for a file with content or
    /// open for writing; [`FsError::AccessDenied`].
    pub fn set_layout(
        &mut self,
        inode: InodeNumber,
        policy: Option<LayoutPolicy>,
    ) -> Result<MgrResponse, Halt> {
        let policy = policy.map(LayoutPolicy::validate).transpose()?;
        if policy.is_some_and(|policy| !can_be_met(policy, self.context.iods.len())) {
            return Err(FsError::InvalidArgument.into());
        }
        let mut found = self.inode(inode)?;
        self.permit(&found.attr, Want::WRITE)?;
        found.attr.ctime = self.context.now;
        if let Some(directory) = &mut found.directory {
            directory.policy = policy;
        } else if found.attr.kind == FileKind::Regular {
            let policy = policy.ok_or(FsError::InvalidArgument)?;
            self.lay_out_anew(&mut found.attr, policy)?;
        } else {
            return Err(FsError::InvalidArgument.into());
        }
        self.put_inode(&found)?;
        Ok(MgrResponse::Done)
    }

    /// The old stripes, which may exist without content, go as garbage; the new ones have a
    /// generation of their own, so that the removal of the old never meets them.
    fn lay_out_anew(&mut self, attr: &mut Attr, policy: LayoutPolicy) -> Result<(), Halt> {
        self.check_settled(attr.inode)?;
        if attr.size > 0 || self.opens.is_open(attr.inode) {
            return Err(FsError::Busy.into());
        }
        self.discard_stripes(attr)?;
        attr.generation = attr.generation.wrapping_add(1);
        self.put_layout(attr.inode, policy)
    }

    /// Leaves a note that the stripes of a file are to be cut to `size`.
    ///
    /// # Errors
    ///
    /// [`Halt::Store`].
    pub fn note_cut(&mut self, attr: &Attr, size: u64) -> Result<(), Halt> {
        let layout = self.required(key::layout(attr.inode))?;
        let cut = Cut {
            generation: attr.generation,
            layout,
            size,
        };
        self.put(key::cut(attr.inode), &cut)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slots(usable: &[bool]) -> Vec<IodSlot> {
        let slot = |(n, usable): (usize, &bool)| IodSlot {
            iod: IodId(n as u32 + 1),
            usable: *usable,
        };
        usable.iter().enumerate().map(slot).collect()
    }

    fn placed(pcount: u32, base: Option<u32>, alive: &[bool], turn: u64) -> Option<Vec<u32>> {
        let policy = LayoutPolicy {
            pcount,
            base,
            ..LayoutPolicy::default()
        };
        let layout = place(policy, &slots(alive), turn)?;
        assert_eq!(layout.iods()[0].0, layout.base() + 1);
        Some(layout.iods().iter().map(|iod| iod.0).collect())
    }

    #[test]
    fn deals_in_turn_over_usable_iods() {
        let all = [true; 3];
        for (pcount, base, alive, turn, expected) in [
            (0, None, &all[..], 0, Some(vec![1, 2, 3])),
            (0, None, &all, 1, Some(vec![2, 3, 1])),
            (0, None, &all, 5, Some(vec![3, 1, 2])),
            (2, None, &all, 2, Some(vec![3, 1])),
            (9, Some(1), &all, 77, Some(vec![2, 3, 1])),
            (1, Some(7), &all, 0, Some(vec![2])),
            (0, None, &[true, false, true], 1, Some(vec![3, 1])),
            (1, Some(1), &[true, false, true], 0, Some(vec![3])),
            (0, None, &[false, false], 0, None),
            (0, None, &[], 0, None),
        ] {
            assert_eq!(
                placed(pcount, base, alive, turn),
                expected,
                "{pcount} {base:?} {turn}"
            );
        }
    }

    #[test]
    fn a_policy_asks_for_no_more_iods_than_there_are() {
        for (pcount, base, met) in [
            (0, None, true),
            (3, Some(2), true),
            (4, None, false),
            (1, Some(3), false),
            (9, Some(7), false),
        ] {
            let policy = LayoutPolicy {
                pcount,
                base,
                ..LayoutPolicy::default()
            };
            assert_eq!(can_be_met(policy, 3), met, "{pcount} {base:?}");
        }
    }

    #[test]
    fn more_iods_than_a_file_takes() {
        let many = vec![true; IODS_PER_FILE_MAX + 5];
        assert_eq!(
            placed(0, None, &many, 0).map(|iods| iods.len()),
            Some(IODS_PER_FILE_MAX)
        );
    }
}
