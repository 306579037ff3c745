// SPDX-License-Identifier: MIT
//! A limit that several rooms count with.

/// Inputs of one batch: with the largest bodies, 256 MiB of requests at the very most; with the
/// usual ones, more than a disk's flush takes to gather.
pub const BATCH_INPUTS_MAX: usize = 256;
