// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! A connection's state, whatever its transport, and what the dump says about it.

use crate::director::load::LoadClass;
use crate::director::tcp::TcpState;

/// The state of a connection entry; fits one byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnState {
    /// TCP, in one of its states.
    Tcp(TcpState),
    /// UDP has none.
    Udp,
}

impl ConnState {
    /// Every state.
    pub const ALL: [ConnState; 6] = [
        ConnState::Tcp(TcpState::SynReceived),
        ConnState::Tcp(TcpState::Established),
        ConnState::Tcp(TcpState::FinWait),
        ConnState::Tcp(TcpState::Close),
        ConnState::Udp,
        ConnState::Tcp(TcpState::Quiet),
    ];

    /// The state's number, stable: connection dumps carry it.
    pub const fn to_u8(self) -> u8 {
        match self {
            ConnState::Tcp(TcpState::SynReceived) => 1,
            ConnState::Tcp(TcpState::Established) => 2,
            ConnState::Tcp(TcpState::FinWait) => 3,
            ConnState::Tcp(TcpState::Close) => 4,
            ConnState::Udp => 5,
            ConnState::Tcp(TcpState::Quiet) => 6,
        }
    }

    /// The state with this number.
    pub const fn from_u8(number: u8) -> Option<ConnState> {
        match number {
            1 => Some(ConnState::Tcp(TcpState::SynReceived)),
            2 => Some(ConnState::Tcp(TcpState::Established)),
            3 => Some(ConnState::Tcp(TcpState::FinWait)),
            4 => Some(ConnState::Tcp(TcpState::Close)),
            5 => Some(ConnState::Udp),
            6 => Some(ConnState::Tcp(TcpState::Quiet)),
            _ => None,
        }
    }

    /// The state's name as `/proc/net/ip_vs_conn` has it.
    pub const fn name(self) -> &'static str {
        match self {
            ConnState::Tcp(state) => state.name(),
            ConnState::Udp => "UDP",
        }
    }

    /// How the connection counts on its destination.
    pub const fn class(self) -> LoadClass {
        match self {
            ConnState::Tcp(TcpState::SynReceived) => LoadClass::Pending,
            ConnState::Tcp(TcpState::Established) | ConnState::Udp => LoadClass::Active,
            ConnState::Tcp(TcpState::FinWait | TcpState::Close | TcpState::Quiet) => {
                LoadClass::Inactive
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_round_trip_and_nothing_else_is_a_state() {
        for state in ConnState::ALL {
            assert_eq!(ConnState::from_u8(state.to_u8()), Some(state));
        }
        let known = (0..=u8::MAX)
            .filter(|number| ConnState::from_u8(*number).is_some())
            .count();
        assert_eq!(known, ConnState::ALL.len());
    }
}
