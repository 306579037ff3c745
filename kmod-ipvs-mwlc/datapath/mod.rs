// SPDX-License-Identifier: GPL-2.0-only
//! What happens to a packet: the hooks find its connection or open one, take note of it and send it on.

pub(crate) mod dispatch;
mod hook;
mod transmit;
mod watch;
