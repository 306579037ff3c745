// SPDX-License-Identifier: MIT
//! The module in the target kernel: schedulers, loads, stock ipvsadm, removal under load, garbage.
//!
//! Each test boots one guest; what it shows of the topology stands in `director_vm.rs`.

use anyhow::Context as _;
use cssns::ipvs_text::{Destination, Service};
use cssns_tests::director_vm::{CLIENT, Connection, DirectorVm, SERVERS, SERVICE, server_address};
use std::collections::BTreeMap;

/// How many connections went to each server.
fn tally(connections: &[Connection]) -> BTreeMap<u8, usize> {
    let mut counts = BTreeMap::new();
    for connection in connections {
        *counts.entry(connection.server).or_insert(0) += 1;
    }
    counts
}

fn servers(connections: &[Connection]) -> Vec<u8> {
    connections
        .iter()
        .map(|connection| connection.server)
        .collect()
}

#[test]
fn every_scheduler_keeps_its_order_and_stock_ipvsadm_configures_it() -> anyhow::Result<()> {
    let director = DirectorVm::boot(1)?;
    stock_ipvsadm_round_trip(&director)?;
    round_robin(&director)?;
    weighted_round_robin(&director)?;
    least_connections(&director)?;
    weighted_least_connections(&director)?;
    weight_zero(&director)?;
    datagrams(&director)?;
    director.finish()
}

/// -A -E -D -a -e -d -L -n -Z -C, and the words that ipvsadm has for refusals.
fn stock_ipvsadm_round_trip(director: &DirectorVm) -> anyhow::Result<()> {
    director.check("ipvsadm -A -t 10.1.0.100:81 -s rr && ipvsadm -A -u 10.1.0.100:53 -s mwlc")?;
    director.check("ipvsadm -a -t 10.1.0.100:81 -r 10.1.0.21:81 -g -w 5")?;
    director.check("ipvsadm -a -t 10.1.0.100:81 -r 10.1.0.22:81 -g")?;
    let listing = director.listing()?;
    assert_eq!(listing.len(), 2, "{listing:?}");
    let tcp = tcp_service(&listing)?;
    assert_eq!((tcp.scheduler(), tcp.destinations.len()), ("rr", 2));
    let mut weights: Vec<u32> = tcp.destinations.iter().map(|d| d.weight).collect();
    weights.sort_unstable();
    assert_eq!(weights, [1, 5]);
    assert!(tcp.destinations.iter().all(|d| d.forward == "Route"));

    director.check("ipvsadm -E -t 10.1.0.100:81 -s wlc")?;
    director.check("ipvsadm -e -t 10.1.0.100:81 -r 10.1.0.22:81 -g -w 7")?;
    director.check("ipvsadm -d -t 10.1.0.100:81 -r 10.1.0.21:81")?;
    director.check("ipvsadm -Z")?;
    let listing = director.listing()?;
    let tcp = tcp_service(&listing)?;
    assert_eq!(tcp.scheduler(), "wlc");
    assert_eq!(
        tcp.destinations
            .iter()
            .map(|d| d.weight)
            .collect::<Vec<_>>(),
        [7]
    );

    let refusals = [
        (
            "ipvsadm -A -t 10.1.0.100:81 -s rr",
            "Service already exists",
        ),
        ("ipvsadm -E -t 10.1.0.100:9 -s rr", "No such service"),
        ("ipvsadm -D -t 10.1.0.100:9", "No such service"),
        (
            "ipvsadm -a -t 10.1.0.100:81 -r 10.1.0.22:81 -g",
            "Destination already exists",
        ),
        (
            "ipvsadm -d -t 10.1.0.100:81 -r 10.1.0.99:81",
            "No such destination",
        ),
        (
            "ipvsadm -A -t 10.1.0.100:82 -s nosuch",
            "Scheduler or persistence engine not found",
        ),
    ];
    for (command, words) in refusals {
        let said = director.check_fails(command)?;
        assert!(
            said.contains(words),
            "`{command}` said {said:?}, expected {words:?}"
        );
    }
    // Another namespace is another director.
    assert!(
        !director
            .check("ip netns exec c ipvsadm -Ln")?
            .contains("10.1.0.100")
    );
    director.check("ipvsadm -D -u 10.1.0.100:53")?;
    assert_eq!(director.listing()?.len(), 1);
    director.check("ipvsadm -C")?;
    assert_eq!(director.listing()?, []);
    Ok(())
}

fn tcp_service(listing: &[Service<Destination>]) -> anyhow::Result<&Service<Destination>> {
    listing
        .iter()
        .find(|service| service.protocol == "TCP")
        .context("no TCP service is listed")
}

fn round_robin(director: &DirectorVm) -> anyhow::Result<()> {
    director.configure("rr", &[1, 1, 1])?;
    let opened = director.open(9)?;
    let order = servers(&opened);
    assert_eq!(tally(&opened[..3]).len(), 3, "{order:?}");
    assert!(
        order.iter().zip(&order[3..]).all(|(a, b)| a == b),
        "{order:?}"
    );
    director.close_all(&opened)
}

fn weighted_round_robin(director: &DirectorVm) -> anyhow::Result<()> {
    director.configure("wrr", &[3, 2, 1])?;
    let opened = director.open(12)?;
    let order = servers(&opened);
    for window in opened.chunks(6) {
        assert_eq!(
            tally(window),
            BTreeMap::from([(1, 3), (2, 2), (3, 1)]),
            "{order:?}"
        );
    }
    assert!(
        order.iter().zip(&order[6..]).all(|(a, b)| a == b),
        "{order:?}"
    );
    director.close_all(&opened)
}

fn least_connections(director: &DirectorVm) -> anyhow::Result<()> {
    director.configure("lc", &[1, 1, 1])?;
    let mut opened = director.open(6)?;
    assert_eq!(tally(&opened), BTreeMap::from([(1, 2), (2, 2), (3, 2)]));
    let (gone, stay): (Vec<_>, Vec<_>) = opened.drain(..).partition(|c| c.server == 2);
    director.close_all(&gone)?;
    wait_for_active(director, &BTreeMap::from([(1, 2), (2, 0), (3, 2)]))?;
    let more = director.open(2)?;
    assert_eq!(servers(&more), [2, 2]);
    director.close_all(&stay)?;
    director.close_all(&more)
}

fn weighted_least_connections(director: &DirectorVm) -> anyhow::Result<()> {
    director.configure("wlc", &[1, 2, 3])?;
    let opened = director.open(12)?;
    assert_eq!(tally(&opened), BTreeMap::from([(1, 2), (2, 4), (3, 6)]));
    director.close_all(&opened)
}

/// A server of weight 0 keeps what it has and gets nothing new; without any other nobody is served.
fn weight_zero(director: &DirectorVm) -> anyhow::Result<()> {
    director.configure("mwlc", &[1, 1, 1])?;
    let before = director.open(3)?;
    assert_eq!(tally(&before).len(), 3);
    director.check(&format!(
        "ipvsadm -e -t {SERVICE} -r {} -g -w 0",
        server_address(1)
    ))?;
    let after = director.open(4)?;
    assert_eq!(tally(&after), BTreeMap::from([(2, 2), (3, 2)]));
    for connection in before.iter().chain(&after) {
        director.ping(connection)?;
    }
    for server in 2..=SERVERS {
        director.check(&format!(
            "ipvsadm -e -t {SERVICE} -r {} -g -w 0",
            server_address(server)
        ))?;
    }
    let answer = director.client_says("open 1")?;
    assert!(
        answer.starts_with("error"),
        "nobody should serve, and the client says {answer}"
    );
    for connection in before.iter().chain(&after) {
        director.ping(connection)?;
    }
    director.close_all(&before)?;
    director.close_all(&after)?;
    director.wait_for_rest()
}

fn datagrams(director: &DirectorVm) -> anyhow::Result<()> {
    let mut script = format!("set -e\nipvsadm -C\nipvsadm -A -u {SERVICE} -s rr\n");
    for server in 1..=SERVERS {
        script.push_str(&format!(
            "ipvsadm -a -u {SERVICE} -r {} -g\n",
            server_address(server)
        ));
    }
    director.check(&script)?;
    let flows = director.exchange_datagrams(6)?;
    assert_eq!(tally(&flows), BTreeMap::from([(1, 2), (2, 2), (3, 2)]));
    Ok(())
}

fn wait_for_active(director: &DirectorVm, expected: &BTreeMap<u8, u64>) -> anyhow::Result<()> {
    const LOOKS_MAX: usize = 50;
    let mut seen = BTreeMap::new();
    for _ in 0..LOOKS_MAX {
        seen = director
            .loads()?
            .iter()
            .map(|(server, load)| (*server, load.active))
            .collect();
        if seen == *expected {
            return Ok(());
        }
    }
    anyhow::bail!("active connections should be {expected:?} and are {seen:?}")
}

/// Random opens, ends and sizes against the paper's definition: the next connection goes where Ci/Wi is
/// least, Ci is the sum of the sizes of the live connections, and after all have ended it is 0.
#[test]
fn mwlc_follows_its_definition_and_every_byte_is_released() -> anyhow::Result<()> {
    const EXPECTED_BYTES: u64 = 1_000_000;
    const WEIGHTS: [u32; SERVERS as usize] = [1, 2, 4];
    const STEPS: u32 = 40;
    const SEED: u64 = 20_040_227;
    let director = DirectorVm::boot(1)?;
    director.configure("mwlc", &WEIGHTS)?;
    director.check(&format!("mwlcadm expected-size {SERVICE} {EXPECTED_BYTES}"))?;

    let mut random = fastrand::Rng::with_seed(SEED);
    let mut live: Vec<(Connection, u64)> = Vec::new();
    for step in 0..STEPS {
        let before = sums(&live);
        match random.u32(0..100) {
            0..50 => {
                let opened = director.open(1)?.remove(0);
                let ratio =
                    |server: u8| before[&server] * 4 / u64::from(WEIGHTS[usize::from(server) - 1]);
                let least = (1..=SERVERS).map(ratio).min();
                assert_eq!(
                    Some(ratio(opened.server)),
                    least,
                    "step {step} (seed {SEED}): Ci {before:?}, Wi {WEIGHTS:?}, went to s{}",
                    opened.server
                );
                live.push((opened, EXPECTED_BYTES));
            }
            50..70 if !live.is_empty() => {
                let bytes = random.u64(0..50_000_000);
                let index = random.usize(0..live.len());
                let client = format!("{CLIENT}:{}", live[index].0.port);
                director.check(&format!("mwlcadm conn-size {client} {SERVICE} {bytes}"))?;
                live[index].1 = bytes;
            }
            70..85 if !live.is_empty() => {
                director.close(&live.swap_remove(random.usize(0..live.len())).0)?;
            }
            85.. if !live.is_empty() => {
                director.reset(&live.swap_remove(random.usize(0..live.len())).0)?;
            }
            _ => {}
        }
        director
            .wait_for_loads(&sums(&live))
            .map_err(|e| e.context(format!("step {step}, seed {SEED}")))?;
    }
    for (connection, _) in &live {
        director.close(connection)?;
    }
    director.wait_for_rest()?;
    director.finish()
}

fn sums(live: &[(Connection, u64)]) -> BTreeMap<u8, u64> {
    let of = |server| {
        live.iter()
            .filter(|(c, _)| c.server == server)
            .map(|(_, bytes)| bytes)
            .sum()
    };
    (1..=SERVERS).map(|server| (server, of(server))).collect()
}

/// The module goes and comes while clients hammer at it, and takes any bytes as packets and as
/// netlink messages.
#[test]
fn the_module_survives_removal_under_load_and_garbage() -> anyhow::Result<()> {
    const ROUNDS: u32 = 5;
    const GARBAGE: u32 = 10_000;
    let director = DirectorVm::boot(2)?;
    director.check(&format!(
        "ip netns exec c setsid vm-traffic flood {SERVICE} 20 </dev/null >/run/flood.out 2>&1 &"
    ))?;
    for round in 0..ROUNDS {
        director.configure("mwlc", &[1, 2, 3])?;
        director
            .check("sleep 1; rmmod ipvs_mwlc")
            .map_err(|e| e.context(format!("round {round}")))?;
        assert!(!director.check("lsmod")?.contains("ipvs_mwlc"));
        director.check("modprobe ipvs_mwlc")?;
    }
    director.configure("mwlc", &[1, 2, 3])?;
    let flood = director
        .check("until grep -q succeeded /run/flood.out; do sleep 0.1; done; cat /run/flood.out")?;
    let succeeded = flood
        .split(' ')
        .nth(1)
        .and_then(|word| word.parse::<u64>().ok());
    assert!(
        succeeded > Some(100),
        "too little traffic to mean anything: {flood}"
    );
    director.wait_for_rest()?;

    let garbage = director.run(&format!(
        "netlink-garbage --messages {GARBAGE} --packets {GARBAGE} --interface g0 \
         --to 02:00:00:00:00:01 --service {SERVICE}"
    ))?;
    assert!(garbage.success(), "{}{}", garbage.stdout, garbage.stderr);

    director.configure("mwlc", &[1, 1, 1])?;
    let opened = director.open(6)?;
    assert_eq!(tally(&opened), BTreeMap::from([(1, 2), (2, 2), (3, 2)]));
    director.close_all(&opened)?;
    director.wait_for_rest()?;
    director.check("rmmod ipvs_mwlc")?;
    director.finish()
}
