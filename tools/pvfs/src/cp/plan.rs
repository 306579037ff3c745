// SPDX-License-Identifier: MIT
//! What is copied where, in cp(1)'s way.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use nix::fcntl::AT_FDCWD;
use nix::sys::stat::{UtimensatFlags, utimensat};
use nix::sys::time::TimeSpec;

/// One thing to copy.
#[derive(Clone, Debug)]
pub struct Item {
    /// From where.
    pub from: PathBuf,
    /// To where.
    pub to: PathBuf,
    /// The source's attributes.
    pub metadata: Metadata,
}

/// All that is to be copied, each list in the order in which the source was walked.
#[derive(Debug, Default)]
pub struct Plan {
    /// Directories, each before what is in it.
    pub directories: Vec<Item>,
    /// Regular files.
    pub files: Vec<Item>,
    /// Symbolic links.
    pub links: Vec<Item>,
    /// What cannot be copied, in words.
    pub problems: Vec<String>,
}

impl Plan {
    /// Walks `sources`.
    ///
    /// # Errors
    ///
    /// Where the command line makes no sense; what merely cannot be copied is in
    /// [`Plan::problems`].
    pub fn make(sources: &[PathBuf], destination: &Path, recursive: bool) -> anyhow::Result<Self> {
        let into_directory = destination.is_dir();
        if sources.len() > 1 && !into_directory {
            bail!(
                "{} is no directory: several sources need one",
                destination.display()
            );
        }
        let mut plan = Self::default();
        for from in sources {
            let to = if into_directory {
                let name = from
                    .canonicalize()
                    .with_context(|| from.display().to_string())?
                    .file_name()
                    .map(PathBuf::from)
                    .with_context(|| format!("{} has no name to copy it under", from.display()))?;
                // The name as it was given, unless that was `.` or `..`.
                destination.join(from.file_name().map_or(name, PathBuf::from))
            } else {
                destination.to_owned()
            };
            plan.add_source(from, to, recursive)?;
        }
        Ok(plan)
    }

    fn add_source(&mut self, from: &Path, to: PathBuf, recursive: bool) -> anyhow::Result<()> {
        // A link that the user names is followed unless a whole tree is copied, as cp(1) does.
        let metadata = if recursive {
            std::fs::symlink_metadata(from)
        } else {
            std::fs::metadata(from)
        };
        let metadata = metadata.with_context(|| from.display().to_string())?;
        if metadata.is_dir() {
            if !recursive {
                bail!("{} is a directory: add -r", from.display());
            }
            if is_inside(&to, from)? {
                bail!("{} would be copied into itself", from.display());
            }
        }
        self.add(from, to, metadata);
        Ok(())
    }

    fn add(&mut self, from: &Path, to: PathBuf, metadata: Metadata) {
        let item = Item {
            from: from.to_owned(),
            to,
            metadata,
        };
        let kind = item.metadata.file_type();
        if kind.is_dir() {
            let (from, to) = (item.from.clone(), item.to.clone());
            self.directories.push(item);
            if let Err(error) = self.add_children(&from, &to) {
                self.problems
                    .push(format!("{} cannot be read: {error}", from.display()));
            }
        } else if kind.is_symlink() {
            self.links.push(item);
        } else if !kind.is_file() {
            self.problems.push(format!(
                "{} is neither file, directory nor link: not copied",
                item.from.display()
            ));
        } else if is_same(&item) {
            self.problems.push(format!(
                "{} and {} are the same file: not copied",
                item.from.display(),
                item.to.display()
            ));
        } else {
            self.files.push(item);
        }
    }

    fn add_children(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let mut entries = std::fs::read_dir(from)?.collect::<io::Result<Vec<_>>>()?;
        entries.sort_by_key(std::fs::DirEntry::file_name);
        for entry in entries {
            match entry.metadata() {
                Ok(metadata) => self.add(&entry.path(), to.join(entry.file_name()), metadata),
                Err(error) => self
                    .problems
                    .push(format!("{}: {error}", entry.path().display())),
            }
        }
        Ok(())
    }

    /// Bytes of all files.
    pub fn bytes(&self) -> u64 {
        self.files
            .iter()
            .map(|item| item.metadata.len())
            .fold(0, u64::saturating_add)
    }
}

/// Whether both names are of one file already.
fn is_same(item: &Item) -> bool {
    std::fs::metadata(&item.to)
        .is_ok_and(|to| (to.dev(), to.ino()) == (item.metadata.dev(), item.metadata.ino()))
}

/// Whether `path`, which need not exist, is `directory` or lies in it.
fn is_inside(path: &Path, directory: &Path) -> anyhow::Result<bool> {
    let directory = directory
        .canonicalize()
        .with_context(|| directory.display().to_string())?;
    let absolute = std::path::absolute(path).with_context(|| path.display().to_string())?;
    let existing = absolute
        .ancestors()
        .find_map(|above| above.canonicalize().ok());
    Ok(existing.is_some_and(|above| above.starts_with(&directory)))
}

/// Gives the copy the source's owner (as root), mode and times.
///
/// # Errors
///
/// The first that cannot be set.
pub fn preserve(item: &Item) -> io::Result<()> {
    preserve_owner(item)?;
    std::fs::set_permissions(&item.to, item.metadata.permissions())?;
    let time = |seconds, nanoseconds| TimeSpec::new(seconds, nanoseconds);
    utimensat(
        AT_FDCWD,
        &item.to,
        &time(item.metadata.atime(), item.metadata.atime_nsec()),
        &time(item.metadata.mtime(), item.metadata.mtime_nsec()),
        UtimensatFlags::FollowSymlink,
    )?;
    Ok(())
}

/// Gives the copy the source's owner and group, where this process may do that: as root.
///
/// # Errors
///
/// As lchown(2).
pub fn preserve_owner(item: &Item) -> io::Result<()> {
    if nix::unistd::geteuid().is_root() {
        std::os::unix::fs::lchown(
            &item.to,
            Some(item.metadata.uid()),
            Some(item.metadata.gid()),
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::create_dir_all(at("src/sub")).unwrap();
        std::fs::write(at("src/one"), "1").unwrap();
        std::fs::write(at("src/sub/two"), "22").unwrap();
        std::os::unix::fs::symlink("one", at("src/link")).unwrap();
        nix::unistd::mkfifo(&at("src/fifo"), nix::sys::stat::Mode::S_IRUSR).unwrap();
        std::fs::create_dir(at("dst")).unwrap();
        dir
    }

    fn names(items: &[Item], below: &Path) -> Vec<String> {
        let name = |item: &Item| item.to.strip_prefix(below).unwrap().display().to_string();
        items.iter().map(name).collect()
    }

    #[test]
    fn a_tree_goes_into_a_directory_or_becomes_one() {
        let dir = tree();
        let source = [dir.path().join("src")];
        let plan = Plan::make(&source, &dir.path().join("dst"), true).unwrap();
        let below = dir.path().join("dst");
        assert_eq!(names(&plan.directories, &below), ["src", "src/sub"]);
        assert_eq!(names(&plan.files, &below), ["src/one", "src/sub/two"]);
        assert_eq!(names(&plan.links, &below), ["src/link"]);
        assert_eq!(plan.bytes(), 3);
        assert_eq!(plan.problems.len(), 1);
        let plan = Plan::make(&source, &dir.path().join("new"), true).unwrap();
        assert_eq!(names(&plan.directories, dir.path()), ["new", "new/sub"]);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let dir = tree();
        let at = |name: &str| dir.path().join(name);
        let refuse = |sources: &[PathBuf], to: &str, recursive| {
            Plan::make(sources, &at(to), recursive)
                .unwrap_err()
                .to_string()
        };
        assert!(refuse(&[at("src")], "dst", false).contains("add -r"));
        assert!(refuse(&[at("src/one"), at("src/link")], "new", false).contains("no directory"));
        assert!(refuse(&[at("src")], "src/sub", true).contains("into itself"));
        assert!(refuse(&[at("missing")], "dst", false).contains("missing"));
    }

    #[test]
    fn a_file_is_not_copied_onto_itself() {
        let dir = tree();
        let one = dir.path().join("src/one");
        let plan = Plan::make(std::slice::from_ref(&one), &one, false).unwrap();
        assert!(plan.files.is_empty());
        assert!(plan.problems[0].contains("same file"));
    }
}
