// SPDX-License-Identifier: MIT
//! `cargo fuzz run wire`: see ../targets.rs.
#![no_main]

#[path = "../targets.rs"]
#[allow(dead_code, reason = "each program runs one of the targets")]
mod targets;

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::wire(data));
