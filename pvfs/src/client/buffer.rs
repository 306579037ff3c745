// SPDX-License-Identifier: MIT
//! Page-aligned buffers that are used again and again.
//!
//! The kernel copies whole pages to and from aligned buffers about twice as fast as unaligned
//! ones, and a fresh megabyte costs 256 page faults. The alignment is had without `unsafe`: a
//! buffer allocates one page more than it needs and starts at the first page boundary in it.

use std::ops::{Deref, DerefMut};

use crate::runtime::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

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

/// A bounded set of buffers of one size, shared by threads.
///
/// A thread that takes a buffer while all are in use waits for one: memory is bounded, and the
/// waiting is the back-pressure. So no thread may hold one buffer while it takes another.
#[derive(Clone, Debug)]
pub struct BufferPool {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    buffer_bytes: usize,
    state: Mutex<State>,
    returned: Condvar,
}

#[derive(Debug)]
struct State {
    idle: Vec<AlignedBuffer>,
    /// How many buffers may still be allocated.
    unallocated: usize,
}

impl BufferPool {
    /// A pool of at most `buffers_max` buffers of `buffer_bytes` bytes, allocated as they are needed.
    #[must_use]
    pub fn new(buffer_bytes: usize, buffers_max: usize) -> Self {
        let state = Mutex::new(State {
            idle: Vec::new(),
            unallocated: buffers_max.max(1),
        });
        Self {
            shared: Arc::new(Shared {
                buffer_bytes,
                state,
                returned: Condvar::new(),
            }),
        }
    }

    /// Takes a buffer, waiting while all are in use. Its content is whatever the last user left.
    #[must_use]
    pub fn take(&self) -> PooledBuffer {
        let mut state = self.shared.lock();
        loop {
            if let Some(buffer) = state.idle.pop() {
                return self.hand_out(buffer);
            }
            if state.unallocated > 0 {
                state.unallocated -= 1;
                drop(state);
                return self.hand_out(AlignedBuffer::new(self.shared.buffer_bytes));
            }
            state = self
                .shared
                .returned
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn hand_out(&self, buffer: AlignedBuffer) -> PooledBuffer {
        PooledBuffer {
            buffer: Some(buffer),
            shared: Arc::clone(&self.shared),
        }
    }
}

impl Shared {
    /// A thread that panicked with the lock held left a list of buffers that is as good as any.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
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
            self.shared.lock().idle.push(buffer);
            self.shared.returned.notify_one();
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
    fn an_empty_pool_makes_the_taker_wait_for_a_returned_buffer() {
        let pool = BufferPool::new(16, 1);
        let held = pool.take();
        let address = held.as_ptr() as usize;
        let waiter = std::thread::spawn({
            let pool = pool.clone();
            move || pool.take().as_ptr() as usize
        });
        drop(held);
        assert_eq!(
            waiter.join().unwrap(),
            address,
            "a second buffer was allocated"
        );
    }
}
