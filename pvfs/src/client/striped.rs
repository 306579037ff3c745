// SPDX-License-Identifier: MIT
//! A file's bytes, spread over its iods: reads, writes and syncs that go to all of them at once.
//!
//! A contiguous range of a file is a contiguous range of each iod's local file (see
//! [`crate::layout`]), so a call needs one request for each iod, however many stripes it spans.
//! Replies are received straight into the caller's buffer and writes sent straight from it.

use std::ops::Range;

use super::pool::{Exchange, IodPool};
use crate::error::FsError;
use crate::ids::ObjectId;
use crate::layout::Layout;
use crate::limits::PAYLOAD_BYTES_MAX;
use crate::proto::iod::{Change, IodRequest, IodResponse, SeekTarget, StripeRef};
use crate::proto::seal::OrderKey;

/// A place in a file.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// Where the file's stripes are.
    pub layout: &'a Layout,
    /// Whose.
    pub object: ObjectId,
    /// So many bytes from the file's start on have all been written, as far as the caller knows (see
    /// [`Attr::filled`](crate::attr::Attr::filled)).
    pub filled: u64,
    /// Offset in the file, bytes.
    pub offset: u64,
}

impl Place<'_> {
    /// The same file, so many bytes further on.
    #[must_use]
    pub const fn after(&self, bytes: u64) -> Self {
        Self {
            offset: self.offset.saturating_add(bytes),
            ..*self
        }
    }
}

/// Fills `buffer` with the file's bytes from a place on. Bytes that no iod has are zeros, where
/// nothing says that they were written; where the file ends is the caller's knowledge.
///
/// # Errors
///
/// What an iod answered, [`FsError::Missing`] among it; [`FsError::Io`] where the pool's patience
/// ended first. The content of `buffer` is undefined then.
pub fn read(pool: &IodPool, from: &Place<'_>, buffer: &mut [u8]) -> Result<(), FsError> {
    let mut done = 0;
    // No iod's part of a piece of this length is above the limit of one payload.
    for piece in buffer.chunks_mut(PAYLOAD_BYTES_MAX) {
        let length = piece.len();
        let mut exchanges = scatter(&from.after(done), piece)?;
        pool.run(&mut exchanges)?;
        for exchange in exchanges {
            expect(exchange, &IodResponse::Data)?;
        }
        done += length as u64;
    }
    Ok(())
}

/// Stores `bytes` at `offset`; returns when every iod concerned has acknowledged its part. Durable
/// only after [`sync`]. For clients that take no leases; others use [`write_under`].
///
/// # Errors
///
/// What an iod answered, such as [`FsError::NoSpace`]; [`FsError::Io`] where the pool's patience
/// ended first. Any part may have been stored then.
pub fn write(
    pool: &IodPool,
    layout: &Layout,
    object: ObjectId,
    offset: u64,
    bytes: &[u8],
) -> Result<(), FsError> {
    write_under(pool, layout, object, 0, offset, bytes)
}

/// The same under a lease, whose [`Grant::fence`](crate::proto::lease::Grant::fence) is `fence`.
///
/// # Errors
///
/// The same; and [`FsError::Fenced`] where the lease has ended and others have written since, or may
/// have (see [`IodPool::while_held`]).
pub fn write_under(
    pool: &IodPool,
    layout: &Layout,
    object: ObjectId,
    fence: u64,
    offset: u64,
    bytes: &[u8],
) -> Result<(), FsError> {
    write_prefix(pool, layout, object, fence, offset, bytes).1
}

/// The same; says besides how many bytes from the first one on are stored, whatever became of the
/// others.
pub fn write_prefix(
    pool: &IodPool,
    layout: &Layout,
    object: ObjectId,
    fence: u64,
    offset: u64,
    bytes: &[u8],
) -> (usize, Result<(), FsError>) {
    let mut done = 0;
    for piece in bytes.chunks(PAYLOAD_BYTES_MAX) {
        let position = offset + done as u64;
        let mut exchanges = match gather(layout, object, (fence, position), piece) {
            Ok(exchanges) => exchanges,
            Err(error) => return (done, Err(error)),
        };
        let ran = pool.run(&mut exchanges);
        let mut failed = Vec::new();
        let mut worst = ran.err();
        for exchange in exchanges {
            let iod = exchange.iod;
            if let Err(error) = expect(exchange, &IodResponse::Done) {
                failed.push(iod);
                // Who comes too late writes all of it anew.
                if worst.is_none() || error == FsError::Fenced {
                    worst = Some(error);
                }
            }
        }
        let Some(error) = worst else {
            done += piece.len();
            continue;
        };
        let is_failed = |slot: usize| {
            layout
                .iods()
                .get(slot)
                .is_none_or(|iod| failed.contains(iod))
        };
        let mut extents = layout.extents(position, piece.len()).into_iter().flatten();
        let first = extents.find(|extent| is_failed(extent.slot));
        let stored = first.map_or(0, |extent| extent.request_offset);
        return (done + stored, Err(error));
    }
    (done, Ok(()))
}

/// Returns when everything that the file's iods have acknowledged is on their disks.
///
/// # Errors
///
/// [`FsError::Io`] where a disk failed or the pool's patience ended first.
pub fn sync(pool: &IodPool, layout: &Layout, object: ObjectId) -> Result<(), FsError> {
    let stripes = layout.stripes_of(object);
    on_all(pool, layout, |slot| IodRequest::Sync {
        stripe: stripes(slot),
    })
}

/// Cuts the file to `file_size` bytes, as mgr, whose `key` it is: each iod cuts its local file to its
/// part, and none grows.
///
/// # Errors
///
/// As [`sync`].
pub fn truncate(
    pool: &IodPool,
    layout: &Layout,
    object: ObjectId,
    file_size: u64,
    key: OrderKey,
) -> Result<(), FsError> {
    let stripes = layout.stripes_of(object);
    on_all(pool, layout, |slot| IodRequest::Truncate {
        stripe: stripes(slot),
        length: layout.local_size(slot, file_size),
        fence: 0,
        number: 0,
        change: Change::UNNAMED,
        key,
    })
}

/// Cuts off what a write of the caller's, who alone may write to the file, left beyond the end.
/// `fence` is as in [`write_under`].
///
/// # Errors
///
/// As [`write_under`]; also where the file has been truncated under the same lease.
pub fn cut_tail(
    pool: &IodPool,
    layout: &Layout,
    object: ObjectId,
    fence: u64,
    file_size: u64,
) -> Result<(), FsError> {
    let stripes = layout.stripes_of(object);
    on_all(pool, layout, |slot| IodRequest::CutTail {
        stripe: stripes(slot),
        length: layout.local_size(slot, file_size),
        fence,
        change: Change::UNNAMED,
    })
}

/// Removes the file's bytes from all its iods, as mgr, whose `key` it is.
///
/// # Errors
///
/// As [`sync`].
pub fn remove(
    pool: &IodPool,
    layout: &Layout,
    object: ObjectId,
    key: OrderKey,
) -> Result<(), FsError> {
    on_all(pool, layout, |_| IodRequest::Remove { object, key })
}

/// Reserves disk space for the bytes from `start` to `end`; content and lengths stay. `fence` is as
/// in [`write_under`].
///
/// # Errors
///
/// As [`write_under`].
pub fn allocate(
    pool: &IodPool,
    layout: &Layout,
    object: ObjectId,
    fence: u64,
    range: Range<u64>,
) -> Result<(), FsError> {
    on_parts(pool, layout, object, &range, |stripe, offset, length| {
        IodRequest::Allocate {
            stripe,
            offset,
            length,
            fence,
            change: Change::UNNAMED,
        }
    })
}

/// Makes the bytes from `start` to `end` zeros and gives their disk space back. `fence` is as in
/// [`write_under`].
///
/// # Errors
///
/// As [`write_under`].
pub fn punch(
    pool: &IodPool,
    layout: &Layout,
    object: ObjectId,
    fence: u64,
    range: Range<u64>,
) -> Result<(), FsError> {
    on_parts(pool, layout, object, &range, |stripe, offset, length| {
        IodRequest::Punch {
            stripe,
            offset,
            length,
            fence,
            change: Change::UNNAMED,
        }
    })
}

/// Where, from a place on and before `file_size`, data or a hole begins. The end of the file is a
/// hole; `None` where no data follows.
///
/// # Errors
///
/// As [`read`].
pub fn seek(
    pool: &IodPool,
    from: &Place<'_>,
    file_size: u64,
    target: SeekTarget,
) -> Result<Option<u64>, FsError> {
    let layout = from.layout;
    let slots = layout.iods().iter().enumerate();
    let stripes = layout.stripes_of(from.object);
    let mut exchanges: Vec<_> = slots
        .map(|(slot, iod)| {
            let request = IodRequest::Seek {
                stripe: stripes(slot),
                offset: layout.local_size(slot, from.offset),
                target,
                filled: layout.local_size(slot, from.filled),
            };
            Exchange::control(*iod, request)
        })
        .collect();
    pool.run(&mut exchanges)?;
    // Stripes keep their order at each iod, so the first of all is the first of one of them.
    let mut first: Option<u64> = None;
    for (slot, exchange) in exchanges.into_iter().enumerate() {
        let IodResponse::Position(position) = response(exchange)? else {
            return Err(FsError::Protocol);
        };
        let found = position.and_then(|position| layout.file_offset(slot, position));
        first = first.into_iter().chain(found).min();
    }
    let first = first.filter(|first| *first < file_size);
    Ok(match target {
        SeekTarget::Data => first,
        SeekTarget::Hole => Some(first.unwrap_or(file_size)),
    })
}

/// Disk space that the file's parts take together, bytes.
///
/// # Errors
///
/// As [`sync`].
pub fn allocated(pool: &IodPool, layout: &Layout, object: ObjectId) -> Result<u64, FsError> {
    let iods = layout.iods().iter();
    let mut exchanges: Vec<_> = iods
        .map(|iod| Exchange::control(*iod, IodRequest::Stat { object }))
        .collect();
    pool.run(&mut exchanges)?;
    exchanges.into_iter().try_fold(0, |sum: u64, exchange| {
        let IodResponse::Stat { allocated, .. } = response(exchange)? else {
            return Err(FsError::Protocol);
        };
        Ok(sum.saturating_add(allocated))
    })
}

/// Copies `length` bytes between files whose places [align](Layout::aligns): each iod copies its
/// own part, and no byte travels. Parts that overlap give undefined content. `fence` is that of the
/// lease on the file that is copied to.
///
/// # Errors
///
/// As [`write_under`]; [`FsError::InvalidArgument`] where the places do not align.
pub fn copy_at_iods(
    pool: &IodPool,
    from: &Place<'_>,
    to: &Place<'_>,
    fence: u64,
    length: u64,
) -> Result<(), FsError> {
    if !from.layout.aligns(from.offset, to.layout, to.offset) {
        return Err(FsError::InvalidArgument);
    }
    let end = |offset: u64| offset.checked_add(length).ok_or(FsError::FileTooLarge);
    let (from_end, to_end) = (end(from.offset)?, end(to.offset)?);
    let mut exchanges = Vec::new();
    let from_stripes = from.layout.stripes_of(from.object);
    let to_stripes = to.layout.stripes_of(to.object);
    for (slot, iod) in from.layout.iods().iter().enumerate() {
        let source = from.layout.local_range(slot, from.offset, from_end);
        let target = to.layout.local_range(slot, to.offset, to_end);
        if !source.is_empty() {
            let request = IodRequest::Copy {
                from: from_stripes(slot),
                from_offset: source.start,
                from_filled: from.layout.local_size(slot, from.filled),
                to: to_stripes(slot),
                to_offset: target.start,
                length: source.end - source.start,
                fence,
                change: Change::UNNAMED,
            };
            exchanges.push(Exchange::control(*iod, request));
        }
    }
    carry_out(pool, exchanges)
}

/// Sends the request for each slot that has a part of the file's bytes of `range`.
fn on_parts(
    pool: &IodPool,
    layout: &Layout,
    object: ObjectId,
    range: &Range<u64>,
    request: impl Fn(StripeRef, u64, u64) -> IodRequest,
) -> Result<(), FsError> {
    let slots = layout.iods().iter().enumerate();
    let stripes = layout.stripes_of(object);
    let exchanges = slots
        .filter_map(|(slot, iod)| {
            let part = layout.local_range(slot, range.start, range.end);
            let request = || request(stripes(slot), part.start, part.end - part.start);
            (!part.is_empty()).then(|| Exchange::control(*iod, request()))
        })
        .collect();
    carry_out(pool, exchanges)
}

/// Sends the request for each slot of the layout; all must answer [`IodResponse::Done`].
fn on_all(
    pool: &IodPool,
    layout: &Layout,
    request: impl Fn(usize) -> IodRequest,
) -> Result<(), FsError> {
    let slots = layout.iods().iter().enumerate();
    let exchanges = slots
        .map(|(slot, iod)| Exchange::control(*iod, request(slot)))
        .collect();
    carry_out(pool, exchanges)
}

/// Runs the exchanges; all must answer [`IodResponse::Done`].
fn carry_out(pool: &IodPool, mut exchanges: Vec<Exchange<'_>>) -> Result<(), FsError> {
    pool.run(&mut exchanges)?;
    exchanges
        .into_iter()
        .try_for_each(|exchange| expect(exchange, &IodResponse::Done))
}

fn response(exchange: Exchange<'_>) -> Result<IodResponse, FsError> {
    exchange.reply.unwrap_or(Err(FsError::Io))
}

fn expect(exchange: Exchange<'_>, wanted: &IodResponse) -> Result<(), FsError> {
    if response(exchange)? == *wanted {
        Ok(())
    } else {
        Err(FsError::Protocol)
    }
}

/// The read requests that fill `buffer`, with the parts of it that each reply fills.
fn scatter<'a>(from: &Place<'_>, buffer: &'a mut [u8]) -> Result<Vec<Exchange<'a>>, FsError> {
    let layout = from.layout;
    let extents = layout.extents(from.offset, buffer.len())?;
    let stripes = layout.stripes_of(from.object);
    let mut slots = Slots::new(layout);
    let mut rest = buffer;
    for extent in extents {
        let (part, after) = rest
            .split_at_mut_checked(extent.length)
            .ok_or(FsError::Io)?;
        rest = after;
        let request = |iod| {
            let offset = extent.local_offset;
            Exchange::control(
                iod,
                IodRequest::Read {
                    stripe: stripes(extent.slot),
                    offset,
                    length: 0,
                    filled: layout.local_size(extent.slot, from.filled),
                },
            )
        };
        let exchange = slots.of(extent.slot, request)?;
        if let IodRequest::Read { length, .. } = &mut exchange.request {
            // A piece is at most PAYLOAD_BYTES_MAX long, so the sum fits.
            *length += u32::try_from(extent.length).map_err(|_| FsError::MessageTooLong)?;
        }
        exchange.scatter.push(part);
    }
    Ok(slots.exchanges)
}

/// The write requests that store `bytes`, with the parts of it that each carries.
fn gather<'a>(
    layout: &Layout,
    object: ObjectId,
    (fence, offset): (u64, u64),
    bytes: &'a [u8],
) -> Result<Vec<Exchange<'a>>, FsError> {
    let stripes = layout.stripes_of(object);
    let mut slots = Slots::new(layout);
    let mut rest = bytes;
    for extent in layout.extents(offset, bytes.len())? {
        let (part, after) = rest.split_at_checked(extent.length).ok_or(FsError::Io)?;
        rest = after;
        let request = |iod| {
            Exchange::control(
                iod,
                IodRequest::Write {
                    stripe: stripes(extent.slot),
                    offset: extent.local_offset,
                    fence,
                    change: Change::UNNAMED,
                },
            )
        };
        slots.of(extent.slot, request)?.gather.push(part);
    }
    Ok(slots.exchanges)
}

/// One exchange for each slot that a range touches, in the order in which it touches them.
///
/// Slots are touched in turn, round and round, so a slot's exchange is found by counting from the
/// first one: no table of up to 512 slots is needed for a request that touches two.
struct Slots<'l, 'a> {
    layout: &'l Layout,
    first_slot: Option<usize>,
    exchanges: Vec<Exchange<'a>>,
}

impl<'l, 'a> Slots<'l, 'a> {
    const fn new(layout: &'l Layout) -> Self {
        Self {
            layout,
            first_slot: None,
            exchanges: Vec::new(),
        }
    }

    /// The exchange of `slot`, made by `request` when the range first touches it.
    fn of(
        &mut self,
        slot: usize,
        request: impl FnOnce(crate::ids::IodId) -> Exchange<'a>,
    ) -> Result<&mut Exchange<'a>, FsError> {
        let iods = self.layout.iods();
        let first = *self.first_slot.get_or_insert(slot);
        let position = (slot + iods.len() - first) % iods.len().max(1);
        if position == self.exchanges.len() {
            let iod = iods.get(slot).ok_or(FsError::InvalidArgument)?;
            self.exchanges.push(request(*iod));
        }
        self.exchanges
            .get_mut(position)
            .ok_or(FsError::InvalidArgument)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{InodeNumber, IodId};
    use proptest::prelude::*;

    const OBJECT: ObjectId = ObjectId {
        inode: InodeNumber(2),
        generation: 0,
    };

    proptest! {
        /// One request for each iod, contiguous in its local file, and together exactly the range.
        #[test]
        fn a_range_becomes_one_contiguous_request_for_each_iod(
            iods in 1u32..6,
            offset in 0u64..1 << 20,
            length in 0usize..100_000,
        ) {
            let layout = Layout::new(4096, 0, (10..10 + iods).map(IodId).collect()).unwrap();
            let bytes: Vec<u8> = (0..length).map(|i| (i % 251) as u8).collect();
            let writes = gather(&layout, OBJECT, (3, offset), &bytes).unwrap();
            let mut asked: Vec<IodId> = writes.iter().map(|exchange| exchange.iod).collect();
            asked.sort();
            asked.dedup();
            prop_assert_eq!(asked.len(), writes.len());
            let mut local: Vec<Vec<Option<u8>>> = vec![Vec::new(); iods as usize];
            for exchange in &writes {
                let IodRequest::Write { offset, fence: 3, .. } = exchange.request else { panic!() };
                let file = &mut local[(exchange.iod.0 - 10) as usize];
                let content = exchange.gather.concat();
                file.resize(offset as usize + content.len(), None);
                for (at, byte) in content.iter().enumerate() {
                    file[offset as usize + at] = Some(*byte);
                }
            }
            for extent in layout.extents(offset, length).unwrap() {
                for at in [0, extent.length - 1] {
                    let stored = local[extent.slot][extent.local_offset as usize + at];
                    prop_assert_eq!(stored, Some(bytes[extent.request_offset + at]));
                }
            }
            let mut buffer = vec![0; length];
            let from = Place {
                layout: &layout,
                object: OBJECT,
                filled: offset + 7,
                offset,
            };
            let reads = scatter(&from, &mut buffer).unwrap();
            prop_assert_eq!(reads.len(), writes.len());
            for (read, write) in reads.iter().zip(&writes) {
                let IodRequest::Read { length, filled, .. } = read.request else { panic!() };
                prop_assert_eq!(filled, layout.local_size((read.iod.0 - 10) as usize, offset + 7));
                prop_assert_eq!(length as usize, write.gather.concat().len());
                prop_assert_eq!(length as usize, read.scatter.iter().map(|p| p.len()).sum::<usize>());
            }
        }
    }
}
