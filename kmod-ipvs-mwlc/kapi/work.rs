// SPDX-License-Identifier: GPL-2.0-only
//! Work that repeats in a kernel thread.

use core::marker::PhantomPinned;

use kernel::container_of;
use kernel::prelude::*;
use kernel::sync::Arc;
use kernel::types::Opaque;

use super::bindings;
use super::clock::HZ;

/// What repeats.
pub(crate) trait Periodic: Send + Sync + 'static {
    /// Milliseconds between two runs.
    const PERIOD_MS: u64;

    /// One run, in a context that may sleep.
    fn run(&self);
}

/// Repeats `T`'s work until it is dropped, which waits for a run that is under way.
#[pin_data(PinnedDrop)]
pub(crate) struct Repeater<T: Periodic> {
    #[pin]
    work: Opaque<bindings::delayed_work>,
    target: Arc<T>,
    #[pin]
    _pin: PhantomPinned,
}

// SAFETY: The kernel's work items may be queued and cancelled from any thread.
unsafe impl<T: Periodic> Send for Repeater<T> {}
// SAFETY: As above.
unsafe impl<T: Periodic> Sync for Repeater<T> {}

impl<T: Periodic> Repeater<T> {
    /// Starts repeating.
    pub(crate) fn start(target: Arc<T>) -> Result<Pin<KBox<Self>>> {
        let repeater = KBox::pin_init(
            pin_init!(Repeater {
                // SAFETY: The slot is valid for writing a work item and is pinned from here on.
                work <- Opaque::ffi_init(|slot| unsafe {
                    bindings::mwlc_delayed_work_setup(slot, Some(run::<T>))
                }),
                target,
                _pin: PhantomPinned,
            }),
            GFP_KERNEL,
        )?;
        repeater.queue();
        Ok(repeater)
    }

    fn queue(&self) {
        let delay = T::PERIOD_MS.saturating_mul(HZ) / 1000;
        // SAFETY: The work item was set up by `start`.
        unsafe { bindings::mwlc_delayed_work_queue(self.work.get(), delay as c_ulong) };
    }
}

#[pinned_drop]
impl<T: Periodic> PinnedDrop for Repeater<T> {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: The work item was set up; this waits for a run and keeps it from queueing itself
        // again.
        unsafe { bindings::cancel_delayed_work_sync(self.work.get()) };
    }
}

/// # Safety
///
/// Called by the kernel for the work item of a live `Repeater<T>`.
unsafe extern "C" fn run<T: Periodic>(work: *mut bindings::work_struct) {
    // A `delayed_work` begins with its `work_struct`.
    let work = work.cast::<Opaque<bindings::delayed_work>>();
    // SAFETY: By the function's contract; the drop waits for this run.
    let repeater = unsafe { &*container_of!(work, Repeater<T>, work) };
    repeater.target.run();
    repeater.queue();
}
