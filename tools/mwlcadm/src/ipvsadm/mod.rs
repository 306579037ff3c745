// SPDX-License-Identifier: MIT
//! ipvsadm's command line, taken as it is: the same verbs, options and listings (ipvsadm(8)).
//!
//! Two things differ. Addresses are always shown as numbers (`-n` is accepted), and `-S` also saves
//! thresholds, timeouts and expected sizes, which ipvsadm loses.

mod list;
mod options;
mod parse;
mod restore;

use std::ffi::OsString;
use std::io::Write;

use ipvs_mwlc::director::config::{DestKey, ServiceKey};
use ipvs_mwlc::director::timeouts::TimeoutsUpdate;

pub use parse::{HELP, parse};

use crate::error::Error;
use crate::ipvs::{Ipvs, NewDest, NewService};

/// What a command line asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// `-A`.
    AddService(NewService),
    /// `-E`.
    EditService(NewService),
    /// `-D`.
    DeleteService(ServiceKey),
    /// `-C`.
    Clear,
    /// `-R`.
    Restore,
    /// `-S`.
    Save,
    /// `-a`.
    AddDest(ServiceKey, NewDest),
    /// `-e`.
    EditDest(ServiceKey, NewDest),
    /// `-d`.
    DeleteDest(ServiceKey, DestKey),
    /// `-L`.
    List(Listing),
    /// `-Z`.
    Zero(Option<ServiceKey>),
    /// `--set`.
    SetTimeouts(TimeoutsUpdate),
    /// A line of a saved configuration that ipvsadm does not have.
    ExpectedSize {
        /// Which service.
        key: ServiceKey,
        /// What its connections are expected to fetch.
        configured_bytes: u64,
        /// Whether the learned average counts.
        learned: bool,
    },
    /// `-h`.
    Help,
}

/// What `-L` shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Listing {
    /// One service only.
    pub service: Option<ServiceKey>,
    /// Which numbers.
    pub view: View,
    /// `--exact`: numbers in full.
    pub exact: bool,
    /// In the kernel's order rather than sorted.
    pub unsorted: bool,
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
    /// `-c`: connection entries.
    Connections,
    /// `--timeout`.
    Timeouts,
    /// `--daemon`: there is none, so nothing.
    Daemon,
}

/// Runs a command line (without the program's name).
pub fn run(
    arguments: impl Iterator<Item = OsString>,
    output: &mut impl Write,
) -> Result<(), Error> {
    match parse(arguments)? {
        Action::Help => output.write_all(HELP.as_bytes()).map_err(Error::Output),
        Action::Restore => restore::restore(&mut Ipvs::open()?, std::io::stdin().lock()),
        Action::Save => restore::save(&mut Ipvs::open()?, output),
        Action::List(listing) => list::list(&mut Ipvs::open()?, &listing, output),
        action => change(&mut Ipvs::open()?, action),
    }
}

/// Does what changes the director: all but help, lists, saving and restoring.
fn change(ipvs: &mut Ipvs, action: Action) -> Result<(), Error> {
    match action {
        Action::AddService(new) => ipvs.add_service(&new),
        Action::EditService(new) => ipvs.edit_service(&new),
        Action::DeleteService(key) => ipvs.delete_service(&key),
        Action::Clear => ipvs.flush(),
        Action::AddDest(of, new) => ipvs.add_dest(&of, &new),
        Action::EditDest(of, new) => ipvs.edit_dest(&of, &new),
        Action::DeleteDest(of, key) => ipvs.delete_dest(&of, &key),
        Action::Zero(key) => ipvs.zero(key.as_ref()),
        Action::SetTimeouts(update) => ipvs.set_timeouts(update),
        Action::ExpectedSize {
            key,
            configured_bytes,
            learned,
        } => restore::set_expected_size(&key, configured_bytes, learned),
        Action::Restore | Action::Save | Action::List(_) | Action::Help => Err(Error::Usage(
            "only commands that add, edit or delete stand in a saved configuration".to_owned(),
        )),
    }
}
