// SPDX-License-Identifier: MIT
//! The director in a guest, with clients and servers in namespaces of that guest.
//!
//! ```text
//!  guest, 10.1.0.0/24
//!
//!   namespace c          root namespace: the director        namespaces s1 s2 s3
//!   eth0 10.1.0.10       br0 10.1.0.2, VIP 10.1.0.100        eth0 10.1.0.21 .22 .23
//!     |                    |                                 VIP on lo, answering no ARP
//!     +--------------------+-----------------------------------+
//!                                  bridge br0      g0 -- g1 on it: a way in for raw frames
//! ```

use anyhow::{Context, bail, ensure};
use cssns::ipvs_text::{self, Destination, Service};
use cssns::vm::{Addition, KmodEnv, Output, Vm, VmConfig};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// The virtual service of every test.
pub const SERVICE: &str = "10.1.0.100:80";

/// The client's address.
pub const CLIENT: &str = "10.1.0.10";

/// How many servers there are.
pub const SERVERS: u8 = 3;

/// How long one command in an emulated guest may take on a busy machine.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(90);

/// How long the director may take to see what a client just did.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(15);

/// A guest with the module inserted, servers that answer and a client that obeys.
#[derive(Debug)]
pub struct DirectorVm {
    vm: Vm,
    // Removed after the guest, which writes its console there.
    dir: TempDir,
}

/// A connection of the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connection {
    /// The client's number for it.
    pub id: u64,
    /// The server's number: 1 for `s1`.
    pub server: u8,
    /// The client's port.
    pub port: u16,
}

/// A real server's load as mwlcadm prints it; the fields that tests look at.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Load {
    /// `ADDRESS:PORT`.
    pub address: String,
    /// Wi.
    pub weight: u32,
    /// Ci, bytes.
    pub load_bytes: u64,
    /// Live connections.
    pub active: u64,
}

#[derive(Debug, Deserialize)]
struct ServiceLoads {
    service: String,
    real_servers: Vec<Load>,
}

impl DirectorVm {
    /// Boots a guest with `cpus` processors, inserts the module and starts servers and client.
    ///
    /// # Errors
    /// Where something is not built, or the guest does not come up.
    pub fn boot(cpus: u32) -> anyhow::Result<Self> {
        let module = cssns::paths::checkout_file(cssns::director::MODULE_FILE)
            .context("the module is not built: run `make kmod` first")?;
        let mut config = VmConfig::new(KmodEnv::locate()?);
        config.module = Some(module);
        config.cpus = cpus;
        for name in ["mwlcadm", "vm-traffic", "netlink-garbage"] {
            let guest_path = PathBuf::from("/usr/sbin").join(name);
            config.additions.push(Addition {
                source: crate::programs::find(name)?,
                guest_path,
            });
        }
        let dir = tempfile::Builder::new()
            .prefix("cssns-director-test-")
            .tempdir()?;
        let vm = Vm::boot(&config, dir.path())?;
        let director = Self { vm, dir };
        director.check(SET_UP)?;
        Ok(director)
    }

    /// Runs a script in the guest, whatever its status.
    ///
    /// # Errors
    /// When the guest does not answer.
    pub fn run(&self, script: &str) -> anyhow::Result<Output> {
        Ok(self.vm.run(script, COMMAND_TIMEOUT)?)
    }

    /// Runs a script in the guest that has to succeed; answers its standard output.
    ///
    /// # Errors
    /// When it fails.
    pub fn check(&self, script: &str) -> anyhow::Result<String> {
        Ok(self.vm.check(script, COMMAND_TIMEOUT)?)
    }

    /// Runs a script that has to fail; answers what it wrote to standard error.
    ///
    /// # Errors
    /// When it succeeds.
    pub fn check_fails(&self, script: &str) -> anyhow::Result<String> {
        let output = self.run(script)?;
        ensure!(
            !output.success(),
            "`{script}` should fail and printed: {}",
            output.stdout
        );
        Ok(output.stderr)
    }

    /// Replaces all services by [`SERVICE`] with this scheduler and these weights of s1, s2 ...
    ///
    /// # Errors
    /// When ipvsadm fails.
    pub fn configure(&self, scheduler: &str, weights: &[u32]) -> anyhow::Result<()> {
        let mut script = format!("set -e\nipvsadm -C\nipvsadm -A -t {SERVICE} -s {scheduler}\n");
        for (server, weight) in (1u8..).zip(weights) {
            let address = server_address(server);
            script.push_str(&format!(
                "ipvsadm -a -t {SERVICE} -r {address} -g -w {weight}\n"
            ));
        }
        self.check(&script).map(drop)
    }

    /// What stock `ipvsadm -Ln` lists.
    ///
    /// # Errors
    /// When it fails.
    pub fn listing(&self) -> anyhow::Result<Vec<Service<Destination>>> {
        Ok(ipvs_text::parse_listing(
            &self.check("ipvsadm -L -n --exact")?,
        ))
    }

    /// The real servers' loads by server number, as mwlcadm prints them.
    ///
    /// # Errors
    /// When mwlcadm fails or is not understood.
    pub fn loads(&self) -> anyhow::Result<BTreeMap<u8, Load>> {
        let text = self.check("mwlcadm loads --json")?;
        let services: Vec<ServiceLoads> = serde_json::from_str(&text).context(text)?;
        let service = services.into_iter().find(|s| s.service == SERVICE);
        let servers = service
            .context("mwlcadm shows no such service")?
            .real_servers;
        servers
            .into_iter()
            .map(|load| Ok((server_of_address(&load.address)?, load)))
            .collect()
    }

    /// Waits until every Ci is as expected: a FIN is on its way when the client's call returns.
    ///
    /// # Errors
    /// When it does not become so; shows both.
    pub fn wait_for_loads(&self, expected: &BTreeMap<u8, u64>) -> anyhow::Result<()> {
        let deadline = Instant::now() + SETTLE_TIMEOUT;
        loop {
            let loads = self.loads()?;
            let seen: BTreeMap<u8, u64> = loads.iter().map(|(s, l)| (*s, l.load_bytes)).collect();
            if seen == *expected {
                return Ok(());
            }
            if Instant::now() > deadline {
                let connections = self.check("mwlcadm conns")?;
                bail!("Ci should be {expected:?} and is {seen:?}; connections:\n{connections}");
            }
        }
    }

    /// Waits until no connection is active on any server, and checks that every Ci is 0.
    ///
    /// # Errors
    /// When it does not become so.
    pub fn wait_for_rest(&self) -> anyhow::Result<()> {
        self.wait_for_loads(&(1..=SERVERS).map(|server| (server, 0)).collect())?;
        let active: u64 = self.loads()?.values().map(|load| load.active).sum();
        ensure!(
            active == 0,
            "every Ci is 0 and {active} connections are active"
        );
        Ok(())
    }

    /// Lets the client open connections, one after another.
    ///
    /// # Errors
    /// When one fails.
    pub fn open(&self, count: usize) -> anyhow::Result<Vec<Connection>> {
        parse_connections(&self.client(&format!("open {count}"))?)
    }

    /// Lets the client begin UDP flows, one after another.
    ///
    /// # Errors
    /// When one gets no answer.
    pub fn exchange_datagrams(&self, count: usize) -> anyhow::Result<Vec<Connection>> {
        parse_connections(&self.client(&format!("udp {count}"))?)
    }

    /// Checks that a connection is alive.
    ///
    /// # Errors
    /// When it is not.
    pub fn ping(&self, connection: &Connection) -> anyhow::Result<()> {
        self.client(&format!("ping {}", connection.id)).map(drop)
    }

    /// Ends a connection with a FIN.
    ///
    /// # Errors
    /// When there is no such connection.
    pub fn close(&self, connection: &Connection) -> anyhow::Result<()> {
        self.client(&format!("close {}", connection.id)).map(drop)
    }

    /// Ends a connection with a RST.
    ///
    /// # Errors
    /// When there is no such connection.
    pub fn reset(&self, connection: &Connection) -> anyhow::Result<()> {
        self.client(&format!("reset {}", connection.id)).map(drop)
    }

    /// Ends connections with a FIN each.
    ///
    /// # Errors
    /// When there is no such connection.
    pub fn close_all(&self, connections: &[Connection]) -> anyhow::Result<()> {
        let commands: Vec<String> = connections
            .iter()
            .map(|c| format!("close {}", c.id))
            .collect();
        let answers = self.client_obeys(&commands)?;
        let refused = answers.lines().find(|answer| answer.starts_with("error"));
        ensure!(refused.is_none(), "the client's close: {answers}");
        Ok(())
    }

    /// Gives the client a command and answers its line.
    fn client(&self, command: &str) -> anyhow::Result<String> {
        let answer = self.client_says(command)?;
        ensure!(
            !answer.starts_with("error"),
            "the client's `{command}`: {answer}"
        );
        Ok(answer)
    }

    /// The same, and an `error ...` is an answer too.
    ///
    /// # Errors
    /// When the client does not answer.
    pub fn client_says(&self, command: &str) -> anyhow::Result<String> {
        Ok(self.client_obeys(&[command.to_owned()])?.trim().to_owned())
    }

    /// Gives the client commands and answers its lines, one for each.
    fn client_obeys(&self, commands: &[String]) -> anyhow::Result<String> {
        let script = format!(
            "seen=$(wc -l </run/client.out)
echo '{}' >/run/client.in
until [ $(wc -l </run/client.out) -ge $((seen + {count})) ]; do sleep 0.02; done
tail -n {count} /run/client.out",
            commands.join("\n"),
            count = commands.len(),
        );
        self.check(&script)
    }

    /// Checks that the kernel complained of nothing, and powers the guest off.
    ///
    /// # Errors
    /// Shows the kernel's complaints.
    pub fn finish(self) -> anyhow::Result<()> {
        let splats = self.vm.splats()?;
        let excerpts: Vec<&str> = splats.iter().map(|splat| splat.excerpt.as_str()).collect();
        ensure!(
            splats.is_empty(),
            "the kernel complained:\n{}",
            excerpts.join("\n---\n")
        );
        self.vm.shutdown()?;
        self.dir.close()?;
        Ok(())
    }
}

/// A server's `ADDRESS:PORT`.
#[must_use]
pub fn server_address(server: u8) -> String {
    format!("10.1.0.2{server}:80")
}

fn server_of_address(address: &str) -> anyhow::Result<u8> {
    (1..=SERVERS)
        .find(|&server| server_address(server) == address)
        .with_context(|| format!("{address} is no server of ours"))
}

fn parse_connections(answer: &str) -> anyhow::Result<Vec<Connection>> {
    let parse = |word: &str| {
        let mut parts = word.split(':');
        Some(Connection {
            id: parts.next()?.parse().ok()?,
            server: parts.next()?.strip_prefix('s')?.parse().ok()?,
            port: parts.next()?.parse().ok()?,
        })
    };
    answer
        .split(' ')
        .map(|word| parse(word).with_context(|| format!("the client said {answer:?}")))
        .collect()
}

/// Makes the topology at this file's head. The servers and the client outlive the script.
const SET_UP: &str = r"set -e
modprobe ipvs_mwlc
modprobe veth
sysctl -q -w net.ipv4.ip_forward=1 net.ipv4.conf.all.send_redirects=0
ip link add br0 type bridge forward_delay 0
ip link set br0 address 02:00:00:00:00:01
ip address add 10.1.0.2/24 dev br0
ip address add 10.1.0.100/32 dev br0
ip link set br0 up
attach() {
    ip netns add $1
    ip link add p-$1 type veth peer name eth0 netns $1
    ip link set p-$1 master br0 up
    ip -n $1 link set lo up
    ip -n $1 address add $2/24 dev eth0
    ip -n $1 link set eth0 up
}
for i in 1 2 3; do
    attach s$i 10.1.0.2$i
    ip netns exec s$i sysctl -q -w net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2
    ip -n s$i address add 10.1.0.100/32 dev lo
    ip netns exec s$i setsid vm-traffic serve 10.1.0.100:80 s$i </dev/null >/run/s$i.log 2>&1 &
done
attach c 10.1.0.10
ip link add g0 type veth peer name g1
ip link set g1 master br0 up
ip link set g0 up
mkfifo /run/client.in
: >/run/client.out
setsid sleep 1000000 >/run/client.in </dev/null 2>/dev/null &
ip netns exec c setsid vm-traffic client 10.1.0.100:80 </run/client.in >/run/client.out 2>/run/client.log &
for i in 1 2 3; do
    until ip netns exec s$i ss -Hltn | grep -q :80; do sleep 0.05; done
done
";
