// SPDX-License-Identifier: MIT
//! mwlcd, the process.

use std::io::{IsTerminal, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;
use mwlcd::cli::Arguments;
use mwlcd::director;
use mwlcd::node::Reporter;
use mwlcd::report::{KEY_BYTES_MIN, Key};
use mwlcd::sources::Sources;
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Whether the log is set up or not, the reason is on standard error.
            let _ = writeln!(std::io::stderr(), "mwlcd: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    let filter = EnvFilter::try_new(&arguments.log)
        .with_context(|| format!("--log {}: no such level", arguments.log))?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();
    let key = arguments.key_file.as_deref().map(read_key).transpose()?;
    match (&arguments.director, &arguments.mount, key) {
        (Some(director), Some(mount), Some(key)) if arguments.node => {
            let mount = mount
                .canonicalize()
                .with_context(|| format!("--mount {}", mount.display()))?;
            let reporter = Reporter {
                mount,
                director: director.clone(),
                address: arguments.address,
                interval: Duration::from_millis(arguments.interval_ms),
            };
            reporter.run(&key)
        }
        (_, _, key) => director::run(Sources::open(arguments)?, arguments.listen.zip(key)),
    }
}

fn read_key(path: &Path) -> Result<Key> {
    let show = path.display();
    let bytes = std::fs::read(path).with_context(|| format!("--key-file {show}"))?;
    let others = std::fs::metadata(path)?.permissions().mode() & 0o077;
    if others != 0 {
        tracing::warn!("{show} can be read by others than its owner: chmod 600 {show}");
    }
    Key::new(&bytes)
        .with_context(|| format!("--key-file {show}: a key has at least {KEY_BYTES_MIN} bytes"))
}
