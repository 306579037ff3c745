// SPDX-License-Identifier: MIT
//! How much and what a test draws at random, where its environment says so.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context;

/// The number in a variable, or `default`.
///
/// # Errors
///
/// Where it is no number.
pub fn number(name: &str, default: u64) -> anyhow::Result<u64> {
    match std::env::var(name) {
        Ok(text) => text
            .parse()
            .with_context(|| format!("{name}={text} is no number")),
        Err(_) => Ok(default),
    }
}

/// The seed in a variable, or another one each time; says which, so that a failure can be repeated.
///
/// # Errors
///
/// Where it is no number.
pub fn seed(name: &str) -> anyhow::Result<u64> {
    let clock = SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos();
    let seed = number(name, clock as u64)?;
    eprintln!("{name}={seed}");
    Ok(seed)
}
