// SPDX-License-Identifier: MIT
//! What /proc says of the thread that made a request and waits for its answer: whether a signal is
//! pending for it, and in which system call it is.
//!
//! The kernel's own word for both is lost on the way: fuser answers INTERRUPT with ENOSYS and does
//! not hand on whether a lock is flock's. docs/decisions/0079 says why /proc is asked instead.
//!
//! Whoever reads here must be answered though that thread waits in the kernel with locks held. An
//! execve(2) closes files, each of which is a FLUSH, while it holds its process' `exec_update_lock`:
//! `stat`, `syscall`, `stack`, `maps` and others in /proc wait for that lock, and `cmdline` for the
//! lock of the memory map. `status` waits for none.

use std::fs;
use std::os::unix::fs::MetadataExt;

/// Signal numbers as bits of the masks in /proc/TID/status.
const fn bit(signal: i32) -> u64 {
    1 << (signal - 1)
}

/// Signals whose default action is to do nothing.
const HARMLESS: u64 =
    bit(libc::SIGCHLD) | bit(libc::SIGCONT) | bit(libc::SIGURG) | bit(libc::SIGWINCH);
/// Signals whose default action is to stop the process.
const STOPPING: u64 =
    bit(libc::SIGSTOP) | bit(libc::SIGTSTP) | bit(libc::SIGTTIN) | bit(libc::SIGTTOU);
/// `PF_EXITING` of Linux' include/linux/sched.h, in the ninth field of /proc/TID/stat.
const EXITING: u64 = 4;
/// The bits of an exit code that hold the signal which ended the process.
const KILLED_BY: i64 = 0x7f;
/// A thread that has just sent its request may not sleep yet: /proc then does not say in which
/// system call it is. It gets there within microseconds; a busy machine may need some turns.
const ASLEEP_ATTEMPTS_MAX: usize = 200;
/// `fcntl64` and `fcntl` of 32-bit x86 programs, which /proc shows by their own numbers.
const FCNTL_32: [i64; 2] = [221, 55];
/// `flock` of the same.
const FLOCK_32: i64 = 143;

/// Which signals count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Interruption {
    /// Any that the program would notice, as for a lock.
    Any,
    /// Those that end it.
    Fatal,
}

/// Which call locks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LockCall {
    /// fcntl(2) for the process.
    Posix,
    /// fcntl(2) for the open file description.
    Ofd,
    /// flock(2).
    Flock,
}

/// Whether the thread is to be told that it was interrupted.
pub(super) fn is_interrupted(thread: u32, by: Interruption) -> bool {
    let Ok(status) = fs::read_to_string(format!("/proc/{thread}/status")) else {
        return false;
    };
    if has_memory(&status) {
        return has_signal(&status, by);
    }
    has_signal(&status, by)
        || fs::read_to_string(format!("/proc/{thread}/stat")).is_ok_and(|stat| was_killed(&stat))
}

/// Whether /proc/TID/status shows a thread that has a memory map: it is not exiting. It may be in an
/// execve(2), and then its `stat` must not be read.
fn has_memory(status: &str) -> bool {
    status.lines().any(|line| line.starts_with("VmSize:"))
}

/// Whether /proc/TID/status shows a signal that counts.
fn has_signal(status: &str, by: Interruption) -> bool {
    let mask = |name: &str| {
        let lines = &mut status.lines();
        let text = lines.find_map(|line| line.strip_prefix(name))?;
        u64::from_str_radix(text.trim(), 16).ok()
    };
    let masks = (
        mask("SigPnd:"),
        mask("ShdPnd:"),
        mask("SigBlk:"),
        mask("SigIgn:"),
        mask("SigCgt:"),
    );
    let (Some(own), Some(shared), Some(blocked), Some(ignored), Some(caught)) = masks else {
        return false;
    };
    let pending = (own | shared) & !ignored & (!blocked | bit(libc::SIGKILL));
    let noticed = pending & (caught | !HARMLESS);
    match by {
        Interruption::Any => noticed != 0,
        Interruption::Fatal => noticed & !caught & !STOPPING != 0,
    }
}

/// Whether /proc/TID/stat shows a thread that a signal has ended and that is closing its files.
fn was_killed(stat: &str) -> bool {
    // The second field, the name, may hold spaces and parentheses.
    let Some((_, rest)) = stat.rsplit_once(')') else {
        return false;
    };
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let field = |number: usize| fields.get(number - 3).copied().unwrap_or_default();
    let exiting = field(9)
        .parse::<u64>()
        .is_ok_and(|flags| flags & EXITING != 0);
    exiting
        && field(52)
            .parse::<i64>()
            .is_ok_and(|code| code & KILLED_BY != 0)
}

/// Which call the thread waits in for a lock; `None` where /proc does not say.
pub(super) fn lock_call(thread: u32) -> Option<LockCall> {
    for _ in 0..ASLEEP_ATTEMPTS_MAX {
        let text = fs::read_to_string(format!("/proc/{thread}/syscall")).ok()?;
        if text.trim() != "running" {
            return parse_lock_call(&text);
        }
        std::thread::yield_now();
    }
    None
}

/// Stands for the PID namespace of this process on this machine, since it was started last: two
/// processes for which it is the same give others the same numbers. `None` where /proc does not say.
pub(super) fn pid_namespace() -> Option<u64> {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let namespace = fs::metadata("/proc/self/ns/pid").ok()?.ino();
    let digits: String = boot.chars().filter(char::is_ascii_hexdigit).collect();
    let boot = u64::from_str_radix(digits.get(..16)?, 16).ok()?;
    Some(boot ^ namespace)
}

fn parse_lock_call(text: &str) -> Option<LockCall> {
    let mut words = text.split_ascii_whitespace();
    let number: i64 = words.next()?.parse().ok()?;
    if number == libc::SYS_flock || number == FLOCK_32 {
        return Some(LockCall::Flock);
    }
    if number != libc::SYS_fcntl && !FCNTL_32.contains(&number) {
        return None;
    }
    let command = words.nth(1)?.strip_prefix("0x")?;
    let command = i32::try_from(u64::from_str_radix(command, 16).ok()?).ok()?;
    match command {
        libc::F_OFD_SETLK | libc::F_OFD_SETLKW | libc::F_OFD_GETLK => Some(LockCall::Ofd),
        _ => Some(LockCall::Posix),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(own: u64, shared: u64, blocked: u64, ignored: u64, caught: u64) -> String {
        format!(
            "Name:\tcat\nSigQ:\t0/1\nSigPnd:\t{own:016x}\nShdPnd:\t{shared:016x}\n\
             SigBlk:\t{blocked:016x}\nSigIgn:\t{ignored:016x}\nSigCgt:\t{caught:016x}\n"
        )
    }

    /// Every signal under every disposition.
    #[test]
    fn a_signal_counts_as_its_disposition_says() {
        for signal in 1..=31 {
            let one = bit(signal);
            let both = |status: &str| {
                (
                    has_signal(status, Interruption::Any),
                    has_signal(status, Interruption::Fatal),
                )
            };
            let harmless = one & HARMLESS != 0;
            let stops = one & STOPPING != 0;
            let by_default = (!harmless, !harmless && !stops);
            assert_eq!(both(&status(0, one, 0, 0, 0)), by_default, "{signal}");
            assert_eq!(both(&status(one, 0, 0, 0, 0)), by_default, "{signal}");
            assert_eq!(both(&status(0, one, 0, 0, one)), (true, false), "{signal}");
            assert_eq!(both(&status(0, one, 0, one, 0)), (false, false), "{signal}");
            let blocked = both(&status(0, one, one, 0, 0));
            let kills = signal == libc::SIGKILL;
            assert_eq!(blocked, (kills, kills), "{signal}");
        }
        assert!(!has_signal("Name:\tcat\n", Interruption::Any));
    }

    #[test]
    fn who_was_killed_is_told_from_who_ended() {
        let stat = |flags: u64, code: i64| {
            let mut fields = vec!["0".to_owned(); 49];
            fields[5] = flags.to_string();
            fields[48] = code.to_string();
            format!("17 (a) (b) S {}\n", fields.join(" "))
        };
        // The state is the third field, so that flags are six after it.
        let line = stat(EXITING, 9);
        assert_eq!(
            line.rsplit_once(')').unwrap().1.split_whitespace().count(),
            50
        );
        assert!(was_killed(&stat(EXITING, 9)));
        assert!(was_killed(&stat(0x0040_0004, 0x82)), "with a core dump");
        assert!(!was_killed(&stat(EXITING, 1 << 8)), "exit(1)");
        assert!(!was_killed(&stat(0x0040_0000, 9)));
        assert!(!was_killed("nonsense"));
    }

    /// A thread without memory is exiting, and cannot be in an execve(2) any more.
    #[test]
    fn who_has_memory_is_not_exiting() {
        let own = fs::read_to_string("/proc/self/status").unwrap();
        assert!(has_memory(&own));
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let path = format!("/proc/{}/status", child.id());
        while fs::read_to_string(&path).is_ok_and(|status| has_memory(&status)) {
            std::thread::yield_now();
        }
        // It is still there, as nobody has waited for it.
        let dead = fs::read_to_string(&path).unwrap();
        assert!(dead.contains("Name:") && !has_memory(&dead), "{dead}");
        child.wait().unwrap();
    }

    #[test]
    fn calls_are_told_apart() {
        let call = |number: i64, command: i32| {
            format!("{number} 0x3 {command:#x} 0x7ffd 0x0 0x0 0x0 0x7 0x8\n")
        };
        let fcntl = |command| parse_lock_call(&call(libc::SYS_fcntl, command));
        assert_eq!(fcntl(libc::F_SETLKW), Some(LockCall::Posix));
        assert_eq!(fcntl(libc::F_OFD_SETLK), Some(LockCall::Ofd));
        assert_eq!(fcntl(libc::F_OFD_GETLK), Some(LockCall::Ofd));
        assert_eq!(
            parse_lock_call(&call(libc::SYS_flock, 2)),
            Some(LockCall::Flock)
        );
        assert_eq!(parse_lock_call(&call(143, 2)), Some(LockCall::Flock));
        assert_eq!(parse_lock_call(&call(221, 38)), Some(LockCall::Ofd));
        assert_eq!(parse_lock_call("-1 0x0 0x0\n"), None);
        assert_eq!(parse_lock_call(""), None);
    }

    #[test]
    fn a_namespace_is_the_same_for_all_who_are_in_it() {
        let namespace = pid_namespace();
        assert!(namespace.is_some());
        assert_eq!(namespace, pid_namespace());
    }

    #[test]
    fn this_thread_has_not_been_interrupted() {
        let own = std::process::id();
        assert!(!is_interrupted(own, Interruption::Any));
        assert!(
            !is_interrupted(u32::MAX, Interruption::Any),
            "there is none"
        );
    }
}
