// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! HTTP requests: which files they ask for, and that everything else is unknown.

#![expect(clippy::unwrap_used, reason = "a test's helpers may fail the test")]

use ipvs_mwlc::director::http::{parse, Name, Range, Segment, HEAD_BYTES_MAX, NAME_BYTES_MAX};
use proptest::prelude::*;

/// What a segment asks for, as `host path range`.
fn asked(segment: &[u8]) -> String {
    match parse(segment, segment.len()) {
        Segment::Fetch(fetch) => format!(
            "{} {} {:?}",
            String::from_utf8_lossy(fetch.name.host()),
            String::from_utf8_lossy(fetch.name.path()),
            fetch.range
        ),
        Segment::Nothing => "nothing".to_owned(),
        Segment::Unknown => "unknown".to_owned(),
        Segment::NoRequest => "no request".to_owned(),
    }
}

/// A GET with this target and host.
fn get(target: &str, host: &str) -> String {
    asked(format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes())
}

/// A GET of `/f` with one more header line.
fn with(header: &str) -> String {
    asked(format!("GET /f HTTP/1.1\r\nHost: h\r\n{header}\r\n\r\n").as_bytes())
}

#[test]
fn what_usual_clients_send() {
    let curl = b"GET /big/file.bin HTTP/1.1\r\nHost: Cluster.Example:80\r\n\
        User-Agent: curl/8.14.1\r\nAccept: */*\r\n\r\n";
    assert_eq!(asked(curl), "cluster.example /big/file.bin Whole");
    let wget = b"GET /f HTTP/1.1\r\nRange: bytes=100-\r\nUser-Agent: Wget\r\nHost: h\r\nConnection: Keep-Alive\r\n\r\n";
    assert_eq!(asked(wget), "h /f From(100)");
    let old = b"GET /f HTTP/1.0\r\n\r\n";
    assert_eq!(asked(old), " /f Whole");
    let bare_line_ends = b"GET /f HTTP/1.1\nHost: h\n\n";
    assert_eq!(asked(bare_line_ends), "h /f Whole");
    let head = b"HEAD /f HTTP/1.1\r\nHost: h\r\n\r\n";
    assert_eq!(asked(head), "nothing");
    let no_body = with("Content-Length: 0");
    assert_eq!(no_body, "h /f Whole");
    assert_eq!(
        with("If-Range: \"tag\"\r\nrange:bytes=0-9"),
        "h /f Within(0, 9)"
    );
}

#[test]
fn hosts_have_one_spelling() {
    for (host, expected) in [
        ("h", "h"),
        ("H.Example.", "h.example"),
        ("h:80", "h"),
        ("h:", "h"),
        ("h:8080", "h:8080"),
        ("10.0.0.100", "10.0.0.100"),
        ("[2001:DB8::1]", "[2001:db8::1]"),
        ("[2001:db8::1]:80", "[2001:db8::1]"),
        ("[::1]:81", "[::1]:81"),
        ("", ""),
    ] {
        assert_eq!(get("/", host), format!("{expected} / Whole"), "{host}");
    }
    for host in [
        "a b", "a/b", "a:b", "a:123456", "a:80:80", "user@a", "[::1", "[::g]", "[::1]x", "a\0",
        "a..b", "a..", "h\u{e9}",
    ] {
        assert_eq!(get("/", host), "unknown", "{host}");
    }
    assert_eq!(get("/", &"a".repeat(300)), "unknown");
}

#[test]
fn paths_have_one_spelling() {
    for (path, expected) in [
        ("/", "/"),
        ("/a/b", "/a/b"),
        ("/a/", "/a/"),
        ("/a//b///c", "/a/b/c"),
        ("//", "/"),
        ("/a/./b", "/a/b"),
        ("/./", "/"),
        ("/a/.", "/a/"),
        ("/a/b/..", "/a/"),
        ("/a/..", "/"),
        ("/a/../b", "/b"),
        ("/a/b/../../c", "/c"),
        ("/a//../b", "/b"),
        ("/...", "/..."),
        ("/.a/..b", "/.a/..b"),
        ("/%61%2e%2Ehtml", "/a..html"),
        ("/a%2fb", "/a/b"),
        ("/a/%2e%2e/b", "/b"),
        ("/a%20b%25", "/a b%"),
        ("/a%3Fb%23", "/a?b#"),
        ("/a?b/../../..", "/a"),
        ("/a#b", "/a"),
        ("/a+b~c;d=e", "/a+b~c;d=e"),
        ("http://other/x", "other /x"),
        ("HTTP://Other:80", "other /"),
        ("http://other?q", "other /"),
        ("http:///x", " /x"),
    ] {
        let expected = match expected.split_once(' ') {
            Some(_) if path.to_lowercase().starts_with("http") => format!("{expected} Whole"),
            _ => format!("h {expected} Whole"),
        };
        assert_eq!(get(path, "h"), expected, "{path}");
    }
    for path in [
        "",
        "*",
        "a",
        "a/b",
        "/..",
        "/../a",
        "/a/../..",
        "/a/../../b",
        "/%2e%2e",
        "/%",
        "/%4",
        "/%4g",
        "/%00",
        "/a\tb",
        "/\u{7f}",
        "https://h/",
        "http://u@h/",
        "ftp://h/",
        "?a",
        "/a b",
    ] {
        assert_eq!(get(path, "h"), "unknown", "{path}");
    }
}

#[test]
fn a_name_has_a_bound() {
    let longest = "a".repeat(NAME_BYTES_MAX - 2);
    assert_eq!(
        get(&format!("/{longest}"), "h"),
        format!("h /{longest} Whole")
    );
    assert_eq!(get(&format!("/{longest}b"), "h"), "unknown");
}

#[test]
fn what_cannot_be_foreseen_is_unknown() {
    for header in [
        "Content-Length: 5",
        "Transfer-Encoding: chunked",
        "Upgrade: websocket",
        "If-None-Match: \"tag\"",
        "if-modified-since: Mon, 23 Nov 2026 05:00:00 GMT",
        "Host: h",
        "Range: bytes=0-1\r\nRange: bytes=2-3",
        " folded",
        "no colon",
        ": no name",
        "Na me: x",
        "Range: bytes=0-1,5-6",
    ] {
        assert_eq!(with(header), "unknown", "{header}");
    }
    for segment in [
        &b"GET /f HTTP/1.1\r\n\r\n"[..],
        b"GET /f HTTP/2.0\r\nHost: h\r\n\r\n",
        b"GET /f HTTP/1.1 \r\nHost: h\r\n\r\n",
        b"GET /f\r\n",
        b"GET /f HTTP/1.1\r\nHost: h\r\n\r\nGET /g HTTP/1.1\r\nHost: h\r\n\r\n",
        b"GET /f HTTP/1.1\r\nHost: h\r\n\r\nbody",
        b"HEAD /f HTTP/1.1\r\nHost: h\r\n\r\nGET /f",
        b"POST /f HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\nx",
        b"DELETE /f HTTP/1.1\r\nHost: h\r\n\r\n",
    ] {
        assert_eq!(
            asked(segment),
            "unknown",
            "{}",
            String::from_utf8_lossy(segment)
        );
    }
}

#[test]
fn data_that_begins_no_request_says_nothing() {
    for segment in [
        &b""[..],
        b"G",
        b"GE",
        b"GET",
        b"get / HTTP/1.1\r\n\r\n",
        b"GETTING / HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\r\nGET / HTTP/1.0\r\n\r\n",
        b"SSH-2.0-OpenSSH\r\n",
    ] {
        assert_eq!(asked(segment), "no request", "{segment:?}");
    }
}

#[test]
fn a_head_that_is_cut_anywhere_is_unknown() {
    let whole = b"GET /f HTTP/1.1\r\nHost: h\r\nRange: bytes=5-9\r\n\r\n";
    assert_eq!(asked(whole), "h /f Within(5, 9)");
    for end in 4..whole.len() {
        assert_eq!(asked(&whole[..end]), "unknown", "{end}");
    }
    // The segment goes on after what was looked at.
    assert_eq!(parse(whole, whole.len() + 1), Segment::Unknown);
    assert_eq!(parse(&whole[..20], HEAD_BYTES_MAX * 2), Segment::Unknown);
}

#[test]
fn ranges() {
    for (value, expected) in [
        ("bytes=0-0", Some(Range::Within(0, 0))),
        ("BYTES=5-", Some(Range::From(5))),
        ("bytes=-7", Some(Range::Last(7))),
        ("bytes= 1-2 ", Some(Range::Within(1, 2))),
        ("lines=1-2", Some(Range::Whole)),
        ("x", Some(Range::Whole)),
        ("bytes=18446744073709551615-", Some(Range::From(u64::MAX))),
        ("bytes=18446744073709551616-", None),
        ("bytes=2-1", None),
        ("bytes=-0", None),
        ("bytes=-", None),
        ("bytes=", None),
        ("bytes=1", None),
        ("bytes=1-2-3", None),
        ("bytes=+1-2", None),
        ("bytes=1 - 2", None),
        ("bytes=0-1,2-3", None),
    ] {
        assert_eq!(Range::parse(value.as_bytes()), expected, "{value}");
    }
    for (range, of_ten) in [
        (Range::Whole, 10),
        (Range::Within(0, 9), 10),
        (Range::Within(2, 4), 3),
        (Range::Within(8, u64::MAX), 2),
        (Range::Within(10, 20), 0),
        (Range::From(0), 10),
        (Range::From(9), 1),
        (Range::From(u64::MAX), 0),
        (Range::Last(3), 3),
        (Range::Last(u64::MAX), 10),
    ] {
        assert_eq!(range.bytes_of(10), of_ten, "{range:?}");
    }
}

/// A simpler model of the same: components on a stack.
fn model(path: &str) -> Option<String> {
    let path = path.split(['?', '#']).next().unwrap();
    let mut stack: Vec<&str> = Vec::new();
    let mut ends_with_slash = true;
    for component in path.strip_prefix('/')?.split('/') {
        ends_with_slash = matches!(component, "" | "." | "..");
        match component {
            "" | "." => {}
            ".." => {
                stack.pop()?;
            }
            name => stack.push(name),
        }
    }
    let slash = if ends_with_slash && !stack.is_empty() {
        "/"
    } else {
        ""
    };
    Some(format!("/{}{slash}", stack.join("/")))
}

proptest! {
    #[test]
    fn paths_are_what_the_model_says(path in "/([ab./]|\\.\\.|[?#]){0,24}") {
        let name = Name::new(b"h", path.as_bytes());
        let path_now = name.map(|name| String::from_utf8(name.path().to_vec()).unwrap());
        prop_assert_eq!(path_now, model(&path));
    }

    #[test]
    fn a_name_is_its_own_spelling(path in "/[ -~]{0,60}", host in "[a-zA-Z0-9.:-]{0,20}") {
        if let Some(name) = Name::new(host.as_bytes(), path.as_bytes()) {
            let encode = |byte: &u8| match byte {
                b'/' => "/".to_owned(),
                byte => format!("%{byte:02x}"),
            };
            let encoded: String = name.path().iter().map(encode).collect();
            prop_assert_eq!(Name::new(name.host(), encoded.as_bytes()), Some(name));
            let path = name.path();
            prop_assert!(path.starts_with(b"/"));
            prop_assert!(!path.split(|byte| *byte == b'/').any(|component| component == b".."));
        }
    }

    #[test]
    fn hostile_segments_are_answered(
        mut segment in prop::collection::vec(any::<u8>(), 0..300),
        start in prop::sample::select(vec![
            &b""[..],
            b"GET ",
            b"GET /",
            b"HEAD /",
            b"GET /a HTTP/1.1\r\nHost: ",
            b"GET /a HTTP/1.1\r\nHost: h\r\nRange: bytes=",
        ]),
        end in prop::sample::select(vec![&b""[..], b"\r\n\r\n", b" HTTP/1.1\r\nHost: h\r\n\r\n"]),
        more in 0usize..3,
    ) {
        let mut whole = start.to_vec();
        whole.append(&mut segment);
        whole.extend(end);
        if let Segment::Fetch(fetch) = parse(&whole, whole.len() + more) {
            prop_assert_eq!(more, 0);
            prop_assert!(fetch.name.path().starts_with(b"/"));
            prop_assert!(fetch.name.bytes().len() <= NAME_BYTES_MAX);
            prop_assert!(fetch.range.bytes_of(1000) <= 1000);
        }
    }

    #[test]
    fn a_range_never_has_more_than_the_file(first in any::<u64>(), length in any::<u64>(), size in any::<u64>()) {
        let last = first.saturating_add(length);
        for range in [Range::Whole, Range::Within(first, last), Range::From(first), Range::Last(length)] {
            let bytes = u128::from(range.bytes_of(size));
            prop_assert!(bytes <= u128::from(size));
            if let Range::Within(first, last) = range {
                let all = (u128::from(last) + 1).min(u128::from(size));
                let expected = all.saturating_sub(u128::from(first));
                // The very last offset of a file of 2^64 bytes is the only one that is not counted.
                prop_assert!(expected - bytes <= 1);
            }
        }
    }
}
