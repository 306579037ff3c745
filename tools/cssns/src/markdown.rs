// SPDX-License-Identifier: MIT
//! Documents that programs write: sections between two markers, which are theirs, and lines of a bounded
//! length.

use std::io::ErrorKind;
use std::path::Path;

use anyhow::Context;

/// How long a line may be, in characters. Tables and code are left as they are.
const WIDTH: usize = 110;

/// `text` with the lines of its paragraphs and lists broken where they are too long.
#[must_use]
pub fn wrapped(text: &str) -> String {
    let mut result = String::with_capacity(text.len());
    let mut is_code = false;
    for line in text.lines() {
        is_code ^= line.starts_with("```");
        if is_code || line.starts_with(['|', '#', '!', '<']) {
            result.push_str(line);
        } else {
            let hanging = if line.starts_with("- ") { "  " } else { "" };
            let options = textwrap::Options::new(WIDTH)
                .subsequent_indent(hanging)
                .break_words(false)
                .word_splitter(textwrap::WordSplitter::NoHyphenation);
            result.push_str(&textwrap::fill(line, options));
        }
        result.push('\n');
    }
    result
}

/// A section, and where it goes when it is not there yet.
#[derive(Debug, Clone, Copy)]
pub struct Section {
    /// The heading above it, like `## PVFS`, written once.
    pub heading: &'static str,
    /// The line before it.
    pub begin: &'static str,
    /// The line behind it.
    pub end: &'static str,
}

impl Section {
    /// Replaces the section of the file `document`, which is made if missing.
    ///
    /// # Errors
    /// Where the file cannot be read or written.
    pub fn write(&self, document: &Path, text: &str) -> anyhow::Result<()> {
        let before = match std::fs::read_to_string(document) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => "# Performance\n".into(),
            Err(error) => return Err(error).with_context(|| document.display().to_string()),
        };
        std::fs::write(document, self.replaced_in(&before, text))
            .with_context(|| document.display().to_string())
    }

    /// `document` with the text between the markers replaced.
    #[must_use]
    pub fn replaced_in(&self, document: &str, text: &str) -> String {
        let Self {
            heading,
            begin,
            end,
        } = self;
        let section = format!("{begin}\n{}{end}", wrapped(text));
        let parts = document
            .split_once(begin)
            .and_then(|(before, rest)| rest.split_once(end).map(|(_, after)| (before, after)));
        match parts {
            Some((before, after)) => format!("{before}{section}{after}"),
            None => format!("{}\n\n{heading}\n\n{section}\n", document.trim_end()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_paragraphs_and_items_are_broken_and_tables_are_not() {
        let words = "word ".repeat(60);
        let (row, code) = (format!("| {words}|"), format!("```\n{words}\n```"));
        let text = wrapped(&format!("{words}\n\n- {words}\n\n{row}\n{code}\n"));
        assert!(text.contains(&row) && text.contains(&code));
        let broken = text.replace(&row, "").replace(&code, "");
        assert!(broken.lines().all(|line| line.chars().count() <= WIDTH));
        assert_eq!(broken.matches("word").count(), 120);
        assert_eq!(
            broken
                .lines()
                .filter(|line| line.starts_with("  word"))
                .count(),
            2
        );
    }

    #[test]
    fn a_section_is_added_once_and_then_replaced() {
        let section = Section {
            heading: "## PVFS",
            begin: "<!-- begin -->",
            end: "<!-- end -->",
        };
        let once = section.replaced_in("# Performance\n\nWords.\n", "first\n");
        let twice = section.replaced_in(&(once.clone() + "\nAfter.\n"), "second\n");
        assert!(once.contains("Words.\n\n## PVFS\n\n<!--"));
        assert!(twice.contains("second\n<!--") && !twice.contains("first"));
        assert!(twice.ends_with("\nAfter.\n") && twice.matches("## PVFS").count() == 1);
    }
}
