// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! A packet of which only a first part may be at hand.

use super::ParseError;

/// A packet of which the first bytes are at hand.
pub(super) struct View<'a> {
    pub(super) bytes: &'a [u8],
    /// Where the packet ends; `bytes` may end before or after.
    pub(super) end: usize,
}

impl View<'_> {
    /// `N` bytes at `start`: beyond the packet's end it is malformed, beyond the slice's it needs more.
    pub(super) fn read<const N: usize>(&self, start: usize) -> Result<[u8; N], ParseError> {
        let end = start.saturating_add(N);
        if end > self.end {
            return Err(ParseError::Malformed);
        }
        self.bytes
            .get(start..)
            .and_then(|rest| rest.first_chunk::<N>())
            .copied()
            .ok_or(ParseError::NeedBytes(end))
    }
}
