// SPDX-License-Identifier: MIT
//! What the disk under the data directory can still take.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::OnceLock;

use nix::sys::statvfs::{FsFlags, statvfs};
use pvfs::attr::Space;
use pvfs::proto::report::{DiskId, IodReport};

/// Changes with each start of the machine's kernel; containers see that of their host.
const BOOT_ID_PATH: &str = "/proc/sys/kernel/random/boot_id";

/// The running kernel's identity; `None` where /proc does not tell.
fn boot_id() -> Option<u128> {
    static BOOT_ID: OnceLock<Option<u128>> = OnceLock::new();
    *BOOT_ID.get_or_init(|| {
        let text = fs::read_to_string(BOOT_ID_PATH).ok()?;
        u128::from_str_radix(&text.trim().replace('-', ""), 16).ok()
    })
}

/// Space, inodes and state of the file system that holds `path`.
pub fn report(path: &Path) -> io::Result<IodReport> {
    let disk = statvfs(path)?;
    let device = fs::metadata(path)?.dev();
    let bytes = |blocks: u64| blocks.saturating_mul(disk.fragment_size());
    Ok(IodReport {
        space: Space {
            bytes_total: bytes(disk.blocks()),
            bytes_free: bytes(disk.blocks_free()),
            bytes_available: bytes(disk.blocks_available()),
        },
        // Btrfs and the like say 0 of 0: they make inodes as long as there is space.
        inodes_total: disk.files(),
        inodes_free: disk.files_available(),
        writable: !disk.flags().contains(FsFlags::ST_RDONLY),
        disk: boot_id().map(|boot| DiskId { boot, device }),
    })
}
