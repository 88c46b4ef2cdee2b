//! Bad input in bulk: whatever bytes come, decoders and parsers answer, and in time that grows with the input.
//!
//! Bounded: a fixed number of cases, so that the run takes seconds. Work is counted, not timed: a machine may be slow.

use http::{Method, Uri};
use proptest::prelude::*;
use serde::de::IgnoredAny;

use super::negotiate::Accepted;
use super::protobuf;
use super::request_info::RequestInfo;
use crate::registry::RESOURCES;
use crate::registry::store::{FieldValidation, decode, yaml_to_json};

/// Text of the sort that YAML and JSON are made of, which random bytes are not.
fn document() -> impl Strategy<Value = String> {
    let token = prop_oneof![
        Just("{"),
        Just("}"),
        Just("["),
        Just("]"),
        Just(":"),
        Just(": "),
        Just(","),
        Just("- "),
        Just("\n"),
        Just("  "),
        Just("\""),
        Just("'"),
        Just("&a "),
        Just("*a"),
        Just("!!binary "),
        Just("|\n"),
        Just("---\n"),
        Just("a"),
        Just("metadata"),
        Just("null"),
        Just("1e999"),
        Just("-0"),
        Just("0x1f"),
        Just("\\u0000"),
        Just("\u{feff}"),
        Just("#"),
        Just("? "),
        Just("<<: "),
        Just("%YAML 1.1\n"),
        Just("é"),
    ];
    proptest::collection::vec(token, 0..60).prop_map(|tokens| tokens.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn yaml_is_json_afterwards_or_refused(text in document()) {
        if let Ok(json) = yaml_to_json(text.as_bytes()) {
            // Numbers may still be too large for anybody.
            prop_assert!(serde_json::from_slice::<IgnoredAny>(&json).is_ok(), "{text:?}");
        }
    }

    #[test]
    fn bytes_are_an_object_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300), text in document(), at in any::<prop::sample::Index>()) {
        let rows: Vec<_> = RESOURCES.iter().collect();
        let row = at.get(&rows);
        for body in [bytes.as_slice(), text.as_bytes()] {
            for validation in [FieldValidation::Strict, FieldValidation::Ignore] {
                if let Err(error) = decode(row, body, validation) {
                    prop_assert!((400..500).contains(&error.code()), "{error}");
                }
            }
        }
    }

    #[test]
    fn protobuf_is_an_object_or_refused(raw in proptest::collection::vec(any::<u8>(), 0..300), kind in prop_oneof![Just("Pod"), Just("Event"), Just("Secret")]) {
        let envelope = [b"k8s\0\x0a".as_slice(), &[u8::try_from(kind.len() + 6).unwrap()], b"\x0a\x02v1\x12", &[u8::try_from(kind.len()).unwrap()], kind.as_bytes()].concat();
        let mut body = envelope.clone();
        body.push(0x12);
        let length = raw.len();
        // Two bytes of length are enough for so little.
        body.extend([u8::try_from(length & 0x7f).unwrap() | 0x80, u8::try_from(length >> 7).unwrap()]);
        body.extend(&raw);
        for body in [body, [envelope, raw].concat()] {
            if let Err(error) = protobuf::to_json(&body) {
                prop_assert!((400..500).contains(&error.code()), "{error}");
            }
        }
    }

    #[test]
    fn a_path_is_parsed_or_refused(segments in proptest::collection::vec("[a-z%0-9.~:@!/]{0,12}", 0..10), query in "[a-z%=&+,!0-9]{0,40}") {
        let Ok(uri) = format!("/{}?{query}", segments.join("/")).parse::<Uri>() else { return Ok(()) };
        for method in [Method::GET, Method::POST, Method::DELETE] {
            if let Ok(info) = RequestInfo::parse(&method, &uri) {
                prop_assert!(!info.name.contains('/') && !info.namespace.contains('/') && info.name != "..", "{uri}: {info:?}");
            }
        }
    }

    #[test]
    fn an_accept_header_is_understood_or_refused(text in "[a-z/*;=,.q0-9 \"+-]{0,80}") {
        let Ok(value) = text.parse::<http::HeaderValue>() else { return Ok(()) };
        let headers = http::HeaderMap::from_iter([(http::header::ACCEPT, value)]);
        let info = RequestInfo::parse(&Method::GET, &Uri::from_static("/api/v1/pods")).unwrap();
        if let Err(error) = Accepted::choose(&headers, &info) {
            prop_assert!([400, 406].contains(&error.code()), "{error}");
        }
    }
}

#[test]
fn what_is_read_is_no_larger_than_what_was_sent() {
    // The same short field again and again, and messages in messages: neither may make more of the output than of the input.
    for (unit, repeat) in [(b"\x0a\x00".as_slice(), 2000), (b"\x1a\x00", 2000), (b"\x12\x02\x0a\x00", 2000)] {
        let raw = unit.repeat(repeat);
        let meta = b"\x0a\x02v1\x12\x03Pod";
        let mut body = b"k8s\0\x0a".to_vec();
        body.push(u8::try_from(meta.len()).unwrap());
        body.extend_from_slice(meta);
        body.push(0x12);
        body.extend([
            u8::try_from(raw.len() & 0x7f).unwrap() | 0x80,
            u8::try_from(raw.len() >> 7 & 0x7f).unwrap() | if raw.len() >> 14 > 0 { 0x80 } else { 0 },
        ]);
        if raw.len() >> 14 > 0 {
            body.push(u8::try_from(raw.len() >> 14).unwrap());
        }
        body.extend_from_slice(&raw);
        let json = protobuf::to_json(&body).unwrap();
        assert!(json.len() < 64 + raw.len() * 16, "{} bytes of {}", json.len(), raw.len());
    }
}
