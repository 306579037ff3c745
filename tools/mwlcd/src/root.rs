// SPDX-License-Identifier: MIT
//! Sizes of files below a directory, as a web server that has it for its root would send them.
//!
//! A path comes from a client. The kernel resolves it (`openat2` with `RESOLVE_BENEATH`), so neither
//! `..` nor a symbolic link leads out of the root, and nothing is opened for reading.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::{FileStat, SFlag, fstat};

/// A root.
#[derive(Debug)]
pub struct Root {
    directory: File,
    indices: Vec<String>,
}

impl Root {
    /// A root, which is a directory; `indices` are the files that are sent for a directory.
    pub fn open(path: &Path, indices: &[String]) -> io::Result<Root> {
        let directory = File::open(path)?;
        if !directory.metadata()?.is_dir() {
            return Err(io::Error::from(io::ErrorKind::NotADirectory));
        }
        Ok(Root {
            directory,
            indices: indices.to_vec(),
        })
    }

    /// How many bytes a server sends for this path, which begins with `/`; `None` if the path is no
    /// file that can be looked at, so that a server may send anything.
    pub fn size(&self, path: &[u8]) -> Option<u64> {
        let path = path.strip_prefix(b"/")?;
        let is_directory = path.is_empty() || path.ends_with(b"/");
        if is_directory {
            let directory = PathBuf::from(OsStr::from_bytes(path));
            return self
                .indices
                .iter()
                .find_map(|index| self.file(&directory.join(index)));
        }
        let path = Path::new(OsStr::from_bytes(path));
        let found = self.look(path)?;
        match kind(&found) {
            SFlag::S_IFREG => u64::try_from(found.st_size).ok(),
            // The client is sent to the same name with a `/`: a few bytes.
            SFlag::S_IFDIR => Some(0),
            _ => None,
        }
    }

    fn file(&self, path: &Path) -> Option<u64> {
        let found = self.look(path)?;
        if kind(&found) != SFlag::S_IFREG {
            return None;
        }
        u64::try_from(found.st_size).ok()
    }

    fn look(&self, path: &Path) -> Option<FileStat> {
        let how = OpenHow::new()
            .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        let found = openat2(&self.directory, path, how).and_then(fstat);
        match found {
            Ok(found) => Some(found),
            Err(Errno::ENOENT | Errno::ENOTDIR) => None,
            Err(error) => {
                tracing::debug!("{}: {error}", path.display());
                None
            }
        }
    }
}

fn kind(found: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(found.st_mode) & SFlag::S_IFMT
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    fn root(indices: &[&str]) -> (tempfile::TempDir, Root) {
        let outside = tempfile::tempdir().unwrap();
        let top = outside.path().join("www");
        fs::create_dir_all(top.join("sub/empty")).unwrap();
        fs::write(outside.path().join("secret"), b"12345").unwrap();
        fs::write(top.join("a"), b"1234567").unwrap();
        fs::write(top.join("sub/index.html"), b"123").unwrap();
        fs::write(top.join("odd name%?#"), b"1").unwrap();
        symlink("a", top.join("inside")).unwrap();
        symlink("../secret", top.join("up")).unwrap();
        symlink(outside.path().join("secret"), top.join("absolute")).unwrap();
        let indices: Vec<String> = indices.iter().map(|name| (*name).to_owned()).collect();
        let root = Root::open(&top, &indices).unwrap();
        (outside, root)
    }

    #[test]
    fn files_have_their_sizes_and_directories_their_index() {
        let (_directory, root) = root(&["index.php", "index.html"]);
        for (path, size) in [
            ("/a", Some(7)),
            ("/inside", Some(7)),
            ("/odd name%?#", Some(1)),
            ("/sub/", Some(3)),
            ("/sub", Some(0)),
            ("/", None),
            ("/sub/empty/", None),
            ("/nothing", None),
            ("/a/", None),
            ("/a/b", None),
        ] {
            assert_eq!(root.size(path.as_bytes()), size, "{path}");
        }
        assert_eq!(root.size(b"/nul\0"), None);
        assert_eq!(root.size(b"a"), None);
    }

    #[test]
    fn nothing_leads_out_of_the_root() {
        let (_directory, root) = root(&["index.html"]);
        for path in [
            "/../secret",
            "/up",
            "/absolute",
            "/sub/../../secret",
            "/../www/a",
        ] {
            assert_eq!(root.size(path.as_bytes()), None, "{path}");
        }
    }

    #[test]
    fn a_root_is_a_directory() {
        let (directory, _root) = root(&[]);
        let file = directory.path().join("secret");
        assert!(Root::open(&file, &[]).is_err());
        assert!(Root::open(&directory.path().join("nothing"), &[]).is_err());
    }
}
