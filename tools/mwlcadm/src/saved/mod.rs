// SPDX-License-Identifier: MIT
//! The configuration as text: command lines, one to a line, which ipvsadm's `-S` and `-R` have too, and
//! `set` lines for what ipvsadm has no words for (mwlcadm-save(8) has the grammar).
//!
//! Restoring checks everything before it changes anything: every line is parsed, then all of them are
//! carried out in a network namespace of their own, on top of what this one has; so the director itself
//! says what it would refuse, and which line it is.

mod lines;
mod rehearse;

use std::ffi::OsString;
use std::io::{BufRead, Write};

use crate::arguments::SetArgs;
use crate::error::Error;
use crate::ipvs::Ipvs;
use crate::ipvsadm::{self, Action, Resolver};
use crate::mwlc::Mwlc;

/// The word before a command line, as in scripts; it may stand in a saved configuration.
const PROGRAMS: [&str; 2] = ["ipvsadm", "mwlcadm"];

/// A line of a saved configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Command {
    /// In ipvsadm's grammar.
    Ipvs(Action),
    /// `set ...`.
    Set(SetArgs),
}

/// A command and the number of its line, from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Line {
    number: usize,
    command: Command,
}

/// What the lines are added to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// What is configured already.
    AsItIs,
    /// Nothing: what is configured is deleted first.
    Empty,
}

/// A connection to either family.
struct Director {
    ipvs: Ipvs,
    mwlc: Mwlc,
}

impl Director {
    fn open() -> Result<Director, Error> {
        Ok(Director {
            ipvs: Ipvs::open()?,
            mwlc: Mwlc::open()?,
        })
    }

    fn run(&mut self, lines: &[Line]) -> Result<(), Error> {
        for line in lines {
            let done = match line.command.clone() {
                Command::Ipvs(action) => ipvsadm::change(&mut self.ipvs, action),
                Command::Set(arguments) => arguments.apply(&mut self.mwlc),
            };
            done.map_err(|source| at(line.number, source))?;
        }
        Ok(())
    }

    /// What is configured, as the lines that configure it.
    fn lines(&mut self, resolver: &Resolver) -> Result<Vec<String>, Error> {
        lines::all(&mut self.ipvs, &mut self.mwlc, resolver)
    }
}

/// Writes the configuration. What is as it is in a new director is left out, so that ipvsadm can
/// restore what it can express.
pub fn save(numeric: bool, output: &mut impl Write) -> Result<(), Error> {
    let lines = Director::open()?.lines(&Resolver::new(numeric))?;
    lines
        .iter()
        .try_for_each(|line| writeln!(output, "{line}"))
        .map_err(Error::Output)
}

/// Carries out the commands of `input`, all or, unless the director changes meanwhile, none.
pub fn restore(input: impl BufRead, start: Start) -> Result<(), Error> {
    let lines = read(input)?;
    let mut director = Director::open()?;
    let present = match start {
        Start::AsItIs => read(director.lines(&Resolver::new(true))?.join("\n").as_bytes())?,
        Start::Empty => Vec::new(),
    };
    rehearse::rehearse(&present, &lines)?;
    if start == Start::Empty {
        director.ipvs.flush()?;
    }
    director.run(&lines)
}

/// Checks the commands of `input` as [`restore`] does, and changes nothing.
pub fn check(input: impl BufRead, start: Start) -> Result<usize, Error> {
    let lines = read(input)?;
    let present = match start {
        Start::AsItIs => {
            let mut director = Director::open()?;
            read(director.lines(&Resolver::new(true))?.join("\n").as_bytes())?
        }
        Start::Empty => Vec::new(),
    };
    rehearse::rehearse(&present, &lines)?;
    Ok(lines.len())
}

fn at(line: usize, source: Error) -> Error {
    Error::Line {
        line,
        source: Box::new(source),
    }
}

/// Parses every line; empty ones and what follows a `#` are passed over.
fn read(input: impl BufRead) -> Result<Vec<Line>, Error> {
    let mut lines = Vec::new();
    for (index, text) in input.lines().enumerate() {
        let number = index + 1;
        let text = text.map_err(Error::Input)?;
        if let Some(command) = parse(&text).map_err(|source| at(number, source))? {
            lines.push(Line { number, command });
        }
    }
    Ok(lines)
}

fn parse(text: &str) -> Result<Option<Command>, Error> {
    let code = text.split('#').next().unwrap_or_default();
    let mut words: Vec<OsString> = code.split_whitespace().map(OsString::from).collect();
    if words
        .first()
        .is_some_and(|word| PROGRAMS.iter().any(|program| word == program))
    {
        words.remove(0);
    }
    let Some(first) = words.first().map(|word| word.to_string_lossy()) else {
        return Ok(None);
    };
    if ipvsadm::starts(&first) {
        return ipvsadm::parse(words.into_iter())
            .and_then(configures)
            .map(Some);
    }
    if first == "set" {
        return SetArgs::from_words(&words).map(|arguments| Some(Command::Set(arguments)));
    }
    Err(Error::Usage(format!(
        "`{first}` is neither an option of ipvsadm's nor `set`"
    )))
}

/// Refuses what shows rather than configures.
fn configures(action: Action) -> Result<Command, Error> {
    match action {
        Action::Restore
        | Action::Save { .. }
        | Action::List(_)
        | Action::Help
        | Action::Version => Err(Error::Usage(
            "only commands that add, edit or delete stand in a saved configuration".to_owned(),
        )),
        action => Ok(Command::Ipvs(action)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_both_grammars_are_read_with_their_numbers() {
        let text = "# saved\n\
                    --set 900 120 300\n\
                    \n\
                    ipvsadm -A -t 10.0.0.100:80 -s wlc  # the web\n\
                    set -t 10.0.0.100:80 --expected-size 30M\n\
                    -a -t 10.0.0.100:80 -r 10.0.0.1:80 -g -w 1\n";
        let lines = read(text.as_bytes()).unwrap();
        let numbers: Vec<usize> = lines.iter().map(|line| line.number).collect();
        assert_eq!(numbers, [2, 4, 5, 6]);
        assert!(matches!(lines[2].command, Command::Set(_)));
        assert!(matches!(
            lines[1].command,
            Command::Ipvs(Action::AddService(_))
        ));
    }

    #[test]
    fn a_wrong_line_is_named() {
        for (text, part) in [
            ("-C\n-A -t 10.0.0.100\n-A", "line 2: a service of port 0"),
            ("-C\nfrobnicate", "line 2: `frobnicate`"),
            ("-L -n", "line 1: only commands that add"),
            ("set -t 10.0.0.100:80", "line 1: "),
            ("set -t 10.0.0.100:80 --expected-size x", "is no size"),
        ] {
            let message = read(text.as_bytes()).unwrap_err().to_string();
            assert!(message.contains(part), "{text}: {message}");
        }
    }
}
