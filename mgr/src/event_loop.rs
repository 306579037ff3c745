// SPDX-License-Identifier: MIT
//! The loop around the [`Manager`]: takes what has arrived, has it handled, sends what comes out.
//! While a commit waits for the disk, the next batch gathers by itself.

use std::collections::HashMap;
use std::time::Instant;

use pvfs::attr::Timestamp;
use pvfs::ids::ClientId;
use pvfs::proto::mgr::MgrOperation;
use tokio::sync::mpsc::Receiver;

use crate::backup::Desk;
use crate::limits::BATCH_INPUTS_MAX;
use crate::owner::{Action, Input, Manager, Moment};
use crate::server::Command;
use crate::server::connection::{Handle, Waiter};
use crate::session::SESSIONS_MAX;
use crate::store::{Store, StoreError};
use crate::stripes::Executor;

/// Inputs that wait for the owner: readers of connections stop at this many.
pub const INPUTS_WAITING_MAX: usize = 4096;

/// A client that has greeted.
struct Greeted {
    /// The connection on which it did.
    on: Handle,
    /// The greeting's number.
    number: u64,
    /// It wants to be told of iods.
    news: bool,
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
    backups: &Desk,
) -> Result<(), StoreError> {
    let start = Instant::now();
    let mut clients: HashMap<ClientId, Greeted> = HashMap::new();
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
                let greeted = clients.get(&client);
                let greeted =
                    greeted.filter(|greeted| connection.is_none_or(|only| only == greeted.on.id()));
                if let Some(greeted) = greeted {
                    greeted.on.notify(notice);
                }
            }
            Action::Announce(notice) => {
                for greeted in clients.values().filter(|greeted| greeted.news) {
                    greeted.on.notify(notice.clone());
                }
            }
            Action::Work(work) => executor.start(work),
            Action::IodIsAt(iod, address, incarnation) => {
                executor.iod_is_at(iod, &address, incarnation);
            }
            Action::Backup(waiter, wanted) => backups.ask(waiter, wanted),
            Action::Expired(client) => {
                if let Some(greeted) = clients.remove(&client) {
                    greeted.on.close();
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
fn note_clients(inputs: &[Input<Waiter>], clients: &mut HashMap<ClientId, Greeted>) {
    for input in inputs {
        match input {
            Input::Request {
                waiter, request, ..
            } => {
                let MgrOperation::Hello { number, news, .. } = request.operation else {
                    continue;
                };
                let known = clients.get(&request.client);
                let takes = match known {
                    Some(known) => known.number <= number,
                    None => clients.len() < SESSIONS_MAX,
                };
                if takes {
                    let on = waiter.handle().clone();
                    clients.insert(request.client, Greeted { on, number, news });
                }
            }
            Input::Disconnected(connection) => {
                clients.retain(|_, greeted| greeted.on.id() != *connection);
            }
            Input::Connected(..) | Input::WorkDone(_) | Input::Tick => {}
        }
    }
}
