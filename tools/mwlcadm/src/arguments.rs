// SPDX-License-Identifier: MIT
//! What several subcommands take: services as ipvsadm names them, switches, settings.

use std::ffi::OsString;
use std::net::SocketAddr;

use clap::{Args, FromArgMatches, ValueEnum};
use ipvs_mwlc::director::address::{Family, Transport};
use ipvs_mwlc::director::drain::DrainPolicy;
use ipvs_mwlc::director::load::{Learn, SizePolicy};

use crate::error::Error;
use crate::mwlc::{Mwlc, ServiceSettings};
use crate::names::ServiceName;
use crate::values::{parse_duration_ms, parse_endpoint, parse_size};

/// Settings of one service.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
#[command(group = clap::ArgGroup::new("setting").required(true).multiple(true))]
pub struct SetArgs {
    #[command(flatten)]
    service: ServiceArgs,
    /// What a connection is expected to fetch, until its own size is known: bytes, or with a unit: 10M or
    /// 10MiB (of 1024), 10MB (of 1000)
    #[arg(long, value_name = "SIZE", value_parser = parse_size, group = "setting")]
    expected_size: Option<u64>,
    /// Whether the configured expected size counts, or the moving average of learned ones
    #[arg(long, value_name = "POLICY", group = "setting")]
    size_policy: Option<PolicyArg>,
    /// Whether sizes are learned from what clients request
    #[arg(long, value_name = "HOW", group = "setting")]
    learn: Option<LearnArg>,
    /// Whether a connection's size shrinks as its client acknowledges
    #[arg(long, value_name = "on|off", group = "setting")]
    remaining: Option<Switch>,
    /// How long a real server that is new, or back from weight 0, takes to its whole weight; 0 for none
    #[arg(long, value_name = "TIME", value_parser = parse_short_duration, group = "setting")]
    slow_start: Option<u32>,
}

fn parse_short_duration(text: &str) -> Result<u32, String> {
    let ms = parse_duration_ms(text)?;
    u32::try_from(ms).map_err(|_| format!("`{text}` is too long: at most 49 days"))
}

impl SetArgs {
    /// Parses `set ...` as it stands in a saved configuration.
    pub fn from_words(words: &[OsString]) -> Result<SetArgs, Error> {
        let mut command = SetArgs::augment_args(clap::Command::new("set"))
            .disable_help_flag(true)
            .color(clap::ColorChoice::Never);
        let matches = command
            .try_get_matches_from_mut(words)
            .map_err(|error| Error::Usage(first_line(&error)))?;
        SetArgs::from_arg_matches(&matches).map_err(|error| Error::Usage(first_line(&error)))
    }

    /// Has the director take them.
    pub fn apply(&self, mwlc: &mut Mwlc) -> Result<(), Error> {
        let settings = ServiceSettings {
            expected_bytes: self.expected_size,
            size_policy: self.size_policy.map(PolicyArg::policy),
            learn: self.learn.map(LearnArg::learn),
            remaining: self.remaining.map(Switch::is_on),
            slow_start_ms: self.slow_start,
        };
        mwlc.set_service(&self.service.name()?, &settings)
    }
}

/// What clap has to say, without its usage.
fn first_line(error: &clap::Error) -> String {
    let text = error.to_string();
    let line = text.lines().next().unwrap_or_default();
    line.trim_start_matches("error: ").to_owned()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum PolicyArg {
    Configured,
    Learned,
}

impl PolicyArg {
    const fn policy(self) -> SizePolicy {
        match self {
            PolicyArg::Configured => SizePolicy::Configured,
            PolicyArg::Learned => SizePolicy::Learned,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum LearnArg {
    Off,
    Http,
}

impl LearnArg {
    const fn learn(self) -> Learn {
        match self {
            LearnArg::Off => Learn::Off,
            LearnArg::Http => Learn::Http,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum DrainArg {
    /// Their clients' next segments are answered with a reset
    Reset,
    /// Another real server gets their next packets
    Redispatch,
}

impl DrainArg {
    pub(super) const fn policy(self) -> DrainPolicy {
        match self {
            DrainArg::Reset => DrainPolicy::Reset,
            DrainArg::Redispatch => DrainPolicy::Redispatch,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Switch {
    On,
    Off,
}

impl Switch {
    fn is_on(self) -> bool {
        self == Switch::On
    }
}

/// A virtual service, named as ipvsadm does.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
#[command(group = clap::ArgGroup::new("service").required(true).multiple(false))]
pub struct ServiceArgs {
    /// A virtual service of TCP
    #[arg(
        short = 't',
        long = "tcp-service",
        value_name = "VIP:PORT",
        group = "service"
    )]
    tcp: Option<String>,
    /// A virtual service of UDP
    #[arg(
        short = 'u',
        long = "udp-service",
        value_name = "VIP:PORT",
        group = "service"
    )]
    udp: Option<String>,
    /// A virtual service by firewall mark
    #[arg(short = 'f', long = "fwmark-service", value_name = "MARK", group = "service",
        value_parser = clap::value_parser!(u32).range(1..))]
    mark: Option<u32>,
    /// The firewall mark is one of IPv6 packets
    #[arg(short = '6', long = "ipv6", requires = "mark")]
    ipv6: bool,
}

impl ServiceArgs {
    /// The service's name.
    pub fn name(&self) -> Result<ServiceName, Error> {
        let family = if self.ipv6 {
            Family::Ipv6
        } else {
            Family::Ipv4
        };
        let (transport, text) = match (&self.tcp, &self.udp, self.mark) {
            (Some(text), ..) => (Transport::Tcp, text),
            (_, Some(text), _) => (Transport::Udp, text),
            (.., Some(mark)) => return Ok(ServiceName::Mark(family, mark)),
            (None, None, None) => {
                let text = "which service? give -t VIP:PORT, -u VIP:PORT or -f MARK";
                return Err(Error::Usage(text.to_owned()));
            }
        };
        let endpoint = parse_endpoint(text, transport).map_err(Error::Usage)?;
        Ok(ServiceName::Address(transport, endpoint))
    }
}

#[derive(Debug, Args)]
pub(super) struct TransportArgs {
    /// The service is TCP, as it is anyway
    #[arg(long, short, conflicts_with = "udp")]
    tcp: bool,
    /// The service is UDP rather than TCP
    #[arg(long, short)]
    udp: bool,
}

impl TransportArgs {
    pub(super) fn transport(&self) -> Transport {
        if self.udp {
            Transport::Udp
        } else {
            Transport::Tcp
        }
    }

    pub(super) fn service(&self, endpoint: SocketAddr) -> ServiceName {
        ServiceName::Address(self.transport(), endpoint)
    }
}

#[derive(Debug, Args)]
pub(super) struct JsonArgs {
    /// Write JSON
    #[arg(long)]
    pub(super) json: bool,
}
