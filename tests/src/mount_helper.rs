// SPDX-License-Identifier: MIT
//! `/sbin/mount.fuse.pvfs`, as an installation has it.
//!
//! Tests that need it run side by side, in several processes: whoever finds it missing makes it, and
//! the last one takes it away.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::symlink;

use anyhow::Context;
use nix::fcntl::{Flock, FlockArg};

use crate::programs;

const HELPER: &str = "/sbin/mount.fuse.pvfs";
/// Held shared by each test that needs the helper while it does.
const USERS: &str = "/run/cssns-test-mount-helper";

/// The helper, there until this is dropped.
#[derive(Debug)]
pub struct MountHelper {
    users: Option<Flock<File>>,
    ours: bool,
}

impl MountHelper {
    /// Makes it where it is missing.
    ///
    /// # Errors
    ///
    /// Where it cannot be made.
    pub fn install() -> anyhow::Result<Self> {
        let open = || File::create(USERS).context(USERS);
        let users = Flock::lock(open()?, FlockArg::LockShared).map_err(|(_, errno)| errno)?;
        let program = programs::find("pvfs-fuse")?;
        let ours = match symlink(&program, HELPER) {
            Ok(()) => true,
            // What another test left or uses is a link to a program of a test.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                fs::read_link(HELPER).is_ok_and(|target| target == program)
            }
            Err(error) => return Err(error).context(HELPER),
        };
        Ok(Self {
            users: Some(users),
            ours,
        })
    }
}

impl Drop for MountHelper {
    fn drop(&mut self) {
        drop(self.users.take());
        let Ok(file) = File::create(USERS) else {
            return;
        };
        // Whoever still uses it takes it away later.
        if let Ok(_alone) = Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            if self.ours {
                let _ = fs::remove_file(HELPER);
            }
        }
    }
}
