// SPDX-License-Identifier: MIT
//! Whether whoever a thread works for still wants the outcome.
//!
//! A mount serves programs that a user may want to end while a daemon is away. Every waiting of this
//! library asks here from time to time, and gives up with
//! [`FsError::Interrupted`](crate::error::FsError::Interrupted) where the answer is yes. Threads that
//! work for nobody in particular are never interrupted.

use std::cell::RefCell;

use crate::runtime::PerTask;
use crate::runtime::time::{Duration, Instant};

/// A request that is served sooner never looks: nobody presses keys so fast, and a look costs two
/// system calls.
const LOOK_AFTER: Duration = Duration::from_millis(200);
/// Pause between looks: what a waiting program may take to end.
pub const LOOK_INTERVAL: Duration = Duration::from_millis(200);

/// Says whether the caller has been interrupted.
type Look = Box<dyn Fn() -> bool>;

struct Caller {
    look: Look,
    next_look: Instant,
    interrupted: bool,
}

thread_local! {
    static CALLER: PerTask<RefCell<Option<Caller>>> = const { PerTask::new(RefCell::new(None)) };
}

/// Shows for whom this thread works.
fn with_caller<T>(look: impl FnOnce(&RefCell<Option<Caller>>) -> T) -> T {
    CALLER.with(|caller| caller.with(look))
}

/// Restores what stood there before, also where the work panics.
struct Restore(Option<Caller>);

impl Drop for Restore {
    fn drop(&mut self) {
        let before = self.0.take();
        with_caller(|caller| *caller.borrow_mut() = before);
    }
}

/// Does `work` for a caller of whom `look` says whether it has been interrupted.
pub fn on_behalf_of<T>(look: impl Fn() -> bool + 'static, work: impl FnOnce() -> T) -> T {
    let caller = Caller {
        look: Box::new(look),
        next_look: Instant::now() + LOOK_AFTER,
        interrupted: false,
    };
    let _restore = Restore(with_caller(|slot| slot.borrow_mut().replace(caller)));
    work()
}

/// Whether this thread works for somebody who may be interrupted: then it must not wait for longer
/// than [`LOOK_INTERVAL`] without asking [`is_interrupted`].
#[must_use]
pub fn is_possible() -> bool {
    with_caller(|caller| caller.borrow().is_some())
}

/// At most `wait`, and less where this thread must look whether it is interrupted.
#[must_use]
pub fn shorten(wait: Duration) -> Duration {
    match is_possible() {
        true => wait.min(LOOK_INTERVAL),
        false => wait,
    }
}

/// Whether the caller has been interrupted. Once it has, it stays so.
#[must_use]
pub fn is_interrupted() -> bool {
    with_caller(|caller| {
        let mut caller = caller.borrow_mut();
        let Some(caller) = caller.as_mut() else {
            return false;
        };
        let now = Instant::now();
        if !caller.interrupted && now >= caller.next_look {
            caller.next_look = now + LOOK_INTERVAL / 2;
            caller.interrupted = (caller.look)();
        }
        caller.interrupted
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_works_for_nobody_is_not_interrupted() {
        assert!(!is_possible() && !is_interrupted());
        assert_eq!(shorten(Duration::MAX), Duration::MAX);
        on_behalf_of(|| true, || assert!(is_possible()));
        assert!(!is_possible());
    }

    #[test]
    fn the_caller_is_looked_at_after_a_while_and_stays_interrupted() {
        let looks = std::rc::Rc::new(std::cell::Cell::new(0));
        let counted = std::rc::Rc::clone(&looks);
        let look = move || {
            counted.set(counted.get() + 1);
            true
        };
        on_behalf_of(look, || {
            assert!(!is_interrupted(), "so soon");
            assert_eq!(looks.get(), 0);
            std::thread::sleep(LOOK_AFTER);
            assert!(is_interrupted() && is_interrupted());
            assert_eq!(looks.get(), 1);
            on_behalf_of(|| false, || assert!(!is_interrupted()));
            assert!(is_interrupted());
        });
    }
}
