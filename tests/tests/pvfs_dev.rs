// SPDX-License-Identifier: MIT
//! `pvfs dev` and the commands that inspect what it runs.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use cssns_tests::operation::Data;
use cssns_tests::programs;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Until `pvfs dev` has stopped, or what it left behind has gone.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(20);

/// A running `pvfs dev`.
struct Dev {
    child: Child,
    data: PathBuf,
    points: Vec<PathBuf>,
    ready: String,
}

impl Dev {
    fn start(dir: &Path, iods: u32, mounts: u32) -> anyhow::Result<Self> {
        programs::require_root()?;
        let data = dir.join("data");
        let points: Vec<PathBuf> = (0..mounts)
            .map(|index| dir.join(format!("mounts/m{index}")))
            .collect();
        let mut command = Command::new(programs::find("pvfs")?);
        command
            .args(["dev", "--iods", &iods.to_string(), "--data"])
            .arg(&data);
        for point in &points {
            command.arg("--mount").arg(point);
        }
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let mut ready = String::new();
        BufReader::new(child.stdout.as_mut().context("no pipe")?).read_line(&mut ready)?;
        let mut dev = Self {
            child,
            data,
            points,
            ready,
        };
        if !dev.ready.starts_with("ready ") {
            bail!("pvfs dev did not get ready: {}", dev.stderr()?);
        }
        Ok(dev)
    }

    fn stderr(&mut self) -> anyhow::Result<String> {
        let mut text = String::new();
        self.child
            .stderr
            .as_mut()
            .context("no pipe")?
            .read_to_string(&mut text)?;
        Ok(text)
    }

    fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        Ok(kill(
            Pid::from_raw(i32::try_from(self.child.id())?),
            signal,
        )?)
    }

    fn mgr(&self) -> anyhow::Result<&str> {
        let mut words = self.ready.split([' ', ',']);
        words
            .nth(2)
            .with_context(|| format!("no address in `{}`", self.ready))
    }

    /// Waits for the end and checks that nothing is left behind.
    fn ended(mut self) -> anyhow::Result<(ExitStatus, String)> {
        let status = wait(&mut self.child)?;
        let stderr = self.stderr()?;
        self.nothing_left()?;
        Ok((status, stderr))
    }

    fn nothing_left(&self) -> anyhow::Result<()> {
        until("processes or mounts are left", || {
            Ok(processes_of(&self.data)?.is_empty()
                && self.points.iter().all(|point| !is_mounted(point)))
        })
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.signal(Signal::SIGTERM);
            let _ = wait(&mut self.child);
        }
    }
}

fn wait(child: &mut Child) -> anyhow::Result<ExitStatus> {
    let mut status = None;
    until("it does not end", || {
        status = child.try_wait()?;
        Ok(status.is_some())
    })?;
    status.context("no status")
}

fn until(what: &str, mut done: impl FnMut() -> anyhow::Result<bool>) -> anyhow::Result<()> {
    let deadline = Instant::now() + STOP_TIMEOUT;
    while !done()? {
        ensure!(Instant::now() < deadline, "{what} after {STOP_TIMEOUT:?}");
        std::thread::sleep(POLL);
    }
    Ok(())
}

fn is_mounted(point: &Path) -> bool {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    table
        .lines()
        .any(|line| line.split(' ').nth(4) == point.to_str())
}

/// Processes whose command line names something below `data` or a mount beside it.
fn processes_of(data: &Path) -> anyhow::Result<Vec<i32>> {
    let needle = data
        .parent()
        .context("no parent")?
        .to_string_lossy()
        .into_owned();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).into_owned();
        let is_daemon = ["pvfs-mgr", "pvfs-iod", "pvfs-fuse"]
            .iter()
            .any(|d| line.contains(d));
        if is_daemon && line.contains(&needle) {
            found.push(pid);
        }
    }
    Ok(found)
}

fn pvfs(arguments: &[&str]) -> anyhow::Result<Output> {
    Ok(Command::new(programs::find("pvfs")?)
        .args(arguments)
        .env_remove("PVFS_MGR")
        .output()?)
}

fn succeed(arguments: &[&str]) -> anyhow::Result<String> {
    let output = pvfs(arguments)?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "pvfs {arguments:?}: {}: {stderr}",
        output.status
    );
    Ok(String::from_utf8(output.stdout)?)
}

fn text(path: &Path) -> anyhow::Result<&str> {
    path.to_str().context("a path that is no UTF-8")
}

#[test]
fn ready_then_sigterm_then_the_data_again() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let content = Data {
        seed: 5,
        length: 3_000_000,
    }
    .bytes();
    let dev = Dev::start(dir.path(), 3, 2)?;
    std::fs::write(dev.points[0].join("f"), &content)?;
    ensure!(
        std::fs::read(dev.points[1].join("f"))? == content,
        "the other mount differs"
    );
    dev.signal(Signal::SIGTERM)?;
    let (status, stderr) = dev.ended()?;
    ensure!(status.code() == Some(0), "{status}: {stderr}");

    let dev = Dev::start(dir.path(), 3, 1)?;
    ensure!(
        std::fs::read(dev.points[0].join("f"))? == content,
        "the data is not there again"
    );
    dev.signal(Signal::SIGINT)?;
    let (status, stderr) = dev.ended()?;
    ensure!(status.code() == Some(0), "{status}: {stderr}");

    let dev = Dev::start(dir.path(), 4, 1)?;
    ensure!(
        std::fs::read(dev.points[0].join("f"))? == content,
        "one more iod hides the data"
    );
    dev.signal(Signal::SIGHUP)?;
    let (status, stderr) = dev.ended()?;
    ensure!(status.code() == Some(0), "{status}: {stderr}");
    Ok(())
}

#[test]
fn a_dead_daemon_ends_it_and_is_named() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let dev = Dev::start(dir.path(), 2, 1)?;
    let iod1 = processes_of(&dev.data)?.into_iter().find(|pid| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains("/iod1")
    });
    kill(
        Pid::from_raw(iod1.context("iod1 does not run")?),
        Signal::SIGKILL,
    )?;
    let (status, stderr) = dev.ended()?;
    ensure!(status.code() == Some(1), "{status}: {stderr}");
    ensure!(
        stderr.contains("iod1 ended") && stderr.contains("log/iod1.log"),
        "{stderr}"
    );
    Ok(())
}

#[test]
fn a_killed_dev_leaves_nothing_and_can_start_again() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let mut dev = Dev::start(dir.path(), 2, 1)?;
    std::fs::write(dev.points[0].join("f"), "kept")?;
    dev.signal(Signal::SIGKILL)?;
    dev.child.wait()?;
    let again = Dev::start(dir.path(), 2, 1);
    let again = match again {
        Ok(again) => again,
        Err(error) => {
            dev.nothing_left()?;
            return Err(error);
        }
    };
    ensure!(
        std::fs::read(again.points[0].join("f"))? == b"kept",
        "the data is not there again"
    );
    again.signal(Signal::SIGKILL)?;
    let mut again = again;
    again.child.wait()?;
    again.nothing_left()
}

#[test]
fn what_cannot_work_is_refused_before_anything_starts() -> anyhow::Result<()> {
    programs::require_root()?;
    let dir = tempfile::tempdir()?;
    let (data, full) = (dir.path().join("data"), dir.path().join("full"));
    std::fs::create_dir(&full)?;
    std::fs::write(full.join("something"), "")?;
    let (data, full) = (text(&data)?, text(&full)?);
    let refused = |arguments: &[&str], why: &str| -> anyhow::Result<()> {
        let output = pvfs(arguments)?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        ensure!(
            !output.status.success() && stderr.contains(why),
            "{arguments:?}: {stderr}"
        );
        ensure!(output.stdout.is_empty(), "a ready line all the same");
        Ok(())
    };
    refused(&["dev", "--data", data, "--mount", full], "is not empty")?;
    refused(
        &["dev", "--data", full, "--mount", data],
        "holds no PVFS data",
    )?;
    refused(
        &["dev", "--data", data, "--mount", "/proc"],
        "already a mount point",
    )?;
    refused(
        &["dev", "--iods", "0", "--data", data, "--mount", full],
        "0 is not in",
    )?;
    Ok(())
}

#[test]
fn ping_says_who_is_alive() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let dev = Dev::start(dir.path(), 2, 1)?;
    let mgr = dev.mgr()?.to_owned();
    let alive = succeed(&["ping", &mgr])?;
    ensure!(alive.matches("alive").count() == 3, "{alive}");
    // The mgr is found by a path on the mount as well.
    succeed(&["ping", text(&dev.points[0])?])?;
    let stopped = processes_of(&dev.data)?.into_iter().find(|pid| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains("/iod0")
    });
    let stopped = Pid::from_raw(stopped.context("iod0 does not run")?);
    // A stopped process answers nothing, and is not dead either.
    kill(stopped, Signal::SIGSTOP)?;
    let output = pvfs(&["ping", "--timeout", "0.5", &mgr])?;
    kill(stopped, Signal::SIGCONT)?;
    let lines = String::from_utf8(output.stdout)?;
    ensure!(output.status.code() == Some(1), "{lines}");
    ensure!(
        lines.contains("stopped answering") && lines.contains("alive"),
        "{lines}"
    );
    drop(dev);
    let output = pvfs(&["ping", &mgr])?;
    ensure!(output.status.code() == Some(1), "a dead mgr");
    for usage in [
        &["ping", "host:notaport"][..],
        &["ping", "--timeout", "x"],
        &["ping", "a", "b"],
    ] {
        ensure!(pvfs(usage)?.status.code() == Some(2), "{usage:?}");
    }
    Ok(())
}

#[test]
fn stat_df_layout_and_cp_tell_the_truth() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let dev = Dev::start(dir.path(), 3, 1)?;
    let point = dev.points[0].clone();
    let inside = point.join("sub");
    std::fs::create_dir(&inside)?;
    let inside_text = text(&inside)?;
    succeed(&[
        "layout",
        "set",
        "--stripe-size",
        "64K",
        "--pcount",
        "2",
        "--base",
        "1",
        inside_text,
    ])?;
    let shown = succeed(&["layout", "get", inside_text])?;
    ensure!(
        shown.contains("--stripe-size 64K --pcount 2 --base 1"),
        "{shown}"
    );

    let source = dir.path().join("source");
    let content = Data {
        seed: 9,
        length: 5_000_000,
    }
    .bytes();
    std::fs::write(&source, &content)?;
    let copy = inside.join("copy");
    let summary = succeed(&["cp", "--verify", "--sync", text(&source)?, text(&copy)?])?;
    ensure!(summary.contains("MB/s direct, verified"), "{summary}");
    ensure!(
        std::fs::read(&copy)? == content,
        "the copy differs through the mount"
    );

    let reports: serde_json::Value =
        serde_json::from_str(&succeed(&["stat", "--json", text(&copy)?])?)?;
    let report = &reports[0];
    ensure!(
        report["size"] == 5_000_000 && report["stripe_size"] == 65_536,
        "{report}"
    );
    ensure!(report["pcount"] == 2 && report["base"] == 1, "{report}");
    let bytes: u64 = report["iods"]
        .as_array()
        .context("iods")?
        .iter()
        .filter_map(|part| part["bytes"].as_u64())
        .sum();
    ensure!(bytes == 5_000_000, "the parts do not add up: {report}");

    let space: serde_json::Value = serde_json::from_str(&succeed(&["df", "--json", inside_text])?)?;
    ensure!(space["iods"].as_array().map(Vec::len) == Some(3), "{space}");
    ensure!(space["total"]["bytes_total"].as_u64() > Some(0), "{space}");

    tree_there_and_back(dir.path(), &point)?;
    dev.signal(Signal::SIGTERM)?;
    let (status, stderr) = dev.ended()?;
    ensure!(status.success(), "{stderr}");
    Ok(())
}

/// A tree with links and modes, into PVFS and out again, directly and through the mount.
fn tree_there_and_back(dir: &Path, point: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let tree = dir.join("tree");
    std::fs::create_dir_all(tree.join("a/b"))?;
    for number in 0..40u64 {
        let length = usize::try_from(number * number * 37)?;
        let path = tree.join(format!("a/b/f{number}"));
        std::fs::write(
            &path,
            Data {
                seed: number,
                length,
            }
            .bytes(),
        )?;
        std::fs::set_permissions(
            &path,
            std::fs::Permissions::from_mode(0o600 | (number as u32 & 0o77)),
        )?;
    }
    std::os::unix::fs::symlink("b/f3", tree.join("a/link"))?;
    for (flag, name) in [("--quiet", "direct"), ("--no-direct", "mounted")] {
        let (there, back) = (point.join(name), dir.join(name));
        succeed(&["cp", "-r", "-p", flag, text(&tree)?, text(&there)?])?;
        succeed(&["cp", "-r", "-p", flag, text(&there)?, text(&back)?])?;
        let difference = Command::new("diff")
            .arg("-r")
            .arg(&tree)
            .arg(&back)
            .output()?;
        ensure!(
            difference.status.success(),
            "{}",
            String::from_utf8_lossy(&difference.stdout)
        );
        for number in 0..40 {
            let of = |root: &Path| std::fs::metadata(root.join(format!("a/b/f{number}")));
            let (before, after) = (of(&tree)?, of(&back)?);
            ensure!(
                before.permissions() == after.permissions(),
                "mode of f{number}"
            );
            ensure!(before.modified()? == after.modified()?, "time of f{number}");
        }
    }
    let output = pvfs(&["cp", text(&tree)?, text(point)?])?;
    ensure!(
        output.status.code() == Some(1),
        "a directory without -r is refused"
    );
    Ok(())
}
