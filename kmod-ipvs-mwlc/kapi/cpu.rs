// SPDX-License-Identifier: GPL-2.0-only
//! Which CPU this is, and how many there may be.

use super::bindings;

/// The number of the CPU that runs this; it stays so in a softirq.
pub(crate) fn this() -> usize {
    // SAFETY: No requirements; it reads a per-CPU variable.
    unsafe { bindings::mwlc_cpu() as usize }
}

/// One more than the highest number that a CPU of this machine can have.
pub(crate) fn count() -> usize {
    // SAFETY: No requirements; it reads a variable that is set at boot.
    unsafe { bindings::mwlc_cpus() as usize }
}
