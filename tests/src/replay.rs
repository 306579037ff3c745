// SPDX-License-Identifier: MIT
//! The same operations on a real file system, and the comparison with the model.

use std::collections::VecDeque;
use std::fs::OpenOptions;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::AT_FDCWD;
use nix::sys::stat::{UtimensatFlags, utimensat};
use nix::sys::time::TimeSpec;

use crate::draw;
use crate::model::{Kind, Model, Outcome, Stat};
use crate::operation::Operation;

/// Operations before the one that failed which its message shows.
const RECENT_MAX: usize = 60;

/// Does `operation` below the directory `root`; the unlink of [`Operation::UnlinkOpen`] goes through
/// `other`, which is the same file system seen from elsewhere.
#[must_use]
pub fn replay(root: &Path, other: &Path, operation: &Operation) -> Outcome {
    run(root, other, operation)
        .unwrap_or_else(|error| Outcome::Failed(Errno::from_raw(error.raw_os_error().unwrap_or(0))))
}

fn run(root: &Path, other: &Path, operation: &Operation) -> io::Result<Outcome> {
    let at = |path: &str| root.join(path);
    match operation {
        Operation::Create {
            path,
            exclusive,
            truncate,
        } => {
            let mut options = OpenOptions::new();
            options
                .write(true)
                .create(!exclusive)
                .create_new(*exclusive);
            options.truncate(*truncate && !exclusive).open(at(path))?;
        }
        Operation::Write {
            path,
            offset,
            data,
            sync,
        } => {
            let file = OpenOptions::new().write(true).open(at(path))?;
            file.write_all_at(&data.bytes(), *offset)?;
            if *sync {
                file.sync_all()?;
            }
        }
        Operation::Append { path, data } => {
            OpenOptions::new()
                .append(true)
                .open(at(path))?
                .write_all(&data.bytes())?;
        }
        Operation::Read {
            path,
            offset,
            length,
        } => {
            return read(&at(path), *offset, *length).map(Outcome::Bytes);
        }
        Operation::Truncate { path, size } => {
            let size = i64::try_from(*size).map_err(io::Error::other)?;
            nix::unistd::truncate(&at(path), size)?;
        }
        Operation::Rename { from, to } => {
            // As mv(1) does. Without it, a rename between directories may fail with ESTALE where
            // another mount has moved the directory that is replaced: the kernel finds out while it
            // holds the lock that it needs to move its own entry (see docs/SEMANTICS.md).
            for path in [from, to] {
                let _ = std::fs::symlink_metadata(at(path));
            }
            std::fs::rename(at(from), at(to))?;
        }
        Operation::Unlink { path } => nix::unistd::unlink(&at(path))?,
        Operation::UnlinkOpen { path, data } => {
            return unlink_open(&at(path), &other.join(path), &data.bytes()).map(Outcome::Bytes);
        }
        Operation::MakeDirectory { path, mode } => {
            std::fs::create_dir(at(path))?;
            set_mode(&at(path), *mode)?;
        }
        Operation::RemoveDirectory { path } => std::fs::remove_dir(at(path))?,
        Operation::List { path } => return list(&at(path)).map(Outcome::Names),
        Operation::Link { from, to } => std::fs::hard_link(at(from), at(to))?,
        Operation::Symlink { target, path } => std::os::unix::fs::symlink(target, at(path))?,
        Operation::ReadLink { path } => {
            let target = std::fs::read_link(at(path))?;
            return Ok(Outcome::Bytes(target.into_os_string().into_encoded_bytes()));
        }
        Operation::Chmod { path, mode } => set_mode(&at(path), *mode)?,
        Operation::SetTimes {
            path,
            seconds,
            nanoseconds,
        } => {
            let time = TimeSpec::new(*seconds, i64::from(*nanoseconds));
            let flags = UtimensatFlags::FollowSymlink;
            utimensat(AT_FDCWD, &at(path), &time, &time, flags)?;
        }
        Operation::SetXattr { path, name, data } => xattr::set(at(path), name, &data.bytes())?,
        Operation::GetXattr { path, name } => {
            let value = xattr::get(at(path), name)?;
            return value
                .map(Outcome::Bytes)
                .ok_or_else(|| Errno::ENODATA.into());
        }
        Operation::ListXattr { path } => return list_xattr(&at(path)).map(Outcome::Names),
        Operation::RemoveXattr { path, name } => xattr::remove(at(path), name)?,
        Operation::Stat { path } => return stat(&at(path)).map(Outcome::Stat),
    }
    Ok(Outcome::Done)
}

fn read(path: &Path, offset: u64, length: usize) -> io::Result<Vec<u8>> {
    // Opened for both, so that a directory fails here as it does in the model.
    let mut file = OpenOptions::new().read(true).write(true).open(path)?;
    file.seek(SeekFrom::Start(offset))?;
    let mut bytes = Vec::new();
    file.take(length as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn unlink_open(path: &Path, other: &Path, data: &[u8]) -> io::Result<Vec<u8>> {
    let file = OpenOptions::new().read(true).append(true).open(path)?;
    nix::unistd::unlink(other)?;
    (&file).write_all(data)?;
    let mut bytes = Vec::new();
    let mut reader = &file;
    reader.seek(SeekFrom::Start(0))?;
    reader.read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
}

fn list(path: &Path) -> io::Result<Vec<(String, Kind)>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(path)? {
        let entry = entry?;
        names.push((text(entry.file_name())?, kind(entry.file_type()?)));
    }
    names.sort();
    Ok(names)
}

fn list_xattr(path: &Path) -> io::Result<Vec<(String, Kind)>> {
    let mut names = Vec::new();
    for name in xattr::list(path)? {
        let name = text(name)?;
        // The layout's own attributes are no business of the model's.
        if name.starts_with("user.") && !name.starts_with("user.pvfs.") {
            names.push((name, Kind::File));
        }
    }
    names.sort();
    Ok(names)
}

fn text(name: std::ffi::OsString) -> io::Result<String> {
    name.into_string()
        .map_err(|name| io::Error::other(format!("{name:?} is not UTF-8")))
}

fn kind(file_type: std::fs::FileType) -> Kind {
    if file_type.is_dir() {
        Kind::Directory
    } else if file_type.is_symlink() {
        Kind::Link
    } else {
        Kind::File
    }
}

fn stat(path: &Path) -> io::Result<Stat> {
    let metadata = std::fs::symlink_metadata(path)?;
    let kind = kind(metadata.file_type());
    Ok(Stat {
        kind,
        size: if kind == Kind::Directory {
            0
        } else {
            metadata.len()
        },
        mode: if kind == Kind::Link {
            0
        } else {
            metadata.mode() & 0o7777
        },
        links: metadata.nlink(),
        modified: Some((
            metadata.mtime(),
            u32::try_from(metadata.mtime_nsec()).unwrap_or(0),
        )),
    })
}

/// Whether the real outcome is what the model says; a time that the model does not know is any.
#[must_use]
pub fn agree(expected: &Outcome, found: &Outcome) -> bool {
    match (expected, found) {
        (Outcome::Stat(expected), Outcome::Stat(found)) => {
            let modified = expected.modified.or(found.modified);
            Stat {
                modified,
                ..*expected
            } == *found
        }
        (expected, found) => expected == found,
    }
}

/// An outcome in one line: long content is shortened, and the first difference is named.
#[must_use]
pub fn describe(expected: &Outcome, found: &Outcome) -> String {
    if let (Outcome::Bytes(expected), Outcome::Bytes(found)) = (expected, found) {
        let at = expected.iter().zip(found).position(|(a, b)| a != b);
        let at = at.unwrap_or_else(|| expected.len().min(found.len()));
        return format!(
            "expected {} bytes, found {}; the first difference is at byte {at}: {:02x?} and {:02x?}",
            expected.len(),
            found.len(),
            expected.get(at..(at + 8).min(expected.len())),
            found.get(at..(at + 8).min(found.len())),
        );
    }
    let mut text = format!("expected {expected:?}, found {found:?}");
    text.truncate(
        text.char_indices()
            .nth(2000)
            .map_or(text.len(), |(at, _)| at),
    );
    text
}

/// Compares everything that `model` holds with what is below `root`.
///
/// # Errors
///
/// The first difference.
pub fn compare_all(root: &Path, model: &mut Model) -> anyhow::Result<()> {
    let mut questions = vec![Operation::List {
        path: String::new(),
    }];
    let directories = model.directories();
    for path in model.paths() {
        questions.push(Operation::Stat { path: path.clone() });
        if directories.contains(&path) {
            questions.push(Operation::List { path });
        } else if std::fs::symlink_metadata(root.join(&path)).is_ok_and(|m| m.is_symlink()) {
            questions.push(Operation::ReadLink { path });
        } else {
            questions.push(Operation::ListXattr { path: path.clone() });
            questions.push(Operation::Read {
                path,
                offset: 0,
                length: 1 << 30,
            });
        }
    }
    for question in questions {
        let expected = model.apply(&question);
        let found = replay(root, root, &question);
        anyhow::ensure!(
            agree(&expected, &found),
            "{}: {question:?}: {}",
            root.display(),
            describe(&expected, &found)
        );
    }
    Ok(())
}

/// Runs `count` operations drawn from `seed`, in turn below each of `roots`, which are the same file
/// system seen from several places. Returns how many succeeded; the others failed as they should.
///
/// # Errors
///
/// The first disagreement, with what is needed to see it again.
pub fn run_random(
    roots: &[PathBuf],
    model: &mut Model,
    seed: u64,
    count: usize,
) -> anyhow::Result<usize> {
    let mut succeeded = 0;
    let mut recent = VecDeque::new();
    let mut rng = fastrand::Rng::with_seed(seed);
    for number in 0..count {
        let operation = draw::operation(&mut rng, model);
        let (at, other_at) = (rng.usize(0..roots.len()), rng.usize(0..roots.len()));
        let (Some(root), Some(other)) = (roots.get(at), roots.get(other_at)) else {
            anyhow::bail!("no directory to run in");
        };
        let expected = model.apply(&operation);
        let found = replay(root, other, &operation);
        anyhow::ensure!(
            agree(&expected, &found),
            "seed {seed}, operation {number}, through {} (and {}): {operation:?}\n{}\nbefore it:\n{}",
            root.display(),
            other.display(),
            describe(&expected, &found),
            Vec::from(recent).join("\n")
        );
        if recent.len() == RECENT_MAX {
            recent.pop_front();
        }
        recent.push_back(format!("{number} through {at}, {other_at}: {operation:?}"));
        succeeded += usize::from(!matches!(expected, Outcome::Failed(_)));
    }
    Ok(succeeded)
}
