// SPDX-License-Identifier: MIT
//! Keys of the metadata store: one tag byte, then integers in big-endian order so that the store's
//! byte order is their numeric order, then a name where there is one. The grid stands in
//! `docs/ON_DISK.md`; `tests/on_disk.rs` compares both.

use pvfs::ids::{ClientId, InodeNumber, IodId, ObjectId};
use pvfs::limits::{NAME_BYTES_MAX, XATTR_NAME_BYTES_MAX};
use pvfs::name::Name;

/// Longest key that LMDB takes as it is usually built (`MDB_MAXKEYSIZE`).
pub const KEY_BYTES_MAX: usize = 511;

const TAG_BYTES: usize = 1;
const INODE_BYTES: usize = 8;
const _: () = assert!(TAG_BYTES + INODE_BYTES + NAME_BYTES_MAX <= KEY_BYTES_MAX);
const _: () = assert!(TAG_BYTES + INODE_BYTES + XATTR_NAME_BYTES_MAX <= KEY_BYTES_MAX);

/// What a record is about: a key's first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Tag {
    /// The file system's identity; a single record.
    FileSystem = b'F',
    /// The counters; a single record.
    Counters = b'C',
    /// An inode.
    Inode = b'I',
    /// A directory's entry by its name.
    Dentry = b'D',
    /// A directory's entry by its cookie.
    Cookie = b'K',
    /// A regular file's layout.
    Layout = b'L',
    /// A symbolic link's target.
    Symlink = b'S',
    /// An extended attribute.
    Xattr = b'X',
    /// An inode without a name that a client may still have open.
    Orphan = b'O',
    /// A file's stripes that are to be cut on the iods.
    Cut = b'T',
    /// A file that somebody may be writing to, or may have been.
    Intent = b'W',
    /// A removed file's stripes that are to be removed from the iods.
    Garbage = b'G',
    /// An iod.
    Iod = b'V',
    /// The reply to a client's request.
    Reply = b'R',
    /// A client that may have leases.
    Client = b'M',
}

fn key(tag: Tag, parts: &[&[u8]]) -> Vec<u8> {
    let length = parts.iter().map(|part| part.len()).sum::<usize>();
    let mut key = Vec::with_capacity(TAG_BYTES + length);
    key.push(tag as u8);
    for part in parts {
        key.extend_from_slice(part);
    }
    key
}

/// Of the file system's identity.
#[must_use]
pub fn file_system() -> Vec<u8> {
    key(Tag::FileSystem, &[])
}

/// Of the counters.
#[must_use]
pub fn counters() -> Vec<u8> {
    key(Tag::Counters, &[])
}

/// Of an inode.
#[must_use]
pub fn inode(inode: InodeNumber) -> Vec<u8> {
    key(Tag::Inode, &[&inode.0.to_be_bytes()])
}

/// Of a name in a directory.
#[must_use]
pub fn dentry(directory: InodeNumber, name: &Name) -> Vec<u8> {
    key(Tag::Dentry, &[&directory.0.to_be_bytes(), name.as_bytes()])
}

/// Of a place in a directory.
#[must_use]
pub fn cookie(directory: InodeNumber, cookie: u64) -> Vec<u8> {
    key(
        Tag::Cookie,
        &[&directory.0.to_be_bytes(), &cookie.to_be_bytes()],
    )
}

/// The prefix of all places in a directory.
#[must_use]
pub fn cookie_prefix(directory: InodeNumber) -> Vec<u8> {
    key(Tag::Cookie, &[&directory.0.to_be_bytes()])
}

/// Of a regular file's layout.
#[must_use]
pub fn layout(inode: InodeNumber) -> Vec<u8> {
    key(Tag::Layout, &[&inode.0.to_be_bytes()])
}

/// Of a symbolic link's target.
#[must_use]
pub fn symlink(inode: InodeNumber) -> Vec<u8> {
    key(Tag::Symlink, &[&inode.0.to_be_bytes()])
}

/// Of an extended attribute; an empty name gives the prefix of all of the inode's.
#[must_use]
pub fn xattr(inode: InodeNumber, name: &[u8]) -> Vec<u8> {
    key(Tag::Xattr, &[&inode.0.to_be_bytes(), name])
}

/// Of an inode without a name.
#[must_use]
pub fn orphan(inode: InodeNumber) -> Vec<u8> {
    key(Tag::Orphan, &[&inode.0.to_be_bytes()])
}

/// Of stripes to be cut.
#[must_use]
pub fn cut(inode: InodeNumber) -> Vec<u8> {
    key(Tag::Cut, &[&inode.0.to_be_bytes()])
}

/// Of a file that somebody may be writing to.
#[must_use]
pub fn intent(inode: InodeNumber) -> Vec<u8> {
    key(Tag::Intent, &[&inode.0.to_be_bytes()])
}

/// Of stripes to be removed.
#[must_use]
pub fn garbage(object: ObjectId) -> Vec<u8> {
    key(
        Tag::Garbage,
        &[
            &object.inode.0.to_be_bytes(),
            &object.generation.to_be_bytes(),
        ],
    )
}

/// Of an iod.
#[must_use]
pub fn iod(iod: IodId) -> Vec<u8> {
    key(Tag::Iod, &[&iod.0.to_be_bytes()])
}

/// Of a client that may have leases.
#[must_use]
pub fn client(client: ClientId) -> Vec<u8> {
    key(Tag::Client, &[&client.0.to_be_bytes()])
}

/// Of a stored reply.
#[must_use]
pub fn reply(client: ClientId, sequence: u64) -> Vec<u8> {
    key(
        Tag::Reply,
        &[&client.0.to_be_bytes(), &sequence.to_be_bytes()],
    )
}

/// The prefix of all keys of a kind.
#[must_use]
pub fn all(tag: Tag) -> Vec<u8> {
    key(tag, &[])
}

/// The big-endian integer at `offset` of a key; `None` where the key is too short.
#[must_use]
pub fn u64_at(key: &[u8], offset: usize) -> Option<u64> {
    let bytes = key.get(offset..offset.checked_add(8)?)?;
    Some(u64::from_be_bytes(bytes.try_into().ok()?))
}

/// The inode number that stands first in a key.
#[must_use]
pub fn inode_of(key: &[u8]) -> Option<InodeNumber> {
    u64_at(key, TAG_BYTES).map(InodeNumber)
}

/// The cookie of its key.
#[must_use]
pub fn cookie_of(key: &[u8]) -> Option<u64> {
    u64_at(key, TAG_BYTES + INODE_BYTES)
}

/// The object of a garbage key.
#[must_use]
pub fn object_of(key: &[u8]) -> Option<ObjectId> {
    let generation = key.get(TAG_BYTES + INODE_BYTES..)?.try_into().ok()?;
    Some(ObjectId {
        inode: inode_of(key)?,
        generation: u32::from_be_bytes(generation),
    })
}

/// The iod of its key.
#[must_use]
pub fn iod_of(key: &[u8]) -> Option<IodId> {
    Some(IodId(u32::from_be_bytes(
        key.get(TAG_BYTES..)?.try_into().ok()?,
    )))
}

/// The client of its key.
#[must_use]
pub fn client_of(key: &[u8]) -> Option<ClientId> {
    u64_at(key, TAG_BYTES).map(ClientId)
}

/// Directory and name of an entry's key.
#[must_use]
pub fn dentry_of(key: &[u8]) -> Option<(InodeNumber, Name)> {
    let name = Name::new(key.get(TAG_BYTES + INODE_BYTES..)?).ok()?;
    Some((inode_of(key)?, name))
}

/// Client and sequence number of a reply's key.
#[must_use]
pub fn reply_of(key: &[u8]) -> Option<(ClientId, u64)> {
    Some((
        ClientId(u64_at(key, TAG_BYTES)?),
        u64_at(key, TAG_BYTES + 8)?,
    ))
}

/// The first key after all that start with `prefix`; `None` where there is none.
#[must_use]
pub fn end_of_prefix(prefix: &[u8]) -> Option<Vec<u8>> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return Some(end);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_sort_as_they_count() {
        let mut last = cookie(InodeNumber(7), 0);
        for n in [1, 255, 256, u64::from(u32::MAX), 1 << 40, u64::MAX] {
            let next = cookie(InodeNumber(7), n);
            assert!(next > last);
            last = next;
        }
        assert!(cookie(InodeNumber(8), 0) > last);
    }

    #[test]
    fn what_is_put_in_comes_out() {
        let object = ObjectId {
            inode: InodeNumber(1 << 33),
            generation: 9,
        };
        assert_eq!(object_of(&garbage(object)), Some(object));
        assert_eq!(inode_of(&orphan(InodeNumber(5))), Some(InodeNumber(5)));
        assert_eq!(iod_of(&iod(IodId(3))), Some(IodId(3)));
        assert_eq!(client_of(&client(ClientId(6))), Some(ClientId(6)));
        let name = Name::new(*b"n").unwrap();
        let place = (InodeNumber(4), name);
        assert_eq!(dentry_of(&dentry(place.0, &place.1)), Some(place));
        assert_eq!(reply_of(&reply(ClientId(4), 2)), Some((ClientId(4), 2)));
        for short in [&b""[..], b"G", b"Gabc"] {
            assert_eq!(object_of(short), None);
            assert_eq!(reply_of(short), None);
            assert_eq!(iod_of(short), None);
        }
    }

    #[test]
    fn a_prefix_ends_before_its_successor() {
        assert_eq!(end_of_prefix(b"ab"), Some(b"ac".to_vec()));
        assert_eq!(end_of_prefix(b"a\xff"), Some(b"b".to_vec()));
        assert_eq!(end_of_prefix(b"\xff"), None);
    }
}
