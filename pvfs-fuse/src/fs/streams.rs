// SPDX-License-Identifier: MIT
//! Open directory streams: up to which entry each is read.
//!
//! New entries stand behind all others, and a program that makes one for each that it reads would
//! never come to an end. So a stream ends with the entry that was the last when its reading began,
//! at its start or after rewinddir(3).

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The streams of a mount by their FUSE handles: as many as the kernel has open.
#[derive(Debug, Default)]
pub(super) struct Streams {
    /// mgr's cookie of the last entry; `None` until mgr has said it.
    ends: Mutex<HashMap<u64, Option<u64>>>,
    handle_last: AtomicU64,
}

impl Streams {
    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Option<u64>>> {
        self.ends.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new stream.
    pub(super) fn open(&self) -> u64 {
        let handle = self.handle_last.fetch_add(1, Ordering::Relaxed) + 1;
        self.lock().insert(handle, None);
        handle
    }

    /// Ends a stream.
    pub(super) fn close(&self, handle: u64) {
        self.lock().remove(&handle);
    }

    /// The stream is read from its start: what has been made since belongs to it.
    pub(super) fn rewind(&self, handle: u64) {
        self.set(handle, None);
    }

    /// Where the stream ends, if that is known.
    pub(super) fn end(&self, handle: u64) -> Option<u64> {
        self.lock().get(&handle).copied().flatten()
    }

    /// Notes where it ends.
    pub(super) fn ends_at(&self, handle: u64, cookie: u64) {
        self.set(handle, Some(cookie));
    }

    fn set(&self, handle: u64, end: Option<u64>) {
        if let Some(known) = self.lock().get_mut(&handle) {
            *known = end;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_kept_until_the_stream_is_rewound_or_closed() {
        let streams = Streams::default();
        let (one, other) = (streams.open(), streams.open());
        assert_eq!(streams.end(one), None);
        streams.ends_at(one, 7);
        streams.ends_at(other, 9);
        assert_eq!((streams.end(one), streams.end(other)), (Some(7), Some(9)));
        streams.rewind(one);
        assert_eq!((streams.end(one), streams.end(other)), (None, Some(9)));
        streams.close(other);
        streams.ends_at(other, 9);
        assert_eq!(streams.end(other), None);
        assert_eq!(streams.lock().len(), 1);
    }
}
