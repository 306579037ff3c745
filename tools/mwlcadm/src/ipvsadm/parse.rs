// SPDX-License-Identifier: MIT
//! ipvsadm's grammar, from words to an [`Action`].
//!
//! It is parsed with lexopt and not with clap: a command is an option here (`-A`, `-L`, `--set A B C`),
//! commands and options cluster (`-Ln`), a value may be left out (`-p [timeout]`), and one letter in two
//! cases means two things. clap would need each of these bent; the grammar itself is small.

use std::ffi::OsString;

use lexopt::{Arg, Parser, ValueExt};

use super::Action;
use super::grammar::{OPTIONS, Takes, VERBS, Word};
use super::options::Options;
use crate::error::Error;

/// An option of either kind as it stands on the command line, owned, so that the parser is free for
/// its value.
enum Token {
    Short(char),
    Long(String),
}

impl Token {
    fn spelling(&self) -> String {
        match self {
            Token::Short(letter) => format!("-{letter}"),
            Token::Long(name) => format!("--{name}"),
        }
    }

    fn is<T>(&self, word: &Word<T>) -> bool {
        match self {
            Token::Short(letter) => word.short == Some(*letter),
            Token::Long(name) => word.long == name,
        }
    }
}

/// Parses a command line without the program's name; nothing at all lists, as with ipvsadm.
pub fn parse(arguments: impl Iterator<Item = OsString>) -> Result<Action, Error> {
    let mut parser = Parser::from_args(arguments);
    let mut options = Options::default();
    while let Some(token) = next_token(&mut parser)? {
        if let Some(word) = VERBS.iter().find(|word| token.is(word)) {
            options.set_verb(word.what, values(&mut parser, word.takes)?)?;
        } else if let Some(word) = OPTIONS.iter().find(|word| token.is(word)) {
            options.take(word, values(&mut parser, word.takes)?)?;
        } else {
            let text = format!("`{}` is no option of ipvsadm's", token.spelling());
            return Err(Error::Usage(text));
        }
    }
    options.action()
}

fn next_token(parser: &mut Parser) -> Result<Option<Token>, Error> {
    Ok(match parser.next().map_err(usage)? {
        None => None,
        Some(Arg::Short(letter)) => Some(Token::Short(letter)),
        Some(Arg::Long(name)) => Some(Token::Long(name.to_owned())),
        Some(Arg::Value(word)) => {
            let text = format!("unexpected argument `{}`", word.to_string_lossy());
            return Err(Error::Usage(text));
        }
    })
}

/// The values that belong to an option: none, one, or as many words as it takes.
fn values(parser: &mut Parser, takes: Takes) -> Result<Vec<String>, Error> {
    let count = match takes {
        Takes::Nothing => 0,
        Takes::Value(_) => 1,
        Takes::Words(count, _) => count,
        Takes::Optional(_) => return Ok(optional_value(parser)?.into_iter().collect()),
    };
    (0..count)
        .map(|_| {
            let value = parser.value().map_err(usage)?;
            value.string().map_err(usage)
        })
        .collect()
}

/// `-p 300`, `-p300` and `-p` are all right: a word that follows is the value unless it is an option.
fn optional_value(parser: &mut Parser) -> Result<Option<String>, Error> {
    if let Some(value) = parser.optional_value() {
        return value.string().map(Some).map_err(usage);
    }
    let follows = parser
        .try_raw_args()
        .and_then(|mut raw| raw.next_if(|word| !word.to_string_lossy().starts_with('-')));
    match follows {
        Some(word) => word.string().map(Some).map_err(usage),
        None => Ok(None),
    }
}

fn usage(error: lexopt::Error) -> Error {
    Error::Usage(error.to_string())
}

/// Whether a command line's first word is one of this grammar's.
pub(crate) fn starts(word: &str) -> bool {
    word.starts_with('-')
}

#[cfg(test)]
mod tests;
