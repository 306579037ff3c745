// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Numbers that the module and its tools share: the two generic netlink families.
//!
//! Numbers are never reused; a new one goes to the end of its list. Integers are in host order except
//! ports, which are in network order; an address has 16 bytes, IPv4 in the first four.

/// The stock family that ipvsadm, keepalived and moby/ipvs speak (`linux/ip_vs.h`).
pub mod ipvs {
    use core::ffi::CStr;

    /// The family's name.
    pub const FAMILY_NAME: &CStr = c"IPVS";
    /// The family's version.
    pub const FAMILY_VERSION: u8 = 1;
    /// IPVS's version that `GET_INFO` answers: 1.2.1.
    pub const VERSION: u32 = 0x01_02_01;

    /// Commands.
    #[allow(missing_docs, reason = "the names are IPVS's own")]
    pub mod command {
        pub const NEW_SERVICE: u8 = 1;
        pub const SET_SERVICE: u8 = 2;
        pub const DEL_SERVICE: u8 = 3;
        pub const GET_SERVICE: u8 = 4;
        pub const NEW_DEST: u8 = 5;
        pub const SET_DEST: u8 = 6;
        pub const DEL_DEST: u8 = 7;
        pub const GET_DEST: u8 = 8;
        pub const NEW_DAEMON: u8 = 9;
        pub const DEL_DAEMON: u8 = 10;
        pub const GET_DAEMON: u8 = 11;
        pub const SET_CONFIG: u8 = 12;
        pub const GET_CONFIG: u8 = 13;
        pub const SET_INFO: u8 = 14;
        pub const GET_INFO: u8 = 15;
        pub const ZERO: u8 = 16;
        pub const FLUSH: u8 = 17;
    }

    /// Attributes of a message.
    #[allow(missing_docs, reason = "the names are IPVS's own")]
    pub mod attribute {
        pub const SERVICE: u16 = 1;
        pub const DEST: u16 = 2;
        pub const DAEMON: u16 = 3;
        pub const TIMEOUT_TCP: u16 = 4;
        pub const TIMEOUT_TCP_FIN: u16 = 5;
        pub const TIMEOUT_UDP: u16 = 6;
        pub const MAX: u16 = 6;
    }

    /// Attributes in a service nest.
    #[allow(missing_docs, reason = "the names are IPVS's own")]
    pub mod service {
        pub const AF: u16 = 1;
        pub const PROTOCOL: u16 = 2;
        pub const ADDR: u16 = 3;
        pub const PORT: u16 = 4;
        pub const FWMARK: u16 = 5;
        pub const SCHED_NAME: u16 = 6;
        pub const FLAGS: u16 = 7;
        pub const TIMEOUT: u16 = 8;
        pub const NETMASK: u16 = 9;
        pub const STATS: u16 = 10;
        pub const PE_NAME: u16 = 11;
        pub const STATS64: u16 = 12;
    }

    /// Attributes in a destination nest.
    #[allow(missing_docs, reason = "the names are IPVS's own")]
    pub mod dest {
        pub const ADDR: u16 = 1;
        pub const PORT: u16 = 2;
        pub const FWD_METHOD: u16 = 3;
        pub const WEIGHT: u16 = 4;
        pub const U_THRESH: u16 = 5;
        pub const L_THRESH: u16 = 6;
        pub const ACTIVE_CONNS: u16 = 7;
        pub const INACT_CONNS: u16 = 8;
        pub const PERSIST_CONNS: u16 = 9;
        pub const STATS: u16 = 10;
        pub const ADDR_FAMILY: u16 = 11;
        pub const STATS64: u16 = 12;
        pub const TUN_TYPE: u16 = 13;
        pub const TUN_PORT: u16 = 14;
        pub const TUN_FLAGS: u16 = 15;
    }

    /// Attributes in a nest of the synchronisation daemon.
    #[allow(missing_docs, reason = "the names are IPVS's own")]
    pub mod daemon {
        pub const STATE: u16 = 1;
        pub const MCAST_IFN: u16 = 2;
        pub const SYNC_ID: u16 = 3;
        pub const SYNC_MAXLEN: u16 = 4;
        pub const MCAST_GROUP: u16 = 5;
        pub const MCAST_GROUP6: u16 = 6;
        pub const MCAST_PORT: u16 = 7;
        pub const MCAST_TTL: u16 = 8;
    }

    /// Attributes in a statistics nest: 32-bit in STATS but for the two of bytes, 64-bit in STATS64.
    #[allow(missing_docs, reason = "the names are IPVS's own")]
    pub mod stats {
        pub const CONNS: u16 = 1;
        pub const INPKTS: u16 = 2;
        pub const OUTPKTS: u16 = 3;
        pub const INBYTES: u16 = 4;
        pub const OUTBYTES: u16 = 5;
        pub const CPS: u16 = 6;
        pub const INPPS: u16 = 7;
        pub const OUTPPS: u16 = 8;
        pub const INBPS: u16 = 9;
        pub const OUTBPS: u16 = 10;
    }

    /// Attributes of the reply to `GET_INFO`.
    #[allow(missing_docs, reason = "the names are IPVS's own")]
    pub mod info {
        pub const VERSION: u16 = 1;
        pub const CONN_TAB_SIZE: u16 = 2;
    }

    /// Forwarding methods.
    #[allow(missing_docs, reason = "the names are IPVS's own")]
    pub mod forwarding {
        pub const MASQ: u32 = 0;
        pub const LOCALNODE: u32 = 1;
        pub const TUNNEL: u32 = 2;
        pub const DROUTE: u32 = 3;
        /// The bits of `FWD_METHOD` that are the method.
        pub const MASK: u32 = 0x7;
    }
}

/// Our family: sizes, loads and connections, for which IPVS has no words.
pub mod mwlc {
    use core::ffi::CStr;

    /// The family's name.
    pub const FAMILY_NAME: &CStr = c"ipvs_mwlc";
    /// The family's version.
    pub const FAMILY_VERSION: u8 = 1;

    /// Commands. A dump answers with its own command's number.
    pub mod command {
        /// Dump: services, each in a [`super::attribute::SERVICE`] nest.
        pub const GET_SERVICE: u8 = 1;
        /// Do: set the expected size and its policy of the service in the SERVICE nest.
        pub const SET_SERVICE: u8 = 2;
        /// Dump: destinations with their loads, each message with its service's key in a SERVICE nest
        /// and a DEST nest. With a SERVICE nest in the request: only that service's.
        pub const GET_DEST: u8 = 3;
        /// Dump: connections, each in a CONN nest.
        pub const GET_CONN: u8 = 4;
        /// Do: set the size of the connection that the CONN nest's tuple names.
        pub const SET_CONN: u8 = 5;
        /// Do: drain the destination that the SERVICE and DEST nests name: weight 0, and DRAIN_LEFT_MS
        /// from now on, its connections are dealt with by DRAIN_POLICY.
        pub const DRAIN: u8 = 6;
        /// Dump: the sizes of files that are known, each in a SIZE nest. Multicast in group
        /// [`super::group::SIZES`]: a SIZE and a CONN nest, the size of which file somebody wants.
        pub const GET_SIZE: u8 = 7;
        /// Do: the size of a file in a SIZE nest, and with a CONN nest that of the connection that
        /// asked.
        pub const SET_SIZE: u8 = 8;
        /// Do: forget the size of the file in the SIZE nest, or without one all of them.
        pub const DEL_SIZE: u8 = 9;
        /// Do: what the node in the NODE nest reports of itself.
        pub const REPORT: u8 = 10;
        /// Dump: what nodes have reported, each in a NODE nest.
        pub const GET_NODE: u8 = 11;
        /// Multicast in group [`super::group::EVENTS`]: an EVENT nest, and SERVICE and DEST nests of
        /// what it is about.
        pub const EVENT: u8 = 14;
    }

    /// Multicast groups; only who has `CAP_NET_ADMIN` may listen.
    pub mod group {
        use core::ffi::CStr;

        /// What changed or went wrong.
        pub const EVENTS: &CStr = c"events";
        /// Questions for the sizes of files.
        pub const SIZES: &CStr = c"sizes";
    }

    /// Attributes of a message.
    pub mod attribute {
        /// Nest: a service.
        pub const SERVICE: u16 = 1;
        /// Nest: a destination.
        pub const DEST: u16 = 2;
        /// Nest: a connection.
        pub const CONN: u16 = 3;
        /// Nest: the size of a file.
        pub const SIZE: u16 = 4;
        /// Nest: a node.
        pub const NODE: u16 = 5;
        /// Nest: an event.
        pub const EVENT: u16 = 7;
        /// The largest of these.
        pub const MAX: u16 = 7;
    }

    /// Attributes in a service nest.
    pub mod service {
        /// u16: address family.
        pub const AF: u16 = 1;
        /// u16: protocol.
        pub const PROTOCOL: u16 = 2;
        /// 16 bytes: virtual IP.
        pub const ADDR: u16 = 3;
        /// u16, network order: port.
        pub const PORT: u16 = 4;
        /// String: the scheduler that decides.
        pub const POLICY_NAME: u16 = 5;
        /// u64: the configured expected size in bytes.
        pub const EXPECTED_SIZE: u16 = 6;
        /// u8: 0 configured, 1 learned average.
        pub const SIZE_POLICY: u16 = 7;
        /// u64: the size that a new connection starts with now, in bytes.
        pub const EXPECTED_SIZE_NOW: u16 = 8;
        /// u64: how many sizes were learned.
        pub const LEARNED_COUNT: u16 = 9;
        /// u32: firewall mark, instead of PROTOCOL, ADDR and PORT.
        pub const FWMARK: u16 = 10;
        /// u8: 1 if the sizes of connections shrink as their clients acknowledge.
        pub const REMAINING: u16 = 11;
        /// u32: how long a real server that is added, or comes back from weight 0, takes to its whole
        /// weight, in milliseconds; 0: no time.
        pub const SLOW_START_MS: u16 = 12;
        /// u8: how sizes are learned from packets: 0 not at all, 1 from HTTP requests.
        pub const LEARN: u16 = 13;
        /// u64: clients turned away since the service was added, because it has no real server.
        pub const REFUSED_EMPTY: u16 = 14;
        /// u64: the same, because all have weight 0.
        pub const REFUSED_QUIESCED: u16 = 15;
        /// u64: the same, because those with a weight are over their thresholds.
        pub const REFUSED_OVERLOADED: u16 = 16;
        /// u64: the same, because all have more active connections than their weight (ovf).
        pub const REFUSED_FULL: u16 = 17;
        /// u64: the same, because the one that the client's address selects is not available.
        pub const REFUSED_SELECTED: u16 = 18;
        /// The largest of these.
        pub const MAX: u16 = 18;
    }

    /// Attributes in a destination nest.
    pub mod dest {
        /// u16: address family.
        pub const AF: u16 = 1;
        /// 16 bytes: the real server's address.
        pub const ADDR: u16 = 2;
        /// u16, network order: its port.
        pub const PORT: u16 = 3;
        /// u32: Wi.
        pub const WEIGHT: u16 = 4;
        /// u64: Ci, in bytes.
        pub const LOAD_BYTES: u16 = 5;
        /// u32: half-open connections.
        pub const PENDING_CONNS: u16 = 6;
        /// u32: active connections.
        pub const ACTIVE_CONNS: u16 = 7;
        /// u32: inactive connections.
        pub const INACTIVE_CONNS: u16 = 8;
        /// u8: 1 if over its upper threshold.
        pub const OVERLOADED: u16 = 9;
        /// u64: connections scheduled to it so far.
        pub const CONNECTIONS: u16 = 10;
        /// u64: packets from clients sent to it.
        pub const IN_PACKETS: u16 = 11;
        /// u64: bytes from clients sent to it.
        pub const IN_BYTES: u16 = 12;
        /// u64: milliseconds until a drain's deadline; only while it drains, and if it has one.
        pub const DRAIN_LEFT_MS: u16 = 13;
        /// u8: what becomes of its connections then: 0 reset, 1 re-dispatched. Only while it drains.
        pub const DRAIN_POLICY: u16 = 14;
        /// u32: the part of its weight that counts, in thousandths; below 1000 in slow start.
        pub const RAMP_PERMILLE: u16 = 15;
        /// u64: its part of what its node last reported as open, in bytes.
        pub const REPORTED_BYTES: u16 = 16;
        /// u64: milliseconds since then.
        pub const REPORT_AGE_MS: u16 = 17;
        /// u32: persistence templates that name it.
        pub const PERSISTENT_CONNS: u16 = 18;
        /// The largest of these.
        pub const MAX: u16 = 18;
    }

    /// Attributes in a connection nest.
    pub mod conn {
        /// u16: address family.
        pub const AF: u16 = 1;
        /// u16: protocol.
        pub const PROTOCOL: u16 = 2;
        /// 16 bytes: the client's address.
        pub const CLIENT_ADDR: u16 = 3;
        /// u16, network order: the client's port.
        pub const CLIENT_PORT: u16 = 4;
        /// 16 bytes: the virtual IP.
        pub const VIRTUAL_ADDR: u16 = 5;
        /// u16, network order: the service's port.
        pub const VIRTUAL_PORT: u16 = 6;
        /// 16 bytes: the real server's address.
        pub const DEST_ADDR: u16 = 7;
        /// u16, network order: the real server's port.
        pub const DEST_PORT: u16 = 8;
        /// u8: 1 SYN_RECV, 2 ESTABLISHED, 3 FIN_WAIT, 4 CLOSE, 5 UDP.
        pub const STATE: u16 = 9;
        /// u64: its size in bytes.
        pub const SIZE_BYTES: u16 = 10;
        /// u8: 1 if the size was learned or set, 0 if it is the service's expected size.
        pub const SIZE_KNOWN: u16 = 11;
        /// u64: milliseconds since it was scheduled.
        pub const AGE_MS: u16 = 12;
        /// u64: milliseconds until it expires if no packet comes.
        pub const EXPIRES_MS: u16 = 13;
    }

    /// Attributes in a size nest.
    pub mod size {
        /// Bytes: the host that the client named, in lower case; empty if it named none.
        pub const HOST: u16 = 1;
        /// Bytes: the file's path below the server's root, beginning with `/`.
        pub const PATH: u16 = 2;
        /// u64: the file's size in bytes; not there if it is unknown, or asked for.
        pub const SIZE_BYTES: u16 = 3;
        /// u64: milliseconds for which that is believed.
        pub const TTL_MS: u16 = 4;
        /// u64: the first byte that is fetched; with none of these three, all are.
        pub const RANGE_FIRST: u16 = 5;
        /// u64: the last byte that is fetched.
        pub const RANGE_LAST: u16 = 6;
        /// u64: how many bytes from the end are fetched.
        pub const RANGE_SUFFIX: u16 = 7;
        /// u32: TCP sequence number of the request.
        pub const SEQUENCE: u16 = 8;
        /// u32: TCP acknowledgement number of the request.
        pub const ACKNOWLEDGEMENT: u16 = 9;
        /// The largest of these.
        pub const MAX: u16 = 9;
    }

    /// Attributes in a node nest.
    pub mod node {
        /// u16: address family.
        pub const AF: u16 = 1;
        /// 16 bytes: the node's address, that of its real servers.
        pub const ADDR: u16 = 2;
        /// u64: the sizes of all files that are open on it, in bytes.
        pub const OPEN_BYTES: u16 = 3;
        /// u32: how many those are.
        pub const OPEN_FILES: u16 = 4;
        /// u32: memory in use, in thousandths.
        pub const MEMORY_PERMILLE: u16 = 5;
        /// u32: processors in use, in thousandths.
        pub const CPU_PERMILLE: u16 = 6;
        /// u64: milliseconds since it reported.
        pub const AGE_MS: u16 = 7;
        /// The largest of these.
        pub const MAX: u16 = 7;
    }

    /// Attributes in an event nest.
    pub mod event {
        /// u8: what happened, see [`super::event_kind`].
        pub const KIND: u16 = 1;
        /// String: why a client was turned away.
        pub const CAUSE: u16 = 2;
        /// u32: events before this one that were not sent, because there were too many.
        pub const SUPPRESSED: u16 = 3;
    }

    /// What an event tells.
    #[allow(missing_docs, reason = "the names say it")]
    pub mod event_kind {
        pub const SERVICE_ADDED: u8 = 1;
        pub const SERVICE_EDITED: u8 = 2;
        pub const SERVICE_REMOVED: u8 = 3;
        pub const DEST_ADDED: u8 = 4;
        pub const DEST_EDITED: u8 = 5;
        pub const DEST_REMOVED: u8 = 6;
        /// At its upper threshold: no new connections.
        pub const DEST_OVERLOADED: u8 = 7;
        /// Below its lower threshold again.
        pub const DEST_RELIEVED: u8 = 8;
        /// The last connection of a draining real server is gone.
        pub const DEST_DRAINED: u8 = 9;
        /// A client was turned away; the CAUSE says why.
        pub const NO_DEST: u8 = 10;
        /// Half-open connections are being dropped.
        pub const FLOOD_BEGAN: u8 = 11;
        pub const FLOOD_ENDED: u8 = 12;
    }
}
