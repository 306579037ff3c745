// SPDX-License-Identifier: MIT
//! The subcommands of our own, for what IPVS has no words for.

use std::ffi::OsString;
use std::fs::File;
use std::io::{BufReader, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use ipvs_mwlc::director::load::SizePolicy;

use crate::arguments::{DrainArg, JsonArgs, ServiceArgs, SetArgs, TransportArgs};

use crate::error::Error;
use crate::mwlc::{Mwlc, ServiceSettings};
use crate::values::{parse_duration_ms, parse_size, parse_tcp_endpoint, real_server};
use crate::{check, documents, drain, ipvsadm, monitor, saved, show, sizes, top};

/// Administer the director `ipvs_mwlc`: ipvsadm's command line as it is, and the subcommands below.
#[derive(Debug, Parser)]
#[command(
    name = "mwlcadm",
    version,
    after_help = ipvsadm::help(),
    after_long_help = ipvsadm::help(),
    override_usage = "mwlcadm <COMMAND> [OPTIONS]\n       mwlcadm <ipvsadm's options>, like -A -t 10.0.0.100:80 -s mwlc"
)]
pub struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show Ci (bytes), Wi and Ci/Wi of every real server
    ///
    /// Ci is the sum of the sizes of a real server's active connections, Wi its weight. The scheduler
    /// mwlc sends the next connection where Ci/Wi is smallest.
    Loads {
        /// Only this virtual service, as ADDRESS:PORT
        #[arg(value_parser = parse_tcp_endpoint, value_name = "VIP:PORT")]
        service: Option<SocketAddr>,
        #[command(flatten)]
        transport: TransportArgs,
        #[command(flatten)]
        json: JsonArgs,
    },
    /// Show the real servers' loads live
    ///
    /// On a terminal the picture is drawn anew at each look; q ends it. Into a pipe each look is written as
    /// lines, with --json as one line.
    Top {
        /// Time between two looks
        #[arg(long, short = 'i', value_name = "TIME", default_value = "2s", value_parser = parse_duration_ms)]
        interval: u64,
        /// The order of a service's real servers
        #[arg(long, short, value_name = "BY", default_value = "address")]
        sort: top::Sort,
        /// Look once and end
        #[arg(long)]
        once: bool,
        #[command(flatten)]
        json: JsonArgs,
    },
    /// Show every connection with its state, real server, size and age
    Conns {
        #[command(flatten)]
        json: JsonArgs,
    },
    /// Set how many bytes a connection of a service is expected to fetch
    ///
    /// A connection counts with this size until its own is known.
    ExpectedSize {
        /// The virtual service, as ADDRESS:PORT
        #[arg(value_parser = parse_tcp_endpoint, value_name = "VIP:PORT")]
        service: SocketAddr,
        /// Bytes, or with a unit: 10M or 10MiB (of 1024), 10MB (of 1000)
        #[arg(value_parser = parse_size)]
        size: u64,
        /// Prefer the moving average of learned sizes, once there is one
        #[arg(long)]
        learned: bool,
        #[command(flatten)]
        transport: TransportArgs,
    },
    /// Set the size of one live connection
    ConnSize {
        /// The client, as ADDRESS:PORT
        #[arg(value_parser = parse_tcp_endpoint, value_name = "CLIENT:PORT")]
        client: SocketAddr,
        /// The virtual service, as ADDRESS:PORT
        #[arg(value_parser = parse_tcp_endpoint, value_name = "VIP:PORT")]
        service: SocketAddr,
        /// Bytes, or with a unit: 10M or 10MiB (of 1024), 10MB (of 1000)
        #[arg(value_parser = parse_size)]
        size: u64,
        #[command(flatten)]
        transport: TransportArgs,
    },
    /// Set what a service expects of its connections
    Set(SetArgs),
    /// Show what connections are expected to fetch, and the sizes of files that the director knows
    ///
    /// The sizes come from mwlcd, which answers the director's questions, or are set by hand.
    Sizes {
        #[command(subcommand)]
        change: Option<sizes::Change>,
        #[command(flatten)]
        json: JsonArgs,
    },
    /// Show what nodes report of themselves: open files, memory, processors
    Nodes {
        #[command(flatten)]
        json: JsonArgs,
    },
    /// Take a real server out of service without cutting anybody off before a deadline
    ///
    /// It gets no new connections from now on. Its connections go on; those that are left at the deadline
    /// are reset, or sent to other real servers. Giving it a weight again (-e) ends the drain. With --wait
    /// the exit status is 1 if that, or its deletion, came before its last connection was gone.
    Drain {
        #[command(flatten)]
        service: ServiceArgs,
        /// The real server
        #[arg(short = 'r', long = "real-server", value_name = "SERVER[:PORT]")]
        server: String,
        /// When the connections that are left are dealt with; without it, never
        #[arg(long, value_name = "TIME", value_parser = parse_duration_ms)]
        deadline: Option<u64>,
        /// What becomes of them
        #[arg(long, value_name = "POLICY", default_value = "reset")]
        policy: DrainArg,
        /// Wait until no connection is left, with a progress bar
        #[arg(long)]
        wait: bool,
    },
    /// Show what changes and goes wrong as it happens, one line each
    Monitor {
        /// End after so many events
        #[arg(long, value_name = "EVENTS")]
        count: Option<u64>,
        #[command(flatten)]
        json: JsonArgs,
    },
    /// Find what commonly goes wrong, and say what to set
    ///
    /// Asks on the wire (ARP, neighbour discovery) who has the virtual addresses and the real servers'
    /// addresses: a real server that answers for a virtual address takes the clients past the director, and
    /// is named. Looks at this machine's addresses, at services without a usable real server, and at the
    /// module's age. Exits with 1 if something is wrong.
    Check {
        /// How long to wait for answers after each of two rounds of questions
        #[arg(long, value_name = "TIME", default_value = "500ms", value_parser = parse_duration_ms)]
        wait: u64,
        #[command(flatten)]
        json: JsonArgs,
    },
    /// Write the whole configuration to standard output
    ///
    /// One command a line, each service before its real servers: ipvsadm's own (--set, -A, -a) with thresholds
    /// and timeouts, which ipvsadm forgets, and `set SERVICE ...` for what it has no words for, as mwlcadm-set(8)
    /// has it. Addresses and ports are numbers. What is as it is in a new director is left out. Restoring passes
    /// over empty lines, what follows a #, and a leading `ipvsadm` or `mwlcadm`. Sizes of files are no configuration.
    Save,
    /// Restore a saved configuration, all or nothing
    ///
    /// Every line is checked before anything changes: first its grammar, then, in a network namespace
    /// that is made for this and thrown away, whether the director takes it.
    Restore {
        /// The file; standard input without one
        file: Option<PathBuf>,
        /// Delete what is configured first, instead of adding to it
        #[arg(long)]
        clear: bool,
        /// Check only, and change nothing
        #[arg(long)]
        check: bool,
    },
    /// Write a shell's completions to standard output
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Write the subcommands' manual pages
    #[command(hide = true)]
    Man {
        /// The directory for them
        directory: PathBuf,
    },
}

/// `top` looks no more often: each look is some messages for every service.
const TOP_INTERVAL_MIN: Duration = Duration::from_millis(50);

/// Whether a command line (with the program's name) is for a subcommand or for `--help` and `--version`,
/// rather than in ipvsadm's grammar.
pub fn is_ours(arguments: &[OsString]) -> bool {
    match arguments.get(1).and_then(|word| word.to_str()) {
        Some("--help" | "--version" | "-V") => true,
        Some(word) => !word.starts_with('-'),
        None => false,
    }
}

/// The command line's definition, for the manual page.
pub fn definition() -> clap::Command {
    CommandLine::command()
}

/// Runs a command line (with the program's name).
pub fn run(arguments: &[OsString], output: &mut impl Write) -> Result<(), Error> {
    let matches = definition().try_get_matches_from(arguments)?;
    match CommandLine::from_arg_matches(&matches)?.command {
        Command::Loads {
            service,
            transport,
            json,
        } => {
            let key = service.map(|endpoint| transport.service(endpoint));
            let mut mwlc = Mwlc::open()?;
            let services = show::loads(mwlc.services()?, mwlc.dests(key.as_ref())?, key.as_ref());
            show::write_loads(&services, json.json, output)
        }
        Command::Top {
            interval,
            sort,
            once,
            json,
        } => {
            let options = top::Options {
                interval: Duration::from_millis(interval).max(TOP_INTERVAL_MIN),
                sort,
                once,
                json: json.json,
            };
            top::run(options, output)
        }
        Command::Conns { json } => {
            let conns = show::conns(&Mwlc::open()?.connections()?);
            show::write_conns(&conns, json.json, output)
        }
        Command::ExpectedSize {
            service,
            size,
            learned,
            transport,
        } => {
            let policy = if learned {
                SizePolicy::Learned
            } else {
                SizePolicy::Configured
            };
            let settings = ServiceSettings {
                expected_bytes: Some(size),
                size_policy: Some(policy),
                ..ServiceSettings::default()
            };
            Mwlc::open()?.set_service(&transport.service(service), &settings)
        }
        Command::ConnSize {
            client,
            service,
            size,
            transport,
        } => Mwlc::open()?.set_connection_size(transport.transport(), client, service, size),
        Command::Set(arguments) => arguments.apply(&mut Mwlc::open()?),
        Command::Sizes {
            change: Some(change),
            ..
        } => sizes::change(&change),
        Command::Sizes { change: None, json } => sizes::show(json.json, output),
        Command::Nodes { json } => sizes::show_nodes(json.json, output),
        Command::Drain {
            service,
            server,
            deadline,
            policy,
            wait,
        } => {
            let service = service.name()?;
            let drain = drain::Drain {
                dest: real_server(&service, &server).map_err(Error::Usage)?,
                service,
                deadline_ms: deadline,
                policy: policy.policy(),
            };
            drain::run(&drain, wait, output)
        }
        Command::Monitor { count, json } => monitor::run(json.json, count, output),
        Command::Check { wait, json } => check::run(Duration::from_millis(wait), json.json, output),
        Command::Completions { shell } => documents::completions(shell, definition(), output),
        Command::Man { directory } => documents::manual(&directory, definition()),
        Command::Save => saved::save(true, output),
        Command::Restore { file, clear, check } => restore(file, clear, check, output),
    }
}

fn restore(
    file: Option<PathBuf>,
    clear: bool,
    check: bool,
    output: &mut impl Write,
) -> Result<(), Error> {
    let start = if clear {
        saved::Start::Empty
    } else {
        saved::Start::AsItIs
    };
    let input: Box<dyn std::io::BufRead> = match file {
        Some(path) => match File::open(&path) {
            Ok(file) => Box::new(BufReader::new(file)),
            Err(source) => return Err(Error::File { path, source }),
        },
        None => Box::new(std::io::stdin().lock()),
    };
    if check {
        let count = saved::check(input, start)?;
        return writeln!(output, "{count} commands would be carried out").map_err(Error::Output);
    }
    saved::restore(input, start)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split_whitespace().map(OsString::from).collect()
    }

    #[test]
    fn the_definition_is_sound() {
        definition().debug_assert();
    }

    #[test]
    fn which_grammar_a_line_is_in() {
        for line in [
            "mwlcadm loads",
            "mwlcadm --help",
            "mwlcadm --version",
            "mwlcadm help",
        ] {
            assert!(is_ours(&words(line)), "{line}");
        }
        for line in [
            "mwlcadm",
            "mwlcadm -Ln",
            "mwlcadm --list",
            "mwlcadm -h",
            "mwlcadm --set 1 2 3",
        ] {
            assert!(!is_ours(&words(line)), "{line}");
        }
    }

    #[test]
    fn wrong_values_say_what_is_wrong() {
        for (line, part) in [
            ("mwlcadm expected-size 10.0.0.1 5M", "has no port"),
            ("mwlcadm expected-size 10.0.0.1:80 5Q", "is no size"),
            ("mwlcadm expected-size 10.0.0.1:80", "required"),
            ("mwlcadm conn-size 10.0.0.9:1 10.0.0.1:80", "required"),
        ] {
            let error = definition()
                .try_get_matches_from(words(line))
                .unwrap_err()
                .to_string();
            assert!(error.contains(part), "{line}: {error}");
        }
    }
}
