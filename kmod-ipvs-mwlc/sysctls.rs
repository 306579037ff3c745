// SPDX-License-Identifier: GPL-2.0-only
//! The variables under `net.ipv4.vs`, with the names and meanings of IPVS
//! (Documentation/networking/ipvs-sysctl.rst in the kernel's source).

use kernel::prelude::*;

use crate::director::defence::Mode;
use crate::kapi::pernet::Net;
use crate::kapi::sysctl::{Sysctls, Variable};

/// The variables, by their index in [`VARIABLES`].
#[derive(Clone, Copy)]
enum Name {
    AmDroprate,
    Amemthresh,
    DropEntry,
    DropPacket,
    ExpireQuiescentTemplate,
    RunEstimation,
    SloppyTcp,
}

const fn flag(name: &'static CStr, default: i32) -> Variable {
    Variable {
        name,
        default,
        min: 0,
        max: 1,
    }
}

const fn mode(name: &'static CStr) -> Variable {
    Variable {
        name,
        default: 0,
        min: 0,
        max: 3,
    }
}

/// What the director always does, or never: it can be read, and writing the same is no error, so
/// that scripts for IPVS run.
const fn fixed(name: &'static CStr, value: i32) -> Variable {
    Variable {
        name,
        default: value,
        min: value,
        max: value,
    }
}

static VARIABLES: [Variable; 12] = [
    Variable {
        name: c"am_droprate",
        default: 10,
        min: 1,
        max: i32::MAX,
    },
    Variable {
        name: c"amemthresh",
        default: 1024,
        min: 0,
        max: i32::MAX,
    },
    mode(c"drop_entry"),
    mode(c"drop_packet"),
    flag(c"expire_quiescent_template", 0),
    flag(c"run_estimation", 1),
    flag(c"sloppy_tcp", 0),
    fixed(c"cache_bypass", 0),
    fixed(c"conn_reuse_mode", 2),
    fixed(c"conntrack", 0),
    fixed(c"expire_nodest_conn", 1),
    fixed(c"pmtu_disc", 1),
];

/// A namespace's variables.
pub(crate) struct Settings(Sysctls);

impl Settings {
    /// The defaults.
    pub(crate) fn new(net: Net) -> Result<Settings> {
        Ok(Settings(Sysctls::new(net, &VARIABLES)?))
    }

    #[inline]
    fn get(&self, name: Name) -> i32 {
        self.0.get(name as usize)
    }

    /// Of how many new flows the always mode of `drop_packet` drops one.
    pub(crate) fn always_drop_rate(&self) -> u32 {
        u32::try_from(self.get(Name::AmDroprate)).unwrap_or(1)
    }

    /// How many free pages are enough for the automatic modes.
    pub(crate) fn enough_pages(&self) -> u64 {
        u64::try_from(self.get(Name::Amemthresh)).unwrap_or(0)
    }

    /// `drop_entry` after it has looked at memory.
    pub(crate) fn drop_entry(&self, memory_is_short: bool) -> Mode {
        self.automatic(Name::DropEntry, memory_is_short)
    }

    /// `drop_packet` after it has looked at memory.
    pub(crate) fn drop_packet(&self, memory_is_short: bool) -> Mode {
        self.automatic(Name::DropPacket, memory_is_short)
    }

    /// Whether any of the two may ever act, so that memory has to be looked at.
    pub(crate) fn has_defence(&self) -> bool {
        self.get(Name::DropEntry) != 0 || self.get(Name::DropPacket) != 0
    }

    /// Whether a template whose real server has weight 0 ends.
    #[inline]
    pub(crate) fn expires_quiescent_templates(&self) -> bool {
        self.get(Name::ExpireQuiescentTemplate) != 0
    }

    /// Whether rates are estimated.
    pub(crate) fn runs_estimation(&self) -> bool {
        self.get(Name::RunEstimation) != 0
    }

    /// Whether a TCP connection may be taken up at any of its segments.
    #[inline]
    pub(crate) fn is_sloppy(&self) -> bool {
        self.get(Name::SloppyTcp) != 0
    }

    fn automatic(&self, name: Name, memory_is_short: bool) -> Mode {
        let number = self.get(name);
        let next = Mode::from_number(number).after(memory_is_short);
        self.0.replace(name as usize, number, next.number());
        next
    }
}
