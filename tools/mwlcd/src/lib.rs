// SPDX-License-Identifier: MIT
//! mwlcd: on the director it answers what files weigh and passes on what nodes report; on a node it
//! reports what is open there.
//!
//! | file | what |
//! |---|---|
//! | `cli` | the command line |
//! | `director` | questions from the module, answered by a few threads |
//! | `sources` | where an answer comes from: [`root`], then [`head`] |
//! | `root` | sizes of files below a directory, that of the mount |
//! | `head` | sizes by a HEAD request to a node |
//! | `node`, `receiver`, `report` | what a node sends, who takes it, and the datagram between them |
//! | `answers` | the last answers, so that a crowd of clients costs one look |

pub mod answers;
pub mod cli;
pub mod director;
pub mod head;
pub mod node;
pub mod receiver;
pub mod report;
pub mod root;
pub mod sources;
