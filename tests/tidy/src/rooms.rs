// SPDX-License-Identifier: MIT
//! Circles between the rooms of a crate. A room is a module directly below the crate's root, with all
//! modules in it. Who uses whom is read from the paths that begin with `crate::`; tests do not count.

use std::collections::{BTreeMap, BTreeSet};

use crate::{File, Finding};

/// Which rooms each room uses.
type Uses = BTreeMap<String, BTreeSet<String>>;

/// Rooms that use each other.
pub fn check(files: &[File]) -> Vec<Finding> {
    let mut crates: BTreeMap<&str, Uses> = BTreeMap::new();
    let for_tests = only_for_tests(files);
    for file in files {
        if for_tests.contains(&file.path) {
            continue;
        }
        let Some((root, inside)) = root_of(&file.path) else {
            continue;
        };
        let Some(room) = room_of(inside) else {
            continue;
        };
        let uses = crates
            .entry(root)
            .or_default()
            .entry(room.to_owned())
            .or_default();
        let used = rooms_used(without_tests(&file.text));
        uses.extend(used.into_iter().filter(|used| used != room));
    }
    let mut findings = Vec::new();
    for (root, uses) in crates {
        for circle in circles(&uses) {
            findings.push(Finding {
                place: root.to_owned(),
                line: None,
                what: format!("rooms that use each other: {}", circle.join(", ")),
            });
        }
    }
    findings
}

/// The root of the crate that a source file belongs to, and its path below the crate's sources.
fn root_of(path: &str) -> Option<(&str, &str)> {
    const MODULE: &str = "kmod-ipvs-mwlc";
    if !path.ends_with(".rs") {
        return None;
    }
    let of_module = || Some((MODULE, path.strip_prefix(MODULE)?.strip_prefix('/')?));
    path.split_once("/src/").or_else(of_module)
}

/// The room of a file, by its path below the sources. The roots of a crate and tests are in none.
fn room_of(inside: &str) -> Option<&str> {
    if inside.contains("tests") || inside.starts_with("bin/") || inside.starts_with("fuzz/") {
        return None;
    }
    let first = inside.split('/').next()?;
    let room = first
        .strip_suffix(".rs")
        .or((first != inside).then_some(first))?;
    (!matches!(
        room,
        "lib" | "main" | "ipvs_mwlc_main" | "director_check" | "testing"
    ))
    .then_some(room)
}

/// Files whose module is declared for tests alone.
fn only_for_tests(files: &[File]) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for file in files {
        let Some((folder, name)) = file.path.rsplit_once('/') else {
            continue;
        };
        let below = match name {
            "lib.rs" | "main.rs" | "mod.rs" => folder.to_owned(),
            _ => file.path.trim_end_matches(".rs").to_owned(),
        };
        for declared in parts_after(&file.text, "\n#[cfg(test)]\n") {
            let declared = declared
                .trim_start_matches("pub")
                .trim_start_matches("(crate)");
            let module = declared.trim_start().strip_prefix("mod ");
            if let Some((module, _)) = module.and_then(|rest| rest.split_once(';')) {
                found.insert(format!("{below}/{module}.rs"));
                found.insert(format!("{below}/{module}/mod.rs"));
            }
        }
    }
    found
}

/// What follows each `mark` in `text`.
fn parts_after<'a>(text: &'a str, mark: &'a str) -> impl Iterator<Item = &'a str> {
    text.match_indices(mark)
        .map(move |(at, _)| &text[at + mark.len()..])
}

/// A file's text up to the module of its tests, which stands at its end.
fn without_tests(text: &str) -> &str {
    let mark = "\n#[cfg(test)]\nmod ";
    let end = text.match_indices(mark).find(|(at, _)| {
        let name = text[at + mark.len()..].lines().next();
        name.is_some_and(|name| name.contains('{'))
    });
    end.map_or(text, |(at, _)| &text[..at])
}

/// The modules directly below the root that `code` names.
fn rooms_used(code: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (at, path) in code.match_indices("crate::") {
        let is_whole =
            !code[..at].ends_with(|letter: char| letter.is_alphanumeric() || letter == '_');
        let line = code[..at].rsplit('\n').next().unwrap_or_default();
        if !is_whole || line.trim_start().starts_with("//") {
            continue;
        }
        let rest = &code[at + path.len()..];
        match rest.strip_prefix('{') {
            Some(group) => found.extend(group_of(group).into_iter().filter_map(module)),
            None => found.extend(module(rest)),
        }
    }
    found
}

/// The members of `group}`, each with what is behind its name.
fn group_of(group: &str) -> Vec<&str> {
    let mut depth = 0;
    let mut begin = 0;
    let mut members = Vec::new();
    for (at, letter) in group.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' if depth == 0 => {
                members.push(group[begin..at].trim());
                break;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                members.push(group[begin..at].trim());
                begin = at + 1;
            }
            _ => {}
        }
    }
    members
}

/// The name that `path` begins with, if it is that of a module.
fn module(path: &str) -> Option<String> {
    let end = path
        .find(|letter: char| !letter.is_alphanumeric() && letter != '_')
        .unwrap_or(path.len());
    let name = &path[..end];
    name.starts_with(|letter: char| letter.is_ascii_lowercase())
        .then(|| name.to_owned())
}

/// Sets of rooms in which each can be reached from each other.
fn circles(uses: &Uses) -> Vec<Vec<&str>> {
    let reached = |from: &str| -> BTreeSet<&str> {
        let mut seen = BTreeSet::new();
        let mut next: Vec<&str> = uses
            .get(from)
            .into_iter()
            .flatten()
            .map(String::as_str)
            .collect();
        while let Some(room) = next.pop() {
            if seen.insert(room) {
                next.extend(uses.get(room).into_iter().flatten().map(String::as_str));
            }
        }
        seen
    };
    let reach: BTreeMap<&str, BTreeSet<&str>> = uses
        .keys()
        .map(|room| (room.as_str(), reached(room)))
        .collect();
    let mut found: Vec<Vec<&str>> = Vec::new();
    for (room, others) in &reach {
        let circle: Vec<&str> = others
            .iter()
            .copied()
            .filter(|other| reach.get(other).is_some_and(|back| back.contains(room)))
            .collect();
        if circle.len() > 1 && !found.contains(&circle) {
            found.push(circle);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rooms_that_use_each_other_are_found() {
        let file = |path: &str, text: &str| File {
            path: path.to_owned(),
            text: text.to_owned(),
        };
        let files = [
            file("x/src/lib.rs", "mod a; mod b; mod c; mod d;"),
            file("x/src/a.rs", "use crate::{b::{B, C}, d};\n"),
            file("x/src/b/mod.rs", "// crate::a\nuse crate::c::C;\n"),
            file("x/src/b/deep.rs", "fn f() { crate::c::g() }"),
            file("x/src/c.rs", "fn f() -> crate::a::A {}\n"),
            file(
                "x/src/d.rs",
                "use crate::Error;\n#[cfg(test)]\nmod golden;\n#[cfg(test)]\nmod tests { use crate::a; }",
            ),
            file("x/src/d_tests.rs", "use crate::a;"),
            file("x/src/d/golden.rs", "use crate::a;"),
        ];
        let found: Vec<_> = check(&files)
            .into_iter()
            .map(|finding| finding.what)
            .collect();
        assert_eq!(found, ["rooms that use each other: a, b, c"]);
    }
}
