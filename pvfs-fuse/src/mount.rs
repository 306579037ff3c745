// SPDX-License-Identifier: MIT
//! One mount's life: find mgr, mount, serve, unmount.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Weak};
use std::time::Duration;
use std::{fs, io};

use anyhow::{Context, Result, bail};
use fuser::{Config, MountOption, Session, SessionACL, SessionUnmounter};
use nix::mount::{MntFlags, MsFlags, umount2};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::statvfs::{FsFlags, statvfs};
use pvfs::client::mgr::{ClientOptions, MgrClient};
use pvfs::ids::ROOT_INODE;
use pvfs::mountinfo::{self, Device};
use pvfs::proto::peer::Peer;

use crate::cli::Arguments;
use crate::fs::{
    FsOptions, Keeper, LEASE_CHECK_INTERVAL, Pvfs, REPORT_INTERVAL, interrupt_lock_waits,
};
use crate::fuser_adapter::{Adapter, PageDropper};
use crate::guard;
use crate::options::{MountFlag, MountOptions};

/// The file system's type is `fuse.pvfs`.
const SUBTYPE: &str = "subtype=pvfs";
/// After the unmount, daemons that are away are waited for so long to hear of the last writes.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(5);
/// After SIGTERM, programs that still use the mount have so long to finish: less than the 10 s to
/// 90 s after which supervisors send SIGKILL.
const DETACHED_TIME_MAX: Duration = Duration::from_secs(5);
/// Readahead of a backing device, in KiB.
const READ_AHEAD_FILE: &str = "read_ahead_kb";

/// Mounts, calls `ready` when the mount is usable, and returns when it has been unmounted.
///
/// # Errors
///
/// Says what failed and what to do.
pub fn run(arguments: &Arguments, ready: impl FnOnce()) -> Result<()> {
    // Before the first thread, so that all inherit it and only the one that waits gets a signal.
    let signals = ending_signals();
    signals.thread_block().context("blocking signals")?;
    let mountpoint = check_mountpoint(&arguments.mountpoint)?;
    let options = &arguments.options;
    let keeper = Arc::new(Keeper::default());
    let endpoint = arguments.source.mgr.clone();
    let client_options = ClientOptions {
        peer: Peer::of_this_process(Some(&mountpoint)),
        ..ClientOptions::default()
    };
    let mgr = MgrClient::start_with_leases(endpoint, client_options, Arc::clone(&keeper) as _)
        .context("starting a thread")?;
    let mgr = Arc::new(mgr);
    mgr.wait_ready(options.mount_timeout)
        .with_context(|| format!("cannot mount {}", arguments.source.text))?;
    let pvfs = Arc::new(Pvfs::new(Arc::clone(&mgr), fs_options(options)));
    keeper.serve(&pvfs);
    // So that df(1) has an answer whatever becomes of mgr.
    let known = pvfs.getattr(ROOT_INODE.0).and_then(|_| pvfs.statfs());
    if let Err(error) = known {
        tracing::warn!("the totals of the file system: {error}");
    }
    let adapter = Adapter::new(Arc::clone(&pvfs), options.cache_time);
    let config = session_config(&arguments.source.text, options);
    let mut session = Session::new(adapter, &mountpoint, &config).with_context(|| {
        format!(
            "cannot mount on {}: is /dev/fuse there (modprobe fuse)?",
            mountpoint.display()
        )
    })?;
    let device = mountinfo::device_at(&mountpoint).ok().flatten();
    if let Some(device) = &device {
        set_read_ahead(device, options.read_ahead_kib);
        if let Err(error) = guard::start(device) {
            tracing::warn!("{error:#}: after a kill -9, programs on the mount may hang");
        }
    }
    pvfs.set_kernel(Arc::new(PageDropper::new(session.notifier())));
    let unmounter = session.unmount_callable();
    let connection = session
        .as_fd()
        .try_clone_to_owned()
        .context("cloning /dev/fuse")?;
    let (served, ended) = channel::<()>();
    spawn("signals", {
        let (mountpoint, pvfs) = (mountpoint.clone(), Arc::clone(&pvfs));
        move || unmount_on_signal(signals, unmounter, &mountpoint, &pvfs)
    })?;
    spawn("reports", {
        let pvfs = Arc::downgrade(&pvfs);
        move || report_regularly(&pvfs)
    })?;
    spawn("leases", {
        let pvfs = Arc::downgrade(&pvfs);
        move || check_leases_regularly(&pvfs)
    })?;
    spawn("lock waits", {
        let pvfs = Arc::downgrade(&pvfs);
        move || interrupt_lock_waits(&pvfs)
    })?;
    let gone = device.clone();
    spawn("farewell", {
        let (pvfs, mgr) = (Arc::clone(&pvfs), Arc::clone(&mgr));
        move || bound_farewell(device.as_ref(), &connection, &ended, &pvfs, &mgr)
    })?;
    ready();
    let outcome = session.run();
    pvfs.report_all();
    pvfs.say_goodbye();
    drop(served);
    match outcome {
        Err(error) if was_unmounted(&error, gone.as_ref()) => Ok(()),
        outcome => outcome.context("serving the kernel's requests"),
    }
}

/// Whether serving ended because the mount did. The kernel says of a mount that was detached or
/// unmounted by force that its connection was aborted, as it says of one that somebody aborted while
/// it stays mounted.
fn was_unmounted(error: &io::Error, device: Option<&Device>) -> bool {
    error.kind() == io::ErrorKind::ConnectionAborted
        && device.is_some_and(|device| mountinfo::is_gone(device).unwrap_or(false))
}

/// Changes the flags of the mount on the mount point. What else was asked for stays as it is.
///
/// # Errors
///
/// Says what failed.
pub fn remount(arguments: &Arguments) -> Result<()> {
    let mountpoint = check_mountpoint(&arguments.mountpoint)?;
    let shown = statvfs(&mountpoint).with_context(|| format!("{}", mountpoint.display()))?;
    let current = [
        (FsFlags::ST_NOSUID, MountFlag::NoSuid),
        (FsFlags::ST_NODEV, MountFlag::NoDev),
    ]
    .iter()
    .filter(|(shows, _)| shown.flags().contains(*shows))
    .map(|(_, flag)| *flag)
    .collect::<Vec<_>>();
    let flags = arguments.options.flags_after_remount(&current);
    let flags = flags.iter().map(|flag| match flag {
        MountFlag::ReadOnly => MsFlags::MS_RDONLY,
        MountFlag::NoSuid => MsFlags::MS_NOSUID,
        MountFlag::NoDev => MsFlags::MS_NODEV,
        MountFlag::NoExec => MsFlags::MS_NOEXEC,
        MountFlag::NoAtime => MsFlags::MS_NOATIME,
        MountFlag::Synchronous => MsFlags::MS_SYNCHRONOUS,
        MountFlag::DirectorySynchronous => MsFlags::MS_DIRSYNC,
    });
    let flags = MsFlags::MS_REMOUNT | flags.collect();
    let nothing = None::<&str>;
    nix::mount::mount(nothing, &mountpoint, nothing, flags, nothing)
        .with_context(|| format!("cannot remount {}", mountpoint.display()))
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Result<()> {
    let thread = std::thread::Builder::new().name(name.to_owned());
    thread.spawn(body).context("starting a thread")?;
    Ok(())
}

fn check_mountpoint(mountpoint: &Path) -> Result<PathBuf> {
    let path = mountpoint.canonicalize().with_context(|| {
        format!(
            "mount point {}: create it, or `umount` what hangs there",
            mountpoint.display()
        )
    })?;
    if !path.is_dir() {
        bail!("mount point {} is no directory", path.display());
    }
    Ok(path)
}

const fn fs_options(options: &MountOptions) -> FsOptions {
    FsOptions {
        threads: options.threads,
        direct_io: options.direct_io,
    }
}

fn session_config(source: &str, options: &MountOptions) -> Config {
    let mut mount_options = vec![
        MountOption::FSName(source.to_owned()),
        MountOption::CUSTOM(SUBTYPE.to_owned()),
        MountOption::DefaultPermissions,
    ];
    // Unless told not to, fuser sets both `nodev` and `nosuid`. An ordinary user's request for the
    // opposite is fusermount's to refuse.
    for (flag, absent) in [
        (MountFlag::NoDev, MountOption::Dev),
        (MountFlag::NoSuid, MountOption::Suid),
    ] {
        if !options.flags.contains(&flag) {
            mount_options.push(absent);
        }
    }
    mount_options.extend(options.flags.iter().map(|flag| match flag {
        MountFlag::ReadOnly => MountOption::RO,
        MountFlag::NoSuid => MountOption::NoSuid,
        MountFlag::NoDev => MountOption::NoDev,
        MountFlag::NoExec => MountOption::NoExec,
        MountFlag::NoAtime => MountOption::NoAtime,
        MountFlag::Synchronous => MountOption::Sync,
        MountFlag::DirectorySynchronous => MountOption::DirSync,
    }));
    let mut config = Config::default();
    config.mount_options = mount_options;
    config.acl = match options.allow_other.unwrap_or_else(is_root) {
        true => SessionACL::All,
        false => SessionACL::Owner,
    };
    config.n_threads = Some(options.threads);
    config.clone_fd = true;
    config
}

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// The kernel allows FUSE 128 KiB of readahead; more is the administrator's to set, in sysfs.
fn set_read_ahead(device: &Device, kib: u32) {
    let path = Path::new("/sys/class/bdi")
        .join(device.as_str())
        .join(READ_AHEAD_FILE);
    if let Err(error) = fs::write(&path, kib.to_string()) {
        tracing::warn!("{}: {error}: sequential reads stay slow", path.display());
    }
}

fn ending_signals() -> SigSet {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGTERM);
    signals.add(Signal::SIGINT);
    signals
}

/// Unmounts at the first signal. A mount that is in use is detached. It ends with its last user, or
/// when [`DETACHED_TIME_MAX`] is over, or with the second signal; so does a mount that another mount
/// namespace has too, and that nothing here can unmount there.
fn unmount_on_signal(
    signals: SigSet,
    mut unmounter: SessionUnmounter,
    mountpoint: &Path,
    pvfs: &Pvfs,
) {
    let Ok(signal) = signals.wait() else { return };
    tracing::info!("{signal}: unmounting {}", mountpoint.display());
    if let Err(error) = unmounter.unmount() {
        tracing::warn!(
            "{} is in use ({error}): detaching it; its users have {} s left",
            mountpoint.display(),
            DETACHED_TIME_MAX.as_secs()
        );
        if let Err(error) = umount2(mountpoint, MntFlags::MNT_DETACH) {
            tracing::error!("detaching {}: {error}", mountpoint.display());
        }
    }
    // The end of the process may come before any of what follows.
    let second = spawn("second signal", move || {
        if signals.wait().is_ok() {
            std::process::exit(1);
        }
    });
    if let Err(error) = second {
        tracing::warn!("{error:#}");
    }
    std::thread::sleep(DETACHED_TIME_MAX);
    tracing::warn!("the mount is still in use, perhaps in another mount namespace: it ends now");
    let farewell = spawn("last exit", || {
        std::thread::sleep(FAREWELL_TIMEOUT);
        std::process::exit(0);
    });
    if farewell.is_ok() {
        pvfs.report_all();
    }
    std::process::exit(0);
}

/// Looks whether leases still hold, until the mount ends.
fn check_leases_regularly(pvfs: &Weak<Pvfs>) {
    loop {
        std::thread::sleep(LEASE_CHECK_INTERVAL);
        match pvfs.upgrade() {
            Some(pvfs) => pvfs.check_leases(),
            None => return,
        }
    }
}

/// Tells mgr of writes until the mount ends.
fn report_regularly(pvfs: &Weak<Pvfs>) {
    loop {
        std::thread::sleep(REPORT_INTERVAL);
        match pvfs.upgrade() {
            Some(pvfs) => pvfs.report_all(),
            None => return,
        }
    }
}

/// After the unmount, ends the waiting for daemons that are away, so that the process ends.
fn bound_farewell(
    device: Option<&Device>,
    connection: &OwnedFd,
    ended: &Receiver<()>,
    pvfs: &Pvfs,
    mgr: &MgrClient,
) {
    if let Some(device) = device {
        if let Err(error) = mountinfo::wait_until_gone(device) {
            tracing::warn!("watching the mount table: {error}");
            return;
        }
    }
    // It may live on, detached, or in another mount namespace.
    if wait_for_disconnection(connection).is_err() {
        return;
    }
    if ended.recv_timeout(FAREWELL_TIMEOUT) == Err(RecvTimeoutError::Timeout) {
        tracing::warn!("mgr or an iod is away: the last writes may lack size and time there");
        pvfs.cancel();
        mgr.shut_down();
    }
}

/// Returns when the kernel has ended the FUSE connection.
fn wait_for_disconnection(connection: &OwnedFd) -> nix::Result<()> {
    loop {
        let mut polled = [PollFd::new(connection.as_fd(), PollFlags::empty())];
        match poll(&mut polled, PollTimeout::NONE) {
            Ok(_) => {
                let revents = polled.first().and_then(PollFd::revents);
                if revents.is_some_and(|events| events.contains(PollFlags::POLLERR)) {
                    return Ok(());
                }
            }
            Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        session_config("node1:3000:/", &MountOptions::parse([text], false).unwrap())
    }

    #[test]
    fn the_kernel_learns_source_type_and_flags() {
        let config = config("ro,nosuid,noexec");
        let has = |option: &MountOption| config.mount_options.contains(option);
        assert!(has(&MountOption::FSName("node1:3000:/".into())));
        assert!(has(&MountOption::CUSTOM("subtype=pvfs".into())));
        assert!(has(&MountOption::DefaultPermissions));
        assert!(has(&MountOption::RO) && has(&MountOption::NoSuid) && has(&MountOption::NoExec));
        assert!(!has(&MountOption::Suid) && !has(&MountOption::Dev));
    }

    #[test]
    fn set_uid_programs_and_devices_are_let_in_as_asked() {
        let default = config("");
        let has = |option: &MountOption| default.mount_options.contains(option);
        assert!(has(&MountOption::NoSuid) && has(&MountOption::NoDev));
        assert!(!has(&MountOption::Suid) && !has(&MountOption::Dev));
        let asked = config("suid,dev");
        let has = |option: &MountOption| asked.mount_options.contains(option);
        assert!(has(&MountOption::Suid) && has(&MountOption::Dev));
        assert!(!has(&MountOption::NoSuid) && !has(&MountOption::NoDev));
    }

    #[test]
    fn other_users_are_let_in_as_asked() {
        assert_eq!(config("allow_other").acl, SessionACL::All);
        assert_eq!(config("noallow_other").acl, SessionACL::Owner);
    }

    #[test]
    fn a_mount_point_must_be_a_directory() {
        let missing = check_mountpoint(Path::new("/nonexistent/dir")).unwrap_err();
        assert!(format!("{missing:#}").contains("create it"), "{missing:#}");
        let file = check_mountpoint(Path::new("/proc/version")).unwrap_err();
        assert!(file.to_string().contains("no directory"), "{file}");
    }
}
