// SPDX-License-Identifier: MIT
//! Whether LMDB's file holds what was committed, looked at before LMDB opens it.
//!
//! LMDB has no checksums and believes its file: a flipped bit in a page of a tree makes it return
//! something else, or crash. So every page that it could meet is parsed here first, each is used once
//! or free, and the records add up to what their proof says (see [`super::seal`]). What remains is
//! damage within single records, which is told apart: everybody else can go on using the rest.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use thiserror::Error;

use super::pages::{
    Content, Keys, META_BYTES, META_END_AT, META_PAGES, Meta, NO_PAGE, PageError, PageNumber, Tree,
    TreePage, free_pages, overflow_data, overflow_pages,
};
use super::seal::{self, Digest, PROOF_KEY, Proof, Sums};

/// Levels of a tree, as many as LMDB's cursors can go down.
const DEPTH_MAX: u16 = 32;
/// Bytes of a key, as LMDB is built.
const KEY_BYTES_MAX: usize = 511;
/// Nodes of a branch of the records' tree: LMDB ends the process where there are fewer.
const BRANCH_NODES_MIN: usize = 2;
/// Damaged records that are named; the others are counted.
const DAMAGED_NAMED_MAX: usize = 100;

/// Why a file is refused.
#[derive(Debug, Error)]
pub enum IntegrityError {
    /// It cannot be read, or a commit not be brought to its end.
    #[error("page {number} cannot be read or written: {error}")]
    Read {
        /// Which page.
        number: PageNumber,
        /// Why.
        error: io::Error,
    },
    /// A page is not what LMDB wrote.
    #[error("page {number} is damaged: {error}")]
    Page {
        /// Which.
        number: PageNumber,
        /// What is wrong with it.
        error: PageError,
    },
    /// The pages do not fit together, or the records are not those that were stored.
    #[error("{0}")]
    Whole(&'static str),
}

/// A file that LMDB may open.
#[derive(Debug, PartialEq, Eq)]
pub struct Verified {
    /// What its records sum up to as they are stored.
    pub digest: Digest,
    /// Keys of records that are not what was stored, the first of them.
    pub damaged: Vec<Vec<u8>>,
    /// How many such records there are.
    pub damaged_records: u64,
}

/// Looks at the whole of a store's file, which is to have `bytes_max` bytes at most. Where the page
/// that ends the last commit is there but for its number, as a failed write leaves it, the commit is
/// brought to its end.
///
/// # Errors
///
/// See [`IntegrityError`].
pub fn verify(file: &File, bytes_max: u64) -> Result<Verified, IntegrityError> {
    let length = file.metadata().map_err(|error| read_error(0, error))?.len();
    match newest(file)? {
        Newest::Whole(meta) => {
            if meta.last_page > length.max(bytes_max) / u64::from(meta.page_bytes) {
                return Err(IntegrityError::Whole("it has more pages than its map"));
            }
            let (verified, last_page) = verify_meta(file, &meta)?;
            match last_page == meta.last_page {
                true => Ok(verified),
                false => Err(IntegrityError::Whole(UNACCOUNTED)),
            }
        }
        Newest::Unnumbered(meta) => {
            // Its last page is that of an older transaction.
            let page_bytes = u64::from(meta.page_bytes);
            let last_page = length.max(bytes_max) / page_bytes;
            let (verified, last_page) = verify_meta(file, &Meta { last_page, ..meta })?;
            let offset = (meta.transaction % 2) * page_bytes;
            let renumbered = file
                .write_all_at(
                    &Meta::end_bytes(last_page, meta.transaction),
                    offset + META_END_AT,
                )
                .and_then(|()| file.sync_all());
            renumbered.map_err(|error| read_error(meta.transaction % 2, error))?;
            Ok(verified)
        }
    }
}

const UNACCOUNTED: &str = "pages are neither in use nor free: a part of the store is missing";

/// Looks at everything that a meta page leads to; gives the last page of it as well.
fn verify_meta(file: &File, meta: &Meta) -> Result<(Verified, PageNumber), IntegrityError> {
    let words = usize::try_from(meta.last_page / 64 + 1).unwrap_or(usize::MAX);
    let mut walk = Walk {
        file,
        pages: meta.last_page + 1,
        page_bytes: u64::from(meta.page_bytes),
        used: vec![0; words],
        last: META_PAGES - 1,
        accounted: META_PAGES,
    };
    let mut records = Records::default();
    walk.tree(&meta.main, &mut |key, value| {
        records.note(key, value);
        Ok(Vec::new())
    })?;
    walk.tree(&meta.free, &mut |key, value| {
        let number = key.try_into().map_or(0, u64::from_ne_bytes);
        if !(1..=meta.transaction).contains(&number) {
            return Err(PageError("it lists free pages of no transaction"));
        }
        free_pages(value)
    })?;
    if walk.accounted != walk.last + 1 {
        return Err(IntegrityError::Whole(UNACCOUNTED));
    }
    Ok((records.compare(meta.transaction)?, walk.last))
}

fn read_error(number: PageNumber, error: io::Error) -> IntegrityError {
    IntegrityError::Read { number, error }
}

/// What ends the last commit.
enum Newest {
    /// The meta page that LMDB will take.
    Whole(Meta),
    /// One that LMDB would not take, with the number that it should have: what it leads to was
    /// committed after what the other one leads to.
    Unnumbered(Meta),
}

/// Both meta pages are looked at. LMDB takes the one with the larger number of a transaction, and a
/// flipped bit there would make it go back to what was before. Where the write of a meta page fails,
/// LMDB itself puts the old number back, and only that.
fn newest(file: &File) -> Result<Newest, IntegrityError> {
    let first = read_meta(file, 0, 0)?;
    let second = read_meta(file, 1, u64::from(first.page_bytes))?;
    let by_turns = first.transaction % 2 == 0 && second.transaction % 2 == 1;
    if first.page_bytes != second.page_bytes
        || !by_turns
        || first.transaction.abs_diff(second.transaction) != 1
    {
        return Err(IntegrityError::Whole(
            "its two meta pages contradict each other",
        ));
    }
    let (newest, older) = match first.transaction > second.transaction {
        true => (first, second),
        false => (second, first),
    };
    match first_proof(file, &older) {
        Some(proof) if proof.transaction == newest.transaction + 1 => {
            Ok(Newest::Unnumbered(Meta {
                transaction: proof.transaction,
                ..older
            }))
        }
        Some(proof) if proof.transaction > newest.transaction => Err(IntegrityError::Whole(
            "one of its meta pages leads to newer records than it says",
        )),
        // What the older one leads to may have been overwritten in part, in a copy of a store in use.
        Some(_) | None => Ok(Newest::Whole(newest)),
    }
}

fn read_meta(file: &File, number: PageNumber, offset: u64) -> Result<Meta, IntegrityError> {
    let mut page = [0; META_BYTES];
    file.read_exact_at(&mut page, offset)
        .map_err(|error| read_error(number, error))?;
    Meta::parse(number, &page).map_err(|error| IntegrityError::Page { number, error })
}

fn read_page(file: &File, number: PageNumber, page_bytes: u64, pages: u64) -> io::Result<Vec<u8>> {
    let bytes = pages
        .checked_mul(page_bytes)
        .and_then(|bytes| usize::try_from(bytes).ok());
    let mut page = vec![0; bytes.ok_or(io::ErrorKind::InvalidInput)?];
    let offset = number.checked_mul(page_bytes);
    file.read_exact_at(&mut page, offset.ok_or(io::ErrorKind::InvalidInput)?)?;
    Ok(page)
}

/// The proof that the leftmost record of a tree is, if it is whole.
fn first_proof(file: &File, meta: &Meta) -> Option<Proof> {
    let page_bytes = u64::from(meta.page_bytes);
    let mut number = meta.main.root;
    for level in 1..=meta.main.depth.min(DEPTH_MAX) {
        let page = read_page(file, number, page_bytes, 1).ok()?;
        let is_leaf = level == meta.main.depth;
        let first = TreePage::parse(number, &page, is_leaf)
            .ok()?
            .nodes()
            .next()?;
        let first = first.ok()?;
        match first.content {
            Content::Child(child) => number = child,
            Content::Inline(value) if first.key == PROOF_KEY => {
                return Proof::decode(seal::open(first.key, value).ok()?);
            }
            Content::Inline(_) | Content::Overflow(..) => return None,
        }
    }
    None
}

/// What the records are found to be.
#[derive(Default)]
struct Records {
    digest: Digest,
    damaged: Vec<Vec<u8>>,
    damaged_records: u64,
    proof: Option<Proof>,
}

impl Records {
    fn note(&mut self, key: &[u8], sealed: &[u8]) {
        if key == PROOF_KEY {
            let value = seal::open(key, sealed).ok();
            self.proof = value.and_then(Proof::decode);
            return;
        }
        let (sums, right) = Sums::stored(key, sealed);
        self.digest.add(sums);
        if !right {
            self.damaged_records += 1;
            if self.damaged.len() < DAMAGED_NAMED_MAX {
                self.damaged.push(key.to_vec());
            }
        }
    }

    /// The keys must be those that were stored, all of them. Where a record is damaged, its seal may
    /// be what is damaged in it.
    fn compare(self, transaction: u64) -> Result<Verified, IntegrityError> {
        let whole = |what| Err(IntegrityError::Whole(what));
        let Some(proof) = self.proof else {
            return whole("the proof of its records is damaged or missing");
        };
        if proof.transaction != transaction {
            return whole("its records are those of another transaction than its meta page says");
        }
        let (found, stored) = (self.digest, proof.digest);
        if (found.records, found.keys) != (stored.records, stored.keys) {
            return whole("records are missing, or their keys are damaged");
        }
        if found.seals != stored.seals && self.damaged_records == 0 {
            return whole("some of its records are older than the others");
        }
        Ok(Verified {
            digest: found,
            damaged: self.damaged,
            damaged_records: self.damaged_records,
        })
    }
}

/// Takes a record and gives the pages that it lists as free.
type Visit<'v> = dyn FnMut(&[u8], &[u8]) -> Result<Vec<PageNumber>, PageError> + 'v;

/// A way through all pages, on which none may be met twice.
struct Walk<'f> {
    file: &'f File,
    /// Pages of the file, with its meta pages.
    pages: u64,
    page_bytes: u64,
    /// A bit for each page that is in use or free.
    used: Vec<u64>,
    /// The last of these.
    last: PageNumber,
    /// How many are, with the meta pages.
    accounted: u64,
}

/// What is counted in a tree.
#[derive(Default, PartialEq, Eq)]
struct Counts {
    pages: [u64; 3],
    entries: u64,
}

/// The keys that a page may have, from the first on and before the second.
#[derive(Clone, Copy)]
struct Bounds<'k> {
    low: Option<&'k [u8]>,
    high: Option<&'k [u8]>,
}

impl Walk<'_> {
    /// Counts pages as met.
    fn mark(&mut self, first: PageNumber, pages: u64) -> Result<(), IntegrityError> {
        let end = first.checked_add(pages).filter(|end| *end <= self.pages);
        if first < META_PAGES || end.is_none() {
            return Err(IntegrityError::Whole(
                "it leads to a page that it does not have",
            ));
        }
        for number in first..first + pages {
            let word = usize::try_from(number / 64).ok();
            let word = word.and_then(|word| self.used.get_mut(word));
            let bit = 1 << (number % 64);
            match word {
                Some(word) if *word & bit == 0 => *word |= bit,
                Some(_) | None => {
                    return Err(IntegrityError::Page {
                        number,
                        error: PageError("it is used twice, or in use and free"),
                    });
                }
            }
        }
        self.accounted += pages;
        self.last = self.last.max(first + pages - 1);
        Ok(())
    }

    fn read(&self, number: PageNumber, pages: u64) -> Result<Vec<u8>, IntegrityError> {
        read_page(self.file, number, self.page_bytes, pages)
            .map_err(|error| read_error(number, error))
    }

    fn tree(&mut self, tree: &Tree, visit: &mut Visit<'_>) -> Result<(), IntegrityError> {
        let mut counts = Counts::default();
        if tree.root == NO_PAGE && tree.depth == 0 {
            // Empty.
        } else if (1..=DEPTH_MAX).contains(&tree.depth) {
            let all = Bounds {
                low: None,
                high: None,
            };
            self.descend(tree, (tree.root, 1), all, &mut counts, visit)?;
        } else {
            return Err(IntegrityError::Whole("the depth of a tree is wrong"));
        }
        let expected = Counts {
            pages: tree.pages,
            entries: tree.entries,
        };
        match counts == expected {
            true => Ok(()),
            false => Err(IntegrityError::Whole(
                "a tree has another size than its meta page says",
            )),
        }
    }

    fn descend(
        &mut self,
        tree: &Tree,
        (number, level): (PageNumber, u16),
        bounds: Bounds<'_>,
        counts: &mut Counts,
        visit: &mut Visit<'_>,
    ) -> Result<(), IntegrityError> {
        self.mark(number, 1)?;
        let page = self.read(number, 1)?;
        let failed = |error| IntegrityError::Page { number, error };
        let is_leaf = level == tree.depth;
        let parsed = TreePage::parse(number, &page, is_leaf).map_err(failed)?;
        let nodes: Result<Vec<_>, _> = parsed.nodes().collect();
        let nodes = nodes.map_err(failed)?;
        let [branches, leaves, _] = &mut counts.pages;
        *(if is_leaf { leaves } else { branches }) += 1;
        if !is_leaf && nodes.len() < BRANCH_NODES_MIN && tree.keys == Keys::Bytes {
            return Err(failed(PageError("it has too few nodes")));
        }
        let mut last = bounds.low;
        for (index, node) in nodes.iter().enumerate() {
            // A branch's first key means nothing: its first child has what its own has.
            let named = is_leaf || index > 0;
            if named {
                check_key(tree, node.key, (last, is_leaf && index == 0), bounds.high)
                    .map_err(failed)?;
                last = Some(node.key);
            }
            match node.content {
                Content::Child(child) => {
                    let next = nodes.get(index + 1).map(|next| next.key);
                    let bounds = Bounds {
                        low: last,
                        high: next.or(bounds.high),
                    };
                    self.descend(tree, (child, level + 1), bounds, counts, visit)?;
                }
                Content::Inline(value) => {
                    counts.entries += 1;
                    let free = visit(node.key, value).map_err(failed)?;
                    free.into_iter().try_for_each(|page| self.mark(page, 1))?;
                }
                Content::Overflow(first, bytes) => {
                    counts.entries += 1;
                    let value = self.overflow(first, bytes, counts)?;
                    let free = visit(node.key, &value).map_err(failed)?;
                    free.into_iter().try_for_each(|page| self.mark(page, 1))?;
                }
            }
        }
        Ok(())
    }

    fn overflow(
        &mut self,
        number: PageNumber,
        bytes: u64,
        counts: &mut Counts,
    ) -> Result<Vec<u8>, IntegrityError> {
        let pages = overflow_pages(bytes, self.page_bytes);
        self.mark(number, pages)?;
        let [_, _, overflow] = &mut counts.pages;
        *overflow += pages;
        let page = self.read(number, pages)?;
        let failed = |error| IntegrityError::Page { number, error };
        let data = overflow_data(number, &page, pages).map_err(failed)?;
        let value = usize::try_from(bytes)
            .ok()
            .and_then(|bytes| data.get(..bytes));
        let value = value.ok_or(failed(PageError("its data is too long")))?;
        Ok(value.to_vec())
    }
}

/// Whether a key may stand where it does: after `last`, or where it is the first of a leaf at it.
fn check_key(
    tree: &Tree,
    key: &[u8],
    (last, may_equal): (Option<&[u8]>, bool),
    high: Option<&[u8]>,
) -> Result<(), PageError> {
    let length_is_right = match tree.keys {
        Keys::Numbers => key.len() == 8,
        Keys::Bytes => (1..=KEY_BYTES_MAX).contains(&key.len()),
    };
    let after =
        last.is_none_or(|last| tree.keys.are_sorted(last, key) || (may_equal && last == key));
    let before = high.is_none_or(|high| tree.keys.are_sorted(key, high));
    match length_is_right && after && before {
        true => Ok(()),
        false => Err(PageError("its keys are out of order")),
    }
}
