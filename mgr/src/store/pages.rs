// SPDX-License-Identifier: MIT
//! The pages of LMDB's file as bytes, parsed without trusting any of them: `mdb.c` of LMDB 0.9
//! describes them (`MDB_page`, `MDB_node`, `MDB_meta`, `MDB_db`). LMDB itself believes every byte of
//! its file, so that a flipped bit could make it read or write anywhere.

use thiserror::Error;

/// A page's number.
pub type PageNumber = u64;

/// What stands for no page.
pub const NO_PAGE: PageNumber = u64::MAX;
/// The first two pages say where everything begins; all others belong to one of the trees or are free.
pub const META_PAGES: u64 = 2;
/// Bytes of a meta page that mean something.
pub const META_BYTES: usize = HEADER_BYTES + 136;
/// Where its last two fields are: the last page in use and the transaction.
pub const META_END_AT: u64 = META_BYTES as u64 - 16;

const HEADER_BYTES: usize = 16;
const NODE_BYTES: usize = 8;
const POINTER_BYTES: usize = 2;
const PAGE_NUMBER_BYTES: usize = 8;
const PAGE_BYTES_MIN: u32 = 512;
const PAGE_BYTES_MAX: u32 = 32 << 10;
const MAGIC: u32 = 0xbeef_c0de;
/// Flags of a page.
const BRANCH: u16 = 0x01;
const LEAF: u16 = 0x02;
const OVERFLOW: u16 = 0x04;
const META: u16 = 0x08;
/// A node's data is on overflow pages.
const BIG_DATA: u16 = 0x01;
/// Flags of the tree of free pages: its keys are integers of the machine, and the file was made under
/// a name of its own (`MDB_INTEGERKEY`, `MDB_NOSUBDIR`).
const FREE_TREE_FLAGS: u16 = 0x4008;

// LMDB's file has the machine's own integers; sizes of a page number are those of 64-bit machines.
const _: () = assert!(usize::BITS == 64);

/// What is wrong with a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct PageError(pub &'static str);

const fn wrong(what: &'static str) -> PageError {
    PageError(what)
}

fn array<const LENGTH: usize>(bytes: &[u8], at: usize) -> Result<[u8; LENGTH], PageError> {
    let field = bytes.get(at..).and_then(|rest| rest.first_chunk());
    field.copied().ok_or(wrong("it ends too early"))
}

fn u16_at(bytes: &[u8], at: usize) -> Result<u16, PageError> {
    array(bytes, at).map(u16::from_ne_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Result<u32, PageError> {
    array(bytes, at).map(u32::from_ne_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Result<u64, PageError> {
    array(bytes, at).map(u64::from_ne_bytes)
}

/// How one of the two trees sorts its keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keys {
    /// Numbers of transactions: the tree of free pages.
    Numbers,
    /// Bytes: the records.
    Bytes,
}

impl Keys {
    /// Whether `before` sorts before `after`.
    #[must_use]
    pub fn are_sorted(self, before: &[u8], after: &[u8]) -> bool {
        match self {
            Self::Numbers => u64_at(before, 0).ok() < u64_at(after, 0).ok(),
            Self::Bytes => before < after,
        }
    }
}

/// What a meta page says of a tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tree {
    /// Its keys.
    pub keys: Keys,
    /// Levels of pages.
    pub depth: u16,
    /// Pages of each kind: branches, leaves, overflow.
    pub pages: [u64; 3],
    /// Records.
    pub entries: u64,
    /// Where it begins; [`NO_PAGE`] for an empty one.
    pub root: PageNumber,
}

/// A meta page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meta {
    /// Bytes of a page.
    pub page_bytes: u32,
    /// Free pages, by the transaction that freed them.
    pub free: Tree,
    /// The records.
    pub main: Tree,
    /// The last page in use.
    pub last_page: PageNumber,
    /// The transaction that wrote it.
    pub transaction: u64,
}

impl Meta {
    /// The meta page `number`. Its version is LMDB's to look at.
    ///
    /// # Errors
    ///
    /// Says what is wrong with it.
    pub fn parse(number: PageNumber, page: &[u8]) -> Result<Self, PageError> {
        if u64_at(page, 0)? != number || u16_at(page, 10)? != META {
            return Err(wrong("it is no meta page"));
        }
        let meta = page.get(HEADER_BYTES..).unwrap_or_default();
        // An address stands there only if the map is to be at a fixed place.
        if u32_at(meta, 0)? != MAGIC || u64_at(meta, 8)? != 0 {
            return Err(wrong("it is no meta page of LMDB"));
        }
        let page_bytes = u32_at(meta, 24)?;
        let sound = (PAGE_BYTES_MIN..=PAGE_BYTES_MAX).contains(&page_bytes);
        if !sound || !page_bytes.is_power_of_two() || u32_at(meta, 72)? != 0 {
            return Err(wrong("its size of pages is none"));
        }
        let last_page = u64_at(meta, 120)?;
        let tree = |at: usize, keys: Keys| {
            let flags = match keys {
                Keys::Numbers => FREE_TREE_FLAGS,
                Keys::Bytes => 0,
            };
            if u16_at(meta, at + 4)? != flags {
                return Err(wrong("the flags of a tree are wrong"));
            }
            Ok(Tree {
                keys,
                depth: u16_at(meta, at + 6)?,
                pages: [
                    u64_at(meta, at + 8)?,
                    u64_at(meta, at + 16)?,
                    u64_at(meta, at + 24)?,
                ],
                entries: u64_at(meta, at + 32)?,
                root: u64_at(meta, at + 40)?,
            })
        };
        Ok(Self {
            page_bytes,
            free: tree(24, Keys::Numbers)?,
            main: tree(72, Keys::Bytes)?,
            last_page,
            transaction: u64_at(meta, 128)?,
        })
    }
}

impl Meta {
    /// The last two fields of a meta page, which stand at [`META_END_AT`].
    #[must_use]
    pub fn end_bytes(last_page: PageNumber, transaction: u64) -> Vec<u8> {
        [last_page.to_ne_bytes(), transaction.to_ne_bytes()].concat()
    }
}

/// A node of a tree's page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Node<'p> {
    /// Its key; of a branch's first node it means nothing.
    pub key: &'p [u8],
    /// What it leads to.
    pub content: Content<'p>,
}

/// What a node leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content<'p> {
    /// A page of the next level.
    Child(PageNumber),
    /// The data itself.
    Inline(&'p [u8]),
    /// So many bytes of data from this overflow page on.
    Overflow(PageNumber, u64),
}

/// A page of a tree whose nodes are within it and do not overlap.
#[derive(Clone, Copy, Debug)]
pub struct TreePage<'p> {
    page: &'p [u8],
    is_leaf: bool,
    count: usize,
}

impl<'p> TreePage<'p> {
    /// The page `number`, a leaf or a branch.
    ///
    /// # Errors
    ///
    /// Says what is wrong with it.
    pub fn parse(number: PageNumber, page: &'p [u8], is_leaf: bool) -> Result<Self, PageError> {
        let kind = if is_leaf { LEAF } else { BRANCH };
        if u64_at(page, 0)? != number || u16_at(page, 10)? != kind {
            return Err(wrong("it is not the page that was expected"));
        }
        let lower = usize::from(u16_at(page, 12)?);
        let upper = usize::from(u16_at(page, 14)?);
        let pointers = lower.checked_sub(HEADER_BYTES);
        let pointers = pointers.filter(|bytes| bytes % POINTER_BYTES == 0 && *bytes > 0);
        let count = pointers.ok_or(wrong("its bounds are wrong"))? / POINTER_BYTES;
        if lower > upper || upper > page.len() {
            return Err(wrong("its bounds are wrong"));
        }
        let parsed = Self {
            page,
            is_leaf,
            count,
        };
        parsed.check_tiles(upper)?;
        Ok(parsed)
    }

    /// LMDB keeps nodes side by side up to the end of the page, in any order.
    fn check_tiles(&self, upper: usize) -> Result<(), PageError> {
        let mut tiles = Vec::with_capacity(self.count);
        for index in 0..self.count {
            let at = self.pointer(index)?;
            let (node, bytes) = self.node_at(at)?;
            // Only a leaf's record has to have a key.
            if node.key.is_empty() && self.is_leaf {
                return Err(wrong("a key is missing"));
            }
            tiles.push((at, bytes.next_multiple_of(2)));
        }
        tiles.sort_unstable();
        let mut next = upper;
        for (at, bytes) in tiles {
            if at != next {
                return Err(wrong("its nodes overlap, or there are gaps between them"));
            }
            next += bytes;
        }
        match next == self.page.len() {
            true => Ok(()),
            false => Err(wrong("its nodes do not fill it")),
        }
    }

    fn pointer(&self, index: usize) -> Result<usize, PageError> {
        u16_at(self.page, HEADER_BYTES + index * POINTER_BYTES).map(usize::from)
    }

    fn node_at(&self, at: usize) -> Result<(Node<'p>, usize), PageError> {
        let low = u64::from(u16_at(self.page, at)?) | u64::from(u16_at(self.page, at + 2)?) << 16;
        let flags = u16_at(self.page, at + 4)?;
        let key_bytes = usize::from(u16_at(self.page, at + 6)?);
        let part = |at: usize, bytes: usize| {
            let part = self.page.get(at..at.saturating_add(bytes));
            part.ok_or(wrong("a node reaches beyond it"))
        };
        let key = part(at + NODE_BYTES, key_bytes)?;
        let data_at = at + NODE_BYTES + key_bytes;
        let (content, data_bytes) = if !self.is_leaf {
            (Content::Child(low | u64::from(flags) << 32), 0)
        } else if flags == 0 {
            let bytes = usize::try_from(low).unwrap_or(usize::MAX);
            (Content::Inline(part(data_at, bytes)?), bytes)
        } else if flags == BIG_DATA {
            part(data_at, PAGE_NUMBER_BYTES)?;
            (
                Content::Overflow(u64_at(self.page, data_at)?, low),
                PAGE_NUMBER_BYTES,
            )
        } else {
            return Err(wrong("the flags of a node are wrong"));
        };
        let node = Node { key, content };
        Ok((node, NODE_BYTES + key_bytes + data_bytes))
    }

    /// Its nodes.
    pub fn nodes(self) -> impl Iterator<Item = Result<Node<'p>, PageError>> {
        (0..self.count).map(move |index| Ok(self.node_at(self.pointer(index)?)?.0))
    }
}

/// How many overflow pages `bytes` bytes of data take: the first has a header.
#[must_use]
pub const fn overflow_pages(bytes: u64, page_bytes: u64) -> u64 {
    (HEADER_BYTES as u64 - 1 + bytes) / page_bytes + 1
}

/// The part of the overflow page `number`, the first of `pages`, behind its header.
///
/// # Errors
///
/// Says what is wrong with it.
pub fn overflow_data(number: PageNumber, page: &[u8], pages: u64) -> Result<&[u8], PageError> {
    let sound = u64_at(page, 0)? == number
        && u16_at(page, 10)? == OVERFLOW
        && u64::from(u32_at(page, 12)?) == pages;
    match sound {
        true => Ok(page.get(HEADER_BYTES..).unwrap_or_default()),
        false => Err(wrong("it is not the overflow page that was expected")),
    }
}

/// The free pages that a record of the tree of free pages lists.
///
/// # Errors
///
/// Says what is wrong with it.
pub fn free_pages(data: &[u8]) -> Result<Vec<PageNumber>, PageError> {
    let mut chunks = data.chunks_exact(PAGE_NUMBER_BYTES);
    let rest = chunks.clone().remainder();
    let mut numbers = chunks
        .by_ref()
        .filter_map(|number| number.try_into().ok())
        .map(u64::from_ne_bytes);
    let count = numbers.next().and_then(|count| usize::try_from(count).ok());
    let count = count.ok_or(wrong("a list of free pages has no length"))?;
    let pages: Vec<PageNumber> = numbers.take(count).collect();
    let sorted = pages.windows(2).all(|pair| pair.first() > pair.last());
    match rest.is_empty() && pages.len() == count && sorted {
        true => Ok(pages),
        false => Err(wrong("a list of free pages is wrong")),
    }
}
