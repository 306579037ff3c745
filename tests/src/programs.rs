// SPDX-License-Identifier: MIT
//! Where the programs under test are: in the target directory of this build.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail, ensure};

/// The program `name`, built with the same profile as the running test.
///
/// # Errors
///
/// Where it has not been built: says how to.
pub fn find(name: &str) -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe().context("cannot find the test's own file")?;
    // target/PROFILE/deps/TEST for a test, target/PROFILE/NAME for a program of this package.
    let mut dir = own
        .parent()
        .context("the test's own file has no directory")?;
    if dir.ends_with("deps") {
        dir = dir.parent().context("deps has no directory above it")?;
    }
    let program = dir.join(name);
    if !program.is_file() {
        let release = if dir.ends_with("release") {
            " --release"
        } else {
            ""
        };
        bail!(
            "{} is not built: run `cargo build --workspace --bins{release}` first (`make test` does)",
            program.display()
        );
    }
    Ok(program)
}

/// Has a daemon make its data directory of the empty or missing `data`.
///
/// # Errors
///
/// What it says.
pub fn make_data(daemon: &str, data: &Path) -> anyhow::Result<()> {
    let output = Command::new(find(daemon)?)
        .arg("--init")
        .arg("--data")
        .arg(data)
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{daemon} --init: {said}");
    Ok(())
}

/// Fails where the test does not run as root, which mounts need.
///
/// # Errors
///
/// Where the effective user is another one.
pub fn require_root() -> anyhow::Result<()> {
    if nix::unistd::geteuid().is_root() {
        Ok(())
    } else {
        bail!("this test mounts file systems: run it as root")
    }
}
