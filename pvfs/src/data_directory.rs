// SPDX-License-Identifier: MIT
//! What mgr and iods demand of a data directory before they use it, whatever they keep in it: that
//! somebody made it for them, and that nobody else may change it.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use thiserror::Error;

/// Permission bits of a data directory: stripes and names are read through a mount, or by root.
const MODE: u32 = 0o700;
/// Permission bits that let others than the owner change a directory.
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// Why a data directory is refused.
#[derive(Debug, Error)]
pub enum DataDirectoryError {
    /// A system call failed.
    #[error("data directory: {action} {path}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What came of it.
        source: io::Error,
    },
    /// Nobody has made it: perhaps it is the mount point of a disk that is not mounted.
    #[error(
        "data directory {path} holds no data of {program}: is its disk mounted? is --data right? \
         Only `{program} --init --data {path}` makes a new one there"
    )]
    NotMade {
        /// The directory.
        path: PathBuf,
        /// Whose data is wanted.
        program: &'static str,
    },
    /// It is to be made, and is there already.
    #[error(
        "data directory {path} holds data of {program} already: start it without --init, \
         or give --data another directory"
    )]
    Exists {
        /// The directory.
        path: PathBuf,
        /// Whose data is there.
        program: &'static str,
    },
    /// It is to be made, and something else is in there.
    #[error(
        "directory {path} holds `{name}` and no data of {program}: \
         give --data an empty directory or its own"
    )]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// The first thing in it that belongs to somebody else.
        name: String,
        /// Who would like to use it.
        program: &'static str,
    },
    /// It is somebody else's.
    #[error(
        "data directory {path} belongs to user {owner}, and {program} runs as user {user}: \
         chown it, or run {program} as its owner"
    )]
    Owner {
        /// The directory.
        path: PathBuf,
        /// Its owner.
        owner: u32,
        /// Who would like to use it.
        program: &'static str,
        /// As whom.
        user: u32,
    },
    /// Others may change it.
    #[error(
        "others than its owner may write to data directory {path} (mode {mode:04o}): chmod 0700 it"
    )]
    Writable {
        /// The directory.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> DataDirectoryError {
    let path = path.to_owned();
    move |source| DataDirectoryError::Io {
        action,
        path,
        source,
    }
}

/// A daemon's kind of data directory.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    /// The daemon.
    pub program: &'static str,
    /// The file that is there once the directory is made, and not before.
    pub marker: &'static str,
    /// What else may stand in a directory that is to be made: what an interrupted attempt left, and
    /// what mkfs makes at the root of a file system.
    pub harmless: &'static [&'static str],
}

impl Kind {
    /// Makes the directory `path` if it is missing, and looks whether it may become the daemon's. Others
    /// may have had the right to write to it if it is empty, as a new tmpfs is: they lose that right.
    ///
    /// # Errors
    ///
    /// [`DataDirectoryError`]; what is in an existing directory has not changed then.
    pub fn prepare_new(self, path: &Path) -> Result<(), DataDirectoryError> {
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(MODE);
        builder.create(path).map_err(failed("make", path))?;
        if self.is_made(path)? {
            return Err(DataDirectoryError::Exists {
                path: path.to_owned(),
                program: self.program,
            });
        }
        let is_empty = self.holds_nothing_else(path)?;
        self.guard(path, is_empty)?;
        // Others may have put something there until now.
        self.holds_nothing_else(path)?;
        Ok(())
    }

    /// Whether a directory that is to be made is empty; what is harmless may be in it.
    fn holds_nothing_else(self, path: &Path) -> Result<bool, DataDirectoryError> {
        let mut is_empty = true;
        for entry in fs::read_dir(path).map_err(failed("read", path))? {
            let name = entry.map_err(failed("read", path))?.file_name();
            let name = name.to_string_lossy().into_owned();
            if !self.harmless.contains(&name.as_str()) {
                return Err(DataDirectoryError::Foreign {
                    path: path.to_owned(),
                    name,
                    program: self.program,
                });
            }
            is_empty = false;
        }
        Ok(is_empty)
    }

    /// Looks whether `path` is a directory that was made for the daemon, and takes what rights others
    /// have to read it.
    ///
    /// # Errors
    ///
    /// [`DataDirectoryError`]; nothing has been made then, also not below a bare mount point.
    pub fn prepare(self, path: &Path) -> Result<(), DataDirectoryError> {
        if !self.is_made(path)? {
            return Err(DataDirectoryError::NotMade {
                path: path.to_owned(),
                program: self.program,
            });
        }
        self.guard(path, false)
    }

    fn is_made(self, path: &Path) -> Result<bool, DataDirectoryError> {
        let marker = path.join(self.marker);
        match fs::symlink_metadata(&marker) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(failed("look at", &marker)(error)),
        }
    }

    /// Refuses what belongs to somebody else, or what others may have written to, and takes all
    /// rights of others. In a directory that is empty they have written nothing that could count.
    fn guard(self, path: &Path, is_empty: bool) -> Result<(), DataDirectoryError> {
        let metadata = fs::metadata(path).map_err(failed("look at", path))?;
        let (owner, user) = (metadata.uid(), nix::unistd::geteuid().as_raw());
        if owner != user {
            return Err(DataDirectoryError::Owner {
                path: path.to_owned(),
                owner,
                program: self.program,
                user,
            });
        }
        let mode = metadata.mode() & 0o7777;
        if mode & WRITABLE_BY_OTHERS != 0 && !is_empty {
            return Err(DataDirectoryError::Writable {
                path: path.to_owned(),
                mode,
            });
        }
        if mode != MODE {
            fs::set_permissions(path, Permissions::from_mode(MODE))
                .map_err(failed("chmod", path))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIND: Kind = Kind {
        program: "pvfs-x",
        marker: "identity",
        harmless: &["lost+found"],
    };

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o7777
    }

    #[test]
    fn only_a_directory_that_was_made_is_used() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("a/b");
        let refused = KIND.prepare(&path).unwrap_err().to_string();
        assert!(refused.contains("is its disk mounted?") && refused.contains("--init"));
        assert!(!path.exists());
        KIND.prepare_new(&path).unwrap();
        fs::create_dir(path.join("lost+found")).unwrap();
        KIND.prepare_new(&path).unwrap();
        assert!(KIND.prepare(&path).is_err(), "it is not whole yet");
        fs::write(path.join("identity"), "").unwrap();
        KIND.prepare(&path).unwrap();
        let refused = KIND.prepare_new(&path).unwrap_err();
        assert!(matches!(refused, DataDirectoryError::Exists { .. }));
    }

    #[test]
    fn a_directory_with_other_things_in_it_does_not_become_one() {
        let scratch = tempfile::tempdir().unwrap();
        fs::write(scratch.path().join("thesis.tex"), "").unwrap();
        let refused = KIND.prepare_new(scratch.path()).unwrap_err().to_string();
        assert!(refused.contains("thesis.tex"), "{refused}");
    }

    #[test]
    fn nobody_else_reads_or_writes_it() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("new");
        KIND.prepare_new(&path).unwrap();
        assert_eq!(mode(&path), 0o700);
        // As the root of a new tmpfs is.
        fs::set_permissions(&path, Permissions::from_mode(0o1777)).unwrap();
        KIND.prepare_new(&path).unwrap();
        assert_eq!(mode(&path), 0o700);
        fs::set_permissions(&path, Permissions::from_mode(0o1777)).unwrap();
        fs::create_dir(path.join("lost+found")).unwrap();
        let refused = KIND.prepare_new(&path).unwrap_err();
        assert!(matches!(refused, DataDirectoryError::Writable { .. }));
        fs::write(path.join("identity"), "").unwrap();
        for (bits, accepted) in [(0o755, true), (0o700, true), (0o775, false), (0o777, false)] {
            fs::set_permissions(&path, Permissions::from_mode(bits)).unwrap();
            assert_eq!(KIND.prepare(&path).is_ok(), accepted, "{bits:o}");
            assert_eq!(mode(&path) == 0o700, accepted, "{bits:o}");
        }
        fs::set_permissions(&path, Permissions::from_mode(0o700)).unwrap();
        if nix::unistd::geteuid().is_root() {
            std::os::unix::fs::chown(&path, Some(65_534), None).unwrap();
            let refused = KIND.prepare(&path).unwrap_err();
            assert!(matches!(
                refused,
                DataDirectoryError::Owner { owner: 65_534, .. }
            ));
        }
    }
}
