// SPDX-License-Identifier: MIT
//! nginx on a node: its configuration, and what its access log says was served.

use crate::plan::{self, HTTP_PORT, Node};
use crate::run::Run;
use anyhow::Context as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a web server may take to listen.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// Where a node's web server finds and leaves its files.
#[derive(Debug, Clone)]
pub struct Site {
    /// The node.
    pub node: Node,
    /// Directory that is served.
    pub root: PathBuf,
    /// Directory for its own temporary files.
    pub scratch: PathBuf,
    /// Its access log: status, body bytes, path.
    pub access_log: PathBuf,
    /// Its error log.
    pub error_log: PathBuf,
}

impl Site {
    /// The configuration file's text. Each answer says which node gave it. The server listens on the VIP,
    /// where VS/DR delivers, and on the node's own address, for those who want this node.
    #[must_use]
    pub fn configuration(&self) -> String {
        let scratch = self.scratch.display();
        format!(
            "# Written by cssns.
user root;
# Reads of the mount block; the thread pool keeps one slow read from holding up the others.
worker_processes 2;
daemon off;
pid {scratch}/nginx.pid;
error_log {error_log} warn;
events {{ worker_connections 1024; }}
http {{
    types {{ }}
    default_type application/octet-stream;
    log_format served '$status $body_bytes_sent $uri';
    access_log {access_log} served;
    client_body_temp_path {scratch}/body;
    proxy_temp_path {scratch}/proxy;
    fastcgi_temp_path {scratch}/fastcgi;
    uwsgi_temp_path {scratch}/uwsgi;
    scgi_temp_path {scratch}/scgi;
    sendfile on;
    sendfile_max_chunk 2m;
    tcp_nopush on;
    aio threads;
    keepalive_timeout 65;
    add_header Served-By {node};
    server {{
        listen {vip}:{HTTP_PORT};
        listen {own}:{HTTP_PORT};
        root {root};
        location / {{ autoindex on; }}
    }}
}}
",
            error_log = self.error_log.display(),
            access_log = self.access_log.display(),
            node = self.node,
            vip = plan::vip(),
            own = self.node.address(),
            root = self.root.display(),
        )
    }

    /// Writes the configuration and starts the server in the node's namespace.
    ///
    /// # Errors
    /// When it cannot be started or does not listen; the message shows its log's end.
    pub fn start(&self, run: &Run, namespace: &str) -> anyhow::Result<()> {
        std::fs::create_dir_all(&self.scratch)
            .with_context(|| format!("creating {}", self.scratch.display()))?;
        let configuration = self.scratch.join("nginx.conf");
        std::fs::write(&configuration, self.configuration())
            .with_context(|| format!("writing {}", configuration.display()))?;
        let server = run.ledger().start(|| {
            run.launcher().daemon(
                &format!("nginx-{}", self.node),
                Some(namespace),
                &self.command(&configuration),
            )
        })?;
        // nginx writes its process id when it listens, and says nothing.
        let pid_file = self.scratch.join("nginx.pid");
        let listens = || {
            std::fs::read_to_string(&pid_file)
                .ok()
                .filter(|pid| pid.ends_with('\n'))
        };
        let what = format!("nginx on {} to listen on port {HTTP_PORT}", self.node);
        server.wait_for(&what, START_TIMEOUT, listens).map(drop)
    }

    /// The command line of the server.
    #[must_use]
    pub fn command(&self, configuration: &Path) -> Vec<String> {
        let nginx = crate::paths::on_path("nginx").unwrap_or_else(|| PathBuf::from("nginx"));
        vec![
            nginx.display().to_string(),
            "-e".to_owned(),
            self.error_log.display().to_string(),
            "-c".to_owned(),
            configuration.display().to_string(),
        ]
    }
}

/// What an access log adds up to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Served {
    /// Requests answered with status 200 or 206.
    pub requests: u64,
    /// Bytes of their bodies.
    pub bytes: u64,
    /// Requests answered otherwise.
    pub failed: u64,
}

/// Adds up an access log in the format of [`Site::configuration`].
#[must_use]
pub fn add_up(log: &str) -> Served {
    let mut served = Served::default();
    for line in log.lines() {
        let mut fields = line.split(' ');
        let status = fields.next().unwrap_or_default();
        let bytes = fields.next().and_then(|field| field.parse::<u64>().ok());
        match (status, bytes) {
            ("200" | "206", Some(bytes)) => {
                served.requests = served.requests.saturating_add(1);
                served.bytes = served.bytes.saturating_add(bytes);
            }
            _ => served.failed = served.failed.saturating_add(1),
        }
    }
    served
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_names_vip_root_and_sendfile() {
        let site = Site {
            node: Node::FIRST,
            root: "/r/mnt".into(),
            scratch: "/r/nginx".into(),
            access_log: "/l/a.log".into(),
            error_log: "/l/e.log".into(),
        };
        let text = site.configuration();
        for part in [
            "listen 198.18.0.100:80;",
            "listen 198.18.0.21:80;",
            "root /r/mnt;",
            "sendfile on;",
            "/l/a.log",
        ] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
        assert_eq!(text.matches('{').count(), text.matches('}').count());
    }

    #[test]
    fn an_access_log_adds_up() {
        let log = "200 100 /a\n206 5 /a\n404 153 /b\n200 x /c\n";
        assert_eq!(
            add_up(log),
            Served {
                requests: 2,
                bytes: 105,
                failed: 2
            }
        );
        assert_eq!(add_up(""), Served::default());
    }
}
