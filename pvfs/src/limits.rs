// SPDX-License-Identifier: MIT
//! Every limit that two PVFS processes must agree on. A limit of one process alone stands with it.

/// The last port that only a privileged process may bind, on Linux as it comes. mgr and iods take
/// connections from ports up to here alone, unless they are told otherwise.
pub const RESERVED_PORT_MAX: u16 = 1023;
/// A peer that is refused for its port has so long to take the answer, milliseconds.
pub const REFUSED_LINGER_MS: u64 = 1000;
/// What it sends meanwhile is thrown away, up to so many bytes.
pub const REFUSED_BYTES_MAX: usize = 64 << 10;
/// Iods of one file. PVFS 1 allowed as many; the layout of a file then takes 2 KiB.
pub const IODS_PER_FILE_MAX: usize = 512;
/// Iods of one file system.
pub const IODS_MAX: usize = 4096;
/// Smallest stripe: below a page, a page fault would need two iods.
pub const STRIPE_SIZE_BYTES_MIN: u32 = 4096;
/// Largest stripe: above it, a file of ordinary size uses a single iod.
pub const STRIPE_SIZE_BYTES_MAX: u32 = 1 << 30;
/// A file's largest size: offsets are signed 64-bit in POSIX.
pub const FILE_SIZE_BYTES_MAX: u64 = i64::MAX as u64;
/// A name in a directory (POSIX `NAME_MAX`).
pub const NAME_BYTES_MAX: usize = 255;
/// A symbolic link's target (POSIX `PATH_MAX` less the closing NUL).
pub const SYMLINK_TARGET_BYTES_MAX: usize = 4095;
/// An extended attribute's name (Linux `XATTR_NAME_MAX`).
pub const XATTR_NAME_BYTES_MAX: usize = 255;
/// An extended attribute's value (Linux `XATTR_SIZE_MAX`).
pub const XATTR_VALUE_BYTES_MAX: usize = 65_536;
/// All extended attribute names of one inode together (Linux `XATTR_LIST_MAX`).
pub const XATTR_LIST_BYTES_MAX: usize = 65_536;
/// The extended attribute that holds an inode's access control list.
pub const ACL_ACCESS_XATTR: &[u8] = b"system.posix_acl_access";
/// The one that holds what new inodes in a directory get.
pub const ACL_DEFAULT_XATTR: &[u8] = b"system.posix_acl_default";
/// Extended attribute of a file's capability: a change of its content or its owner takes it away.
pub const CAPABILITY_XATTR: &[u8] = b"security.capability";
/// Hard links to one inode, as ext4 has it.
pub const LINKS_MAX: u32 = 65_000;
/// Supplementary groups sent with one request; NFS carries 16, no distribution gives a user more than this.
pub const GROUPS_MAX: usize = 1024;
/// Bytes of one message's body: the largest is a page of a directory with attributes.
pub const BODY_BYTES_MAX: usize = 1 << 20;
/// Bytes of one message's payload: one client request to one iod is at most this long.
pub const PAYLOAD_BYTES_MAX: usize = 4 << 20;
/// Bytes that one request has an iod copy: it takes no longer than a few payloads do.
pub const COPY_BYTES_MAX: u64 = 16 << 20;
/// Entries in one reply to a directory read; with the longest names they fit a body.
pub const READDIR_ENTRIES_MAX: u32 = 1024;
/// Opens that one client may declare in a single message after mgr restarted.
pub const REOPENS_PER_MESSAGE_MAX: usize = 16_384;
/// Mutating requests that one client may have unacknowledged: mgr keeps their replies.
pub const REPLIES_KEPT_PER_CLIENT_MAX: usize = 1024;
/// Leases that a client may give back, or recalls that it may answer, in one message.
pub const LEASES_PER_MESSAGE_MAX: usize = 16_384;
/// Names of objects in one of an iod's lists: they fit a body. An iod sorts a hash directory for each.
pub const OBJECTS_PER_PAGE_MAX: usize = 65_536;
/// Objects in one question about them: mgr and iods are busy with it for some milliseconds.
pub const OBJECTS_PER_QUESTION_MAX: usize = 2048;
/// Bytes that one request has an iod compare with their checksums.
pub const SCRUB_BYTES_MAX: u64 = 8 << 20;
/// Locks that one client may have: as many fit the greetings after mgr's restart without delay.
pub const LOCKS_PER_CLIENT_MAX: usize = 32_768;
/// Locks that one client may declare in a single greeting: 60 bytes each, half a body.
pub const LOCKS_PER_MESSAGE_MAX: usize = 8192;
/// Locks that one client may wait for at a time.
pub const LOCK_WAITS_PER_CLIENT_MAX: usize = 4096;
/// Changes that one client may have under way at one iod: more than threads wait in any process.
pub const SLOTS_PER_SESSION_MAX: u32 = 1024;
/// Clients with a mount, and iods, say to mgr at least so often that they are there, and mgr answers.
/// One that has been silent for three of these has missed more than a hiccup.
pub const HEARTBEAT_INTERVAL_MS: u64 = 500;
/// Whoever looks for silence looks so often: what is added up is never more for one look, so that a
/// process that was itself stopped does not take its own sleep for the silence of others.
pub const SILENCE_LOOK_MS: u64 = 250;
/// A peer that is silent for so long is suspect: the logs and mgr's notices say so, new files avoid
/// it, and nothing else changes. Together with one look it is below 2 s.
pub const SUSPECT_AFTER_MS: u64 = 1500;
/// A connection on which heartbeats should come, and none has for so long, ends at both its ends:
/// longer than a busy or stopped process is silent, shorter than leases last.
pub const LOST_AFTER_MS: u64 = 5000;

const _: () = assert!(SUSPECT_AFTER_MS >= 3 * HEARTBEAT_INTERVAL_MS);
const _: () = assert!(SUSPECT_AFTER_MS + SILENCE_LOOK_MS < 2000);
const _: () = assert!(LOST_AFTER_MS > 2 * SUSPECT_AFTER_MS);
