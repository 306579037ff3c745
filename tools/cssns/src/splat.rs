// SPDX-License-Identifier: MIT
//! Finds the kernel's own complaints in a kernel log: warnings, bugs, oopses, stalls, leaks.
//!
//! A test that inserts the module must end with a log in which [`find`] sees nothing.

/// One complaint of the kernel, and the lines that follow it, for the reader of a failed test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Splat {
    /// Which of the kernel's own phrases was found.
    pub kind: Kind,
    /// Number of the line in the log, from 1.
    pub line_number: usize,
    /// The line itself and up to [`CONTEXT_LINES`] lines after it.
    pub excerpt: String,
}

/// What the kernel complains of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `WARN_ON` and its relatives.
    Warning,
    /// `BUG:` lines (bad pointer, sleeping in atomic context, scheduling while atomic) and `BUG()`.
    Bug,
    /// An oops, a general protection fault or a panic.
    Oops,
    /// A Rust panic inside the kernel.
    RustPanic,
    /// RCU, soft lockup or hung task detectors.
    Stall,
    /// Sanitizers: KASAN, UBSAN, KCSAN, KFENCE, KMSAN.
    Sanitizer,
    /// Lock validator reports.
    Lockdep,
    /// A leak that the kernel noticed: device references, memory, slab objects.
    Leak,
    /// A module whose exit or insertion broke.
    Module,
}

/// How many lines after a complaint go into the excerpt: a short backtrace fits.
pub const CONTEXT_LINES: usize = 24;

/// The kernel's phrases. A line counts when it contains the phrase; more telling phrases first.
const PHRASES: &[(&str, Kind)] = &[
    ("rust_kernel: panicked at", Kind::RustPanic),
    ("panicked at", Kind::RustPanic),
    ("KASAN:", Kind::Sanitizer),
    ("UBSAN:", Kind::Sanitizer),
    ("KCSAN:", Kind::Sanitizer),
    ("KFENCE:", Kind::Sanitizer),
    ("KMSAN:", Kind::Sanitizer),
    ("possible circular locking", Kind::Lockdep),
    ("possible recursive locking", Kind::Lockdep),
    ("suspicious RCU usage", Kind::Lockdep),
    ("inconsistent lock state", Kind::Lockdep),
    ("held lock freed", Kind::Lockdep),
    ("self-detected stall", Kind::Stall),
    ("detected stalls on CPUs", Kind::Stall),
    ("detected expedited stalls", Kind::Stall),
    ("soft lockup", Kind::Stall),
    ("hard LOCKUP", Kind::Stall),
    ("blocked for more than", Kind::Stall),
    ("kthread starved for", Kind::Stall),
    ("unregister_netdevice: waiting", Kind::Leak),
    ("Objects remaining in", Kind::Leak),
    ("Objects remaining on", Kind::Leak),
    ("kmemleak:", Kind::Leak),
    ("refcount_t:", Kind::Leak),
    ("leaked reference", Kind::Leak),
    ("Kernel panic", Kind::Oops),
    ("general protection fault", Kind::Oops),
    ("stack segment:", Kind::Oops),
    ("double fault:", Kind::Oops),
    ("Oops:", Kind::Oops),
    ("kernel BUG at", Kind::Bug),
    ("BUG:", Kind::Bug),
    ("Bad page state", Kind::Bug),
    ("list_add corruption", Kind::Bug),
    ("list_del corruption", Kind::Bug),
    ("scheduling while atomic", Kind::Bug),
    ("Unable to handle kernel", Kind::Oops),
    ("unable to handle page fault", Kind::Oops),
    ("WARNING:", Kind::Warning),
    ("------------[ cut here ]------------", Kind::Warning),
    ("Module has invalid ELF", Kind::Module),
    ("Unknown symbol", Kind::Module),
    ("disagrees about version of symbol", Kind::Module),
];

/// All complaints in `log`, a kernel log as `dmesg` or the serial console prints it, in order.
///
/// Lines inside the excerpt of a complaint are not reported again, so one oops is one splat.
#[must_use]
pub fn find(log: &str) -> Vec<Splat> {
    let lines: Vec<&str> = log.lines().collect();
    let mut found = Vec::new();
    let mut quiet_until = 0;
    for (index, line) in lines.iter().enumerate() {
        let Some(kind) = classify(line) else { continue };
        if index < quiet_until {
            continue;
        }
        let excerpt: Vec<&str> = lines
            .iter()
            .skip(index)
            .take(CONTEXT_LINES + 1)
            .copied()
            .collect();
        quiet_until = index + 1 + CONTEXT_LINES;
        found.push(Splat {
            kind,
            line_number: index + 1,
            excerpt: excerpt.join("\n"),
        });
    }
    found
}

fn classify(line: &str) -> Option<Kind> {
    PHRASES
        .iter()
        .find(|(phrase, _)| line.contains(phrase))
        .map(|(_, kind)| *kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One line of each kind as real kernels print it.
    const SAMPLES: &[(&str, Kind)] = &[
        (
            "[    4.1] WARNING: CPU: 0 PID: 71 at net/core/dev.c:1 foo+0x1/0x2",
            Kind::Warning,
        ),
        (
            "[    4.1] WARNING: net/core/dev.c:1 at foo+0x1/0x2, CPU#0: sh/71",
            Kind::Warning,
        ),
        (
            "[    4.1] ------------[ cut here ]------------",
            Kind::Warning,
        ),
        (
            "[    4.1] BUG: kernel NULL pointer dereference, address: 0000000000000000",
            Kind::Bug,
        ),
        (
            "[    4.1] BUG: sleeping function called from invalid context at x.c:1",
            Kind::Bug,
        ),
        ("[    4.1] kernel BUG at mm/slub.c:1!", Kind::Bug),
        ("[    4.1] Oops: 0000 [#1] SMP NOPTI", Kind::Oops),
        (
            "[    4.1] Oops: general protection fault, probably for address",
            Kind::Oops,
        ),
        (
            "[    4.1] Kernel panic - not syncing: Fatal exception",
            Kind::Oops,
        ),
        (
            "[    4.1] rust_kernel: panicked at table.rs:3:4:",
            Kind::RustPanic,
        ),
        (
            "[   25.1] rcu: INFO: rcu_preempt self-detected stall on CPU",
            Kind::Stall,
        ),
        (
            "[   25.1] rcu: INFO: rcu_sched detected stalls on CPUs/tasks:",
            Kind::Stall,
        ),
        (
            "[   25.1] watchdog: BUG: soft lockup - CPU#0 stuck for 22s!",
            Kind::Stall,
        ),
        (
            "[  125.1] INFO: task rmmod:99 blocked for more than 120 seconds.",
            Kind::Stall,
        ),
        (
            "[    4.1] BUG: KASAN: slab-use-after-free in foo+0x1/0x2",
            Kind::Sanitizer,
        ),
        (
            "[    4.1] unregister_netdevice: waiting for d0 to become free. Usage",
            Kind::Leak,
        ),
        (
            "[    4.1] refcount_t: underflow; use-after-free.",
            Kind::Leak,
        ),
        (
            "[    4.1] WARNING: possible circular locking dependency detected",
            Kind::Lockdep,
        ),
        (
            "[    4.1] ipvs_mwlc: Unknown symbol foo (err -2)",
            Kind::Module,
        ),
    ];

    #[test]
    fn every_kind_is_seen() {
        for (line, kind) in SAMPLES {
            let found = find(line);
            assert_eq!(found.len(), 1, "{line}");
            assert_eq!(found[0].kind, *kind, "{line}");
        }
    }

    #[test]
    fn ordinary_lines_are_not_splats() {
        let log = "[0.0] Linux version 7.3.4\n\
                   [0.5] rcu: Hierarchical RCU implementation.\n\
                   [0.6] debug: ignoring loglevel setting.\n\
                   [3.1] ipvs_mwlc: loading out-of-tree module taints kernel.\n\
                   [3.2] ipvs_mwlc: module verification failed: signature and/or required key missing\n\
                   [3.3] IPVS: Registered protocols (TCP, UDP)\n\
                   [3.4] Warning: unable to open an initial console.\n";
        assert_eq!(find(log), vec![]);
    }

    #[test]
    fn one_oops_is_one_splat_with_its_backtrace() {
        let mut log =
            String::from("before\n[1.0] BUG: unable to handle page fault\n[1.0] Oops: 0\n");
        for depth in 0..40 {
            log.push_str(&format!("[1.0]  frame{depth}\n"));
        }
        log.push_str("[2.0] WARNING: later\n");
        let found = find(&log);
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].line_number, 2);
        assert!(found[0].excerpt.contains("frame0") && !found[0].excerpt.contains("frame39"));
        assert_eq!(found[1].kind, Kind::Warning);
    }

    proptest::proptest! {
        #[test]
        fn never_panics_and_counts_each_line_once(log in "(?s).{0,400}") {
            let found = find(&log);
            proptest::prop_assert!(found.len() <= log.lines().count());
        }
    }
}
