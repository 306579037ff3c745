// SPDX-License-Identifier: MIT
//! ipvsadm's command line, taken as it is: the same commands, options and listings (ipvsadm(8)).
//!
//! What differs: `-S` also saves thresholds, timeouts and sizes, which ipvsadm loses, and `-R` checks
//! everything before it changes anything ([`crate::saved`]).

mod connections;
pub(crate) mod flags;
mod grammar;
mod list;
mod options;
mod parse;
mod resolve;

use std::io::Write;
use std::net::SocketAddr;

use ipvs_mwlc::director::timeouts::TimeoutsUpdate;

pub use grammar::help;
pub(crate) use grammar::{OPTIONS, Takes, VERBS};
pub use parse::parse;
pub(crate) use parse::starts;
pub use resolve::Resolver;

use crate::error::Error;
use crate::ipvs::{Daemon, DestConfig, Ipvs, ServiceConfig};
use crate::names::ServiceName;

/// What a command line asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// `-A`.
    AddService(ServiceConfig),
    /// `-E`.
    EditService(ServiceConfig),
    /// `-D`.
    DeleteService(ServiceName),
    /// `-C`.
    Clear,
    /// `-R`.
    Restore,
    /// `-S`.
    Save {
        /// Addresses and ports as numbers.
        numeric: bool,
    },
    /// `-a`.
    AddDest(ServiceName, DestConfig),
    /// `-e`.
    EditDest(ServiceName, DestConfig),
    /// `-d`.
    DeleteDest(ServiceName, SocketAddr),
    /// `-L`.
    List(Listing),
    /// `-Z`.
    Zero(Option<ServiceName>),
    /// `--set`.
    SetTimeouts(TimeoutsUpdate),
    /// `--start-daemon`.
    StartDaemon(Daemon),
    /// `--stop-daemon`.
    StopDaemon(Daemon),
    /// `-h`.
    Help,
    /// `-v`.
    Version,
}

/// What `-L` shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Listing {
    /// One service only.
    pub service: Option<ServiceName>,
    /// Which numbers.
    pub view: View,
    /// With `-c`: the persistence engine's columns.
    pub engine_columns: bool,
    /// `--exact`: numbers in full.
    pub exact: bool,
    /// In the kernel's order rather than sorted.
    pub unsorted: bool,
    /// `-n`: addresses and ports as numbers.
    pub numeric: bool,
}

/// The kinds of listing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum View {
    /// Weights and connections.
    #[default]
    Plain,
    /// `--stats`.
    Stats,
    /// `--rate`.
    Rate,
    /// `--thresholds`.
    Thresholds,
    /// `--persistent-conn`.
    Persistent,
    /// `--tun-info`.
    Tunnels,
    /// `-c`: connection entries.
    Connections,
    /// `--timeout`.
    Timeouts,
    /// `--daemon`.
    Daemon,
}

/// Does what a command line asks for, but for saving and restoring.
pub fn run(action: Action, output: &mut impl Write) -> Result<(), Error> {
    match action {
        Action::Help => output.write_all(help().as_bytes()).map_err(Error::Output),
        Action::Version => {
            writeln!(output, "mwlcadm {}", env!("CARGO_PKG_VERSION")).map_err(Error::Output)
        }
        Action::List(listing) => list::list(&mut Ipvs::open()?, &listing, output),
        action => change(&mut Ipvs::open()?, action),
    }
}

/// Does what changes the director: all but help, lists, saving and restoring.
pub(crate) fn change(ipvs: &mut Ipvs, action: Action) -> Result<(), Error> {
    match action {
        Action::AddService(new) => ipvs.add_service(&new),
        Action::EditService(new) => ipvs.edit_service(&new),
        Action::DeleteService(name) => ipvs.delete_service(&name),
        Action::Clear => ipvs.flush(),
        Action::AddDest(of, new) => ipvs.add_dest(&of, &new),
        Action::EditDest(of, new) => ipvs.edit_dest(&of, &new),
        Action::DeleteDest(of, dest) => ipvs.delete_dest(&of, dest),
        Action::Zero(name) => ipvs.zero(name.as_ref()),
        Action::SetTimeouts(update) => ipvs.set_timeouts(update),
        Action::StartDaemon(daemon) => ipvs.start_daemon(&daemon),
        Action::StopDaemon(daemon) => ipvs.stop_daemon(&daemon),
        Action::Restore
        | Action::Save { .. }
        | Action::List(_)
        | Action::Help
        | Action::Version => Err(Error::Usage(
            "only commands that add, edit or delete stand in a saved configuration".to_owned(),
        )),
    }
}
