// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! How long an idle connection entry is kept, per state; what `ipvsadm --set` changes.

use crate::director::conn::ConnState;
use crate::director::errno::{Errno, Reject};
use crate::director::tcp::TcpState;

/// The longest timeout: in milliseconds it fits the kernel's `int`.
pub const TIMEOUT_S_MAX: u32 = 2_147_483;

/// How long a quiet connection is kept after its last packet: 2 hours 4 minutes, so that one with
/// keepalive probes of two hours, the usual default, never ends (RFC 5382, REQ-5).
pub const QUIET_S: u32 = 7_440;

/// Timeouts in seconds; each is 1 to [`TIMEOUT_S_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// TCP, established: `--set`'s first.
    pub established_s: u32,
    /// TCP, after the client's FIN: `--set`'s second.
    pub fin_wait_s: u32,
    /// TCP, half-open.
    pub syn_received_s: u32,
    /// TCP, after a reset.
    pub close_s: u32,
    /// UDP: `--set`'s third.
    pub udp_s: u32,
}

impl Timeouts {
    /// The timeouts of stock IPVS in direct routing.
    pub const DEFAULT: Timeouts = Timeouts {
        established_s: 900,
        fin_wait_s: 120,
        syn_received_s: 60,
        close_s: 10,
        udp_s: 300,
    };

    /// How long an idle entry in this state is kept, in seconds.
    pub const fn of(&self, state: ConnState) -> u32 {
        match state {
            ConnState::Tcp(TcpState::SynReceived) => self.syn_received_s,
            ConnState::Tcp(TcpState::Established) => self.established_s,
            ConnState::Tcp(TcpState::FinWait) => self.fin_wait_s,
            ConnState::Tcp(TcpState::Close) => self.close_s,
            ConnState::Udp => self.udp_s,
            ConnState::Tcp(TcpState::Quiet) => QUIET_S,
        }
    }

    /// Whether entries of some state are kept for less time than by `other`.
    pub fn is_shorter_anywhere(&self, other: &Timeouts) -> bool {
        ConnState::ALL
            .iter()
            .any(|&state| self.of(state) < other.of(state))
    }
}

/// What `SET_CONFIG` carries; 0 leaves a timeout as it is, as in IPVS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct TimeoutsUpdate {
    /// TCP, established, in seconds.
    pub tcp_s: u32,
    /// TCP, after FIN, in seconds.
    pub tcp_fin_s: u32,
    /// UDP, in seconds.
    pub udp_s: u32,
}

impl TimeoutsUpdate {
    /// The timeouts after the update, or why it is refused: then none changes.
    pub const fn apply(self, old: &Timeouts) -> Result<Timeouts, Reject> {
        if self.tcp_s > TIMEOUT_S_MAX
            || self.tcp_fin_s > TIMEOUT_S_MAX
            || self.udp_s > TIMEOUT_S_MAX
        {
            return Err(Reject::new(
                Errno::Invalid,
                c"a timeout is over 2147483 seconds: give less, or 0 to leave it as it is",
            ));
        }
        Ok(Timeouts {
            established_s: changed(old.established_s, self.tcp_s),
            fin_wait_s: changed(old.fin_wait_s, self.tcp_fin_s),
            syn_received_s: old.syn_received_s,
            close_s: old.close_s,
            udp_s: changed(old.udp_s, self.udp_s),
        })
    }
}

const fn changed(old: u32, new: u32) -> u32 {
    if new == 0 {
        old
    } else {
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_those_of_ipvs() {
        let seconds = ConnState::ALL.map(|state| Timeouts::DEFAULT.of(state));
        assert_eq!(seconds, [60, 900, 120, 10, 300, 7440]);
    }

    #[test]
    fn zero_leaves_a_timeout_as_it_is() {
        let update = TimeoutsUpdate {
            tcp_s: 0,
            tcp_fin_s: 7,
            udp_s: 0,
        };
        let after = update.apply(&Timeouts::DEFAULT).unwrap();
        assert_eq!(
            after,
            Timeouts {
                fin_wait_s: 7,
                ..Timeouts::DEFAULT
            }
        );
    }

    #[test]
    fn one_shorter_timeout_is_enough() {
        let default = Timeouts::DEFAULT;
        assert!(!default.is_shorter_anywhere(&default));
        for field in 0..5 {
            let mut other = default;
            *[
                &mut other.established_s,
                &mut other.fin_wait_s,
                &mut other.syn_received_s,
                &mut other.close_s,
                &mut other.udp_s,
            ][field] += 1;
            assert!(!other.is_shorter_anywhere(&default), "{other:?}");
            assert!(default.is_shorter_anywhere(&other), "{other:?}");
        }
        let mixed = Timeouts {
            established_s: 901,
            udp_s: 299,
            ..default
        };
        assert!(mixed.is_shorter_anywhere(&default));
    }

    #[test]
    fn the_limit_itself_is_allowed_and_one_more_is_not() {
        for (value, allowed) in [
            (TIMEOUT_S_MAX, true),
            (TIMEOUT_S_MAX + 1, false),
            (u32::MAX, false),
        ] {
            for update in [
                TimeoutsUpdate {
                    tcp_s: value,
                    ..TimeoutsUpdate::default()
                },
                TimeoutsUpdate {
                    tcp_fin_s: value,
                    ..TimeoutsUpdate::default()
                },
                TimeoutsUpdate {
                    udp_s: value,
                    ..TimeoutsUpdate::default()
                },
            ] {
                let result = update.apply(&Timeouts::DEFAULT);
                assert_eq!(result.is_ok(), allowed, "{value}");
            }
        }
    }
}
