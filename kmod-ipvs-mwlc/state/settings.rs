// SPDX-License-Identifier: GPL-2.0-only
//! The variables under `net.ipv4.vs`, with the names and meanings of IPVS
//! (Documentation/networking/ipvs-sysctl.rst in the kernel's source), and `ingress` of our own.

use kernel::prelude::*;

use crate::director::defence::Mode;
use crate::kapi::pernet::Net;
use crate::kapi::sysctl::{Sysctls, Variable};
use crate::state::complaint::Complaint;

/// The variables, by their index in [`VARIABLES`].
#[derive(Clone, Copy)]
enum Name {
    AmDroprate,
    Amemthresh,
    DropEntry,
    DropPacket,
    ExpireQuiescentTemplate,
    Ingress,
    RunEstimation,
    SloppyTcp,
}

const fn variable(name: &'static CStr, default: i32, min: i32, max: i32) -> Variable {
    Variable {
        name,
        default,
        min,
        max,
        refused,
    }
}

const fn flag(name: &'static CStr, default: i32) -> Variable {
    variable(name, default, 0, 1)
}

const fn mode(name: &'static CStr) -> Variable {
    variable(name, 0, 0, 3)
}

/// What the director always does, or never: it can be read, and writing the same is no error, so
/// that scripts for IPVS run. Any other value is refused, and the log says why ([`REASONS`]).
const fn fixed(name: &'static CStr, value: i32) -> Variable {
    variable(name, value, value, value)
}

/// First those that [`Name`] names, in its order.
static VARIABLES: [Variable; 20] = [
    variable(c"am_droprate", 10, 1, i32::MAX),
    variable(c"amemthresh", 1024, 0, i32::MAX),
    mode(c"drop_entry"),
    mode(c"drop_packet"),
    flag(c"expire_quiescent_template", 0),
    flag(c"ingress", 1),
    flag(c"run_estimation", 1),
    flag(c"sloppy_tcp", 0),
    fixed(c"backup_only", 0),
    fixed(c"cache_bypass", 0),
    fixed(c"conn_reuse_mode", 2),
    fixed(c"conntrack", 0),
    fixed(c"expire_nodest_conn", 1),
    fixed(c"ignore_tunneled", 0),
    fixed(c"nat_icmp_send", 0),
    fixed(c"pmtu_disc", 1),
    fixed(c"schedule_icmp", 0),
    fixed(c"secure_tcp", 0),
    fixed(c"sloppy_sctp", 0),
    fixed(c"snat_reroute", 1),
];

/// Why a fixed variable is what it is.
struct Reason {
    name: &'static CStr,
    why: &'static str,
    said: Complaint,
}

const fn because(name: &'static CStr, why: &'static str) -> Reason {
    Reason {
        name,
        why,
        said: Complaint::new(),
    }
}

static REASONS: [Reason; 12] = [
    because(
        c"backup_only",
        "there is no sync daemon, so no director knows that it is the backup",
    ),
    because(c"cache_bypass", "packets are never sent on unbalanced"),
    because(
        c"conn_reuse_mode",
        "a reused port is scheduled anew, without a delay",
    ),
    because(
        c"conntrack",
        "connections are balanced before connection tracking sees them",
    ),
    because(
        c"expire_nodest_conn",
        "clients of a removed real server are told at once",
    ),
    because(c"ignore_tunneled", "nothing is tunnelled"),
    because(c"nat_icmp_send", "there is no NAT"),
    because(c"pmtu_disc", "what is too long is always answered"),
    because(
        c"schedule_icmp",
        "ICMP errors go to the real server that they are about, and to no other",
    ),
    because(
        c"secure_tcp",
        "half-open connections count for nothing and go first, always",
    ),
    because(c"sloppy_sctp", "SCTP is not balanced"),
    because(c"snat_reroute", "there is no NAT"),
];

/// Says in the log why a variable stays what it is; scripts rarely look at an errno.
fn refused(variable: &'static Variable) {
    let reason = REASONS.iter().find(|reason| reason.name == variable.name);
    // One with a range needs no reason.
    if let Some(Reason { name, why, said }) = reason {
        if said.is_due() {
            let name = name.to_str().unwrap_or_default();
            pr_info!("net.ipv4.vs.{} stays {}: {}\n", name, variable.default, why);
        }
    }
}

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

    /// Whether packets are taken as they arrive, before the IP layer and PRE_ROUTING, if that passes no
    /// raw table by.
    #[inline]
    pub(crate) fn takes_at_ingress(&self) -> bool {
        self.get(Name::Ingress) != 0
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
