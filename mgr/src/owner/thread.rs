// SPDX-License-Identifier: MIT
//! The loop around the [`Manager`]: takes what has arrived, has it handled, sends what comes out.
//! While a commit waits for the disk, the next batch gathers by itself.

use std::collections::HashMap;
use std::time::Instant;

use pvfs::attr::Timestamp;
use pvfs::ids::ClientId;
use pvfs::proto::mgr::MgrOperation;
use tokio::sync::mpsc::Receiver;

use super::{Action, Input, Manager, Moment};
use crate::server::connection::{Handle, Waiter};
use crate::session::SESSIONS_MAX;
use crate::store::{Store, StoreError};
use crate::stripes::Executor;

/// Inputs of one batch: with the largest bodies, 256 MiB of requests at the very most; with the
/// usual ones, more than a disk's flush takes to gather.
pub const BATCH_INPUTS_MAX: usize = 256;
/// Inputs that wait for the owner: readers of connections stop at this many.
pub const INPUTS_WAITING_MAX: usize = 4096;

/// What the owner is told.
#[derive(Debug)]
pub enum Command {
    /// Something happened.
    Input(Input<Waiter>),
    /// The process ends.
    Stop,
}

/// Runs until [`Command::Stop`], or until nobody can send commands any more.
///
/// # Errors
///
/// [`StoreError`] where the store failed: the process must end.
pub fn run<S: Store>(
    manager: &mut Manager<S, Waiter>,
    commands: &mut Receiver<Command>,
    executor: &Executor,
) -> Result<(), StoreError> {
    let start = Instant::now();
    let mut clients: HashMap<ClientId, Handle> = HashMap::new();
    let mut inputs = Vec::with_capacity(BATCH_INPUTS_MAX);
    let mut stop = false;
    while !stop {
        stop = !gather(commands, &mut inputs);
        note_clients(&inputs, &mut clients);
        let ms = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
        let moment = Moment {
            now: Timestamp::now(),
            ms,
        };
        manager.handle(inputs.drain(..), moment, &mut |action| match action {
            Action::Reply(waiter, reply) => waiter.send(reply),
            Action::Notify {
                client,
                connection,
                notice,
            } => {
                let handle = clients.get(&client);
                let handle =
                    handle.filter(|handle| connection.is_none_or(|only| only == handle.id()));
                if let Some(handle) = handle {
                    handle.notify(notice);
                }
            }
            Action::Work(work) => executor.start(work),
            Action::IodIsAt(iod, address) => executor.iod_is_at(iod, &address),
            Action::Expired(client) => {
                if let Some(handle) = clients.remove(&client) {
                    handle.close();
                }
            }
        })?;
    }
    Ok(())
}

/// Waits for one command and takes those that are there with it; false at the end.
fn gather(commands: &mut Receiver<Command>, inputs: &mut Vec<Input<Waiter>>) -> bool {
    let Some(first) = commands.blocking_recv() else {
        return false;
    };
    let mut next = Some(first);
    while let Some(command) = next {
        match command {
            Command::Input(input) => inputs.push(input),
            Command::Stop => return false,
        }
        next = if inputs.len() < BATCH_INPUTS_MAX {
            commands.try_recv().ok()
        } else {
            None
        };
    }
    true
}

/// Remembers on which connection each client greeted, and forgets connections that are gone.
fn note_clients(inputs: &[Input<Waiter>], clients: &mut HashMap<ClientId, Handle>) {
    for input in inputs {
        match input {
            Input::Request {
                waiter, request, ..
            } => {
                let greets = matches!(request.operation, MgrOperation::Hello { .. });
                let known = clients.contains_key(&request.client);
                if greets && (known || clients.len() < SESSIONS_MAX) {
                    clients.insert(request.client, waiter.handle().clone());
                }
            }
            Input::Disconnected(connection) => {
                clients.retain(|_, handle| handle.id() != *connection);
            }
            Input::WorkDone(_) | Input::Tick => {}
        }
    }
}
