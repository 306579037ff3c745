// SPDX-License-Identifier: MIT
//! Carrying commands out where they harm nobody: in a network namespace that ends with its thread.

use nix::sched::{CloneFlags, unshare};

use super::{Director, Line};
use crate::error::Error;

/// Fails as `lines` would after `present`, which is what the director has.
pub(super) fn rehearse(present: &[Line], lines: &[Line]) -> Result<(), Error> {
    let rehearsal = || {
        unshare(CloneFlags::CLONE_NEWNET).map_err(|errno| Error::Rehearsal {
            what: format!("no network namespace for it: {errno}"),
        })?;
        let mut director = Director::open()?;
        // What is there now was accepted once.
        director.run(present).map_err(|error| Error::Rehearsal {
            what: format!("the present configuration is not repeatable: {error}"),
        })?;
        director.run(lines)
    };
    std::thread::scope(|scope| {
        let done = scope.spawn(rehearsal).join();
        done.unwrap_or_else(|_| {
            Err(Error::Rehearsal {
                what: "its thread panicked".to_owned(),
            })
        })
    })
}
