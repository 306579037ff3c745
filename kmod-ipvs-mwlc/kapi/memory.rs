// SPDX-License-Identifier: GPL-2.0-only
//! How much memory the machine has.

use super::bindings;

/// The machine's RAM, in bytes.
pub(crate) fn ram_bytes() -> u64 {
    // SAFETY: No requirements; it reads a counter.
    unsafe { bindings::mwlc_ram_bytes() as u64 }
}

/// The pages that are free or in buffers.
pub(crate) fn available_pages() -> u64 {
    // SAFETY: No requirements; it reads counters.
    unsafe { bindings::mwlc_ram_available_pages() as u64 }
}
