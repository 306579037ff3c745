// SPDX-License-Identifier: MIT
//! The director learns what clients fetch: `mwlcd` in its guest answers from the nodes, and the
//! connections show the sizes of the very files that were requested.

use crate::cluster::Cluster;
use crate::director::{self, Director};
use crate::plan::Code;
use crate::plan::HTTP_PORT;
use anyhow::{Context as _, bail};
use serde::Deserialize;

/// Where mwlcd leaves its log in the guest.
const LOG: &str = "/run/mwlcd.log";

/// What is asked for the connections, also for those that have just ended.
const CONNECTIONS_COMMAND: &str = "mwlcadm conns --json";

/// Looks, a tenth of a second apart, that mwlcd may take to be ready.
const READY_LOOKS_MAX: u32 = 100;

/// What the connections' sizes came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Learned {
    /// Connections whose size is exactly that of a stored file.
    pub exact: usize,
    /// Connections that the director still remembers.
    pub connections: usize,
}

#[derive(Debug, Deserialize)]
struct Connection {
    size_bytes: u64,
    size_known: bool,
}

/// Switches learning on and starts mwlcd, which asks the nodes with HEAD requests, for the guest has
/// no mount.
///
/// # Errors
/// When the director is no guest with our module, or mwlcd does not come up.
pub fn start(cluster: &Cluster) -> anyhow::Result<()> {
    let specification = cluster.specification();
    if specification.code != Code::Mwlc || specification.on_host {
        bail!("--learn needs our module in a guest: leave out --host and --director");
    }
    let nodes = cluster.nodes().iter();
    let heads: Vec<String> = nodes
        .map(|node| format!("--head {}:{HTTP_PORT}", node.address()))
        .collect();
    start_mwlcd(cluster.director(), &heads.join(" "))
}

/// Starts mwlcd in the director's guest with these sources of sizes, and switches learning on.
///
/// # Errors
/// When mwlcd does not come up; the message has its log.
pub fn start_mwlcd(director: &Director, sources: &str) -> anyhow::Result<()> {
    director.check(&start_script(sources)).map(drop)
}

fn start_script(sources: &str) -> String {
    format!(
        "mwlcadm set -t {service} --learn http || exit
mwlcd --log debug {sources} </dev/null >{LOG} 2>&1 &
look=0
until grep -q 'answering questions' {LOG}; do
    [ $look -lt {READY_LOOKS_MAX} ] && kill -0 $! || {{ cat {LOG} >&2; exit 1; }}
    look=$((look + 1)); sleep 0.1
done",
        service = director::service(),
    )
}

/// Compares what the director knows of its connections with the sizes of the files.
///
/// # Errors
/// When the director does not answer or is not understood.
pub fn look(cluster: &Cluster, file_sizes: &[u64]) -> anyhow::Result<Learned> {
    let text = cluster.director().check(CONNECTIONS_COMMAND)?;
    compare(&text, file_sizes)
}

fn compare(text: &str, file_sizes: &[u64]) -> anyhow::Result<Learned> {
    let connections: Vec<Connection> = serde_json::from_str(text)
        .with_context(|| format!("`{CONNECTIONS_COMMAND}` is not understood: {text}"))?;
    let is_exact = |connection: &&Connection| {
        connection.size_known && file_sizes.contains(&connection.size_bytes)
    };
    Ok(Learned {
        exact: connections.iter().filter(is_exact).count(),
        connections: connections.len(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_known_sizes_of_files_are_exact() {
        let text = r#"[
            {"size_bytes": 10, "size_known": true, "state": "FIN_WAIT"},
            {"size_bytes": 10, "size_known": false},
            {"size_bytes": 11, "size_known": true}
        ]"#;
        let learned = compare(text, &[10, 20]).unwrap();
        assert_eq!((learned.exact, learned.connections), (1, 3));
        assert!(compare("no", &[]).is_err());
    }

    #[test]
    fn mwlcd_has_its_sources_and_is_waited_for() {
        let script = start_script("--root /run/files");
        assert!(script.contains("mwlcd --log debug --root /run/files </dev/null"));
        assert!(script.contains("answering questions"));
    }
}
