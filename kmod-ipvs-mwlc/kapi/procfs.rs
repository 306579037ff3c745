// SPDX-License-Identifier: GPL-2.0-only
//! Read-only text files in `/proc/net`, written in pieces.

use core::marker::PhantomData;
use core::ptr;

use kernel::fmt;
use kernel::prelude::*;

use super::bindings;
use super::pernet::Net;

/// A file.
pub(crate) trait File: Send + Sync + 'static {
    /// Its name in `/proc/net`.
    const NAME: &'static CStr;

    /// Writes piece `index` (0 is the first); false if there is no such piece, and then nothing was
    /// written.
    ///
    /// A piece that does not fit the reader's buffer is asked for again with a larger one.
    fn piece(net: &Net, index: u64, text: &mut Text) -> bool;
}

/// Where a file's text goes.
pub(crate) struct Text {
    seq: *mut bindings::seq_file,
}

impl Text {
    /// Adds formatted text. Overflow is remembered by the kernel, which then asks again with a
    /// larger buffer.
    pub(crate) fn write(&mut self, arguments: fmt::Arguments<'_>) {
        let _ = fmt::Write::write_fmt(self, arguments);
    }
}

impl fmt::Write for Text {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        // SAFETY: The file is being shown, and the text is valid for its length.
        unsafe { bindings::seq_write(self.seq, text.as_ptr().cast(), text.len()) };
        Ok(())
    }
}

/// A file in a namespace's `/proc/net`; dropping it removes it and waits for readers that are in
/// it.
pub(crate) struct Entry<F: File> {
    net: Net,
    _file: PhantomData<fn() -> F>,
}

impl<F: File> Entry<F> {
    /// Makes the file; `EEXIST` or `ENOMEM` are one to the kernel, so they are to us.
    pub(crate) fn new(net: Net) -> Result<Entry<F>> {
        // SAFETY: The namespace is valid, the name and the operations are static.
        let made = unsafe {
            bindings::mwlc_proc_create_seq(
                net.as_ptr(),
                F::NAME.as_char_ptr(),
                &Operations::<F>::TABLE,
            )
        };
        if made {
            Ok(Entry {
                net,
                _file: PhantomData,
            })
        } else {
            Err(ENOMEM)
        }
    }
}

impl<F: File> Drop for Entry<F> {
    fn drop(&mut self) {
        // SAFETY: `new` made it, and the namespace is valid as long as its state is.
        unsafe { bindings::mwlc_proc_remove(self.net.as_ptr(), F::NAME.as_char_ptr()) };
    }
}

struct Operations<F>(PhantomData<F>);

impl<F: File> Operations<F> {
    const TABLE: bindings::seq_operations = bindings::seq_operations {
        start: Some(start),
        next: Some(next),
        stop: Some(stop),
        show: Some(show::<F>),
    };
}

/// The end of a file is only known once its next piece was asked for, so the position itself is the
/// iterator: `show` stands on it, and writes nothing beyond the end. A position past this many
/// pieces ends the file whatever it says.
const PIECES_MAX: i64 = 1 << 32;

/// # Safety
///
/// Called by seq_file with a valid position.
unsafe extern "C" fn start(_seq: *mut bindings::seq_file, position: *mut i64) -> *mut c_void {
    // SAFETY: By the function's contract.
    if unsafe { *position } < PIECES_MAX {
        position.cast()
    } else {
        ptr::null_mut()
    }
}

/// # Safety
///
/// Called by seq_file with a valid position.
unsafe extern "C" fn next(
    _seq: *mut bindings::seq_file,
    _piece: *mut c_void,
    position: *mut i64,
) -> *mut c_void {
    // SAFETY: By the function's contract.
    unsafe {
        *position = (*position).saturating_add(1);
        if *position < PIECES_MAX {
            position.cast()
        } else {
            ptr::null_mut()
        }
    }
}

/// # Safety
///
/// Called by seq_file.
unsafe extern "C" fn stop(_seq: *mut bindings::seq_file, _piece: *mut c_void) {}

/// # Safety
///
/// Called by seq_file with what `start` or `next` returned.
unsafe extern "C" fn show<F: File>(seq: *mut bindings::seq_file, position: *mut c_void) -> c_int {
    // SAFETY: By the function's contract; the namespace is kept by the open file.
    unsafe {
        let position = position.cast::<i64>();
        let Some(net) = Net::from_raw(bindings::mwlc_seq_net(seq)) else {
            return EINVAL.to_errno();
        };
        let index = u64::try_from(*position).unwrap_or(u64::MAX);
        if !F::piece(&net, index, &mut Text { seq }) {
            *position = PIECES_MAX;
        }
    }
    0
}
