// SPDX-License-Identifier: MIT
//! The demo in its small form, as a user runs it: the whole cluster, and nothing left behind.

use anyhow::Context as _;
use cssns_tests::leftovers::left_of;
use cssns_tests::programs;
use std::path::Path;
use std::process::Command;

#[test]
fn the_small_demo_serves_every_byte_and_leaves_nothing() -> anyhow::Result<()> {
    programs::require_root()?;
    let output = Command::new(programs::find("cssns")?)
        .args(["demo", "--small"])
        .output()?;
    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{}\n{stdout}\n{stderr}",
        output.status
    );

    for node in ["node1", "node2", "node3"] {
        let row = stdout
            .lines()
            .find(|line| line.starts_with(node))
            .context("a row per node")?;
        let connections: u64 = row
            .split_whitespace()
            .nth(2)
            .context("connections")?
            .parse()?;
        assert!(connections > 0, "{node} served nobody:\n{stdout}");
    }
    let work = "16 downloads of 4 files by 8 clients at a time, every SHA-256 right: 80.0 MB";
    assert!(stdout.contains(work), "{stdout}");

    let first = stderr
        .lines()
        .next()
        .and_then(|line| line.strip_prefix("run "));
    let (run_id, _) = first
        .and_then(|rest| rest.split_once(','))
        .context("the run's id")?;
    assert_eq!(left_of(run_id), Vec::<String>::new(), "left behind");
    Ok(())
}

/// `mwlcd` on the director asks the nodes, and every connection has the size of the file that its client
/// requested.
#[test]
fn the_demo_learns_every_size_from_its_request() -> anyhow::Result<()> {
    programs::require_root()?;
    let output = Command::new(programs::find("cssns")?)
        .args(["demo", "--small", "--learn"])
        .output()?;
    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{}\n{stdout}\n{stderr}",
        output.status
    );
    let learned =
        "sizes: 16 of 16 connections had exactly the size of the file that they requested";
    assert!(stdout.contains(learned), "{stdout}");
    Ok(())
}

/// The demo says which part failed and where its log is, and takes the rest apart.
#[test]
fn a_failure_names_the_part_and_its_log() -> anyhow::Result<()> {
    programs::require_root()?;
    // An empty module is not one: the director's part fails, after the rest is up.
    let checkout = tempfile::tempdir()?;
    let kmod = checkout.path().join("build/kmod");
    std::fs::create_dir_all(&kmod)?;
    std::fs::write(kmod.join("ipvs_mwlc.ko"), b"not a module")?;
    let env = cssns::paths::checkout_file(cssns::vm::env::ENV_FILE).context("run `make kmod`")?;
    let output = Command::new(programs::find("cssns")?)
        .args(["demo", "--small"])
        .current_dir(checkout.path())
        .env(cssns::vm::env::ENV_FILE_VARIABLE, env)
        .output()?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{stderr}");
    assert!(stderr.contains("cssns: director: "), "{stderr}");
    let logs = stderr
        .lines()
        .find_map(|line| line.strip_prefix("cssns: logs are in "));
    let logs = Path::new(logs.context("where the logs are")?);
    assert!(logs.join("director/console.log").is_file(), "{stderr}");
    std::fs::remove_dir_all(logs)?;

    let first = stderr
        .lines()
        .next()
        .and_then(|line| line.strip_prefix("run "));
    let (run_id, _) = first
        .and_then(|rest| rest.split_once(','))
        .context("the run's id")?;
    assert_eq!(left_of(run_id), Vec::<String>::new(), "left behind");
    Ok(())
}
