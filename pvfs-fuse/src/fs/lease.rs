// SPDX-License-Identifier: MIT
//! What this mount may do with a file's bytes without asking mgr: pure bookkeeping of one file's
//! lease. [`super::coherence`] asks for leases, gives them up, and drops pages.
//!
//! The kernel keeps pages and holds locks on them while a request for them is under way here, and
//! dropping a page waits for its lock. So a request for pages must never wait for mgr while pages
//! of the same file are being dropped: until a lease has been given up, such requests are still
//! served under it, after a pause, and what they bring in is dropped in another pass. Dropping starts
//! when nothing is under way: a process that is killed while it waits for a page's lock in the
//! kernel would leave the mount hanging.
//!
//! An iod may be away for long. A read that waits for one holds the lease only loosely: after a moment
//! the lease is given up without it, passes go around its pages ([`super::fills`]), and it begins anew
//! when it has its bytes. docs/decisions/0102 says why that is sound.

use pvfs::proto::lease::{Grant, Lease, Want};

/// One read or write of the kernel's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Io {
    /// Fills pages of the kernel's cache.
    PageRead,
    /// Comes out of pages, which stay in the cache.
    PageWrite,
    /// Comes out of pages while the kernel is dropping them.
    WriteBack,
    /// Goes past the cache.
    DirectRead,
    /// Goes past the cache.
    DirectWrite,
    /// A write at the file's end, wherever that is.
    Append,
}

impl Io {
    /// Whether the kernel keeps what it is about.
    pub(super) const fn has_pages(self) -> bool {
        match self {
            Self::PageRead | Self::PageWrite | Self::WriteBack => true,
            Self::DirectRead | Self::DirectWrite | Self::Append => false,
        }
    }

    /// The lease that it needs. Pages that this mount may write to are never kept under a lease for
    /// reading: a mapping writes to them without asking.
    const fn want(self, writable: bool) -> Want {
        match self {
            Self::PageRead if !writable => Want::Read,
            Self::PageRead | Self::PageWrite | Self::WriteBack | Self::Append => Want::Write,
            Self::DirectRead => Want::ReadDirect,
            Self::DirectWrite => Want::WriteDirect,
        }
    }
}

/// Whether `held` allows what `want` asks for.
const fn suffices(held: Lease, want: Want) -> bool {
    match (held, want) {
        (Lease::Write, _)
        | (Lease::Read, Want::Read | Want::ReadDirect)
        | (Lease::Shared, Want::ReadDirect | Want::WriteDirect) => true,
        (Lease::Read, Want::Write | Want::WriteDirect)
        | (Lease::Shared, Want::Read | Want::Write) => false,
    }
}

/// What a request is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Begin {
    /// Go on; [`FileLease::end`] when it is done.
    Go(Permit),
    /// Ask mgr for a lease, and come back.
    Ask(Want),
    /// Another request asks mgr: wait for what it gets.
    Join,
    /// Give up what is kept, and begin again: it is too little, and must be gone before mgr is asked.
    GiveUp,
    /// Wait until the lease has been given up. A request with pages waits for a moment only.
    Wait,
}

/// A request under way under a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Permit {
    epoch: u64,
    /// What goes with its writes.
    pub(super) fence: u64,
}

/// A read that waits for iods: whoever wants its lease back does not wait for it for long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Loose {
    permit: Permit,
    round: u64,
}

/// What to do next in order to give a lease up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum GiveUp {
    /// Drop the pages in this range of bytes.
    Drop(u64, u64),
    /// Requests are under way: wait for them.
    Wait,
    /// It is given up.
    Done,
}

/// What this mount may do with an inode without asking mgr.
#[derive(Debug)]
pub(super) struct FileLease {
    held: Option<Lease>,
    number: u64,
    /// Of the last lease: writes under it carry this.
    fence: u64,
    /// mgr wants the lease back.
    giving_up: bool,
    /// Requests under way under the lease.
    uses: u32,
    /// Reads that wait for iods under the lease.
    reads: u32,
    /// Raised when the lease was given up, or may have been, though such reads were under way.
    round: u64,
    /// Somebody asks mgr for a lease. One at a time: a request that holds a page's lock while it
    /// waits for mgr must be the next to get a lease, or what another got could not be given up.
    asking: bool,
    /// Leases that were asked for and whose askers have not come back yet.
    claims: u32,
    /// Raised when the lease was lost while requests were under way.
    epoch: u64,
    /// The kernel may have pages.
    pages: bool,
    /// Where pages may have come in since the last pass began.
    touched: Option<(u64, u64)>,
    /// Passes under way, which wait for pages' locks: a recall, and a request that needs more than is
    /// held, may give the same lease up side by side.
    passes: u32,
    /// A write under the lease failed, and iods may hold a part of it beyond the end.
    torn: bool,
}

impl FileLease {
    pub(super) const fn new() -> Self {
        Self {
            held: None,
            number: 0,
            fence: 0,
            giving_up: false,
            uses: 0,
            reads: 0,
            round: 0,
            asking: false,
            claims: 0,
            epoch: 0,
            pages: false,
            touched: None,
            passes: 0,
            torn: false,
        }
    }

    /// A write failed, and what iods hold of it beyond the end is still there. A lease under which
    /// others may write too is of no more use: mgr grants another when that is cut off.
    pub(super) fn tear(&mut self) {
        self.torn = self.held == Some(Lease::Write);
        if self.held == Some(Lease::Shared) {
            self.held = None;
        }
    }

    /// Whether something may be beyond the end that must go before anything is written behind it.
    pub(super) const fn is_torn(&self) -> bool {
        self.torn
    }

    /// That is gone.
    pub(super) const fn mended(&mut self) {
        self.torn = false;
    }

    /// Whether nobody else can write under a lease of its own.
    pub(super) fn writes_alone(&self) -> bool {
        self.held == Some(Lease::Write)
    }

    /// The lease, while it may be relied on for something new.
    pub(super) fn held(&self) -> Option<Lease> {
        self.held.filter(|_| !self.giving_up)
    }

    /// The number of the last grant.
    pub(super) const fn number(&self) -> u64 {
        self.number
    }

    /// Whether attributes and names may be kept.
    pub(super) fn keeps(&self) -> bool {
        matches!(self.held(), Some(Lease::Read | Lease::Write))
    }

    /// Whether no other client can change the file's size.
    pub(super) const fn knows_size(&self) -> bool {
        matches!(self.held, Some(Lease::Read | Lease::Write))
    }

    /// Whether no other client writes or reads the file.
    pub(super) fn is_alone(&self) -> bool {
        self.held == Some(Lease::Write)
    }

    /// Whether anything is left to give up.
    pub(super) const fn is_idle(&self) -> bool {
        self.held.is_none() && self.uses == 0 && self.reads == 0 && self.claims == 0
    }

    /// Whether the kernel may have pages.
    pub(super) const fn has_pages(&self) -> bool {
        self.pages
    }

    /// mgr has granted it; `claimed` where somebody who asked for it is about to use it. False where a
    /// later grant has overtaken it: a reply that waits for mgr's disk comes after one that need not.
    pub(super) fn granted(&mut self, grant: &Grant, claimed: bool) -> bool {
        if !claimed && grant.number < self.number {
            return false;
        }
        if claimed || !(self.giving_up || self.asking) {
            debug_assert!(
                grant.fence >= self.fence && grant.number >= self.number,
                "{grant:?} comes after number {} with fence {}",
                self.number,
                self.fence
            );
            self.held = Some(grant.lease);
            self.number = grant.number;
            self.fence = grant.fence;
        }
        if claimed {
            self.claims += 1;
        }
        true
    }

    /// A request begins; where it waits, it begins again later. `writable`: this mount may write to
    /// the file's pages; `valid`: leases still hold.
    pub(super) fn begin(&mut self, io: Io, writable: bool, valid: bool) -> Begin {
        if !self.may_begin(io, writable, valid) {
            if self.asking {
                return Begin::Join;
            }
            match self.held {
                // Nothing is kept under it.
                Some(Lease::Read) if !self.pages => self.held = None,
                Some(_) if self.giving_up && !io.has_pages() => return Begin::Wait,
                Some(_) if valid && self.pages && !io.has_pages() => return Begin::GiveUp,
                _ => {}
            }
            self.asking = true;
            return Begin::Ask(io.want(writable));
        }
        if self.giving_up && io != Io::WriteBack {
            Begin::Wait
        } else {
            Begin::Go(self.go(io))
        }
    }

    /// Whether a request could begin without asking mgr.
    pub(super) fn may_begin(&self, io: Io, writable: bool, valid: bool) -> bool {
        // Where there are pages, an open for writing is about to drop them: see `want`.
        let writable = writable && !(self.pages && io == Io::PageRead);
        let want = io.want(writable);
        let enough = self.held.is_some_and(|held| suffices(held, want));
        enough && (valid || self.giving_up)
    }

    /// The same for a request with pages that has waited long enough: pages that are being dropped
    /// may be waiting for it.
    pub(super) const fn begin_at_last(&mut self, io: Io) -> Permit {
        self.go(io)
    }

    /// The same for whoever asked mgr and was granted it; `None` where the lease is lost already.
    pub(super) fn claim(&mut self, io: Io) -> Option<Permit> {
        self.asking = false;
        self.claims = self.claims.checked_sub(1)?;
        Some(self.go(io))
    }

    /// The same for an answer that comes to nobody, or that is no grant.
    pub(super) fn disclaim(&mut self) {
        self.asking = false;
        self.claims = self.claims.saturating_sub(1);
    }

    const fn go(&mut self, io: Io) -> Permit {
        self.uses += 1;
        self.pages |= io.has_pages();
        Permit {
            epoch: self.epoch,
            fence: self.fence,
        }
    }

    /// Whether the lease of a request under way has not been lost.
    pub(super) const fn is_current(&self, permit: Permit) -> bool {
        permit.epoch == self.epoch
    }

    /// An iod has refused a write: others have written, or truncated the file, since its lease was
    /// granted. Where it is a lease under which nothing is kept, it is of no more use.
    pub(super) fn refused(&mut self, permit: Permit) {
        if self.held == Some(Lease::Shared) && self.fence == permit.fence {
            self.held = None;
            self.revoke_reads();
        }
    }

    /// A read waits for iods from now on.
    pub(super) const fn loosen(&mut self, permit: Permit) -> Loose {
        if self.is_current(permit) {
            debug_assert!(self.uses > 0, "a permit that nobody counts");
            self.uses = self.uses.saturating_sub(1);
            self.reads += 1;
        }
        let round = self.round;
        Loose { permit, round }
    }

    /// A read has its bytes, and is about to be answered; `None` where the lease was given up
    /// meanwhile: others may have written, and the bytes may be from before and after that.
    pub(super) const fn tighten(&mut self, loose: Loose) -> Option<Permit> {
        if !self.is_current(loose.permit) || self.round != loose.round {
            return None;
        }
        debug_assert!(self.reads > 0, "a read that nobody counts");
        self.reads = self.reads.saturating_sub(1);
        self.uses += 1;
        Some(loose.permit)
    }

    /// Whoever wants the lease back does not wait for reads any more: they begin anew when they have
    /// their bytes. True where there were some.
    pub(super) const fn revoke_reads(&mut self) -> bool {
        let some = self.reads > 0;
        if some {
            self.reads = 0;
            self.round += 1;
        }
        some
    }

    /// A request is done, whose pages are those from `range`. False where the lease was lost
    /// meanwhile.
    pub(super) fn end(&mut self, permit: Permit, io: Io, range: (u64, u64)) -> bool {
        if io.has_pages() {
            self.pages = true;
            let (start, end) = self.touched.unwrap_or(range);
            self.touched = Some((start.min(range.0), end.max(range.1)));
        }
        let kept = self.is_current(permit);
        if kept {
            debug_assert!(self.uses > 0, "a permit that nobody counts");
            self.uses = self.uses.saturating_sub(1);
        }
        kept
    }

    /// mgr wants it back: from now on nothing new may rely on it.
    pub(super) fn start_giving_up(&mut self) {
        if self.held.is_some() && !self.giving_up {
            self.giving_up = true;
            if self.held == Some(Lease::Shared) {
                // Nothing is kept under it, so new requests can ask for another at once.
                self.held = None;
            }
            self.touched = self.pages.then_some((0, u64::MAX));
        }
    }

    /// The next step of giving up; [`FileLease::dropped`] follows each drop.
    pub(super) fn give_up(&mut self) -> GiveUp {
        let passes = if self.held.is_some() { self.passes } else { 0 };
        if self.uses > 0 || self.reads > 0 || self.claims > 0 || passes > 0 {
            return GiveUp::Wait;
        }
        if let Some((start, end)) = self.touched.take().filter(|_| self.held.is_some()) {
            self.passes += 1;
            return GiveUp::Drop(start, end);
        }
        self.held = None;
        self.giving_up = false;
        self.pages = false;
        self.touched = None;
        self.torn = false;
        GiveUp::Done
    }

    /// The pages of a pass are dropped.
    pub(super) const fn dropped(&mut self) {
        debug_assert!(self.passes > 0, "a pass that nobody counts");
        self.passes = self.passes.saturating_sub(1);
    }

    /// The lease's time is over: it is lost, whatever is under way. True where pages are to be
    /// dropped.
    pub(super) fn lose(&mut self) -> bool {
        let pages = self.pages;
        let (epoch, round) = (self.epoch + 1, self.round + 1);
        *self = Self {
            epoch,
            round,
            number: self.number,
            fence: self.fence,
            asking: self.asking,
            passes: self.passes,
            ..Self::new()
        };
        pages
    }

    /// The last open for writing is closed.
    pub(super) fn stopped_writing(&mut self) {
        match self.held {
            Some(Lease::Write) => self.held = Some(Lease::Read),
            Some(Lease::Shared) => {
                self.held = None;
                self.revoke_reads();
            }
            Some(Lease::Read) | None => {}
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::fs::inode::tests::attr;

    const ALL: [Io; 6] = [
        Io::PageRead,
        Io::PageWrite,
        Io::WriteBack,
        Io::DirectRead,
        Io::DirectWrite,
        Io::Append,
    ];
    const PAGE: (u64, u64) = (0, 4096);

    pub(in crate::fs) fn grant(lease: Lease, number: u64) -> Grant {
        Grant {
            number,
            attr: attr(0, 0),
            lease,
            fence: number,
        }
    }

    fn with(lease: Option<Lease>) -> FileLease {
        let mut file = FileLease::new();
        if let Some(lease) = lease {
            file.granted(&grant(lease, 1), false);
        }
        file
    }

    fn go(file: &mut FileLease, io: Io) -> Permit {
        match file.begin(io, false, true) {
            Begin::Go(permit) => permit,
            other => panic!("{other:?}"),
        }
    }

    /// Every request under every lease: what is allowed without asking, and what is asked for.
    #[test]
    fn each_request_needs_what_the_table_says() {
        use Lease::{Read, Shared, Write};
        let leases = [None, Some(Read), Some(Write), Some(Shared)];
        let table = [
            (Io::PageRead, [false, true, true, false], Want::Read),
            (Io::PageWrite, [false, false, true, false], Want::Write),
            (Io::WriteBack, [false, false, true, false], Want::Write),
            (Io::DirectRead, [false, true, true, true], Want::ReadDirect),
            (
                Io::DirectWrite,
                [false, false, true, true],
                Want::WriteDirect,
            ),
            (Io::Append, [false, false, true, false], Want::Write),
        ];
        for (io, row, want) in table {
            for (lease, allowed) in leases.into_iter().zip(row) {
                let begin = with(lease).begin(io, false, true);
                match begin {
                    Begin::Go(_) => assert!(allowed, "{io:?} under {lease:?}"),
                    Begin::Ask(asked) => {
                        assert!(!allowed, "{io:?} under {lease:?}");
                        assert_eq!(asked, want);
                    }
                    other => panic!("{io:?} under {lease:?}: {other:?}"),
                }
                assert_eq!(with(lease).begin(io, false, false), Begin::Ask(want));
            }
        }
        let begin = with(Some(Read)).begin(Io::PageRead, true, true);
        assert_eq!(begin, Begin::Ask(Want::Write), "a mapping may write to it");
    }

    /// It would hold a page's lock while it waits for mgr, and dropping pages would wait for it.
    #[test]
    fn who_waits_for_mgr_with_a_locked_page_keeps_nothing_that_has_pages() {
        for io in ALL.into_iter().filter(|io| io.has_pages()) {
            let mut file = with(Some(Lease::Read));
            assert_eq!(file.begin(io, true, true), Begin::Ask(Want::Write));
            assert_eq!(file.held(), None, "{io:?}");
        }
        // Read before the file was opened for writing: the open drops it, and this with it.
        let mut file = with(Some(Lease::Read));
        let permit = go(&mut file, Io::PageRead);
        file.end(permit, Io::PageRead, PAGE);
        assert!(matches!(file.begin(Io::PageRead, true, true), Begin::Go(_)));
        // A request without a page drops what is kept before it asks.
        assert_eq!(file.begin(Io::DirectWrite, true, true), Begin::GiveUp);
    }

    #[test]
    fn one_asks_and_the_others_take_what_it_gets() {
        let mut file = FileLease::new();
        assert_eq!(
            file.begin(Io::PageRead, false, true),
            Begin::Ask(Want::Read)
        );
        assert_eq!(file.begin(Io::PageRead, false, true), Begin::Join);
        assert_eq!(file.begin(Io::DirectWrite, false, true), Begin::Join);
        // A lease that comes with another reply would have to be given up behind the one that waits.
        file.granted(&grant(Lease::Read, 1), false);
        assert_eq!(file.held(), None);
        file.granted(&grant(Lease::Read, 2), true);
        assert!(matches!(
            file.begin(Io::PageRead, false, true),
            Begin::Go(_)
        ));
        assert!(file.claim(Io::PageRead).is_some());
        let mut refused = FileLease::new();
        refused.begin(Io::PageRead, false, true);
        assert_eq!(refused.claim(Io::PageRead), None);
        let begin = refused.begin(Io::PageRead, false, true);
        assert_eq!(begin, Begin::Ask(Want::Read), "the next asks anew");
    }

    /// It may have been given up already.
    #[test]
    fn a_grant_that_a_later_one_has_overtaken_is_worth_nothing() {
        let mut file = with(None);
        assert!(file.granted(&grant(Lease::Write, 5), false));
        file.start_giving_up();
        assert_eq!(file.give_up(), GiveUp::Done);
        assert!(!file.granted(&grant(Lease::Write, 4), false));
        assert_eq!(file.held(), None);
    }

    #[test]
    fn giving_up_waits_for_what_is_under_way_and_drops_what_came_in() {
        let mut file = with(Some(Lease::Read));
        let permit = go(&mut file, Io::PageRead);
        file.start_giving_up();
        assert!(!file.keeps() && file.held().is_none());
        assert_eq!(file.give_up(), GiveUp::Wait);
        for io in ALL {
            let begin = file.begin(io, false, true);
            assert!(!matches!(begin, Begin::Go(_)), "{io:?}: {begin:?}");
        }
        // One of the others asks mgr, in vain.
        assert_eq!(file.claim(Io::PageWrite), None);
        assert!(file.end(permit, Io::PageRead, PAGE));
        assert!(matches!(file.give_up(), GiveUp::Drop(..)));
        file.dropped();
        assert_eq!(file.give_up(), GiveUp::Done);
        let begin = file.begin(Io::PageRead, false, true);
        assert_eq!(begin, Begin::Ask(Want::Read));
    }

    /// Or a request would ask mgr, others would join it with locked pages, and the pass that waits for
    /// these pages would keep mgr from answering.
    #[test]
    fn a_lease_is_not_given_up_while_somebody_else_drops_its_pages() {
        let mut file = with(Some(Lease::Read));
        let permit = go(&mut file, Io::PageRead);
        file.end(permit, Io::PageRead, PAGE);
        file.start_giving_up();
        assert!(matches!(file.give_up(), GiveUp::Drop(..)));
        assert_eq!(file.give_up(), GiveUp::Wait, "the other one's turn");
        assert_eq!(file.begin(Io::DirectWrite, false, true), Begin::Wait);
        let permit = file.begin_at_last(Io::PageRead);
        assert_eq!(file.give_up(), GiveUp::Wait);
        file.end(permit, Io::PageRead, PAGE);
        file.dropped();
        assert_eq!(file.give_up(), GiveUp::Drop(PAGE.0, PAGE.1));
        file.dropped();
        assert_eq!(file.give_up(), GiveUp::Done);
        // What was lost is nothing to wait for.
        let mut file = with(Some(Lease::Read));
        let permit = go(&mut file, Io::PageRead);
        file.end(permit, Io::PageRead, PAGE);
        file.start_giving_up();
        assert!(matches!(file.give_up(), GiveUp::Drop(..)));
        file.lose();
        assert_eq!(file.give_up(), GiveUp::Done);
    }

    #[test]
    fn a_read_that_waits_for_an_iod_is_not_waited_for_and_begins_anew() {
        for io in [Io::PageRead, Io::DirectRead] {
            let mut file = with(Some(Lease::Read));
            let permit = go(&mut file, io);
            let loose = file.loosen(permit);
            file.start_giving_up();
            assert_eq!(file.give_up(), GiveUp::Wait, "for a moment");
            assert!(file.revoke_reads() && !file.revoke_reads());
            if io.has_pages() {
                assert!(matches!(file.give_up(), GiveUp::Drop(..)));
                file.dropped();
            }
            assert_eq!(file.give_up(), GiveUp::Done);
            assert_eq!(file.tighten(loose), None);
            // Nor under a lease that came later.
            file.granted(&grant(Lease::Write, 9), false);
            assert_eq!(file.tighten(loose), None);
            let permit = go(&mut file, io);
            let loose = file.loosen(permit);
            let permit = file.tighten(loose).unwrap();
            file.start_giving_up();
            assert_eq!(file.give_up(), GiveUp::Wait);
            assert!(!file.revoke_reads(), "it is being answered");
            assert!(file.end(permit, io, PAGE));
        }
    }

    /// What others did meanwhile is not known.
    #[test]
    fn a_read_begins_anew_whatever_took_its_lease() {
        let takes: [fn(&mut FileLease, Permit); 3] = [
            |file, _| assert!(!file.lose()),
            |file, permit| file.refused(permit),
            |file, _| file.stopped_writing(),
        ];
        for take in takes {
            let mut file = with(Some(Lease::Shared));
            let permit = go(&mut file, Io::DirectRead);
            let loose = file.loosen(permit);
            take(&mut file, permit);
            file.granted(&grant(Lease::Shared, 2), false);
            assert_eq!(file.tighten(loose), None);
            file.start_giving_up();
            assert_eq!(file.give_up(), GiveUp::Done, "nothing is counted any more");
        }
    }

    #[test]
    fn pages_from_long_ago_are_dropped_wherever_they_are() {
        let mut file = with(Some(Lease::Read));
        let permit = go(&mut file, Io::PageRead);
        file.end(permit, Io::PageRead, PAGE);
        file.start_giving_up();
        assert_eq!(file.give_up(), GiveUp::Drop(0, u64::MAX));
        file.dropped();
        assert_eq!(file.give_up(), GiveUp::Done);
    }

    #[test]
    fn pages_that_are_dropped_are_written_back_meanwhile() {
        let mut file = with(Some(Lease::Write));
        let permit = go(&mut file, Io::PageWrite);
        file.end(permit, Io::PageWrite, PAGE);
        file.start_giving_up();
        assert!(matches!(file.give_up(), GiveUp::Drop(..)));
        let permit = go(&mut file, Io::WriteBack);
        assert_eq!(file.give_up(), GiveUp::Wait);
        file.end(permit, Io::WriteBack, PAGE);
        file.dropped();
        assert_eq!(file.give_up(), GiveUp::Drop(0, 4096));
        file.dropped();
        assert_eq!(file.give_up(), GiveUp::Done);
    }

    #[test]
    fn who_waits_with_a_locked_page_is_served_at_last() {
        let mut file = with(Some(Lease::Read));
        let first = go(&mut file, Io::DirectRead);
        file.start_giving_up();
        assert_eq!(file.give_up(), GiveUp::Wait);
        assert_eq!(file.begin(Io::PageRead, false, true), Begin::Wait);
        let permit = file.begin_at_last(Io::PageRead);
        file.end(permit, Io::PageRead, PAGE);
        file.end(first, Io::DirectRead, PAGE);
        assert_eq!(file.give_up(), GiveUp::Drop(0, 4096));
        file.dropped();
        assert_eq!(file.give_up(), GiveUp::Done);
    }

    #[test]
    fn who_asked_for_it_uses_it_once_before_it_goes() {
        let mut file = FileLease::new();
        file.granted(&grant(Lease::Write, 5), true);
        file.start_giving_up();
        assert_eq!(file.give_up(), GiveUp::Wait);
        let permit = file.claim(Io::Append).unwrap();
        assert_eq!(file.give_up(), GiveUp::Wait);
        assert!(file.end(permit, Io::Append, PAGE));
        assert_eq!(file.give_up(), GiveUp::Done);
        assert_eq!(file.claim(Io::Append), None);
    }

    #[test]
    fn a_grant_whose_asker_was_refused_holds_nobody_up() {
        let mut file = FileLease::new();
        file.begin(Io::Append, false, true);
        file.granted(&grant(Lease::Write, 5), true);
        file.start_giving_up();
        assert_eq!(file.give_up(), GiveUp::Wait);
        file.disclaim();
        assert_eq!(file.give_up(), GiveUp::Done);
        let begin = file.begin(Io::Append, false, true);
        assert_eq!(begin, Begin::Ask(Want::Write), "the next asks anew");
    }

    #[test]
    fn a_shared_lease_is_gone_at_once_and_given_up_when_all_is_done() {
        let mut file = with(Some(Lease::Shared));
        let permit = go(&mut file, Io::DirectWrite);
        file.start_giving_up();
        let begin = file.begin(Io::DirectWrite, false, true);
        assert_eq!(begin, Begin::Ask(Want::WriteDirect));
        assert_eq!(file.give_up(), GiveUp::Wait);
        file.end(permit, Io::DirectWrite, PAGE);
        assert_eq!(file.give_up(), GiveUp::Done);
    }

    #[test]
    fn a_lost_lease_is_noticed_by_what_was_under_way() {
        let mut file = with(Some(Lease::Write));
        let permit = go(&mut file, Io::PageWrite);
        assert!(file.lose(), "a page may have come in");
        assert!(!file.end(permit, Io::PageWrite, PAGE));
        assert!(file.is_idle() && file.has_pages());
        file.granted(&grant(Lease::Write, 2), true);
        file.lose();
        assert_eq!(file.claim(Io::Append), None, "who asked must ask again");
    }

    #[test]
    fn a_refused_write_asks_for_another_lease() {
        let mut file = with(Some(Lease::Shared));
        let permit = go(&mut file, Io::DirectWrite);
        file.end(permit, Io::DirectWrite, PAGE);
        file.refused(permit);
        let begin = file.begin(Io::DirectWrite, false, true);
        assert_eq!(begin, Begin::Ask(Want::WriteDirect));
        file.granted(&grant(Lease::Shared, 2), true);
        assert!(
            file.claim(Io::DirectWrite)
                .is_some_and(|new| new.fence == 2)
        );
        file.refused(permit);
        assert_eq!(file.held(), Some(Lease::Shared), "it has another by now");
    }

    #[test]
    fn the_last_writer_reads_on() {
        let mut file = with(Some(Lease::Write));
        file.stopped_writing();
        assert_eq!(file.held(), Some(Lease::Read));
        let mut file = with(Some(Lease::Shared));
        file.stopped_writing();
        assert_eq!(file.held(), None);
    }
}
