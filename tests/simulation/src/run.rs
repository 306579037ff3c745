// SPDX-License-Identifier: MIT
//! One seed: makes a cluster, lets programs run while faults happen, and judges.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use cssns_histories::linearizability::check;
use cssns_histories::model::Files;
use cssns_histories::{CELL_BYTES, CELLS_AT_FIRST, Call};
use pvfs::address::Endpoint;
use pvfs::attr::{Credentials, FileKind};
use pvfs::client::iod::IodDirectory;
use pvfs::client::mgr::{ClientOptions, MgrClient};
use pvfs::client::pool::{IodPool, PoolOptions};
use pvfs::ids::{InodeNumber, ROOT_INODE};
use pvfs::layout::LayoutPolicy;
use pvfs::proto::iod::{IodRequest, IodResponse};
use pvfs::proto::lease::Lease;
use pvfs::proto::mgr::{MgrOperation, MgrResponse};
use pvfs::runtime::thread;
use pvfs_fuse::fs::{NewNode, Pvfs};
use pvfs_iod::store::Store;
use pvfs_iod::store::memory_disk::MemoryDisk;

use crate::kernel::ROOT;
use crate::machine::{ProcessId, World};
use crate::mgr::MgrDisk;
use crate::program::{History, Manner, Place};
use crate::{iod, mgr, node, program};

/// Iods of a cluster.
const IODS: u8 = 3;
/// Nodes of a cluster.
const NODES: u8 = 3;
/// Stripes are so small that a file lies on all iods.
const STRIPE_BYTES: u32 = 4096;
/// When faults are over, all calls return within this time: it is longer than any timeout of the
/// product that a call may have to wait for.
const LIVENESS_MAX: Duration = Duration::from_secs(150);
/// When all files are closed, this passes until mgr has let go of everything: reports, leases and
/// removed files linger for less.
const QUIET: Duration = Duration::from_secs(15);
/// Setting up takes less.
const SET_UP_MAX: Duration = Duration::from_secs(60);
/// Leases are compared after so many steps each.
const STEPS_PER_CHECK: u64 = 16;

/// What may happen in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    /// Links are cut one way or both, or connections break.
    Links,
    /// mgr and iods are killed and started again.
    Kills,
    /// Processes hang for less than leases last.
    Hangs,
    /// Nodes hang, or are cut off, for longer than leases last.
    LongAbsence,
    /// Nodes are killed, or lose their power.
    NodesDie,
    /// Bits flip on the iods' disks.
    Flips,
    /// A disk is full for a while.
    FullDisk,
}

const TROUBLES: [Trouble; 7] = [
    Trouble::Links,
    Trouble::Kills,
    Trouble::Hangs,
    Trouble::LongAbsence,
    Trouble::NodesDie,
    Trouble::Flips,
    Trouble::FullDisk,
];

/// What happened.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Why the seed fails, and the end of the log; `None` where it passes.
    pub failure: Option<String>,
    /// Two runs of a seed have the same.
    pub fingerprint: u64,
    /// Calls that returned.
    pub calls: usize,
    /// Simulated time.
    pub time: Duration,
}

/// A mount, for the checks between steps.
type Mounts = Arc<Mutex<BTreeMap<u8, Weak<Pvfs>>>>;

struct Cluster {
    world: Rc<World>,
    random: fastrand::Rng,
    directory: PathBuf,
    mgr_disk: MgrDisk,
    mgr: Option<ProcessId>,
    disks: Vec<MemoryDisk>,
    iods: Vec<Option<ProcessId>>,
    nodes: Vec<Option<ProcessId>>,
    mounts: Mounts,
    history: History,
    place: Place,
    troubles: Vec<Trouble>,
    /// Programs that have not ended.
    programs: Arc<AtomicUsize>,
}

/// Runs a seed. `directory` is on the host, for the few files that an iod has beside its objects.
#[must_use]
pub fn run(seed: u64, directory: &Path, aloud: bool) -> Outcome {
    for number in 0..IODS {
        // What the last seed left there, if any.
        let _ = std::fs::remove_dir_all(directory.join(format!("iod{number}")));
    }
    let (world, installed) = World::new(seed, aloud);
    let mut cluster = Cluster::new(seed, Rc::clone(&world), directory);
    cluster.live();
    cluster.end();
    let judged = match world.failure() {
        Some(reason) => Some(reason),
        None => cluster.judge(),
    };
    let failure = judged.map(|reason| {
        let tail = world.log().tail();
        let troubles = &cluster.troubles;
        format!(
            "seed {seed} ({troubles:?}): {reason}\nreplay: make test-simulation SEED={seed}\n\
             the end of its log:\n{tail}\nseed {seed}: {reason}"
        )
    });
    let outcome = Outcome {
        failure,
        fingerprint: world.log().fingerprint(),
        calls: cluster.history.events().len(),
        time: world.time(),
    };
    drop(cluster);
    drop(installed);
    World::leave();
    outcome
}

impl Cluster {
    fn new(seed: u64, world: Rc<World>, directory: &Path) -> Self {
        let mut random = fastrand::Rng::with_seed(seed ^ 0x5eed);
        let mut troubles = Vec::new();
        for _ in 0..random.usize(0..3) {
            troubles.push(TROUBLES[random.usize(0..TROUBLES.len())]);
        }
        // Damage after a crash may go unseen for some seconds, as documented.
        if troubles.contains(&Trouble::Flips) {
            troubles.retain(|trouble| *trouble == Trouble::Flips);
        }
        Self {
            world,
            random,
            directory: directory.to_owned(),
            mgr_disk: MgrDisk::default(),
            mgr: None,
            disks: (0..IODS).map(|_| MemoryDisk::default()).collect(),
            iods: vec![None; IODS.into()],
            nodes: vec![None; NODES.into()],
            mounts: Mounts::default(),
            history: History::default(),
            place: Place::default(),
            troubles,
            programs: Arc::default(),
        }
    }

    fn may(&self, trouble: Trouble) -> bool {
        self.troubles.contains(&trouble)
    }

    fn start_mgr(&mut self) {
        let disk = self.mgr_disk.clone();
        let ip = mgr::ADDRESS.ip();
        self.mgr = Some(self.world.start("mgr", ip, move || mgr::main(disk)));
    }

    fn start_iod(&mut self, number: u8) {
        let disk = self.disks[usize::from(number)].clone();
        let directory = self.directory.join(format!("iod{number}"));
        let (name, ip) = (format!("iod{number}"), iod::address(number).ip());
        let main = move || iod::main(number, disk, directory);
        self.iods[usize::from(number)] = Some(self.world.start(&name, ip, main));
    }

    /// Starts a node with programs; after its death, another one of its number.
    fn start_node(&mut self, number: u8, calls: usize) {
        let programs = self.random.usize(1..=2);
        let direct_io = self.random.u8(0..4) == 0;
        let manners: Vec<Manner> = (0..programs)
            .map(|_| Manner {
                seed: self.random.u64(..),
                calls,
                synced: self.may(Trouble::LongAbsence) || self.may(Trouble::NodesDie),
                may_fail: self.may(Trouble::Flips)
                    || self.may(Trouble::FullDisk)
                    || self.may(Trouble::LongAbsence),
            })
            .collect();
        self.programs.fetch_add(programs, Ordering::Relaxed);
        let (history, place) = (self.history.clone(), self.place);
        let (mounts, left) = (Arc::clone(&self.mounts), Arc::clone(&self.programs));
        let main = move || {
            let ended = Ended {
                left,
                count: programs,
            };
            let node = match node::mount(direct_io) {
                Ok(node) => node,
                Err(reason) => return fail(&reason),
            };
            mounts
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .insert(number, Arc::downgrade(&node.fs));
            let running: Vec<_> = manners
                .into_iter()
                .map(|manner| {
                    let (node, history) = (node.clone(), history.clone());
                    thread::spawn(move || program::run(&node, place, manner, history))
                })
                .collect();
            for program in running {
                // It is noted where it panicked.
                let _ = program.join();
            }
            drop(ended);
            loop {
                thread::sleep(QUIET);
            }
        };
        let name = format!("node{number}");
        self.nodes[usize::from(number)] = Some(self.world.start(&name, node::ip(number), main));
    }

    /// Runs for a while, checking what holds at every moment.
    fn pass(&self, time: Duration) {
        self.pass_until(time, |_| false);
    }

    fn pass_until(&self, time: Duration, mut enough: impl FnMut(&World) -> bool) {
        let mut steps = 0_u64;
        let end = self.world.time() + time;
        self.world.run(end, |world| {
            steps += 1;
            if steps % STEPS_PER_CHECK == 0 {
                self.check_leases();
            }
            enough(world)
        });
    }

    /// No two nodes believe in leases that exclude each other.
    fn check_leases(&self) {
        let mounts = self.mounts.lock().unwrap_or_else(PoisonError::into_inner);
        let mut believed: BTreeMap<InodeNumber, Vec<(u8, Lease)>> = BTreeMap::new();
        for (number, mount) in mounts.iter() {
            if let Some(fs) = mount.upgrade() {
                for (inode, lease) in fs.believed_leases() {
                    believed.entry(inode).or_default().push((*number, lease));
                }
            }
        }
        for (inode, leases) in believed {
            let excludes = |lease: &Lease| *lease == Lease::Write && leases.len() > 1;
            let kinds: BTreeSet<u8> = leases.iter().map(|(_, lease)| *lease as u8).collect();
            if kinds.len() > 1 || leases.iter().any(|(_, lease)| excludes(lease)) {
                self.world.fail(format!(
                    "leases on inode {inode} exclude each other: {leases:?}"
                ));
            }
        }
    }

    fn live(&mut self) {
        self.start_mgr();
        for number in 0..IODS {
            if let Err(error) = Store::create(&self.directory.join(format!("iod{number}"))) {
                return self.world.fail(format!("making iod {number}: {error}"));
            }
            self.start_iod(number);
        }
        self.set_up();
        let calls = self.random.usize(4..24);
        for number in 0..NODES {
            self.start_node(number, calls);
        }
        let faults = match self.troubles.is_empty() {
            true => 0,
            false => self.random.usize(1..6),
        };
        for _ in 0..faults {
            if self.world.failure().is_some() {
                return;
            }
            let pause = Duration::from_micros(self.random.u64(0..600_000));
            self.pass(pause);
            self.trouble();
        }
        self.mend();
        self.finish();
    }

    /// Makes the directories and the file that is always there.
    fn set_up(&mut self) {
        let place: Arc<Mutex<Option<Place>>> = Arc::default();
        let made = Arc::clone(&place);
        let main = move || {
            let outcome = make_place();
            match outcome {
                Ok(place) => *made.lock().unwrap_or_else(PoisonError::into_inner) = Some(place),
                Err(reason) => fail(&format!("setting up: {reason}")),
            }
        };
        let process = self.world.start("setup", node::ip(100), main);
        self.pass_until(SET_UP_MAX, |world| world.has_ended(process));
        match *place.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(place) => self.place = place,
            None => self.world.fail("setting up takes too long"),
        }
    }

    /// One fault, of a kind that this run has, until it is over or mended.
    fn trouble(&mut self) {
        let kind = self.troubles[self.random.usize(0..self.troubles.len())];
        let short = Duration::from_micros(self.random.u64(0..3_000_000));
        let long = Duration::from_micros(self.random.u64(4_000_000..30_000_000));
        match kind {
            Trouble::Links => self.links(short),
            Trouble::Kills => self.kill_daemon(short),
            Trouble::Hangs => self.hang(short),
            Trouble::LongAbsence => self.absence(long),
            Trouble::NodesDie => self.kill_node(),
            Trouble::Flips => {
                let disk = self.random.usize(0..self.disks.len());
                let seed = self.random.u64(..);
                self.disks[disk].flip_bit(seed);
                self.world
                    .note(&format!("a bit flips on the disk of iod {disk}"));
            }
            Trouble::FullDisk => {
                let disk = self.random.usize(0..self.disks.len());
                self.disks[disk].set_capacity(self.disks[disk].used_bytes());
                self.world.note(&format!("the disk of iod {disk} is full"));
                self.pass(short);
                self.disks[disk].set_capacity(1 << 40);
                self.world.note("there is room again");
            }
        }
    }

    fn ips(&self) -> Vec<IpAddr> {
        let mut ips = vec![mgr::ADDRESS.ip()];
        ips.extend((0..IODS).map(|number| iod::address(number).ip()));
        ips.extend((0..NODES).map(node::ip));
        ips
    }

    fn links(&mut self, time: Duration) {
        let ips = self.ips();
        let one = ips[self.random.usize(0..ips.len())];
        let other = ips[self.random.usize(0..ips.len())];
        let how = self.random.u8(0..4);
        self.world
            .note(&format!("link {one} {other}: trouble {how} for {time:?}"));
        if how != 3 {
            self.world.network().cut(one, other, true);
            if how == 1 {
                self.world.network().cut(other, one, true);
            }
            self.pass(time);
        }
        // What was sent the cut way and not delivered is lost with its connection.
        if how >= 2 {
            let woken = self.world.network().break_connections(one, other);
            for task in woken {
                pvfs::runtime::simulated::Machine::unpark(&*self.world, task);
            }
        }
        self.world.network().cut(one, other, false);
        self.world.network().cut(other, one, false);
        self.world.note(&format!("link {one} {other} is whole"));
    }

    fn kill_daemon(&mut self, away: Duration) {
        let which = self.random.u8(0..=IODS);
        let silently = self.random.u8(0..3) == 0;
        self.world
            .note(&format!("kill daemon {which}, silently: {silently}"));
        let process = match which {
            IODS => self.mgr.take(),
            number => self.iods[usize::from(number)].take(),
        };
        if let Some(process) = process {
            self.world.kill(process, silently);
        }
        self.pass(away);
        self.world.note(&format!("start daemon {which}"));
        match which {
            IODS => self.start_mgr(),
            number => self.start_iod(number),
        }
    }

    fn hang(&mut self, time: Duration) {
        let mut all: Vec<ProcessId> = self.mgr.into_iter().collect();
        all.extend(self.iods.iter().chain(&self.nodes).flatten());
        let process = all[self.random.usize(0..all.len())];
        self.world.note(&format!("{process:?} hangs for {time:?}"));
        self.world.set_hung(process, true);
        self.pass(time);
        self.world.set_hung(process, false);
        self.world.note(&format!("{process:?} goes on"));
    }

    fn absence(&mut self, time: Duration) {
        let number = self.random.u8(0..NODES);
        let Some(process) = self.nodes[usize::from(number)] else {
            return;
        };
        if self.random.bool() {
            self.world
                .note(&format!("node {number} hangs for {time:?}"));
            self.world.set_hung(process, true);
            self.pass(time);
            self.world.set_hung(process, false);
        } else {
            let to_mgr = self.random.bool();
            let (node, mgr) = (node::ip(number), mgr::ADDRESS.ip());
            let (from, to) = if to_mgr { (node, mgr) } else { (mgr, node) };
            self.world
                .note(&format!("nothing comes from {from} to {to} for {time:?}"));
            self.world.network().cut(from, to, true);
            self.pass(time);
            self.world.network().cut(from, to, false);
        }
        self.world.note(&format!("node {number} is back"));
    }

    fn kill_node(&mut self) {
        let number = self.random.u8(0..NODES);
        let silently = self.random.bool();
        self.world
            .note(&format!("kill node {number}, silently: {silently}"));
        if let Some(process) = self.nodes[usize::from(number)].take() {
            self.world.kill(process, silently);
        }
        let pause = Duration::from_micros(self.random.u64(0..2_000_000));
        self.pass(pause);
        self.start_node(number, 6);
    }

    fn mend(&mut self) {
        self.world.network().mend();
        self.world.note("faults are over");
    }

    /// All calls return, and what is at the iods is what mgr says.
    fn finish(&mut self) {
        let programs = Arc::clone(&self.programs);
        self.pass_until(LIVENESS_MAX, |_| programs.load(Ordering::Relaxed) == 0);
        if self.world.failure().is_some() {
            return;
        }
        if self.programs.load(Ordering::Relaxed) > 0 {
            let tasks = self.world.tasks();
            return self.world.fail(format!("calls do not return:\n{tasks}"));
        }
        self.pass(QUIET);
        let files: BTreeSet<u64> = self.files();
        let main = move || {
            if let Err(reason) = audit(&files) {
                fail(&format!("audit: {reason}"));
            }
        };
        let process = self.world.start("audit", node::ip(101), main);
        self.pass_until(LIVENESS_MAX, |world| world.has_ended(process));
        if !self.world.has_ended(process) {
            self.world.fail("the audit does not return");
        }
    }

    /// Every file that a call was about.
    fn files(&self) -> BTreeSet<u64> {
        let events = self.history.events();
        let file = |call: &Call| match call {
            Call::Write { file, .. } | Call::Append { file, .. } | Call::Truncate { file, .. } => {
                Some(*file)
            }
            _ => None,
        };
        events
            .iter()
            .filter_map(|event| file(&event.call))
            .collect()
    }

    /// Ends all processes.
    fn end(&mut self) {
        let all = self.nodes.iter().chain(&self.iods).flatten().copied();
        let all: Vec<ProcessId> = all.chain(self.mgr).collect();
        for process in all {
            self.world.kill(process, false);
        }
        self.world.kill_all();
    }

    fn judge(&self) -> Option<String> {
        let events = self.history.events();
        let rejected = check(Files::new(self.place.mapped), &events).err()?;
        let text = match rejected.event.and_then(|at| events.get(at)) {
            Some(event) => format!("{:?} from {} to {}", event.call, event.start, event.end),
            None => "the search itself failed".to_owned(),
        };
        let mut all = events;
        all.sort_by_key(|event| event.start);
        let lines: Vec<String> = all
            .iter()
            .map(|event| format!("{:>8} {:>20} {:?}", event.start, event.end, event.call))
            .collect();
        let lines = lines.join("\n");
        Some(format!(
            "no order of calls explains {text}; all calls:\n{lines}\n"
        ))
    }
}

/// Counts programs down when they have ended, also by being killed.
struct Ended {
    left: Arc<AtomicUsize>,
    count: usize,
}

impl Drop for Ended {
    fn drop(&mut self) {
        self.left.fetch_sub(self.count, Ordering::Relaxed);
    }
}

fn fail(reason: &str) {
    if let Some(world) = World::current() {
        world.fail(reason);
    }
}

fn client() -> Result<Arc<MgrClient>, String> {
    let endpoint = Endpoint {
        host: mgr::ADDRESS.ip().to_string(),
        port: mgr::ADDRESS.port(),
    };
    let client = MgrClient::start(endpoint, ClientOptions::default());
    Ok(Arc::new(client.map_err(|error| error.to_string())?))
}

fn ask(client: &MgrClient, operation: MgrOperation) -> Result<MgrResponse, String> {
    let answer = client.call(&Credentials::ROOT, operation);
    answer.map_err(|error| error.to_string())
}

fn make_place() -> Result<Place, String> {
    let client = client()?;
    loop {
        match ask(&client, MgrOperation::ListIods)? {
            MgrResponse::Iods(iods) if iods.len() == usize::from(IODS) => break,
            _ => thread::sleep(Duration::from_millis(100)),
        }
    }
    let policy = LayoutPolicy {
        stripe_size: STRIPE_BYTES,
        ..LayoutPolicy::default()
    };
    let operation = MgrOperation::SetLayout {
        inode: ROOT_INODE,
        policy: Some(policy),
    };
    ask(&client, operation)?;
    let mount = node::mount(false)?;
    let directory = NewNode {
        kind: FileKind::Directory,
        mode: 0o755,
        umask: 0,
        rdev: 0,
    };
    let words = |error: pvfs::error::FsError| error.to_string();
    let mut directories = [0; 2];
    for (made, name) in directories.iter_mut().zip(["x", "y"]) {
        let attr = mount
            .fs
            .make_node(ROOT, ROOT_INODE.0, name.as_bytes(), directory);
        *made = attr.map_err(words)?.inode.0;
    }
    let place = (ROOT_INODE.0, "m".as_bytes());
    let opened = mount.cache.open(&mount.fs, place, (true, true, false));
    let file = opened.map_err(words)?.ok_or("the file exists already")?;
    let zeros = vec![0; CELL_BYTES * CELLS_AT_FIRST];
    mount
        .cache
        .write(&mount.fs, &file, 0, &zeros)
        .map_err(words)?;
    mount.fs.fsync(file.handle).map_err(words)?;
    mount.fs.release(file.handle);
    mount.fs.say_goodbye();
    thread::sleep(Duration::from_secs(1));
    Ok(Place {
        directories,
        mapped: file.node,
    })
}

/// Nobody has a file open: no iod has bytes of it beyond its end.
fn audit(files: &BTreeSet<u64>) -> Result<(), String> {
    let client = client()?;
    let directory: Arc<dyn IodDirectory> = Arc::clone(&client) as _;
    let pool = IodPool::new(directory, PoolOptions::default());
    for file in files {
        let inode = InodeNumber(*file);
        let Ok(MgrResponse::Attr(attr)) = ask(&client, MgrOperation::GetAttr { inode }) else {
            // It has been removed.
            continue;
        };
        let answer = ask(&client, MgrOperation::GetLayout { inode })?;
        let MgrResponse::Layout {
            layout: Some(layout),
            ..
        } = answer
        else {
            return Err(format!("inode {inode} has no layout"));
        };
        let layout = layout.validate().map_err(|error| error.to_string())?;
        for (slot, iod) in layout.iods().iter().enumerate() {
            let object = attr.object();
            let answer = pool.call(*iod, &IodRequest::Stat { object });
            let Ok(IodResponse::Stat { length, .. }) = answer else {
                return Err(format!("iod {iod} about {object}: {answer:?}"));
            };
            let most = layout.local_size(slot, attr.size);
            if length > most {
                return Err(format!(
                    "iod {iod} has {length} bytes of inode {inode}, of which only {most} are before \
                     its end at {}",
                    attr.size
                ));
            }
        }
    }
    Ok(())
}
