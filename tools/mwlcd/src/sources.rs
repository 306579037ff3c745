// SPDX-License-Identifier: MIT
//! Where the size of a file comes from.

use std::collections::HashMap;

use anyhow::{Context, Result, bail};

use crate::cli::Arguments;
use crate::head::Nodes;
use crate::root::Root;

/// The roots by host, and the nodes.
#[derive(Debug)]
pub struct Sources {
    default_root: Option<Root>,
    roots: HashMap<String, Root>,
    nodes: Nodes,
}

impl Sources {
    /// What the command line names. A root that is no directory is an error.
    pub fn open(arguments: &Arguments) -> Result<Sources> {
        let answers =
            arguments.root.is_some() || !arguments.hosts.is_empty() || !arguments.nodes.is_empty();
        if !answers && arguments.listen.is_none() {
            bail!(
                "nothing to answer from: give --root, --host or --head, or --listen for nodes' reports alone"
            );
        }
        let open = |path: &std::path::Path| {
            Root::open(path, &arguments.indices)
                .with_context(|| format!("{}: is the file system mounted?", path.display()))
        };
        let mut roots = HashMap::new();
        for (host, path) in &arguments.hosts {
            roots.insert(host.clone(), open(path)?);
        }
        Ok(Sources {
            default_root: arguments.root.as_deref().map(open).transpose()?,
            roots,
            nodes: Nodes::new(arguments.nodes.clone()),
        })
    }

    /// How many bytes a server sends; `None` if that cannot be told.
    pub fn size(&self, host: &[u8], path: &[u8]) -> Option<u64> {
        self.root(host)
            .and_then(|root| root.size(path))
            .or_else(|| self.nodes.size(host, path))
    }

    /// The root of a host: its own, that of its name without the port, or the one for all.
    fn root(&self, host: &[u8]) -> Option<&Root> {
        let host = String::from_utf8_lossy(host);
        let name = match host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|digit| digit.is_ascii_digit()) => name,
            _ => &host,
        };
        self.roots
            .get(host.as_ref())
            .or_else(|| self.roots.get(name))
            .or(self.default_root.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use std::fs;

    #[test]
    fn each_host_has_its_root() {
        let directory = tempfile::tempdir().unwrap();
        let make = |name: &str, bytes: usize| {
            let path = directory.path().join(name);
            fs::create_dir(&path).unwrap();
            fs::write(path.join("f"), vec![0; bytes]).unwrap();
            path.display().to_string()
        };
        let (all, a, port) = (make("all", 1), make("a", 2), make("port", 3));
        let arguments = Arguments::parse_from([
            "mwlcd",
            "--root",
            &all,
            "--host",
            &format!("a={a}"),
            "--host",
            &format!("a:81={port}"),
        ]);
        let sources = Sources::open(&arguments).unwrap();
        for (host, size) in [
            ("a", 2),
            ("a:80", 2),
            ("a:81", 3),
            ("a:82", 2),
            ("b", 1),
            ("", 1),
            ("[::1]", 1),
        ] {
            assert_eq!(sources.size(host.as_bytes(), b"/f"), Some(size), "{host}");
        }
        assert_eq!(sources.size(b"a", b"/g"), None);
    }

    #[test]
    fn something_must_be_there_to_answer_from() {
        let nothing = Arguments::parse_from(["mwlcd"]);
        assert!(Sources::open(&nothing).is_err());
        let missing = Arguments::parse_from(["mwlcd", "--root", "/nonexistent/mwlcd"]);
        let message = format!("{:#}", Sources::open(&missing).unwrap_err());
        assert!(message.contains("is the file system mounted"), "{message}");
    }
}
