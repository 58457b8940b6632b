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
    decode::decode(abi, call, &mut Text::new(out, detail));
    out.push(')');
}

/// Appends the result: a number with its meaning, or an errno by name.
pub fn write_result(out: &mut String, abi: &Abi, call: &Call<'_>, result: i64) {
    let returns = decode::identify(abi, call).returns();
    scalar::write_result(out, returns, result);
}

/// Appends a result whose meaning is known, as [`write_result`] does.
pub fn write_returned(out: &mut String, returns: crate::Show, result: i64) {
    scalar::write_result(out, returns, result);
}

/// A group that is being written.
struct Level {
    group: Group,
    /// Elements so far, those not shown included.
    elements: usize,
    /// Elements or fields that the capture does not have.
    missing: u64,
}

struct Text<'a> {
    out: &'a mut String,
    detail: Detail,
    /// The groups around the next element, without those that are not shown.
    open: Vec<Level>,
    /// How many groups are open within an element that is not shown, itself included.
    hidden: usize,
    /// Nothing stands in the innermost group yet.
    first: bool,
}

impl<'a> Text<'a> {
    const fn new(out: &'a mut String, detail: Detail) -> Self {
        Self { out, detail, open: Vec::new(), hidden: 0, first: true }
    }

    /// Writes the separator and the name; false if the element is beyond what a line shows.
    fn begin(&mut self, name: &str) -> bool {
        if self.hidden > 0 {
            return false;
        }
        if let Some(level) = self.open.last_mut().filter(|level| level.group == Group::Array) {
            level.elements += 1;
            if self.detail == Detail::Line && level.elements > SHOWN_ELEMENTS {
                return false;
            }
        }
        self.separate();
        if !name.is_empty() {
            self.out.push_str(name);
            self.out.push('=');
        }
        true
    }

    fn separate(&mut self) {
        if !self.first {
            self.out.push_str(", ");
        }
        self.first = false;
    }

    /// Says how much of a group is not shown, and how much is not there to be shown.
    fn write_rest(&mut self, level: &Level) {
        let beyond = match self.detail {
            Detail::Line => level.elements.saturating_sub(SHOWN_ELEMENTS),
            Detail::Full => 0,
        };
        if beyond > 0 {
            self.separate();
            let _ = write!(self.out, "…{beyond} more");
        }
        if level.missing > 0 {
            self.separate();
            let _ = write!(self.out, "…{} not captured", level.missing);
        }
    }
}

impl Sink for Text<'_> {
    fn open(&mut self, name: &'static str, group: Group) {
        if !self.begin(name) {
            self.hidden += 1;
            return;
        }
        self.out.push(if group == Group::Struct { '{' } else { '[' });
        self.open.push(Level { group, elements: 0, missing: 0 });
        self.first = true;
    }

    fn close(&mut self, group: Group) {
        if self.hidden > 0 {
            self.hidden -= 1;
            return;
        }
        if let Some(level) = self.open.pop() {
            self.write_rest(&level);
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
        if self.hidden == 0
            && let Some(level) = self.open.last_mut()
        {
            level.missing = level.missing.saturating_add(count);
        }
    }
}

#[cfg(test)]
mod tests;
