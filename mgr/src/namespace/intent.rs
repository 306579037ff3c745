// SPDX-License-Identifier: MIT
//! Write intents: the note that somebody may be writing to a file. It is stored before the first
//! write can reach an iod, and goes some time after the last writer has reported everything. So
//! whoever ends in between, a client, mgr or both, the files of which the iods may hold more than
//! mgr knows are those that have one. See docs/decisions/0104-write-intents.md.

use bincode::{Decode, Encode};
use pvfs::attr::{Attr, FileKind};
use pvfs::ids::InodeNumber;
pub use pvfs::proto::mgr::Doubt;

use super::inode::Inode;
use super::key;
use super::open::note_space;
use super::transaction::{Halt, Transaction};

/// The record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Intent {
    /// The file's generation.
    pub generation: u32,
    /// `None` while all writers are there to report what they write. Otherwise nobody may extend the
    /// file or write to it until it has been settled.
    pub doubt: Option<Doubt>,
}

/// What iods have of a file altogether.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Measure {
    /// Where the last byte ends that any of them has, as an offset in the file.
    pub end: u64,
    /// Disk space that it takes, bytes.
    pub allocated: u64,
}

impl Transaction<'_> {
    /// The intent to write to a file, where there is one.
    ///
    /// # Errors
    ///
    /// [`Halt::Store`].
    pub fn intent(&self, inode: InodeNumber) -> Result<Option<Intent>, Halt> {
        self.get(&key::intent(inode))
    }

    /// Notes that somebody is about to write to a file.
    ///
    /// # Errors
    ///
    /// [`Halt::Store`].
    pub fn intend(&mut self, attr: &Attr) -> Result<(), Halt> {
        let key = key::intent(attr.inode);
        if attr.kind != FileKind::Regular || self.has(&key)? {
            return Ok(());
        }
        let intent = Intent {
            generation: attr.generation,
            doubt: None,
        };
        self.put(key, &intent)
    }

    /// Notes that the iods may hold of a file what mgr does not know; false where nobody can have
    /// written to it.
    ///
    /// # Errors
    ///
    /// [`Halt::Store`].
    pub fn raise_doubt(&mut self, inode: InodeNumber, doubt: Doubt) -> Result<bool, Halt> {
        let Some(mut intent) = self.intent(inode)? else {
            return Ok(false);
        };
        if intent.doubt < Some(doubt) {
            intent.doubt = Some(doubt);
            self.put(key::intent(inode), &intent)?;
        }
        Ok(true)
    }

    /// Whether an inode is what mgr knows of it: nothing is being cut, and no writer is gone without
    /// a word.
    ///
    /// # Errors
    ///
    /// [`Halt::Blocked`] where it is not.
    pub fn check_settled(&self, inode: InodeNumber) -> Result<(), Halt> {
        self.check_uncut(inode)?;
        match self.intent(inode)?.and_then(|intent| intent.doubt) {
            Some(_) => Err(Halt::Blocked(inode)),
            None => Ok(()),
        }
    }

    /// Whether no truncation of the inode goes on.
    ///
    /// # Errors
    ///
    /// [`Halt::Blocked`] where one does.
    pub fn check_uncut(&self, inode: InodeNumber) -> Result<(), Halt> {
        match self.has(&key::cut(inode))? {
            true => Err(Halt::Blocked(inode)),
            false => Ok(()),
        }
    }

    /// Ends the doubt about a file: it ends where mgr says, and what iods hold beyond is cut.
    ///
    /// # Errors
    ///
    /// [`Halt::Store`].
    pub fn settle_by_cut(&mut self, found: &Inode) -> Result<(), Halt> {
        self.note_cut(&found.attr, found.attr.size)?;
        self.end_doubt(&found.attr)
    }

    /// Ends the doubt about a file: it is as long as what the iods hold of it.
    ///
    /// # Errors
    ///
    /// [`Halt::Store`].
    pub fn settle_by_growth(&mut self, mut found: Inode, measure: Measure) -> Result<(), Halt> {
        let attr = &mut found.attr;
        if measure.end > attr.size {
            attr.size = measure.end;
            note_space(attr, Some(measure.allocated));
            self.content_changed(attr);
            // Whose write it was is not known any more.
            self.drop_privileges(attr, true);
            self.put_inode(&found)?;
        }
        self.end_doubt(&found.attr)
    }

    fn end_doubt(&mut self, attr: &Attr) -> Result<(), Halt> {
        let intent = Intent {
            generation: attr.generation,
            doubt: None,
        };
        self.put(key::intent(attr.inode), &intent)
    }
}
