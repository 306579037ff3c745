// SPDX-License-Identifier: MIT
//! On whose behalf the kernel asks.
//!
//! A FUSE request carries a user, a group and a thread, but no supplementary groups. They are read
//! from /proc, and only where mgr denies a request without them or where they decide its outcome.

use std::fs::File;
use std::io::Read;

use pvfs::attr::Credentials;
use pvfs::client::interrupt;
use pvfs::limits::GROUPS_MAX;

use super::calling_thread::{self, Interruption};

/// /proc/PID/status is some 1.5 KiB and 11 bytes for each of up to 65,536 groups: what lies beyond
/// the groups that a request can carry is not read.
const STATUS_BYTES_MAX: u64 = 32 << 10;

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Effective user id.
    pub uid: u32,
    /// Effective group id.
    pub gid: u32,
    /// Thread id in this process's namespace; 0 where it has none.
    pub pid: u32,
}

impl Caller {
    /// The superuser, for what the kernel has decided already.
    pub(super) const ROOT: Self = Self {
        uid: 0,
        gid: 0,
        pid: 0,
    };

    /// What the request itself says.
    pub(super) const fn credentials(self) -> Credentials {
        Credentials {
            uid: self.uid,
            gid: self.gid,
            groups: Vec::new(),
        }
    }

    /// Does `work` for this caller, until a signal is about to end it.
    pub fn serve<T>(self, work: impl FnOnce() -> T) -> T {
        let look =
            move || self.pid != 0 && calling_thread::is_interrupted(self.pid, Interruption::Fatal);
        interrupt::on_behalf_of(look, work)
    }

    /// With supplementary groups; `None` where there are none or they cannot be known.
    pub(super) fn credentials_with_groups(self) -> Option<Credentials> {
        if self.pid == 0 {
            return None;
        }
        let mut status = String::new();
        let file = File::open(format!("/proc/{}/status", self.pid)).ok()?;
        file.take(STATUS_BYTES_MAX)
            .read_to_string(&mut status)
            .ok()?;
        let groups = parse_groups(&status)?;
        if groups.is_empty() {
            None
        } else {
            Some(Credentials {
                groups,
                ..self.credentials()
            })
        }
    }
}

/// The groups in the text of /proc/PID/status, at most as many as a request may carry.
fn parse_groups(status: &str) -> Option<Vec<u32>> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("Groups:"))?;
    // A number that the limit of the text cut in half is a smaller number: without the line's end,
    // the last one is not to be trusted.
    let complete = status.contains(&format!("{line}\n"));
    let mut groups: Vec<u32> = line
        .split_ascii_whitespace()
        .map_while(|word| word.parse().ok())
        .collect();
    if !complete {
        groups.pop();
    }
    groups.truncate(GROUPS_MAX);
    Some(groups)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_found() {
        let status = "Name:\tcat\nUid:\t0\t0\t0\t0\nGroups:\t4 27 1000 \nNStgid:\t1\n";
        assert_eq!(parse_groups(status), Some(vec![4, 27, 1000]));
        assert_eq!(parse_groups("Groups:\t \nX:\n"), Some(vec![]));
        assert_eq!(parse_groups("Name:\tcat\n"), None);
    }

    #[test]
    fn a_cut_line_loses_its_last_number() {
        assert_eq!(parse_groups("Groups:\t4 27 10"), Some(vec![4, 27]));
    }

    #[test]
    fn their_number_is_bounded() {
        let many: Vec<String> = (0..GROUPS_MAX + 10).map(|gid| gid.to_string()).collect();
        let status = format!("Groups:\t{}\n", many.join(" "));
        assert_eq!(parse_groups(&status).unwrap().len(), GROUPS_MAX);
    }

    #[test]
    fn this_process_has_a_status() {
        let caller = Caller {
            uid: 1,
            gid: 2,
            pid: std::process::id(),
        };
        let own = nix::unistd::getgroups().unwrap();
        let found = caller
            .credentials_with_groups()
            .map_or(0, |with| with.groups.len());
        assert_eq!(found, own.len());
        assert_eq!(Caller { pid: 0, ..caller }.credentials_with_groups(), None);
    }
}
