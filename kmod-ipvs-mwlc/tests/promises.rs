// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The documents name tests of `selftest/` for what the director promises: they are there.

#![expect(clippy::unwrap_used, reason = "a test's helpers may fail the test")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Documents that name tests, and how many at least: a table that is gone would promise nothing.
const DOCUMENTS: [(&str, usize); 2] = [("OPERATING.md", 12), ("DIRECTOR.md", 60)];

/// Every `def test_...` in the Python files of a folder.
fn defined(folder: &Path) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "py") {
            let text = fs::read_to_string(&path).unwrap();
            let tests = text.lines().filter_map(|line| line.strip_prefix("def "));
            names.extend(
                tests
                    .filter_map(|rest| rest.split_once('('))
                    .map(|(name, _)| name.to_owned()),
            );
        }
    }
    names
}

/// Every `test_...` that stands between backquotes.
fn named(document: &str) -> BTreeSet<&str> {
    document
        .split('`')
        .skip(1)
        .step_by(2)
        .filter(|word| word.starts_with("test_") && !word.contains(['*', '.']))
        .collect()
}

#[test]
fn every_test_that_a_document_names_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut tests = defined(&root.join("selftest"));
    tests.extend(defined(&root.join("selftest/clients")));
    for (document, at_least) in DOCUMENTS {
        let text = fs::read_to_string(root.join("../docs").join(document)).unwrap();
        let names = named(&text);
        assert!(names.len() >= at_least, "{document} names {}", names.len());
        for name in names {
            assert!(tests.contains(name), "{document}: no test is called {name}");
        }
    }
}
