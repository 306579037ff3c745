// SPDX-License-Identifier: MIT
//! ipvsadm's grammar, from words to an [`Action`].
//!
//! It is parsed with lexopt and not with clap: a verb is an option here (`-A`, `-L`, `--set A B C`), verbs
//! and options cluster (`-Ln`), a value may be left out (`-p [timeout]`), and one letter in two cases
//! means two things. clap would need each of these bent; the grammar itself is small.

use std::ffi::OsString;

use lexopt::{Arg, Parser, ValueExt};

use super::Action;
use super::options::{Options, text, usage};
use crate::error::Error;

/// What `-h` answers.
pub const HELP: &str = "\
ipvsadm's commands, on the director ipvs_mwlc:
  -A|-E -t|-u VIP:PORT [-s SCHEDULER] [-b FLAGS]   add or edit a virtual service
  -D -t|-u VIP:PORT                                delete it
  -a|-e -t|-u VIP:PORT -r SERVER[:PORT] [-g] [-w WEIGHT] [-x UPPER] [-y LOWER]
                                                   add or edit a real server
  -d -t|-u VIP:PORT -r SERVER[:PORT]               delete it
  -L|-l [-n] [-t|-u VIP:PORT] [--stats|--rate|--thresholds|-c|--timeout] [--exact]
                                                   list
  -Z [-t|-u VIP:PORT]                              zero the counters
  --set TCP TCPFIN UDP                             set timeouts in seconds, 0 leaves one
  -C                                               delete everything
  -S                                               write the configuration to stdout
  -R                                               read it from stdin
Schedulers: rr wrr lc wlc sed nq sh mh fo ovf twos mwlc msed (wlc with -b flag-1 is mwlc, sed msed). Forwarding: -g, direct routing.
";

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    AddService,
    EditService,
    DeleteService,
    Clear,
    Restore,
    Save,
    AddDest,
    EditDest,
    DeleteDest,
    List,
    Zero,
    Set,
    ExpectedSize,
    Help,
}

/// An option or a word, owned, so that the parser is free for the option's value.
pub(super) enum Token {
    Short(char),
    Long(String),
    Word(String),
}

impl Token {
    /// As on the command line: `-A`, `--list`.
    pub(super) fn spelling(&self) -> String {
        match self {
            Token::Short(letter) => format!("-{letter}"),
            Token::Long(name) => format!("--{name}"),
            Token::Word(word) => word.clone(),
        }
    }
}

fn next_token(parser: &mut Parser) -> Result<Option<Token>, Error> {
    Ok(match parser.next().map_err(usage)? {
        None => None,
        Some(Arg::Short(letter)) => Some(Token::Short(letter)),
        Some(Arg::Long(name)) => Some(Token::Long(name.to_owned())),
        Some(Arg::Value(word)) => Some(Token::Word(word.string().map_err(usage)?)),
    })
}

/// Parses a command line without the program's name; nothing at all lists, as with ipvsadm.
pub fn parse(arguments: impl Iterator<Item = OsString>) -> Result<Action, Error> {
    let mut parser = Parser::from_args(arguments);
    let mut options = Options::default();
    while let Some(token) = next_token(&mut parser)? {
        if let Some(verb) = verb(&token) {
            options.set_verb(verb)?;
            if verb == Verb::Set {
                for _ in 0..3 {
                    options.words.push(text(&mut parser)?);
                }
            }
            continue;
        }
        match token {
            Token::Word(word) if options.verb == Some(Verb::ExpectedSize) => {
                options.words.push(word);
            }
            Token::Word(word) if options.verb.is_none() && word == "expected-size" => {
                options.set_verb(Verb::ExpectedSize)?;
            }
            token => options.take(&token, &mut parser)?,
        }
    }
    options.action()
}

fn verb(token: &Token) -> Option<Verb> {
    Some(match token.spelling().as_str() {
        "-A" | "--add-service" => Verb::AddService,
        "-E" | "--edit-service" => Verb::EditService,
        "-D" | "--delete-service" => Verb::DeleteService,
        "-C" | "--clear" => Verb::Clear,
        "-R" | "--restore" => Verb::Restore,
        "-S" | "--save" => Verb::Save,
        "-a" | "--add-server" => Verb::AddDest,
        "-e" | "--edit-server" => Verb::EditDest,
        "-d" | "--delete-server" => Verb::DeleteDest,
        "-L" | "-l" | "--list" => Verb::List,
        "-Z" | "--zero" => Verb::Zero,
        "--set" => Verb::Set,
        "-h" | "--help" => Verb::Help,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ipvs::{NewDest, NewService};
    use crate::ipvsadm::{Listing, View};
    use ipvs_mwlc::director::config::Address;
    use ipvs_mwlc::director::config::{
        DestKey, FlagsUpdate, SERVICE_HASHED, ServiceKey, Thresholds, Transport,
    };
    use ipvs_mwlc::director::timeouts::TimeoutsUpdate;
    use proptest::prelude::*;

    fn line(text: &str) -> Result<Action, Error> {
        parse(text.split_whitespace().map(OsString::from))
    }

    fn parsed(text: &str) -> Action {
        line(text).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    fn key(transport: Transport) -> ServiceKey {
        ServiceKey::endpoint(transport, Address::V4([10, 0, 0, 100]), 80)
    }

    fn server(host: u8, port: u16) -> DestKey {
        DestKey {
            address: Address::V4([10, 0, 0, host]),
            port,
        }
    }

    fn service(scheduler: &str, flags: u32) -> NewService {
        NewService {
            key: key(Transport::Tcp),
            scheduler: scheduler.to_owned(),
            flags: FlagsUpdate {
                flags,
                mask: !SERVICE_HASHED,
            },
            timeout_s: 0,
            netmask: [255; 4],
        }
    }

    #[test]
    fn services() {
        let add = Action::AddService;
        for text in [
            "-A -t 10.0.0.100:80 -s mwlc",
            "-A -t10.0.0.100:80 -smwlc",
            "-At 10.0.0.100:80 -s mwlc",
            "--add-service --tcp-service 10.0.0.100:80 --scheduler=mwlc",
            "-s mwlc -t 10.0.0.100:80 -A",
        ] {
            assert_eq!(parsed(text), add(service("mwlc", 0)), "{text}");
        }
        assert_eq!(parsed("-A -t 10.0.0.100:80"), add(service("wlc", 0)));
        let flagged = parsed("-A -t 10.0.0.100:80 -s wlc -b flag-1,flag-3");
        assert_eq!(flagged, add(service("wlc", 0x28)));
        let edit = Action::EditService(service("rr", 0));
        assert_eq!(parsed("-E -t 10.0.0.100:80 -s rr"), edit);
        let delete = Action::DeleteService(key(Transport::Udp));
        assert_eq!(parsed("-D -u 10.0.0.100:80"), delete);
    }

    #[test]
    fn persistence_takes_a_timeout_or_none() {
        for (text, seconds) in [
            ("-A -t 10.0.0.100:80 -p", 300),
            ("-A -t 10.0.0.100:80 -p 60", 60),
            ("-A -t 10.0.0.100:80 -p60", 60),
            ("-A -t 10.0.0.100:80 --persistent=60", 60),
            ("-A -p -t 10.0.0.100:80", 300),
            ("-A -p 5 -t 10.0.0.100:80", 5),
        ] {
            let expected = NewService {
                timeout_s: seconds,
                ..service("wlc", 1)
            };
            assert_eq!(parsed(text), Action::AddService(expected), "{text}");
        }
        let ops = parsed("-A -u 10.0.0.100:80 -o -M 255.255.255.0");
        let expected = NewService {
            key: key(Transport::Udp),
            netmask: [255, 255, 255, 0],
            ..service("wlc", 4)
        };
        assert_eq!(ops, Action::AddService(expected));
    }

    #[test]
    fn real_servers() {
        let dest = |forwarding, weight, upper, lower| NewDest {
            key: server(1, 80),
            forwarding,
            weight,
            thresholds: Thresholds { upper, lower },
        };
        let of = key(Transport::Tcp);
        for (text, expected) in [
            ("-a -t 10.0.0.100:80 -r 10.0.0.1", dest(3, 1, 0, 0)),
            (
                "-a -t 10.0.0.100:80 -r 10.0.0.1:80 -g -w 7",
                dest(3, 7, 0, 0),
            ),
            // Direct routing keeps the port, so another one given is the service's all the same.
            ("-a -t 10.0.0.100:80 -r 10.0.0.1:8080 -g", dest(3, 1, 0, 0)),
            ("-a -t 10.0.0.100:80 -r 10.0.0.1 -m -w 0", dest(0, 0, 0, 0)),
            ("-a -t 10.0.0.100:80 -r 10.0.0.1 -i", dest(2, 1, 0, 0)),
            (
                "-a -t 10.0.0.100:80 -r 10.0.0.1 -x 9 -y 4",
                dest(3, 1, 9, 4),
            ),
        ] {
            assert_eq!(parsed(text), Action::AddDest(of, expected), "{text}");
        }
        let edit = parsed("-e -t 10.0.0.100:80 -r 10.0.0.1 -w 65535");
        assert_eq!(edit, Action::EditDest(of, dest(3, 65_535, 0, 0)));
        let delete = parsed("-d -t 10.0.0.100:80 -r 10.0.0.1:80");
        assert_eq!(delete, Action::DeleteDest(of, server(1, 80)));
    }

    #[test]
    fn listings_and_the_rest() {
        let list = |listing| Action::List(listing);
        let plain = Listing::default();
        for text in [
            "",
            "-L",
            "-l",
            "-Ln",
            "-ln",
            "-L -n",
            "--list --numeric",
            "-n",
        ] {
            assert_eq!(parsed(text), list(plain), "{text}");
        }
        for (text, view) in [
            ("-Lnc", View::Connections),
            ("-L --stats -n", View::Stats),
            ("-Ln --rate", View::Rate),
            ("-Ln --thresholds", View::Thresholds),
            ("-Ln --persistent-conn", View::Persistent),
            ("-L --timeout", View::Timeouts),
            ("-L --daemon", View::Daemon),
        ] {
            assert_eq!(parsed(text), list(Listing { view, ..plain }), "{text}");
        }
        let one = Listing {
            service: Some(key(Transport::Tcp)),
            exact: true,
            ..plain
        };
        assert_eq!(parsed("-Ln -t 10.0.0.100:80 --exact"), list(one));
        let update = TimeoutsUpdate {
            tcp_s: 900,
            tcp_fin_s: 0,
            udp_s: 300,
        };
        assert_eq!(parsed("--set 900 0 300"), Action::SetTimeouts(update));
        assert_eq!(parsed("-Z"), Action::Zero(None));
        assert_eq!(
            parsed("-Z -t 10.0.0.100:80"),
            Action::Zero(Some(key(Transport::Tcp)))
        );
        let simple = [
            ("-C", Action::Clear),
            ("-R", Action::Restore),
            ("-Sn", Action::Save),
        ];
        for (text, action) in simple {
            assert_eq!(parsed(text), action);
        }
        let size = Action::ExpectedSize {
            key: key(Transport::Tcp),
            configured_bytes: 5000,
            learned: true,
        };
        assert_eq!(
            parsed("expected-size -t 10.0.0.100:80 5000 --learned"),
            size
        );
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, part) in [
            ("-A", "which service"),
            ("-A -t 10.0.0.100", "has no port"),
            ("-A -t", "missing argument"),
            ("-A -D -t 10.0.0.100:80", "one command"),
            ("-A -f 1", "firewall-mark"),
            ("-A -t 10.0.0.100:80 -b flag-4", "flag-1"),
            ("-A -t [::1]:80", "IPv6"),
            ("-a -t 10.0.0.100:80", "which real server"),
            ("-a -t 10.0.0.100:80 -r 10.0.0.1 -w 65536", "over 65535"),
            ("-a -t 10.0.0.100:80 -r 10.0.0.1 -w -1", "no weight"),
            ("-a -t 10.0.0.100:80 -r 10.0.0.1:x", "no port number"),
            ("--set 1 2", "missing argument"),
            ("--set 1 2 x", "no timeout"),
            ("-L --frobnicate", "--frobnicate"),
            ("-q", "-q"),
            ("-L word", "word"),
            ("--start-daemon master", "synchronisation"),
        ] {
            match line(text) {
                Err(Error::Usage(message)) => assert!(message.contains(part), "{text}: {message}"),
                other => panic!("{text}: {other:?}"),
            }
        }
    }

    proptest! {
        #[test]
        fn any_words_are_answered(words in prop::collection::vec("[-a-zA-Z0-9.:]{0,12}", 0..8)) {
            let _ = parse(words.into_iter().map(OsString::from));
        }
    }
}
