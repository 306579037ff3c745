// SPDX-License-Identifier: MIT
//! Which objects there are: pages of their names, in the order of the hash directories and of the
//! names in each, so that a page begins where the one before it ended, whatever came or went since.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io;

use pvfs::ids::{InodeNumber, ObjectId};
use pvfs::proto::iod::Surveyed;

use super::directory::{DataDirectory, HASH_DIRECTORIES, SUMS_SUFFIX};
use super::spanning::PARTS_SUFFIX;
use super::sums::Damage;
use super::{Store, Unsettled};

/// Digits of an inode number and of a generation in a name.
const INODE_DIGITS: usize = 16;
const GENERATION_DIGITS: usize = 8;

impl Store {
    /// At most `objects_max` objects after `after`, and whether no others follow. An object is named
    /// also where only its checksums are left.
    ///
    /// # Errors
    ///
    /// Those of reading a directory.
    pub fn list(
        &self,
        after: Option<ObjectId>,
        objects_max: usize,
    ) -> io::Result<(Vec<ObjectId>, bool)> {
        let mut found = Vec::new();
        let first = after.map_or(0, |after| after.inode.0 % HASH_DIRECTORIES);
        for hash in first..HASH_DIRECTORIES {
            let room = objects_max - found.len();
            let after = after.filter(|_| hash == first);
            let (names, end) = self.directory.names(hash, after, room)?;
            found.extend(names);
            if !end {
                return Ok((found, false));
            }
        }
        Ok((found, true))
    }

    /// What there is of an object. Its files are not kept open.
    #[must_use]
    pub fn survey(&self, object: ObjectId) -> Surveyed {
        let unsettled = Unsettled::default();
        match self.directory.open_object(object, false, &unsettled.into()) {
            Ok(file) => file.length().map_or(Surveyed::Failed, |length| {
                let place = file.place();
                Surveyed::Present { length, place }
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Surveyed::Absent,
            Err(error) if Damage::of(&error) == Some(Damage::Lost) => Surveyed::Lost,
            Err(error) => {
                tracing::error!("object {object} cannot be looked at: {error}");
                Surveyed::Failed
            }
        }
    }
}

impl DataDirectory {
    /// The smallest `room` objects of a hash directory after `after`, and whether there are no more.
    fn names(
        &self,
        hash: u64,
        after: Option<ObjectId>,
        room: usize,
    ) -> io::Result<(BTreeSet<ObjectId>, bool)> {
        let mut smallest = BTreeSet::new();
        let mut end = true;
        for entry in std::fs::read_dir(self.hash_directory(hash))? {
            let Some(object) = object_of(&entry?.file_name()) else {
                continue;
            };
            if object.inode.0 % HASH_DIRECTORIES != hash || Some(object) <= after {
                continue;
            }
            smallest.insert(object);
            if smallest.len() > room {
                smallest.pop_last();
                end = false;
            }
        }
        Ok((smallest, end))
    }
}

/// The object that a local file belongs to.
fn object_of(name: &OsStr) -> Option<ObjectId> {
    let name = name.to_str()?;
    // Of what an interrupted removal left, a directory of parts may be all there is.
    let name = name.strip_suffix(PARTS_SUFFIX).unwrap_or(name);
    let name = name.strip_suffix(SUMS_SUFFIX).unwrap_or(name);
    let (inode, generation) = name.split_once('.')?;
    let is_number =
        |text: &str, digits| text.len() == digits && text.bytes().all(|b| b.is_ascii_hexdigit());
    if !is_number(inode, INODE_DIGITS) || !is_number(generation, GENERATION_DIGITS) {
        return None;
    }
    Some(ObjectId {
        inode: InodeNumber(u64::from_str_radix(inode, 16).ok()?),
        generation: u32::from_str_radix(generation, 16).ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::stripe;

    fn object(inode: u64, generation: u32) -> ObjectId {
        ObjectId {
            inode: InodeNumber(inode),
            generation,
        }
    }

    #[test]
    fn names_are_parsed_strictly() {
        let of = |name: &str| object_of(OsStr::new(name));
        assert_eq!(
            of("00000000000012ab.00000002"),
            Some(object(0x12ab, 2)),
            "data"
        );
        assert_eq!(
            of("00000000000012ab.00000002.sums"),
            Some(object(0x12ab, 2))
        );
        for parts in [
            "00000000000012ab.00000002.parts",
            "00000000000012ab.00000002.sums.parts",
        ] {
            assert_eq!(of(parts), Some(object(0x12ab, 2)));
        }
        for bad in [
            "",
            ".",
            "12ab.2",
            "00000000000012ab",
            "00000000000012ab.00000002.bak",
            "00000000000012ab.00000002.parts.sums",
            "+000000000000001.00000002",
            "00000000000012ag.00000002",
        ] {
            assert_eq!(of(bad), None, "{bad}");
        }
    }

    #[test]
    fn pages_of_any_size_name_every_object_once() {
        let directory = tempfile::tempdir_in("/dev/shm").unwrap();
        Store::create(directory.path()).unwrap();
        let store = Store::open(directory.path(), 64).unwrap();
        let mut all = BTreeSet::new();
        for number in 0..300 {
            let object = object(number * 64, 1 + (number as u32) % 3);
            let file = store.find_or_create(stripe(object)).unwrap();
            file.write_at(b"x", 0).unwrap();
            all.insert(object);
        }
        let hash = directory.path().join("objects/00");
        std::fs::write(hash.join("no object"), b"").unwrap();
        for size in [1, 7, 100, 300, 1000] {
            let (mut seen, mut after, mut end) = (Vec::new(), None, false);
            while !end {
                let page = store.list(after, size).unwrap();
                assert!(page.0.len() <= size);
                end = page.1;
                after = page.0.last().copied();
                seen.extend(page.0);
            }
            assert_eq!(seen.len(), all.len());
            assert_eq!(seen.into_iter().collect::<BTreeSet<_>>(), all);
        }
        assert!(matches!(
            store.survey(object(64, 2)),
            Surveyed::Present {
                length: 1,
                place: Some(_),
            }
        ));
        assert_eq!(store.survey(object(64, 9)), Surveyed::Absent);
    }
}
