// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The attribute reader and the encoder: against each other, and on bytes that are no attributes.

use ipvs_mwlc::director::errno::Errno;
use ipvs_mwlc::director::netlink::{Attributes, Encoder, Full};
use proptest::prelude::*;

#[test]
fn golden_bytes() {
    let mut buffer = [0xffu8; 64];
    let mut encoder = Encoder::new(&mut buffer);
    let nest = encoder.nest(1).unwrap();
    encoder.u16(2, 0x0102).unwrap();
    encoder.be16(4, 80).unwrap();
    encoder.string(6, "mwlc").unwrap();
    encoder.end_nest(nest).unwrap();
    encoder.u64(3, 1).unwrap();
    let mut expected: Vec<u8> = Vec::new();
    for word in [32u16, 1, 6, 2, 0x0102, 0, 6, 4, 80u16.to_be(), 0, 9, 6] {
        expected.extend(word.to_ne_bytes());
    }
    expected.extend(b"mwlc\0\0\0\0");
    expected.extend(12u16.to_ne_bytes());
    expected.extend(3u16.to_ne_bytes());
    expected.extend(1u64.to_ne_bytes());
    assert_eq!(encoder.written(), expected);
    assert_eq!(encoder.used(), expected.len());
}

#[test]
fn flags_in_the_type_are_masked_and_the_last_duplicate_counts() {
    let mut bytes = Vec::new();
    for (kind, value) in [(0x8003u16, 1u32), (0x4003, 2), (3, 3), (200, 4)] {
        bytes.extend(8u16.to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value.to_ne_bytes());
    }
    let table = Attributes::new(&bytes).table::<5>().unwrap();
    let attribute = table.get(3).unwrap();
    assert_eq!((attribute.u32(), attribute.offset), (Ok(3), 16));
    assert!(table.get(200).is_none() && table.get(0).is_none() && table.get(u16::MAX).is_none());
}

#[test]
fn bytes_that_are_no_attribute_are_refused_where_they_start() {
    let good = [8u16.to_ne_bytes(), 1u16.to_ne_bytes(), [1, 2], [3, 4]].concat();
    for bad in [
        &[0u8][..],
        &[3, 0, 1, 0],
        &[0, 0, 0, 0],
        &[5, 0, 1, 0],
        &[255, 255, 1, 0],
    ] {
        let bytes = [&good, bad].concat();
        let reject = Attributes::new(&bytes).table::<4>().unwrap_err();
        assert_eq!(
            (reject.errno, reject.attribute_offset),
            (Errno::Invalid, Some(8)),
            "{bad:?}"
        );
        let mut attributes = Attributes::new(&bytes);
        assert!(attributes.next().unwrap().is_ok());
        assert!(attributes.next().unwrap().is_err());
        assert!(attributes.next().is_none());
    }
}

#[test]
fn the_last_padding_may_be_missing() {
    let bytes = [&5u16.to_ne_bytes()[..], &1u16.to_ne_bytes(), &[7]].concat();
    let table = Attributes::new(&bytes).table::<2>().unwrap();
    assert_eq!(table.get(1).unwrap().u8(), Ok(7));
}

#[test]
fn a_value_of_the_wrong_length_is_refused() {
    for length in (0..=9usize).filter(|length| ![1, 2, 4, 8].contains(length)) {
        let mut buffer = [0u8; 32];
        let mut encoder = Encoder::new(&mut buffer);
        encoder.bytes(1, &[1; 9][..length]).unwrap();
        let table = Attributes::new(encoder.written()).table::<2>().unwrap();
        let attribute = table.get(1).unwrap();
        let errors = [
            attribute.u8().map(u64::from),
            attribute.u16().map(u64::from),
            attribute.be16().map(u64::from),
            attribute.u32().map(u64::from),
            attribute.u64(),
        ];
        for error in errors {
            let reject = error.unwrap_err();
            assert_eq!(
                (reject.errno, reject.attribute_offset),
                (Errno::Invalid, Some(0))
            );
        }
    }
}

#[test]
fn strings_end_at_the_first_nul_and_have_a_limit() {
    for (payload, expected) in [
        (&b""[..], Some(&b""[..])),
        (b"\0", Some(b"")),
        (b"wlc", Some(b"wlc")),
        (b"wlc\0rest", Some(b"wlc")),
        (b"123456789012345\0", Some(b"123456789012345")),
        (b"1234567890123456", None),
    ] {
        let mut buffer = [0u8; 64];
        let mut encoder = Encoder::new(&mut buffer);
        encoder.bytes(1, payload).unwrap();
        let table = Attributes::new(encoder.written()).table::<2>().unwrap();
        assert_eq!(table.get(1).unwrap().string(15).ok(), expected);
    }
}

#[test]
fn a_full_buffer_takes_nothing_more_and_keeps_what_it_has() {
    let mut buffer = [0u8; 20];
    let mut encoder = Encoder::new(&mut buffer);
    let nest = encoder.nest(1).unwrap();
    encoder.u32(2, 5).unwrap();
    let before = encoder.used();
    assert_eq!(encoder.u64(3, 6), Err(Full));
    assert_eq!(encoder.used(), before);
    encoder.u32(4, 7).unwrap();
    assert_eq!(encoder.u8(5, 1), Err(Full));
    encoder.end_nest(nest).unwrap();
    assert_eq!(encoder.written().len(), 20);
    assert_eq!(encoder.written().first(), Some(&20));
}

#[test]
fn an_attribute_over_65535_bytes_does_not_fit_its_length() {
    let mut buffer = vec![0u8; 200_000];
    let mut encoder = Encoder::new(&mut buffer);
    assert_eq!(encoder.bytes(1, &vec![0; 65_532]), Err(Full));
    assert_eq!(encoder.bytes(1, &vec![0; 65_531]), Ok(()));
    let nest = encoder.nest(1).unwrap();
    encoder.bytes(1, &vec![0; 65_531]).unwrap();
    assert_eq!(encoder.end_nest(nest), Err(Full));
}

proptest! {
    #[test]
    fn what_is_written_is_read(
        attributes in prop::collection::vec(
            (1u16..0x3fff, prop::collection::vec(any::<u8>(), 0..40)), 0..12),
    ) {
        let mut buffer = [0xaau8; 1024];
        let mut encoder = Encoder::new(&mut buffer);
        for (kind, payload) in &attributes {
            encoder.bytes(*kind, payload).unwrap();
        }
        let read: Vec<(u16, Vec<u8>)> = Attributes::new(encoder.written())
            .map(|attribute| attribute.map(|read| (read.kind, read.payload.to_vec())).unwrap())
            .collect();
        prop_assert_eq!(read, attributes);
    }

    #[test]
    fn random_bytes_end(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut count = 0;
        for attribute in Attributes::new(&bytes) {
            count += 1;
            if let Ok(attribute) = attribute {
                prop_assert!(attribute.offset + 4 + attribute.payload.len() <= bytes.len());
                for nested in attribute.nested().flatten() {
                    prop_assert!(nested.offset >= attribute.offset + 4);
                    prop_assert!(nested.offset + 4 + nested.payload.len() <= bytes.len());
                }
            }
        }
        prop_assert!(count <= bytes.len() / 4 + 1);
        let _ = Attributes::new(&bytes).table::<16>();
    }
}
