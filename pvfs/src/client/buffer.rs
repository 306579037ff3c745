// SPDX-License-Identifier: MIT
//! Page-aligned buffers that are used again and again.
//!
//! The kernel copies whole pages to and from aligned buffers about twice as fast as unaligned
//! ones, and a fresh megabyte costs 256 page faults. The alignment is had without `unsafe`: a
//! buffer allocates one page more than it needs and starts at the first page boundary in it.

use std::ops::{Deref, DerefMut};

use crate::runtime::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Alignment of every buffer, bytes: the page size of x86-64, and a part of larger pages.
pub const BUFFER_ALIGNMENT_BYTES: usize = 4096;

/// A zeroed buffer whose first byte is page-aligned.
#[derive(Debug)]
pub struct AlignedBuffer {
    bytes: Vec<u8>,
    start: usize,
    length: usize,
}

impl AlignedBuffer {
    /// A buffer of `length` bytes. The kernel hands out its pages when they are first touched.
    #[must_use]
    pub fn new(length: usize) -> Self {
        let bytes = vec![0; length + BUFFER_ALIGNMENT_BYTES - 1];
        let start = (bytes.as_ptr() as usize).wrapping_neg() % BUFFER_ALIGNMENT_BYTES;
        Self {
            bytes,
            start,
            length,
        }
    }
}

impl Deref for AlignedBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // `start` is below the alignment, so the range is always within the allocation.
        self.bytes
            .get(self.start..self.start + self.length)
            .unwrap_or_default()
    }
}

impl DerefMut for AlignedBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        self.bytes
            .get_mut(self.start..self.start + self.length)
            .unwrap_or_default()
    }
}

/// Buffers of one size, kept for those who take one next.
///
/// Nobody waits for a buffer: whoever has one may wait for a daemon that is away. There are as many as
/// there are takers at a time, and a bounded number is kept.
#[derive(Clone, Debug)]
pub struct BufferPool {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    buffer_bytes: usize,
    kept_max: usize,
    idle: Mutex<Vec<AlignedBuffer>>,
}

impl BufferPool {
    /// A pool of buffers of `buffer_bytes` bytes, that keeps at most `kept_max` which nobody uses.
    #[must_use]
    pub fn new(buffer_bytes: usize, kept_max: usize) -> Self {
        Self {
            shared: Arc::new(Shared {
                buffer_bytes,
                kept_max,
                idle: Mutex::default(),
            }),
        }
    }

    /// Takes a buffer. Its content is whatever the last user left.
    #[must_use]
    pub fn take(&self) -> PooledBuffer {
        let kept = self.shared.lock().pop();
        PooledBuffer {
            buffer: Some(kept.unwrap_or_else(|| AlignedBuffer::new(self.shared.buffer_bytes))),
            shared: Arc::clone(&self.shared),
        }
    }
}

impl Shared {
    /// A thread that panicked with the lock held left a list of buffers that is as good as any.
    fn lock(&self) -> MutexGuard<'_, Vec<AlignedBuffer>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A buffer that goes back to its pool when it is dropped.
#[derive(Debug)]
pub struct PooledBuffer {
    buffer: Option<AlignedBuffer>,
    shared: Arc<Shared>,
}

impl Deref for PooledBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.buffer.as_deref().unwrap_or_default()
    }
}

impl DerefMut for PooledBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        self.buffer.as_deref_mut().unwrap_or_default()
    }
}

impl Drop for PooledBuffer {
    fn drop(&mut self) {
        if let Some(buffer) = self.buffer.take() {
            let mut idle = self.shared.lock();
            if idle.len() < self.shared.kept_max {
                idle.push(buffer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_aligned_and_of_the_asked_length() {
        for length in [0, 1, 4095, 4096, 4097, 1 << 20] {
            let mut buffer = AlignedBuffer::new(length);
            assert_eq!(buffer.len(), length);
            assert_eq!(
                buffer.as_ptr() as usize % BUFFER_ALIGNMENT_BYTES,
                0,
                "length {length}"
            );
            buffer.fill(7);
            assert!(buffer.iter().all(|byte| *byte == 7));
        }
    }

    #[test]
    fn a_returned_buffer_is_used_again() {
        let pool = BufferPool::new(4096, 2);
        let mut first = pool.take();
        first[0] = 42;
        let address = first.as_ptr();
        drop(first);
        let again = pool.take();
        assert_eq!((again.as_ptr(), again[0]), (address, 42));
    }

    #[test]
    fn nobody_waits_for_a_buffer_and_few_are_kept() {
        let pool = BufferPool::new(16, 1);
        let taken: Vec<_> = (0..100).map(|_| pool.take()).collect();
        drop(taken);
        assert_eq!(pool.shared.lock().len(), 1);
    }
}
