// SPDX-License-Identifier: GPL-2.0-only
//! `/proc/net/ip_vs`, `ip_vs_conn`, `ip_vs_stats` and `ip_vs_stats_percpu`, in the format of IPVS: ipvsadm -Lc and
//! node_exporter read them.

use core::ffi::CStr;

use kernel::prelude::*;
use kernel::sync::rcu::{read_lock, Guard};
use kernel::sync::Arc;

use crate::director::proc_text::{
    ProcConnectionLine, ProcEndpoint, ProcServiceLine, ProcTemplateLine,
};
use crate::director::stats::{Counters, Stats};
use crate::kapi::clock::{Ticks, HZ};
use crate::kapi::cpu;
use crate::kapi::pernet::{self, Net, PerNet, Slot};
use crate::kapi::procfs::{self, File, Text};
use crate::namespace::Namespace;
use crate::state::balancer::{table_size, Balancer};
use crate::state::destination::Destination;
use crate::state::service::Service;
use crate::state::template::Template;
use crate::upkeep::totals;

/// `/proc/net/ip_vs`.
struct ServicesFile;
/// `/proc/net/ip_vs_conn`.
struct ConnectionsFile;
/// `/proc/net/ip_vs_stats`.
struct StatsFile;

/// `/proc/net/ip_vs_stats_percpu`.
struct PerCpuStatsFile;

/// The files of a namespace.
pub(crate) struct Files {
    _services: procfs::Entry<ServicesFile>,
    _connections: procfs::Entry<ConnectionsFile>,
    _stats: procfs::Entry<StatsFile>,
    _per_cpu: procfs::Entry<PerCpuStatsFile>,
}

static SLOT: Slot<Files> = Slot::new();

impl PerNet for Files {
    fn new(net: Net) -> Result<Pin<KBox<Files>>> {
        let files = Files {
            _services: procfs::Entry::new(net)?,
            _connections: procfs::Entry::new(net)?,
            _stats: procfs::Entry::new(net)?,
            _per_cpu: procfs::Entry::new(net)?,
        };
        Ok(KBox::pin(files, GFP_KERNEL)?)
    }

    fn slot() -> &'static Slot<Files> {
        &SLOT
    }
}

/// The version of IPVS that the format is of.
const VERSION: &str = "1.2.1";

fn balancer(net: &Net) -> Option<Arc<Balancer>> {
    pernet::state::<Namespace>(net).and_then(Namespace::balancer)
}

impl File for ServicesFile {
    const NAME: &'static CStr = c"ip_vs";

    fn piece(net: &Net, index: u64, text: &mut Text) -> bool {
        if index == 0 {
            text.write(fmt!(
                "IP Virtual Server version {} (size={})\n\
                 Prot LocalAddress:Port Scheduler Flags\n  \
                 -> RemoteAddress:Port Forward Weight ActiveConn InActConn\n",
                VERSION,
                table_size(),
            ));
            return true;
        }
        let Some(balancer) = balancer(net) else {
            return false;
        };
        let guard = read_lock();
        let services = balancer.services.load(&guard).all();
        let Some(service) = services.get(index.wrapping_sub(1) as usize) else {
            return false;
        };
        write_service(service, text, &guard);
        true
    }
}

fn write_service(service: &Service, text: &mut Text, guard: &Guard) {
    let config = service.config(guard);
    text.write(core::format_args!("{}", ProcServiceLine(config, HZ)));
    for destination in service.destinations(guard) {
        write_destination(destination, text);
    }
}

fn write_destination(destination: &Destination, text: &mut Text) {
    let load = destination.load();
    let key = destination.key();
    text.write(core::format_args!(
        "  -> {}      {:<7} {:<6} {:<10} {:<10}\n",
        ProcEndpoint(key.address, key.port),
        destination.forwarding().name(),
        load.weight,
        load.active,
        load.inactive.saturating_add(load.pending),
    ));
}

impl File for ConnectionsFile {
    const NAME: &'static CStr = c"ip_vs_conn";

    /// After the header, a piece for each bucket of connections, then of templates.
    fn piece(net: &Net, index: u64, text: &mut Text) -> bool {
        if index == 0 {
            text.write(fmt!(
                "Pro FromIP   FPrt ToIP     TPrt DestIP   DPrt State       Expires PEName PEData\n"
            ));
            return true;
        }
        let Some(balancer) = balancer(net) else {
            return false;
        };
        let bucket = index.wrapping_sub(1) as usize;
        let guard = read_lock();
        let connections = &balancer.connections;
        if bucket < connections.buckets() {
            let timeouts = balancer.timeouts(&guard);
            for connection in connections.entries(bucket, &guard) {
                if let Some(record) = connection.record(timeouts) {
                    text.write(core::format_args!("{}", ProcConnectionLine(&record)));
                }
            }
            return true;
        }
        let bucket = bucket.wrapping_sub(connections.buckets());
        if bucket >= balancer.templates.buckets() {
            return false;
        }
        for listed in balancer.templates.entries(bucket, &guard) {
            write_template(listed.template(), text);
        }
        true
    }
}

/// Nothing of one whose real server was removed: it says of no connection any more where it goes.
fn write_template(template: &Template, text: &mut Text) {
    if template.destination.is_removed() {
        return;
    }
    let line = ProcTemplateLine {
        service: template.key.service,
        network: template.key.network,
        destination: template.destination.key(),
        assured: template.is_assured(),
        expires_s: template.expires().ms_since(Ticks::now()) / 1000,
    };
    text.write(core::format_args!("{line}"));
}

impl File for StatsFile {
    const NAME: &'static CStr = c"ip_vs_stats";

    fn piece(net: &Net, index: u64, text: &mut Text) -> bool {
        if index > 0 {
            return false;
        }
        let Stats { counters, rates } = totals(net);
        text.write(fmt!(
            "   Total Incoming Outgoing         Incoming         Outgoing\n   \
             Conns  Packets  Packets            Bytes            Bytes\n\
             {:8X} {:8X} {:8X} {:16X} {:16X}\n\n \
             Conns/s   Pkts/s   Pkts/s          Bytes/s          Bytes/s\n\
             {:8X} {:8X} {:8X} {:16X} {:16X}\n",
            counters.connections,
            counters.in_packets,
            counters.out_packets,
            counters.in_bytes,
            counters.out_bytes,
            rates.connections,
            rates.in_packets,
            rates.out_packets,
            rates.in_bytes,
            rates.out_bytes,
        ));
        true
    }
}

impl File for PerCpuStatsFile {
    const NAME: &'static CStr = c"ip_vs_stats_percpu";

    /// A piece for each CPU, and then the sums.
    fn piece(net: &Net, index: u64, text: &mut Text) -> bool {
        let cpu = index as usize;
        if cpu > cpu::count() {
            return false;
        }
        if cpu == 0 {
            text.write(fmt!(
                "       Total Incoming Outgoing         Incoming         Outgoing\n\
                 CPU    Conns  Packets  Packets            Bytes            Bytes\n"
            ));
        }
        if cpu < cpu::count() {
            let counters =
                balancer(net).map_or_else(Counters::default, |b| totals::totals_of_cpu(&b, cpu));
            text.write(fmt!("{:3X} ", cpu));
            write_counters(&counters, text);
            return true;
        }
        let Stats { counters, rates } = totals(net);
        text.write(fmt!("  ~ "));
        write_counters(&counters, text);
        text.write(fmt!(
            "\n     Conns/s   Pkts/s   Pkts/s          Bytes/s          Bytes/s\n    \
             {:8X} {:8X} {:8X} {:16X} {:16X}\n",
            rates.connections,
            rates.in_packets,
            rates.out_packets,
            rates.in_bytes,
            rates.out_bytes,
        ));
        true
    }
}

fn write_counters(counters: &Counters, text: &mut Text) {
    text.write(fmt!(
        "{:8X} {:8X} {:8X} {:16X} {:16X}\n",
        counters.connections,
        counters.in_packets,
        counters.out_packets,
        counters.in_bytes,
        counters.out_bytes,
    ));
}

fn totals(net: &Net) -> Stats {
    balancer(net).map_or_else(Stats::default, |balancer| totals::totals(&balancer))
}
