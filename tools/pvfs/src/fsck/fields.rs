// SPDX-License-Identifier: MIT
//! A finding as fields for machines: `kind`, and whatever it is about. Names that are not UTF-8 are
//! written with replacement characters; `name_hex` has their bytes.

use pvfs::name::Name;
use pvfs::proto::check::Finding;
use serde_json::{Map, Value, json};

/// All fields but the path.
pub fn fields(finding: &Finding) -> Map<String, Value> {
    let (kind, value) = match finding {
        Finding::Unreadable { key } => ("unreadable_record", json!({ "key_hex": hex(key) })),
        Finding::DanglingName {
            directory,
            name,
            inode,
        } => ("dangling_name", named(directory.0, name, Some(inode.0))),
        Finding::NameWithoutDirectory {
            directory,
            name,
            inode,
        } => (
            "name_without_directory",
            named(directory.0, name, Some(inode.0)),
        ),
        Finding::WrongKind { directory, name } => ("wrong_kind", named(directory.0, name, None)),
        Finding::NoPlace { directory, name } => ("no_place", named(directory.0, name, None)),
        Finding::StrayPlace { directory, cookie } => (
            "stray_place",
            json!({ "directory": directory.0, "cookie": cookie }),
        ),
        Finding::WrongParent {
            inode,
            directory,
            name,
        } => ("wrong_parent", named(directory.0, name, Some(inode.0))),
        Finding::StrayRecord { key } => ("stray_record", json!({ "key_hex": hex(key) })),
        Finding::LiveGarbage { object } => {
            ("live_garbage", json!({ "object": object.to_string() }))
        }
        Finding::WrongXattrMark { inode } => ("wrong_xattr_mark", json!({ "inode": inode.0 })),
        Finding::NoLayout { inode } => ("no_layout", json!({ "inode": inode.0 })),
        Finding::NoTarget { inode } => ("no_target", json!({ "inode": inode.0 })),
        Finding::UnknownIod { inode, iod } => {
            ("unknown_iod", json!({ "inode": inode.0, "iod": iod.0 }))
        }
        Finding::NoName { inode, .. } => ("no_name", json!({ "inode": inode.0 })),
        Finding::ManyNames { inode, names, .. } => {
            ("many_names", json!({ "inode": inode.0, "counted": names }))
        }
        Finding::WrongLinks {
            inode,
            nlink,
            counted,
            ..
        } => (
            "wrong_links",
            json!({ "inode": inode.0, "recorded": nlink, "counted": counted }),
        ),
        Finding::WrongEntries {
            inode,
            entries,
            counted,
            ..
        } => (
            "wrong_entries",
            json!({ "inode": inode.0, "recorded": entries, "counted": counted }),
        ),
        Finding::WrongCount { counters, counted } => (
            "wrong_count",
            json!({ "recorded": counters.inodes_used, "counted": counted }),
        ),
        Finding::StrayObject { object, parts } => {
            let iods: Vec<_> = parts.iter().map(|part| part.iod.0).collect();
            let bytes: u64 = parts.iter().map(|part| part.length).sum();
            (
                "stray_object",
                json!({ "object": object.to_string(), "iods": iods, "bytes": bytes }),
            )
        }
        Finding::LostObject { iod, object } => (
            "lost_object",
            json!({ "inode": object.inode.0, "iod": iod.0, "object": object.to_string() }),
        ),
        Finding::ShortObject {
            iod,
            object,
            length,
            ..
        } => (
            "short_object",
            json!({
                "inode": object.inode.0, "iod": iod.0, "object": object.to_string(),
                "bytes": length.unwrap_or(0), "absent": length.is_none(),
            }),
        ),
        Finding::SmallSize {
            iod,
            object,
            length,
            ..
        } => (
            "small_size",
            json!({
                "inode": object.inode.0, "iod": iod.0, "object": object.to_string(),
                "bytes": length,
            }),
        ),
    };
    let mut all = Map::new();
    all.insert("kind".to_owned(), kind.into());
    if let Value::Object(rest) = value {
        all.extend(rest);
    }
    all
}

fn named(directory: u64, name: &Name, inode: Option<u64>) -> Value {
    let text = String::from_utf8_lossy(name.as_bytes());
    let mut value =
        json!({ "directory": directory, "name": text, "name_hex": hex(name.as_bytes()) });
    if let (Some(fields), Some(inode)) = (value.as_object_mut(), inode) {
        fields.insert("inode".to_owned(), inode.into());
    }
    value
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use pvfs::ids::{InodeNumber, IodId, ObjectId};
    use pvfs::proto::check::StrayPart;

    #[test]
    fn a_script_needs_no_prose() {
        let object = ObjectId {
            inode: InodeNumber(255),
            generation: 1,
        };
        let part = StrayPart {
            iod: IodId(2),
            length: 7,
            place: None,
        };
        let stray = fields(&Finding::StrayObject {
            object,
            parts: vec![part],
        });
        let expected = json!({
            "kind": "stray_object", "iods": [2], "bytes": 7, "object": "00000000000000ff.00000001",
        });
        assert_eq!(Value::Object(stray), expected);
        let name = Name::new(b"a\xff".to_vec()).unwrap();
        let kind = fields(&Finding::WrongKind {
            directory: InodeNumber(1),
            name,
        });
        assert_eq!(kind["name_hex"], "61ff");
        assert_eq!(kind["directory"], 1);
    }
}
