// SPDX-License-Identifier: MIT
//! The open table: which client has which inode open. It lives in memory; after a restart clients
//! declare their opens anew.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use pvfs::ids::{ClientId, InodeNumber, OpenId};
use pvfs::proto::mgr::{Access, Reopen};

use super::lingering::Lingering;

/// Opens of all clients together: 100 bytes each make 100 MiB.
pub const OPENS_MAX: usize = 1 << 20;

/// Bits of an open's number below the number of mgr's start: a trillion opens between two starts.
const COUNTER_BITS: u32 = 40;

/// One open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Open {
    /// Whose.
    pub client: ClientId,
    /// Of what.
    pub inode: InodeNumber,
    /// For what.
    pub access: Access,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Count {
    opens: u32,
    writers: u32,
}

#[derive(Clone, Copy, Debug)]
enum Undo {
    Insert(OpenId),
    Remove(OpenId, Open),
    Linger,
}

/// Where to roll back to.
#[derive(Clone, Copy, Debug)]
pub struct Savepoint(usize);

/// The table of opens.
///
/// # Invariants
///
/// `by_client` and `counts` say the same as `opens`; no count is 0.
#[derive(Debug, Default)]
pub struct OpenTable {
    opens: HashMap<OpenId, Open>,
    by_client: BTreeSet<(ClientId, OpenId)>,
    counts: BTreeMap<(InodeNumber, ClientId), Count>,
    next: u64,
    /// What may still be opened though it has no name and is not open.
    lingering: Lingering,
    journal: Vec<Undo>,
}

impl OpenTable {
    /// An empty table; `start` is how often mgr has started, so that no number comes twice.
    #[must_use]
    pub fn new(start: u32) -> Self {
        Self {
            next: (u64::from(start) << COUNTER_BITS) | 1,
            ..Self::default()
        }
    }

    /// Adds an open; `None` where the table is full.
    pub fn insert(&mut self, open: Open) -> Option<OpenId> {
        let id = OpenId(self.next);
        self.next += 1;
        let added = self.restore(id, open);
        if added {
            self.journal.push(Undo::Insert(id));
        }
        added.then_some(id)
    }

    /// Adds an open that has a number already; false where the table is full or another client has
    /// the number. It was granted before, so no savepoint takes it back.
    pub fn restore(&mut self, id: OpenId, open: Open) -> bool {
        if let Some(known) = self.opens.get(&id) {
            return known.client == open.client && known.inode == open.inode;
        }
        if self.opens.len() >= OPENS_MAX {
            return false;
        }
        self.add(id, open);
        true
    }

    /// Adds an open that its client declares.
    pub fn reopen(&mut self, client: ClientId, reopen: &Reopen) -> bool {
        let open = Open {
            client,
            inode: reopen.inode,
            access: reopen.access,
        };
        self.restore(reopen.open, open)
    }

    /// Takes an open of `client` out.
    pub fn remove(&mut self, client: ClientId, id: OpenId) -> Option<Open> {
        let open = *self.opens.get(&id).filter(|open| open.client == client)?;
        self.take(id, open);
        self.journal.push(Undo::Remove(id, open));
        Some(open)
    }

    /// An open of `client`.
    #[must_use]
    pub fn get(&self, client: ClientId, id: OpenId) -> Option<Open> {
        self.opens
            .get(&id)
            .filter(|open| open.client == client)
            .copied()
    }

    /// All of a client's opens.
    #[must_use]
    pub fn of_client(&self, client: ClientId) -> Vec<(OpenId, InodeNumber)> {
        let range = (client, OpenId(0))..=(client, OpenId(u64::MAX));
        let opens = self.by_client.range(range);
        opens
            .filter_map(|(_, id)| Some((*id, self.opens.get(id)?.inode)))
            .collect()
    }

    /// Whether anybody has the inode open.
    #[must_use]
    pub fn is_open(&self, inode: InodeNumber) -> bool {
        self.of_inode(inode).next().is_some()
    }

    /// Lets an inode that loses its last name linger; false where it goes at once.
    pub fn linger(&mut self, inode: InodeNumber, until_ms: u64) -> bool {
        let lingers = self.lingering.add(inode, until_ms);
        if lingers {
            self.journal.push(Undo::Linger);
        }
        lingers
    }

    /// Whether an inode must stay without a name.
    #[must_use]
    pub fn is_needed(&self, inode: InodeNumber) -> bool {
        self.is_open(inode) || self.lingering.has(inode)
    }

    /// The inodes that linger. What is ended there no savepoint brings back.
    pub const fn lingering(&mut self) -> &mut Lingering {
        &mut self.lingering
    }

    /// Whether anybody has the inode open for writing.
    #[must_use]
    pub fn has_writers(&self, inode: InodeNumber) -> bool {
        self.of_inode(inode).any(|(_, count)| count.writers > 0)
    }

    /// Whether `client` has the inode open.
    #[must_use]
    pub fn is_open_at(&self, client: ClientId, inode: InodeNumber) -> bool {
        self.counts.contains_key(&(inode, client))
    }

    /// Whether `client` has the inode open for writing.
    #[must_use]
    pub fn writes(&self, client: ClientId, inode: InodeNumber) -> bool {
        self.counts
            .get(&(inode, client))
            .is_some_and(|count| count.writers > 0)
    }

    /// Whether a client other than `client` has the inode open.
    #[must_use]
    pub fn is_open_elsewhere(&self, client: ClientId, inode: InodeNumber) -> bool {
        self.of_inode(inode).any(|(other, _)| other != client)
    }

    /// Whether a client other than `client` has the inode open for writing.
    #[must_use]
    pub fn is_written_elsewhere(&self, client: ClientId, inode: InodeNumber) -> bool {
        self.of_inode(inode)
            .any(|(other, count)| other != client && count.writers > 0)
    }

    fn of_inode(&self, inode: InodeNumber) -> impl Iterator<Item = (ClientId, Count)> + '_ {
        let range = (inode, ClientId(0))..=(inode, ClientId(u64::MAX));
        self.counts
            .range(range)
            .map(|((_, client), count)| (*client, *count))
    }

    /// Opens in all.
    #[must_use]
    pub fn len(&self) -> usize {
        self.opens.len()
    }

    /// Whether nothing is open.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.opens.is_empty()
    }

    /// Marks where a request starts.
    #[must_use]
    pub fn savepoint(&self) -> Savepoint {
        Savepoint(self.journal.len())
    }

    /// Undoes everything since the savepoint.
    pub fn roll_back(&mut self, savepoint: Savepoint) {
        while self.journal.len() > savepoint.0 {
            match self.journal.pop() {
                Some(Undo::Insert(id)) => {
                    if let Some(open) = self.opens.get(&id).copied() {
                        self.take(id, open);
                    }
                }
                Some(Undo::Remove(id, open)) => self.add(id, open),
                Some(Undo::Linger) => self.lingering.undo(),
                None => {}
            }
        }
    }

    /// Undoes everything that is not final.
    pub fn roll_back_all(&mut self) {
        self.roll_back(Savepoint(0));
    }

    /// Makes everything so far final.
    pub fn commit(&mut self) {
        self.journal.clear();
    }

    fn add(&mut self, id: OpenId, open: Open) {
        self.opens.insert(id, open);
        self.by_client.insert((open.client, id));
        let count = self.counts.entry((open.inode, open.client)).or_default();
        count.opens += 1;
        count.writers += u32::from(open.access.write);
    }

    fn take(&mut self, id: OpenId, open: Open) {
        self.opens.remove(&id);
        self.by_client.remove(&(open.client, id));
        let place = (open.inode, open.client);
        if let Some(count) = self.counts.get_mut(&place) {
            count.opens = count.opens.saturating_sub(1);
            count.writers = count.writers.saturating_sub(u32::from(open.access.write));
            if count.opens == 0 {
                self.counts.remove(&place);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(client: u64, inode: u64, write: bool) -> Open {
        let access = Access { read: true, write };
        Open {
            client: ClientId(client),
            inode: InodeNumber(inode),
            access,
        }
    }

    #[test]
    fn counts_opens_and_writers() {
        let mut table = OpenTable::new(3);
        let a = table.insert(open(1, 10, false)).unwrap();
        let b = table.insert(open(2, 10, true)).unwrap();
        assert_ne!(a, b);
        assert!(table.has_writers(InodeNumber(10)));
        assert!(table.is_written_elsewhere(ClientId(1), InodeNumber(10)));
        assert!(!table.is_written_elsewhere(ClientId(2), InodeNumber(10)));
        assert!(table.is_open_elsewhere(ClientId(2), InodeNumber(10)));
        assert!(table.writes(ClientId(2), InodeNumber(10)));
        assert!(table.is_open_at(ClientId(1), InodeNumber(10)));
        assert_eq!(
            table.remove(ClientId(1), b),
            None,
            "an open is its client's own"
        );
        assert!(table.remove(ClientId(2), b).is_some());
        assert!(table.is_open(InodeNumber(10)) && !table.has_writers(InodeNumber(10)));
        assert!(table.remove(ClientId(1), a).is_some());
        assert!(!table.is_open(InodeNumber(10)) && table.is_empty());
    }

    #[test]
    fn rolls_back_to_the_savepoint_only() {
        let mut table = OpenTable::new(1);
        let kept = table.insert(open(1, 5, true)).unwrap();
        let savepoint = table.savepoint();
        table.remove(ClientId(1), kept).unwrap();
        table.insert(open(2, 5, false)).unwrap();
        table.roll_back(savepoint);
        assert_eq!(table.of_client(ClientId(1)), [(kept, InodeNumber(5))]);
        assert_eq!(table.of_client(ClientId(2)), []);
        assert!(table.has_writers(InodeNumber(5)));
        table.commit();
        table.roll_back(Savepoint(0));
        assert_eq!(table.len(), 1);
    }

    #[test]
    fn what_lingers_is_needed_unless_it_is_rolled_back() {
        let mut table = OpenTable::new(1);
        let inode = InodeNumber(5);
        let savepoint = table.savepoint();
        assert!(table.linger(inode, 10) && table.is_needed(inode));
        table.roll_back(savepoint);
        assert!(!table.is_needed(inode));
        assert!(table.linger(inode, 10));
        table.commit();
        table.roll_back(Savepoint(0));
        assert!(table.is_needed(inode));
        assert_eq!(table.lingering().take_due(10), Some(inode));
        assert!(!table.is_needed(inode));
    }

    #[test]
    fn a_number_belongs_to_one_client() {
        let mut table = OpenTable::new(1);
        let id = table.insert(open(1, 5, false)).unwrap();
        assert!(table.restore(id, open(1, 5, false)));
        assert!(!table.restore(id, open(2, 5, false)));
        assert_ne!(OpenTable::new(2).insert(open(1, 5, false)), Some(id));
    }
}
