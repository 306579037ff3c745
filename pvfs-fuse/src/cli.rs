// SPDX-License-Identifier: MIT
//! Command lines: pvfs-fuse's own, and that of a helper of mount(8).

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use pvfs::address::MountSource;
use pvfs::log_filter::LogFilter;

use crate::options::MountOptions;

/// mount(8)'s exit status for a mount that failed.
pub const MOUNT_FAILURE: u8 = 32;
/// mount(8)'s exit status for a wrong command line.
pub const USAGE_FAILURE: u8 = 1;

/// In which process and for how long the mount runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// In this process, until it is unmounted.
    Foreground,
    /// In a process of its own; this one ends when the mount is usable.
    Background,
    /// This is that process.
    Detached,
    /// Not at all: mount(8) wants to know whether the helper would.
    Fake,
}

/// What to mount, and how.
#[derive(Clone, Debug)]
pub struct Arguments {
    /// mgr.
    pub source: MountSource,
    /// Directory.
    pub mountpoint: PathBuf,
    /// After `-o`, as written.
    pub option_texts: Vec<String>,
    /// The same, understood.
    pub options: MountOptions,
    /// Where it runs, and for how long.
    pub how: How,
    /// Log level.
    pub log: LogFilter,
}

/// Mounts a PVFS file system.
#[derive(Parser, Debug)]
#[command(name = "pvfs-fuse", version, after_help = OPTIONS_HELP)]
struct Own {
    /// mgr: HOST[:PORT]:/
    source: MountSource,
    /// Directory to mount on
    mountpoint: PathBuf,
    /// Mount options, comma-separated
    #[arg(short = 'o', value_name = "OPTIONS")]
    options: Vec<String>,
    /// Stay in the foreground; prints `ready MOUNTPOINT` when usable
    #[arg(short = 'f', long)]
    foreground: bool,
    /// What to log: error, warn, info, debug, trace, off, or MODULE=LEVEL, with commas between several
    #[arg(long, env = "PVFS_LOG", default_value = "info", value_name = "LEVEL")]
    log: LogFilter,
    /// Detach from the terminal when usable (how the background process is started)
    #[arg(long, hide = true)]
    detached: bool,
}

const OPTIONS_HELP: &str = "\
Mount options:
  ro, noexec, noatime, sync, dirsync   as mount(8) has them
  allow_suid, allow_dev        let set-uid programs and device nodes work (default nosuid, nodev);
                               suid, dev do too where mount(8) passes them on (2.39 and later)
  allow_other, noallow_other   other users may use the mount (default where root mounts)
  actimeo=SECONDS              keep names and attributes so long (default 0: always exact)
  direct_io                    bypass the page cache
  mount_timeout=SECONDS        wait so long for mgr when mounting (default 30)
  threads=N                    requests handled at a time (default 16)
  read_ahead_kb=N              readahead (default 8192)
  remount                      change the flags of the first three lines, of a mount that is there
Those of mount(8) and systemd (_netdev, nofail, user, x-*) are ignored.

In the background, messages go to the system log. `umount DIR` ends the mount and its process.";

/// Called by mount(8): SOURCE DIRECTORY [-sfnv] [-N namespace] [-o options] [-t type].
#[derive(Parser, Debug)]
#[command(name = "mount.fuse.pvfs", version, after_help = OPTIONS_HELP)]
struct Helper {
    /// mgr: HOST[:PORT]:/
    source: MountSource,
    /// Directory to mount on
    mountpoint: PathBuf,
    /// Ignore unknown mount options
    #[arg(short = 's')]
    sloppy: bool,
    /// Do everything but the mount
    #[arg(short = 'f')]
    fake: bool,
    /// Do not write /etc/mtab (nobody does)
    #[arg(short = 'n')]
    no_mtab: bool,
    /// Say more
    #[arg(short = 'v')]
    verbose: bool,
    /// Mount namespace; mount(8) is in it already
    #[arg(short = 'N', value_name = "NAMESPACE")]
    namespace: Option<OsString>,
    /// File system type, which is known
    #[arg(short = 't', value_name = "TYPE")]
    kind: Option<OsString>,
    /// Mount options, comma-separated
    #[arg(short = 'o', value_name = "OPTIONS")]
    options: Vec<String>,
}

/// Understands the command line, or prints what is wrong with it and returns the exit status.
///
/// # Errors
///
/// The exit status; 0 after `--help` and `--version`.
pub fn parse(words: impl IntoIterator<Item = OsString>) -> Result<Arguments, ExitCode> {
    let words: Vec<OsString> = words.into_iter().collect();
    try_parse(&words).map_err(|error| {
        let status = if error.use_stderr() { USAGE_FAILURE } else { 0 };
        // Where the message cannot be printed, the status says enough.
        let _ = error.print();
        ExitCode::from(status)
    })
}

fn try_parse(words: &[OsString]) -> Result<Arguments, clap::Error> {
    if words
        .first()
        .is_some_and(|program| is_mount_helper(program))
    {
        let helper = Helper::try_parse_from(words)?;
        let how = if helper.fake {
            How::Fake
        } else {
            How::Background
        };
        let log = match helper.verbose {
            true => LogFilter::DEBUG,
            false => LogFilter::INFO,
        };
        let place = (helper.source, helper.mountpoint);
        understand(place, helper.options, helper.sloppy, how, log)
    } else {
        let own = Own::try_parse_from(words)?;
        let how = match (own.detached, own.foreground) {
            (true, _) => How::Detached,
            (false, true) => How::Foreground,
            (false, false) => How::Background,
        };
        // What mount(8) calls sloppy has been decided by the process that started a detached one.
        understand(
            (own.source, own.mountpoint),
            own.options,
            own.detached,
            how,
            own.log,
        )
    }
}

fn understand(
    (source, mountpoint): (MountSource, PathBuf),
    option_texts: Vec<String>,
    sloppy: bool,
    how: How,
    log: LogFilter,
) -> Result<Arguments, clap::Error> {
    let options =
        MountOptions::parse(option_texts.iter().map(String::as_str), sloppy).map_err(|error| {
            clap::Error::raw(clap::error::ErrorKind::InvalidValue, format!("{error}\n"))
        })?;
    Ok(Arguments {
        source,
        mountpoint,
        option_texts,
        options,
        how,
        log,
    })
}

/// Whether mount(8) called: it does so by the names `mount.TYPE` and `mount.TYPE.SUBTYPE`.
fn is_mount_helper(program: &OsStr) -> bool {
    let name = Path::new(program).file_name().unwrap_or_default();
    name.to_string_lossy().starts_with("mount.")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_words(line: &str) -> Result<Arguments, clap::Error> {
        let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        try_parse(&words)
    }

    #[test]
    fn mount_calls_the_helper() {
        for line in [
            "/sbin/mount.fuse.pvfs node1:/ /mnt -o rw,_netdev,actimeo=1",
            "/sbin/mount.pvfs node1:/ /mnt -n -v -t fuse.pvfs -o rw,_netdev,actimeo=1",
        ] {
            let arguments = parse_words(line).unwrap();
            assert_eq!(arguments.how, How::Background);
            assert_eq!(arguments.source.text, "node1:/");
            assert_eq!(arguments.options.cache_time.as_secs(), 1);
        }
        let fake = parse_words("mount.fuse.pvfs node1:/ /mnt -f").unwrap();
        assert_eq!(fake.how, How::Fake);
        let sloppy = parse_words("mount.fuse.pvfs node1:/ /mnt -s -o nonsense");
        assert!(sloppy.is_ok());
    }

    #[test]
    fn its_own_name_means_its_own_options() {
        assert_eq!(
            parse_words("pvfs-fuse h:1:/ /m").unwrap().how,
            How::Background
        );
        assert_eq!(
            parse_words("./pvfs-fuse h:1:/ /m -f").unwrap().how,
            How::Foreground
        );
        assert_eq!(
            parse_words("pvfs-fuse h:1:/ /m --detached").unwrap().how,
            How::Detached
        );
    }

    #[test]
    fn mistakes_are_explained() {
        for (line, word) in [
            ("pvfs-fuse h /m", "write HOST[:PORT]:/"),
            ("pvfs-fuse h:/ /m -o nonsense", "unknown"),
            ("pvfs-fuse h:/", "required"),
        ] {
            let error = parse_words(line).unwrap_err().to_string();
            assert!(error.contains(word), "{line}: {error}");
        }
    }
}
