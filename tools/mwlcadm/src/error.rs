// SPDX-License-Identifier: MIT
//! What can go wrong, in words that say what failed, on what, and what to do.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::names::ServiceName;

/// An error of mwlcadm.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The command line in ipvsadm's grammar is wrong.
    #[error("{0}\nTry mwlcadm --help")]
    Usage(String),
    /// The command line of a subcommand is wrong, or asks for help.
    #[error(transparent)]
    CommandLine(#[from] clap::Error),
    /// The kernel has no `ipvs_mwlc` family.
    #[error(
        "the director is not in this kernel (no netlink family ipvs_mwlc): load it with \
         `modprobe ipvs_mwlc` or `insmod build/kmod/ipvs_mwlc.ko`; the stock module must be out \
         first: `modprobe -r ip_vs`"
    )]
    NotLoaded,
    /// The caller lacks CAP_NET_ADMIN.
    #[error("{action}: not permitted: run as root (CAP_NET_ADMIN in this network namespace)")]
    NotPermitted {
        /// What was asked for.
        action: String,
    },
    /// The director refused a request.
    #[error("{action}: {}", refusal(*.errno, .message.as_deref()))]
    Refused {
        /// What was asked for.
        action: String,
        /// The errno, positive.
        errno: i32,
        /// The extended acknowledgement's message.
        message: Option<String>,
    },
    /// The netlink socket failed.
    #[error("netlink socket: {what}: {source}")]
    Socket {
        /// Which call.
        what: &'static str,
        /// Its error.
        source: io::Error,
    },
    /// The kernel answered what its protocol does not allow.
    #[error("{action}: the kernel's answer makes no sense: {what}")]
    Reply {
        /// What was asked for.
        action: String,
        /// What is wrong with it.
        what: String,
    },
    /// A request does not fit a message.
    #[error("{action}: the request does not fit a netlink message")]
    TooLong {
        /// What was asked for.
        action: String,
    },
    /// Standard input failed.
    #[error("standard input: {0}")]
    Input(io::Error),
    /// A line of the rules being restored failed.
    #[error("line {line}: {source}")]
    Line {
        /// Its number, from 1.
        line: usize,
        /// Why.
        source: Box<Error>,
    },
    /// A file failed.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Its error.
        source: io::Error,
    },
    /// A configuration could not be tried out before it is restored.
    #[error("nothing was changed, for the configuration cannot be tried out: {what}")]
    Rehearsal {
        /// Why.
        what: String,
    },
    /// A drain was ended before the last connection was gone.
    #[error("draining {dest} of {service} was ended: {why}")]
    DrainEnded {
        /// The real server.
        dest: SocketAddr,
        /// The service.
        service: ServiceName,
        /// By whom.
        why: &'static str,
    },
    /// A check found something wrong, and has said what.
    #[error("{0} of the checks found something wrong")]
    Unsound(usize),
    /// The terminal failed.
    #[error("terminal: {0}")]
    Terminal(io::Error),
    /// Standard output failed.
    #[error("standard output: {0}")]
    Output(io::Error),
}

/// The director's own message with the errno's, or what the errno means to IPVS.
fn refusal(errno: i32, message: Option<&str>) -> String {
    const ENOENT: i32 = 2;
    const ESRCH: i32 = 3;
    const EEXIST: i32 = 17;
    match (message, errno) {
        (Some(message), _) => message.to_owned(),
        (None, ENOENT) => "no such destination".to_owned(),
        (None, ESRCH) => "no such service".to_owned(),
        (None, EEXIST) => "it exists already".to_owned(),
        (None, errno) => io::Error::from_raw_os_error(errno).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_directors_words_go_first() {
        let refused = |message: Option<&str>| Error::Refused {
            action: "adding TCP 10.0.0.100:80".to_owned(),
            errno: 17,
            message: message.map(str::to_owned),
        };
        let text = refused(Some("the service exists: edit it with -E")).to_string();
        assert_eq!(
            text,
            "adding TCP 10.0.0.100:80: the service exists: edit it with -E"
        );
        let text = refused(None).to_string();
        assert_eq!(text, "adding TCP 10.0.0.100:80: it exists already");
    }
}
