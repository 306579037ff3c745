// SPDX-License-Identifier: MIT
//! A new file under a temporary name, which becomes the file's own when the copy is whole.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Context;
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use pvfs::limits::NAME_BYTES_MAX;
use pvfs::runtime::random_u64;

/// What a temporary name ends with.
const SUFFIX: &str = ".part";
/// Digits of the number that tells copies of one file from each other.
const NUMBER_DIGITS: usize = 16;

/// What becomes of a file that has the name already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// It goes.
    Replaced,
    /// It stays, and the new one does not get the name.
    Kept,
}

/// A file that is not whole yet. Unless it is finished, it is removed.
#[derive(Debug)]
pub struct Unfinished {
    /// Where it is until then.
    temporary: PathBuf,
    /// Where it will be.
    path: PathBuf,
    finished: bool,
}

impl Unfinished {
    /// A file that is to become `path`. Nothing is made by this.
    pub fn new(path: &Path) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = random_u64().wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        let name = path.file_name().unwrap_or_default();
        Self {
            temporary: path.with_file_name(temporary_name(name.as_bytes(), number)),
            path: path.to_owned(),
            finished: false,
        }
    }

    /// Where its bytes go.
    pub fn temporary(&self) -> &Path {
        &self.temporary
    }

    /// Gives the file its name.
    ///
    /// # Errors
    ///
    /// As renameat2(2).
    pub fn finish(mut self, existing: Existing) -> anyhow::Result<()> {
        let flags = match existing {
            Existing::Replaced => RenameFlags::empty(),
            Existing::Kept => RenameFlags::RENAME_NOREPLACE,
        };
        let renamed = renameat2(AT_FDCWD, &self.temporary, AT_FDCWD, &self.path, flags);
        renamed.with_context(|| {
            let (from, to) = (self.temporary.display(), self.path.display());
            format!("cannot rename {from} to {to}")
        })?;
        self.finished = true;
        Ok(())
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if !self.finished {
            // It may not have been made yet, or its file system may be gone: its name says what it is.
            let _ = std::fs::remove_file(&self.temporary);
        }
    }
}

/// `.NAME.NUMBER.part`, with as much of the name as there is room for.
fn temporary_name(name: &[u8], number: u64) -> OsString {
    let room = NAME_BYTES_MAX - NUMBER_DIGITS - SUFFIX.len() - 2;
    let mut temporary = b".".to_vec();
    temporary.extend(name.iter().take(room));
    temporary.extend(format!(".{number:016x}{SUFFIX}").bytes());
    OsString::from_vec(temporary)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_temporary_name_is_one() {
        assert_eq!(temporary_name(b"a", 10), ".a.000000000000000a.part");
        assert_eq!(temporary_name(&[b'x'; 255], 1).len(), NAME_BYTES_MAX);
    }

    #[test]
    fn what_is_not_finished_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let unfinished = Unfinished::new(&path);
        std::fs::write(unfinished.temporary(), "half").unwrap();
        drop(unfinished);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        let unfinished = Unfinished::new(&path);
        std::fs::write(unfinished.temporary(), "whole").unwrap();
        unfinished.finish(Existing::Kept).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"whole");
        for (existing, content) in [(Existing::Kept, "whole"), (Existing::Replaced, "newer")] {
            let unfinished = Unfinished::new(&path);
            std::fs::write(unfinished.temporary(), "newer").unwrap();
            assert_eq!(unfinished.finish(existing).is_ok(), content == "newer");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), content);
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
