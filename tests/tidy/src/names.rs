// SPDX-License-Identifier: MIT
//! Tests that documents name: a promise whose test is gone is no promise.

use std::collections::HashSet;

use crate::{File, Finding};

/// A name of so many words can only be that of a test, or of something else that has to exist.
const WORDS_MIN: usize = 5;

/// Names of tests that stand in documents and nowhere in the code.
pub fn check(files: &[File]) -> Vec<Finding> {
    let mut known: HashSet<&str> = HashSet::new();
    for file in files.iter().filter(|file| !file.path.ends_with(".md")) {
        known.extend(file.text.split(|letter| !is_of_name(letter)));
    }
    let mut findings = Vec::new();
    for file in files.iter().filter(|file| file.path.ends_with(".md")) {
        for (number, line) in (1..).zip(file.text.lines()) {
            for name in line.split('`').skip(1).step_by(2) {
                let is_long = name.split('_').filter(|word| !word.is_empty()).count() >= WORDS_MIN;
                if is_long && name.chars().all(is_of_name) && !known.contains(name) {
                    findings.push(Finding {
                        place: file.path.clone(),
                        line: Some(number),
                        what: format!("there is no `{name}`"),
                    });
                }
            }
        }
    }
    findings
}

fn is_of_name(letter: char) -> bool {
    letter.is_alphanumeric() || letter == '_'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_that_is_gone_is_missed() {
        let file = |path: &str, text: &str| File {
            path: path.to_owned(),
            text: text.to_owned(),
        };
        let files = [
            file("a.rs", "fn nothing_is_lost_at_all() {}"),
            file(
                "a.md",
                "Shown by `nothing_is_lost_at_all` and\n`nothing_is_won_at_all`, not `vm_stat`.\n",
            ),
        ];
        let found: Vec<_> = check(&files).iter().map(|finding| finding.line).collect();
        assert_eq!(found, [Some(2)]);
    }
}
