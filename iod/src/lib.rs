// SPDX-License-Identifier: MIT
//! The I/O daemon: keeps stripes and moves them.
//!
//! [`store`] is the data directory, [`server`] answers clients, [`registration`] keeps mgr informed,
//! [`admission`] says whether mgr lets this run of the iod serve.
//! Each connection has a blocking thread of its own: sendfile from the page cache beats every
//! asynchronous way that was measured, and needs neither buffers nor `unsafe`.

pub mod admission;
pub mod registration;
pub mod server;
pub mod store;
