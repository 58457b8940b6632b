//! The forms of values; that every call is valid JSON is a property test's matter.

use serde_json::{Value, json};

use super::write_string;
use crate::made_up::{Guest, IN_OUT, LISTS, PIECES, REGISTER, ROWS, WIDTHS};

fn value(json: &str) -> Value {
    serde_json::from_str(json).unwrap_or_else(|error| panic!("{error}: {json}"))
}

#[test]
fn nested_arrays_with_missing_elements() {
    let guest = Guest::default().with(0x1000, vec![1; 50]);
    let parsed = value(&guest.enters(ROWS, &[0x1000, 3]).json);
    assert_eq!(parsed["rows"][0], json!(vec![1; 20]));
    assert_eq!(parsed["rows"][2], json!({"not_captured": 1}));
    assert_eq!(parsed["nr"], json!(3));
    let none = Guest::default().with(0x1000, [1; 3]);
    assert_eq!(value(&none.enters(ROWS, &[0x1000, 3]).json)["rows"], json!([{"not_captured": 3}]));
}

#[test]
fn missing_fields_are_counted_in_their_struct() {
    let guest = Guest::default().words(0x1000, &[1, 2, 3]);
    let parsed = value(&guest.enters(IN_OUT, &[0x1000]).json);
    assert_eq!(parsed, json!({"arg": {"request": 1, "changed": 3, "not_captured": 4}}));
}

#[test]
fn changes_are_pairs() {
    let before = Guest::default().words(0x1000, &[1; 14]);
    let after = Guest::default().words(0x1000, &[2; 14]);
    let parsed = value(&before.returns(IN_OUT, &[0x1000], &after).json);
    assert_eq!(parsed["arg"]["changed"], json!({"in": 1, "out": 2}));
    assert_eq!(parsed["arg"]["request"], json!(1));
    assert_eq!(parsed["arg"]["reply"], json!(2));
    assert_eq!(parsed["arg"]["pairs"], json!([{"given": 1, "got": 2}, {"given": 1, "got": 2}]));
}

#[test]
fn texts_are_escaped_and_bytes_are_hex() {
    let guest = Guest::default().with(0x1000, b"\"\\\n\x7f\xe9\0").with(0x3000, [0xa; 2]);
    let parsed = value(&guest.enters(PIECES, &[0x1000, 0x2000, 0x3000, 0, 0, 3]).json);
    assert_eq!(parsed["text"], json!("\"\\\n\u{7f}é"));
    assert_eq!(parsed["chars"], json!({"pointer": "0x2000", "missing": "unreadable"}));
    assert_eq!(parsed["bytes"], json!({"hex": "0a0a", "total_bytes": 3}));
    assert_eq!(parsed["numbers"], Value::Null);
}

#[test]
fn named_values_are_names_and_others_numbers() {
    let parsed = |dom| value(&Guest::default().enters(REGISTER, &[1, dom, 0, 1]).json);
    assert_eq!(parsed(0x7ff0)["dom"], json!("DOMID_SELF"));
    assert_eq!(parsed(3)["dom"], json!(3));
    assert_eq!(parsed(3)["cmd"], json!("OP_one"));
    assert_eq!(parsed(3)["ok"], json!(true));
    let kinds = Guest::default().words(0x1000, &[0, 0, 0, 1, 0xffff_ffff, 0, 0, 0, 0, 77, 0, 0]);
    let parsed = value(&kinds.enters(LISTS, &[0x1000, 2]).json);
    assert_eq!(parsed["lists"][0]["kind"], json!("KIND_number"));
    assert_eq!(parsed["lists"][0]["number"], json!(-1));
    assert_eq!(parsed["lists"][1]["kind"], json!(77));
}

#[test]
fn words_of_bits_and_large_numbers() {
    let guest = Guest::default()
        .with(0x1000, [0; 16])
        .with(0x1010, u64::MAX.to_le_bytes())
        .with(0x1018, [0; 8])
        .words(0x1020, &[0x8000_0001, 0]);
    let parsed = value(&guest.enters(WIDTHS, &[0x1000, 0x10]).json);
    assert_eq!(parsed["wide"]["stamp"], json!(u64::MAX));
    assert_eq!(parsed["wide"]["flags"], json!("FLAG_a|0x80000000"));
    assert_eq!(parsed["long"], json!("0x10"));
}

#[test]
fn every_byte_survives_a_string() {
    let bytes: Vec<u8> = (0..=255).collect();
    let mut out = String::new();
    write_string(&mut out, &bytes);
    assert!(out.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
    let text: String = bytes.iter().map(|byte| char::from(*byte)).collect();
    assert_eq!(value(&out), json!(text));
}
