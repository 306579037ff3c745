// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! No function of the director can panic: compiled as the kernel compiles it, with overflow checks on,
//! its object asks for no symbol of core's panic machinery.
//!
//! Public functions leave their code in the object, but for leaves without any call or assertion, which
//! rustc keeps to inline elsewhere and which cannot panic; generic ones are instantiated in
//! `no_panic/instances.rs`.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Compiles the instances to an object in a directory of their own and returns its path.
fn compile(directory: &Path) -> PathBuf {
    let object = directory.join("instances.o");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/no_panic/instances.rs");
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
        .arg(format!("--emit=obj={}", object.display()))
        .arg(source)
        .status()
        .expect("rustc runs");
    assert!(status.success(), "rustc failed on {source}");
    object
}

fn symbols(object: &Path, filter: &str) -> Vec<String> {
    let output = Command::new("nm")
        .arg(filter)
        .arg(object)
        .output()
        .expect("nm runs (binutils)");
    assert!(output.status.success(), "nm failed");
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| line.split_whitespace().last())
        .map(str::to_owned)
        .collect()
}

#[test]
fn the_director_has_no_panic_symbol() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let object = compile(directory.path());

    let defined = symbols(&object, "--defined-only");
    for function in [
        "parse_ipv4",
        "parse_command",
        "schedule",
        "encode_connection",
        "estimate",
    ] {
        assert!(
            defined.iter().any(|symbol| symbol.contains(function)),
            "{function} is not in the object: the check would prove nothing"
        );
    }
    let panics: Vec<String> = symbols(&object, "--undefined-only")
        .into_iter()
        .filter(|symbol| {
            ["panic", "unwrap_failed", "expect_failed", "_fail"]
                .iter()
                .any(|word| symbol.contains(word))
        })
        .collect();
    assert!(panics.is_empty(), "panic symbols: {panics:#?}");
}
