// SPDX-License-Identifier: MIT
//! The demo in its small form, as a user runs it: the whole cluster, and nothing left behind.

use cssns_tests::programs;
use std::collections::BTreeSet;
use std::process::Command;

/// Network namespaces, run directories and ledgers of the demo that are there now.
fn traces() -> BTreeSet<String> {
    let places = [
        "/run/netns",
        "/run/cssns",
        &std::env::temp_dir().display().to_string(),
    ];
    let entries = places
        .iter()
        .filter_map(|dir| std::fs::read_dir(dir).ok())
        .flatten()
        .flatten();
    let paths = entries.map(|entry| entry.path().display().to_string());
    paths.filter(|path| path.contains("cssns")).collect()
}

fn run_ids(traces: &BTreeSet<String>) -> BTreeSet<String> {
    let ids = traces
        .iter()
        .filter_map(|path| path.strip_prefix("/run/cssns/")?.strip_suffix(".json"));
    ids.map(str::to_owned).collect()
}

#[test]
fn the_small_demo_serves_every_byte_and_leaves_nothing() -> anyhow::Result<()> {
    programs::require_root()?;
    let before = traces();
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
            .expect(node);
        let connections: u64 = row.split_whitespace().nth(2).expect(row).parse()?;
        assert!(connections > 0, "{node} served nobody:\n{stdout}");
    }
    assert!(stdout.contains("16 downloads of 4 files by 8 clients at a time, every SHA-256 right"));
    assert!(stdout.contains("director: "), "{stdout}");

    // Other runs may come and go meanwhile; what is new and belongs to no run is a leak.
    let after = traces();
    let others = run_ids(&after);
    let left: Vec<&String> = after
        .difference(&before)
        .filter(|path| path.contains("/cssns-") && !others.iter().any(|run| path.contains(run)))
        .filter(|path| !path.contains("cssns-director-test-") && !path.contains("cssns-test-"))
        .collect();
    assert!(left.is_empty(), "left behind: {left:?}");
    Ok(())
}
