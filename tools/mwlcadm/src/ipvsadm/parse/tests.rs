// SPDX-License-Identifier: MIT
use super::*;
use crate::ipvs::{Daemon, DestConfig, Forwarding, Netmask, ServiceConfig};
use crate::ipvsadm::{Listing, View};
use crate::names::ServiceName;
use ipvs_mwlc::director::address::{Family, Transport};
use ipvs_mwlc::director::timeouts::TimeoutsUpdate;
use proptest::prelude::*;
use std::net::SocketAddr;

fn line(text: &str) -> Result<Action, Error> {
    parse(text.split_whitespace().map(OsString::from))
}

fn parsed(text: &str) -> Action {
    line(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn endpoint(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn tcp() -> ServiceName {
    ServiceName::Address(Transport::Tcp, endpoint("10.0.0.100:80"))
}

fn service(name: ServiceName, scheduler: &str, flags: u32) -> ServiceConfig {
    ServiceConfig {
        name,
        scheduler: scheduler.to_owned(),
        flags,
        timeout_s: 0,
        netmask: Netmask::whole(name.family()),
        engine: None,
    }
}

#[test]
fn services() {
    let add = |scheduler, flags| Action::AddService(service(tcp(), scheduler, flags));
    for text in [
        "-A -t 10.0.0.100:80 -s mwlc",
        "-A -t10.0.0.100:80 -smwlc",
        "-At 10.0.0.100:80 -s mwlc",
        "-A -t 10.0.0.100:http -s mwlc",
        "--add-service --tcp-service 10.0.0.100:80 --scheduler=mwlc",
        "-s mwlc -t 10.0.0.100:80 -A",
    ] {
        assert_eq!(parsed(text), add("mwlc", 0), "{text}");
    }
    assert_eq!(parsed("-A -t 10.0.0.100:80"), add("wlc", 0));
    let flagged = parsed("-A -t 10.0.0.100:80 -s wlc -b flag-1,flag-3");
    assert_eq!(flagged, add("wlc", 0x28));
    let hashed = parsed("-A -b sh-fallback,sh-port -t 10.0.0.100:80 -s sh");
    assert_eq!(hashed, add("sh", 0x18));
    let edit = Action::EditService(service(tcp(), "rr", 0));
    assert_eq!(parsed("-E -t 10.0.0.100:80 -s rr"), edit);
    assert_eq!(parsed("-D -t 10.0.0.100:80"), Action::DeleteService(tcp()));
}

#[test]
fn services_of_every_kind_of_name() {
    for (text, name) in [
        (
            "-u [2001:db8::1]:53",
            ServiceName::Address(Transport::Udp, endpoint("[2001:db8::1]:53")),
        ),
        ("-f 7", ServiceName::Mark(Family::Ipv4, 7)),
        ("-f 7 -6", ServiceName::Mark(Family::Ipv6, 7)),
        ("-6 -f 7", ServiceName::Mark(Family::Ipv6, 7)),
    ] {
        let added = parsed(&format!("-A {text} -s rr"));
        assert_eq!(added, Action::AddService(service(name, "rr", 0)), "{text}");
        assert_eq!(parsed(&format!("-Z {text}")), Action::Zero(Some(name)));
    }
    let any_port = ServiceName::Address(Transport::Tcp, endpoint("10.0.0.100:0"));
    let expected = ServiceConfig {
        timeout_s: 360,
        ..service(any_port, "wlc", 1)
    };
    assert_eq!(parsed("-A -t 10.0.0.100 -p"), Action::AddService(expected));
}

#[test]
fn persistence_takes_a_timeout_or_none() {
    for (text, seconds) in [
        ("-A -t 10.0.0.100:80 -p", 360),
        ("-A -t 10.0.0.100:80 -p 60", 60),
        ("-A -t 10.0.0.100:80 -p60", 60),
        ("-A -t 10.0.0.100:80 --persistent=60", 60),
        ("-A -p -t 10.0.0.100:80", 360),
        ("-A -p 5 -t 10.0.0.100:80", 5),
    ] {
        let expected = ServiceConfig {
            timeout_s: seconds,
            ..service(tcp(), "wlc", 1)
        };
        assert_eq!(parsed(text), Action::AddService(expected), "{text}");
    }
    let udp = ServiceName::Address(Transport::Udp, endpoint("10.0.0.100:80"));
    let expected = ServiceConfig {
        netmask: Netmask::V4([255, 255, 255, 0].into()),
        engine: Some("sip".to_owned()),
        ..service(udp, "wlc", 4)
    };
    let text = "-A -u 10.0.0.100:80 -o -M 255.255.255.0 --pe sip";
    assert_eq!(parsed(text), Action::AddService(expected));
    let mark = ServiceName::Mark(Family::Ipv6, 7);
    let expected = ServiceConfig {
        netmask: Netmask::V6(64),
        timeout_s: 360,
        ..service(mark, "wlc", 1)
    };
    assert_eq!(parsed("-A -f 7 -6 -p -M 64"), Action::AddService(expected));
}

fn dest(address: &str) -> DestConfig {
    DestConfig {
        address: endpoint(address),
        forwarding: Forwarding::DIRECT,
        weight: 1,
        upper: 0,
        lower: 0,
    }
}

#[test]
fn real_servers() {
    let method = |method| DestConfig {
        forwarding: Forwarding {
            method,
            ..Forwarding::DIRECT
        },
        ..dest("10.0.0.1:80")
    };
    for (text, expected) in [
        ("-r 10.0.0.1", dest("10.0.0.1:80")),
        (
            "-r 10.0.0.1:80 -g -w 7",
            DestConfig {
                weight: 7,
                ..dest("10.0.0.1:80")
            },
        ),
        // Direct routing keeps the port, so another one given is the service's all the same.
        ("-r 10.0.0.1:8080 -g", dest("10.0.0.1:80")),
        (
            "-r 10.0.0.1:8080 -m",
            DestConfig {
                address: endpoint("10.0.0.1:8080"),
                ..method(0)
            },
        ),
        ("-r 10.0.0.1 -m", method(0)),
        ("-r 10.0.0.1 -i", method(2)),
        (
            "-r 10.0.0.1 -x 9 -y 4",
            DestConfig {
                upper: 9,
                lower: 4,
                ..dest("10.0.0.1:80")
            },
        ),
        (
            "-r 10.0.0.1 -i --tun-type gue --tun-port 6080 --tun-remcsum",
            DestConfig {
                forwarding: Forwarding {
                    method: 2,
                    tunnel: 1,
                    tunnel_port: 6080,
                    tunnel_flags: 2,
                },
                ..dest("10.0.0.1:80")
            },
        ),
    ] {
        let added = parsed(&format!("-a -t 10.0.0.100:80 {text}"));
        assert_eq!(added, Action::AddDest(tcp(), expected), "{text}");
    }
    let edit = DestConfig {
        weight: 65_535,
        ..dest("10.0.0.1:80")
    };
    let text = "-e -t 10.0.0.100:80 -r 10.0.0.1 -w 65535";
    assert_eq!(parsed(text), Action::EditDest(tcp(), edit));
    let delete = parsed("-d -t 10.0.0.100:80 -r 10.0.0.1:80");
    let expected = Action::DeleteDest(tcp(), endpoint("10.0.0.1:80"));
    assert_eq!(delete, expected);
    let mark = ServiceName::Mark(Family::Ipv4, 7);
    let added = parsed("-a -f 7 -r 10.0.0.1:81");
    assert_eq!(added, Action::AddDest(mark, dest("10.0.0.1:81")));
}

#[test]
fn listings() {
    let plain = Listing::default();
    for text in ["", "-L", "-l", "--list", "-L --sort"] {
        assert_eq!(parsed(text), Action::List(plain), "{text}");
    }
    let numeric = Listing {
        numeric: true,
        ..plain
    };
    for (text, view) in [
        ("-Ln", View::Plain),
        ("-n -L", View::Plain),
        ("-n", View::Plain),
        ("-Lnc", View::Connections),
        ("-L --stats -n", View::Stats),
        ("-Ln --rate", View::Rate),
        ("-Ln --thresholds", View::Thresholds),
        ("-Ln --tun-info", View::Tunnels),
        ("-Ln --timeout", View::Timeouts),
        ("-Ln --daemon", View::Daemon),
        // As with ipvsadm, the first of these counts.
        ("-Ln --rate --stats", View::Stats),
    ] {
        assert_eq!(
            parsed(text),
            Action::List(Listing { view, ..numeric }),
            "{text}"
        );
    }
    let persistent = Listing {
        view: View::Persistent,
        engine_columns: true,
        ..plain
    };
    assert_eq!(parsed("-L --persistent-conn"), Action::List(persistent));
    let one = Listing {
        service: Some(tcp()),
        exact: true,
        unsorted: true,
        ..numeric
    };
    let text = "-Ln -t 10.0.0.100:80 --exact --nosort";
    assert_eq!(parsed(text), Action::List(one));
    let short = parsed("-LnX -t 10.0.0.100:80 --nosort");
    assert_eq!(short, Action::List(one));
}

#[test]
fn the_other_commands() {
    let update = TimeoutsUpdate {
        tcp_s: 900,
        tcp_fin_s: 0,
        udp_s: 300,
    };
    let simple = [
        ("--set 900 0 300", Action::SetTimeouts(update)),
        ("-Z", Action::Zero(None)),
        ("-C", Action::Clear),
        ("-R", Action::Restore),
        ("-Sn", Action::Save { numeric: true }),
        ("-S", Action::Save { numeric: false }),
        ("-h", Action::Help),
        ("-v", Action::Version),
    ];
    for (text, action) in simple {
        assert_eq!(parsed(text), action);
    }
    let daemon = Daemon {
        role: 2,
        interface: "eth1".to_owned(),
        sync_id: 7,
        group: Some([224, 0, 0, 81].into()),
        ttl: 3,
        ..Daemon::default()
    };
    let text = "--start-daemon backup --mcast-interface eth1 --syncid 7 --mcast-group 224.0.0.81 \
                --mcast-ttl 3";
    assert_eq!(parsed(text), Action::StartDaemon(daemon));
    let daemon = Daemon {
        role: 1,
        interface: "eth0".to_owned(),
        ..Daemon::default()
    };
    assert_eq!(parsed("--stop-daemon master"), Action::StopDaemon(daemon));
}

#[test]
fn what_is_wrong_is_said() {
    for (text, part) in [
        ("-A", "which service"),
        ("-A -t 10.0.0.100", "must be persistent"),
        ("-A -t", "missing argument"),
        ("-A -D -t 10.0.0.100:80", "one command"),
        ("-A -t 10.0.0.100:80 -t 10.0.0.101:80", "once"),
        ("-A -t 10.0.0.100:80 -f 1", "give one of"),
        ("-A -f 0", "from 1"),
        ("-A -t 10.0.0.100:80 -6", "-6 goes with -f"),
        ("-A --sctp-service 10.0.0.100:80", "does not balance SCTP"),
        ("-A -t 10.0.0.100:80 -b flag-4", "flag-1"),
        ("-A -t 10.0.0.100:80 -s rr -b sh-port", "flag of sh"),
        ("-A -t 10.0.0.100:80 -o", "UDP services only"),
        ("-A -t 10.0.0.100:80 -p x", "--persistent"),
        ("-A -t 10.0.0.100:80 -p -M x", "no netmask"),
        ("-A -t [::1]:80 -p -M 255.0.0.0", "from 1 to 128"),
        ("-A -t 10.0.0.100:80 -w 1", "--weight does not go with -A"),
        ("-a -t 10.0.0.100:80", "which real server"),
        ("-a -t 10.0.0.100:80 -r 10.0.0.1 -w 65536", "to 65535"),
        ("-a -t 10.0.0.100:80 -r 10.0.0.1 -w -1", "to 65535"),
        ("-a -t 10.0.0.100:80 -r 10.0.0.1:x", "no port number"),
        ("-a -t 10.0.0.100:80 -r [::1]:80", "another family"),
        ("-a -t 10.0.0.100:80 -r 10.0.0.1 -g -m", "once"),
        ("-a -t 10.0.0.100:80 -r 10.0.0.1 --tun-port 1", "with -i"),
        ("--set 1 2", "missing argument"),
        ("--set 1 2 x", "--set takes"),
        ("--set 1 2 3 4", "unexpected argument `4`"),
        ("-L --frobnicate", "--frobnicate"),
        ("-q", "-q"),
        ("-L word", "word"),
        ("-Lc -t 10.0.0.100:80", "does not go with"),
        ("-Lc --stats", "not of these"),
        ("--start-daemon both", "master or backup"),
        ("--start-daemon master --mcast-group 10.0.0.1", "multicast"),
    ] {
        match line(text) {
            Err(Error::Usage(message)) => assert!(message.contains(part), "{text}: {message}"),
            other => panic!("{text}: {other:?}"),
        }
    }
}

proptest! {
    #[test]
    fn any_words_are_answered(words in prop::collection::vec("-[a-zA-Z0-9]|--[a-z-]{1,12}|[0-9.:\\[\\]]{0,12}", 0..8)) {
        let _ = parse(words.into_iter().map(OsString::from));
    }
}
