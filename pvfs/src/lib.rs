//! What every PVFS process shares: ids, striping, wire protocol, transport, client library.
