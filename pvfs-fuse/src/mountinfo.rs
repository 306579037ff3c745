// SPDX-License-Identifier: MIT
//! Finding a mount in /proc/self/mountinfo (proc(5)), and waiting for it to go. A stat(2) of the
//! mount point would be a request to ourselves.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

const MOUNTINFO: &str = "/proc/self/mountinfo";

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

/// The device mounted on top at `mountpoint`, an absolute path without symbolic links.
///
/// # Errors
///
/// Where the table cannot be read.
pub fn device_at(mountpoint: &Path) -> io::Result<Option<Device>> {
    Ok(find_device(
        &std::fs::read_to_string(MOUNTINFO)?,
        mountpoint,
    ))
}

/// Whether no mount of `device` is in this mount namespace.
///
/// # Errors
///
/// Where the table cannot be read.
pub fn is_gone(device: &Device) -> io::Result<bool> {
    Ok(!has_device(&std::fs::read_to_string(MOUNTINFO)?, device))
}

/// Returns when no mount of `device` is left in this mount namespace.
///
/// # Errors
///
/// Where the table cannot be read.
pub fn wait_until_gone(device: &Device) -> io::Result<()> {
    let mut table = File::open(MOUNTINFO)?;
    loop {
        let mut text = String::new();
        table.rewind()?;
        table.read_to_string(&mut text)?;
        if !has_device(&text, device) {
            return Ok(());
        }
        // The kernel marks the file when the table has changed since it was read.
        let mut polled = [PollFd::new(table.as_fd(), PollFlags::POLLPRI)];
        match poll(&mut polled, PollTimeout::NONE) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// The device of the last, so topmost, mount at `mountpoint`.
fn find_device(table: &str, mountpoint: &Path) -> Option<Device> {
    let wanted = mountpoint.as_os_str().as_bytes();
    let mut found = None;
    for line in table.lines() {
        let mut fields = line.split(' ').skip(2);
        if let (Some(device), Some(path)) = (fields.next(), fields.nth(1)) {
            if unescape(path) == wanted {
                found = Some(Device(device.to_owned()));
            }
        }
    }
    found
}

fn has_device(table: &str, device: &Device) -> bool {
    table
        .lines()
        .any(|line| line.split(' ').nth(2) == Some(device.as_str()))
}

/// Undoes the table's escapes: space, tab, newline, backslash and `#` as `\` and three octal digits.
fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let escape = after.get(..3).filter(|_| *first == b'\\');
        let code = escape
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code {
            Some(byte) => {
                bytes.push(byte);
                rest = after.get(3..).unwrap_or_default();
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
90 22 0:50 / /mnt/a\\040b rw - fuse.pvfs node1:/ rw,user_id=0
91 22 0:51 / /mnt/a rw - fuse.pvfs node1:/ rw
92 91 0:52 / /mnt/a rw - fuse.pvfs node2:/ rw
";

    #[test]
    fn the_topmost_mount_is_found() {
        let found = |path: &str| find_device(TABLE, Path::new(path)).map(|device| device.0);
        assert_eq!(found("/mnt/a").as_deref(), Some("0:52"));
        assert_eq!(found("/mnt/a b").as_deref(), Some("0:50"));
        assert_eq!(found("/mnt"), None);
        assert!(has_device(TABLE, &Device("0:51".into())));
        assert!(!has_device(TABLE, &Device("0:5".into())));
    }

    #[test]
    fn escapes_are_undone_and_other_backslashes_stay() {
        assert_eq!(unescape("a\\040b\\134c"), b"a b\\c");
        assert_eq!(unescape("a\\99"), b"a\\99");
        assert_eq!(unescape("\\"), b"\\");
    }

    #[test]
    fn this_machine_has_a_root() {
        assert!(device_at(Path::new("/")).unwrap().is_some());
    }
}
