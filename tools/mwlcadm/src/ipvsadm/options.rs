// SPDX-License-Identifier: MIT
//! What ipvsadm's options say, collected first and put to the verb's needs then.

use ipvs_mwlc::director::config::{
    DestKey, FlagsUpdate, SERVICE_HASHED, SERVICE_ONE_PACKET, SERVICE_PERSISTENT, SERVICE_SCHED1,
    SERVICE_SCHED2, SERVICE_SCHED3, ServiceKey, Thresholds, Transport, WEIGHT_MAX,
};
use ipvs_mwlc::director::timeouts::TimeoutsUpdate;
use ipvs_mwlc::uapi::ipvs::forwarding;
use lexopt::{Parser, ValueExt};

use super::parse::{Token, Verb};
use super::{Action, Listing, View};
use crate::error::Error;
use crate::ipvs::{NewDest, NewService};
use crate::values::{dest_key, parse_endpoint, parse_host, parse_port, parse_size, service_key};

/// ipvsadm's default scheduler.
const SCHEDULER_DEFAULT: &str = "wlc";
/// ipvsadm's default weight.
const WEIGHT_DEFAULT: u32 = 1;
/// ipvsadm's default persistence timeout.
const PERSISTENCE_S_DEFAULT: u32 = 300;

/// Everything that options can say, before it is known which verb wants what.
#[derive(Default)]
pub(super) struct Options {
    pub(super) verb: Option<Verb>,
    service: Option<(Transport, String)>,
    firewall_mark: bool,
    server: Option<String>,
    scheduler: Option<String>,
    sched_flags: Option<u32>,
    persistent_s: Option<u32>,
    netmask: Option<[u8; 4]>,
    one_packet: bool,
    forwarding: Option<u32>,
    weight: Option<u32>,
    upper: Option<u32>,
    lower: Option<u32>,
    view: Option<View>,
    exact: bool,
    unsorted: bool,
    learned: bool,
    pub(super) words: Vec<String>,
}

impl Options {
    pub(super) fn set_verb(&mut self, verb: Verb) -> Result<(), Error> {
        match self.verb.replace(verb) {
            None => Ok(()),
            Some(_) => Err(Error::Usage("give one command, not several".to_owned())),
        }
    }

    pub(super) fn take(&mut self, token: &Token, parser: &mut Parser) -> Result<(), Error> {
        match token.spelling().as_str() {
            "-t" | "--tcp-service" => {
                self.service = Some((Transport::Tcp, text(parser)?));
            }
            "-u" | "--udp-service" => {
                self.service = Some((Transport::Udp, text(parser)?));
            }
            "-f" | "--fwmark-service" => {
                text(parser)?;
                self.firewall_mark = true;
            }
            "-r" | "--real-server" => self.server = Some(text(parser)?),
            "-s" | "--scheduler" => self.scheduler = Some(text(parser)?),
            "-b" | "--sched-flags" => {
                self.sched_flags = Some(sched_flags(&text(parser)?)?);
            }
            "-p" | "--persistent" => {
                self.persistent_s = Some(match parser.optional_value() {
                    Some(value) => number("timeout", &value.string().map_err(usage)?)?,
                    None => persistence(parser)?,
                });
            }
            "-M" | "--netmask" => {
                self.netmask = Some(parse_host(&text(parser)?).map_err(Error::Usage)?.octets());
            }
            "-o" | "--ops" => self.one_packet = true,
            "-g" | "--gatewaying" => self.forwarding = Some(forwarding::DROUTE),
            "-m" | "--masquerading" => self.forwarding = Some(forwarding::MASQ),
            "-i" | "--ipip" => self.forwarding = Some(forwarding::TUNNEL),
            "-w" | "--weight" => self.weight = Some(number("weight", &text(parser)?)?),
            "-x" | "--u-threshold" => {
                self.upper = Some(number("upper threshold", &text(parser)?)?);
            }
            "-y" | "--l-threshold" => {
                self.lower = Some(number("lower threshold", &text(parser)?)?);
            }
            _ => self.take_listing(token)?,
        }
        Ok(())
    }

    fn take_listing(&mut self, token: &Token) -> Result<(), Error> {
        let view = match token.spelling().as_str() {
            // Addresses are always numbers.
            "-n" | "--numeric" | "--sort" => return Ok(()),
            "--exact" => {
                self.exact = true;
                return Ok(());
            }
            "--nosort" => {
                self.unsorted = true;
                return Ok(());
            }
            "--learned" => {
                self.learned = true;
                return Ok(());
            }
            "-c" | "--connection" => View::Connections,
            "--stats" => View::Stats,
            "--rate" => View::Rate,
            "--thresholds" => View::Thresholds,
            "--persistent-conn" => View::Persistent,
            "--timeout" => View::Timeouts,
            "--daemon" => View::Daemon,
            "-6" | "--ipv6" => {
                return Err(Error::Usage(
                    "the director does not serve IPv6 yet".to_owned(),
                ));
            }
            "--pe" => {
                return Err(Error::Usage(
                    "the director has no persistence engines".to_owned(),
                ));
            }
            daemon @ ("--start-daemon" | "--stop-daemon") => {
                let text = format!("{daemon}: the director has no synchronisation daemon");
                return Err(Error::Usage(text));
            }
            other => return Err(Error::Usage(format!("`{other}` is no option of ipvsadm's"))),
        };
        self.view = Some(view);
        Ok(())
    }

    pub(super) fn action(self) -> Result<Action, Error> {
        Ok(match self.verb.unwrap_or(Verb::List) {
            Verb::AddService => Action::AddService(self.new_service()?),
            Verb::EditService => Action::EditService(self.new_service()?),
            Verb::DeleteService => Action::DeleteService(self.service()?),
            Verb::Clear => Action::Clear,
            Verb::Restore => Action::Restore,
            Verb::Save => Action::Save,
            Verb::AddDest => Action::AddDest(self.service()?, self.new_dest()?),
            Verb::EditDest => Action::EditDest(self.service()?, self.new_dest()?),
            Verb::DeleteDest => Action::DeleteDest(self.service()?, self.dest()?),
            Verb::List => Action::List(Listing {
                service: self.optional_service()?,
                view: self.view.unwrap_or_default(),
                exact: self.exact,
                unsorted: self.unsorted,
            }),
            Verb::Zero => Action::Zero(self.optional_service()?),
            Verb::Set => self.timeouts()?,
            Verb::ExpectedSize => self.expected_size()?,
            Verb::Help => Action::Help,
        })
    }

    fn optional_service(&self) -> Result<Option<ServiceKey>, Error> {
        if self.firewall_mark {
            return Err(Error::Usage(
                "the director has no firewall-mark services (-f): give -t or -u VIP:PORT".into(),
            ));
        }
        match &self.service {
            None => Ok(None),
            Some((transport, text)) => {
                let endpoint = parse_endpoint(text).map_err(Error::Usage)?;
                Ok(Some(service_key(*transport, endpoint)))
            }
        }
    }

    fn service(&self) -> Result<ServiceKey, Error> {
        self.optional_service()?
            .ok_or_else(|| Error::Usage("which service? give -t or -u VIP:PORT".to_owned()))
    }

    fn new_service(&self) -> Result<NewService, Error> {
        let key = self.service()?;
        let mut flags = self.sched_flags.unwrap_or(0);
        if self.persistent_s.is_some() {
            flags |= SERVICE_PERSISTENT;
        }
        if self.one_packet {
            flags |= SERVICE_ONE_PACKET;
        }
        Ok(NewService {
            key,
            scheduler: self
                .scheduler
                .clone()
                .unwrap_or_else(|| SCHEDULER_DEFAULT.to_owned()),
            flags: FlagsUpdate {
                flags,
                mask: !SERVICE_HASHED,
            },
            timeout_s: self.persistent_s.unwrap_or(0),
            netmask: self.netmask.unwrap_or([255; 4]),
        })
    }

    /// The server of `-r`; without a port it is the service's.
    fn dest(&self) -> Result<DestKey, Error> {
        let service = self.service()?;
        let text = self.server.as_deref().ok_or_else(|| {
            Error::Usage("which real server? give -r SERVER or SERVER:PORT".to_owned())
        })?;
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) => (host, parse_port(port).map_err(Error::Usage)?),
            None => (text, 0),
        };
        let host = parse_host(host).map_err(Error::Usage)?;
        // As ipvsadm has it, direct routing and tunnelling take the service's port whatever is given.
        let keeps_port = self.forwarding.unwrap_or(forwarding::DROUTE) == forwarding::MASQ;
        let port = if port == 0 || !keeps_port {
            service.port()
        } else {
            port
        };
        Ok(dest_key(std::net::SocketAddrV4::new(host, port)))
    }

    fn new_dest(&self) -> Result<NewDest, Error> {
        let weight = self.weight.unwrap_or(WEIGHT_DEFAULT);
        if weight > WEIGHT_MAX {
            return Err(Error::Usage(format!(
                "weight {weight} is over {WEIGHT_MAX}"
            )));
        }
        Ok(NewDest {
            key: self.dest()?,
            forwarding: self.forwarding.unwrap_or(forwarding::DROUTE),
            weight,
            thresholds: Thresholds {
                upper: self.upper.unwrap_or(0),
                lower: self.lower.unwrap_or(0),
            },
        })
    }

    fn timeouts(&self) -> Result<Action, Error> {
        let mut seconds = self.words.iter().map(|word| number("timeout", word));
        let mut next = || seconds.next().unwrap_or(Ok(0));
        Ok(Action::SetTimeouts(TimeoutsUpdate {
            tcp_s: next()?,
            tcp_fin_s: next()?,
            udp_s: next()?,
        }))
    }

    fn expected_size(&self) -> Result<Action, Error> {
        let [size] = self.words.as_slice() else {
            return Err(Error::Usage("expected-size takes one SIZE".to_owned()));
        };
        Ok(Action::ExpectedSize {
            key: self.service()?,
            configured_bytes: parse_size(size).map_err(Error::Usage)?,
            learned: self.learned,
        })
    }
}

/// `-p 300` and `-p` are both right: a number that follows is the timeout.
fn persistence(parser: &mut Parser) -> Result<u32, Error> {
    let follows = parser
        .try_raw_args()
        .and_then(|mut raw| raw.next_if(|word| word.to_str().is_some_and(is_number)));
    match follows {
        Some(word) => number("timeout", &word.string().map_err(usage)?),
        None => Ok(PERSISTENCE_S_DEFAULT),
    }
}

fn is_number(word: &str) -> bool {
    !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit())
}

pub(super) fn text(parser: &mut Parser) -> Result<String, Error> {
    parser
        .value()
        .and_then(|value| value.string())
        .map_err(usage)
}

fn number(what: &str, text: &str) -> Result<u32, Error> {
    text.parse()
        .map_err(|_| Error::Usage(format!("`{text}` is no {what}: give a whole number")))
}

fn sched_flags(text: &str) -> Result<u32, Error> {
    text.split(',').try_fold(0, |flags, name| match name {
        "flag-1" => Ok(flags | SERVICE_SCHED1),
        "flag-2" => Ok(flags | SERVICE_SCHED2),
        "flag-3" => Ok(flags | SERVICE_SCHED3),
        name => Err(Error::Usage(format!(
            "`{name}` is no flag: flag-1, flag-2 or flag-3"
        ))),
    })
}

pub(super) fn usage(error: lexopt::Error) -> Error {
    Error::Usage(error.to_string())
}
