// SPDX-License-Identifier: MIT
//! The kernel's table of mounts, `/proc/self/mountinfo` of proc(5): which mount a path lies on, and
//! when a mount goes. A stat(2) of a mount point would be a request to its file system.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::fd::AsFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// The type under which a PVFS mount appears.
pub const PVFS_TYPE: &str = "fuse.pvfs";
const TABLE: &str = "/proc/self/mountinfo";

/// Device number of a mount: `MAJOR:MINOR`, as sysfs writes it too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device(String);

impl Device {
    /// As sysfs names it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The part that tells one FUSE connection from another: its number under fusectl.
    #[must_use]
    pub fn minor(&self) -> &str {
        self.0.rsplit_once(':').map_or("", |(_, minor)| minor)
    }
}

/// One mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Which file system.
    pub device: Device,
    /// Where it is mounted.
    pub point: PathBuf,
    /// File system type with its subtype.
    pub fs_type: String,
    /// What is mounted, as the file system says it.
    pub source: String,
}

impl Mount {
    /// Whether this is a PVFS file system.
    #[must_use]
    pub fn is_pvfs(&self) -> bool {
        self.fs_type == PVFS_TYPE
    }
}

/// The mounts that this process sees, in mount order.
///
/// # Errors
///
/// Where the table cannot be read.
pub fn read() -> io::Result<Vec<Mount>> {
    Ok(parse(&std::fs::read(TABLE)?))
}

/// Parses the table; lines of another form are skipped, since the kernel may add forms.
#[must_use]
pub fn parse(table: &[u8]) -> Vec<Mount> {
    table
        .split(|&byte| byte == b'\n')
        .filter_map(parse_line)
        .collect()
}

/// `36 35 98:0 /root /point options [optional fields] - type source options`
fn parse_line(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|&byte| byte == b' ');
    let device = fields.nth(2)?;
    let point = fields.nth(1)?;
    let mut after = fields.skip_while(|field| *field != b"-").skip(1);
    let fs_type = after.next()?;
    let source = after.next()?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Some(Mount {
        device: Device(text(device)),
        point: PathBuf::from(OsString::from_vec(unescape(point))),
        fs_type: text(fs_type),
        source: text(&unescape(source)),
    })
}

/// Undoes the kernel's `\ooo` for space, tab, newline, backslash and `#`.
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
#[must_use]
pub fn containing<'a>(mounts: &'a [Mount], path: &Path) -> Option<&'a Mount> {
    mounts
        .iter()
        .filter(|mount| path.starts_with(&mount.point))
        .max_by_key(|mount| mount.point.as_os_str().as_bytes().len())
}

/// The mount whose mount point is `point` itself, the latest where there are several.
#[must_use]
pub fn at<'a>(mounts: &'a [Mount], point: &Path) -> Option<&'a Mount> {
    mounts.iter().rev().find(|mount| mount.point == point)
}

/// The device mounted on top at `point`, an absolute path without symbolic links.
///
/// # Errors
///
/// Where the table cannot be read.
pub fn device_at(point: &Path) -> io::Result<Option<Device>> {
    Ok(at(&read()?, point).map(|mount| mount.device.clone()))
}

/// Whether no mount of `device` is in this mount namespace.
///
/// # Errors
///
/// Where the table cannot be read.
pub fn is_gone(device: &Device) -> io::Result<bool> {
    Ok(!has(&read()?, device))
}

/// Returns when no mount of `device` is left in this mount namespace.
///
/// # Errors
///
/// Where the table cannot be read.
pub fn wait_until_gone(device: &Device) -> io::Result<()> {
    let mut table = File::open(TABLE)?;
    loop {
        let mut text = Vec::new();
        table.rewind()?;
        table.read_to_end(&mut text)?;
        if !has(&parse(&text), device) {
            return Ok(());
        }
        // The kernel marks the file when the table has changed since it was read.
        let mut polled = [PollFd::new(table.as_fd(), PollFlags::POLLPRI)];
        match poll(&mut polled, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn has(mounts: &[Mount], device: &Device) -> bool {
    mounts.iter().any(|mount| mount.device == *device)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOME: &[u8] = b"\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n\
40 22 0:35 / /mnt/a rw,nosuid master:1 propagate_from:2 - fuse.pvfs node1:3000:/ rw\n\
41 22 0:36 / /mnt/with\\040space rw - fuse.pvfs [::1]:5:/ rw\n\
42 40 0:37 / /mnt/a/deep rw - tmpfs tmpfs rw\n\
43 22 0:38 / /mnt/a rw - tmpfs over rw\n\
not a line\n";

    #[test]
    fn parses_what_the_kernel_writes() {
        let mounts = parse(SOME);
        assert_eq!(mounts.len(), 5);
        assert_eq!(mounts[1].source, "node1:3000:/");
        assert_eq!(mounts[1].device.as_str(), "0:35");
        assert_eq!(mounts[1].device.minor(), "35");
        assert!(mounts[1].is_pvfs());
        assert_eq!(mounts[2].point, Path::new("/mnt/with space"));
    }

    #[test]
    fn escapes_are_undone_and_other_backslashes_stay() {
        assert_eq!(unescape(b"a\\040b\\134c"), b"a b\\c");
        assert_eq!(unescape(b"a\\99"), b"a\\99");
        assert_eq!(unescape(b"b\\04"), b"b\\04");
        assert_eq!(unescape(b"\\"), b"\\");
    }

    #[test]
    fn finds_the_mount_of_a_path() {
        let mounts = parse(SOME);
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
    fn a_device_is_there_while_any_mount_has_it() {
        let mounts = parse(SOME);
        assert!(has(&mounts, &Device("0:35".into())));
        assert!(!has(&mounts, &Device("0:3".into())));
    }

    #[test]
    fn this_machine_has_a_root() {
        assert!(containing(&read().unwrap(), Path::new("/")).is_some());
        assert!(device_at(Path::new("/")).unwrap().is_some());
    }
}
