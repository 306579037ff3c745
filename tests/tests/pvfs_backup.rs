// SPDX-License-Identifier: MIT
//! `pvfs backup`, and what docs/OPERATING.md says to do when mgr's disk is lost, run as it stands there.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use cssns_tests::programs;
use cssns_tests::pvfs_cluster::{Cluster, Options, Who};
use cssns_tests::pvfs_peer::{attacker, call, connect_from, hello, request};
use pvfs::error::FsError;
use pvfs::proto::backup::BackupPart;
use pvfs::proto::mgr::{MgrOperation, MgrResponse};

/// Nothing here takes a fraction of it, unless it hangs.
const TIMEOUT: Duration = Duration::from_secs(60);
/// How often something is looked at that tells nobody when it changes.
const POLL: Duration = Duration::from_millis(10);
/// Files that each writer makes before the backup, and after it.
const FILES_EACH: usize = 30;

/// Names and contents of files that a program was told are there.
type Acknowledged = BTreeMap<PathBuf, Vec<u8>>;

fn pvfs(arguments: &[&str]) -> anyhow::Result<Output> {
    Ok(Command::new(programs::find("pvfs")?)
        .args(arguments)
        .output()?)
}

fn said(output: &Output) -> String {
    let text = [&output.stdout[..], &output.stderr[..]].concat();
    format!("{}: {}", output.status, String::from_utf8_lossy(&text))
}

/// The commands of the section Backup, in their order.
fn procedure() -> anyhow::Result<Vec<String>> {
    let document = include_str!("../../docs/OPERATING.md");
    let (_, section) = document.split_once("\n## Backup\n").context("no section")?;
    let (section, _) = section.split_once("\n## ").context("no end")?;
    let blocks = section.split("```").skip(1).step_by(2);
    let commands = blocks.flat_map(str::lines).filter(|line| !line.is_empty());
    Ok(commands.map(str::to_owned).collect())
}

/// A writer: makes files under temporary names and renames them, and appends to one, until an error
/// after mgr's disk was lost, or until it is told to stop.
fn write(
    mount: &Path,
    number: u64,
    (acknowledged, is_lost, stop): (&Mutex<Acknowledged>, &AtomicBool, &AtomicBool),
) -> anyhow::Result<()> {
    let mut random = fastrand::Rng::with_seed(number);
    for round in 0.. {
        if stop.load(Ordering::SeqCst) {
            break;
        }
        let mut content = vec![0; random.usize(1..20_000)];
        random.fill(&mut content);
        let temporary = mount.join(format!("writer{number}.tmp{round}"));
        let path = mount.join(format!("writer{number}.{round}"));
        let made = fs::write(&temporary, &content)
            .and_then(|()| fs::File::open(&temporary)?.sync_all())
            .and_then(|()| fs::rename(&temporary, &path));
        match made {
            Ok(()) => {}
            Err(_) if is_lost.load(Ordering::SeqCst) => break,
            Err(error) => return Err(error).context(format!("writer {number}")),
        }
        let mut acknowledged = acknowledged
            .lock()
            .map_err(|_| anyhow::anyhow!("poisoned"))?;
        acknowledged.insert(path, content);
    }
    Ok(())
}

fn count(acknowledged: &Mutex<Acknowledged>) -> usize {
    acknowledged.lock().map_or(0, |files| files.len())
}

fn await_files(acknowledged: &Mutex<Acknowledged>, more: usize) -> anyhow::Result<()> {
    let goal = count(acknowledged) + more;
    let deadline = Instant::now() + TIMEOUT;
    while count(acknowledged) < goal {
        ensure!(Instant::now() < deadline, "the writers stand still");
        std::thread::sleep(POLL);
    }
    Ok(())
}

/// Contents of all files at the root and in `lost+found`.
fn contents(mount: &Path) -> anyhow::Result<Vec<Vec<u8>>> {
    let mut contents = Vec::new();
    for directory in [mount.to_owned(), mount.join("lost+found")] {
        for entry in fs::read_dir(&directory).with_context(|| directory.display().to_string())? {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                let read = fs::read(entry.path());
                contents.push(read.with_context(|| entry.path().display().to_string())?);
            }
        }
    }
    Ok(contents)
}

/// Runs one command of the procedure; `systemctl` is this machine's cluster.
fn obey(cluster: &mut Cluster, line: &str, backup: &Path) -> anyhow::Result<()> {
    let (command, _) = line.split_once('#').unwrap_or((line, ""));
    let (file, data) = (backup.display().to_string(), cluster.mgr_data());
    let words: Vec<String> = command
        .split_whitespace()
        .map(|word| match word {
            "FILE" => file.clone(),
            "DIR" => data.display().to_string(),
            "MGR" => cluster.mgr_address().to_owned(),
            word => word.to_owned(),
        })
        .collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let output = match words.as_slice() {
        ["systemctl", "start", "pvfs-mgr"] => return cluster.restart_mgr(),
        ["pvfs", "status", _] => return await_all_iods(&words),
        [program, arguments @ ..] => Command::new(programs::find(program)?)
            .args(arguments)
            .output()?,
        [] => return Ok(()),
    };
    // A repair says by its status that it repaired something.
    let repaired = words.contains(&"--repair") && output.status.code() == Some(1);
    ensure!(
        output.status.success() || repaired,
        "{command}: {}",
        said(&output)
    );
    Ok(())
}

/// `pvfs status` until it says by its status that all are alive.
fn await_all_iods(words: &[&str]) -> anyhow::Result<()> {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        let output = pvfs(words.get(1..).unwrap_or_default())?;
        if output.status.success() {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "{}", said(&output));
        std::thread::sleep(POLL);
    }
}

/// What the writers made, and what of it was acknowledged before the backup began.
struct Made {
    before: Acknowledged,
    all: Acknowledged,
}

/// Writers on both mounts; the procedure's first command while they write; then mgr and its disk are
/// lost under them, and the other commands follow up to mgr's start.
fn lose_and_restore(
    cluster: &mut Cluster,
    (first, until_started): (&str, &[String]),
    backup: &Path,
) -> anyhow::Result<Made> {
    let acknowledged = Mutex::new(Acknowledged::new());
    let (is_lost, stop) = (AtomicBool::new(false), AtomicBool::new(false));
    let mounts = [cluster.mount(0), cluster.mount(1)];
    let copy = || {
        acknowledged
            .lock()
            .map_or_else(|_| Acknowledged::new(), |files| files.clone())
    };
    std::thread::scope(|scope| {
        let shared = (&acknowledged, &is_lost, &stop);
        let writers: Vec<_> = (0..)
            .zip(&mounts)
            .map(|(number, mount)| scope.spawn(move || write(mount, number, shared)))
            .collect();
        let mut act = || {
            await_files(&acknowledged, 2 * FILES_EACH)?;
            let before = copy();
            obey(cluster, first, backup)?;
            await_files(&acknowledged, 2 * FILES_EACH)?;
            is_lost.store(true, Ordering::SeqCst);
            cluster.kill_mgr()?;
            fs::remove_dir_all(cluster.mgr_data())?;
            for command in until_started {
                obey(cluster, command, backup)?;
            }
            Ok::<_, anyhow::Error>(before)
        };
        let before = act();
        stop.store(true, Ordering::SeqCst);
        if before.is_err() {
            // The writers wait for a mgr that does not come back.
            for index in 0..mounts.len() {
                cluster.kill_mount(index)?;
            }
        }
        for writer in writers {
            let written = writer
                .join()
                .map_err(|_| anyhow::anyhow!("a writer panicked"))?;
            if before.is_ok() {
                written?;
            }
        }
        Ok(Made {
            before: before?,
            all: copy(),
        })
    })
}

#[test]
#[ignore = "hangs where a writer has a file open while mgr is forked: closing it at exec waits for that mgr"]
fn a_lost_mgr_is_restored_as_the_manual_says() -> anyhow::Result<()> {
    let mut cluster = Cluster::start(Options {
        iods: 2,
        mounts: 2,
        ..Options::default()
    })?;
    cluster.set_small_stripes()?;
    let commands = procedure()?;
    let started = commands
        .iter()
        .position(|line| line.starts_with("systemctl"));
    let started = started.context("mgr is never started")?;
    let (first, rest) = commands.split_first().context("no commands")?;
    let (until_started, after) = rest.split_at(started);
    let backup = cluster.scratch().join("backup");
    let Made { before, all } = lose_and_restore(&mut cluster, (first, until_started), &backup)?;
    ensure!(
        all.len() > before.len(),
        "nothing was written after the backup"
    );
    // One mount went through it, one is new.
    cluster.unmount(1)?;
    cluster.restart_mount(1)?;
    for (path, content) in &before {
        let name = path.file_name().context("no name")?;
        for mount in [cluster.mount(0), cluster.mount(1)] {
            let found = fs::read(mount.join(name)).with_context(|| format!("{path:?}"))?;
            ensure!(
                found == *content,
                "{path:?} is not what it was before the backup"
            );
        }
    }
    fs::write(cluster.mount(0).join("made after it"), "1")?;
    ensure!(
        after.iter().any(|line| line.contains("fsck --repair")),
        "no repair"
    );
    for command in after {
        obey(&mut cluster, command, &backup)?;
    }
    let found = contents(&cluster.mount(1))?;
    for (path, content) in &all {
        ensure!(found.contains(content), "what {path:?} held is nowhere");
    }
    ensure!(fs::read(cluster.mount(1).join("made after it"))? == b"1");
    cluster.finish()
}

#[test]
fn a_backup_replaces_nothing_unasked_and_leaves_nothing_half() -> anyhow::Result<()> {
    let cluster = Cluster::start(Options {
        iods: 1,
        // An ordinary user is to reach mgr.
        insecure_ports: true,
        ..Options::default()
    })?;
    let directory = cluster.scratch().join("backups");
    fs::create_dir(&directory)?;
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o777))?;
    let file = directory.join("backup");
    let (path, mgr) = (
        file.to_string_lossy().into_owned(),
        cluster.mgr_address().to_owned(),
    );
    let made = pvfs(&["backup", &path, &mgr])?;
    ensure!(made.status.success(), "{}", said(&made));
    ensure!(said(&made).contains(" records, "), "{}", said(&made));
    let first = fs::read(&file)?;
    ensure!(fs::metadata(&file)?.permissions().mode() & 0o777 == 0o600);
    fs::write(cluster.mount(0).join("file"), "1")?;
    let refused = pvfs(&["backup", &path, &mgr])?;
    ensure!(!refused.status.success() && said(&refused).contains("--force"));
    ensure!(fs::read(&file)? == first, "it was replaced");
    let forced = pvfs(&["backup", "--force", &path, &mgr])?;
    ensure!(
        forced.status.success() && fs::read(&file)? != first,
        "{}",
        said(&forced)
    );
    // Names are not for everybody.
    let other = directory.join("other").to_string_lossy().into_owned();
    let program = cluster.scratch().join("pvfs");
    fs::copy(programs::find("pvfs")?, &program)?;
    fs::set_permissions(cluster.scratch(), fs::Permissions::from_mode(0o755))?;
    let denied = Command::new(&program)
        .args(["backup", &other, &mgr])
        .uid(65_534)
        .gid(65_534)
        .output()?;
    ensure!(
        !denied.status.success() && said(&denied).contains("root alone"),
        "{}",
        said(&denied)
    );
    // mgr goes away meanwhile.
    cluster.freeze(Who::Mgr, true)?;
    let unanswered = pvfs(&["backup", &other, &mgr])?;
    ensure!(!unanswered.status.success(), "{}", said(&unanswered));
    cluster.freeze(Who::Mgr, false)?;
    let names: Vec<_> = fs::read_dir(&directory)?
        .map(|entry| entry.map(|entry| entry.file_name()))
        .collect::<Result<_, _>>()?;
    ensure!(names == ["backup"], "{names:?}");
    // A directory is made of it only where there is none, and only of all of it.
    let restore = |from: &Path, to: &Path| {
        Command::new(programs::find("pvfs-mgr")?)
            .arg("--restore")
            .arg(from)
            .arg("--data")
            .arg(to)
            .output()
            .context("pvfs-mgr")
    };
    let onto = restore(&file, &cluster.mgr_data())?;
    ensure!(
        !onto.status.success() && said(&onto).contains("already"),
        "{}",
        said(&onto)
    );
    let half = directory.join("half");
    let bytes = fs::read(&file)?;
    fs::write(&half, bytes.get(..bytes.len() / 2).unwrap_or_default())?;
    let new = cluster.scratch().join("restored");
    let refused = restore(&half, &new)?;
    ensure!(!refused.status.success(), "{}", said(&refused));
    let restored = restore(&file, &new)?;
    ensure!(restored.status.success(), "{}", said(&restored));
    ensure!(said(&restored).contains("era 1"), "{}", said(&restored));
    cluster.finish()
}

/// Whoever passes for root has mgr make one copy at a time, and takes nobody's time.
#[test]
fn many_who_want_backups_get_one_at_a_time() -> anyhow::Result<()> {
    let cluster = Cluster::start(Options {
        iods: 1,
        insecure_ports: true,
        ..Options::default()
    })?;
    let wanted = |copy, offset| MgrOperation::Backup { copy, offset };
    let mut first = connect_from(attacker(1), cluster.mgr_address())?;
    call(&mut first, &request(1, 0, hello())?)??;
    let deadline = Instant::now() + TIMEOUT;
    let part = loop {
        match call(&mut first, &request(1, 0, wanted(1, 0))?)? {
            Ok(MgrResponse::Backup(part @ BackupPart::Bytes { .. })) => break part,
            Ok(MgrResponse::Backup(_)) => std::thread::sleep(POLL),
            other => bail!("{other:?}"),
        }
        ensure!(Instant::now() < deadline, "it is never made");
    };
    for number in 2..200 {
        let mut stream = connect_from(attacker(1), cluster.mgr_address())?;
        call(&mut stream, &request(number, 0, hello())?)??;
        for copy in 0..10 {
            let reply = call(&mut stream, &request(number, 0, wanted(copy, 0))?)?;
            ensure!(reply == Err(FsError::Busy), "{reply:?}");
        }
    }
    fs::write(cluster.mount(0).join("file"), "1")?;
    // A part beyond the end is the end.
    let BackupPart::Bytes { bytes_total, .. } = part else {
        bail!("{part:?}")
    };
    let end = call(&mut first, &request(1, 0, wanted(1, u64::MAX))?)?;
    let is_end = matches!(&end, Ok(MgrResponse::Backup(BackupPart::Bytes { bytes, .. })) if bytes.is_empty());
    ensure!(is_end && bytes_total > 0, "{end:?}");
    let again = call(&mut first, &request(1, 0, wanted(1, 1))?)?;
    ensure!(again == Err(FsError::Stale), "{again:?}");
    cluster.finish()
}
