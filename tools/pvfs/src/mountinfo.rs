// SPDX-License-Identifier: MIT
//! The kernel's table of mounts, `/proc/self/mountinfo` of proc(5), and the question on which mount
//! a path lies.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// The type under which a PVFS mount appears.
pub const PVFS_TYPE: &str = "fuse.pvfs";

/// One mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Where it is mounted.
    pub point: PathBuf,
    /// File system type with its subtype.
    pub fs_type: String,
    /// What is mounted, as the file system says it.
    pub source: String,
}

impl Mount {
    /// Whether this is a PVFS file system.
    pub fn is_pvfs(&self) -> bool {
        self.fs_type == PVFS_TYPE
    }
}

/// The mounts that this process sees, in mount order.
///
/// # Errors
///
/// As reading `/proc/self/mountinfo`.
pub fn read() -> io::Result<Vec<Mount>> {
    Ok(parse(&std::fs::read("/proc/self/mountinfo")?))
}

/// Parses the table; lines of another form are skipped, since the kernel may add forms.
pub fn parse(table: &[u8]) -> Vec<Mount> {
    table
        .split(|&byte| byte == b'\n')
        .filter_map(parse_line)
        .collect()
}

/// `36 35 98:0 /root /point options [optional fields] - type source options`
fn parse_line(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|&byte| byte == b' ');
    let point = fields.nth(4)?;
    let mut after = fields.skip_while(|field| *field != b"-").skip(1);
    let fs_type = after.next()?;
    let source = after.next()?;
    Some(Mount {
        point: PathBuf::from(OsString::from_vec(unescape(point))),
        fs_type: String::from_utf8_lossy(fs_type).into_owned(),
        source: String::from_utf8_lossy(&unescape(source)).into_owned(),
    })
}

/// Undoes the kernel's `\ooo` for space, tab, newline and backslash.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, tail)) = rest.split_first() {
        match (first, tail) {
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', tail @ ..]) => {
                plain.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                rest = tail;
            }
            (byte, tail) => {
                plain.push(byte);
                rest = tail;
            }
        }
    }
    plain
}

/// The mount on which `path`, absolute and without symbolic links, lies: the deepest mount point
/// above it, and the latest where several are mounted over each other.
pub fn containing<'a>(mounts: &'a [Mount], path: &Path) -> Option<&'a Mount> {
    mounts
        .iter()
        .filter(|mount| path.starts_with(&mount.point))
        .max_by_key(|mount| mount.point.as_os_str().as_bytes().len())
}

/// The mount whose mount point is `point` itself, the latest where there are several.
pub fn at<'a>(mounts: &'a [Mount], point: &Path) -> Option<&'a Mount> {
    mounts.iter().rev().find(|mount| mount.point == point)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[u8] = b"\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n\
40 22 0:35 / /mnt/a rw,nosuid master:1 propagate_from:2 - fuse.pvfs node1:3000:/ rw\n\
41 22 0:36 / /mnt/with\\040space rw - fuse.pvfs [::1]:5:/ rw\n\
42 40 0:37 / /mnt/a/deep rw - tmpfs tmpfs rw\n\
43 22 0:38 / /mnt/a rw - tmpfs over rw\n\
not a line\n";

    #[test]
    fn parses_what_the_kernel_writes() {
        let mounts = parse(TABLE);
        assert_eq!(mounts.len(), 5);
        assert_eq!(mounts[1].source, "node1:3000:/");
        assert!(mounts[1].is_pvfs());
        assert_eq!(mounts[2].point, Path::new("/mnt/with space"));
        assert_eq!(unescape(b"a\\134b\\04"), b"a\\b\\04");
    }

    #[test]
    fn finds_the_mount_of_a_path() {
        let mounts = parse(TABLE);
        let source = |path: &str| containing(&mounts, Path::new(path)).unwrap().source.clone();
        assert_eq!(source("/etc/fstab"), "/dev/vda");
        assert_eq!(source("/mnt/ab"), "/dev/vda");
        assert_eq!(source("/mnt/a/f"), "over");
        assert_eq!(source("/mnt/a/deep/f"), "tmpfs");
        assert_eq!(source("/mnt/with space"), "[::1]:5:/");
        assert_eq!(at(&mounts, Path::new("/mnt/a")).unwrap().source, "over");
        assert_eq!(at(&mounts, Path::new("/mnt")), None);
    }

    #[test]
    fn this_machine_has_a_root() {
        assert!(containing(&read().unwrap(), Path::new("/")).is_some());
    }
}
