//! Walks a captured call and hands its fields, by name, to a sink.
//!
//! No tree is built: a [`Sink`] gets one call per field, with the raw value and the table entry that says what
//! it means. The walk is total; what is missing or unreadable reaches the sink as [`Missing`].
//!
//! Memory that travels both ways is captured twice. Of it a field that the guest supplies is shown as it was at
//! entry, one that Xen supplies as it is at exit, and one that Xen changes as both. So as long as a call has not
//! returned, what only Xen supplies is not shown at all: the bytes that the guest left there mean nothing.

use crate::call::{Abi, Hypercall, SubOp, SubOpFrom};
use crate::capture::{self, Registers, Segments};
use crate::types::{Int, Scalar, Show};

mod bytes;
mod walk;

use walk::Walk;

/// A captured call.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// Number and argument registers at entry.
    pub registers: Registers,
    /// Memory copied at entry.
    pub entry: Segments<'a>,
    /// Memory copied after the call; empty while it runs.
    pub exit: Segments<'a>,
}

/// What a call is, by the tables.
#[derive(Clone, Copy, Debug)]
pub struct Identity {
    /// The hypercall, unless its number is unknown.
    pub call: Option<&'static Hypercall>,
    /// The sub-op number, if the call has sub-ops and the number could be read.
    pub sub_op_number: Option<u64>,
    /// The sub-op, unless its number is unknown.
    pub sub_op: Option<&'static SubOp>,
}

impl Identity {
    /// Meaning of a result that is not an errno.
    #[must_use]
    pub fn returns(&self) -> Show {
        match (self.sub_op, self.call) {
            (Some(op), _) => op.returns,
            (None, Some(call)) => call.returns,
            (None, None) => Show::Errno,
        }
    }
}

/// Why a pointer's memory is not shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// The pointer is null.
    Null,
    /// The guest had nothing mapped there.
    Unreadable,
    /// It was not captured: the call needs none of it, it is empty, or a bound was reached.
    NotCaptured,
}

/// A group of fields or elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// Named fields.
    Struct,
    /// Elements without names.
    Array,
}

/// A scalar's value: what the guest supplied, what Xen left there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Value {
    /// At entry; `None` for a field that only Xen writes.
    pub before: Option<u64>,
    /// After the call; `None` if only the guest writes it, or the call has not returned.
    pub after: Option<u64>,
}

/// Receives the fields of a call in order. A name is empty for an element of an array.
pub trait Sink {
    /// A struct or array begins.
    fn open(&mut self, name: &'static str, group: Group);
    /// The innermost open one ends.
    fn close(&mut self, group: Group);
    /// An integer. At least one of the two values is there.
    fn scalar(&mut self, name: &'static str, scalar: &Scalar, value: Value);
    /// The argument that holds the sub-op number.
    fn sub_op(&mut self, name: &'static str, number: u64, op: Option<&'static SubOp>);
    /// Text, without its NUL.
    fn text(&mut self, name: &'static str, bytes: &[u8]);
    /// Bytes of no known structure; `total` is how many the call refers to.
    fn bytes(&mut self, name: &'static str, bytes: &[u8], total: u64);
    /// A pointer whose memory is not at hand.
    fn pointer(&mut self, name: &'static str, gva: u64, why: Missing);
    /// So many further elements of the open array, or fields of the open struct, were not captured.
    fn elided(&mut self, count: u64);
}

/// What call and sub-op this is.
#[must_use]
pub fn identify(abi: &Abi, call: &Call<'_>) -> Identity {
    let Some(hypercall) = abi.call(call.registers.number) else {
        return Identity { call: None, sub_op_number: None, sub_op: None };
    };
    let sub_op_number = sub_op_number(hypercall, call);
    let sub_op = sub_op_number.and_then(|number| hypercall.sub_op(number));
    Identity { call: Some(hypercall), sub_op_number, sub_op }
}

fn sub_op_number(hypercall: &Hypercall, call: &Call<'_>) -> Option<u64> {
    match hypercall.sub_ops?.from {
        SubOpFrom::Arg { index, mask } => Some(call.registers.arg(index) & mask),
        SubOpFrom::Memory { index } => first_word(call, call.registers.arg(index), 4),
        SubOpFrom::FirstBuffer { index, .. } => first_word(call, first_buffer(call, index)?, 4),
    }
}

/// Where the first of the buffers is that argument `index` lists.
fn first_buffer(call: &Call<'_>, index: u8) -> Option<u64> {
    first_word(call, call.registers.arg(index), call.registers.width.word_bytes() as usize)
}

fn first_word(call: &Call<'_>, gva: u64, bytes: usize) -> Option<u64> {
    let in_segments = |segments: Segments<'_>| little_endian(segments.find(gva)?.bytes, bytes);
    in_segments(call.entry).or_else(|| in_segments(call.exit))
}

/// Hands the arguments of `call` to `sink`. For a number that the ABI does not have, all six registers.
pub fn decode(abi: &Abi, call: &Call<'_>, sink: &mut impl Sink) {
    let identity = identify(abi, call);
    let Some(hypercall) = identity.call else {
        return raw_registers(call, sink);
    };
    let mut walk = Walk::new(call, identity, sink);
    let args = capture::arguments(hypercall, &call.registers);
    for (index, arg) in capture::placed(args, call.registers.width) {
        walk.argument(arg.name, &arg.ty, index);
    }
    if let Some(SubOpFrom::FirstBuffer { ty, .. }) = hypercall.sub_ops.map(|ops| ops.from) {
        walk.first_buffer(ty);
    }
}

const RAW_NAMES: [&str; 6] = ["arg1", "arg2", "arg3", "arg4", "arg5", "arg6"];

fn raw_registers(call: &Call<'_>, sink: &mut impl Sink) {
    let hex = Scalar { int: Int::Ulong, show: Show::Hex };
    for (index, name) in RAW_NAMES.into_iter().enumerate() {
        let value = Value { before: Some(call.registers.arg(index as u8)), after: None };
        sink.scalar(name, &hex, value);
    }
}

/// An unsigned little-endian integer of `size` (1 to 8) bytes at the start of `bytes`.
pub(crate) fn little_endian(bytes: &[u8], size: usize) -> Option<u64> {
    let mut word = [0; 8];
    word.get_mut(..size)?.copy_from_slice(bytes.get(..size)?);
    Some(u64::from_le_bytes(word))
}

#[cfg(test)]
mod tests;
