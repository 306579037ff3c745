// SPDX-License-Identifier: MIT
//! Daemons hear connections from reserved ports alone, unless they are told otherwise, and those who
//! may use reserved ports have enough of them.

use std::fs;
use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Context, ensure};
use cssns_tests::programs;
use cssns_tests::pvfs_cluster::{Cluster, Options, Who};
use pvfs::address::Endpoint;
use pvfs::client::iod::IodConnection;
use pvfs::client::transport::dial;
use pvfs::limits::RESERVED_PORT_MAX;
use pvfs::proto::iod::{IodRequest, IodResponse};
use pvfs::wire::header::{FrameError, FrameHeader, FrameKind, HEADER_BYTES};

/// A user with no rights.
const NOBODY: u32 = 65_534;
/// What no daemon takes that is not hung.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Connections at a time that must find a port, over all daemons: more than half of the ports.
const CONNECTIONS: usize = 600;
/// Tools one after another: each makes a connection to mgr and one to each iod, and all leave ports
/// behind that TCP keeps for a while.
const TOOLS: usize = 400;
/// What whoever is refused is told.
const REFUSAL: &str = "takes connections from ports below 1024 only: run as root, or start it with \
                       --insecure-ports";

fn cluster(insecure_ports: bool) -> anyhow::Result<Cluster> {
    let cluster = Cluster::start(Options {
        mounts: 0,
        insecure_ports,
        ..Options::default()
    })?;
    fs::set_permissions(cluster.scratch(), fs::Permissions::from_mode(0o755))?;
    Ok(cluster)
}

/// `pvfs`, where everybody can run it.
fn tool(cluster: &Cluster) -> anyhow::Result<PathBuf> {
    let copy = cluster.scratch().join("pvfs");
    if !copy.exists() {
        fs::copy(programs::find("pvfs")?, &copy)?;
    }
    Ok(copy)
}

fn ping_as_nobody(cluster: &Cluster) -> anyhow::Result<Output> {
    let mut command = Command::new(tool(cluster)?);
    command.args(["ping", cluster.mgr_address()]);
    Ok(command.uid(NOBODY).gid(NOBODY).current_dir("/").output()?)
}

/// What a daemon says, unasked, to a connection from a port that is not reserved.
fn greeting(address: &str) -> anyhow::Result<Option<FrameError>> {
    let address: SocketAddr = address.parse()?;
    let mut stream = TcpStream::connect(address)?;
    ensure!(stream.local_addr()?.port() > RESERVED_PORT_MAX);
    stream.set_read_timeout(Some(TIMEOUT))?;
    let mut said = Vec::new();
    stream.read_to_end(&mut said)?;
    let header = said.try_into().ok().context("it is a header")?;
    let header: [u8; HEADER_BYTES] = header;
    Ok(FrameHeader::parse(&header)?
        .expect(FrameKind::MgrReply)
        .err())
}

fn ping(endpoint: &Endpoint) -> anyhow::Result<IodConnection> {
    let mut connection = IodConnection::connect(endpoint, TIMEOUT)?;
    let pong = connection.call(&IodRequest::Ping)?;
    ensure!(matches!(pong, IodResponse::Pong { iod: Some(_), .. }));
    Ok(connection)
}

#[test]
fn an_ordinary_user_is_refused_by_mgr_and_by_an_iod() -> anyhow::Result<()> {
    let cluster = cluster(false)?;
    let output = ping_as_nobody(&cluster)?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned()
        + &String::from_utf8_lossy(&output.stdout);
    ensure!(
        !output.status.success() && said.contains(REFUSAL),
        "{output:?}"
    );
    for address in [cluster.mgr_address(), cluster.iod_address(0)?] {
        ensure!(
            greeting(address)? == Some(FrameError::PortRefused),
            "{address}"
        );
    }
    for who in [Who::Mgr, Who::Iod(0)] {
        cluster.await_log(who, "its port is not reserved", TIMEOUT)?;
    }
    // And to whoever comes from another it is as if nothing had been.
    let endpoint = Endpoint::parse(cluster.iod_address(0)?, 0)?;
    ping(&endpoint)?;
    cluster.finish()
}

#[test]
fn an_ordinary_user_is_heard_where_the_daemons_are_told_so() -> anyhow::Result<()> {
    let cluster = cluster(true)?;
    let output = ping_as_nobody(&cluster)?;
    ensure!(output.status.success(), "{output:?}");
    cluster.finish()
}

#[test]
fn six_hundred_connections_at_once_have_reserved_ports() -> anyhow::Result<()> {
    let cluster = cluster(false)?;
    let mut endpoints = vec![Endpoint::parse(cluster.mgr_address(), 0)?];
    for index in 0..cluster.options().iods {
        endpoints.push(Endpoint::parse(cluster.iod_address(index)?, 0)?);
    }
    let streams: Vec<TcpStream> = (0..CONNECTIONS)
        .map(|number| dial(&endpoints[number % endpoints.len()], TIMEOUT))
        .collect::<Result<_, _>>()?;
    for stream in &streams {
        let port = stream.local_addr()?.port();
        ensure!((1..=RESERVED_PORT_MAX).contains(&port), "port {port}");
    }
    // Each iod has room for some more.
    endpoints
        .iter()
        .skip(1)
        .try_for_each(|endpoint| ping(endpoint).map(drop))?;
    drop(streams);
    cluster.finish()
}

#[test]
fn many_tools_in_a_row_find_ports() -> anyhow::Result<()> {
    let cluster = cluster(false)?;
    let program = programs::find("pvfs")?;
    for number in 0..TOOLS {
        let output = Command::new(&program)
            .args(["ping", cluster.mgr_address()])
            .output()?;
        ensure!(output.status.success(), "after {number}: {output:?}");
    }
    cluster.finish()
}
