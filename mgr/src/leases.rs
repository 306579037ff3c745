// SPDX-License-Identifier: MIT
//! Who may keep what of which inode, and who has been asked to give it back: pure bookkeeping. No
//! clock, no I/O; [`crate::owner::leases`] asks it on behalf of requests.
//!
//! # Invariants
//!
//! A [`Lease::Write`] is the only lease on its inode. [`Lease::Read`] and [`Lease::Shared`] never
//! stand beside each other. While an inode has an unanswered [`Demand::GiveUp`], nobody gets a new
//! lease on it: whoever waits for the answers cannot be overtaken for ever.

use std::collections::{BTreeMap, BTreeSet};

use pvfs::ids::{ClientId, InodeNumber};
use pvfs::proto::lease::{Demand, Lease, Recall};

/// Leases of all clients together that are given without being asked for, 150 bytes each. Beyond
/// it, clients keep no further attributes and names; leases that I/O needs are bounded by the opens.
pub const LEASES_MAX: usize = 1 << 21;
/// Bits of a number below the number of mgr's start: a trillion of them between two starts.
const NUMBER_BITS: u32 = 40;

/// What a client is about to do with an inode, as far as others' leases matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// To be told its attributes.
    Look,
    /// To change attributes or names.
    Change,
    /// To change the size or the layout by a request to mgr, or what has privileges: whoever shares the
    /// file writes on in the belief that it has none.
    Resize,
    /// To tell mgr of its writes.
    Report,
    /// To hold a lease.
    Hold(Lease),
}

impl Need {
    /// What somebody else who has `lease` must do first.
    #[must_use]
    pub const fn demand(self, lease: Lease) -> Option<Demand> {
        match (self, lease) {
            (Self::Look, Lease::Read) => None,
            (Self::Look, Lease::Write | Lease::Shared) | (Self::Change, Lease::Shared) => {
                Some(Demand::Report)
            }
            (Self::Report, Lease::Shared)
            | (Self::Hold(Lease::Read), Lease::Read)
            | (Self::Hold(Lease::Shared), Lease::Shared) => None,
            (Self::Change | Self::Resize | Self::Report | Self::Hold(_), _) => Some(Demand::GiveUp),
        }
    }
}

/// What a lease is known by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Held {
    lease: Lease,
    number: u64,
    fence: u64,
}

/// A demand without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Outstanding {
    client: ClientId,
    inode: InodeNumber,
    demand: Demand,
}

/// Unanswered demands for a report. One that has been sent may be answered by what was written before a
/// later question, which needs another one; all later questions share that. So a client is asked one
/// thing at a time, however many ask and how often.
#[derive(Clone, Copy, Debug, Default)]
struct Reports {
    sent: Option<u64>,
    next: Option<u64>,
}

/// Who has which lease.
#[derive(Debug, Default)]
pub struct Leases {
    held: BTreeMap<(InodeNumber, ClientId), Held>,
    by_client: BTreeSet<(ClientId, InodeNumber)>,
    outstanding: BTreeMap<u64, Outstanding>,
    by_inode: BTreeSet<(InodeNumber, u64)>,
    /// Demands for reports, of each client and inode.
    reports: BTreeMap<(ClientId, InodeNumber), Reports>,
    /// Numbers demands, grants and fences: larger after each start of mgr.
    last: u64,
    /// Demands that have not been sent.
    recalls: Vec<(ClientId, Recall)>,
}

impl Leases {
    /// No leases, after so many starts of mgr.
    #[must_use]
    pub fn new(starts: u32) -> Self {
        Self {
            last: u64::from(starts) << NUMBER_BITS,
            ..Self::default()
        }
    }

    /// What `client` may keep of `inode`.
    #[must_use]
    pub fn held(&self, client: ClientId, inode: InodeNumber) -> Option<Lease> {
        self.held.get(&(inode, client)).map(|held| held.lease)
    }

    /// Leases in all.
    #[must_use]
    pub fn len(&self) -> usize {
        self.held.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    fn others(
        &self,
        client: ClientId,
        inode: InodeNumber,
    ) -> impl Iterator<Item = (ClientId, Lease)> + '_ {
        let range = (inode, ClientId(0))..=(inode, ClientId(u64::MAX));
        self.held
            .range(range)
            .filter(move |((_, other), _)| *other != client)
            .map(|((_, other), held)| (*other, held.lease))
    }

    /// Demands of others what `client` needs for `need`, and gives the numbers of all that it has
    /// to wait for. Who is in `reported` has reported since the request came.
    pub fn demand(
        &mut self,
        client: ClientId,
        inode: InodeNumber,
        need: Need,
        reported: &BTreeSet<(ClientId, InodeNumber)>,
    ) -> BTreeSet<u64> {
        let demands: Vec<_> = self
            .others(client, inode)
            .filter_map(|(other, lease)| Some((other, need.demand(lease)?)))
            .filter(|(other, demand)| {
                *demand == Demand::GiveUp || !reported.contains(&(*other, inode))
            })
            .collect();
        let numbers = demands
            .into_iter()
            .map(|(other, demand)| self.ask(other, inode, demand));
        numbers.collect()
    }

    /// Has a client give up what it has of an inode; `None` where it has nothing.
    pub fn demand_of(&mut self, client: ClientId, inode: InodeNumber) -> Option<u64> {
        self.held(client, inode)?;
        Some(self.ask(client, inode, Demand::GiveUp))
    }

    /// Demands something. A [`Demand::GiveUp`] that is on its way already will do, and a
    /// [`Demand::Report`] that has not been sent.
    fn ask(&mut self, client: ClientId, inode: InodeNumber, demand: Demand) -> u64 {
        let same = Outstanding {
            client,
            inode,
            demand,
        };
        let of_reports = self.reports.get(&(client, inode)).copied();
        let known = match demand {
            Demand::GiveUp => {
                let mut outstanding = self.outstanding_on(inode);
                let known = outstanding.find(|(_, outstanding)| *outstanding == same);
                known.map(|(number, _)| number)
            }
            Demand::Report => of_reports.and_then(|reports| reports.next),
        };
        if let Some(number) = known {
            return number;
        }
        self.last += 1;
        let number = self.last;
        self.outstanding.insert(number, same);
        self.by_inode.insert((inode, number));
        if demand == Demand::Report {
            let reports = self.reports.entry((client, inode)).or_default();
            reports.next = Some(number);
            if reports.sent.is_some() {
                return number;
            }
        }
        self.send(number, same);
        number
    }

    /// Has a demand sent with the next ones.
    fn send(&mut self, number: u64, outstanding: Outstanding) {
        let Outstanding {
            client,
            inode,
            demand,
        } = outstanding;
        let recall = Recall {
            number,
            inode,
            demand,
        };
        self.recalls.push((client, recall));
    }

    fn outstanding_on(&self, inode: InodeNumber) -> impl Iterator<Item = (u64, Outstanding)> + '_ {
        self.by_inode
            .range((inode, 0)..=(inode, u64::MAX))
            .filter_map(|(_, number)| Some((*number, *self.outstanding.get(number)?)))
    }

    /// Unanswered demands to give up a lease on the inode: until they are answered nobody gets a
    /// new one.
    #[must_use]
    pub fn contended(&self, inode: InodeNumber) -> BTreeSet<u64> {
        self.outstanding_on(inode)
            .filter(|(_, outstanding)| outstanding.demand == Demand::GiveUp)
            .map(|(number, _)| number)
            .collect()
    }

    /// Gives `client` the lease; whoever stands against it has been asked before. Returns its number
    /// and its fence. `None` where it cannot be: somebody still has a lease that forbids it, or is to
    /// give one up.
    pub fn grant(
        &mut self,
        client: ClientId,
        inode: InodeNumber,
        lease: Lease,
    ) -> Option<(u64, u64)> {
        let forbidden = self
            .others(client, inode)
            .any(|(_, other)| Need::Hold(lease).demand(other).is_some());
        if forbidden || !self.contended(inode).is_empty() {
            return None;
        }
        self.last += 1;
        let number = self.last;
        let fence = match lease {
            Lease::Read => number,
            Lease::Write | Lease::Shared => self.fence_of(inode, lease).unwrap_or(number),
        };
        let held = Held {
            lease,
            number,
            fence,
        };
        let before = self.held.insert((inode, client), held);
        self.by_client.insert((client, inode));
        debug_assert!(
            before.is_none_or(|before| before.number < number && before.fence <= fence),
            "{lease:?} on inode {inode} under a smaller number or fence than {before:?}"
        );
        debug_assert!(
            self.exclude_nobody(inode),
            "leases on inode {inode} exclude each other"
        );
        Some((number, fence))
    }

    /// Whether all who have a lease on the inode may have it beside the others, and all writers write
    /// under one fence.
    fn exclude_nobody(&self, inode: InodeNumber) -> bool {
        let range = (inode, ClientId(0))..=(inode, ClientId(u64::MAX));
        let mut holders = self.held.range(range);
        let first = holders.clone().next();
        holders.all(|((_, client), held)| {
            let mut others = self.others(*client, inode);
            let writes = held.lease != Lease::Read;
            others.all(|(_, other)| Need::Hold(held.lease).demand(other).is_none())
                && first.is_none_or(|(_, first)| !writes || first.fence == held.fence)
        })
    }

    /// The fence of those who have `lease` on the inode: it is the same for all of them.
    fn fence_of(&self, inode: InodeNumber, lease: Lease) -> Option<u64> {
        let range = (inode, ClientId(0))..=(inode, ClientId(u64::MAX));
        let mut holders = self.held.range(range).map(|(_, held)| held);
        let holder = holders.find(|held| held.lease == lease)?;
        Some(holder.fence)
    }

    /// Fence and number of a truncation that begins now, while nobody gets a lease to write: writes
    /// of all who had one before come too late. Whoever writes alone goes on under its fence.
    pub fn fence_for_cut(&mut self, inode: InodeNumber) -> (u64, u64) {
        self.last += 1;
        let number = self.last;
        if let Some(fence) = self.fence_of(inode, Lease::Write) {
            return (fence, number);
        }
        let range = (inode, ClientId(0))..=(inode, ClientId(u64::MAX));
        for (_, held) in self.held.range_mut(range) {
            held.fence = number;
        }
        (number, number)
    }

    /// Lets `client` keep the attributes that it is told anyway, where nothing stands against it. Under a
    /// shared lease it keeps none, but learns whether the file has privileges.
    pub fn offer(&mut self, client: ClientId, inode: InodeNumber) -> Option<((u64, u64), Lease)> {
        let lease = match self.held(client, inode) {
            Some(lease) => lease,
            None if self.held.len() >= LEASES_MAX => return None,
            None => Lease::Read,
        };
        Some((self.grant(client, inode, lease)?, lease))
    }

    /// A client answers a demand: says which inode it was about, and what it was.
    pub fn acknowledge(&mut self, client: ClientId, number: u64) -> Option<(InodeNumber, Demand)> {
        let Outstanding { inode, demand, .. } = *self
            .outstanding
            .get(&number)
            .filter(|outstanding| outstanding.client == client)?;
        self.settle(number);
        if demand == Demand::GiveUp {
            self.take(client, inode);
        }
        Some((inode, demand))
    }

    fn settle(&mut self, number: u64) {
        let Some(outstanding) = self.outstanding.remove(&number) else {
            return;
        };
        self.by_inode.remove(&(outstanding.inode, number));
        let of = (outstanding.client, outstanding.inode);
        let Some(reports) = self.reports.get_mut(&of) else {
            return;
        };
        let was_sent = reports.sent.take_if(|sent| *sent == number).is_some();
        reports.next.take_if(|next| *next == number);
        match reports.next {
            Some(next) if was_sent => self.send(next, outstanding),
            None if reports.sent.is_none() => drop(self.reports.remove(&of)),
            Some(_) | None => {}
        }
    }

    fn take(&mut self, client: ClientId, inode: InodeNumber) {
        self.held.remove(&(inode, client));
        self.by_client.remove(&(client, inode));
    }

    /// A client gives a lease back unasked. One that it got meanwhile stays.
    pub fn give_back(&mut self, client: ClientId, inode: InodeNumber, number: u64) {
        let held = self.held.get(&(inode, client));
        if held.is_some_and(|held| held.number == number) {
            self.take(client, inode);
        }
    }

    /// A client no longer has the file open for writing: it may go on reading what it keeps. A lease
    /// that it got after it closed stays as it is, for the client knows nothing of its end.
    pub fn stopped_writing(&mut self, client: ClientId, inode: InodeNumber, number: u64) {
        let held = self.held.get_mut(&(inode, client));
        let Some(held) = held.filter(|held| held.number == number) else {
            return;
        };
        match held.lease {
            Lease::Write => held.lease = Lease::Read,
            Lease::Shared => self.take(client, inode),
            Lease::Read => {}
        }
    }

    /// The inodes to which a client may write.
    #[must_use]
    pub fn written_by(&self, client: ClientId) -> Vec<InodeNumber> {
        let range = (client, InodeNumber(0))..=(client, InodeNumber(u64::MAX));
        let inodes = self.by_client.range(range).map(|(_, inode)| *inode);
        inodes
            .filter(|inode| self.held(client, *inode).is_some_and(Lease::writes))
            .collect()
    }

    /// Whether anybody may write to the inode.
    #[must_use]
    pub fn is_written(&self, inode: InodeNumber) -> bool {
        let range = (inode, ClientId(0))..=(inode, ClientId(u64::MAX));
        self.held.range(range).any(|(_, held)| held.lease.writes())
    }

    /// A client has nothing any more. Gives the demands that need no answer now, with what they
    /// were about.
    pub fn drop_client(&mut self, client: ClientId) -> Vec<(u64, InodeNumber)> {
        let range = (client, InodeNumber(0))..=(client, InodeNumber(u64::MAX));
        let inodes: Vec<_> = self
            .by_client
            .range(range)
            .map(|(_, inode)| *inode)
            .collect();
        for inode in inodes {
            self.take(client, inode);
        }
        let of_client = |(number, outstanding): (&u64, &Outstanding)| {
            (outstanding.client == client).then_some((*number, outstanding.inode))
        };
        let answered: Vec<_> = self.outstanding.iter().filter_map(of_client).collect();
        for (number, _) in &answered {
            self.settle(*number);
        }
        answered
    }

    /// Clients that have not answered something.
    #[must_use]
    pub fn debtors(&self) -> BTreeSet<ClientId> {
        self.outstanding
            .values()
            .map(|outstanding| outstanding.client)
            .collect()
    }

    /// The demands that are to be sent.
    pub fn take_recalls(&mut self) -> Vec<(ClientId, Recall)> {
        for (client, recall) in &self.recalls {
            if let Some(reports) = self.reports.get_mut(&(*client, recall.inode)) {
                let sent = reports.next.take_if(|next| *next == recall.number);
                reports.sent = sent.or(reports.sent);
            }
        }
        std::mem::take(&mut self.recalls)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    const A: ClientId = ClientId(1);
    const B: ClientId = ClientId(2);
    const C: ClientId = ClientId(3);
    const FILE: InodeNumber = InodeNumber(7);
    const ALL: [Lease; 3] = [Lease::Read, Lease::Write, Lease::Shared];

    fn nobody() -> BTreeSet<(ClientId, InodeNumber)> {
        BTreeSet::new()
    }

    /// Every need against every lease of another client.
    #[test]
    fn each_need_demands_what_the_table_says() {
        use Demand::{GiveUp, Report};
        use Lease::{Read, Shared, Write};
        let table = [
            (Need::Look, [None, Some(Report), Some(Report)]),
            (Need::Change, [Some(GiveUp), Some(GiveUp), Some(Report)]),
            (Need::Resize, [Some(GiveUp); 3]),
            (Need::Report, [Some(GiveUp), Some(GiveUp), None]),
            (Need::Hold(Read), [None, Some(GiveUp), Some(GiveUp)]),
            (Need::Hold(Write), [Some(GiveUp); 3]),
            (Need::Hold(Shared), [Some(GiveUp), Some(GiveUp), None]),
        ];
        for (need, row) in table {
            for (lease, demand) in ALL.into_iter().zip(row) {
                assert_eq!(need.demand(lease), demand, "{need:?} against {lease:?}");
            }
        }
    }

    #[test]
    fn a_writer_gets_its_lease_when_every_reader_has_given_up() {
        let mut leases = Leases::default();
        assert!(leases.grant(A, FILE, Lease::Read).is_some());
        assert!(leases.grant(B, FILE, Lease::Read).is_some());
        let waits = leases.demand(C, FILE, Need::Hold(Lease::Write), &nobody());
        assert_eq!(waits.len(), 2);
        assert_eq!(leases.take_recalls().len(), 2);
        let again = leases.demand(C, FILE, Need::Hold(Lease::Write), &nobody());
        assert_eq!(again, waits, "a demand that is on its way is not repeated");
        assert!(leases.take_recalls().is_empty());
        let mut waits = waits.into_iter();
        let (first, second) = (waits.next().unwrap(), waits.next().unwrap());
        assert_eq!(leases.acknowledge(B, first), None, "it is A's to answer");
        assert_eq!(leases.acknowledge(A, first), Some((FILE, Demand::GiveUp)));
        assert_eq!(leases.offer(A, FILE), None, "the writer comes first");
        assert_eq!(leases.grant(C, FILE, Lease::Write), None);
        leases.acknowledge(B, second).unwrap();
        assert!(leases.grant(C, FILE, Lease::Write).is_some());
        assert_eq!(leases.held(C, FILE), Some(Lease::Write));
    }

    #[test]
    fn who_reported_since_keeps_its_lease_and_is_not_asked_again() {
        let mut leases = Leases::default();
        leases.grant(A, FILE, Lease::Write).unwrap();
        let first = leases.demand(B, FILE, Need::Look, &nobody());
        leases.take_recalls();
        let second = leases.demand(C, FILE, Need::Look, &nobody());
        assert_ne!(
            first, second,
            "a report from before a question answers it not"
        );
        let number = *first.first().unwrap();
        assert_eq!(leases.acknowledge(A, number), Some((FILE, Demand::Report)));
        assert_eq!(leases.held(A, FILE), Some(Lease::Write));
        let reported = BTreeSet::from([(A, FILE)]);
        assert!(leases.demand(B, FILE, Need::Look, &reported).is_empty());
        assert_eq!(leases.offer(B, FILE), None, "A may write on");
    }

    #[test]
    fn however_many_ask_a_client_reports_one_thing_at_a_time() {
        let mut leases = Leases::default();
        leases.grant(A, FILE, Lease::Write).unwrap();
        let ask = |leases: &mut Leases| {
            *leases
                .demand(B, FILE, Need::Look, &nobody())
                .first()
                .unwrap()
        };
        let first: BTreeSet<u64> = (0..1000).map(|_| ask(&mut leases)).collect();
        assert_eq!(first.len(), 1, "none has been sent");
        assert_eq!(leases.take_recalls().len(), 1);
        let second: BTreeSet<u64> = (0..1000).map(|_| ask(&mut leases)).collect();
        assert_eq!(second.len(), 1);
        assert_ne!(first, second, "what was sent may be answered already");
        assert!(
            leases.take_recalls().is_empty(),
            "it waits for the first answer"
        );
        assert!(leases.acknowledge(A, *first.first().unwrap()).is_some());
        let third = ask(&mut leases);
        assert!(second.contains(&third), "it has not been sent yet");
        let sent = leases.take_recalls();
        assert!(sent.len() == 1 && sent[0].1.number == third);
        assert!(leases.acknowledge(A, third).is_some());
        assert!(leases.reports.is_empty() && leases.debtors().is_empty());
        // Whoever is gone is asked nothing more.
        ask(&mut leases);
        leases.take_recalls();
        ask(&mut leases);
        assert_eq!(leases.drop_client(A).len(), 2);
        assert!(leases.reports.is_empty() && leases.outstanding.is_empty());
    }

    #[test]
    fn a_client_that_is_gone_owes_nothing() {
        let mut leases = Leases::default();
        leases.grant(A, FILE, Lease::Write).unwrap();
        leases.grant(A, InodeNumber(8), Lease::Read).unwrap();
        let waits = leases.demand(B, FILE, Need::Hold(Lease::Read), &nobody());
        assert_eq!(leases.debtors(), BTreeSet::from([A]));
        let answered = leases.drop_client(A);
        assert_eq!(answered, [(*waits.first().unwrap(), FILE)]);
        assert!(leases.is_empty() && leases.debtors().is_empty());
        assert!(leases.grant(B, FILE, Lease::Read).is_some());
    }

    #[test]
    fn what_is_given_back_is_what_was_given_then() {
        let mut leases = Leases::default();
        let (old, _) = leases.grant(A, FILE, Lease::Read).unwrap();
        let (new, _) = leases.grant(A, FILE, Lease::Read).unwrap();
        leases.give_back(A, FILE, old);
        assert_eq!(leases.held(A, FILE), Some(Lease::Read));
        leases.give_back(A, FILE, new);
        assert_eq!(leases.held(A, FILE), None);
    }

    #[test]
    fn who_writes_after_somebody_else_has_a_larger_fence() {
        let mut leases = Leases::new(3);
        let (_, first) = leases.grant(A, FILE, Lease::Write).unwrap();
        assert!(first > 3 << NUMBER_BITS);
        let (_, again) = leases.grant(A, FILE, Lease::Write).unwrap();
        assert_eq!(again, first, "its own writes are under way");
        assert_eq!(leases.fence_for_cut(FILE).0, first);
        leases.drop_client(A);
        let (_, second) = leases.grant(B, FILE, Lease::Write).unwrap();
        assert!(second > first);
        leases.drop_client(B);
        let (_, shared) = leases.grant(A, FILE, Lease::Shared).unwrap();
        assert!(shared > second);
        assert_eq!(leases.grant(B, FILE, Lease::Shared).unwrap().1, shared);
        let (cut, number) = leases.fence_for_cut(FILE);
        assert!(cut > shared, "somebody else may have lost a lease");
        assert!(leases.fence_for_cut(FILE).1 > number);
        leases.drop_client(B);
        let (_, after) = leases.grant(B, FILE, Lease::Shared).unwrap();
        assert_eq!(leases.grant(A, FILE, Lease::Shared).unwrap().1, after);
        assert!(after > cut);
        let restarted = Leases::new(4).fence_for_cut(FILE).0;
        assert!(restarted > after);
    }

    #[test]
    fn the_last_writer_goes_on_reading() {
        let mut leases = Leases::default();
        let (number, _) = leases.grant(A, FILE, Lease::Write).unwrap();
        leases.stopped_writing(A, FILE, number);
        assert_eq!(leases.held(A, FILE), Some(Lease::Read));
        assert!(leases.grant(B, FILE, Lease::Read).is_some());
        leases.drop_client(A);
        leases.drop_client(B);
        let (number, _) = leases.grant(A, FILE, Lease::Shared).unwrap();
        leases.stopped_writing(A, FILE, number);
        assert_eq!(leases.held(A, FILE), None);
    }

    /// The client has asked for it beside its close, or was told its attributes: it believes in it.
    #[test]
    fn a_lease_that_is_granted_after_a_close_was_sent_stays() {
        let mut leases = Leases::default();
        for lease in [Lease::Write, Lease::Shared] {
            let (closed, _) = leases.grant(A, FILE, lease).unwrap();
            leases.grant(A, FILE, lease).unwrap();
            leases.stopped_writing(A, FILE, closed);
            assert_eq!(leases.held(A, FILE), Some(lease));
        }
    }

    /// What a client does in the model below.
    #[derive(Clone, Debug)]
    enum Step {
        Hold(u64, Lease),
        Answer(u64),
        Leave(u64),
        StopWriting(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        let client = 1u64..4;
        let lease = prop::sample::select(ALL.to_vec());
        prop_oneof![
            4 => (client.clone(), lease).prop_map(|(client, lease)| Step::Hold(client, lease)),
            4 => client.clone().prop_map(Step::Answer),
            1 => client.clone().prop_map(Step::Leave),
            1 => client.prop_map(Step::StopWriting),
        ]
    }

    proptest! {
        /// Whatever three clients do: nobody holds what stands against another's lease, a demand
        /// is answered once, and after all answers everybody who waits can be served.
        #[test]
        fn leases_never_stand_against_each_other(steps in prop::collection::vec(step(), 0..60)) {
            let mut leases = Leases::default();
            let mut unanswered: HashMap<u64, Vec<u64>> = HashMap::new();
            let mut numbers: HashMap<u64, u64> = HashMap::new();
            for step in steps {
                match step {
                    Step::Hold(number, lease) => {
                        let client = ClientId(number);
                        let waits = leases.demand(client, FILE, Need::Hold(lease), &nobody());
                        let contended = !leases.contended(FILE).is_empty();
                        let granted = leases.grant(client, FILE, lease);
                        prop_assert_eq!(granted.is_some(), waits.is_empty() && !contended);
                        numbers.extend(granted.map(|(grant, _)| (number, grant)));
                    }
                    Step::Answer(client) => {
                        for number in unanswered.remove(&client).unwrap_or_default() {
                            prop_assert!(leases.acknowledge(ClientId(client), number).is_some());
                            prop_assert!(leases.acknowledge(ClientId(client), number).is_none());
                        }
                    }
                    Step::Leave(client) => {
                        leases.drop_client(ClientId(client));
                        unanswered.remove(&client);
                    }
                    Step::StopWriting(client) => {
                        let number = numbers.get(&client).copied().unwrap_or_default();
                        leases.stopped_writing(ClientId(client), FILE, number);
                    }
                }
                for (client, recall) in leases.take_recalls() {
                    unanswered.entry(client.0).or_default().push(recall.number);
                }
                let held: Vec<_> = [A, B, C].iter().filter_map(|c| leases.held(*c, FILE)).collect();
                let mixed = held.contains(&Lease::Read) && held.contains(&Lease::Shared);
                prop_assert!(!mixed, "{:?}", held);
                prop_assert!(!held.contains(&Lease::Write) || held.len() == 1, "{:?}", held);
            }
            for (client, numbers) in unanswered {
                for number in numbers {
                    leases.acknowledge(ClientId(client), number);
                }
            }
            prop_assert!(leases.contended(FILE).is_empty() && leases.debtors().is_empty());
        }
    }
}
