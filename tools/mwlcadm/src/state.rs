// SPDX-License-Identifier: MIT
//! What is not usual about a real server.

use crate::mwlc::DestLoadEntry;
use crate::values::show_duration;

/// `drains, 90s left`, `slow start 40 %`; nothing if there is nothing to say.
pub fn state(dest: &DestLoadEntry) -> String {
    let is_idle = dest.pending == 0 && dest.active == 0 && dest.inactive == 0;
    match dest.drain.map(|drain| drain.left_ms) {
        Some(_) if is_idle => "drained".to_owned(),
        Some(Some(left_ms)) => format!("drains, {} left", show_duration(left_ms / 1000 * 1000)),
        Some(None) => "drains".to_owned(),
        None if dest.weight == 0 => "quiesced".to_owned(),
        None if dest.overloaded => "overloaded".to_owned(),
        None if dest.ramp_permille < 1000 => format!("slow start {} %", dest.ramp_permille / 10),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mwlc::Drain;
    use crate::names::ServiceName;
    use ipvs_mwlc::director::address::Transport;
    use ipvs_mwlc::director::drain::DrainPolicy;

    #[test]
    fn the_most_telling_state_is_said() {
        let usual = DestLoadEntry {
            service: ServiceName::Address(Transport::Tcp, ([10, 0, 0, 100], 80).into()),
            address: ([10, 0, 0, 1], 80).into(),
            weight: 1,
            load_bytes: 0,
            pending: 0,
            active: 1,
            inactive: 0,
            overloaded: false,
            connections: 1,
            in_packets: 1,
            in_bytes: 1,
            ramp_permille: 1000,
            persistent: 0,
            drain: None,
        };
        let drain = |left_ms| {
            Some(Drain {
                policy: DrainPolicy::Reset,
                left_ms,
            })
        };
        let quiesced = DestLoadEntry {
            weight: 0,
            ..usual.clone()
        };
        let draining = |left_ms, active| DestLoadEntry {
            active,
            drain: drain(left_ms),
            ..quiesced.clone()
        };
        let cases = [
            (usual.clone(), ""),
            (quiesced.clone(), "quiesced"),
            (draining(None, 1), "drains"),
            (draining(Some(90_500), 1), "drains, 90s left"),
            (draining(Some(90_500), 0), "drained"),
            (
                DestLoadEntry {
                    overloaded: true,
                    ..usual.clone()
                },
                "overloaded",
            ),
            (
                DestLoadEntry {
                    ramp_permille: 409,
                    ..usual
                },
                "slow start 40 %",
            ),
        ];
        for (dest, expected) in cases {
            assert_eq!(state(&dest), expected);
        }
    }
}
