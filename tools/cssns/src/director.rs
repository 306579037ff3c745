// SPDX-License-Identifier: MIT
//! The director of a run: a guest with the target kernel, or a namespace of this machine's own.

mod host;

use crate::ipvs_text;
use crate::ledger::Ledger;
use crate::plan::{self, Code, HTTP_PORT, Node, PREFIX_LENGTH};
use crate::process::{Launcher, ProcessId};
use crate::vm::{Acceleration, Addition, KmodEnv, Output, Tap, Vm, VmConfig, qemu};
use crate::{loads, net};
use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

/// Where `make kmod` leaves the module.
pub const MODULE_FILE: &str = "build/kmod/ipvs_mwlc.ko";

/// How long one command on an emulated director may take.
pub const COMMAND_TIMEOUT: Duration = Duration::from_secs(60);

/// What a run's director is to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Specification {
    /// Which code dispatches.
    pub code: Code,
    /// Name of the scheduler.
    pub scheduler: String,
    /// Whether this machine's own kernel dispatches, and not a guest's.
    pub on_host: bool,
    /// Whether connections' sizes are learned from their requests, with `mwlcd` in the guest.
    #[serde(default)]
    pub learns: bool,
    /// A network of the director and the nodes beside the clients'; requests are forwarded there.
    #[serde(default)]
    pub second_link: Option<SecondLink>,
}

/// The director's link to a network of its own with the nodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecondLink {
    /// The bridge in the switch namespace.
    pub bridge: String,
    /// The tap there.
    pub port: String,
    /// The director's address on it.
    pub address: Ipv4Addr,
    /// Its hardware address.
    pub mac: String,
}

/// A director that runs.
#[derive(Debug)]
pub enum Director {
    /// A guest.
    Guest(Vm),
    /// A namespace of this machine's kernel.
    Namespace {
        /// Its name.
        name: String,
        /// Starts commands in it.
        launcher: Launcher,
    },
}

impl Director {
    /// Starts the director. A guest is still booting when this returns: see [`Director::configure`].
    ///
    /// # Errors
    /// Says what is missing or failed.
    pub fn start(
        specification: &Specification,
        acceleration: Acceleration,
        ledger: &Ledger,
        launcher: &Launcher,
    ) -> anyhow::Result<Self> {
        let module = module_file(specification.code)?;
        if specification.on_host {
            host::insert(specification.code.module(), module.as_deref(), ledger)?;
            net::make_director_namespace(ledger)?;
            let name = ledger.plan().director_namespace();
            return Ok(Self::Namespace {
                name,
                launcher: launcher.clone(),
            });
        }
        net::make_tap(ledger, net::DIRECTOR_PORT, net::BRIDGE)?;
        if let Some(link) = &specification.second_link {
            net::make_tap(ledger, &link.port, &link.bridge)?;
        }
        let mut config = VmConfig::new(KmodEnv::locate()?);
        config.acceleration = acceleration;
        config.module = module;
        config.detached = launcher.detached;
        config.environment = vec![launcher.marker()];
        config.tap = Some(Tap {
            netns: ledger.plan().switch_namespace(),
            device: net::DIRECTOR_PORT.to_owned(),
            mac: plan::director_mac(),
        });
        if let Some(link) = &specification.second_link {
            config.qemu_arguments = qemu::second_link(&link.port, &link.mac);
        }
        if specification.code == Code::Mwlc {
            let mwlcadm = crate::paths::program("mwlcadm")
                .context("mwlcadm is not built: run `make build` or `cargo build -p mwlcadm`")?;
            let guest_path = PathBuf::from("/usr/sbin/mwlcadm");
            config.additions.push(Addition {
                source: mwlcadm,
                guest_path,
            });
        }
        if specification.learns {
            let mwlcd = crate::paths::program("mwlcd")
                .context("mwlcd is not built: run `make build` or `cargo build -p mwlcd`")?;
            config.additions.push(Addition {
                source: mwlcd,
                guest_path: PathBuf::from("/usr/sbin/mwlcd"),
            });
        }
        let dir = vm_dir(launcher);
        std::fs::create_dir_all(&dir).with_context(|| format!("creating {}", dir.display()))?;
        let vm = ledger.start_process(|| {
            let vm = Vm::start(&config, &dir)?;
            let pid = vm
                .pid()
                .and_then(|pid| i32::try_from(pid).ok())
                .context("qemu's process id")?;
            let id = ProcessId::of(pid).context("qemu ended at once")?;
            Ok(("the director's guest".to_owned(), id, vm))
        })?;
        Ok(Self::Guest(vm))
    }

    /// Finds the director of a kept run again.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn attach(
        specification: &Specification,
        ledger: &Ledger,
        launcher: &Launcher,
    ) -> anyhow::Result<Self> {
        if specification.on_host {
            let name = ledger.plan().director_namespace();
            return Ok(Self::Namespace {
                name,
                launcher: launcher.clone(),
            });
        }
        Ok(Self::Guest(Vm::attach(&vm_dir(launcher))?))
    }

    /// Waits until the director takes commands, inserts the module and makes the virtual service.
    ///
    /// # Errors
    /// Says which command failed.
    pub fn configure(&self, specification: &Specification) -> anyhow::Result<()> {
        if let Self::Guest(vm) = self {
            vm.wait_ready()?;
            self.check(&guest_network_script(specification.second_link.as_ref()))?;
            self.check(&format!("modprobe {}", specification.code.module()))?;
        }
        self.check(&format!(
            "ipvsadm -A -t {} -s {}",
            service(),
            specification.scheduler
        ))
        .map(drop)
    }

    /// Adds a node to the virtual service.
    ///
    /// # Errors
    /// When ipvsadm fails.
    pub fn add_node(&self, node: Node, weight: u32) -> anyhow::Result<()> {
        self.check(&format!(
            "ipvsadm -a -t {} -r {} -g -w {weight}",
            service(),
            real_server(node)
        ))
        .map(drop)
    }

    /// Sets a node's weight; 0 sends it no new connections.
    ///
    /// # Errors
    /// When ipvsadm fails.
    pub fn set_weight(&self, node: Node, weight: u32) -> anyhow::Result<()> {
        self.check(&format!(
            "ipvsadm -e -t {} -r {} -g -w {weight}",
            service(),
            real_server(node)
        ))
        .map(drop)
    }

    /// Runs a shell script on the director, whatever its status.
    ///
    /// # Errors
    /// When the director does not answer.
    pub fn run(&self, script: &str) -> anyhow::Result<Output> {
        self.run_within(script, COMMAND_TIMEOUT)
    }

    fn run_within(&self, script: &str, limit: Duration) -> anyhow::Result<Output> {
        match self {
            Self::Guest(vm) => Ok(vm.run(script, limit)?),
            Self::Namespace { name, launcher } => {
                let argv = ["sh".to_owned(), "-c".to_owned(), script.to_owned()];
                let mut command = launcher.command(Some(name), &argv);
                if let Some(path) = path_with_own_programs() {
                    command.env("PATH", path);
                }
                let output = command.output().context("starting sh")?;
                Ok(Output {
                    status: output.status.code().unwrap_or(-1),
                    stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
                    stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
                })
            }
        }
    }

    /// Runs a shell script on the director that has to succeed.
    ///
    /// # Errors
    /// As [`Director::run`], and when its status is not 0.
    pub fn check(&self, script: &str) -> anyhow::Result<String> {
        let output = self.run(script)?;
        if !output.success() {
            bail!(
                "on the director, `{script}`: status {}: {}{}",
                output.status,
                output.stderr.trim(),
                if output.stderr.trim().is_empty() {
                    output.stdout.trim()
                } else {
                    ""
                }
            );
        }
        Ok(output.stdout)
    }

    /// Says how many bytes a connection is expected to fetch until its own size is known. Stock
    /// `ip_vs` knows no sizes, and is told none.
    ///
    /// # Errors
    /// When mwlcadm fails.
    pub fn expect_size(&self, code: Code, bytes: u64) -> anyhow::Result<()> {
        match code {
            Code::IpVs => Ok(()),
            Code::Mwlc => self
                .check(&format!("mwlcadm expected-size {} {bytes}", service()))
                .map(drop),
        }
    }

    /// Looks at the nodes' loads again and again, on the director itself, until
    /// [`Director::stop_sampling`]; returns every look. `stop` is a path on the director that no other
    /// sampler uses.
    ///
    /// # Errors
    /// When the director does not answer or is not understood.
    pub fn sample_loads(
        &self,
        code: Code,
        stop: &str,
        limit: Duration,
    ) -> anyhow::Result<Vec<Vec<loads::Load>>> {
        let script = loads::sampling_script(code, stop);
        let output = self.run_within(&script, limit)?;
        if !output.success() {
            bail!(
                "sampling on the director: status {}: {}",
                output.status,
                output.stderr.trim()
            );
        }
        loads::parse_samples(code, &output.stdout)
    }

    /// Ends [`Director::sample_loads`].
    ///
    /// # Errors
    /// When the director does not answer.
    pub fn stop_sampling(&self, stop: &str) -> anyhow::Result<()> {
        self.check(&format!("touch {stop}")).map(drop)
    }

    /// The service's and the nodes' counters.
    ///
    /// # Errors
    /// When ipvsadm fails or shows no such service.
    pub fn counters(&self) -> anyhow::Result<ipvs_text::Service<ipvs_text::Counters>> {
        let text = self.check("ipvsadm -L -n --stats --exact")?;
        ipvs_text::parse_statistics(&text)
            .into_iter()
            .find(|found| found.address.to_string() == service())
            .with_context(|| format!("ipvsadm shows no service {}:\n{text}", service()))
    }

    /// Fails when the guest's kernel complained of anything.
    ///
    /// # Errors
    /// Shows the first complaint.
    pub fn check_kernel_log(&self) -> anyhow::Result<()> {
        let Self::Guest(vm) = self else { return Ok(()) };
        match vm.splats()?.first() {
            None => Ok(()),
            Some(splat) => bail!("the director's kernel complained:\n{}", splat.excerpt),
        }
    }

    /// Powers a guest off.
    ///
    /// # Errors
    /// When it had to be killed.
    pub fn shutdown(self) -> anyhow::Result<()> {
        match self {
            Self::Guest(vm) => Ok(vm.shutdown()?),
            Self::Namespace { .. } => Ok(()),
        }
    }
}

/// The virtual service as ipvsadm writes it.
#[must_use]
pub fn service() -> String {
    format!("{}:{HTTP_PORT}", plan::vip())
}

fn real_server(node: Node) -> String {
    format!("{}:{HTTP_PORT}", node.address())
}

/// `PATH` with the directory of our own programs in front, for a director on this machine: `mwlcadm`
/// may be built and not installed. A guest has it installed.
fn path_with_own_programs() -> Option<OsString> {
    let mwlcadm = crate::paths::program("mwlcadm")?;
    let own = mwlcadm.parent()?.to_path_buf();
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::join_paths(std::iter::once(own).chain(std::env::split_paths(&path))).ok()
}

fn vm_dir(launcher: &Launcher) -> PathBuf {
    launcher.logs.join("director")
}

fn module_file(code: Code) -> anyhow::Result<Option<PathBuf>> {
    match code {
        Code::IpVs => Ok(None),
        Code::Mwlc => crate::paths::checkout_file(MODULE_FILE)
            .map(Some)
            .with_context(|| format!("{MODULE_FILE} is not here or above: run `make kmod`")),
    }
}

/// The director answers ARP for the VIP, so it owns it; requests leave it as they came.
fn guest_network_script(second_link: Option<&SecondLink>) -> String {
    let second = second_link.map_or_else(String::new, |link| {
        format!(
            "
ip address add {}/{PREFIX_LENGTH} dev eth1
ip link set eth1 up",
            link.address
        )
    });
    format!(
        "set -e
modprobe virtio_net
ip address add {own}/{PREFIX_LENGTH} dev eth0
ip address add {vip}/32 dev eth0
ip link set eth0 up
sysctl -q -w net.ipv4.ip_forward=1 net.ipv4.conf.all.send_redirects=0 net.ipv4.conf.eth0.send_redirects=0{second}",
        own = plan::director_address(),
        vip = plan::vip(),
    )
}
