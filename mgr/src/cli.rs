// SPDX-License-Identifier: MIT
//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Parser;
use pvfs::log_filter::LogFilter;

use crate::session::{LEASE_TIMEOUT_MS_DEFAULT, SESSION_TIMEOUT_MS_DEFAULT};
use crate::store::lmdb::{METADATA_BYTES_MAX_DEFAULT, METADATA_BYTES_MIN};

/// PVFS metadata manager: one for each file system. It keeps names, attributes and layouts; iods
/// register themselves with it, clients ask it where a file's stripes are. `pvfs-mgr --init --data DIR`
/// makes a file system, once.
///
/// When it is usable it prints one line, `ready ADDR:PORT`. SIGTERM and SIGINT end it; whatever was
/// acknowledged is on disk, also after kill -9 or a power failure. A disk that fails under --data ends it
/// with status 1 where it cannot be written, by SIGBUS where it cannot be read; clients wait then.
#[derive(Debug, Parser)]
#[command(name = "pvfs-mgr", version, max_term_width = 100)]
pub struct Arguments {
    /// Directory of the metadata, as --init made it.
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,

    /// Make a new file system of the empty or missing --data, and end. So a disk that is not mounted is
    /// never taken for a new one.
    #[arg(long)]
    pub init: bool,

    /// Make --data, which is empty or missing, of a backup by pvfs backup, begin a new era, and end.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["init", "new_era"])]
    pub restore: Option<PathBuf>,

    /// The store was put back by other means, as with its whole disk: begin a new era. Say it once, at the
    /// first start after the restore, when no other pvfs-mgr of this file system runs. The iods are believed
    /// once what they know beyond the backup; pvfs fsck --repair then finds the files that were made after it.
    #[arg(long, conflicts_with = "init")]
    pub new_era: bool,

    /// Address and port to listen on; port 0 picks a free one.
    #[arg(long, value_name = "ADDR:PORT", default_value = "0.0.0.0:3000")]
    pub listen: SocketAddr,

    /// How large the metadata may grow, bytes. Only what is used takes space.
    #[arg(
        long,
        value_name = "BYTES",
        default_value_t = METADATA_BYTES_MAX_DEFAULT,
        value_parser = clap::value_parser!(u64).range(METADATA_BYTES_MIN..=METADATA_BYTES_LIMIT)
    )]
    pub metadata_bytes_max: u64,

    /// A client that is silent for so long loses its open files, milliseconds.
    #[arg(
        long,
        value_name = "MS",
        default_value_t = SESSION_TIMEOUT_MS_DEFAULT,
        value_parser = clap::value_parser!(u32).range(SESSION_TIMEOUT_MS_MIN..)
    )]
    pub session_timeout_ms: u32,

    /// A client that is silent for so long loses its leases to whoever needs them, milliseconds.
    #[arg(
        long,
        value_name = "MS",
        default_value_t = LEASE_TIMEOUT_MS_DEFAULT,
        value_parser = clap::value_parser!(u32).range(SESSION_TIMEOUT_MS_MIN..)
    )]
    pub lease_timeout_ms: u32,

    /// Take connections from any port. Otherwise only privileged processes of other machines are
    /// heard: those that come from a port below 1024.
    #[arg(long)]
    pub insecure_ports: bool,

    /// What to log to stderr: error, warn, info, debug, trace, off, or MODULE=LEVEL, with commas
    /// between several.
    #[arg(long, value_name = "LEVEL", env = "PVFS_LOG", default_value = "info")]
    pub log: LogFilter,
}

/// A process has 128 TiB of addresses; LMDB maps the whole store, and its reserve, among them.
const METADATA_BYTES_LIMIT: u64 = 64 << 40;
/// Clients speak at least every third of the timeout; below this they could not keep up.
const SESSION_TIMEOUT_MS_MIN: i64 = 300;

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn limits_are_enforced() {
        let parse = |extra: &[&str]| {
            Arguments::try_parse_from([&["pvfs-mgr", "--data", "/x"], extra].concat())
        };
        assert!(parse(&[]).is_ok());
        assert!(parse(&["--metadata-bytes-max", "1000"]).is_err());
        assert!(parse(&["--session-timeout-ms", "10"]).is_err());
        assert!(parse(&["--lease-timeout-ms", "10"]).is_err());
        assert!(parse(&["--listen", "nonsense"]).is_err());
        assert!(parse(&["--log", "nonsense"]).is_err());
    }
}
