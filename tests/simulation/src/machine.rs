// SPDX-License-Identifier: MIT
//! Tasks and the clock. One task runs at a time, until it waits or another is given its turn; which
//! comes next is drawn. Where all wait, the clock jumps to whatever is due next.

use std::cell::{Cell, RefCell, RefMut};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Shutdown, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::time::Duration;

use generator::{Generator, Gn};
use pvfs::runtime::simulated::{Installed, ListenerId, Machine, SocketId, TaskId, install};

use crate::log::Log;
use crate::network::Network;

/// A task's stack, in words: nothing recurses, some buffers are on it. Only what is used takes memory.
const STACK_WORDS: usize = 64 << 10;
/// What the simulated clock says when a run begins: 2026.
const EPOCH: Duration = Duration::from_secs(1_767_225_600);
/// A step takes so long at least: whatever never waits does not stop the clock.
const STEP: Duration = Duration::from_micros(1);
/// A run that takes so many steps goes round in a circle.
const STEPS_MAX: u64 = 20_000_000;
/// Tasks of a killed process wait for each other's unwinding no longer.
const ROUNDS_OF_DYING_MAX: u32 = 10_000;

/// Numbers a process; a process that is started again is another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProcessId(pub u64);

/// What a process is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// It runs.
    Running,
    /// It is stopped by SIGSTOP.
    Hung,
    /// It was killed; its tasks are being unwound.
    Killed,
}

#[derive(Debug)]
struct Process {
    name: String,
    ip: IpAddr,
    condition: Condition,
}

#[derive(Debug)]
struct Task {
    process: ProcessId,
    name: String,
    /// `None` where it can go on.
    parked: Option<Option<Duration>>,
    /// It was unparked before it parked.
    token: bool,
    since: Duration,
    started: bool,
    /// It is being unwound.
    dying: bool,
}

type Coroutine = Generator<'static, (), ()>;

/// How tasks of a killed process are unwound.
struct Killed;

/// All simulated machines and their clock.
pub struct World {
    now: Cell<Duration>,
    steps: Cell<u64>,
    random: RefCell<fastrand::Rng>,
    /// Of 256 places where another task may run, so many are taken.
    preemption: Cell<u8>,
    current: Cell<Option<TaskId>>,
    tasks: RefCell<BTreeMap<TaskId, Task>>,
    ready: RefCell<BTreeSet<TaskId>>,
    timers: RefCell<BTreeSet<(Duration, TaskId)>>,
    coroutines: RefCell<BTreeMap<TaskId, Coroutine>>,
    processes: RefCell<BTreeMap<ProcessId, Process>>,
    numbers: Cell<u64>,
    network: RefCell<Network>,
    log: RefCell<Log>,
    failure: RefCell<Option<String>>,
    /// Each step has a line in the log, for whoever looks why two runs differ.
    steps_aloud: bool,
}

thread_local! {
    static CURRENT: RefCell<Option<Rc<World>>> = const { RefCell::new(None) };
}

impl World {
    /// A world without tasks, and the guard that keeps it in this thread.
    pub fn new(seed: u64, aloud: bool) -> (Rc<Self>, Installed) {
        let mut random = fastrand::Rng::with_seed(seed);
        let preemption = [0, 2, 16, 128][random.usize(0..4)];
        let world = Rc::new(Self {
            now: Cell::new(Duration::ZERO),
            steps: Cell::new(0),
            network: RefCell::new(Network::new(random.fork())),
            random: RefCell::new(random),
            preemption: Cell::new(preemption),
            current: Cell::new(None),
            tasks: RefCell::default(),
            ready: RefCell::default(),
            timers: RefCell::default(),
            coroutines: RefCell::default(),
            processes: RefCell::default(),
            numbers: Cell::new(0),
            log: RefCell::new(Log::new(aloud)),
            failure: RefCell::new(None),
            steps_aloud: std::env::var_os("SIMULATION_STEPS").is_some(),
        });
        CURRENT.with(|slot| *slot.borrow_mut() = Some(Rc::clone(&world)));
        let installed = install(Rc::clone(&world) as _);
        (world, installed)
    }

    /// The world of this thread.
    #[must_use]
    pub fn current() -> Option<Rc<Self>> {
        CURRENT.with(|slot| slot.borrow().clone())
    }

    /// Takes it out of this thread.
    pub fn leave() {
        CURRENT.with(|slot| slot.borrow_mut().take());
    }

    /// A number that was not given before.
    pub fn number(&self) -> u64 {
        self.numbers.set(self.numbers.get() + 1);
        self.numbers.get()
    }

    /// Draws.
    pub fn draw(&self) -> RefMut<'_, fastrand::Rng> {
        self.random.borrow_mut()
    }

    /// Time since the beginning.
    #[must_use]
    pub fn time(&self) -> Duration {
        self.now.get()
    }

    /// A moment that no other has: later ones have larger numbers.
    #[must_use]
    pub fn tick(&self) -> u64 {
        self.number()
    }

    /// The network.
    pub fn network(&self) -> RefMut<'_, Network> {
        self.network.borrow_mut()
    }

    /// The log.
    pub fn log(&self) -> RefMut<'_, Log> {
        self.log.borrow_mut()
    }

    /// Notes what the running task does.
    pub fn note(&self, what: &str) {
        let who = self.who();
        self.log.borrow_mut().line(self.now.get(), &who, what);
    }

    fn who(&self) -> String {
        let tasks = self.tasks.borrow();
        match self.current.get().and_then(|task| tasks.get(&task)) {
            None => "-".to_owned(),
            Some(task) => {
                let processes = self.processes.borrow();
                let process = processes.get(&task.process);
                let process = process.map_or("?", |process| process.name.as_str());
                format!("{process}/{}", task.name)
            }
        }
    }

    /// The run has failed; the first reason counts.
    pub fn fail(&self, reason: impl Into<String>) {
        let reason = reason.into();
        self.note(&format!("FAILED: {reason}"));
        self.failure.borrow_mut().get_or_insert(reason);
    }

    /// Why the run has failed, if it has.
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        self.failure.borrow().clone()
    }

    /// A new process with one task.
    pub fn start(&self, name: &str, ip: IpAddr, body: impl FnOnce() + Send + 'static) -> ProcessId {
        let id = ProcessId(self.number());
        let process = Process {
            name: name.to_owned(),
            ip,
            condition: Condition::Running,
        };
        self.processes.borrow_mut().insert(id, process);
        self.network().is_up(ip, true);
        self.add_task(id, "main", Box::new(body));
        id
    }

    /// A further task of a process.
    pub fn add_task(&self, process: ProcessId, name: &str, body: Box<dyn FnOnce() + Send>) {
        let id = TaskId(self.number());
        let guarded = move || {
            if let Err(panic) = catch_unwind(AssertUnwindSafe(body)) {
                if !panic.is::<Killed>() {
                    let words = panic.downcast_ref::<String>().cloned();
                    let words =
                        words.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
                    if let Some(world) = World::current() {
                        world.fail(format!("a task panicked: {}", words.unwrap_or_default()));
                    }
                }
            }
        };
        let task = Task {
            process,
            name: name.to_owned(),
            parked: None,
            token: false,
            since: self.now.get(),
            started: false,
            dying: false,
        };
        self.tasks.borrow_mut().insert(id, task);
        self.ready.borrow_mut().insert(id);
        let coroutine = Gn::new_opt(STACK_WORDS, guarded);
        self.coroutines.borrow_mut().insert(id, coroutine);
    }

    /// SIGSTOP, or SIGCONT.
    pub fn set_hung(&self, process: ProcessId, hung: bool) {
        if let Some(process) = self.processes.borrow_mut().get_mut(&process) {
            if process.condition != Condition::Killed {
                process.condition = match hung {
                    true => Condition::Hung,
                    false => Condition::Running,
                };
            }
        }
    }

    /// SIGKILL, or the end of the whole machine, of which no peer hears. All of its tasks are gone
    /// when this returns. Not to be called by a task.
    pub fn kill(&self, process: ProcessId, silently: bool) {
        let ip = {
            let mut processes = self.processes.borrow_mut();
            let Some(process) = processes.get_mut(&process) else {
                return;
            };
            process.condition = Condition::Killed;
            process.ip
        };
        self.network().vanish(ip, self.now.get(), silently);
        let tasks: Vec<TaskId> = {
            let tasks = self.tasks.borrow();
            let mine = tasks.iter().filter(|(_, task)| task.process == process);
            mine.map(|(id, _)| *id).collect()
        };
        for id in &tasks {
            let started = self.tasks.borrow().get(id).is_some_and(|task| task.started);
            if started {
                self.make_ready(*id);
            } else {
                self.tasks.borrow_mut().remove(id);
                self.ready.borrow_mut().remove(id);
                let unused = self.coroutines.borrow_mut().remove(id);
                drop(unused);
            }
        }
        for _ in 0..ROUNDS_OF_DYING_MAX {
            let left: Vec<TaskId> = {
                let all = self.tasks.borrow();
                let mine = all.iter().filter(|(_, task)| task.process == process);
                mine.map(|(id, _)| *id).collect()
            };
            if left.is_empty() {
                self.processes.borrow_mut().remove(&process);
                return;
            }
            for task in left {
                self.make_ready(task);
                self.resume(task);
            }
        }
        self.fail(format!("a killed process does not end:\n{}", self.tasks()));
    }

    /// Kills everything that is left.
    pub fn kill_all(&self) {
        let all: Vec<ProcessId> = self.processes.borrow().keys().copied().collect();
        for process in all {
            self.kill(process, false);
        }
    }

    /// Whether a process has no task any more.
    #[must_use]
    pub fn has_ended(&self, process: ProcessId) -> bool {
        let tasks = self.tasks.borrow();
        !tasks.values().any(|task| task.process == process)
    }

    /// What all tasks are doing, for whoever looks for a hang.
    #[must_use]
    pub fn tasks(&self) -> String {
        use std::fmt::Write;
        let mut text = String::new();
        let processes = self.processes.borrow();
        for task in self.tasks.borrow().values() {
            let process = processes.get(&task.process);
            let process = process.map_or("?", |process| process.name.as_str());
            let since = task.since.as_secs_f64();
            // Writing to a string does not fail.
            let _ = writeln!(
                text,
                "  {process}/{} since {since:.3}: {:?}",
                task.name, task.parked
            );
        }
        text
    }

    /// Runs tasks until `until` says that it is enough, or the run has failed, or `end` has come.
    pub fn run(&self, end: Duration, mut until: impl FnMut(&Self) -> bool) {
        while self.failure.borrow().is_none() && self.now.get() < end && !until(self) {
            self.step(end);
        }
    }

    fn step(&self, end: Duration) {
        self.steps.set(self.steps.get() + 1);
        if self.steps.get() > STEPS_MAX {
            return self.fail(format!(
                "{STEPS_MAX} steps are not enough:\n{}",
                self.tasks()
            ));
        }
        self.fire_timers();
        let due = self.network().deliver(self.now.get());
        for task in due {
            self.unpark(task);
        }
        let able: Vec<TaskId> = {
            let tasks = self.tasks.borrow();
            let ready = self.ready.borrow();
            let can_run = |id: &&TaskId| {
                let process = tasks.get(id).map(|task| task.process);
                let processes = self.processes.borrow();
                let process = process.and_then(|process| processes.get(&process));
                process.is_some_and(|process| process.condition == Condition::Running)
            };
            ready.iter().filter(can_run).copied().collect()
        };
        if able.is_empty() {
            let timer = self.next_timer();
            let next = timer.into_iter().chain(self.network().next_due()).min();
            self.now
                .set(next.map_or(end, |next| next.clamp(self.now.get(), end)));
            return;
        }
        let chosen = able[self.random.borrow_mut().usize(0..able.len())];
        self.log.borrow_mut().mix((self.now.get(), chosen.0));
        if self.steps_aloud {
            let name = self
                .tasks
                .borrow()
                .get(&chosen)
                .map(|task| task.name.clone());
            self.note(&format!("step of {chosen:?} {name:?} of {}", able.len()));
        }
        self.now.set(self.now.get() + STEP);
        self.resume(chosen);
    }

    /// The next timer of a task that may run then.
    fn next_timer(&self) -> Option<Duration> {
        let tasks = self.tasks.borrow();
        let processes = self.processes.borrow();
        let timers = self.timers.borrow();
        let mut live = timers.iter().filter(|(_, id)| {
            let process = tasks.get(id).and_then(|task| processes.get(&task.process));
            process.is_some_and(|process| process.condition == Condition::Running)
        });
        live.next().map(|(at, _)| *at)
    }

    fn fire_timers(&self) {
        loop {
            let first = self.timers.borrow().first().copied();
            match first {
                Some((at, task)) if at <= self.now.get() => self.make_ready(task),
                _ => return,
            }
        }
    }

    fn make_ready(&self, id: TaskId) {
        if let Some(task) = self.tasks.borrow_mut().get_mut(&id) {
            if let Some(Some(deadline)) = task.parked.take() {
                self.timers.borrow_mut().remove(&(deadline, id));
            }
            task.since = self.now.get();
            self.ready.borrow_mut().insert(id);
        }
    }

    fn resume(&self, id: TaskId) {
        let Some(mut coroutine) = self.coroutines.borrow_mut().remove(&id) else {
            return;
        };
        if let Some(task) = self.tasks.borrow_mut().get_mut(&id) {
            task.started = true;
        }
        let before = self.current.replace(Some(id));
        coroutine.resume();
        self.current.set(before);
        if coroutine.is_done() {
            self.tasks.borrow_mut().remove(&id);
            self.ready.borrow_mut().remove(&id);
        } else {
            self.coroutines.borrow_mut().insert(id, coroutine);
        }
    }

    /// Gives the turn back to the scheduler. A task that was killed meanwhile does not return.
    #[expect(
        deprecated,
        reason = "a task waits deep within the product, where no scope is at hand"
    )]
    fn switch(&self) {
        generator::yield_with(());
        self.die_if_killed();
    }

    fn die_if_killed(&self) {
        if !self.is_killed() {
            return;
        }
        let me = self.current.get();
        let dying = {
            let mut tasks = self.tasks.borrow_mut();
            let task = me.and_then(|me| tasks.get_mut(&me));
            task.is_none_or(|task| std::mem::replace(&mut task.dying, true))
        };
        if !dying {
            resume_unwind(Box::new(Killed));
        }
    }

    fn is_killed(&self) -> bool {
        let tasks = self.tasks.borrow();
        let process = self.current.get().and_then(|id| tasks.get(&id));
        let processes = self.processes.borrow();
        let process = process.and_then(|task| processes.get(&task.process));
        process.is_some_and(|process| process.condition == Condition::Killed)
    }

    /// The address of the running task's machine.
    fn own_ip(&self) -> io::Result<IpAddr> {
        let tasks = self.tasks.borrow();
        let task = self.current.get().and_then(|id| tasks.get(&id));
        let processes = self.processes.borrow();
        let process = task.and_then(|task| processes.get(&task.process));
        let process = process.filter(|process| process.condition != Condition::Killed);
        process
            .map(|process| process.ip)
            .ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// Waits until `attempt` gives something, at most until `deadline`.
    fn wait_for<T>(
        &self,
        deadline: Option<Duration>,
        mut attempt: impl FnMut(&mut Network, TaskId) -> Option<T>,
    ) -> Option<T> {
        loop {
            let me = self.current.get()?;
            if self.is_killed() {
                self.die_if_killed();
                return None;
            }
            if let Some(outcome) = attempt(&mut self.network.borrow_mut(), me) {
                return Some(outcome);
            }
            if deadline.is_some_and(|deadline| self.now.get() >= deadline) {
                return None;
            }
            self.park(deadline);
        }
    }
}

impl Machine for World {
    fn now(&self) -> Duration {
        self.now.get()
    }

    fn time_of_day(&self) -> Duration {
        EPOCH + self.now.get()
    }

    fn random(&self) -> u64 {
        self.random.borrow_mut().u64(..)
    }

    fn task(&self) -> Option<TaskId> {
        self.current.get()
    }

    fn preempt(&self) {
        self.die_if_killed();
        if self.is_killed() || self.random.borrow_mut().u8(..) >= self.preemption.get() {
            return;
        }
        self.switch();
    }

    fn park(&self, deadline: Option<Duration>) {
        self.die_if_killed();
        let Some(me) = self.current.get() else {
            return;
        };
        let killed = self.is_killed();
        if let Some(task) = self.tasks.borrow_mut().get_mut(&me) {
            if std::mem::take(&mut task.token) {
                return;
            }
            // What is being unwound waits for others that are, too.
            if !killed {
                task.parked = Some(deadline);
                task.since = self.now.get();
                self.ready.borrow_mut().remove(&me);
                if let Some(deadline) = deadline {
                    self.timers.borrow_mut().insert((deadline, me));
                }
            }
        }
        self.switch();
        if let Some(task) = self.tasks.borrow_mut().get_mut(&me) {
            task.token = false;
        }
    }

    fn unpark(&self, id: TaskId) {
        let waits = match self.tasks.borrow_mut().get_mut(&id) {
            None => return,
            Some(task) => {
                task.token = task.parked.is_none();
                task.parked.is_some()
            }
        };
        if waits {
            self.make_ready(id);
        }
    }

    fn spawn(&self, name: &str, body: Box<dyn FnOnce() + Send>) {
        let process = {
            let tasks = self.tasks.borrow();
            let current = self.current.get().and_then(|id| tasks.get(&id));
            current.map(|task| task.process)
        };
        if let Some(process) = process.filter(|_| !self.is_killed()) {
            self.add_task(process, name, body);
        }
    }

    fn connect(&self, to: SocketAddr, timeout: Duration) -> io::Result<SocketId> {
        let ip = self.own_ip()?;
        let deadline = self.now.get() + timeout;
        let from = SocketAddr::new(ip, 0);
        let arrives = self.now.get() + self.network().latency() * 2;
        // The handshake.
        while self.now.get() < arrives {
            self.wait_for(Some(arrives), |_, _| None::<()>);
        }
        loop {
            self.own_ip()?;
            let connected = self.network().connect(from, to);
            match connected {
                Some(outcome) => {
                    let (socket, woken) = outcome?;
                    for task in woken {
                        self.unpark(task);
                    }
                    return Ok(socket);
                }
                None if self.now.get() >= deadline => return Err(io::ErrorKind::TimedOut.into()),
                None => {
                    let again = deadline.min(self.now.get() + Duration::from_millis(200));
                    self.wait_for(Some(again), |_, _| None::<()>);
                }
            }
        }
    }

    fn listen(&self, at: SocketAddr) -> io::Result<ListenerId> {
        self.own_ip()?;
        self.network().listen(at)
    }

    fn accept(&self, listener: ListenerId) -> io::Result<(SocketId, SocketAddr)> {
        let accepted = self.wait_for(None, |network, me| network.accept(listener, me));
        accepted.unwrap_or_else(|| Err(io::ErrorKind::NotConnected.into()))
    }

    fn stop_listening(&self, listener: ListenerId) {
        let woken = self.network().stop_listening(listener);
        for task in woken {
            self.unpark(task);
        }
    }

    fn receive(
        &self,
        socket: SocketId,
        bytes: &mut [u8],
        timeout: Option<Duration>,
    ) -> io::Result<usize> {
        let deadline = timeout.map(|timeout| self.now.get() + timeout);
        let received = self.wait_for(deadline, |network, me| network.receive(socket, bytes, me));
        if self.is_killed() {
            return Err(io::ErrorKind::NotConnected.into());
        }
        received.unwrap_or_else(|| Err(io::ErrorKind::WouldBlock.into()))
    }

    fn send(&self, socket: SocketId, bytes: &[u8], timeout: Option<Duration>) -> io::Result<usize> {
        let deadline = timeout.map(|timeout| self.now.get() + timeout);
        let sent = self.wait_for(deadline, |network, me| {
            network.send(socket, bytes, self.now.get(), me)
        });
        if self.is_killed() {
            return Err(io::ErrorKind::NotConnected.into());
        }
        sent.unwrap_or_else(|| Err(io::ErrorKind::WouldBlock.into()))
    }

    fn shut_down(&self, socket: SocketId, _how: Shutdown) -> io::Result<()> {
        let woken = self.network().shut_down(socket, self.now.get());
        for task in woken {
            self.unpark(task);
        }
        Ok(())
    }

    fn close(&self, socket: SocketId) {
        let woken = self.network().close(socket, self.now.get());
        for task in woken {
            self.unpark(task);
        }
    }

    fn local_address(&self, socket: SocketId) -> SocketAddr {
        self.network().local_address(socket)
    }
}
