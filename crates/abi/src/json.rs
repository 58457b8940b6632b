//! Call arguments as one JSON object, the form documented in `docs/events.md`.
//!
//! Numbers are JSON numbers; addresses, frame numbers and words of bits are hex strings; named values are their
//! names. A field that the guest supplied and Xen changed is `{"in": …, "out": …}`. Memory that is not at hand
//! is an object with `pointer` and, unless it is null, `missing`.

use std::fmt::Write as _;

use crate::call::{Abi, SubOp};
use crate::decode::{self, Call, Group, Missing, Sink, Value};
use crate::scalar;
use crate::types::{Scalar, Show};

/// Appends the arguments of `call` as a JSON object to `out`.
pub fn write_arguments(out: &mut String, abi: &Abi, call: &Call<'_>) {
    out.push('{');
    let mut sink = Json { out, first: true };
    decode::decode(abi, call, &mut sink);
    out.push('}');
}

/// Appends `text` as a JSON string; bytes outside ASCII are escaped one by one, as `\u00xx`.
pub fn write_string(out: &mut String, text: &[u8]) {
    out.push('"');
    for &byte in text {
        match byte {
            b'"' => out.push_str("\\\""),
            b'\\' => out.push_str("\\\\"),
            b' '..=b'~' => out.push(char::from(byte)),
            _ => {
                let _ = write!(out, "\\u{byte:04x}");
            }
        }
    }
    out.push('"');
}

struct Json<'a> {
    out: &'a mut String,
    first: bool,
}

impl Json<'_> {
    fn begin(&mut self, name: &str) {
        if !self.first {
            self.out.push(',');
        }
        self.first = false;
        if !name.is_empty() {
            let _ = write!(self.out, "\"{name}\":");
        }
    }

    fn value(&mut self, scalar: &Scalar, value: u64) {
        let plain = match scalar.show {
            Show::Dec | Show::Vcpu | Show::Port | Show::GrantRef | Show::Nanoseconds => true,
            Show::Bool => {
                self.out.push_str(if value == 0 { "false" } else { "true" });
                return;
            }
            _ => false,
        };
        if plain {
            scalar::write_decimal(self.out, scalar.int, value);
        } else {
            self.out.push('"');
            scalar::write(self.out, scalar, value);
            self.out.push('"');
        }
    }
}

impl Sink for Json<'_> {
    fn open(&mut self, name: &'static str, group: Group) {
        self.begin(name);
        self.out.push(if group == Group::Struct { '{' } else { '[' });
        self.first = true;
    }

    fn close(&mut self, group: Group) {
        self.out.push(if group == Group::Struct { '}' } else { ']' });
        self.first = false;
    }

    fn scalar(&mut self, name: &'static str, scalar: &Scalar, value: Value) {
        self.begin(name);
        match (value.before, value.after) {
            (Some(before), Some(after)) if before != after => {
                self.out.push_str("{\"in\":");
                self.value(scalar, before);
                self.out.push_str(",\"out\":");
                self.value(scalar, after);
                self.out.push('}');
            }
            (before, after) => match before.or(after) {
                Some(value) => self.value(scalar, value),
                None => self.out.push_str("null"),
            },
        }
    }

    fn sub_op(&mut self, name: &'static str, number: u64, op: Option<&'static SubOp>) {
        self.begin(name);
        match op {
            Some(op) => write_string(self.out, op.name.as_bytes()),
            None => {
                let _ = write!(self.out, "{number}");
            }
        }
    }

    fn text(&mut self, name: &'static str, bytes: &[u8]) {
        self.begin(name);
        write_string(self.out, bytes);
    }

    fn bytes(&mut self, name: &'static str, bytes: &[u8], total: u64) {
        self.begin(name);
        self.out.push_str("{\"hex\":\"");
        scalar::write_hex_bytes(self.out, bytes);
        let _ = write!(self.out, "\",\"total_bytes\":{total}}}");
    }

    fn pointer(&mut self, name: &'static str, gva: u64, why: Missing) {
        self.begin(name);
        let _ = match why {
            Missing::Null => write!(self.out, "null"),
            Missing::Unreadable => {
                write!(self.out, "{{\"pointer\":\"{gva:#x}\",\"missing\":\"unreadable\"}}")
            }
            Missing::NotCaptured => write!(self.out, "{{\"pointer\":\"{gva:#x}\"}}"),
        };
    }

    fn elided(&mut self, count: u64) {
        self.begin("");
        let _ = write!(self.out, "{{\"not_captured\":{count}}}");
    }
}
