// SPDX-License-Identifier: MIT
//! The subcommands of our own, for what IPVS has no words for.

use std::ffi::OsString;
use std::io::Write;
use std::net::SocketAddrV4;

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use ipvs_mwlc::director::config::{ServiceKey, Transport};
use ipvs_mwlc::director::load::SizePolicy;
use ipvs_mwlc::director::packet::Ipv4Tuple;

use crate::error::Error;
use crate::mwlc::Mwlc;
use crate::values::{parse_endpoint, parse_size, service_key};
use crate::{ipvsadm, show};

/// Administer the director `ipvs_mwlc`: ipvsadm's command line as it is, and the subcommands below.
#[derive(Debug, Parser)]
#[command(
    name = "mwlcadm",
    version,
    after_help = ipvsadm::HELP,
    after_long_help = ipvsadm::HELP,
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
        #[arg(value_parser = parse_endpoint, value_name = "VIP:PORT")]
        service: Option<SocketAddrV4>,
        #[command(flatten)]
        transport: TransportArgs,
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
        #[arg(value_parser = parse_endpoint, value_name = "VIP:PORT")]
        service: SocketAddrV4,
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
        #[arg(value_parser = parse_endpoint, value_name = "CLIENT:PORT")]
        client: SocketAddrV4,
        /// The virtual service, as ADDRESS:PORT
        #[arg(value_parser = parse_endpoint, value_name = "VIP:PORT")]
        service: SocketAddrV4,
        /// Bytes, or with a unit: 10M or 10MiB (of 1024), 10MB (of 1000)
        #[arg(value_parser = parse_size)]
        size: u64,
        #[command(flatten)]
        transport: TransportArgs,
    },
}

#[derive(Debug, Args)]
struct TransportArgs {
    /// The service is UDP rather than TCP
    #[arg(long, short)]
    udp: bool,
}

impl TransportArgs {
    fn transport(&self) -> Transport {
        if self.udp {
            Transport::Udp
        } else {
            Transport::Tcp
        }
    }

    fn service(&self, endpoint: SocketAddrV4) -> ServiceKey {
        service_key(self.transport(), endpoint)
    }
}

#[derive(Debug, Args)]
struct JsonArgs {
    /// Write JSON
    #[arg(long)]
    json: bool,
}

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
            let key = transport.service(service);
            Mwlc::open()?.set_expected_size(&key, Some(size), Some(policy))
        }
        Command::ConnSize {
            client,
            service,
            size,
            transport,
        } => {
            let tuple = Ipv4Tuple {
                transport: transport.transport(),
                source: client.ip().octets(),
                source_port: client.port(),
                destination: service.ip().octets(),
                destination_port: service.port(),
            };
            Mwlc::open()?.set_connection_size(&tuple, size)
        }
    }
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
