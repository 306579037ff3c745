// SPDX-License-Identifier: MIT
//! Looks through the files that git knows, and says where they break a rule of the house that no compiler
//! knows. `make check` runs it.

mod lines;
mod links;
mod names;
mod rooms;

use std::process::{Command, ExitCode};

use anyhow::{Context, ensure};

/// A file of the tree.
pub struct File {
    /// Its path from the top of the tree.
    pub path: String,
    /// What is in it.
    pub text: String,
}

/// Where a rule is broken.
pub struct Finding {
    /// A file's path, or the name of a crate.
    pub place: String,
    /// The line, counted from 1, where it is about one.
    pub line: Option<usize>,
    /// What is wrong, and what would be right.
    pub what: String,
}

fn main() -> anyhow::Result<ExitCode> {
    let files = files()?;
    let mut findings = Vec::new();
    for file in &files {
        findings.extend(lines::check(file));
    }
    findings.extend(links::check(&files));
    findings.extend(names::check(&files));
    findings.extend(rooms::check(&files));
    for Finding { place, line, what } in &findings {
        match line {
            Some(line) => println!("{place}:{line}: {what}"),
            None => println!("{place}: {what}"),
        }
    }
    println!("tidy: {} files, {} findings", files.len(), findings.len());
    Ok(if findings.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// The text files of the tree, as they are in the work tree.
fn files() -> anyhow::Result<Vec<File>> {
    let listed = Command::new("git")
        .args([
            "ls-files",
            "-z",
            "--cached",
            "--others",
            "--exclude-standard",
        ])
        .output()
        .context("git ls-files")?;
    ensure!(listed.status.success(), "git ls-files: {}", listed.status);
    let paths = String::from_utf8(listed.stdout).context("a file's name")?;
    let mut files = Vec::new();
    for path in paths.split_terminator('\0') {
        // What was removed and is not committed yet is listed, and what is no text has no lines.
        let Ok(bytes) = std::fs::read(path) else {
            continue;
        };
        if let Ok(text) = String::from_utf8(bytes) {
            files.push(File {
                path: path.to_owned(),
                text,
            });
        }
    }
    ensure!(!files.is_empty(), "git knows no file here");
    Ok(files)
}
