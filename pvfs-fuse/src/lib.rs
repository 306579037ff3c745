// SPDX-License-Identifier: MIT
//! pvfs-fuse: mounts a PVFS file system.
//!
//! [`cli`] says what to mount, [`background`] detaches, [`mount`] runs the mount from the first
//! word with mgr to the last. [`fs`] is the file system, [`fuser_adapter`] its transport.

pub mod background;
pub mod cli;
pub mod fs;
pub mod fuser_adapter;
pub mod guard;
pub mod log;
pub mod mount;
pub mod options;
