// SPDX-License-Identifier: MIT
//! What is configured, as the command lines that configure it.

use ipvs_mwlc::director::flags::{SERVICE_ONE_PACKET, SERVICE_PERSISTENT};
use ipvs_mwlc::director::load::{EXPECTED_SIZE_BYTES_DEFAULT, Learn, SizePolicy};
use ipvs_mwlc::director::sched::Scheduler;
use ipvs_mwlc::director::slow_start;
use ipvs_mwlc::director::timeouts::{Timeouts, TimeoutsUpdate};

use crate::error::Error;
use crate::ipvs::{DestConfig, Ipvs, ServiceConfig};
use crate::ipvsadm::{Resolver, flags};
use crate::mwlc::{Mwlc, ServiceSizes};
use crate::names::ServiceName;
use crate::values::show_duration;

/// Every line, each service before its real servers.
pub(super) fn all(
    ipvs: &mut Ipvs,
    mwlc: &mut Mwlc,
    resolver: &Resolver,
) -> Result<Vec<String>, Error> {
    let mut lines = Vec::new();
    lines.extend(timeouts(ipvs.timeouts()?));
    let sizes = mwlc.services()?;
    let mut services = ipvs.services(None)?;
    services.sort_by_key(|service| service.config.name);
    for entry in services {
        let name = entry.config.name;
        lines.push(service(&entry.config, resolver));
        let own = sizes.iter().find(|sizes| sizes.name == name);
        lines.extend(own.and_then(|sizes| settings(sizes, resolver)));
        let mut dests = ipvs.dests(&name)?;
        dests.sort_by_key(|dest| dest.config.address);
        lines.extend(
            dests
                .iter()
                .map(|entry| dest(&name, &entry.config, resolver)),
        );
    }
    Ok(lines)
}

fn timeouts(timeouts: TimeoutsUpdate) -> Option<String> {
    let TimeoutsUpdate {
        tcp_s,
        tcp_fin_s,
        udp_s,
    } = timeouts;
    let default = Timeouts::DEFAULT;
    let unchanged =
        tcp_s == default.established_s && tcp_fin_s == default.fin_wait_s && udp_s == default.udp_s;
    (!unchanged).then(|| format!("--set {tcp_s} {tcp_fin_s} {udp_s}"))
}

fn service(config: &ServiceConfig, resolver: &Resolver) -> String {
    let options = resolver.service_options(&config.name);
    let mut line = format!("-A {options} -s {}", config.scheduler);
    if config.flags & SERVICE_PERSISTENT != 0 {
        line.push_str(&format!(" -p {}", config.timeout_s));
        if let Some(mask) = config.netmask.text() {
            line.push_str(&format!(" -M {mask}"));
        }
    }
    if let Some(engine) = &config.engine {
        line.push_str(&format!(" --pe {engine}"));
    }
    if config.flags & SERVICE_ONE_PACKET != 0 {
        line.push_str(" -o");
    }
    if flags::any(config.flags) {
        let names = flags::names(&config.scheduler, config.flags);
        line.push_str(&format!(" -b {names}"));
    }
    line
}

/// What ipvsadm has no words for, unless it is as it is in a new service.
fn settings(sizes: &ServiceSizes, resolver: &Resolver) -> Option<String> {
    let mut line = format!("set {}", resolver.service_options(&sizes.name));
    let bare = line.len();
    if sizes.configured_bytes != EXPECTED_SIZE_BYTES_DEFAULT {
        line.push_str(&format!(" --expected-size {}", sizes.configured_bytes));
    }
    if sizes.size_policy == SizePolicy::Learned {
        line.push_str(" --size-policy learned");
    }
    if sizes.learn == Learn::Http {
        line.push_str(" --learn http");
    }
    if sizes.remaining {
        line.push_str(" --remaining on");
    }
    if Some(sizes.slow_start_ms) != slow_start_default(&sizes.policy) {
        let time = show_duration(sizes.slow_start_ms.into());
        line.push_str(&format!(" --slow-start {time}"));
    }
    (line.len() > bare).then_some(line)
}

/// What a service of this scheduler has unless it is set; none for a scheduler that this program does
/// not know, whose value is then always written.
fn slow_start_default(scheduler: &str) -> Option<u32> {
    Scheduler::from_name(scheduler.as_bytes()).map(slow_start::default_ms)
}

fn dest(of: &ServiceName, config: &DestConfig, resolver: &Resolver) -> String {
    let options = resolver.service_options(of);
    let endpoint = resolver.endpoint(config.address, of.transport());
    // A local real server is one by its address; ipvsadm writes it the same way.
    let mut line = format!("-a {options} -r {endpoint} -g -w {}", config.weight);
    if config.upper != 0 {
        line.push_str(&format!(" -x {}", config.upper));
    }
    if config.lower != 0 {
        line.push_str(&format!(" -y {}", config.lower));
    }
    line
}

#[cfg(test)]
mod tests {
    //! What is written here is read back by the parser as the same configuration.
    use super::*;
    use crate::ipvs::{Forwarding, Netmask};
    use crate::ipvsadm::{Action, parse};
    use ipvs_mwlc::director::address::{Family, Transport};
    use ipvs_mwlc::director::flags::{SERVICE_SCHED1, SERVICE_SCHED2};
    use ipvs_mwlc::director::refusals::Refusals;
    use std::ffi::OsString;

    fn read(line: &str) -> Action {
        parse(line.split_whitespace().map(OsString::from)).unwrap()
    }

    fn numeric() -> Resolver {
        Resolver::new(true)
    }

    #[test]
    fn services_round_trip() {
        let v4 = ServiceName::Address(Transport::Tcp, "10.0.0.100:80".parse().unwrap());
        let v6 = ServiceName::Address(Transport::Udp, "[2001:db8::1]:53".parse().unwrap());
        let plain = |name: ServiceName| ServiceConfig {
            name,
            scheduler: "mwlc".to_owned(),
            flags: 0,
            timeout_s: 0,
            netmask: Netmask::whole(name.family()),
            engine: None,
        };
        let configs = [
            plain(v4),
            ServiceConfig {
                scheduler: "sh".to_owned(),
                flags: SERVICE_SCHED1 | SERVICE_SCHED2 | SERVICE_PERSISTENT,
                timeout_s: 360,
                netmask: Netmask::V4([255, 255, 255, 0].into()),
                ..plain(v4)
            },
            ServiceConfig {
                flags: SERVICE_ONE_PACKET | SERVICE_PERSISTENT,
                timeout_s: 1,
                netmask: Netmask::V6(64),
                ..plain(v6)
            },
            plain(ServiceName::Mark(Family::Ipv6, 7)),
        ];
        for config in configs {
            let line = service(&config, &numeric());
            assert_eq!(read(&line), Action::AddService(config), "{line}");
        }
    }

    #[test]
    fn real_servers_round_trip() {
        let name = ServiceName::Address(Transport::Tcp, "[2001:db8::1]:80".parse().unwrap());
        let config = DestConfig {
            address: "[2001:db8::2]:80".parse().unwrap(),
            forwarding: Forwarding::DIRECT,
            weight: 0,
            upper: 9,
            lower: 4,
        };
        let line = dest(&name, &config, &numeric());
        assert_eq!(read(&line), Action::AddDest(name, config), "{line}");
    }

    #[test]
    fn what_is_as_in_a_new_director_is_left_out() {
        let default = Timeouts::DEFAULT;
        let mut update = TimeoutsUpdate {
            tcp_s: default.established_s,
            tcp_fin_s: default.fin_wait_s,
            udp_s: default.udp_s,
        };
        assert_eq!(timeouts(update), None);
        update.udp_s = 7;
        assert_eq!(timeouts(update).as_deref(), Some("--set 900 120 7"));
        let mut sizes = ServiceSizes {
            name: ServiceName::Mark(Family::Ipv4, 7),
            policy: "mwlc".to_owned(),
            configured_bytes: EXPECTED_SIZE_BYTES_DEFAULT,
            size_policy: SizePolicy::Configured,
            expected_bytes: 5,
            learned_count: 1,
            learn: Learn::Off,
            remaining: false,
            slow_start_ms: slow_start::default_ms(Scheduler::Mwlc),
            refused: Refusals::default(),
        };
        assert_eq!(settings(&sizes, &numeric()), None);
        sizes.configured_bytes = 5;
        sizes.size_policy = SizePolicy::Learned;
        sizes.learn = Learn::Http;
        sizes.remaining = true;
        sizes.slow_start_ms = 90_000;
        let line = settings(&sizes, &numeric());
        let expected = "set -f 7 --expected-size 5 --size-policy learned --learn http --remaining on --slow-start 90s";
        assert_eq!(line.as_deref(), Some(expected));
    }
}
