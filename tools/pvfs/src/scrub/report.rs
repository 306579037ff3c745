// SPDX-License-Identifier: MIT
//! What a scrub found, in words, as JSON and as an exit status.

use pvfs::ids::{IodId, ObjectId};
use pvfs::layout::Layout;
use serde::Serialize;

use crate::human;
use crate::left_out::{JsonIod, LeftOut};
use crate::output;

/// Exit statuses, as those of fsck(8).
const DAMAGED: u8 = 4;
/// Not all could be read.
pub const OPERATIONAL_ERROR: u8 = 8;

/// What is wrong with an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// These local bytes do not match their checksums.
    Blocks(Vec<(u64, u64)>),
    /// From this local offset on it cannot be compared: data or checksums are lost, or the disk fails.
    From(u64),
}

/// A damaged object.
#[derive(Clone, Debug)]
pub struct Damaged {
    /// Where.
    pub iod: IodId,
    /// Which.
    pub object: ObjectId,
    /// How.
    pub what: What,
    /// Of which file, where it has a name.
    pub path: Option<String>,
    /// Bytes of the file that are damaged.
    pub of_file: Vec<(u64, u64)>,
}

impl Damaged {
    /// Notes which bytes of its file are damaged.
    pub fn locate(&mut self, layout: &Layout) {
        let slot = layout.iods().iter().position(|iod| *iod == self.iod);
        let (Some(slot), What::Blocks(blocks)) = (slot, &self.what) else {
            return;
        };
        let stripe = u64::from(layout.stripe_size());
        for (start, end) in blocks {
            let mut at = *start;
            while at < *end {
                // Within a stripe, local bytes follow each other as the file's do.
                let part = (stripe - at % stripe).min(end - at);
                if let Some(offset) = layout.file_offset(slot, at) {
                    self.of_file.push((offset, offset.saturating_add(part)));
                }
                at += part;
            }
        }
    }

    fn words(&self) -> String {
        let Self { iod, object, .. } = self;
        let of = match &self.path {
            Some(path) => path.clone(),
            None => format!("inode {}, which has no name", object.inode),
        };
        match &self.what {
            What::Blocks(_) if !self.of_file.is_empty() => {
                let parts = self.of_file.iter();
                let parts: Vec<String> = parts
                    .map(|(start, end)| format!("{start} to {end}"))
                    .collect();
                format!("{of}: bytes {} are damaged on iod {iod}", parts.join(", "))
            }
            What::Blocks(_) => format!("{of}: stripes {object} are damaged on iod {iod}"),
            What::From(offset) => format!(
                "{of}: stripes {object} on iod {iod} cannot be compared from local offset {offset} on; \
                 its log says why"
            ),
        }
    }
}

/// What a scrub has found.
#[derive(Debug, Default)]
pub struct Report {
    /// Bytes compared.
    pub bytes: u64,
    /// Objects.
    pub objects: u64,
    /// What is damaged.
    pub damaged: Vec<Damaged>,
    /// What is damaged besides.
    pub untold: u64,
    left_out: LeftOut,
}

#[derive(Serialize)]
struct Json<'a> {
    bytes: u64,
    objects: u64,
    damaged: Vec<JsonDamaged<'a>>,
    damaged_untold: u64,
    iods_left_out: Vec<JsonIod<'a>>,
    status: u8,
}

#[derive(Serialize)]
struct JsonDamaged<'a> {
    iod: u32,
    inode: u64,
    generation: u32,
    path: Option<&'a str>,
    /// Start and end of each part.
    file_bytes: &'a [(u64, u64)],
    what: String,
}

impl Report {
    /// Notes that not all of an iod was read.
    pub fn leave_out(&mut self, iod: IodId, why: String) {
        self.left_out.add(iod, why);
    }

    /// The exit status.
    pub fn status(&self) -> u8 {
        let damaged = if self.damaged.is_empty() { 0 } else { DAMAGED };
        let left_out = match self.left_out.is_empty() {
            true => 0,
            false => OPERATIONAL_ERROR,
        };
        damaged | left_out
    }

    /// Prints it.
    pub fn print(&self, json: bool) -> anyhow::Result<()> {
        if json {
            return output::json(&self.json());
        }
        output::lines(self.damaged.iter().map(Damaged::words))?;
        if self.untold > 0 {
            output::line(format!("and {} more", self.untold))?;
        }
        for (iod, why) in self.left_out.iter() {
            output::line(format!("iod {iod} was left out: {why}"))?;
        }
        let size = human::bytes(self.bytes);
        let damaged = self.damaged.len() as u64 + self.untold;
        output::line(format!(
            "{size} of {} objects: {damaged} damaged",
            self.objects
        ))?;
        Ok(())
    }

    fn json(&self) -> Json<'_> {
        let damaged = self.damaged.iter().map(|damaged| JsonDamaged {
            iod: damaged.iod.0,
            inode: damaged.object.inode.0,
            generation: damaged.object.generation,
            path: damaged.path.as_deref(),
            file_bytes: &damaged.of_file,
            what: damaged.words(),
        });
        Json {
            bytes: self.bytes,
            objects: self.objects,
            damaged: damaged.collect(),
            damaged_untold: self.untold,
            iods_left_out: self.left_out.json(),
            status: self.status(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pvfs::ids::InodeNumber;

    #[test]
    fn damage_is_told_in_bytes_of_the_file() {
        let layout = Layout::new(4096 * 2, 0, vec![IodId(1), IodId(2)]).unwrap();
        let mut damaged = Damaged {
            iod: IodId(2),
            object: ObjectId {
                inode: InodeNumber(9),
                generation: 1,
            },
            what: What::Blocks(vec![(4096, 12288)]),
            path: Some("/a".into()),
            of_file: Vec::new(),
        };
        damaged.locate(&layout);
        assert_eq!(damaged.of_file, [(12288, 16384), (24576, 28672)]);
        let text = damaged.words();
        assert_eq!(
            text,
            "/a: bytes 12288 to 16384, 24576 to 28672 are damaged on iod 2"
        );
        let mut report = Report::default();
        assert_eq!(report.status(), 0);
        report.damaged.push(damaged);
        assert_eq!(report.status(), 4);
    }
}
