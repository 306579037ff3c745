// SPDX-License-Identifier: GPL-2.0-only
//! Integers under `/proc/sys/net/ipv4/vs` of a network namespace.

use core::ptr::NonNull;

use kernel::container_of;
use kernel::ffi::c_void;
use kernel::prelude::*;

use super::atomic::{Atomic, Relaxed};
use super::bindings;
use super::pernet::Net;

/// A variable: what `sysctl` may write into it.
pub(crate) struct Variable {
    /// The variable's name.
    pub(crate) name: &'static CStr,
    /// Its value at first.
    pub(crate) default: i32,
    /// The least value; a lower one is refused with EINVAL.
    pub(crate) min: i32,
    /// The greatest value.
    pub(crate) max: i32,
    /// Hears of a value that was refused.
    pub(crate) refused: fn(&'static Variable),
}

/// The variables of one namespace; dropping it removes the files and waits for who is in them.
///
/// # Invariants
///
/// `table` is registered as `header`; each of its entries points to the value with its index, whose
/// memory does not move, and to static bounds.
pub(crate) struct Sysctls {
    values: KVec<Atomic<i32>>,
    _table: KVec<bindings::ctl_table>,
    header: NonNull<bindings::ctl_table_header>,
}

// SAFETY: The raw pointers are the kernel's to follow, from any CPU; the values are atomic.
unsafe impl Send for Sysctls {}
// SAFETY: As above.
unsafe impl Sync for Sysctls {}

/// Who may write: the owner of the namespace, as the kernel has it for every net sysctl.
const MODE: u16 = 0o644;

impl Sysctls {
    /// Makes the files.
    pub(crate) fn new(net: Net, variables: &'static [Variable]) -> Result<Sysctls> {
        let mut values = KVec::with_capacity(variables.len(), GFP_KERNEL)?;
        for variable in variables {
            values
                .push_within_capacity(Atomic::new(variable.default))
                .map_err(|_| ENOMEM)?;
        }
        let mut table = KVec::with_capacity(variables.len(), GFP_KERNEL)?;
        for (variable, value) in variables.iter().zip(&values) {
            let entry = bindings::ctl_table {
                procname: variable.name.as_char_ptr(),
                data: core::ptr::from_ref(value).cast_mut().cast(),
                maxlen: size_of::<i32>() as c_int,
                mode: MODE,
                proc_handler: Some(handle),
                // The handler only reads them. The first is where it finds the variable, too.
                extra1: core::ptr::from_ref(&variable.min).cast_mut().cast(),
                extra2: core::ptr::from_ref(&variable.max).cast_mut().cast(),
                ..Default::default()
            };
            table.push_within_capacity(entry).map_err(|_| ENOMEM)?;
        }
        // SAFETY: The table and the values are on the heap and stay until they are unregistered.
        // The handler reads and writes each value as one word, which is what `Atomic` does; nothing
        // is ordered by them.
        let header = unsafe {
            bindings::register_net_sysctl_sz(
                net.as_ptr(),
                c"net/ipv4/vs".as_char_ptr(),
                table.as_ptr().cast_mut(),
                table.len(),
            )
        };
        // INVARIANT: It has just been registered.
        Ok(Sysctls {
            values,
            _table: table,
            header: NonNull::new(header).ok_or(ENOMEM)?,
        })
    }

    /// The value of the variable with this index; 0 if there is none.
    #[inline]
    pub(crate) fn get(&self, index: usize) -> i32 {
        self.values
            .get(index)
            .map_or(0, |value| value.load(Relaxed))
    }

    /// Puts `new` in the place of `old`, unless somebody has written meanwhile.
    pub(crate) fn replace(&self, index: usize, old: i32, new: i32) {
        if let Some(value) = self.values.get(index) {
            let _ = value.cmpxchg(old, new, Relaxed);
        }
    }
}

/// As `proc_dointvec_minmax`, and tells the variable of a value that is refused.
///
/// # Safety
///
/// Called by the kernel for an entry of a table that [`Sysctls::new`] made.
unsafe extern "C" fn handle(
    entry: *const bindings::ctl_table,
    write: c_int,
    buffer: *mut c_void,
    length: *mut usize,
    position: *mut bindings::loff_t,
) -> c_int {
    // SAFETY: The arguments are the kernel's own.
    let result = unsafe { bindings::proc_dointvec_minmax(entry, write, buffer, length, position) };
    if write != 0 && result == EINVAL.to_errno() {
        // SAFETY: `extra1` of our entries points to the field `min` of a static variable.
        let variable = unsafe { &*container_of!((*entry).extra1.cast::<i32>(), Variable, min) };
        (variable.refused)(variable);
    }
    result
}

impl Drop for Sysctls {
    fn drop(&mut self) {
        // SAFETY: By the invariants it is registered, and the values still stand.
        unsafe { bindings::unregister_net_sysctl_table(self.header.as_ptr()) };
    }
}
