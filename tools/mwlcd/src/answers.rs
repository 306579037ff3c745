// SPDX-License-Identifier: MIT
//! The last answers, so that many clients who want one file at once cost one look.

use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use lru::LruCache;

/// An answer is given again for so long. The module keeps answers for longer; this one only spares
/// the questions that were on their way already.
const ANSWER_TTL: Duration = Duration::from_secs(1);
/// Names that are remembered: more than the module asks for in that time.
const ANSWERS_MAX: NonZeroUsize = NonZeroUsize::new(16_384).unwrap();

/// Host and path, one after the other.
type Name = Vec<u8>;

/// The answers.
#[derive(Debug)]
pub struct Answers {
    last: Mutex<LruCache<Name, (Option<u64>, Instant)>>,
}

impl Answers {
    /// None yet.
    pub fn new() -> Answers {
        Answers {
            last: Mutex::new(LruCache::new(ANSWERS_MAX)),
        }
    }

    /// The answer to this name: the last one, or what `look` finds. Two that look at once both look.
    pub fn get(
        &self,
        name: &[u8],
        now: Instant,
        look: impl FnOnce() -> Option<u64>,
    ) -> Option<u64> {
        let lock = || self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((size, at)) = lock().get(name) {
            if now.saturating_duration_since(*at) < ANSWER_TTL {
                return *size;
            }
        }
        let size = look();
        lock().put(name.to_vec(), (size, now));
        size
    }
}

impl Default for Answers {
    fn default() -> Answers {
        Answers::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_given_again_for_a_second() {
        let answers = Answers::new();
        let start = Instant::now();
        assert_eq!(answers.get(b"h/a", start, || Some(5)), Some(5));
        assert_eq!(answers.get(b"h/a", start, || panic!("known")), Some(5));
        assert_eq!(answers.get(b"h/b", start, || None), None);
        let later = start + ANSWER_TTL;
        assert_eq!(answers.get(b"h/a", later, || Some(6)), Some(6));
    }
}
