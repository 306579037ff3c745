// SPDX-License-Identifier: GPL-2.0-only
//! The size cache in our own family: what userspace says, and what the cache holds.

use kernel::sync::rcu::{read_lock, Guard};

use super::no_memory;
use crate::director::delivered;
use crate::director::errno::{Errno, Reject};
use crate::director::flow::FlowKey;
use crate::director::http::Name;
use crate::director::mwlc_family::{encode_size, Asking, SizeAnswer};
use crate::director::size_cache::{Fact, SETS};
use crate::kapi::netlink::{Cursor, DumpMessage};
use crate::state::balancer::Balancer;
use crate::uapi::mwlc::command;

type Result<T = ()> = core::result::Result<T, Reject>;

/// Takes in what somebody says about a file. The connection that asked may have ended meanwhile,
/// which is no error.
pub(super) fn put(balancer: &Balancer, answer: &SizeAnswer) -> Result {
    balancer.sizes.put(answer).map_err(no_memory)?;
    if let (Some(asking), Some(file_bytes)) = (&answer.asking, answer.size_bytes) {
        answered(balancer, asking, file_bytes, &read_lock());
    }
    Ok(())
}

/// An answer has come: the connection that asked gets its size, if it still waits for it.
fn answered(balancer: &Balancer, asking: &Asking, file_bytes: u64, guard: &Guard) {
    let connection = FlowKey::of(&asking.tuple).and_then(|key| balancer.connection(&key, guard));
    let Some(connection) = connection else {
        return;
    };
    let size_bytes = asking.range.bytes_of(file_bytes);
    let Some(counted) = connection.counted_since(asking.sequence) else {
        return;
    };
    let left_bytes = delivered::left_since(size_bytes, asking.acknowledgement, counted);
    if connection.set_size(left_bytes) {
        connection.destination.expectation.learn(size_bytes);
    }
}

/// Forgets one file or all.
pub(super) fn forget(balancer: &Balancer, name: Option<&Name>) -> Result {
    match name {
        None => balancer.sizes.clear(),
        Some(name) if balancer.sizes.forget(name) => {}
        Some(_) => {
            return Err(Reject::new(
                Errno::NoEntry,
                c"the size of this file is not known",
            ))
        }
    }
    Ok(())
}

/// The cursor's words are the next set, and how many of its entries are done.
pub(super) fn dump(balancer: &Balancer, cursor: &mut Cursor, message: &mut DumpMessage) {
    while cursor[0] < SETS as u64 {
        let mut index = 0u64;
        let done = cursor[1];
        let fitted = balancer.sizes.entries(cursor[0], |entry, now_ms| {
            index = index.wrapping_add(1);
            let size_bytes = match entry.fact() {
                Fact::Known(bytes) => Some(bytes),
                Fact::Unknown | Fact::Asked(_) => None,
            };
            let name = entry.name().filter(|_| index > done);
            let slash = name.and_then(|name| name.iter().position(|byte| *byte == b'/'));
            // What is only asked for has no name.
            let (Some(name), Some(slash)) = (name, slash) else {
                return true;
            };
            let Some((host, path)) = name.split_at_checked(slash) else {
                return true;
            };
            let left_ms = entry.left_ms(now_ms);
            let written = message.entry(command::GET_SIZE, |to| {
                encode_size(to, host, path, size_bytes, left_ms)
            });
            if written.is_ok() {
                cursor[1] = index;
            }
            written.is_ok()
        });
        if !fitted {
            return;
        }
        *cursor = [cursor[0].wrapping_add(1), 0];
    }
}
