// SPDX-License-Identifier: MIT
//! `pvfs-workload KIND SEED DIR`: the work of [`cssns_tests::workload`], until its input ends.

use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;
use cssns_tests::workload::{Kind, perform};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<()> {
    let mut words = std::env::args_os().skip(1);
    let kind = words
        .next()
        .and_then(|word| Kind::from_name(word.to_str()?))
        .context("which kind?")?;
    let seed = words
        .next()
        .and_then(|word| word.to_str()?.parse().ok())
        .context("which seed?")?;
    let root = PathBuf::from(words.next().context("where?")?);
    let stop = Arc::new(AtomicBool::new(false));
    let asked = Arc::clone(&stop);
    std::thread::spawn(move || {
        // Whether it ends or fails, nobody wants more.
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        asked.store(true, Ordering::Relaxed);
    });
    let mut number = 0;
    let mut out = std::io::stdout();
    while !stop.load(Ordering::Relaxed) {
        perform(&root, kind, seed, number)?;
        writeln!(out, "{number}")?;
        out.flush()?;
        number += 1;
    }
    Ok(())
}
