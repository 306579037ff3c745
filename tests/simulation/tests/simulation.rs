// SPDX-License-Identifier: MIT
//! Seeds of the simulation. `SEEDS` says how many (200 without it), `SEED` runs one, aloud.
//! docs/SIMULATION.md.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may")]

use std::collections::BTreeMap;

use cssns_simulation::product_log::take_product_logs;
use cssns_simulation::run::run;

/// Seeds in `make test`: some 15 s.
const SEEDS_DEFAULT: u64 = 200;

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name}={text} is no number")),
    )
}

/// In memory: nothing in it is to last.
fn directory() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").unwrap()
}

#[test]
fn nothing_goes_wrong_whatever_the_seed() {
    take_product_logs();
    let directory = directory();
    if let Some(seed) = number("SEED") {
        let outcome = run(seed, directory.path(), true);
        assert!(outcome.failure.is_none(), "{}", outcome.failure.unwrap());
        return;
    }
    let first = number("FIRST_SEED").unwrap_or(1);
    let mut failures = BTreeMap::new();
    let mut calls = 0;
    let seeds = number("SEEDS").unwrap_or(SEEDS_DEFAULT);
    for seed in first..first + seeds {
        let outcome = run(seed, directory.path(), false);
        calls += outcome.calls;
        if let Some(failure) = outcome.failure {
            println!("{failure}");
            failures.insert(seed, failure);
        }
    }
    println!("{calls} calls");
    let seeds: Vec<_> = failures.keys().collect();
    assert!(
        failures.is_empty(),
        "seeds {seeds:?} fail; the last: {:?}",
        failures.values().last()
    );
}

#[test]
fn a_seed_does_the_same_each_time() {
    take_product_logs();
    let directory = directory();
    for seed in 1..20 {
        let first = run(seed, directory.path(), false);
        let again = run(seed, directory.path(), false);
        assert_eq!(first.fingerprint, again.fingerprint, "seed {seed}");
    }
}
