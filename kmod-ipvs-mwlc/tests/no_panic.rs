// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! No function of the director can panic: compiled as the kernel compiles it, with overflow checks on,
//! none of them reaches core's panic machinery.
//!
//! The assembly of everything, also of what nobody calls, is read as a graph of calls. It starts at the
//! director's own functions and not at core's provided trait methods, which rustc also instantiates
//! for our types (`Ord::clamp`, `Iterator::step_by`) and which the module never has unless we call them.

#![expect(clippy::expect_used, reason = "a test's helpers may fail the test")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

/// Functions, each with the symbols that its code mentions.
type Calls = BTreeMap<String, BTreeSet<String>>;

/// Symbols with one of these words are core's ways to panic.
const PANIC_WORDS: [&str; 4] = ["panic", "unwrap_failed", "expect_failed", "_fail"];

fn assembly(directory: &Path, source: &Path) -> String {
    let output = directory.join("instances.s");
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let status = Command::new(rustc)
        .args([
            "--edition",
            "2021",
            "--crate-type",
            "lib",
            "--crate-name",
            "instances",
        ])
        .args([
            "-C",
            "opt-level=2",
            "-C",
            "overflow-checks=on",
            "-C",
            "panic=abort",
        ])
        .args(["-C", "codegen-units=1", "-C", "symbol-mangling-version=v0"])
        // Small functions would otherwise wait for their callers and leave no code behind.
        .args(["-C", "link-dead-code=on"])
        .arg(format!("--emit=asm={}", output.display()))
        .arg(source)
        .status()
        .expect("rustc runs");
    assert!(status.success(), "rustc failed on {}", source.display());
    std::fs::read_to_string(&output).expect("rustc wrote the assembly")
}

fn calls(assembly: &str) -> Calls {
    let mut calls = Calls::new();
    let mut function = None;
    for line in assembly.lines() {
        if let Some(label) = line
            .strip_suffix(':')
            .filter(|label| label.starts_with("_R"))
        {
            calls.entry(label.to_owned()).or_default();
            function = Some(label.to_owned());
        } else if let (Some(function), true) = (&function, is_instruction(line)) {
            let symbols = line
                .split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
                .filter(|word| word.starts_with("_R"))
                .map(str::to_owned);
            calls.entry(function.clone()).or_default().extend(symbols);
        }
    }
    calls
}

/// Directives (`.globl` of the function that follows) are not.
fn is_instruction(line: &str) -> bool {
    line.starts_with('\t') && !line.starts_with("\t.")
}

/// Whether a v0 symbol is a function, inherent method or trait method written in the director.
fn is_ours(symbol: &str) -> bool {
    let path = symbol
        .trim_start_matches("_R")
        .trim_start_matches(['I', 'N', 'v', 'C']);
    let provided = path.starts_with('Y');
    let ours = symbol.find("9instances").unwrap_or(usize::MAX);
    let core = symbol.find("4core").unwrap_or(usize::MAX);
    !provided && ours < core
}

/// Every chain of calls from one of our functions to a panic, by its last step.
fn panics(calls: &Calls) -> Vec<String> {
    let mut found = Vec::new();
    let mut seen: BTreeSet<&String> = calls.keys().filter(|symbol| is_ours(symbol)).collect();
    let mut open: Vec<&String> = seen.iter().copied().collect();
    while let Some(function) = open.pop() {
        for callee in calls.get(function).into_iter().flatten() {
            if PANIC_WORDS.iter().any(|word| callee.contains(word)) {
                found.push(format!("{function} -> {callee}"));
            } else if seen.insert(callee) {
                open.push(callee);
            }
        }
    }
    found
}

#[test]
fn the_director_cannot_panic() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/no_panic/instances.rs");
    let calls = calls(&assembly(directory.path(), &source));
    let ours: Vec<&String> = calls.keys().filter(|symbol| is_ours(symbol)).collect();
    for function in [
        "6packet5parse",
        "13parse_command",
        "6choose",
        "4fill",
        "17encode_connection",
        "13after_removal",
    ] {
        assert!(
            ours.iter().any(|symbol| symbol.contains(function)),
            "{function} is not in the assembly: the check would prove nothing"
        );
    }
    let panics = panics(&calls);
    assert!(panics.is_empty(), "ways to panic: {panics:#?}");
}

#[test]
fn the_check_finds_an_index_and_an_overflow() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let source = directory.path().join("instances.rs");
    let code = "#![no_std]\n\
        pub mod director {\n\
            pub fn indexes(bytes: &[u8], at: usize) -> u8 { bytes[at] }\n\
            pub fn overflows(number: u32) -> u32 { number + 1 }\n\
            pub fn counts(bytes: &[u8]) -> Option<usize> {\n\
                bytes.iter().position(|byte| *byte == 0).map(|at| at.wrapping_add(1))\n\
            }\n\
        }\n";
    std::fs::write(&source, code).expect("the temporary directory is writable");
    let panics = panics(&calls(&assembly(directory.path(), &source)));
    for function in ["7indexes", "9overflows"] {
        assert!(
            panics.iter().any(|chain| chain.contains(function)),
            "{function}: {panics:?}"
        );
    }
    assert!(
        !panics.iter().any(|chain| chain.contains("6counts")),
        "{panics:?}"
    );
}
