// SPDX-License-Identifier: MIT
//! What the iods have beside what mgr's records say that they should.

use std::collections::BTreeMap;

use pvfs::attr::Timestamp;
use pvfs::ids::{FileSystemId, IodId, ObjectId};
use pvfs::limits::{OBJECTS_PER_PAGE_MAX, OBJECTS_PER_QUESTION_MAX};
use pvfs::proto::check::{Finding, Section, Seen};
use pvfs::proto::iod::{IodRequest, IodResponse, Surveyed};
use pvfs::proto::mgr::{IodStatus, MgrOperation, MgrResponse};

use super::Fsck;
use crate::rpc::{Iod, RpcError, TIMEOUT_DEFAULT};

/// What an iod should have of a file.
#[derive(Clone, Copy, Debug)]
struct Expected {
    object: ObjectId,
    /// Bytes of the local file of a file without holes.
    length: u64,
    ctime: Timestamp,
    dense: bool,
}

impl Fsck {
    /// First what the iods have that nobody should know of, then what they have of each file.
    pub(super) fn check_objects(&mut self) -> anyhow::Result<()> {
        let mut iods = BTreeMap::new();
        for status in self.mgr.iods()? {
            match member(&status, self.mgr.hello.file_system) {
                Ok(iod) => drop(iods.insert(status.iod, iod)),
                Err(why) => self.report.leave_out(status.iod, why),
            }
        }
        for (id, iod) in &mut iods {
            self.progress.start("objects", None);
            if let Err(error) = self.check_strays(*id, iod) {
                self.report.leave_out(*id, error.to_string());
            }
        }
        self.progress.start("stripes", Some(self.inodes_about));
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
                    match survey(iod, part) {
                        Ok(answers) => fsck.compare(id, part, &answers)?,
                        Err(error) => {
                            fsck.report.unseen += part.len() as u64;
                            fsck.report.leave_out(id, error.to_string());
                        }
                    }
                }
            }
            Ok(())
        })
    }

    /// Objects are listed before mgr is asked: a file that is made in between is not among them.
    fn check_strays(&mut self, id: IodId, iod: &mut Iod) -> anyhow::Result<()> {
        let mut after = None;
        loop {
            let (objects, end) = list(iod, after)?;
            after = objects.last().copied();
            self.progress.add(objects.len() as u64);
            self.report.objects += objects.len() as u64;
            for part in objects.chunks(OBJECTS_PER_QUESTION_MAX) {
                let objects = part.to_vec();
                let question = MgrOperation::FindStray { iod: id, objects };
                match self.mgr.call(question)? {
                    MgrResponse::Objects(stray) => {
                        for object in stray {
                            self.judge(Finding::StrayObject { iod: id, object })?;
                        }
                    }
                    _ => return Err(self.mgr.unexpected().into()),
                }
            }
            if end || after.is_none() {
                return Ok(());
            }
        }
    }

    fn compare(
        &mut self,
        iod: IodId,
        expected: &[Expected],
        answers: &[Surveyed],
    ) -> anyhow::Result<()> {
        for (expected, answer) in expected.iter().zip(answers) {
            match contradiction(iod, *expected, *answer) {
                Some(finding) => self.judge(finding)?,
                None if *answer == Surveyed::Failed => self.report.unseen += 1,
                None => {}
            }
        }
        Ok(())
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

/// A connection to an iod that is what mgr says it is; else the reason in words.
pub fn member(status: &IodStatus, file_system: FileSystemId) -> Result<Iod, String> {
    let said = |error: RpcError| error.to_string();
    let mut iod = Iod::connect(status, TIMEOUT_DEFAULT).map_err(said)?;
    match iod.call(&IodRequest::Ping).map_err(said)? {
        IodResponse::Pong {
            iod: Some(id),
            file_system: Some(of),
        } if id == status.iod && of == file_system => Ok(iod),
        IodResponse::Pong { .. } => Err(format!(
            "at {} is another iod, or none of this file system",
            status.address
        )),
        _ => Err(said(iod.unexpected())),
    }
}

fn survey(iod: &mut Iod, expected: &[Expected]) -> Result<Vec<Surveyed>, RpcError> {
    let objects: Vec<ObjectId> = expected.iter().map(|expected| expected.object).collect();
    let count = objects.len();
    match iod.call(&IodRequest::Survey { objects })? {
        IodResponse::Surveyed(answers) if answers.len() == count => Ok(answers),
        _ => Err(iod.unexpected()),
    }
}

fn ask_about(seen: Seen, questions: &mut BTreeMap<IodId, Vec<Expected>>) {
    let Seen::File {
        object,
        layout,
        size,
        ctime,
        dense,
    } = seen
    else {
        return;
    };
    for (slot, iod) in layout.iods().iter().enumerate() {
        let expected = Expected {
            object,
            length: layout.local_size(slot, size),
            ctime,
            dense,
        };
        questions.entry(*iod).or_default().push(expected);
    }
}

fn contradiction(iod: IodId, expected: Expected, answer: Surveyed) -> Option<Finding> {
    let Expected {
        object,
        length,
        ctime,
        dense,
    } = expected;
    let short = |has: Option<u64>| Finding::ShortObject {
        iod,
        object,
        length: has,
        ctime,
    };
    match answer {
        Surveyed::Lost => Some(Finding::LostObject { iod, object }),
        Surveyed::Length(has) if has > length => Some(Finding::SmallSize {
            iod,
            object,
            length: has,
            ctime,
        }),
        Surveyed::Length(has) if has < length && dense => Some(short(Some(has))),
        Surveyed::Absent if length > 0 && dense => Some(short(None)),
        Surveyed::Length(_) | Surveyed::Absent | Surveyed::Failed => None,
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
        let expected = |length, dense| Expected {
            object,
            length,
            ctime: Timestamp::default(),
            dense,
        };
        let of = |length, dense, answer| contradiction(IodId(1), expected(length, dense), answer);
        assert_eq!(of(0, true, Surveyed::Absent), None);
        assert_eq!(of(10, false, Surveyed::Absent), None);
        assert_eq!(of(10, true, Surveyed::Length(10)), None);
        assert_eq!(of(10, false, Surveyed::Length(3)), None);
        assert_eq!(of(10, true, Surveyed::Failed), None);
        assert!(matches!(
            of(10, true, Surveyed::Absent),
            Some(Finding::ShortObject { length: None, .. })
        ));
        assert!(matches!(
            of(10, true, Surveyed::Length(3)),
            Some(Finding::ShortObject {
                length: Some(3),
                ..
            })
        ));
        for dense in [false, true] {
            assert!(matches!(
                of(10, dense, Surveyed::Length(11)),
                Some(Finding::SmallSize { length: 11, .. })
            ));
            assert!(matches!(
                of(0, dense, Surveyed::Lost),
                Some(Finding::LostObject { .. })
            ));
        }
    }
}
