//! Call arguments as one JSON object, the form documented in `docs/events.md`.
//!
//! Numbers are JSON numbers; addresses, frame numbers and words of bits are hex strings; named values are their
//! names, and numbers if they have none. A field that the guest supplied and Xen changed is
//! `{"in": …, "out": …}`. A null pointer is `null`; one whose memory is not at hand is an object with `pointer`
//! and, if the guest had nothing there, `missing`. Bytes of no known structure are `{"hex": …, "total_bytes": …}`.
//! `not_captured` counts what a capture does not reach: as a further field of an object, or as an object that is
//! the last element of an array.

use std::fmt::Write as _;

use crate::call::{Abi, SubOp};
use crate::decode::{self, Call, Group, Missing, Sink, Value};
use crate::scalar;
use crate::types::{Scalar, Show};

/// Appends the arguments of `call` as a JSON object to `out`.
pub fn write_arguments(out: &mut String, abi: &Abi, call: &Call<'_>) {
    out.push('{');
    let mut sink = Json { out, first: true, open: Vec::new() };
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
    open: Vec<Group>,
}

impl Json<'_> {
    fn begin(&mut self, name: &str) {
        if !self.first {
            self.out.push(',');
        }
        self.first = false;
        if self.open.last() != Some(&Group::Array) {
            let _ = write!(self.out, "\"{name}\":");
        }
    }

    fn value(&mut self, scalar: &Scalar, value: u64) {
        match scalar.show {
            Show::Dec | Show::Vcpu | Show::Port | Show::GrantRef | Show::Nanoseconds => {
                scalar::write_decimal(self.out, scalar.int, value);
            }
            Show::Bool => self.out.push_str(if value == 0 { "false" } else { "true" }),
            Show::Domain | Show::Enum(_) | Show::Errno => self.name_or_number(scalar, value),
            Show::Hex | Show::Address | Show::Frame | Show::Flags(_) => {
                self.out.push('"');
                scalar::write(self.out, scalar, value);
                self.out.push('"');
            }
        }
    }

    fn name_or_number(&mut self, scalar: &Scalar, value: u64) {
        let start = self.out.len();
        scalar::write(self.out, scalar, value);
        let digits = self.out[start..].trim_start_matches('-');
        if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            self.out.insert(start, '"');
            self.out.push('"');
        }
    }
}

impl Sink for Json<'_> {
    fn open(&mut self, name: &'static str, group: Group) {
        self.begin(name);
        self.out.push(if group == Group::Struct { '{' } else { '[' });
        self.open.push(group);
        self.first = true;
    }

    fn close(&mut self, group: Group) {
        self.out.push(if group == Group::Struct { '}' } else { ']' });
        self.open.pop();
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
        self.begin("not_captured");
        let _ = match self.open.last() {
            Some(Group::Array) => write!(self.out, "{{\"not_captured\":{count}}}"),
            _ => write!(self.out, "{count}"),
        };
    }
}

#[cfg(test)]
mod tests;
