// SPDX-License-Identifier: MIT
//! The file system that histories are judged by: names of files, and files of cells.

use std::collections::BTreeMap;

use crate::linearizability::Model;
use crate::{CELLS_AT_FIRST, Call, Got, NAMES};

/// Files whose number is not known, since the call that made them never returned, have numbers from
/// here on: no inode number is that large.
const UNKNOWN_FIRST: u64 = 1 << 63;

/// The files as one call after another leaves them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Files {
    /// What each of [`NAMES`] stands for.
    names: [Option<u64>; NAMES.len()],
    /// Each cell's value; also of files without a name, which may be open.
    files: BTreeMap<u64, Vec<u64>>,
    mapped: u64,
}

impl Files {
    /// Nothing but the mapped file.
    #[must_use]
    pub fn new(mapped: u64) -> Self {
        Self {
            names: [None; NAMES.len()],
            files: BTreeMap::from([(mapped, vec![0; CELLS_AT_FIRST])]),
            mapped,
        }
    }

    fn links(&self, file: u64) -> u64 {
        let named = self.names.iter().filter(|name| **name == Some(file));
        named.count() as u64 + u64::from(file == self.mapped)
    }

    /// The same where `name` stands for `file`, if it does: a file of unknown number may be any that
    /// is not known yet.
    fn named(&self, name: usize, file: u64) -> Option<Self> {
        let there = self.names[name]?;
        if there == file {
            return Some(self.clone());
        }
        if there < UNKNOWN_FIRST || self.files.contains_key(&file) {
            return None;
        }
        let mut after = self.clone();
        let cells = after.files.remove(&there)?;
        after.files.insert(file, cells);
        for known in after.names.iter_mut().flatten() {
            if *known == there {
                *known = file;
            }
        }
        Some(after)
    }

    fn make(&self, name: usize, file: u64) -> Option<Self> {
        if self.names[name].is_some() || self.files.contains_key(&file) {
            return None;
        }
        let mut after = self.clone();
        after.files.insert(file, Vec::new());
        after.names[name] = Some(file);
        Some(after)
    }

    fn open(
        &self,
        name: usize,
        make: bool,
        exclusive: bool,
        got: Got<Option<u64>>,
    ) -> Option<Self> {
        let exists = self.names[name].is_some();
        match got {
            Got::Known(Some(file)) if exists && !exclusive => self.named(name, file),
            Got::Known(Some(file)) if make => self.make(name, file),
            Got::Known(Some(_)) => None,
            Got::Known(None) => (exists == (make && exclusive)).then(|| self.clone()),
            // What it would have opened matters to nobody.
            Got::Never(number) => self.make(name, UNKNOWN_FIRST + number).filter(|_| make),
        }
    }

    fn with(&self, file: u64, change: impl FnOnce(&mut Vec<u64>)) -> Option<Self> {
        let mut after = self.clone();
        change(after.files.get_mut(&file)?);
        Some(after)
    }

    fn rename(&self, from: usize, to: usize) -> Option<Self> {
        let file = self.names[from]?;
        let mut after = self.clone();
        if self.names[to] != Some(file) {
            after.names[from] = None;
            after.names[to] = Some(file);
        }
        Some(after)
    }

    fn unlink(&self, name: usize) -> Option<Self> {
        self.names[name]?;
        let mut after = self.clone();
        after.names[name] = None;
        Some(after)
    }

    fn link(&self, file: u64, name: usize) -> Option<Self> {
        if self.names[name].is_some() || self.links(file) == 0 {
            return None;
        }
        let mut after = self.clone();
        after.names[name] = Some(file);
        Some(after)
    }

    /// The object after a call that says whether it was done: not doing it must have had a reason.
    fn done(&self, done: Option<Self>, got: Got<bool>) -> Option<Self> {
        match (done, got) {
            (Some(after), Got::Known(true) | Got::Never(_)) => Some(after),
            (None, Got::Known(false)) => Some(self.clone()),
            (Some(_), Got::Known(false)) | (None, Got::Known(true) | Got::Never(_)) => None,
        }
    }
}

fn write(cells: &mut Vec<u64>, cell: usize, value: u64) {
    if cells.len() <= cell {
        cells.resize(cell + 1, 0);
    }
    cells[cell] = value;
}

impl Model for Files {
    type Call = Call;

    fn after(&self, call: &Call) -> Option<Self> {
        let holds = |holds: bool| holds.then(|| self.clone());
        match call {
            Call::Open {
                name,
                make,
                exclusive,
                got,
            } => self.open(*name, *make, *exclusive, *got),
            Call::Read { file, cell, got } => {
                holds(self.files.get(file)?.get(*cell).copied() == *got)
            }
            Call::Write { file, cell, value } => {
                self.with(*file, |cells| write(cells, *cell, *value))
            }
            Call::Append { file, value } => self.with(*file, |cells| cells.push(*value)),
            Call::Truncate { file, cells: count } => {
                self.with(*file, |cells| cells.resize(*count, 0))
            }
            Call::Stat { file, cells, links } => {
                holds(self.files.get(file)?.len() == *cells && self.links(*file) == *links)
            }
            Call::Find {
                name,
                got: Some(file),
            } => self.named(*name, *file),
            Call::Find { name, got: None } => holds(self.names[*name].is_none()),
            Call::List { name, got } => holds(self.names[*name].is_some() == *got),
            // The kernel looked the old name up before another node did the same, and the new one after
            // it: it takes them for two names of one file, and has nothing to do.
            Call::Rename {
                from,
                to,
                got: Got::Known(true),
            } if self.names[*from].is_none() => holds(self.names[*to].is_some()),
            Call::Rename { from, to, got } => self.done(self.rename(*from, *to), *got),
            Call::Unlink { name, got } => self.done(self.unlink(*name), *got),
            Call::Link { file, name, got } => self.done(self.link(*file, *name), *got),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linearizability::{Event, Rejected, check};

    const M: u64 = 1;

    fn event(call: Call, start: u64, end: u64) -> Event<Call> {
        Event { call, start, end }
    }

    /// One after the other.
    fn in_turn(calls: Vec<Call>) -> Vec<Event<Call>> {
        let times = (0..).step_by(2);
        let calls = calls.into_iter().zip(times);
        calls.map(|(call, at)| event(call, at, at + 1)).collect()
    }

    const fn open(name: usize, file: Option<u64>) -> Call {
        Call::Open {
            name,
            make: true,
            exclusive: false,
            got: Got::Known(file),
        }
    }

    const fn read(cell: usize, got: Option<u64>) -> Call {
        Call::Read { file: 7, cell, got }
    }

    const fn write(cell: usize, value: u64) -> Call {
        Call::Write {
            file: 7,
            cell,
            value,
        }
    }

    const fn append(value: u64) -> Call {
        Call::Append { file: 7, value }
    }

    const fn find(name: usize, got: Option<u64>) -> Call {
        Call::Find { name, got }
    }

    const fn rename(from: usize, to: usize, got: bool) -> Call {
        let got = Got::Known(got);
        Call::Rename { from, to, got }
    }

    const fn unlink(name: usize, got: bool) -> Call {
        let got = Got::Known(got);
        Call::Unlink { name, got }
    }

    const fn truncate(cells: usize) -> Call {
        Call::Truncate { file: 7, cells }
    }

    const fn stat(cells: usize, links: u64) -> Call {
        Call::Stat {
            file: 7,
            cells,
            links,
        }
    }

    const fn list(name: usize, got: bool) -> Call {
        Call::List { name, got }
    }

    #[test]
    fn what_a_file_system_does_passes() {
        let history = in_turn(vec![
            find(0, None),
            open(0, Some(7)),
            write(2, 5),
            stat(3, 1),
            read(0, Some(0)),
            read(2, Some(5)),
            read(3, None),
            append(6),
            truncate(1),
            truncate(3),
            read(2, Some(0)),
            Call::Link {
                file: 7,
                name: 2,
                got: Got::Known(true),
            },
            stat(3, 2),
            list(0, true),
            list(1, false),
            list(2, true),
            rename(0, 2, true),
            rename(0, 1, true),
            find(1, Some(7)),
            unlink(2, true),
            unlink(2, false),
            rename(2, 0, false),
            unlink(1, true),
            stat(3, 0),
            read(2, Some(0)),
            open(1, Some(8)),
            Call::Read {
                file: M,
                cell: 3,
                got: Some(0),
            },
        ]);
        assert_eq!(check(Files::new(M), &history), Ok(()));
    }

    /// The mistakes that a coherent file system does not make: the last call of each fits nowhere.
    #[test]
    fn each_seeded_mistake_is_rejected() {
        let start = [open(0, Some(7)), append(5)];
        for (mistake, calls) in [
            ("a stale read", vec![write(0, 6), read(0, Some(5))]),
            ("a stale end", vec![append(6), read(1, None)]),
            ("a stale size", vec![append(6), stat(1, 1)]),
            ("a lost append", vec![append(6), append(9), stat(2, 1)]),
            (
                "an append over another",
                vec![append(6), append(9), read(1, Some(9))],
            ),
            (
                "what was cut off comes back",
                vec![truncate(0), truncate(1), read(0, Some(5))],
            ),
            ("a stale name", vec![unlink(0, true), find(0, Some(7))]),
            ("a name that is not seen", vec![find(0, None)]),
            (
                "a rename of nothing",
                vec![rename(0, 1, true), rename(0, 2, true)],
            ),
            (
                "an unlink done twice",
                vec![unlink(0, true), unlink(0, true)],
            ),
            (
                "a directory's old names",
                vec![rename(0, 2, true), list(0, true)],
            ),
            ("half a rename", vec![rename(0, 1, true), list(0, true)]),
            (
                "a link that is not counted",
                vec![unlink(0, true), stat(1, 1)],
            ),
            (
                "another file's number",
                vec![unlink(0, true), open(1, Some(7))],
            ),
        ] {
            let history = in_turn(start.iter().cloned().chain(calls).collect());
            let event = Some(history.len() - 1);
            assert_eq!(
                check(Files::new(M), &history),
                Err(Rejected { event }),
                "{mistake}"
            );
        }
    }

    #[test]
    fn a_call_that_never_returned_may_be_seen_or_not() {
        let never = |call| event(call, 10, u64::MAX);
        let made = Call::Open {
            name: 0,
            make: true,
            exclusive: true,
            got: Got::Never(1),
        };
        let renamed = Call::Rename {
            from: 0,
            to: 1,
            got: Got::Never(2),
        };
        let file = event(open(0, Some(7)), 0, 1);
        for (history, fits) in [
            (
                vec![never(made.clone()), event(find(0, None), 20, 21)],
                true,
            ),
            (
                vec![never(made.clone()), event(find(0, Some(9)), 20, 21)],
                true,
            ),
            (
                vec![
                    never(made.clone()),
                    event(find(0, Some(9)), 20, 21),
                    event(find(0, Some(8)), 22, 23),
                ],
                false,
            ),
            (
                vec![
                    file.clone(),
                    never(renamed.clone()),
                    event(find(1, Some(7)), 20, 21),
                ],
                true,
            ),
            (
                vec![
                    file.clone(),
                    never(renamed.clone()),
                    event(find(1, Some(7)), 20, 21),
                    event(find(0, Some(7)), 22, 23),
                ],
                false,
            ),
            (
                vec![
                    file,
                    event(append(3), 10, u64::MAX),
                    event(stat(0, 1), 20, 21),
                    event(stat(1, 1), 22, 23),
                    event(stat(2, 1), 24, 25),
                ],
                false,
            ),
        ] {
            assert_eq!(check(Files::new(M), &history).is_ok(), fits, "{history:?}");
        }
    }
}
