// SPDX-License-Identifier: MIT
//! Rules for single lines: how long they are, and comments that say nothing.

use crate::{File, Finding};

/// How many characters a line may have.
const LENGTH_MAX: usize = 120;

/// Files whose lines a program or a format makes as long as it likes.
fn is_exempt(path: &str) -> bool {
    const KINDS: [&str; 4] = [".svg", ".lock", "LICENSE-GPL-2.0", "LICENSE-MIT"];
    KINDS.iter().any(|kind| path.ends_with(kind))
        || path.starts_with("docs/man/")
        || path.contains("fuzz/corpus/")
}

/// Comments whose whole text is one of these say nothing where they stand.
const FILLERS: [&str; 6] = [
    "Who",
    "None",
    "The same",
    "See the module",
    "That one",
    "Its own",
];

/// What is wrong with the lines of `file`.
pub fn check(file: &File) -> Vec<Finding> {
    if is_exempt(&file.path) {
        return Vec::new();
    }
    let is_rust = file.path.ends_with(".rs");
    let finding = |line, what| Finding {
        place: file.path.clone(),
        line: Some(line),
        what,
    };
    let mut findings = Vec::new();
    for (number, line) in (1..).zip(file.text.lines()) {
        let length = line.chars().count();
        if length > LENGTH_MAX {
            findings.push(finding(
                number,
                format!("{length} characters; {LENGTH_MAX} are allowed"),
            ));
        }
        if is_rust && is_filler(line) {
            findings.push(finding(number, "a comment that says nothing".to_owned()));
        }
    }
    findings
}

fn is_filler(line: &str) -> bool {
    let Some(comment) = line.trim_start().strip_prefix("//") else {
        return false;
    };
    let words = comment
        .trim_start_matches(['/', '!'])
        .trim()
        .trim_end_matches('.');
    FILLERS.contains(&words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(path: &str, text: &str) -> Vec<usize> {
        let file = File {
            path: path.to_owned(),
            text: text.to_owned(),
        };
        check(&file)
            .iter()
            .filter_map(|finding| finding.line)
            .collect()
    }

    #[test]
    fn long_lines_are_found_by_characters() {
        let (fits, long) = ("ü".repeat(LENGTH_MAX), "ü".repeat(LENGTH_MAX + 1));
        assert_eq!(findings("a.md", &format!("{fits}\n{long}\n{fits}")), [2]);
        assert!(findings("docs/figure.svg", &long).is_empty());
    }

    #[test]
    fn comments_that_say_nothing_are_found() {
        let text =
            "/// The same.\nlet a = 1; // None.\n    //! Who\n/// The same as before a restart.\n";
        assert_eq!(findings("a.rs", text), [1, 3]);
        assert!(findings("a.md", "/// Who.").is_empty());
    }
}
