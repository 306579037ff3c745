// SPDX-License-Identifier: MIT
//! What the iods have beside what mgr's records say that they should.

use std::collections::{BTreeMap, BTreeSet};

use pvfs::attr::Timestamp;
use pvfs::ids::{IodId, ObjectId};
use pvfs::limits::{OBJECTS_PER_PAGE_MAX, OBJECTS_PER_QUESTION_MAX};
use pvfs::proto::check::{Finding, Section, Seen, StrayPart};
use pvfs::proto::iod::{IodRequest, IodResponse, Surveyed};
use pvfs::proto::mgr::{MgrOperation, MgrResponse};

use super::Fsck;
use crate::progress::Unit;
use crate::rpc::{Iod, RpcError, TIMEOUT_DEFAULT};

/// What an iod should have of a file.
#[derive(Clone, Copy, Debug)]
struct Expected {
    object: ObjectId,
    /// Bytes of the local file of a file without holes.
    length: u64,
    /// Bytes of the local file that have been written, at least.
    filled: u64,
    ctime: Timestamp,
}

impl Fsck {
    /// First what the iods have that nobody should know of, then what they have of each file.
    pub(super) fn check_objects(&mut self) -> anyhow::Result<()> {
        let mut iods = BTreeMap::new();
        for status in self.mgr.iods()? {
            match Iod::connect(&status, self.mgr.hello.file_system, TIMEOUT_DEFAULT) {
                Ok(iod) => drop(iods.insert(status.iod, iod)),
                Err(error) => self.report.leave_out(status.iod, error.to_string()),
            }
        }
        for id in iods.keys().copied().collect::<Vec<_>>() {
            self.progress.start("objects", Unit::Items, None);
            if let Err(error) = self.check_strays(id, &mut iods) {
                self.report.leave_out(id, error.to_string());
            }
        }
        self.progress
            .start("stripes", Unit::Items, Some(self.inodes_about));
        self.each_page(Section::Layouts, &mut |fsck, page| {
            let mut questions: BTreeMap<IodId, Vec<Expected>> = BTreeMap::new();
            for seen in page.seen {
                ask_about(seen, &mut questions);
            }
            for (id, expected) in questions {
                let Some(iod) = iods.get_mut(&id) else {
                    fsck.report.unseen += expected.len() as u64;
                    continue;
                };
                for part in expected.chunks(OBJECTS_PER_QUESTION_MAX) {
                    if let Err(error) = fsck.compare(id, iod, part)? {
                        fsck.report.unseen += part.len() as u64;
                        fsck.report.leave_out(id, error.to_string());
                    }
                }
            }
            Ok(())
        })
    }

    /// Objects are listed before mgr is asked: a file that is made in between is not among them.
    fn check_strays(&mut self, id: IodId, iods: &mut BTreeMap<IodId, Iod>) -> anyhow::Result<()> {
        let mut after = None;
        loop {
            let Some(iod) = iods.get_mut(&id) else {
                return Ok(());
            };
            let (objects, end) = list(iod, after)?;
            after = objects.last().copied();
            self.progress.add(objects.len() as u64);
            self.report.objects += objects.len() as u64;
            for part in objects.chunks(OBJECTS_PER_QUESTION_MAX) {
                let objects = part.to_vec();
                let question = MgrOperation::FindStray { iod: id, objects };
                match self.mgr.call(question)? {
                    MgrResponse::Objects(stray) => self.judge_strays(id, iods, &stray)?,
                    _ => return Err(self.mgr.unexpected().into()),
                }
            }
            if end || after.is_none() {
                return Ok(());
            }
        }
    }

    /// Looks what all iods have of objects that are stray at one of them, each at the first that has
    /// some. A file may have been removed since its objects were listed.
    fn judge_strays(
        &mut self,
        id: IodId,
        iods: &mut BTreeMap<IodId, Iod>,
        stray: &[ObjectId],
    ) -> anyhow::Result<()> {
        let mut parts: BTreeMap<ObjectId, Vec<StrayPart>> = BTreeMap::new();
        let mut doubtful = BTreeSet::new();
        for (iod, connection) in iods {
            let answers = match survey(connection, stray) {
                Ok(answers) => answers,
                Err(error) => {
                    self.report.leave_out(*iod, error.to_string());
                    continue;
                }
            };
            for (object, answer) in stray.iter().zip(answers) {
                match answer {
                    Surveyed::Absent => {}
                    Surveyed::Present { length, place } => {
                        let iod = *iod;
                        let part = StrayPart { iod, length, place };
                        parts.entry(*object).or_default().push(part);
                    }
                    Surveyed::Lost | Surveyed::Failed => drop(doubtful.insert(*object)),
                }
            }
        }
        for (object, parts) in parts {
            if parts.first().is_none_or(|first| first.iod != id) {
                continue;
            }
            let finding = Finding::StrayObject { object, parts };
            // What an iod that is away has of the file may be more of it.
            match self.report.is_complete() && !doubtful.contains(&object) {
                true => self.judge(finding)?,
                false => self.examine(finding)?,
            }
        }
        Ok(())
    }

    /// Compares what an iod has with what it should have. What contradicts mgr is looked at once
    /// more: a change that went on is over by then, or mgr sees by the file's ctime that it was.
    fn compare(
        &mut self,
        id: IodId,
        iod: &mut Iod,
        expected: &[Expected],
    ) -> anyhow::Result<Result<(), RpcError>> {
        let objects: Vec<ObjectId> = expected.iter().map(|expected| expected.object).collect();
        let answers = match survey(iod, &objects) {
            Ok(answers) => answers,
            Err(error) => return Ok(Err(error)),
        };
        for (expected, answer) in expected.iter().zip(answers) {
            let first = contradiction(id, *expected, answer);
            if first.is_none() {
                self.report.unseen += u64::from(answer == Surveyed::Failed);
                continue;
            }
            let again = match survey(iod, &[expected.object]) {
                Ok(again) => again,
                Err(error) => return Ok(Err(error)),
            };
            let still = again
                .first()
                .and_then(|answer| contradiction(id, *expected, *answer));
            if let Some(finding) = still {
                self.judge(finding)?;
            }
        }
        Ok(Ok(()))
    }
}

/// A page of an iod's objects, and whether it is the last.
pub fn list(iod: &mut Iod, after: Option<ObjectId>) -> Result<(Vec<ObjectId>, bool), RpcError> {
    let objects_max = u32::try_from(OBJECTS_PER_PAGE_MAX).unwrap_or(u32::MAX);
    match iod.call(&IodRequest::List { after, objects_max })? {
        IodResponse::Objects { objects, end } => Ok((objects, end)),
        _ => Err(iod.unexpected()),
    }
}

fn survey(iod: &mut Iod, objects: &[ObjectId]) -> Result<Vec<Surveyed>, RpcError> {
    if objects.is_empty() {
        return Ok(Vec::new());
    }
    let question = IodRequest::Survey {
        objects: objects.to_vec(),
    };
    match iod.call(&question)? {
        IodResponse::Surveyed(answers) if answers.len() == objects.len() => Ok(answers),
        _ => Err(iod.unexpected()),
    }
}

fn ask_about(seen: Seen, questions: &mut BTreeMap<IodId, Vec<Expected>>) {
    let Seen::File {
        object,
        layout,
        size,
        ctime,
        filled,
    } = seen
    else {
        return;
    };
    for (slot, iod) in layout.iods().iter().enumerate() {
        let expected = Expected {
            object,
            length: layout.local_size(slot, size),
            filled: layout.local_size(slot, filled),
            ctime,
        };
        questions.entry(*iod).or_default().push(expected);
    }
}

fn contradiction(iod: IodId, expected: Expected, answer: Surveyed) -> Option<Finding> {
    let Expected {
        object,
        length,
        filled,
        ctime,
    } = expected;
    let short = |has: Option<u64>| Finding::ShortObject {
        iod,
        object,
        length: has,
        ctime,
    };
    match answer {
        Surveyed::Lost => Some(Finding::LostObject { iod, object }),
        Surveyed::Present { length: has, .. } if has > length => Some(Finding::SmallSize {
            iod,
            object,
            length: has,
            ctime,
        }),
        Surveyed::Present { length: has, .. } if has < filled => Some(short(Some(has))),
        Surveyed::Absent if filled > 0 => Some(short(None)),
        Surveyed::Present { .. } | Surveyed::Absent | Surveyed::Failed => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pvfs::ids::InodeNumber;

    #[test]
    fn holes_are_no_loss_and_losses_no_holes() {
        let object = ObjectId {
            inode: InodeNumber(5),
            generation: 1,
        };
        let expected = |length, filled| Expected {
            object,
            length,
            filled,
            ctime: Timestamp::default(),
        };
        let present = |length| Surveyed::Present {
            length,
            place: None,
        };
        let of = |length, filled, answer| contradiction(IodId(1), expected(length, filled), answer);
        assert_eq!(of(0, 0, Surveyed::Absent), None);
        assert_eq!(of(10, 0, Surveyed::Absent), None);
        assert_eq!(of(10, 10, present(10)), None);
        assert_eq!(of(10, 3, present(3)), None);
        assert_eq!(of(10, 10, Surveyed::Failed), None);
        assert!(matches!(
            of(10, 1, Surveyed::Absent),
            Some(Finding::ShortObject { length: None, .. })
        ));
        assert!(matches!(
            of(10, 4, present(3)),
            Some(Finding::ShortObject {
                length: Some(3),
                ..
            })
        ));
        for filled in [0, 10] {
            assert!(matches!(
                of(10, filled, present(11)),
                Some(Finding::SmallSize { length: 11, .. })
            ));
            assert!(matches!(
                of(0, filled, Surveyed::Lost),
                Some(Finding::LostObject { .. })
            ));
        }
    }
}
