// SPDX-License-Identifier: MIT
//! `cssns vm`: one guest with the target kernel, for trying the module.

use anyhow::Context as _;
use clap::{Args, Subcommand};
use cssns::vm::{Acceleration, Addition, KmodEnv, Vm, VmConfig};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// What to do with the guest.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Boots a guest, runs commands in it, prints their output, exits with the last one's status.
    ///
    /// Each argument after `--` is one shell script; a later one runs only when those before it
    /// succeeded. The module is in the guest for `modprobe ipvs_mwlc`, and so is stock `ip_vs`.
    /// Afterwards the kernel log is searched for splats; one makes the status 99.
    Run(Run),
}

/// Arguments of `cssns vm run`.
#[derive(Debug, Args)]
pub struct Run {
    /// The director module, put where `modprobe` finds it.
    #[arg(long, value_name = "FILE")]
    module: Option<PathBuf>,
    /// Another file for the guest (with its shared libraries when it is a program).
    #[arg(long = "add", value_name = "FILE:GUESTPATH")]
    additions: Vec<Addition>,
    /// Processors of the guest.
    #[arg(long, default_value_t = 1)]
    cpus: u32,
    /// Memory of the guest, MiB.
    #[arg(long, default_value_t = 512)]
    memory_mib: u32,
    /// How instructions are executed.
    #[arg(long, env = "ACCEL", default_value = "tcg", value_name = "tcg|kvm")]
    accel: Acceleration,
    /// How long each script may take, seconds.
    #[arg(long, default_value_t = 300)]
    timeout_s: u64,
    /// Appended to the kernel's command line.
    #[arg(long, default_value = "", value_name = "ARGS")]
    append: String,
    /// Appended to QEMU's command line; may be repeated.
    #[arg(long = "qemu-arg", value_name = "ARG", allow_hyphen_values = true)]
    qemu_arguments: Vec<String>,
    /// Print the whole kernel log at the end.
    #[arg(long)]
    dmesg: bool,
    /// Keep the serial console here.
    #[arg(long, value_name = "FILE")]
    console_log: Option<PathBuf>,
    /// Shell scripts for the guest.
    #[arg(last = true, required = true)]
    scripts: Vec<String>,
}

/// Exit status when the scripts succeeded and the kernel complained.
const STATUS_SPLAT: u8 = 99;

/// Runs the verb.
pub fn run(verb: Verb) -> anyhow::Result<ExitCode> {
    match verb {
        Verb::Run(run) => run_scripts(run),
    }
}

fn run_scripts(run: Run) -> anyhow::Result<ExitCode> {
    let mut config = VmConfig::new(KmodEnv::locate()?);
    config.module = run.module;
    config.additions = run.additions;
    config.cpus = run.cpus;
    config.memory_mib = run.memory_mib;
    config.acceleration = run.accel;
    config.kernel_arguments = run.append;
    config.qemu_arguments = run.qemu_arguments;
    let dir = tempfile::Builder::new().prefix("cssns-vm-").tempdir()?;
    cssns::run::remove_on_signals(dir.path())?;
    let vm = Vm::boot(&config, dir.path());
    if let Some(kept) = &run.console_log {
        std::fs::copy(dir.path().join("console.log"), kept)
            .with_context(|| format!("keeping the console in {}", kept.display()))?;
    }
    let vm = vm?;
    let mut status = 0;
    let result = run.scripts.iter().try_for_each(|script| {
        if status == 0 {
            let output = vm.run(script, Duration::from_secs(run.timeout_s))?;
            super::print_output(&output);
            status = output.status;
        }
        anyhow::Ok(())
    });
    let log = result.is_ok().then(|| vm.dmesg()).transpose();
    if let Some(kept) = &run.console_log {
        std::fs::copy(vm.console_log(), kept)?;
    }
    result?;
    let log = log?.unwrap_or_default();
    if run.dmesg {
        println!("--- dmesg ---\n{log}");
    }
    let splats = cssns::splat::find(&log);
    for splat in &splats {
        eprintln!(
            "--- {:?} in the kernel log, line {} ---\n{}",
            splat.kind, splat.line_number, splat.excerpt
        );
    }
    vm.shutdown()?;
    if status == 0 && !splats.is_empty() {
        return Ok(ExitCode::from(STATUS_SPLAT));
    }
    Ok(ExitCode::from(u8::try_from(status).unwrap_or(1)))
}
