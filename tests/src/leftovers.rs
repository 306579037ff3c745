// SPDX-License-Identifier: MIT
//! What a run of the cluster left on this machine.

use std::path::Path;

/// Whatever carries the run's name: namespaces, directories, its ledger, mounts, processes.
#[must_use]
pub fn left_of(run_id: &str) -> Vec<String> {
    let places = [
        Path::new("/run/netns"),
        Path::new("/run/cssns"),
        &std::env::temp_dir(),
    ];
    let entries = places
        .iter()
        .filter_map(|dir| std::fs::read_dir(dir).ok())
        .flatten()
        .flatten();
    let mut left: Vec<String> = entries
        .map(|entry| entry.path().display().to_string())
        .filter(|path| path.contains(run_id))
        .collect();
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    left.extend(
        mounts
            .lines()
            .filter(|line| line.contains(run_id))
            .map(str::to_owned),
    );
    let processes = cssns::process::of_run(run_id);
    left.extend(
        processes
            .iter()
            .map(|process| cssns::process::command_line(process.pid)),
    );
    left
}
