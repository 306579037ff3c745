// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The state of a TCP connection, seen from the client's packets alone.
//!
//! In VS/DR the replies go straight to the client, so the director infers: the client's ACK after
//! its SYN means that the real server answered; its FIN means that it sends no more.

/// What the client's segment says, in order of precedence: RST, SYN, FIN, ACK.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TcpEvent {
    /// A connection is asked for: SYN without ACK.
    Syn,
    /// SYN with ACK: no client sends one; nothing follows from it.
    SynAck,
    /// FIN, with or without ACK.
    Fin,
    /// ACK, with or without data.
    Ack,
    /// RST.
    Rst,
    /// None of these flags: nothing follows from it.
    Other,
}

impl TcpEvent {
    /// Every event.
    pub const ALL: [TcpEvent; 6] = [
        TcpEvent::Syn,
        TcpEvent::SynAck,
        TcpEvent::Fin,
        TcpEvent::Ack,
        TcpEvent::Rst,
        TcpEvent::Other,
    ];
}

/// What the flags byte of a TCP header says: CWR ECE URG ACK PSH RST SYN FIN.
#[inline]
pub const fn event_of(flags: u8) -> TcpEvent {
    const FIN: u8 = 0x01;
    const SYN: u8 = 0x02;
    const RST: u8 = 0x04;
    const ACK: u8 = 0x10;
    match flags & (FIN | SYN | RST | ACK) {
        ACK => TcpEvent::Ack,
        flags if flags & RST != 0 => TcpEvent::Rst,
        flags if flags & (SYN | ACK) == SYN | ACK => TcpEvent::SynAck,
        flags if flags & SYN != 0 => TcpEvent::Syn,
        flags if flags & FIN != 0 => TcpEvent::Fin,
        _ => TcpEvent::Other,
    }
}

/// The state of a TCP connection entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TcpState {
    /// The client's SYN was sent on; the connection is half-open.
    SynReceived,
    /// The client acknowledged the real server's SYN.
    Established,
    /// The client sent FIN; the real server may still be sending.
    FinWait,
    /// The connection was reset.
    Close,
    /// Established, and the client has said nothing for longer than the timeout: it counts for
    /// nothing, and is kept while there is room, for the client may think that it is still there.
    Quiet,
}

impl TcpState {
    /// Every state.
    pub const ALL: [TcpState; 5] = [
        TcpState::SynReceived,
        TcpState::Established,
        TcpState::FinWait,
        TcpState::Close,
        TcpState::Quiet,
    ];

    /// The state's name as `/proc/net/ip_vs_conn` has it.
    pub const fn name(self) -> &'static str {
        match self {
            TcpState::SynReceived => "SYN_RECV",
            TcpState::Established => "ESTABLISHED",
            TcpState::FinWait => "FIN_WAIT",
            TcpState::Close => "CLOSE",
            TcpState::Quiet => "QUIET",
        }
    }
}

/// What a segment does to an existing entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transition {
    /// The entry goes on in this state, possibly the one it had; send the segment on.
    To(TcpState),
    /// The client reuses its port: end the entry now and schedule the segment as a new connection.
    Restart,
}

/// The state machine.
///
/// A SYN on an established entry stays with its real server, which answers it with a challenge ACK
/// (RFC 5961, 4.2); if the client then resets, its next SYN finds the entry closed and restarts it.
/// On a quiet one it is more likely that the client is another by now, and nothing is waited for.
pub const fn step(state: TcpState, event: TcpEvent) -> Transition {
    use TcpEvent::{Ack, Fin, Other, Rst, Syn, SynAck};
    use TcpState::{Close, Established, FinWait, Quiet, SynReceived};
    use Transition::{Restart, To};
    match (state, event) {
        (_, Rst) => To(Close),
        (_, SynAck | Other) => To(state),

        (SynReceived, Syn) => To(SynReceived),
        (SynReceived, Ack) => To(Established),
        (SynReceived, Fin) => To(FinWait),

        (Established, Syn) => To(Established),
        (Established, Ack) => To(Established),
        (Established, Fin) => To(FinWait),

        (FinWait, Syn) => Restart,
        (FinWait, Ack | Fin) => To(FinWait),

        (Close, Syn) => Restart,
        (Close, Ack | Fin) => To(Close),

        (Quiet, Syn) => Restart,
        (Quiet, Ack) => To(Established),
        (Quiet, Fin) => To(FinWait),
    }
}

/// The state of a new entry for a segment that belongs to none, or `None` if such a segment does
/// not open a connection: it is then not the director's.
pub const fn open(event: TcpEvent) -> Option<TcpState> {
    match event {
        TcpEvent::Syn => Some(TcpState::SynReceived),
        TcpEvent::SynAck | TcpEvent::Fin | TcpEvent::Ack | TcpEvent::Rst | TcpEvent::Other => None,
    }
}

/// The state of a new entry where a connection may be taken up at any of its segments (`sloppy_tcp`): whoever stands
/// in for another director has no entries. A reset needs none.
pub const fn take_up(event: TcpEvent) -> Option<TcpState> {
    match event {
        TcpEvent::Syn => Some(TcpState::SynReceived),
        TcpEvent::Ack | TcpEvent::SynAck | TcpEvent::Other => Some(TcpState::Established),
        TcpEvent::Fin => Some(TcpState::FinWait),
        TcpEvent::Rst => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt::Write;
    use std::string::String;

    #[test]
    fn any_segment_but_a_reset_may_take_a_connection_up() {
        let states = TcpEvent::ALL.map(take_up);
        let taken = states.iter().flatten().count();
        assert_eq!((taken, take_up(TcpEvent::Rst)), (5, None));
        assert_eq!(take_up(TcpEvent::Syn), open(TcpEvent::Syn));
        assert_eq!(take_up(TcpEvent::Ack), Some(TcpState::Established));
        assert_eq!(take_up(TcpEvent::Fin), Some(TcpState::FinWait));
    }

    /// Every state x event; a change of the machine shows here.
    const TABLE: &str = "\
SYN_RECV    Syn    -> SYN_RECV
SYN_RECV    SynAck -> SYN_RECV
SYN_RECV    Fin    -> FIN_WAIT
SYN_RECV    Ack    -> ESTABLISHED
SYN_RECV    Rst    -> CLOSE
SYN_RECV    Other  -> SYN_RECV
ESTABLISHED Syn    -> ESTABLISHED
ESTABLISHED SynAck -> ESTABLISHED
ESTABLISHED Fin    -> FIN_WAIT
ESTABLISHED Ack    -> ESTABLISHED
ESTABLISHED Rst    -> CLOSE
ESTABLISHED Other  -> ESTABLISHED
FIN_WAIT    Syn    -> restart
FIN_WAIT    SynAck -> FIN_WAIT
FIN_WAIT    Fin    -> FIN_WAIT
FIN_WAIT    Ack    -> FIN_WAIT
FIN_WAIT    Rst    -> CLOSE
FIN_WAIT    Other  -> FIN_WAIT
CLOSE       Syn    -> restart
CLOSE       SynAck -> CLOSE
CLOSE       Fin    -> CLOSE
CLOSE       Ack    -> CLOSE
CLOSE       Rst    -> CLOSE
CLOSE       Other  -> CLOSE
QUIET       Syn    -> restart
QUIET       SynAck -> QUIET
QUIET       Fin    -> FIN_WAIT
QUIET       Ack    -> ESTABLISHED
QUIET       Rst    -> CLOSE
QUIET       Other  -> QUIET
";

    #[test]
    fn every_state_and_event() {
        let mut table = String::new();
        for state in TcpState::ALL {
            for event in TcpEvent::ALL {
                let next = match step(state, event) {
                    Transition::To(next) => next.name(),
                    Transition::Restart => "restart",
                };
                let event = std::format!("{event:?}");
                writeln!(table, "{:<11} {event:<6} -> {next}", state.name()).unwrap();
            }
        }
        assert_eq!(table, TABLE);
    }

    #[test]
    fn only_a_syn_opens() {
        for event in TcpEvent::ALL {
            let expected = (event == TcpEvent::Syn).then_some(TcpState::SynReceived);
            assert_eq!(open(event), expected);
        }
    }
}
