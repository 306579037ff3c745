// SPDX-License-Identifier: MIT
//! ipvsadm's words: every option with its names, and which command takes which.
//!
//! The parser, `-h`, the shell completions and a test of the manual page all read these tables.

/// A command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
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
    StartDaemon,
    StopDaemon,
    Help,
    Version,
}

/// What an option says; `-t`, `-u` and `-f` all name the service, `-g`, `-i` and `-m` the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    Service,
    Scheduler,
    Persistent,
    Netmask,
    Server,
    Forward,
    Weight,
    Upper,
    Lower,
    OnePacket,
    Engine,
    SchedFlags,
    TunnelType,
    TunnelPort,
    TunnelNoChecksum,
    TunnelChecksum,
    TunnelRemoteChecksum,
    Numeric,
    Connection,
    Timeout,
    Daemon,
    Stats,
    Rate,
    Thresholds,
    PersistentConn,
    TunnelInfo,
    NoSort,
    Sort,
    Exact,
    Ipv6,
    Interface,
    SyncId,
    SyncMaxLength,
    Group,
    GroupPort,
    GroupTtl,
}

/// What follows an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Takes {
    Nothing,
    /// A value with this name.
    Value(&'static str),
    /// A value that may be left out.
    Optional(&'static str),
    /// This many words with these names.
    Words(usize, &'static str),
}

/// A word of the grammar.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Word<T> {
    pub(crate) what: T,
    pub(crate) short: Option<char>,
    pub(crate) long: &'static str,
    pub(crate) takes: Takes,
    pub(crate) help: &'static str,
}

const fn word<T: Copy>(
    what: T,
    short: Option<char>,
    long: &'static str,
    takes: Takes,
    help: &'static str,
) -> Word<T> {
    Word {
        what,
        short,
        long,
        takes,
        help,
    }
}

use Takes::{Nothing, Optional, Value, Words};

/// Every command.
#[rustfmt::skip]
pub(crate) const VERBS: [Word<Verb>; 17] = [
    word(Verb::AddService, Some('A'), "add-service", Nothing, "add a virtual service"),
    word(Verb::EditService, Some('E'), "edit-service", Nothing, "edit a virtual service"),
    word(Verb::DeleteService, Some('D'), "delete-service", Nothing, "delete a virtual service"),
    word(Verb::Clear, Some('C'), "clear", Nothing, "delete every virtual service"),
    word(Verb::Restore, Some('R'), "restore", Nothing, "read the configuration from standard input"),
    word(Verb::Save, Some('S'), "save", Nothing, "write the configuration to standard output"),
    word(Verb::AddDest, Some('a'), "add-server", Nothing, "add a real server"),
    word(Verb::EditDest, Some('e'), "edit-server", Nothing, "edit a real server"),
    word(Verb::DeleteDest, Some('d'), "delete-server", Nothing, "delete a real server"),
    word(Verb::List, Some('L'), "list", Nothing, "list services, connections or timeouts"),
    word(Verb::List, Some('l'), "list", Nothing, "the same"),
    word(Verb::Zero, Some('Z'), "zero", Nothing, "zero the counters of one service or of all"),
    word(Verb::Set, None, "set", Words(3, "TCP TCPFIN UDP"), "set the timeouts of idle connections in seconds; \
        0 leaves one"),
    word(Verb::StartDaemon, None, "start-daemon", Value("master|backup"), "start the synchronisation daemon"),
    word(Verb::StopDaemon, None, "stop-daemon", Value("master|backup"), "stop the synchronisation daemon"),
    word(Verb::Help, Some('h'), "help", Nothing, "show this help"),
    word(Verb::Version, Some('v'), "version", Nothing, "show the version"),
];

/// Every option.
#[rustfmt::skip]
pub(crate) const OPTIONS: [Word<Kind>; 41] = [
    word(Kind::Service, Some('t'), "tcp-service", Value("VIP:PORT"), "a virtual service of TCP"),
    word(Kind::Service, Some('u'), "udp-service", Value("VIP:PORT"), "a virtual service of UDP"),
    word(Kind::Service, None, "sctp-service", Value("VIP:PORT"), "refused: the director does not balance SCTP"),
    word(Kind::Service, Some('f'), "fwmark-service", Value("MARK"), "a virtual service by firewall mark"),
    word(Kind::Ipv6, Some('6'), "ipv6", Nothing, "the firewall mark is one of IPv6 packets"),
    word(Kind::Scheduler, Some('s'), "scheduler", Value("SCHEDULER"), "what chooses the real server (default wlc)"),
    word(Kind::SchedFlags, Some('b'), "sched-flags", Value("FLAGS"), "flags of the scheduler, comma-separated"),
    word(Kind::Persistent, Some('p'), "persistent", Optional("SECONDS"), "a client stays on its real server for \
        so long (default 360)"),
    word(Kind::Netmask, Some('M'), "netmask", Value("NETMASK"), "clients that share these bits stay together; \
        for IPv6 a prefix length"),
    word(Kind::OnePacket, Some('o'), "ops", Nothing, "schedule every UDP datagram by itself"),
    word(Kind::Engine, None, "pe", Value("ENGINE"), "persistence engine"),
    word(Kind::Server, Some('r'), "real-server", Value("SERVER[:PORT]"), "a real server"),
    word(Kind::Forward, Some('g'), "gatewaying", Nothing, "direct routing (default)"),
    word(Kind::Forward, Some('i'), "ipip", Nothing, "tunnelling"),
    word(Kind::Forward, Some('m'), "masquerading", Nothing, "address translation"),
    word(Kind::TunnelType, None, "tun-type", Value("ipip|gue|gre"), "type of the tunnel"),
    word(Kind::TunnelPort, None, "tun-port", Value("PORT"), "UDP port of the tunnel"),
    word(Kind::TunnelNoChecksum, None, "tun-nocsum", Nothing, "tunnel without checksums"),
    word(Kind::TunnelChecksum, None, "tun-csum", Nothing, "tunnel with checksums"),
    word(Kind::TunnelRemoteChecksum, None, "tun-remcsum", Nothing, "tunnel with remote checksums"),
    word(Kind::Weight, Some('w'), "weight", Value("WEIGHT"), "0 to 65535 (default 1); 0 takes no new connections"),
    word(Kind::Upper, Some('x'), "u-threshold", Value("CONNECTIONS"), "take no new connection from so many on"),
    word(Kind::Lower, Some('y'), "l-threshold", Value("CONNECTIONS"), "and again below so many"),
    word(Kind::Numeric, Some('n'), "numeric", Nothing, "show addresses and ports as numbers"),
    word(Kind::Connection, Some('c'), "connection", Nothing, "list the connections"),
    word(Kind::Stats, None, "stats", Nothing, "list counters"),
    word(Kind::Rate, None, "rate", Nothing, "list rates"),
    word(Kind::Exact, Some('X'), "exact", Nothing, "show large numbers in full"),
    word(Kind::Thresholds, None, "thresholds", Nothing, "list thresholds"),
    word(Kind::PersistentConn, None, "persistent-conn", Nothing, "list persistent connections"),
    word(Kind::TunnelInfo, None, "tun-info", Nothing, "list tunnels"),
    word(Kind::NoSort, None, "nosort", Nothing, "list in the kernel's order"),
    word(Kind::Sort, None, "sort", Nothing, "the default"),
    word(Kind::Timeout, None, "timeout", Nothing, "show the timeouts"),
    word(Kind::Daemon, None, "daemon", Nothing, "show the synchronisation daemons"),
    word(Kind::Interface, None, "mcast-interface", Value("INTERFACE"), "the daemon's interface (default eth0)"),
    word(Kind::SyncId, None, "syncid", Value("NUMBER"), "the daemon's number, 0 to 255"),
    word(Kind::SyncMaxLength, None, "sync-maxlen", Value("BYTES"), "the daemon's longest message"),
    word(Kind::Group, None, "mcast-group", Value("ADDRESS"), "the daemon's multicast group"),
    word(Kind::GroupPort, None, "mcast-port", Value("PORT"), "the daemon's UDP port"),
    word(Kind::GroupTtl, None, "mcast-ttl", Value("HOPS"), "how far its messages go"),
];

const SERVICE_OPTIONS: &[Kind] = &[
    Kind::Service,
    Kind::Ipv6,
    Kind::Scheduler,
    Kind::SchedFlags,
    Kind::Persistent,
    Kind::Netmask,
    Kind::OnePacket,
    Kind::Engine,
];
const DEST_OPTIONS: &[Kind] = &[
    Kind::Service,
    Kind::Ipv6,
    Kind::Server,
    Kind::Forward,
    Kind::Weight,
    Kind::Upper,
    Kind::Lower,
    Kind::TunnelType,
    Kind::TunnelPort,
    Kind::TunnelNoChecksum,
    Kind::TunnelChecksum,
    Kind::TunnelRemoteChecksum,
];
const LIST_OPTIONS: &[Kind] = &[
    Kind::Service,
    Kind::Ipv6,
    Kind::Numeric,
    Kind::Connection,
    Kind::Timeout,
    Kind::Daemon,
    Kind::Stats,
    Kind::Rate,
    Kind::Thresholds,
    Kind::PersistentConn,
    Kind::TunnelInfo,
    Kind::NoSort,
    Kind::Sort,
    Kind::Exact,
];
const START_OPTIONS: &[Kind] = &[
    Kind::Interface,
    Kind::SyncId,
    Kind::SyncMaxLength,
    Kind::Group,
    Kind::GroupPort,
    Kind::GroupTtl,
];

impl Verb {
    /// The options that it takes.
    pub(crate) const fn options(self) -> &'static [Kind] {
        match self {
            Verb::AddService | Verb::EditService => SERVICE_OPTIONS,
            Verb::DeleteService | Verb::Zero => &[Kind::Service, Kind::Ipv6],
            Verb::AddDest | Verb::EditDest => DEST_OPTIONS,
            Verb::DeleteDest => &[Kind::Service, Kind::Ipv6, Kind::Server],
            Verb::List => LIST_OPTIONS,
            Verb::Save => &[Kind::Numeric],
            Verb::StartDaemon => START_OPTIONS,
            Verb::StopDaemon => &[Kind::Interface, Kind::SyncId],
            Verb::Clear | Verb::Restore | Verb::Set | Verb::Help | Verb::Version => &[],
        }
    }

    /// Its first name: `-A`, `--set`.
    pub(crate) fn spelling(self) -> String {
        VERBS
            .iter()
            .find(|word| word.what == self)
            .map(Word::spelling)
            .unwrap_or_default()
    }
}

impl<T> Word<T> {
    /// Its short name if it has one: `-A`, `--set`.
    pub(crate) fn spelling(&self) -> String {
        match self.short {
            Some(letter) => format!("-{letter}"),
            None => format!("--{}", self.long),
        }
    }

    fn help_line(&self) -> String {
        let short = match self.short {
            Some(letter) => format!("-{letter}, "),
            None => "    ".to_owned(),
        };
        let value = match self.takes {
            Nothing => String::new(),
            Value(name) | Words(_, name) => format!(" {name}"),
            Optional(name) => format!(" [{name}]"),
        };
        let names = format!("{short}--{}{value}", self.long);
        // A long name has a line of its own.
        if names.len() > 34 {
            format!("  {names}\n  {:<34} {}\n", "", self.help)
        } else {
            format!("  {names:<34} {}\n", self.help)
        }
    }
}

const USAGE: &str = "\
ipvsadm's command line, on the director ipvs_mwlc:
  mwlcadm -A|-E SERVICE [-s SCHEDULER] [-p [SECONDS]] [-M NETMASK] [-b FLAGS] [-o]
  mwlcadm -D SERVICE
  mwlcadm -a|-e SERVICE -r SERVER[:PORT] [-g] [-w WEIGHT] [-x UPPER] [-y LOWER]
  mwlcadm -d SERVICE -r SERVER[:PORT]
  mwlcadm -L|-l [SERVICE|-c|--timeout|--daemon] [-n] [--stats|--rate|--thresholds|...]
  mwlcadm -Z [SERVICE]
  mwlcadm -C | -S [-n] | -R | --set TCP TCPFIN UDP
where SERVICE is -t VIP:PORT, -u VIP:PORT or -f MARK [-6].
Schedulers: rr wrr lc wlc sed nq sh mh fo ovf twos mwlc msed (wlc with -b flag-1 is mwlc, sed msed).
";

/// What `-h` answers.
pub fn help() -> String {
    let mut text = format!("{USAGE}\nCommands:\n");
    text.extend(VERBS.iter().map(Word::help_line));
    text.push_str("\nOptions:\n");
    text.extend(OPTIONS.iter().map(Word::help_line));
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn no_name_has_two_meanings() {
        let mut names = BTreeSet::new();
        let words = VERBS
            .iter()
            .map(|word| (word.short, word.long))
            .chain(OPTIONS.iter().map(|word| (word.short, word.long)));
        for (short, long) in words {
            if let Some(letter) = short {
                assert!(names.insert(letter.to_string()), "{letter}");
            }
            assert!(names.insert(long.to_owned()) || long == "list", "{long}");
        }
    }

    #[test]
    fn every_option_belongs_to_some_command() {
        for option in &OPTIONS {
            let takers = VERBS
                .iter()
                .filter(|verb| verb.what.options().contains(&option.what));
            assert!(takers.count() > 0, "--{}", option.long);
        }
    }

    #[test]
    fn the_manual_page_has_every_word() {
        let page = include_str!("../../../../docs/man/mwlcadm.8").replace('\\', "");
        for long in VERBS
            .iter()
            .map(|word| word.long)
            .chain(OPTIONS.iter().map(|word| word.long))
        {
            assert!(page.contains(&format!("--{long}")), "--{long}");
        }
    }
}
