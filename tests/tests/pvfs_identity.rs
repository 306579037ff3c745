// SPDX-License-Identifier: MIT
//! Copies, backups and empty directories in the place of an iod's or of mgr's own one, while a mount
//! is in use: nobody ever reads what is old or missing, whoever starts when.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use cssns_tests::programs;
use cssns_tests::pvfs_cluster::{Cluster, Options, Who};

/// Nothing here takes a fraction of it, unless it hangs.
const TIMEOUT: Duration = Duration::from_secs(60);
/// How often a log is looked at.
const POLL: Duration = Duration::from_millis(20);
/// A file of this length lies on all iods.
const FILE_BYTES: usize = 64 << 10;

fn cluster() -> anyhow::Result<Cluster> {
    let cluster = Cluster::start(Options {
        iods: 2,
        ..Options::default()
    })?;
    cluster.set_small_stripes()?;
    Ok(cluster)
}

fn content(seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; FILE_BYTES];
    fastrand::Rng::with_seed(seed).fill(&mut bytes);
    bytes
}

fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    let status = Command::new("cp").arg("-a").args([from, to]).status()?;
    ensure!(status.success(), "cp: {status}");
    Ok(())
}

/// A daemon that is not one of the cluster's, and may never get ready.
struct Stranger {
    child: Child,
    log: PathBuf,
}

impl Stranger {
    fn iod(cluster: &Cluster, name: &str, data: &Path, more: &[&str]) -> anyhow::Result<Self> {
        let mut command = Command::new(programs::find("pvfs-iod")?);
        command
            .args(["--mgr", cluster.mgr_address()])
            .args(["--listen", "127.0.0.1:0"])
            .args(more);
        Self::start(cluster, name, data, command)
    }

    fn start(
        cluster: &Cluster,
        name: &str,
        data: &Path,
        mut command: Command,
    ) -> anyhow::Result<Self> {
        let log = cluster.scratch().join(format!("log/{name}.log"));
        let child = command
            .arg("--data")
            .arg(data)
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(&log)?)
            .spawn()?;
        Ok(Self { child, log })
    }

    fn says(&self, text: &str) -> anyhow::Result<()> {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            let log = fs::read_to_string(&self.log)?;
            if log.contains(text) {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "it never says {text:?}:\n{log}");
            std::thread::sleep(POLL);
        }
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A writer and a reader who compare, until they are told to stop.
fn under_load(
    cluster: &mut Cluster,
    act: impl FnOnce(&mut Cluster, &AtomicU64) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let path = cluster.mount(0).join("load");
    fs::write(&path, content(0))?;
    let (stop, rounds) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let worker = scope.spawn(|| -> anyhow::Result<()> {
            let mut last = 0;
            while !stop.load(Ordering::Relaxed) {
                ensure!(
                    fs::read(&path)? == content(last),
                    "round {last} is not there"
                );
                last += 1;
                fs::write(&path, content(last))?;
                // Past the page cache, as another node would read it.
                drop_pages(&path)?;
                rounds.store(last, Ordering::Relaxed);
            }
            Ok(())
        });
        let outcome = act(cluster, &rounds);
        stop.store(true, Ordering::Relaxed);
        let worker = worker
            .join()
            .map_err(|_| anyhow::anyhow!("the load panicked"))?;
        outcome.and(worker)
    })
}

fn drop_pages(path: &Path) -> anyhow::Result<()> {
    let file = fs::File::open(path)?;
    file.sync_all()?;
    let advice = nix::fcntl::PosixFadviseAdvice::POSIX_FADV_DONTNEED;
    Ok(nix::fcntl::posix_fadvise(&file, 0, 0, advice)?)
}

fn await_rounds(rounds: &AtomicU64, more: u64) -> anyhow::Result<()> {
    let goal = rounds.load(Ordering::Relaxed) + more;
    let deadline = Instant::now() + TIMEOUT;
    while rounds.load(Ordering::Relaxed) < goal {
        ensure!(Instant::now() < deadline, "the load stands still");
        std::thread::sleep(POLL);
    }
    Ok(())
}

/// The original has another seal than its copy has.
fn await_new_seal(original: &Path, copy: &Path) -> anyhow::Result<()> {
    let seal = |data: &Path| -> anyhow::Result<String> {
        let identity = fs::read_to_string(data.join("identity"))?;
        let seal = identity.lines().find(|line| line.starts_with("seal "));
        Ok(seal.context("no seal")?.to_owned())
    };
    let deadline = Instant::now() + TIMEOUT;
    while seal(original)? == seal(copy)? {
        ensure!(Instant::now() < deadline, "it gets no other seal");
        std::thread::sleep(POLL);
    }
    Ok(())
}

#[test]
fn a_copy_of_an_iod_in_use_never_gets_its_place() -> anyhow::Result<()> {
    let mut cluster = cluster()?;
    under_load(&mut cluster, |cluster, rounds| {
        await_rounds(rounds, 3)?;
        let clone = cluster.scratch().join("clone");
        copy(&cluster.iod_data(0), &clone)?;
        await_rounds(rounds, 3)?;
        Stranger::iod(cluster, "clone", &clone, &[])?.says("is a copy of one")?;
        // Whoever insists is refused by mgr, while the original runs and after it.
        let insisting = Stranger::iod(cluster, "insisting", &clone, &["--moved"])?;
        cluster.await_log(Who::Mgr, "was its data directory copied?", TIMEOUT)?;
        await_new_seal(&cluster.iod_data(0), &clone)?;
        await_rounds(rounds, 3)?;
        cluster.kill_iod(0)?;
        insisting.says("another one has its place")?;
        cluster.await_log(Who::Mgr, "was given since", TIMEOUT)?;
        cluster.restart_iod(0)?;
        await_rounds(rounds, 3)?;
        cluster.kill_mgr()?;
        cluster.restart_mgr()?;
        await_rounds(rounds, 3)?;
        drop(insisting);
        let again = Stranger::iod(cluster, "again", &clone, &[])?;
        again.says("another one has its place")?;
        await_rounds(rounds, 3)
    })?;
    cluster.finish()
}

#[test]
fn a_backup_of_an_iod_is_not_believed_and_the_original_is() -> anyhow::Result<()> {
    let mut cluster = cluster()?;
    let (kept, file) = (
        cluster.scratch().join("kept"),
        cluster.mount(0).join("file"),
    );
    fs::write(&file, content(1))?;
    cluster.stop_iod(0)?;
    let backup = cluster.scratch().join("backup");
    copy(&cluster.iod_data(0), &backup)?;
    cluster.restart_iod(0)?;
    fs::write(&file, content(2))?;
    drop_pages(&file)?;
    cluster.stop_iod(0)?;
    fs::rename(cluster.iod_data(0), &kept)?;
    for restart in [false, true] {
        if restart {
            cluster.kill_mgr()?;
            cluster.restart_mgr()?;
        }
        let restored = cluster.iod_data(0);
        copy(&backup, &restored)?;
        let stranger = Stranger::iod(&cluster, "restored", &restored, &[])?;
        stranger.says("another one has its place")?;
        drop(stranger);
        fs::remove_dir_all(&restored)?;
    }
    cluster.await_log(Who::Mgr, "was given since", TIMEOUT)?;
    // One with the identity and nothing else does not even start.
    let empty = cluster.scratch().join("empty");
    programs::make_data("pvfs-iod", &empty)?;
    fs::copy(kept.join("identity"), empty.join("identity"))?;
    Stranger::iod(&cluster, "empty", &empty, &[])?.says("was emptied")?;
    let reader = std::thread::spawn(move || fs::read(&file));
    fs::rename(&kept, cluster.iod_data(0))?;
    cluster.restart_iod(0)?;
    let read = reader
        .join()
        .map_err(|_| anyhow::anyhow!("it panicked"))??;
    ensure!(read == content(2), "not what was written last");
    cluster.finish()
}

/// The newest directory is lost for good, and the operator says that he knows.
#[test]
fn a_backup_of_an_iod_is_taken_where_its_operator_says_so() -> anyhow::Result<()> {
    let mut cluster = cluster()?;
    let (before, after) = (
        cluster.mount(0).join("before"),
        cluster.mount(0).join("after"),
    );
    fs::write(&before, content(1))?;
    cluster.stop_iod(0)?;
    let backup = cluster.scratch().join("backup");
    copy(&cluster.iod_data(0), &backup)?;
    cluster.restart_iod(0)?;
    fs::write(&after, content(2))?;
    drop_pages(&after)?;
    let second = cluster.scratch().join("second");
    copy(&backup, &second)?;
    // While the newest one is there, nobody can have its place.
    let insisting = Stranger::iod(&cluster, "insisting", &second, &["--accept-older"])?;
    cluster.await_log(Who::Mgr, "one with a newer directory is alive", TIMEOUT)?;
    drop(insisting);
    drop_pages(&before)?;
    ensure!(fs::read(&before)? == content(1) && fs::read(&after)? == content(2));
    drop_pages(&after)?;
    cluster.stop_iod(0)?;
    fs::remove_dir_all(cluster.iod_data(0))?;
    copy(&backup, &cluster.iod_data(0))?;
    let restored = Stranger::iod(&cluster, "silent", &cluster.iod_data(0), &[])?;
    restored.says("another one has its place")?;
    drop(restored);
    let data = cluster.iod_data(0);
    let restored = Stranger::iod(&cluster, "said", &data, &["--accept-older"])?;
    restored.says("known to mgr at")?;
    cluster.await_log(Who::Mgr, "is believed with an older directory", TIMEOUT)?;
    drop(restored);
    // It is the newest from now on.
    cluster.restart_iod(0)?;
    drop_pages(&before)?;
    ensure!(fs::read(&before)? == content(1), "what was there is there");
    let lost = fs::read(&after);
    let error = lost.err().and_then(|error| error.raw_os_error());
    ensure!(
        error == Some(nix::libc::EIO),
        "what is lost is no zeros: {error:?}"
    );
    let fsck = Command::new(programs::find("pvfs")?)
        .args(["fsck", "--quiet", cluster.mgr_address()])
        .output()?;
    let said = String::from_utf8_lossy(&fsck.stdout).into_owned();
    ensure!(said.contains("after"), "fsck does not name it: {said}");
    fs::write(&after, content(3))?;
    drop_pages(&after)?;
    ensure!(fs::read(&after)? == content(3), "it can be written anew");
    let again = Stranger::iod(&cluster, "again", &second, &[])?;
    again.says("another one has its place")?;
    drop(again);
    cluster.finish()
}

/// Data goes with the directory, wherever it is served.
#[test]
fn iods_that_swap_their_directories_serve_what_they_hold() -> anyhow::Result<()> {
    let mut cluster = cluster()?;
    let file = cluster.mount(0).join("file");
    fs::write(&file, content(1))?;
    drop_pages(&file)?;
    for index in 0..2 {
        cluster.stop_iod(index)?;
    }
    let aside = cluster.scratch().join("aside");
    fs::rename(cluster.iod_data(0), &aside)?;
    fs::rename(cluster.iod_data(1), cluster.iod_data(0))?;
    fs::rename(&aside, cluster.iod_data(1))?;
    for index in 0..2 {
        cluster.restart_iod(index)?;
    }
    ensure!(fs::read(&file)? == content(1), "the stripes are mixed up");
    cluster.finish()
}

/// An original that hung is not listened to when it goes on after another has its place.
#[test]
fn an_iod_that_hung_while_it_was_replaced_serves_nothing_more() -> anyhow::Result<()> {
    let cluster = cluster()?;
    let file = cluster.mount(0).join("file");
    fs::write(&file, content(1))?;
    drop_pages(&file)?;
    cluster.freeze(Who::Iod(0), true)?;
    let copied = cluster.scratch().join("copied");
    copy(&cluster.iod_data(0), &copied)?;
    cluster.await_log(Who::Mgr, "is away", TIMEOUT)?;
    let second = Stranger::iod(&cluster, "second", &copied, &["--moved"])?;
    second.says("known to mgr at")?;
    fs::write(&file, content(2))?;
    drop_pages(&file)?;
    cluster.freeze(Who::Iod(0), false)?;
    cluster.await_log(Who::Iod(0), "another one has its place", TIMEOUT)?;
    for _ in 0..20 {
        drop_pages(&file)?;
        ensure!(fs::read(&file)? == content(2), "the old content is back");
    }
    drop(second);
    cluster.finish()
}

/// mgr from a backup: refused however often it starts, until somebody says that it was restored.
#[test]
fn a_mgr_from_a_backup_needs_a_new_era_and_finds_what_was_made_after_it() -> anyhow::Result<()> {
    let mut cluster = cluster()?;
    let old = cluster.mount(0).join("old");
    fs::write(&old, content(1))?;
    drop_pages(&old)?;
    cluster.stop_mgr()?;
    let backup = cluster.scratch().join("mgr-backup");
    copy(&cluster.mgr_data(), &backup)?;
    cluster.restart_mgr()?;
    let new = [(2, FILE_BYTES), (3, 10), (4, 4096 * 3 + 5)];
    for (seed, length) in new {
        let path = cluster.mount(0).join(format!("new{seed}"));
        fs::write(&path, &content(seed)[..length])?;
        drop_pages(&path)?;
    }
    cluster.unmount(0)?;
    cluster.kill_mgr()?;
    fs::rename(cluster.mgr_data(), cluster.scratch().join("mgr-lost"))?;
    copy(&backup, &cluster.mgr_data())?;
    for _ in 0..3 {
        cluster.restart_mgr()?;
        cluster.await_log(Who::Mgr, "start pvfs-mgr once with --new-era", TIMEOUT)?;
        cluster.await_log(Who::Iod(0), "it does not know the seal", TIMEOUT)?;
        cluster.kill_mgr()?;
    }
    cluster.restart_mgr_with(&["--new-era"])?;
    cluster.await_log(Who::Mgr, "is believed, once in this era", TIMEOUT)?;
    cluster.restart_mount(0)?;
    ensure!(fs::read(&old)? == content(1), "from before the backup");
    fs::write(&old, content(9))?;
    drop_pages(&old)?;
    ensure!(fs::read(&old)? == content(9), "it can be written at once");
    fs::write(cluster.mount(0).join("later"), content(10))?;
    let fsck = Command::new(programs::find("pvfs")?)
        .args(["fsck", "--repair", "--quiet", cluster.mgr_address()])
        .output()?;
    let said = String::from_utf8_lossy(&fsck.stdout).into_owned();
    ensure!(fsck.status.code() == Some(1), "{said}{:?}", fsck.status);
    let lost = cluster.mount(0).join("lost+found");
    let mut found = Vec::new();
    for entry in fs::read_dir(&lost).context(said)? {
        found.push(fs::read(entry?.path())?);
    }
    for (seed, length) in new {
        ensure!(
            found.iter().any(|bytes| *bytes == content(seed)[..length]),
            "new{seed} is not in lost+found"
        );
    }
    ensure!(found.len() == new.len(), "{} files", found.len());
    ensure!(fs::read(&old)? == content(9), "after the repair");
    cluster.finish()
}

/// Two mgrs on copies of a store: an iod obeys one of them.
#[test]
fn a_mgr_on_a_copy_of_the_store_gets_no_iod_back() -> anyhow::Result<()> {
    let mut cluster = cluster()?;
    let file = cluster.mount(0).join("file");
    fs::write(&file, content(1))?;
    cluster.stop_mgr()?;
    let twin = cluster.scratch().join("twin");
    copy(&cluster.mgr_data(), &twin)?;
    cluster.restart_mgr()?;
    fs::write(&file, content(2))?;
    drop_pages(&file)?;
    let mut command = Command::new(programs::find("pvfs-mgr")?);
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?.to_string();
    drop(listener);
    command.args(["--listen", &address]);
    let mgr = Stranger::start(&cluster, "twin", &twin, command)?;
    cluster.stop_iod(0)?;
    let mut command = Command::new(programs::find("pvfs-iod")?);
    command
        .args(["--mgr", &address])
        .args(["--listen", "127.0.0.1:0"]);
    let data = cluster.iod_data(0);
    let iod = Stranger::start(&cluster, "iod-of-twin", &data, command)?;
    iod.says("it does not know the seal")?;
    mgr.says("this store is a copy")?;
    drop(iod);
    drop(mgr);
    // It was killed, and is where it was.
    cluster.restart_iod(0)?;
    ensure!(fs::read(&file)? == content(2), "not what was written last");
    cluster.finish()
}
