// SPDX-License-Identifier: MIT
//! The lock table against a model that knows single bytes and a list of who waits.

use super::*;
use proptest::prelude::*;

const FILE: InodeNumber = InodeNumber(7);
const OTHER: InodeNumber = InodeNumber(8);
const EX: Option<LockKind> = Some(LockKind::Exclusive);
const SH: Option<LockKind> = Some(LockKind::Shared);

fn range(start: u64, last: u64) -> LockRange {
    LockRange { start, last }
}

/// A process of each client.
const PROCESS: LockOwner = LockOwner::Process(1);

fn process(pid: u32) -> ProcessNumber {
    ProcessNumber { namespace: 1, pid }
}

fn request(inode: InodeNumber, range: LockRange, kind: Option<LockKind>) -> LockRequest {
    LockRequest {
        inode,
        owner: PROCESS,
        family: LockFamily::Range,
        range,
        kind,
        process: process(10),
        wait: None,
        settled_below: 0,
    }
}

fn client(number: u64) -> ClientId {
    ClientId(number)
}

/// Client `number` asks for bytes of a file, and does not wait.
fn try_lock(
    locks: &mut Locks,
    number: u64,
    inode: InodeNumber,
    (start, last): (u64, u64),
    kind: Option<LockKind>,
) -> Result<Verdict, FsError> {
    locks.set(client(number), &request(inode, range(start, last), kind))
}

/// The same, and waits under `wait`.
fn lock(
    locks: &mut Locks,
    (number, wait): (u64, u64),
    inode: InodeNumber,
    (start, last): (u64, u64),
    kind: Option<LockKind>,
) -> Result<Verdict, FsError> {
    let mut request = request(inode, range(start, last), kind);
    request.wait = Some(wait);
    locks.set(client(number), &request)
}

/// flock(2) by handle 5 of client `number`.
fn flock(
    locks: &mut Locks,
    number: u64,
    kind: Option<LockKind>,
    wait: Option<u64>,
) -> Result<Verdict, FsError> {
    let mut request = request(FILE, LockRange::ALL, kind);
    request.owner = LockOwner::File(5);
    request.family = LockFamily::Whole;
    request.wait = wait;
    locks.set(client(number), &request)
}

fn granted(locks: &mut Locks) -> Vec<(u64, u64)> {
    let news = locks.take_news().into_iter();
    news.map(|(client, wait, outcome)| {
        outcome.unwrap();
        (client.0, wait)
    })
    .collect()
}

#[test]
fn waiters_are_served_in_the_order_in_which_they_came() {
    let mut locks = Locks::default();
    try_lock(&mut locks, 1, FILE, (0, 99), EX).unwrap();
    assert_eq!(
        try_lock(&mut locks, 2, FILE, (5, 5), SH),
        Err(FsError::Locked)
    );
    for number in 2..6 {
        let queued = lock(&mut locks, (number, 1), FILE, (0, 9), EX);
        assert_eq!(queued, Ok(Verdict::Queued));
    }
    // A wait that is known already is not begun again.
    let again = lock(&mut locks, (3, 1), FILE, (0, 9), EX);
    assert_eq!(again, Ok(Verdict::Queued));
    for number in 1..5 {
        try_lock(&mut locks, number, FILE, (0, 99), None).unwrap();
        assert_eq!(granted(&mut locks), [(number + 1, 1)]);
    }
    let again = lock(&mut locks, (5, 1), FILE, (0, 9), EX);
    assert_eq!(again, Ok(Verdict::Done));
    try_lock(&mut locks, 5, FILE, (0, 99), None).unwrap();
    assert!(locks.is_unused() && locks.held() == 0);
}

#[test]
fn readers_that_come_later_do_not_starve_a_writer() {
    let mut locks = Locks::default();
    try_lock(&mut locks, 1, FILE, (0, 9), SH).unwrap();
    assert_eq!(
        lock(&mut locks, (2, 1), FILE, (0, 9), EX),
        Ok(Verdict::Queued)
    );
    assert_eq!(
        lock(&mut locks, (3, 1), FILE, (0, 9), SH),
        Ok(Verdict::Queued)
    );
    let elsewhere = lock(&mut locks, (3, 2), FILE, (10, 19), SH);
    assert_eq!(elsewhere, Ok(Verdict::Done));
    // Who does not wait is told of locks only.
    assert_eq!(try_lock(&mut locks, 4, FILE, (0, 9), SH), Ok(Verdict::Done));
    try_lock(&mut locks, 4, FILE, (0, 9), None).unwrap();
    try_lock(&mut locks, 1, FILE, (0, 9), None).unwrap();
    assert_eq!(granted(&mut locks), [(2, 1)]);
    try_lock(&mut locks, 2, FILE, (0, 9), None).unwrap();
    assert_eq!(granted(&mut locks), [(3, 1)]);
}

#[test]
fn who_is_waited_for_does_not_wait_behind_it() {
    let mut locks = Locks::default();
    // 1 reads, 2 waits to write, and 1 wants to write as well: it would wait for itself.
    try_lock(&mut locks, 1, FILE, (0, 9), SH).unwrap();
    lock(&mut locks, (2, 1), FILE, (0, 9), EX).unwrap();
    assert_eq!(
        lock(&mut locks, (1, 1), FILE, (0, 9), EX),
        Ok(Verdict::Done)
    );
    // The circle closes later, and in another file: 3 lets 2 pass, which waits for 1.
    try_lock(&mut locks, 1, FILE, (0, 9), SH).unwrap();
    try_lock(&mut locks, 3, OTHER, (0, 9), EX).unwrap();
    assert_eq!(
        lock(&mut locks, (3, 1), FILE, (0, 9), SH),
        Ok(Verdict::Queued)
    );
    assert_eq!(
        lock(&mut locks, (1, 2), OTHER, (0, 9), SH),
        Ok(Verdict::Queued)
    );
    assert_eq!(granted(&mut locks), [(3, 1)]);
}

#[test]
fn a_circle_of_processes_is_refused_and_one_of_open_files_is_not() {
    let mut locks = Locks::default();
    for number in 1..=3 {
        try_lock(&mut locks, number, FILE, (number, number), EX).unwrap();
    }
    assert_eq!(
        lock(&mut locks, (1, 1), FILE, (2, 2), EX),
        Ok(Verdict::Queued)
    );
    assert_eq!(
        lock(&mut locks, (2, 1), FILE, (3, 3), EX),
        Ok(Verdict::Queued)
    );
    assert_eq!(
        lock(&mut locks, (3, 1), FILE, (1, 1), SH),
        Err(FsError::Deadlock)
    );
    // It still has what it had, and the others go on when it is done.
    try_lock(&mut locks, 3, FILE, (3, 3), None).unwrap();
    assert_eq!(granted(&mut locks), [(2, 1)]);
    let mut locks = Locks::default();
    for (number, owner) in [(1, 5), (2, 6)] {
        let mut request = request(FILE, range(number, number), EX);
        request.owner = LockOwner::File(owner);
        locks.set(client(number), &request).unwrap();
        request.range = range(3 - number, 3 - number);
        request.wait = Some(1);
        if number == 2 {
            assert_eq!(locks.set(client(2), &request), Ok(Verdict::Queued));
            request.owner = LockOwner::File(5);
            request.range = range(2, 2);
            assert_eq!(locks.set(client(1), &request), Ok(Verdict::Queued));
        }
    }
}

#[test]
fn flock_gives_up_one_kind_before_it_takes_the_other() {
    let mut locks = Locks::default();
    for number in 1..=3 {
        assert_eq!(flock(&mut locks, number, SH, None), Ok(Verdict::Done));
    }
    // fcntl's locks are another matter.
    assert_eq!(try_lock(&mut locks, 4, FILE, (0, 9), EX), Ok(Verdict::Done));
    assert_eq!(flock(&mut locks, 1, EX, None), Err(FsError::Locked));
    assert_eq!(flock(&mut locks, 1, SH, None), Ok(Verdict::Done));
    assert_eq!(flock(&mut locks, 1, EX, Some(1)), Ok(Verdict::Queued));
    assert_eq!(flock(&mut locks, 2, EX, Some(1)), Ok(Verdict::Queued));
    assert_eq!(flock(&mut locks, 3, None, None), Ok(Verdict::Done));
    assert_eq!(granted(&mut locks), [(1, 1)]);
    assert_eq!(flock(&mut locks, 1, EX, None), Ok(Verdict::Done));
    // The weaker kind takes the place of the stronger, and nobody comes between.
    assert_eq!(flock(&mut locks, 1, SH, None), Ok(Verdict::Done));
    assert_eq!(granted(&mut locks), []);
    // So does the stronger where nobody else has any.
    assert_eq!(flock(&mut locks, 1, EX, None), Ok(Verdict::Done));
    assert_eq!(flock(&mut locks, 1, SH, None), Ok(Verdict::Done));
    assert_eq!(flock(&mut locks, 3, SH, Some(1)), Ok(Verdict::Queued));
    // Who waits for more lets those pass that waited before.
    assert_eq!(flock(&mut locks, 1, EX, Some(2)), Ok(Verdict::Queued));
    assert_eq!(granted(&mut locks), [(2, 1)]);
    assert_eq!(flock(&mut locks, 2, None, None), Ok(Verdict::Done));
    assert_eq!(granted(&mut locks), [(3, 1)]);
    assert_eq!(flock(&mut locks, 3, None, None), Ok(Verdict::Done));
    assert_eq!(granted(&mut locks), [(1, 2)]);
}

#[test]
fn what_is_taken_back_leaves_others_what_they_have_got() {
    let mut locks = Locks::default();
    try_lock(&mut locks, 1, FILE, (0, 9), EX).unwrap();
    let weaker = lock(&mut locks, (1, 1), FILE, (0, 9), SH);
    assert_eq!(weaker, Ok(Verdict::Done));
    try_lock(&mut locks, 2, FILE, (5, 5), SH).unwrap();
    locks.cancel(client(1), 1);
    assert_eq!(try_lock(&mut locks, 2, FILE, (5, 5), SH), Ok(Verdict::Done));
    assert_eq!(
        try_lock(&mut locks, 2, FILE, (5, 5), EX),
        Err(FsError::Locked)
    );
}

#[test]
fn a_circle_that_a_second_thread_closes_is_opened_by_who_lets_pass() {
    let mut locks = Locks::default();
    // 1 has a byte that 2 waits for, behind which 3 waits; 1 waits for 3 elsewhere.
    try_lock(&mut locks, 3, OTHER, (0, 0), EX).unwrap();
    try_lock(&mut locks, 4, FILE, (0, 0), SH).unwrap();
    lock(&mut locks, (2, 1), FILE, (0, 9), EX).unwrap();
    lock(&mut locks, (1, 1), OTHER, (0, 0), EX).unwrap();
    assert_eq!(
        lock(&mut locks, (3, 1), FILE, (9, 9), SH),
        Ok(Verdict::Queued)
    );
    // Another thread of 1 gets what 2 waits for as well.
    assert_eq!(try_lock(&mut locks, 1, FILE, (1, 1), SH), Ok(Verdict::Done));
    assert_eq!(granted(&mut locks), [(3, 1)]);
}

#[test]
fn a_grant_to_somebody_who_has_gone_is_taken_back() {
    let mut locks = Locks::default();
    let kinds = |locks: &Locks| {
        let held = locks.files.get(&FILE).and_then(|file| {
            let holder = Holder {
                client: client(2),
                owner: PROCESS,
            };
            let held = file.of(LockFamily::Range, holder)?;
            Some(
                held.ranges
                    .iter()
                    .map(|(r, h)| (r.start, r.last, h.kind))
                    .collect::<Vec<_>>(),
            )
        });
        held.unwrap_or_default()
    };
    try_lock(&mut locks, 1, FILE, (0, 9), SH).unwrap();
    try_lock(&mut locks, 2, FILE, (5, 14), SH).unwrap();
    lock(&mut locks, (2, 1), FILE, (0, 11), EX).unwrap();
    try_lock(&mut locks, 1, FILE, (0, 9), None).unwrap();
    assert_eq!(granted(&mut locks), [(2, 1)]);
    locks.cancel(client(2), 1);
    assert_eq!(kinds(&locks), [(5, 14, LockKind::Shared)]);
    locks.cancel(client(2), 1);
    assert_eq!(kinds(&locks), [(5, 14, LockKind::Shared)], "once");
    // Where the client has said that it knows, it cannot be taken back.
    lock(&mut locks, (2, 2), FILE, (0, 0), EX).unwrap();
    let mut settled = request(FILE, range(1, 1), EX);
    settled.settled_below = 3;
    locks.set(client(2), &settled).unwrap();
    locks.cancel(client(2), 2);
    assert_eq!(kinds(&locks)[0], (0, 1, LockKind::Exclusive));
    // One that still waits leaves the queue, and whoever came behind it moves up.
    lock(&mut locks, (3, 1), FILE, (5, 9), EX).unwrap();
    lock(&mut locks, (4, 1), FILE, (5, 9), SH).unwrap();
    locks.cancel(client(3), 1);
    assert_eq!(granted(&mut locks), [(4, 1)]);
}

#[test]
fn a_client_that_is_gone_blocks_nobody() {
    let mut locks = Locks::default();
    for number in 1..=3 {
        lock(&mut locks, (number, 1), FILE, (0, 9), EX).unwrap();
    }
    assert_eq!(locks.blocking(&|_| true), BTreeSet::from([client(1)]));
    assert_eq!(locks.blocking(&|other| other != client(1)), BTreeSet::new());
    assert_eq!(locks.drop_client(client(2)), 0);
    assert_eq!(locks.drop_client(client(1)), 1);
    assert_eq!(granted(&mut locks), [(3, 1)]);
    locks.drop_client(client(3));
    assert!(locks.is_unused() && locks.counts.is_empty() && locks.by_client.is_empty());
    assert!(locks.waits.is_empty() && locks.waiting.is_empty() && locks.granted.is_empty());
}

#[test]
fn locks_are_claimed_unless_another_has_them() {
    let mut locks = Locks::default();
    let held = HeldLock {
        inode: FILE,
        owner: PROCESS,
        family: LockFamily::Range,
        range: range(0, 9),
        kind: LockKind::Exclusive,
        process: process(3),
    };
    assert!(locks.claim(client(1), &held));
    assert!(locks.claim(client(1), &held));
    assert!(!locks.claim(client(2), &held));
    let holder = locks.test(
        (client(2), PROCESS),
        FILE,
        LockFamily::Range,
        (range(5, 50), LockKind::Shared),
    );
    let holder = holder.unwrap();
    assert_eq!(
        (holder.client, holder.process, holder.range),
        (client(1), process(3), range(0, 9))
    );
}

#[test]
fn nobody_can_fill_the_memory() {
    let mut locks = Locks::default();
    let mut outcome = Ok(Verdict::Done);
    let mut count: u64 = 0;
    while outcome.is_ok() {
        let inode = InodeNumber(count % 7);
        outcome = try_lock(&mut locks, 1, inode, (count * 2, count * 2), EX);
        count += 1;
    }
    assert_eq!(outcome, Err(FsError::NoLocks));
    assert!(locks.held() <= LOCKS_PER_CLIENT_MAX && locks.held() + 2 > LOCKS_PER_CLIENT_MAX);
    // An unlock that would make two of one is refused as well; one that makes none is not.
    let whole = (0, u64::from(u32::MAX));
    assert_eq!(
        try_lock(&mut locks, 1, InodeNumber(0), whole, EX),
        Ok(Verdict::Done)
    );
    assert!(try_lock(&mut locks, 1, InodeNumber(0), whole, None).is_ok());
    locks.drop_client(client(1));
    try_lock(&mut locks, 1, FILE, (0, 0), EX).unwrap();
    let mut waits = 0;
    while lock(&mut locks, (2, waits), FILE, (0, 0), EX) == Ok(Verdict::Queued) {
        waits += 1;
    }
    assert_eq!(waits, LOCK_WAITS_PER_CLIENT_MAX as u64);
    // Grants that it never says it knows of count, too.
    let mut locks = Locks::default();
    let mut waits = 0;
    while lock(&mut locks, (2, waits), FILE, (0, 0), EX) == Ok(Verdict::Done) {
        try_lock(&mut locks, 2, FILE, (0, 0), None).unwrap();
        waits += 1;
    }
    assert_eq!(waits, LOCK_WAITS_PER_CLIENT_MAX as u64);
}

const BYTES: u64 = 6;
const OWNERS: usize = 5;

/// A waiter of the model.
#[derive(Clone, Debug)]
struct Waits {
    owner: usize,
    file: usize,
    range: (u64, u64),
    exclusive: bool,
    wait: u64,
}

/// The model: a cell for each owner and byte, and who waits, oldest first.
#[derive(Clone, Debug, Default)]
struct Model {
    held: [[[Option<bool>; BYTES as usize]; OWNERS]; 2],
    queue: Vec<Waits>,
}

impl Model {
    fn against(&self, w: &Waits) -> BTreeSet<usize> {
        let bytes = w.range.0 as usize..=w.range.1 as usize;
        let clashes = |owner: &usize| {
            let cells = &self.held[w.file][*owner][bytes.clone()];
            cells.iter().flatten().any(|ex| *ex || w.exclusive)
        };
        (0..OWNERS)
            .filter(|owner| *owner != w.owner)
            .filter(clashes)
            .collect()
    }

    fn earlier(&self, w: &Waits) -> BTreeSet<usize> {
        let before = self.queue.iter().take_while(|other| other.wait != w.wait);
        before
            .filter(|other| {
                other.owner != w.owner
                    && other.file == w.file
                    && (other.exclusive || w.exclusive)
                    && other.range.0 <= w.range.1
                    && w.range.0 <= other.range.1
            })
            .map(|other| other.owner)
            .collect()
    }

    /// Whom an owner waits for, in any number of steps.
    fn reach(&self, from: usize, orders: bool) -> BTreeSet<usize> {
        let mut reached = BTreeSet::new();
        loop {
            let mut next = BTreeSet::new();
            for w in &self.queue {
                if w.owner == from || reached.contains(&w.owner) {
                    next.extend(self.against(w));
                    if orders {
                        next.extend(self.earlier(w));
                    }
                }
            }
            next.extend(&reached);
            if next == reached {
                return reached;
            }
            reached = next;
        }
    }

    /// Whether somebody who has what is wished for waits for the one who wishes.
    fn closes_circle(&self, w: &Waits) -> bool {
        let mut holders = self.against(w).into_iter();
        holders.any(|holder| self.reach(holder, false).contains(&w.owner))
    }

    fn could_have(&self, w: &Waits) -> bool {
        self.against(w).is_empty()
            && self
                .earlier(w)
                .iter()
                .all(|earlier| self.reach(*earlier, true).contains(&w.owner))
    }

    fn set(&mut self, w: &Waits, value: Option<bool>) {
        for byte in w.range.0..=w.range.1 {
            self.held[w.file][w.owner][byte as usize] = value;
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Set {
        owner: usize,
        file: usize,
        range: (u64, u64),
        kind: u8,
        waits: bool,
    },
    Cancel(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let set = (
        0..OWNERS,
        0..2usize,
        0..BYTES,
        0..BYTES,
        0u8..5,
        any::<bool>(),
    )
        .prop_map(|(owner, file, a, b, kind, waits)| Step::Set {
            owner,
            file,
            range: (a.min(b), a.max(b)),
            kind,
            waits,
        });
    let cancel = (0..8usize).prop_map(Step::Cancel);
    prop::collection::vec(prop_oneof![8 => set, 1 => cancel], 1..80)
}

fn inode(file: usize) -> InodeNumber {
    InodeNumber(7 + file as u64)
}

/// What was granted since is right, and in a right order; nobody waits in vain.
fn follow(locks: &mut Locks, model: &mut Model) {
    for (client, wait, outcome) in locks.take_news() {
        assert_eq!(outcome, Ok(()));
        let at = model.queue.iter().position(|w| w.wait == wait);
        let w = model.queue[at.expect("it waits")].clone();
        assert_eq!(w.owner as u64, client.0);
        assert!(model.could_have(&w), "{w:?} is before its turn");
        model.set(&w, Some(w.exclusive));
        model.queue.retain(|other| other.wait != wait);
    }
    for w in &model.queue {
        assert!(!model.could_have(w), "{w:?} waits for nothing");
    }
}

fn compare(locks: &Locks, model: &Model) {
    for file in 0..2 {
        for owner in 0..OWNERS {
            for byte in 0..BYTES {
                let probe = |kind| {
                    // An owner that has nothing itself.
                    let nobody = (client(99), PROCESS);
                    locks.test(
                        nobody,
                        inode(file),
                        LockFamily::Range,
                        (range(byte, byte), kind),
                    )
                };
                let holds = |kind: Option<bool>| {
                    (0..OWNERS).any(|o| {
                        let cell = model.held[file][o][byte as usize];
                        cell.is_some() && kind.is_none_or(|kind| cell == Some(kind))
                    })
                };
                assert_eq!(probe(LockKind::Shared).is_some(), holds(Some(true)));
                assert_eq!(probe(LockKind::Exclusive).is_some(), holds(None));
                let mine = locks.files.get(&inode(file)).and_then(|f| {
                    let holder = Holder {
                        client: client(owner as u64),
                        owner: PROCESS,
                    };
                    let mut found = f
                        .of(LockFamily::Range, holder)?
                        .ranges
                        .overlapping(range(byte, byte));
                    found
                        .next()
                        .map(|(_, hold)| hold.kind == LockKind::Exclusive)
                });
                assert_eq!(mine, model.held[file][owner][byte as usize]);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn locks_are_what_single_bytes_and_a_list_would_be(steps in steps()) {
        let mut locks = Locks::default();
        let mut model = Model::default();
        for (number, step) in steps.into_iter().enumerate() {
            match step {
                Step::Set { owner, file, range: (start, last), kind, waits } => {
                    let wait = number as u64;
                    let w = Waits { owner, file, range: (start, last), exclusive: kind > 3, wait };
                    let mut asked = request(inode(file), range(start, last), match kind {
                        0 | 1 => None,
                        2 | 3 => SH,
                        _ => EX,
                    });
                    asked.wait = waits.then_some(wait);
                    let verdict = locks.set(client(owner as u64), &asked);
                    if asked.kind.is_none() {
                        prop_assert_eq!(verdict, Ok(Verdict::Done));
                        model.set(&w, None);
                    } else {
                        let free = model.against(&w).is_empty();
                        match verdict {
                            Ok(Verdict::Done) => {
                                prop_assert!(free && (!waits || model.could_have(&w)));
                                model.set(&w, Some(w.exclusive));
                            }
                            Ok(Verdict::Queued) => {
                                prop_assert!(waits && !model.could_have(&w));
                                prop_assert!(!model.closes_circle(&w));
                                model.queue.push(w);
                            }
                            Err(FsError::Locked) => prop_assert!(!waits && !free),
                            Err(FsError::Deadlock) => {
                                prop_assert!(waits && model.closes_circle(&w));
                            }
                            Err(error) => prop_assert!(false, "{error}"),
                        }
                    }
                }
                Step::Cancel(which) => {
                    if let Some(w) = model.queue.get(which).cloned() {
                        locks.cancel(client(w.owner as u64), w.wait);
                        model.queue.retain(|other| other.wait != w.wait);
                    }
                }
            }
            follow(&mut locks, &mut model);
            compare(&locks, &model);
        }
        for owner in 0..OWNERS as u64 {
            locks.drop_client(client(owner));
        }
        prop_assert!(locks.is_unused() && locks.held() == 0 && locks.counts.is_empty());
    }
}
