// SPDX-License-Identifier: MIT
//! A document of headings, paragraphs, tables and pictures, as Markdown and as a page that needs no other
//! file. Pure.

use std::fmt::Write as _;

use crate::markdown::wrapped;

/// A table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Table {
    /// What it shows.
    pub title: String,
    /// Columns' names.
    pub head: Vec<String>,
    /// Rows of as many cells.
    pub rows: Vec<Vec<String>>,
}

/// A part of a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Block {
    /// A heading of the second level.
    Heading(String),
    /// Text; a backtick begins and ends what is code, two asterisks what is important.
    Paragraph(String),
    /// Items, with marks as in text.
    List(Vec<String>),
    /// Lines as they are.
    Lines(String),
    /// A table.
    Table(Table),
    /// A picture.
    Picture {
        /// Its file's name without directory and extension.
        name: String,
        /// What it shows.
        title: String,
        /// The picture.
        svg: String,
    },
}

/// The document as Markdown; pictures are the files `PREFIX` + name + `.svg`.
#[must_use]
pub fn markdown(title: &str, blocks: &[Block], prefix: &str) -> String {
    let mut text = format!("# {title}\n");
    for block in blocks {
        // Writing to a String cannot fail.
        let _ = match block {
            Block::Heading(heading) => write!(text, "\n## {heading}\n"),
            Block::Paragraph(paragraph) => write!(text, "\n{paragraph}\n"),
            Block::List(items) => write!(text, "\n- {}\n", items.join("\n- ")),
            Block::Lines(lines) => write!(text, "\n```\n{}\n```\n", lines.trim_end()),
            Block::Table(table) => write!(text, "\n{}", markdown_table(table)),
            Block::Picture { name, title, .. } => {
                write!(text, "\n![{title}]({prefix}{name}.svg)\n")
            }
        };
    }
    wrapped(&text)
}

fn markdown_table(table: &Table) -> String {
    let row = |cells: &[String]| {
        let cells: Vec<String> = cells.iter().map(|cell| cell.replace('|', "\\|")).collect();
        format!("| {} |\n", cells.join(" | "))
    };
    let title = if table.title.is_empty() {
        String::new()
    } else {
        format!("**{}**\n\n", table.title)
    };
    let rule = format!("|{}\n", "---|".repeat(table.head.len()));
    let rows: String = table.rows.iter().map(|cells| row(cells)).collect();
    format!("{title}{}{rule}{rows}", row(&table.head))
}

/// A table for a terminal: columns aligned, no marks.
#[must_use]
pub fn text_table(table: &Table) -> String {
    let plain = |cell: &String| cell.replace("**", "").replace('`', "");
    let rows: Vec<Vec<String>> = std::iter::once(&table.head)
        .chain(&table.rows)
        .map(|row| row.iter().map(plain).collect())
        .collect();
    let widths: Vec<usize> = (0..table.head.len())
        .map(|column| {
            let cells = rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        })
        .collect();
    rows.iter()
        .map(|row| {
            let cells = row.iter().zip(&widths);
            let line: String = cells
                .map(|(cell, width)| format!("{cell:<width$}  "))
                .collect();
            format!("{}\n", line.trim_end())
        })
        .collect()
}

/// How the page looks, by day and by night.
const STYLE: &str = "
:root { color-scheme: light dark; --ink: #1b1f24; --paper: #fff; --rule: #d5d9de; --soft: #f4f6f8; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ed; --paper: #15181c; --rule: #3a4048; --soft: #1f242a; } }
body { font: 16px/1.55 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 62rem;
  margin: 2rem auto; padding: 0 1rem; }
h1 { line-height: 1.2; } h2 { margin-top: 2.5rem; border-bottom: 1px solid var(--rule); }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums; font-size: .92rem;
  display: block; overflow-x: auto; }
caption { text-align: left; font-weight: 600; padding: .4rem 0; }
th, td { border: 1px solid var(--rule); padding: .25rem .6rem; text-align: left; vertical-align: top; }
th { background: var(--soft); } pre { background: var(--soft); padding: .8rem; overflow-x: auto; font-size: .8rem; }
code { background: var(--soft); padding: 0 .2rem; } figure { margin: 1.5rem 0; } figcaption { font-weight: 600; }
figure svg { max-width: 100%; height: auto; background: #fff; }
";

/// The document as one page of HTML with its pictures in it.
#[must_use]
pub fn html(title: &str, blocks: &[Block]) -> String {
    let title = escape(title);
    let mut text = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>\n"
    );
    for block in blocks {
        let _ = match block {
            Block::Heading(heading) => writeln!(text, "<h2>{}</h2>", inline(heading)),
            Block::Paragraph(paragraph) => writeln!(text, "<p>{}</p>", inline(paragraph)),
            Block::List(items) => {
                let items: String = items
                    .iter()
                    .map(|item| format!("<li>{}</li>\n", inline(item)))
                    .collect();
                writeln!(text, "<ul>\n{items}</ul>")
            }
            Block::Lines(lines) => writeln!(text, "<pre>{}</pre>", escape(lines.trim_end())),
            Block::Table(table) => writeln!(text, "{}", html_table(table)),
            Block::Picture { title, svg, .. } => writeln!(
                text,
                "<figure>\n{svg}\n<figcaption>{}</figcaption>\n</figure>",
                inline(title)
            ),
        };
    }
    text + "</body>\n</html>\n"
}

fn html_table(table: &Table) -> String {
    let row = |tag: &str, cells: &[String]| {
        let cells: String = cells
            .iter()
            .map(|cell| format!("<{tag}>{}</{tag}>", inline(cell)))
            .collect();
        format!("<tr>{cells}</tr>\n")
    };
    let rows: String = table.rows.iter().map(|cells| row("td", cells)).collect();
    format!(
        "<table>\n<caption>{}</caption>\n<thead>\n{}</thead>\n<tbody>\n{rows}</tbody>\n</table>",
        inline(&table.title),
        row("th", &table.head)
    )
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

/// Code and emphasis.
fn inline(text: &str) -> String {
    let alternate = |text: &str, mark: &str, tag: &str| {
        text.split(mark)
            .enumerate()
            .map(|(number, part)| match number % 2 {
                0 => part.to_owned(),
                _ => format!("<{tag}>{part}</{tag}>"),
            })
            .collect::<String>()
    };
    alternate(&alternate(&escape(text), "`", "code"), "**", "strong")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blocks() -> Vec<Block> {
        let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect();
        vec![
            Block::Heading("A <part>".to_owned()),
            Block::Paragraph("Some `code` and **more**.".to_owned()),
            Block::List(words(&["one `thing`", "another"])),
            Block::Lines("a  b\n".to_owned()),
            Block::Table(Table {
                title: "Table 1".to_owned(),
                head: words(&["x", "y"]),
                rows: vec![words(&["1", "a|b"]), words(&["2", "<3"])],
            }),
            Block::Picture {
                name: "figure4".to_owned(),
                title: "Times".to_owned(),
                svg: "<svg><text>s</text></svg>".to_owned(),
            },
        ]
    }

    #[test]
    fn markdown_refers_to_pictures() {
        let text = markdown("Title", &blocks(), "experiment-");
        for part in [
            "# Title\n\n## A <part>\n",
            "\n- one `thing`\n- another\n",
            "```\na  b\n```",
            "**Table 1**\n\n| x | y |\n|---|---|\n| 1 | a\\|b |\n",
            "![Times](experiment-figure4.svg)",
        ] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
    }

    #[test]
    fn a_page_needs_no_other_file() {
        let text = html("Title & more", &blocks());
        for part in [
            "<h1>Title &amp; more</h1>",
            "<h2>A &lt;part&gt;</h2>",
            "<code>code</code> and <strong>more</strong>",
            "<ul>\n<li>one <code>thing</code></li>\n",
            "<td>&lt;3</td>",
            "<svg><text>s</text></svg>",
        ] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
        for foreign in ["src=", "href=", "@import", "url("] {
            assert!(!text.contains(foreign), "{foreign}");
        }
        assert_eq!(text.matches("<td>").count(), text.matches("</td>").count());
    }
}
