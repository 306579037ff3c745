// SPDX-License-Identifier: MIT
//! The text after `-o`. Pure.
//!
//! mount(8) passes on nearly everything that stands in fstab, its own options included: those are
//! dropped here, what mount(2) understands goes to the kernel, and the rest is the file system's.

use std::time::Duration;

use thiserror::Error;

/// How long a mount waits for mgr before it fails: a node that boots beside its mgr needs time,
/// a person who mistyped a name does not have it.
pub const MOUNT_TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);
/// Requests handled at a time: each waits for other machines, so more than processors.
pub const THREADS_DEFAULT: usize = 16;
/// A thread takes up to 2 MiB of memory.
pub const THREADS_MAX: usize = 256;
/// The kernel reads this far ahead of a sequential reader: 8 requests for the iods to answer side
/// by side.
pub const READ_AHEAD_KIB_DEFAULT: u32 = 8 << 10;
/// What a mount has unless the opposite is asked for. Whoever is root on another node can make a
/// set-uid program or a device node in the file system, and should not become root here by that.
const FLAGS_DEFAULT: [MountFlag; 2] = [MountFlag::NoSuid, MountFlag::NoDev];
/// Changes the flags of a mount that is there.
const REMOUNT: &str = "remount";
/// Longest time for which names and attributes may be kept; beyond it, it is a mistake.
const CACHE_SECONDS_MAX: f64 = 86_400.0;

/// A flag of mount(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MountFlag {
    /// `ro`
    ReadOnly,
    /// `nosuid`
    NoSuid,
    /// `nodev`
    NoDev,
    /// `noexec`
    NoExec,
    /// `noatime`
    NoAtime,
    /// `sync`
    Synchronous,
    /// `dirsync`
    DirectorySynchronous,
}

impl MountFlag {
    /// The flag that `option` sets or clears, and which of both.
    fn parse(option: &str) -> Option<(Self, bool)> {
        Some(match option {
            "ro" => (Self::ReadOnly, true),
            "rw" => (Self::ReadOnly, false),
            "nosuid" => (Self::NoSuid, true),
            // mount(8) before 2.39 takes `suid` and `dev` for what is so anyway, and passes neither on.
            "suid" | "allow_suid" => (Self::NoSuid, false),
            "nodev" => (Self::NoDev, true),
            "dev" | "allow_dev" => (Self::NoDev, false),
            "noexec" => (Self::NoExec, true),
            "exec" => (Self::NoExec, false),
            "noatime" => (Self::NoAtime, true),
            "atime" => (Self::NoAtime, false),
            "sync" => (Self::Synchronous, true),
            "async" => (Self::Synchronous, false),
            "dirsync" => (Self::DirectorySynchronous, true),
            _ => return None,
        })
    }
}

/// What is wrong with the options.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum OptionError {
    /// Nobody knows it.
    #[error("mount option `{0}` is unknown: see `pvfs-fuse --help`, or mount with -s to ignore it")]
    Unknown(String),
    /// A value that does not belong there.
    #[error("mount option `{option}` needs {wanted}")]
    Value {
        /// As written.
        option: String,
        /// What would be right.
        wanted: &'static str,
    },
}

/// How to mount.
#[derive(Clone, Debug, PartialEq)]
pub struct MountOptions {
    /// Flags of mount(2) that are set.
    pub flags: Vec<MountFlag>,
    /// `suid` and `dev` where they were asked for: a remount leaves both as they are otherwise.
    pub allowed: Vec<MountFlag>,
    /// Other users than the one who mounts may use it; `None` means that root's mounts may.
    pub allow_other: Option<bool>,
    /// `actimeo=SECONDS`: how long the kernel may keep names and attributes. 0 is exact.
    pub cache_time: Duration,
    /// `direct_io`: bypasses the page cache.
    pub direct_io: bool,
    /// `mount_timeout=SECONDS`.
    pub mount_timeout: Duration,
    /// `threads=N`: requests handled at a time.
    pub threads: usize,
    /// `read_ahead_kb=N`.
    pub read_ahead_kib: u32,
    /// `remount`: only the flags of a mount that is there change.
    pub remount: bool,
}

impl Default for MountOptions {
    fn default() -> Self {
        Self {
            flags: FLAGS_DEFAULT.to_vec(),
            allowed: Vec::new(),
            allow_other: None,
            cache_time: Duration::ZERO,
            direct_io: false,
            mount_timeout: MOUNT_TIMEOUT_DEFAULT,
            threads: THREADS_DEFAULT,
            read_ahead_kib: READ_AHEAD_KIB_DEFAULT,
            remount: false,
        }
    }
}

impl MountOptions {
    /// Parses the texts of all `-o`, in order; the last of contradicting options counts. `sloppy`
    /// ignores unknown ones, as mount(8) asks with `-s`.
    ///
    /// # Errors
    ///
    /// The first option that is wrong.
    pub fn parse<'a>(
        texts: impl IntoIterator<Item = &'a str>,
        sloppy: bool,
    ) -> Result<Self, OptionError> {
        let mut options = Self::default();
        let texts: Vec<&str> = texts.into_iter().flat_map(|text| text.split(',')).collect();
        options.remount = texts.contains(&REMOUNT);
        if options.remount {
            options.flags.clear();
        }
        // To a remount mount(8) adds what /proc/mounts shows, which is the kernel's own.
        let sloppy = sloppy || options.remount;
        for option in texts {
            match options.take(option) {
                Err(OptionError::Unknown(_)) if sloppy => {}
                outcome => outcome?,
            }
        }
        Ok(options)
    }

    /// Whether writing is refused.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        self.flags.contains(&MountFlag::ReadOnly)
    }

    /// The flags after a remount of a mount that has `current` now. mount(8) repeats those that it
    /// knows of, but says nothing of `suid` and `dev`, which are not shown in /proc/mounts.
    #[must_use]
    pub fn flags_after_remount(&self, current: &[MountFlag]) -> Vec<MountFlag> {
        let stays = |flag: &&MountFlag| {
            current.contains(flag) && !self.allowed.contains(flag) && !self.flags.contains(flag)
        };
        let kept = FLAGS_DEFAULT.iter().filter(stays);
        self.flags.iter().chain(kept).copied().collect()
    }

    fn take(&mut self, option: &str) -> Result<(), OptionError> {
        if is_for_mount_alone(option) || option == REMOUNT {
            return Ok(());
        }
        if let Some((flag, set)) = MountFlag::parse(option) {
            self.flags.retain(|other| *other != flag);
            self.allowed.retain(|other| *other != flag);
            if set {
                self.flags.push(flag);
            } else if FLAGS_DEFAULT.contains(&flag) {
                self.allowed.push(flag);
            }
            return Ok(());
        }
        let (key, value) = option.split_once('=').unwrap_or((option, ""));
        match key {
            "allow_other" => self.allow_other = Some(true),
            "noallow_other" => self.allow_other = Some(false),
            "direct_io" => self.direct_io = true,
            "nodirect_io" => self.direct_io = false,
            "actimeo" => self.cache_time = seconds(option, value)?,
            "mount_timeout" => self.mount_timeout = seconds(option, value)?,
            "threads" => {
                let wanted = "a number from 1 to 256";
                self.threads = number(option, value, 1, THREADS_MAX as u64, wanted)? as usize;
            }
            "read_ahead_kb" => {
                let wanted = "a number of KiB from 0 to 1048576";
                let kib = number(option, value, 0, 1 << 20, wanted)?;
                self.read_ahead_kib = u32::try_from(kib).unwrap_or(READ_AHEAD_KIB_DEFAULT);
            }
            _ => return Err(OptionError::Unknown(option.to_owned())),
        }
        Ok(())
    }
}

/// Options that mean something to mount(8), systemd or other tools that read fstab, or that say
/// what is so anyway.
fn is_for_mount_alone(option: &str) -> bool {
    const NAMES: [&str; 19] = [
        "",
        "_netdev",
        "auto",
        "noauto",
        "defaults",
        "user",
        "nouser",
        "users",
        "nousers",
        "owner",
        "noowner",
        "group",
        "nogroup",
        "nofail",
        "relatime",
        "norelatime",
        "strictatime",
        "nodiratime",
        "default_permissions",
    ];
    // `user=NAME` is what mount(8) adds for a mount by a user; `comment=` is fstab's oldest note.
    const PREFIXES: [&str; 5] = ["x-", "X-", "comment=", "user=", "uhelper="];
    NAMES.contains(&option) || PREFIXES.iter().any(|prefix| option.starts_with(prefix))
}

fn seconds(option: &str, value: &str) -> Result<Duration, OptionError> {
    let wanted = "a number of seconds from 0 to 86400";
    let error = || OptionError::Value {
        option: option.to_owned(),
        wanted,
    };
    let seconds: f64 = value.parse().map_err(|_| error())?;
    if (0.0..=CACHE_SECONDS_MAX).contains(&seconds) {
        Ok(Duration::from_secs_f64(seconds))
    } else {
        Err(error())
    }
}

fn number(
    option: &str,
    value: &str,
    min: u64,
    max: u64,
    wanted: &'static str,
) -> Result<u64, OptionError> {
    match value.parse() {
        Ok(number) if (min..=max).contains(&number) => Ok(number),
        _ => Err(OptionError::Value {
            option: option.to_owned(),
            wanted,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> Result<MountOptions, OptionError> {
        MountOptions::parse([text], false)
    }

    #[test]
    fn what_fstab_says_to_mount_is_dropped() {
        let fstab = "defaults,_netdev,nofail,user,users,noauto,auto,x-systemd.automount,\
                     X-mount.mkdir,comment=the web root,user=alice,relatime,owner,group";
        assert_eq!(parse(fstab), Ok(MountOptions::default()));
    }

    #[test]
    fn the_last_of_contradicting_flags_counts() {
        use MountFlag::{NoDev, NoExec, NoSuid, ReadOnly};
        assert_eq!(
            parse("ro,nosuid,nodev,noexec").unwrap().flags,
            [ReadOnly, NoSuid, NoDev, NoExec]
        );
        assert_eq!(
            parse("ro,rw,suid,nosuid,exec").unwrap().flags,
            [NoDev, NoSuid]
        );
        assert!(parse("rw,ro").unwrap().is_read_only());
        assert!(!parse("ro,rw").unwrap().is_read_only());
        let both = MountOptions::parse(["ro", "noatime,rw"], false).unwrap();
        assert_eq!(both.flags, [NoSuid, NoDev, MountFlag::NoAtime]);
    }

    #[test]
    fn set_uid_programs_and_devices_must_be_asked_for() {
        use MountFlag::{NoDev, NoSuid, ReadOnly};
        for text in ["", "defaults", "rw,exec,_netdev"] {
            assert_eq!(parse(text).unwrap().flags, [NoSuid, NoDev], "{text}");
        }
        assert_eq!(parse("suid").unwrap().flags, [NoDev]);
        assert_eq!(parse("dev").unwrap().flags, [NoSuid]);
        assert_eq!(parse("suid,dev").unwrap().flags, []);
        assert_eq!(parse("allow_suid,allow_dev").unwrap().flags, []);
        assert_eq!(
            parse("suid,dev,nosuid,ro").unwrap().flags,
            [NoSuid, ReadOnly]
        );
    }

    #[test]
    fn a_remount_leaves_set_uid_programs_and_devices_as_they_are() {
        use MountFlag::{NoDev, NoExec, NoSuid, ReadOnly};
        let after = |text: &str, current: &[MountFlag]| {
            let options = parse(&format!("remount,{text}")).unwrap();
            options.flags_after_remount(current)
        };
        assert_eq!(after("ro", &[NoSuid, NoDev]), [ReadOnly, NoSuid, NoDev]);
        assert_eq!(after("ro", &[NoDev]), [ReadOnly, NoDev]);
        assert_eq!(after("ro", &[]), [ReadOnly]);
        assert_eq!(after("rw", &[ReadOnly, NoExec, NoSuid]), [NoSuid]);
        assert_eq!(after("suid,dev", &[NoSuid, NoDev]), []);
        assert_eq!(after("nosuid", &[]), [NoSuid]);
        assert_eq!(after("suid,nosuid", &[NoSuid]), [NoSuid]);
    }

    #[test]
    fn own_options_take_values() {
        let options = parse("actimeo=1.5,direct_io,mount_timeout=3,threads=4,read_ahead_kb=256");
        let expected = MountOptions {
            cache_time: Duration::from_millis(1500),
            direct_io: true,
            mount_timeout: Duration::from_secs(3),
            threads: 4,
            read_ahead_kib: 256,
            ..MountOptions::default()
        };
        assert_eq!(options, Ok(expected));
        assert_eq!(parse("allow_other").unwrap().allow_other, Some(true));
    }

    #[test]
    fn wrong_values_say_what_would_be_right() {
        for bad in [
            "actimeo",
            "actimeo=",
            "actimeo=-1",
            "actimeo=x",
            "actimeo=NaN",
            "actimeo=1e9",
            "mount_timeout=inf",
            "threads=0",
            "threads=1000",
            "read_ahead_kb=-1",
        ] {
            let error = parse(bad).unwrap_err();
            assert!(
                matches!(error, OptionError::Value { .. }),
                "{bad}: {error:?}"
            );
            assert!(error.to_string().contains("needs a number"), "{error}");
        }
    }

    #[test]
    fn a_remount_takes_what_the_kernel_shows() {
        let shown = "rw,nosuid,relatime,user_id=0,group_id=0,default_permissions,allow_other";
        let options = parse(&format!("{shown},remount,ro")).unwrap();
        assert!(options.remount && options.is_read_only());
        assert!(options.flags.contains(&MountFlag::NoSuid));
        assert!(!parse("ro").unwrap().remount);
        let unknown = OptionError::Unknown("user_id=0".into());
        assert_eq!(parse("ro,user_id=0"), Err(unknown));
    }

    #[test]
    fn unknown_options_are_refused_unless_sloppy() {
        let text = "ro,frobnicate";
        assert_eq!(parse(text), Err(OptionError::Unknown("frobnicate".into())));
        assert!(MountOptions::parse([text], true).unwrap().is_read_only());
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "[a-z=,0-9._-]{0,60}") {
            let _ = parse(&text);
        }
    }
}
