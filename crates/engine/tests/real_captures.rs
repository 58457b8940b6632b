//! Snapshots of the decoders on captures of a real Xen: every hypercall and sub-op that the demo meets.
//!
//! `testdata/captures.jsonl` comes from a recording of the demo through `--example pick_captures`, and
//! `testdata/captures.txt` is what it decodes to, as text and as JSON; renewed by `HYPOVISOR_RENEW=1`.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::path::{Path, PathBuf};

use hypovisor_abi::capture::{Registers, Segments};
use hypovisor_abi::decode::Call;
use hypovisor_abi::text::{self, Detail};
use hypovisor_abi::xen::XEN;
use hypovisor_abi::{Width, json};
use serde::Deserialize;

#[derive(Deserialize)]
struct Capture {
    number: u64,
    args: [u64; 6],
    bits: u32,
    entry: String,
    exit: String,
    result: Option<i64>,
}

fn testdata(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata").join(name)
}

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len() / 2).map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap()).collect()
}

/// Text and JSON of one capture, a line each.
fn decoded(line: &str) -> String {
    let capture: Capture = serde_json::from_str(line).unwrap();
    let (entry, exit) = (bytes(&capture.entry), bytes(&capture.exit));
    let width = if capture.bits == 64 { Width::Bits64 } else { Width::Bits32 };
    let call = Call {
        registers: Registers { number: capture.number, args: capture.args, width },
        entry: Segments(&entry),
        exit: Segments(&exit),
    };
    let mut out = String::new();
    text::write_call(&mut out, &XEN, &call, Detail::Line);
    out.push_str(" = ");
    match capture.result {
        Some(result) => text::write_result(&mut out, &XEN, &call, result),
        None => out.push('?'),
    }
    out.push_str("\n    ");
    let start = out.len();
    json::write_arguments(&mut out, &XEN, &call);
    let arguments: serde_json::Value = serde_json::from_str(&out[start..]).unwrap();
    assert!(arguments.is_object());
    out.push('\n');
    out
}

#[test]
fn real_calls_decode_as_before() {
    let captures = std::fs::read_to_string(testdata("captures.jsonl")).unwrap();
    assert!(captures.lines().count() > 80, "the demo meets more kinds of calls than that");
    let now: String = captures.lines().map(decoded).collect();
    let golden = testdata("captures.txt");
    if std::env::var_os("HYPOVISOR_RENEW").is_some() {
        std::fs::write(&golden, &now).unwrap();
    }
    let before = std::fs::read_to_string(&golden).unwrap_or_default();
    for (line, (before, now)) in before.lines().zip(now.lines()).enumerate() {
        assert_eq!(before, now, "line {} of {}", line + 1, golden.display());
    }
    assert_eq!(before.lines().count(), now.lines().count());
}
