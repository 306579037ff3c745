// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Everything that there is to say of a connection.
//!
//! Dumps and `/proc/net/ip_vs_conn` show it, and an entry can be made of it again: when a connection moves to
//! another real server, or when a director takes up what another one tells.

use crate::director::config::DestKey;
use crate::director::flow::FlowKey;
use crate::director::word::{Progress, Word};

/// A connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionRecord {
    /// Client to virtual address.
    pub key: FlowKey,
    /// Its real server.
    pub destination: DestKey,
    /// State, size, how its packets are sent on and what they are looked at for.
    pub word: Word,
    /// How far its client is.
    pub progress: Progress,
    /// Milliseconds since it was scheduled.
    pub age_ms: u64,
    /// Milliseconds since its client's last packet.
    pub idle_ms: u64,
    /// Milliseconds until it ends if no packet comes.
    pub expires_ms: u64,
}
