// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What a client asks for, from the first bytes of one data segment: HTTP/1.0 and 1.1
//! (RFC 9110, RFC 9112).
//!
//! A size is looked up for a GET only, and only if the answer's length is that of a file or of one
//! range of it. Everything that a server might answer otherwise is [`Segment::Unknown`]; a wrong
//! size is worse than none. Nothing is reassembled: a head that does not end with the segment is
//! unknown as well.
//!
//! | in the request | here |
//! |---|---|
//! | a body, a second request in the same segment, an upgrade | unknown |
//! | `If-None-Match`, `If-Modified-Since` | unknown: the answer may be 304 |
//! | `If-Range` | ignored: a client resumes what has not changed |
//! | several ranges, a range that is none | unknown |
//! | a range in another unit than bytes | ignored, as servers do |
//! | query, fragment | no part of the name: files do not depend on them |
//! | port in the host | part of the name unless it is 80 |

mod name;
mod range;

pub use name::{Name, NAME_BYTES_MAX};
pub use range::Range;

/// At most this many bytes of a segment are looked at. A request of a browser with its cookies has
/// about one; servers take 8 by default, which would cost more copying than it finds.
pub const HEAD_BYTES_MAX: usize = 4096;

/// What a client's data segment means for the size of its connection.
#[allow(
    clippy::large_enum_variant,
    reason = "it is made and taken apart in one packet's path, where nothing can be allocated"
)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Segment {
    /// It asks for a file or one range of it.
    Fetch(Fetch),
    /// It asks for something without a body.
    Nothing,
    /// It asks for something whose size cannot be told.
    Unknown,
    /// It begins no request: more of a body, TLS, another protocol.
    NoRequest,
}

/// A file that is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fetch {
    /// The file's name.
    pub name: Name,
    /// Which part of it.
    pub range: Range,
}

/// Methods whose answers have bodies of unknown size; they are told apart from data that is no
/// request.
const OTHER_METHODS: [&[u8]; 10] = [
    b"POST ",
    b"PUT ",
    b"DELETE ",
    b"OPTIONS ",
    b"PATCH ",
    b"CONNECT ",
    b"TRACE ",
    b"PROPFIND ",
    b"REPORT ",
    b"SEARCH ",
];

/// Reads the segment's first bytes, at most [`HEAD_BYTES_MAX`] of them; `segment_bytes` is how many
/// it has.
pub fn parse(first: &[u8], segment_bytes: usize) -> Segment {
    let is_head = first.starts_with(b"HEAD ");
    if !is_head && !first.starts_with(b"GET ") {
        let is_other = OTHER_METHODS.iter().any(|method| first.starts_with(method));
        return if is_other {
            Segment::Unknown
        } else {
            Segment::NoRequest
        };
    }
    match (fetch(first, segment_bytes), is_head) {
        (Some(_), true) => Segment::Nothing,
        (Some(fetch), false) => Segment::Fetch(fetch),
        (None, _) => Segment::Unknown,
    }
}

fn fetch(first: &[u8], segment_bytes: usize) -> Option<Fetch> {
    let (request_line, mut rest) = split_line(first)?;
    let (_method, target) = split_at_byte(request_line, b' ')?;
    let (target, version) = split_at_byte(target, b' ')?;
    let [b'H', b'T', b'T', b'P', b'/', b'1', b'.', minor] = *version else {
        return None;
    };
    let mut headers = Headers::default();
    loop {
        let (line, after) = split_line(rest)?;
        rest = after;
        if line.is_empty() {
            break;
        }
        headers.take(line)?;
    }
    // What follows the head would be a body or another request, and its size counts as well.
    let more_follows = !rest.is_empty() || segment_bytes > first.len();
    if more_follows || headers.is_unforeseeable {
        return None;
    }
    let (host, path) = match split_absolute(target) {
        Some((host, path)) => (host, path),
        None => match (headers.host, minor) {
            (Some(host), _) => (host, target),
            // Only 1.0 may leave it out; a server refuses any other.
            (None, b'0') => (&b""[..], target),
            (None, _) => return None,
        },
    };
    Some(Fetch {
        name: Name::new(host, path)?,
        range: match headers.range {
            Some(value) => Range::parse(value)?,
            None => Range::Whole,
        },
    })
}

/// The headers that matter.
#[derive(Default)]
struct Headers<'a> {
    host: Option<&'a [u8]>,
    range: Option<&'a [u8]>,
    /// The answer may be something else than the file.
    is_unforeseeable: bool,
}

impl<'a> Headers<'a> {
    /// Takes note of a line; `None` if servers refuse it or understand it differently.
    fn take(&mut self, line: &'a [u8]) -> Option<()> {
        let (name, value) = split_at_byte(line, b':')?;
        // A name with white space, or a line that continues the one before it.
        if name.is_empty() || name.iter().any(|byte| *byte <= b' ' || *byte == 0x7f) {
            return None;
        }
        let value = value.trim_ascii();
        let is = |other: &[u8]| name.eq_ignore_ascii_case(other);
        if is(b"host") {
            return only(&mut self.host, value);
        }
        if is(b"range") {
            return only(&mut self.range, value);
        }
        let has_body = is(b"transfer-encoding") || (is(b"content-length") && value != b"0");
        let may_be_empty = is(b"if-none-match") || is(b"if-modified-since");
        if has_body || may_be_empty || is(b"upgrade") {
            self.is_unforeseeable = true;
        }
        Some(())
    }
}

/// Fills a slot that may be filled once.
fn only<'a>(slot: &mut Option<&'a [u8]>, value: &'a [u8]) -> Option<()> {
    match slot.replace(value) {
        None => Some(()),
        Some(_) => None,
    }
}

/// Host and path of `http://host/path`; `None` of a target in another form.
fn split_absolute(target: &[u8]) -> Option<(&[u8], &[u8])> {
    const SCHEME: &[u8] = b"http://";
    let (scheme, rest) = target.split_at_checked(SCHEME.len())?;
    if !scheme.eq_ignore_ascii_case(SCHEME) {
        return None;
    }
    let end = rest
        .iter()
        .position(|byte| matches!(byte, b'/' | b'?' | b'#'));
    match end {
        Some(end) => match rest.split_at_checked(end)? {
            (host, path) if path.starts_with(b"/") => Some((host, path)),
            // A query without a path.
            (host, _) => Some((host, b"/")),
        },
        None => Some((rest, b"/")),
    }
}

/// A line without its end, and what follows it. Servers take a bare LF for an end as well.
fn split_line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (line, rest) = split_at_byte(bytes, b'\n')?;
    Some((line.strip_suffix(b"\r").unwrap_or(line), rest))
}

/// What stands before the first such byte, and what after it.
fn split_at_byte(bytes: &[u8], separator: u8) -> Option<(&[u8], &[u8])> {
    let at = bytes.iter().position(|byte| *byte == separator)?;
    let (before, after) = bytes.split_at_checked(at)?;
    Some((before, after.get(1..)?))
}
