// SPDX-License-Identifier: MIT
//! Names of the schedulers' flags: `-b`.

use ipvs_mwlc::director::flags::{SERVICE_SCHED1, SERVICE_SCHED2, SERVICE_SCHED3};

use crate::error::Error;

/// Each flag's name, its bit, and the one scheduler that it is for.
const NAMES: [(&str, u32, Option<&str>); 7] = [
    ("flag-1", SERVICE_SCHED1, None),
    ("flag-2", SERVICE_SCHED2, None),
    ("flag-3", SERVICE_SCHED3, None),
    ("sh-fallback", SERVICE_SCHED1, Some("sh")),
    ("sh-port", SERVICE_SCHED2, Some("sh")),
    ("mh-fallback", SERVICE_SCHED1, Some("mh")),
    ("mh-port", SERVICE_SCHED2, Some("mh")),
];

/// The bits of comma-separated names.
pub(super) fn parse(scheduler: &str, text: &str) -> Result<u32, Error> {
    text.split(',').try_fold(0, |bits, name| {
        let found = NAMES.iter().find(|(known, ..)| *known == name);
        match found {
            Some((_, bit, of)) if of.is_none_or(|of| of == scheduler) => Ok(bits | bit),
            Some((_, _, of)) => Err(Error::Usage(format!(
                "`{name}` is a flag of {} and not of {scheduler}",
                of.unwrap_or_default()
            ))),
            None => Err(Error::Usage(format!(
                "`{name}` is no flag: {}",
                NAMES.map(|(known, ..)| known).join(", ")
            ))),
        }
    })
}

/// The bits' names as ipvsadm shows them: the scheduler's own where it has some.
pub(crate) fn names(scheduler: &str, bits: u32) -> String {
    let own = NAMES.iter().any(|(.., of)| *of == Some(scheduler));
    let of = own.then_some(scheduler);
    let set: Vec<&str> = NAMES
        .iter()
        .filter(|(_, bit, for_scheduler)| *for_scheduler == of && bits & bit != 0)
        .map(|(name, ..)| *name)
        .collect();
    set.join(",")
}

/// Whether any of them is set.
pub(crate) const fn any(bits: u32) -> bool {
    bits & (SERVICE_SCHED1 | SERVICE_SCHED2 | SERVICE_SCHED3) != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_bits() {
        for (scheduler, text) in [
            ("wlc", "flag-1,flag-3"),
            ("sh", "sh-fallback,sh-port"),
            ("mh", "mh-port"),
        ] {
            let bits = parse(scheduler, text).unwrap();
            assert_eq!(names(scheduler, bits), text);
        }
        assert_eq!(parse("sh", "flag-1").unwrap(), SERVICE_SCHED1);
        assert!(parse("wlc", "sh-port").is_err());
        assert!(parse("wlc", "flag-4").is_err());
        assert_eq!(names("sh", SERVICE_SCHED1), "sh-fallback");
    }
}
