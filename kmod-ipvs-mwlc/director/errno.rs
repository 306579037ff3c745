// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The errors that the director answers to its administrators, and their errno values.

use core::ffi::CStr;

/// An errno of Linux (`asm-generic/errno-base.h`, `asm-generic/errno.h`), as a positive number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum Errno {
    /// `ENOENT`: no such destination, or unknown scheduler.
    NoEntry = 2,
    /// `ESRCH`: no such service.
    NoService = 3,
    /// `ENOMEM`: no memory.
    NoMemory = 12,
    /// `EEXIST`: the service or destination exists already.
    Exists = 17,
    /// `EINVAL`: the request does not make sense.
    Invalid = 22,
    /// `ENOSPC`: a limit of the director is reached.
    NoSpace = 28,
    /// `ERANGE`: a weight, threshold, timeout or size is out of range.
    Range = 34,
    /// `EMSGSIZE`: a reply does not fit into its buffer.
    MessageSize = 90,
    /// `EOPNOTSUPP`: the director has no such feature.
    NotSupported = 95,
    /// `EAFNOSUPPORT`: the director does not serve this address family.
    FamilyNotSupported = 97,
}

impl Errno {
    /// The positive errno value.
    pub const fn code(self) -> i32 {
        self as i32
    }

    /// The value that a kernel function returns: minus the errno.
    pub const fn to_kernel(self) -> i32 {
        match self {
            Errno::NoEntry => -2,
            Errno::NoService => -3,
            Errno::NoMemory => -12,
            Errno::Exists => -17,
            Errno::Invalid => -22,
            Errno::NoSpace => -28,
            Errno::Range => -34,
            Errno::MessageSize => -90,
            Errno::NotSupported => -95,
            Errno::FamilyNotSupported => -97,
        }
    }
}

/// Why a netlink request is refused: what the extended acknowledgement carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reject {
    /// The error number.
    pub errno: Errno,
    /// What failed and what to do, as `extack` takes it: static and terminated by a nul.
    pub message: &'static CStr,
    /// Where the offending attribute's header starts, in bytes from the first attribute's header.
    pub attribute_offset: Option<usize>,
}

impl Reject {
    /// A refusal that concerns the whole message.
    pub const fn new(errno: Errno, message: &'static CStr) -> Reject {
        Reject {
            errno,
            message,
            attribute_offset: None,
        }
    }

    /// A refusal that points at one attribute, `offset` bytes after the first one's header.
    pub const fn at(errno: Errno, message: &'static CStr, offset: usize) -> Reject {
        Reject {
            errno,
            message,
            attribute_offset: Some(offset),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_value_is_the_negated_errno() {
        for errno in [
            Errno::NoEntry,
            Errno::NoService,
            Errno::NoMemory,
            Errno::Exists,
            Errno::Invalid,
            Errno::NoSpace,
            Errno::Range,
            Errno::MessageSize,
            Errno::NotSupported,
            Errno::FamilyNotSupported,
        ] {
            assert_eq!(errno.to_kernel(), -errno.code());
        }
    }
}
