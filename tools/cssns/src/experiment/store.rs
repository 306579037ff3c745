// SPDX-License-Identifier: MIT
//! The cells that were measured, on disk: two files each, by the cell's key. A cell is there when both are
//! whole, so a run that is interrupted goes on with those that are not.

use super::cell::Cell;
use super::links::Carried;
use super::sample::{self, CSV_HEAD, Sample, Times};
use super::watch::{Memory, Processor, Segments};
use anyhow::{Context as _, ensure};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What was measured of a cell beside its samples.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The cell.
    pub cell: Cell,
    /// What the programs were that were measured: see [`fingerprint`].
    pub programs: String,
    /// When, seconds since 1970.
    pub measured_at_s: u64,
    /// Nodes' memory, by their numbers.
    pub memory: BTreeMap<u8, Memory>,
    /// What links carried, by their ports.
    pub carried: BTreeMap<String, Carried>,
    /// Processor time.
    pub processor: Processor,
    /// The serving nodes' TCP segments.
    pub segments: Segments,
}

/// A cell that was measured.
#[derive(Debug, Clone, PartialEq)]
pub struct Measured {
    /// Its counters.
    pub record: Record,
    /// Its downloads.
    pub samples: Vec<Sample>,
    /// What they come to.
    pub times: Times,
}

impl Measured {
    /// Puts a cell's parts together.
    ///
    /// # Errors
    /// When there are not as many samples as the cell has downloads.
    pub fn new(record: Record, samples: Vec<Sample>) -> anyhow::Result<Self> {
        let expected = record.cell.downloads() as usize;
        ensure!(
            samples.len() == expected,
            "{} samples instead of {expected}",
            samples.len()
        );
        let times = Times::of(&samples).context("no samples")?;
        Ok(Self {
            record,
            samples,
            times,
        })
    }
}

/// The directory of the measured cells.
#[derive(Debug, Clone)]
pub struct Store {
    dir: PathBuf,
}

impl Store {
    /// Opens the store in a directory, which is made if missing.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn open(dir: &Path) -> anyhow::Result<Self> {
        let dir = dir.join("cells");
        std::fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
        Ok(Self { dir })
    }

    /// Forgets every cell.
    ///
    /// # Errors
    /// When a file cannot be removed.
    pub fn clear(&self) -> anyhow::Result<()> {
        std::fs::remove_dir_all(&self.dir)
            .and_then(|()| std::fs::create_dir_all(&self.dir))
            .with_context(|| self.dir.display().to_string())
    }

    /// Keeps a cell.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn save(&self, measured: &Measured) -> anyhow::Result<()> {
        let key = measured.record.cell.key();
        let samples = format!("{CSV_HEAD}\n{}", sample::to_lines(&key, &measured.samples));
        self.write(&format!("{key}.csv"), &samples)?;
        let record = serde_json::to_string_pretty(&measured.record)?;
        // Last: a cell with a record is whole.
        self.write(&format!("{key}.json"), &record)
    }

    fn write(&self, name: &str, text: &str) -> anyhow::Result<()> {
        let path = self.dir.join(name);
        let draft = self.dir.join(format!("{name}.draft"));
        std::fs::write(&draft, text)
            .and_then(|()| std::fs::rename(&draft, &path))
            .with_context(|| path.display().to_string())
    }

    /// A cell as it was measured with these programs, or with any where `programs` is none; `None` when
    /// it was not, or its files are not whole.
    #[must_use]
    pub fn load(&self, cell: &Cell, programs: Option<&str>) -> Option<Measured> {
        let key = cell.key();
        let read = |extension: &str| {
            std::fs::read_to_string(self.dir.join(format!("{key}.{extension}"))).ok()
        };
        let record: Record = serde_json::from_str(&read("json")?).ok()?;
        let same = programs.is_none_or(|programs| record.programs == programs);
        if !same || record.cell != *cell {
            return None;
        }
        let samples = sample::from_csv(&read("csv")?).ok()?;
        let samples = samples.into_iter().map(|(_, sample)| sample).collect();
        Measured::new(record, samples).ok()
    }
}

/// What identifies programs: SHA-256 of all their bytes, shortened. Cells of other programs do not count.
///
/// # Errors
/// Names the file that cannot be read.
pub fn fingerprint(programs: &[PathBuf]) -> anyhow::Result<String> {
    let mut digest = Sha256::new();
    for path in programs {
        let mut file = std::fs::File::open(path).with_context(|| path.display().to_string())?;
        std::io::copy(&mut file, &mut digest).with_context(|| path.display().to_string())?;
    }
    let digest: [u8; 32] = digest.finalize().into();
    Ok(digest.iter().take(8).map(|b| format!("{b:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::super::cell::{Dispatch, Files, Work};
    use super::*;

    fn measured() -> Measured {
        let cell = Cell {
            nodes: 1,
            dispatch: Dispatch::Direct,
            work: Work::Equal {
                file_mb: 10,
                processes: 2,
                files: Files::Shared,
            },
            unequal: false,
            scale: 100,
        };
        let sample = Sample {
            round: 0,
            client: 1,
            node: 1,
            path: "/f".to_owned(),
            bytes: 100_000,
            start_s: 0.0,
            connected_s: 0.5,
            first_byte_s: 0.75,
            end_s: 1.0,
        };
        let record = Record {
            cell,
            programs: "abc".to_owned(),
            measured_at_s: 1,
            memory: BTreeMap::from([(1, Memory::default())]),
            carried: BTreeMap::from([("node1-0".to_owned(), Carried::default())]),
            processor: Processor::default(),
            segments: Segments::default(),
        };
        Measured::new(record, vec![sample.clone(), sample]).unwrap()
    }

    #[test]
    fn a_cell_that_is_whole_is_found_again_and_no_other() {
        let home = tempfile::tempdir().unwrap();
        let store = Store::open(home.path()).unwrap();
        let measured = measured();
        let cell = measured.record.cell;
        assert_eq!(store.load(&cell, None), None);
        store.save(&measured).unwrap();
        assert_eq!(store.load(&cell, None).as_ref(), Some(&measured));
        assert_eq!(store.load(&cell, Some("abc")), Some(measured));
        assert_eq!(store.load(&cell, Some("other programs")), None);
        let other = Cell { scale: 99, ..cell };
        assert_eq!(store.load(&other, None), None);
        store.clear().unwrap();
        assert_eq!(store.load(&cell, None), None);
    }

    #[test]
    fn a_torn_file_is_no_cell() {
        let home = tempfile::tempdir().unwrap();
        let store = Store::open(home.path()).unwrap();
        let measured = measured();
        let cell = measured.record.cell;
        for extension in ["csv", "json"] {
            store.save(&measured).unwrap();
            let path = store.dir.join(format!("{}.{extension}", cell.key()));
            let text = std::fs::read_to_string(&path).unwrap();
            std::fs::write(&path, &text[..text.len() * 2 / 3]).unwrap();
            assert_eq!(store.load(&cell, None), None, "{extension}");
        }
        assert!(Measured::new(measured.record, Vec::new()).is_err());
    }
}
