// SPDX-License-Identifier: MIT
//! Shell completions and manual pages, made from the command line's own description so that they stay
//! true. mwlcadm.8 itself is written by hand; a test holds it to the grammar's words.

use std::io::Write;
use std::path::Path;

use clap_complete::Shell;

use crate::error::Error;
use crate::ipvsadm::{OPTIONS, Takes, VERBS};

/// Writes a shell's completions: the subcommands with their options, and ipvsadm's.
pub fn completions(
    shell: Shell,
    command: clap::Command,
    output: &mut impl Write,
) -> Result<(), Error> {
    let mut command = with_ipvsadm(command);
    // clap_complete panics if its output fails, so it writes into memory.
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, "mwlcadm", &mut script);
    output.write_all(&script).map_err(Error::Output)
}

/// ipvsadm's words as options of clap's, for the completions alone; `-L` and `-l` are one there.
fn with_ipvsadm(command: clap::Command) -> clap::Command {
    let verbs = VERBS
        .iter()
        .map(|word| (word.short, word.long, word.takes, word.help));
    let options = OPTIONS
        .iter()
        .map(|word| (word.short, word.long, word.takes, word.help));
    let mut command = command.disable_help_flag(true).disable_version_flag(true);
    for (short, long, takes, help) in verbs.chain(options) {
        if command.get_arguments().any(|known| known.get_id() == long) {
            continue;
        }
        let action = match takes {
            Takes::Nothing => clap::ArgAction::SetTrue,
            _ => clap::ArgAction::Append,
        };
        let mut argument = clap::Arg::new(long).long(long).help(help).action(action);
        if let Some(letter) = short {
            argument = argument.short(letter);
        }
        argument = match takes {
            Takes::Nothing => argument,
            Takes::Value(name) => argument.value_name(name),
            Takes::Optional(name) => argument.value_name(name).num_args(0..=1),
            Takes::Words(count, name) => argument.value_name(name).num_args(count),
        };
        command = command.arg(argument);
    }
    command
}

/// Writes `mwlcadm-SUBCOMMAND.8` for each subcommand of `command`.
pub fn manual(directory: &Path, command: clap::Command) -> Result<(), Error> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| Error::File { path, source }
    };
    std::fs::create_dir_all(directory).map_err(failed(directory))?;
    for (name, page) in pages(command)? {
        let path = directory.join(name);
        std::fs::write(&path, page).map_err(failed(&path))?;
    }
    Ok(())
}

/// Each page's file name and text.
fn pages(command: clap::Command) -> Result<Vec<(String, Vec<u8>)>, Error> {
    let mut command = command.disable_help_subcommand(true);
    command.build();
    let mut pages = Vec::new();
    add_pages(&command, &mut pages)?;
    Ok(pages)
}

/// A page for each subcommand, and for each of theirs.
fn add_pages(command: &clap::Command, pages: &mut Vec<(String, Vec<u8>)>) -> Result<(), Error> {
    for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
        let name = sub.get_display_name().unwrap_or(sub.get_name());
        let man = clap_mangen::Man::new(sub.clone().disable_version_flag(true))
            .title(name)
            .source(concat!("mwlcadm ", env!("CARGO_PKG_VERSION")))
            .section("8")
            .manual("CSSNS")
            .date("");
        let mut page = Vec::new();
        man.render(&mut page).map_err(Error::Output)?;
        page.extend(b".SH SEE ALSO\n.BR mwlcadm (8)\n");
        pages.push((format!("{name}.8"), page));
        add_pages(sub, pages)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn completions_know_both_grammars() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let mut script = Vec::new();
            completions(shell, crate::commands::definition(), &mut script).unwrap();
            let script = String::from_utf8(script).unwrap();
            for word in ["loads", "restore", "add-service", "sched-flags", "clear"] {
                assert!(script.contains(word), "{shell}: {word}");
            }
        }
    }

    #[test]
    fn the_pages_in_the_documentation_are_these() {
        let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/man");
        let main = std::fs::read_to_string(kept.join("mwlcadm.8")).unwrap();
        let main = main.replace('\\', "");
        let pages = pages(crate::commands::definition()).unwrap();
        assert!(pages.len() > 5);
        for (name, page) in pages {
            let old = std::fs::read(kept.join(&name)).unwrap_or_default();
            assert!(
                page == old,
                "{name} has changed: run `mwlcadm man docs/man`"
            );
            // Those of a subcommand's own are named on its page.
            if name.matches('-').count() > 1 && name.starts_with("mwlcadm-sizes-") {
                continue;
            }
            let reference = name.replace(".8", " (8)");
            assert!(
                main.contains(&reference),
                "mwlcadm.8 does not name {reference}"
            );
        }
    }
}
