//! Calls as people read them, in the manner of strace: `memory_op(cmd=XENMEM_exchange, arg={…})`.

use std::fmt::Write as _;

use crate::call::{Abi, SubOp};
use crate::decode::{self, Call, Group, Missing, Sink, Value};
use crate::scalar;
use crate::types::Scalar;

/// Array elements shown before the rest is only counted.
const SHOWN_ELEMENTS: usize = 16;
/// Bytes shown of a buffer of no known structure.
const SHOWN_BYTES: usize = 32;
/// Bytes shown of a text.
const SHOWN_TEXT: usize = 256;

/// How much of long arrays and buffers to show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// A bounded part, fit for a line.
    Line,
    /// All that was captured.
    Full,
}

/// Appends `name(arguments)` to `out`.
pub fn write_call(out: &mut String, abi: &Abi, call: &Call<'_>, detail: Detail) {
    match abi.call(call.registers.number) {
        Some(hypercall) => out.push_str(hypercall.name),
        None => {
            let _ = write!(out, "hypercall_{}", call.registers.number);
        }
    }
    out.push('(');
    let mut sink = Text { out, first: true, counts: [0; MAX_DEPTH], depth: 0, detail };
    decode::decode(abi, call, &mut sink);
    out.push(')');
}

/// Appends the result: a number with its meaning, or an errno by name.
pub fn write_result(out: &mut String, abi: &Abi, call: &Call<'_>, result: i64) {
    let returns = decode::identify(abi, call).returns();
    scalar::write_result(out, returns, result);
}

/// Arrays can stand in arrays only as deep as the static types nest; deeper levels share the last counter.
const MAX_DEPTH: usize = 16;

struct Text<'a> {
    out: &'a mut String,
    first: bool,
    /// Elements so far of each open group; `usize::MAX` for a struct.
    counts: [usize; MAX_DEPTH],
    depth: usize,
    detail: Detail,
}

impl Text<'_> {
    /// Writes the separator and the name; false if the element is beyond what a line shows.
    fn begin(&mut self, name: &str) -> bool {
        if self.hidden() {
            return false;
        }
        if !self.first {
            self.out.push_str(", ");
        }
        self.first = false;
        if !name.is_empty() {
            self.out.push_str(name);
            self.out.push('=');
        }
        true
    }

    /// Whether an enclosing array has shown its share; counts the element otherwise.
    fn hidden(&mut self) -> bool {
        if self.detail == Detail::Full || self.depth == 0 {
            return false;
        }
        let open = &mut self.counts[..self.depth.min(MAX_DEPTH)];
        let Some((innermost, outer)) = open.split_last_mut() else { return false };
        if *innermost != usize::MAX {
            *innermost += 1;
        }
        let over = |count: usize| count != usize::MAX && count > SHOWN_ELEMENTS;
        over(*innermost) || outer.iter().any(|count| over(*count))
    }
}

impl Sink for Text<'_> {
    fn open(&mut self, name: &'static str, group: Group) {
        if self.begin(name) {
            self.out.push(if group == Group::Struct { '{' } else { '[' });
            self.first = true;
        }
        if let Some(count) = self.counts.get_mut(self.depth) {
            *count = if group == Group::Struct { usize::MAX } else { 0 };
        }
        self.depth += 1;
    }

    fn close(&mut self, group: Group) {
        self.depth -= 1;
        let over = |count: &usize| *count != usize::MAX && *count > SHOWN_ELEMENTS;
        let full = self.detail == Detail::Full;
        if !full && self.counts[..self.depth.min(MAX_DEPTH)].iter().any(over) {
            return;
        }
        let hidden = self.counts.get(self.depth).filter(|count| !full && over(count));
        if let Some(count) = hidden {
            let _ = write!(self.out, ", …{} more", count - SHOWN_ELEMENTS);
        }
        self.out.push(if group == Group::Struct { '}' } else { ']' });
        self.first = false;
    }

    fn scalar(&mut self, name: &'static str, scalar: &Scalar, value: Value) {
        if !self.begin(name) {
            return;
        }
        match (value.before, value.after) {
            (Some(before), Some(after)) if before != after => {
                scalar::write(self.out, scalar, before);
                self.out.push_str("->");
                scalar::write(self.out, scalar, after);
            }
            (before, after) => {
                if let Some(value) = before.or(after) {
                    scalar::write(self.out, scalar, value);
                }
            }
        }
    }

    fn sub_op(&mut self, name: &'static str, number: u64, op: Option<&'static SubOp>) {
        if self.begin(name) {
            scalar::write_sub_op(self.out, number, op);
        }
    }

    fn text(&mut self, name: &'static str, bytes: &[u8]) {
        if !self.begin(name) {
            return;
        }
        let shown = if self.detail == Detail::Full { bytes.len() } else { bytes.len().min(SHOWN_TEXT) };
        let _ = write!(self.out, "\"{}\"", bytes[..shown].escape_ascii());
        if shown < bytes.len() {
            self.out.push('…');
        }
    }

    fn bytes(&mut self, name: &'static str, bytes: &[u8], total: u64) {
        if !self.begin(name) {
            return;
        }
        let shown = if self.detail == Detail::Full { bytes.len() } else { bytes.len().min(SHOWN_BYTES) };
        scalar::write_hex_bytes(self.out, &bytes[..shown]);
        if (shown as u64) < total {
            let _ = write!(self.out, "…({total} bytes)");
        }
    }

    fn pointer(&mut self, name: &'static str, gva: u64, why: Missing) {
        if !self.begin(name) {
            return;
        }
        let _ = match why {
            Missing::Null => write!(self.out, "NULL"),
            Missing::Unreadable => write!(self.out, "{gva:#x} (unreadable)"),
            Missing::NotCaptured => write!(self.out, "{gva:#x}"),
        };
    }

    fn elided(&mut self, count: u64) {
        if !self.hidden() {
            let _ = write!(self.out, ", …{count} not captured");
            self.first = false;
        }
    }
}
