// SPDX-License-Identifier: MIT
//! The command line.

use std::net::SocketAddr;
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
    fn hosts_have_directories() {
        let arguments = Arguments::try_parse_from(["mwlcd", "--host", "A.example=/srv/a"]).unwrap();
        let expected = ("a.example".to_owned(), PathBuf::from("/srv/a"));
        assert_eq!(arguments.hosts, [expected]);
        for wrong in ["a", "=/srv", "a="] {
            assert!(Arguments::try_parse_from(["mwlcd", "--host", wrong]).is_err());
        }
    }
}
