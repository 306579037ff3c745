// SPDX-License-Identifier: MIT
//! Links of the documents to files of the tree and to headings in them.

use std::collections::{HashMap, HashSet};

use crate::{File, Finding};

/// Links that lead nowhere.
pub fn check(files: &[File]) -> Vec<Finding> {
    let mut places: HashSet<String> = HashSet::new();
    let mut anchors: HashMap<&str, HashSet<String>> = HashMap::new();
    for file in files {
        places.insert(file.path.clone());
        for (at, _) in file.path.match_indices('/') {
            places.insert(file.path[..at].to_owned());
        }
        if file.path.ends_with(".md") {
            anchors.insert(&file.path, headings(&file.text));
        }
    }
    let mut findings = Vec::new();
    for file in files.iter().filter(|file| file.path.ends_with(".md")) {
        for (line, target) in targets(&file.text) {
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
            let path = if path.is_empty() {
                file.path.clone()
            } else {
                resolved(&file.path, path)
            };
            let is_there = places.contains(&path)
                && (anchor.is_empty()
                    || anchors
                        .get(path.as_str())
                        .is_some_and(|headings| headings.contains(anchor)));
            if !is_there {
                findings.push(Finding {
                    place: file.path.clone(),
                    line: Some(line),
                    what: format!("the link `{target}` leads nowhere"),
                });
            }
        }
    }
    findings
}

/// What the links `[text](target)` outside of code point at, each with its line.
fn targets(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let mut is_code = false;
    for (number, line) in (1..).zip(text.lines()) {
        if line.trim_start().starts_with("```") {
            is_code = !is_code;
        }
        if is_code {
            continue;
        }
        let mut rest = line;
        while let Some((_, after)) = rest.split_once("](") {
            let Some((target, after)) = after.split_once(')') else {
                break;
            };
            found.push((number, target));
            rest = after;
        }
    }
    found
}

/// The anchors that a document's headings have, as forges make them.
fn headings(text: &str) -> HashSet<String> {
    let mut found = HashSet::new();
    let mut is_code = false;
    for line in text.lines() {
        if line.starts_with("```") {
            is_code = !is_code;
        } else if !is_code && line.starts_with('#') {
            let words = line.trim_start_matches('#').trim().to_lowercase();
            let anchor = words
                .chars()
                .filter(|letter| letter.is_alphanumeric() || matches!(letter, ' ' | '-' | '_'))
                .map(|letter| if letter == ' ' { '-' } else { letter })
                .collect();
            found.insert(anchor);
        }
    }
    found
}

/// The path from the top of the tree that `target` means in the document `from`.
fn resolved(from: &str, target: &str) -> String {
    let mut parts: Vec<&str> = from.split('/').collect();
    parts.pop();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            name => parts.push(name),
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_to_files_folders_and_headings_are_followed() {
        let file = |path: &str, text: &str| File {
            path: path.to_owned(),
            text: text.to_owned(),
        };
        let files = [
            file(
                "docs/A.md",
                "# A tale, of `two`\n[b](../B.md) [c](decisions) [d](C.md)\n",
            ),
            file(
                "B.md",
                "[a](docs/A.md#a-tale-of-two)\n[b](docs/A.md#three) [w](https://w.org/x)\n",
            ),
            file("docs/decisions/0001.md", "```\n[code](nowhere)\n```\n"),
        ];
        let found: Vec<_> = check(&files)
            .into_iter()
            .map(|finding| (finding.place, finding.line.unwrap_or_default()))
            .collect();
        assert_eq!(found, [("docs/A.md".to_owned(), 2), ("B.md".to_owned(), 2)]);
    }
}
