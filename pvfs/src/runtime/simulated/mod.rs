// SPDX-License-Identifier: MIT
//! A simulated machine's time, threads, locks, channels and TCP.
//!
//! A simulation runs all its tasks, which stand for threads, in one thread of the host, one at a time.
//! It implements [`Machine`], [`install`]s it, and everything here asks it. In a thread of the host
//! that has no machine, everything here is the host's.
//!
//! A task changes its place with another one only where it calls something of this module.

mod channel;
pub mod net;
pub mod sync;
pub mod thread;
pub mod time;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

/// Numbers a task; never used twice by a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskId(pub u64);

/// Numbers one end of a connection; never used twice by a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SocketId(pub u64);

/// Numbers a listening socket; never used twice by a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ListenerId(pub u64);

/// What a simulation provides. All but [`Machine::unpark`] and the closing of sockets is called by
/// tasks only.
pub trait Machine {
    /// Time since the machine was started.
    fn now(&self) -> Duration;

    /// Time since the epoch, as people read it.
    fn time_of_day(&self) -> Duration;

    /// 64 random bits.
    fn random(&self) -> u64;

    /// Which task runs; `None` where none does.
    fn task(&self) -> Option<TaskId>;

    /// A place where another task may run.
    fn preempt(&self);

    /// Waits until [`Machine::unpark`], at most until `deadline`. Like `std::thread::park` it
    /// returns at once where that came before, and may return for no reason.
    fn park(&self, deadline: Option<Duration>);

    /// Ends a task's waiting, now or as soon as it waits.
    fn unpark(&self, task: TaskId);

    /// Starts a task in the process of the running one.
    fn spawn(&self, name: &str, body: Box<dyn FnOnce() + Send>);

    /// Connects.
    ///
    /// # Errors
    ///
    /// Those of connect(2).
    fn connect(&self, to: SocketAddr, timeout: Duration) -> io::Result<SocketId>;

    /// Listens.
    ///
    /// # Errors
    ///
    /// Those of bind(2).
    fn listen(&self, at: SocketAddr) -> io::Result<ListenerId>;

    /// Waits for a connection.
    ///
    /// # Errors
    ///
    /// Those of accept(2).
    fn accept(&self, listener: ListenerId) -> io::Result<(SocketId, SocketAddr)>;

    /// Ends listening and whoever waits for a connection.
    fn stop_listening(&self, listener: ListenerId);

    /// Receives some bytes; 0 at the end.
    ///
    /// # Errors
    ///
    /// Those of recv(2); [`io::ErrorKind::WouldBlock`] after `timeout`.
    fn receive(
        &self,
        socket: SocketId,
        bytes: &mut [u8],
        timeout: Option<Duration>,
    ) -> io::Result<usize>;

    /// Sends some bytes.
    ///
    /// # Errors
    ///
    /// Those of send(2); [`io::ErrorKind::WouldBlock`] after `timeout`.
    fn send(&self, socket: SocketId, bytes: &[u8], timeout: Option<Duration>) -> io::Result<usize>;

    /// Shuts one or both directions down.
    ///
    /// # Errors
    ///
    /// Those of shutdown(2).
    fn shut_down(&self, socket: SocketId, how: Shutdown) -> io::Result<()>;

    /// The last reference to a socket is gone.
    fn close(&self, socket: SocketId);

    /// The socket's own address.
    fn local_address(&self, socket: SocketId) -> SocketAddr;
}

thread_local! {
    static MACHINE: RefCell<Option<Rc<dyn Machine>>> = const { RefCell::new(None) };
}

/// Takes the machine out again when it is dropped.
#[derive(Debug)]
#[must_use]
pub struct Installed(());

impl Drop for Installed {
    fn drop(&mut self) {
        MACHINE.with(|slot| slot.borrow_mut().take());
    }
}

/// Has this thread of the host run tasks of `machine`.
pub fn install(machine: Rc<dyn Machine>) -> Installed {
    MACHINE.with(|slot| *slot.borrow_mut() = Some(machine));
    Installed(())
}

/// The machine, where there is one.
fn machine() -> Option<Rc<dyn Machine>> {
    MACHINE.with(|slot| slot.borrow().clone())
}

/// The machine and the task that runs, where one does.
fn task() -> Option<(Rc<dyn Machine>, TaskId)> {
    let machine = machine()?;
    let task = machine.task()?;
    Some((machine, task))
}

/// 64 random bits, never 0.
#[must_use]
pub fn random_u64() -> u64 {
    machine().map_or_else(super::host::random_u64, |machine| machine.random().max(1))
}

/// What each task has for itself, inside of a `thread_local!`.
#[derive(Debug, Default)]
pub struct PerTask<T> {
    outside: T,
    tasks: RefCell<BTreeMap<TaskId, Rc<T>>>,
}

impl<T: Default> PerTask<T> {
    /// Begins with `value` outside of any task, with the default in each.
    #[must_use]
    pub const fn new(value: T) -> Self {
        Self {
            outside: value,
            tasks: RefCell::new(BTreeMap::new()),
        }
    }

    /// Shows the running task's own.
    pub fn with<R>(&self, look: impl FnOnce(&T) -> R) -> R {
        match task() {
            None => look(&self.outside),
            Some((_, task)) => {
                let own = Rc::clone(self.tasks.borrow_mut().entry(task).or_default());
                look(&own)
            }
        }
    }
}
