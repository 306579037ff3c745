// SPDX-License-Identifier: MIT
//! The command line.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use clap::Parser;

/// Answers the director's questions for the sizes of files.
#[derive(Clone, Debug, Parser)]
#[command(name = "mwlcd", version)]
pub struct Arguments {
    /// The directory that is the web servers' root, on the PVFS mount
    #[arg(long, value_name = "DIR")]
    pub root: Option<PathBuf>,

    /// Another root for clients that ask for this host; NAME:PORT for a port other than 80
    #[arg(long = "host", value_name = "NAME=DIR", value_parser = host_root)]
    pub hosts: Vec<(String, PathBuf)>,

    /// What a web server sends for a directory, in the order in which it looks
    #[arg(long = "index", value_name = "FILE", default_value = "index.html")]
    pub indices: Vec<String>,

    /// A node to ask with HEAD requests for what no root has; repeat it for more nodes
    #[arg(long = "head", value_name = "ADDR:PORT")]
    pub nodes: Vec<SocketAddr>,

    /// Take nodes' reports on this address, with --key-file
    #[arg(long, value_name = "ADDR:PORT", requires = "key_file")]
    pub listen: Option<SocketAddr>,

    /// The key that the director and its nodes share: a file of at least 16 bytes
    #[arg(long, value_name = "FILE")]
    pub key_file: Option<PathBuf>,

    /// Run on a node: report what is open there
    #[arg(
        long,
        requires_all = ["director", "key_file", "mount"],
        conflicts_with_all = ["root", "hosts", "nodes", "listen"]
    )]
    pub node: bool,

    /// Where the director's mwlcd takes reports
    #[arg(long, value_name = "HOST:PORT", requires = "node")]
    pub director: Option<String>,

    /// Files that are open below this directory are reported
    #[arg(long, value_name = "DIR", requires = "node")]
    pub mount: Option<PathBuf>,

    /// This node's address as the director has it; without it, the one that leads to the director
    #[arg(long, value_name = "ADDR", requires = "node")]
    pub address: Option<IpAddr>,

    /// Milliseconds between two reports; the director believes one for 5000
    #[arg(long, value_name = "MS", default_value_t = 1000, requires = "node",
          value_parser = clap::value_parser!(u64).range(100..=5000))]
    pub interval_ms: u64,

    /// What to log: error, warn, info, debug or trace
    #[arg(long, value_name = "LEVEL", default_value = "info", env = "MWLCD_LOG")]
    pub log: String,
}

fn host_root(text: &str) -> Result<(String, PathBuf), String> {
    match text.split_once('=') {
        Some((host, root)) if !host.is_empty() && !root.is_empty() => {
            Ok((host.to_ascii_lowercase(), PathBuf::from(root)))
        }
        _ => Err("give a host and its directory as NAME=DIR".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_needs_a_director_a_key_and_a_mount() {
        let node = [
            "mwlcd",
            "--node",
            "--director",
            "d:7",
            "--key-file",
            "k",
            "--mount",
            "/m",
        ];
        assert!(Arguments::try_parse_from(node).is_ok());
        for missing in ["--director", "--key-file", "--mount"] {
            let at = node.iter().position(|word| *word == missing).unwrap();
            let words = node[..at].iter().chain(&node[at + 2..]);
            assert!(Arguments::try_parse_from(words).is_err(), "{missing}");
        }
        assert!(Arguments::try_parse_from(node.iter().chain(&["--root", "/r"])).is_err());
        assert!(Arguments::try_parse_from(["mwlcd", "--listen", "0.0.0.0:1"]).is_err());
    }

    #[test]
    fn hosts_have_directories() {
        let arguments = Arguments::try_parse_from(["mwlcd", "--host", "A.example=/srv/a"]).unwrap();
        let expected = ("a.example".to_owned(), PathBuf::from("/srv/a"));
        assert_eq!(arguments.hosts, [expected]);
        for wrong in ["a", "=/srv", "a="] {
            assert!(Arguments::try_parse_from(["mwlcd", "--host", wrong]).is_err());
        }
    }
}
