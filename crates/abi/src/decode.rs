//! Walks a captured call and hands its fields, by name, to a sink.
//!
//! No tree is built: a [`Sink`] gets one call per field, with the raw value and the table entry that says what
//! it means. The walk is total; what is missing or unreadable reaches the sink as [`Missing`].

use crate::call::{Abi, Hypercall, SubOp, SubOpFrom, cut_to_width};
use crate::capture::{self, Registers, Segments};
use crate::layout::Width;
use crate::types::{Direction, Handle, Int, Scalar, Show, Struct, Tag, Type, Union};

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
    /// So many further elements of the open array were not captured.
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
    let first_word = |gva: u64, bytes: usize| {
        let segment = call.entry.find(gva).or_else(|| call.exit.find(gva))?;
        little_endian(segment.bytes, bytes)
    };
    match hypercall.sub_ops?.from {
        SubOpFrom::Arg { index, mask } => Some(call.registers.arg(index) & mask),
        SubOpFrom::Memory { index } => first_word(call.registers.arg(index), 4),
        SubOpFrom::FirstBuffer { index, .. } => {
            let word = call.registers.width.word_bytes() as usize;
            first_word(first_word(call.registers.arg(index), word)?, 4)
        }
    }
}

/// Hands the arguments of `call` to `sink`. For a number that the ABI does not have, all six registers.
pub fn decode(abi: &Abi, call: &Call<'_>, sink: &mut impl Sink) {
    let identity = identify(abi, call);
    let Some(hypercall) = identity.call else {
        return raw_registers(call, sink);
    };
    let mut walk = Walk { call, identity, sink };
    let args = capture::arguments(hypercall, &call.registers);
    for (index, arg) in capture::placed(args, call.registers.width) {
        walk.argument(arg.name, &arg.ty, index);
    }
    if let Some(SubOpFrom::FirstBuffer { index, ty }) = hypercall.sub_ops.map(|ops| ops.from) {
        walk.first_buffer(index, ty);
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

/// The bytes of one value at entry and at exit; each may be missing or cut short.
#[derive(Clone, Copy)]
struct Bytes<'a> {
    /// Where they stood in the guest.
    gva: u64,
    entry: Option<&'a [u8]>,
    exit: Option<&'a [u8]>,
}

impl<'a> Bytes<'a> {
    fn at(self, offset: usize) -> Self {
        let from = |bytes: Option<&'a [u8]>| bytes.and_then(|bytes| bytes.get(offset..));
        let gva = self.gva.wrapping_add(offset as u64);
        Self { gva, entry: from(self.entry), exit: from(self.exit) }
    }

    /// Keeps what a field of this direction is shown from.
    fn directed(self, direction: Direction) -> Self {
        match (self.entry, self.exit) {
            (Some(_), Some(_)) => Self {
                gva: self.gva,
                entry: self.entry.filter(|_| direction.is_in()),
                exit: self.exit.filter(|_| direction.is_out()),
            },
            // Memory that travels one way only: all of it is shown from there.
            _ => self,
        }
    }

    fn any(self) -> Option<&'a [u8]> {
        self.exit.or(self.entry)
    }

    fn len(self) -> usize {
        self.any().map_or(0, <[u8]>::len)
    }
}

/// The struct that holds a value, for the sibling fields that counts and tags name.
#[derive(Clone, Copy)]
struct Holder<'a, 'h> {
    structure: &'static Struct,
    bytes: Bytes<'a>,
    /// The struct around it, in the same memory.
    around: Option<&'h Holder<'a, 'h>>,
}

struct Walk<'a, S> {
    call: &'a Call<'a>,
    identity: Identity,
    sink: &'a mut S,
}

impl<'a, S: Sink> Walk<'a, S> {
    fn width(&self) -> Width {
        self.call.registers.width
    }

    fn argument(&mut self, name: &'static str, ty: &'static Type, index: u8) {
        let register = self.call.registers.arg(index);
        match ty.for_width(self.width()) {
            Type::Handle(handle) => self.pointee(name, handle, register, None),
            Type::Int(scalar) => self.register(name, scalar, index, register),
            _ => self.register(name, &Scalar { int: Int::Ulong, show: Show::Hex }, index, register),
        }
    }

    fn register(&mut self, name: &'static str, scalar: &Scalar, index: u8, register: u64) {
        if let Some(ops) = self.identity.call.and_then(|call| call.sub_ops)
            && let SubOpFrom::Arg { index: at, mask } = ops.from
            && at == index
        {
            return self.sink.sub_op(name, register & mask, self.identity.sub_op);
        }
        let bits = 8 * scalar.int.bytes(self.width());
        let register = match self.width() {
            Width::Bits32 if bits == 64 => register | self.call.registers.arg(index + 1) << 32,
            _ => register,
        };
        let value = if bits >= 64 { register } else { register & ((1 << bits) - 1) };
        self.sink.scalar(name, scalar, Value { before: Some(value), after: None });
    }

    fn first_buffer(&mut self, index: u8, ty: &'static Type) {
        let word = self.width().word_bytes() as usize;
        let list = self.call.entry.find(self.call.registers.arg(index));
        let Some(gva) = list.and_then(|list| little_endian(list.bytes, word)) else { return };
        let entry = self.call.entry.find(gva).map(|segment| segment.bytes);
        let exit = self.call.exit.find(gva).map(|segment| segment.bytes);
        if entry.is_some() || exit.is_some() {
            self.value("op", ty, Bytes { gva, entry, exit }, None);
        }
    }

    fn pointee(
        &mut self,
        name: &'static str,
        handle: &'static Handle,
        gva: u64,
        holder: Option<&Holder<'a, '_>>,
    ) {
        if gva == 0 {
            return self.sink.pointer(name, gva, Missing::Null);
        }
        let entry = self.call.entry.find(gva).filter(|_| handle.direction.is_in());
        let exit = self.call.exit.find(gva).filter(|_| handle.direction.is_out());
        let Some(segment) = exit.or(entry) else {
            return self.sink.pointer(name, gva, Missing::NotCaptured);
        };
        if segment.bytes.is_empty() {
            let why = if segment.unreadable { Missing::Unreadable } else { Missing::NotCaptured };
            return self.sink.pointer(name, gva, why);
        }
        let bytes = Bytes {
            gva,
            entry: entry.map(|segment| segment.bytes),
            exit: exit.map(|segment| segment.bytes),
        };
        self.elements(name, handle, bytes, u64::from(segment.requested), holder);
    }

    fn elements(
        &mut self,
        name: &'static str,
        handle: &'static Handle,
        bytes: Bytes<'a>,
        requested: u64,
        holder: Option<&Holder<'a, '_>>,
    ) {
        use crate::types::Count;
        match (handle.to, handle.count) {
            (_, Count::Text(_)) => self.sink.text(name, until_nul(bytes.any().unwrap_or(&[]))),
            (Type::Chars(1), _) => self.sink.text(name, bytes.any().unwrap_or(&[])),
            (Type::Bytes(1), _) => self.sink.bytes(name, bytes.any().unwrap_or(&[]), requested),
            (ty, Count::One) => self.value(name, ty, bytes, holder),
            (Type::Struct(structure), Count::Until { field, .. }) => {
                let count = self.count_until(structure, field, bytes);
                self.array(name, handle.to, bytes, count, None);
            }
            (ty, _) => {
                let size = u64::from(ty.bytes(self.width())).max(1);
                self.array(name, ty, bytes, requested / size, None);
            }
        }
    }

    /// How many elements stand before the first whose `field` is zero.
    fn count_until(&self, structure: &'static Struct, field: &str, bytes: Bytes<'a>) -> u64 {
        let size = (structure.size[self.width().index()] as usize).max(1);
        let at = |index: usize| bytes.at(index * size);
        let ends = |index: &usize| {
            let holder = Holder { structure, bytes: at(*index), around: None };
            matches!(self.sibling(&holder, field), None | Some(0))
        };
        (0..bytes.len() / size).find(ends).unwrap_or(bytes.len() / size) as u64
    }

    fn array(
        &mut self,
        name: &'static str,
        ty: &'static Type,
        bytes: Bytes<'a>,
        count: u64,
        holder: Option<&Holder<'a, '_>>,
    ) {
        let size = (ty.bytes(self.width()) as usize).max(1);
        let at_hand = count.min((bytes.len() / size) as u64);
        self.sink.open(name, Group::Array);
        for index in 0..at_hand {
            self.value("", ty, bytes.at(index as usize * size), holder);
        }
        if count > at_hand {
            self.sink.elided(count - at_hand);
        }
        self.sink.close(Group::Array);
    }

    fn value(
        &mut self,
        name: &'static str,
        ty: &'static Type,
        bytes: Bytes<'a>,
        holder: Option<&Holder<'a, '_>>,
    ) {
        match ty.for_width(self.width()) {
            Type::Int(scalar) => self.integer(name, scalar, bytes),
            Type::Handle(handle) => {
                let size = ty.bytes(self.width()) as usize;
                let pointer = bytes.entry.or(bytes.exit).and_then(|b| little_endian(b, size));
                if let Some(gva) = pointer {
                    self.pointee(name, handle, cut_to_width(gva, self.width()), holder);
                }
            }
            Type::Tail(handle) => {
                let gva = cut_to_width(bytes.gva, self.width());
                if self.call.entry.find(gva).or_else(|| self.call.exit.find(gva)).is_some() {
                    self.pointee(name, handle, gva, holder);
                }
            }
            Type::Struct(structure) => self.structure(name, structure, bytes, holder),
            Type::Union(union) => self.union(name, union, bytes, holder, Direction::InOut),
            Type::Array(array) => self.array(name, array.of, bytes, u64::from(array.len), holder),
            Type::Chars(len) => {
                let text = bytes.any().unwrap_or(&[]);
                self.sink.text(name, until_nul(&text[..text.len().min(*len as usize)]));
            }
            Type::Bytes(len) => {
                let raw = bytes.any().unwrap_or(&[]);
                self.sink.bytes(name, &raw[..raw.len().min(*len as usize)], u64::from(*len));
            }
            // `for_width` has resolved it.
            Type::PerWidth(_) => {}
        }
    }

    fn integer(&mut self, name: &'static str, scalar: &Scalar, bytes: Bytes<'a>) {
        let size = scalar.int.bytes(self.width()) as usize;
        let read = |bytes: Option<&[u8]>| bytes.and_then(|bytes| little_endian(bytes, size));
        let value = Value { before: read(bytes.entry), after: read(bytes.exit) };
        if value.before.is_some() || value.after.is_some() {
            self.sink.scalar(name, scalar, value);
        }
    }

    fn structure(
        &mut self,
        name: &'static str,
        structure: &'static Struct,
        bytes: Bytes<'a>,
        around: Option<&Holder<'a, '_>>,
    ) {
        self.sink.open(name, Group::Struct);
        self.fields(structure, bytes, around);
        self.sink.close(Group::Struct);
    }

    fn fields(&mut self, structure: &'static Struct, bytes: Bytes<'a>, around: Option<&Holder<'a, '_>>) {
        let holder = Holder { structure, bytes, around };
        for (index, field) in structure.fields.iter().enumerate() {
            if is_padding(field.name) && !matches!(field.ty, Type::Union(_) | Type::Struct(_)) {
                continue;
            }
            let at = bytes.at(structure.offset(index, self.width()) as usize);
            let shown = match field.ty {
                // Their fields have directions of their own.
                Type::Struct(_) | Type::Union(_) | Type::PerWidth(_) | Type::Tail(_) => at,
                _ => at.directed(field.direction),
            };
            match (field.name, &field.ty) {
                ("", Type::Struct(inner)) => self.fields(inner, shown, Some(&holder)),
                (name, Type::Union(union)) => self.union(name, union, at, Some(&holder), field.direction),
                _ => self.value(field.name, &field.ty, shown, Some(&holder)),
            }
        }
    }

    fn union(
        &mut self,
        name: &'static str,
        union: &'static Union,
        bytes: Bytes<'a>,
        holder: Option<&Holder<'a, '_>>,
        direction: Direction,
    ) {
        let sibling = |field| holder.and_then(|holder| self.sibling(holder, field));
        let tag = match union.tag {
            Tag::SubOp => self.identity.sub_op_number,
            Tag::Field(field) => sibling(field),
            Tag::Bits { field, mask } => sibling(field).map(|value| value & mask),
        };
        let Some(case) = capture::select_case(union, tag) else { return };
        let shown = if case.name.is_empty() { name } else { case.name };
        let bytes = match case.ty {
            // A plain value that Xen fills in: what the guest left there means nothing.
            Type::Int(_) | Type::Chars(_) | Type::Bytes(_) if direction == Direction::Out => {
                bytes.directed(direction)
            }
            _ => bytes,
        };
        self.value(shown, &case.ty, bytes, holder);
    }

    /// The field called `name` of `holder`, or of the nearest struct around it.
    fn sibling(&self, holder: &Holder<'a, '_>, name: &str) -> Option<u64> {
        let mut next = Some(holder);
        while let Some(&Holder { structure, bytes, around }) = next {
            if let Some(index) = structure.position(name) {
                let field = &structure.fields[index];
                let size = field.ty.bytes(self.width()).min(8) as usize;
                let at = bytes.at(structure.offset(index, self.width()) as usize);
                let value = match field.direction {
                    Direction::Out => at.exit.or(at.entry),
                    Direction::In | Direction::InOut => at.entry.or(at.exit),
                };
                return value.and_then(|bytes| little_endian(bytes, size));
            }
            next = around;
        }
        None
    }
}

/// Fields the headers have only to fill space.
fn is_padding(name: &str) -> bool {
    name.is_empty() || name.starts_with("pad") || name.starts_with("_pad")
}

fn until_nul(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| *byte == 0).next().unwrap_or(&[])
}

/// An unsigned little-endian integer of `size` (1 to 8) bytes at the start of `bytes`.
pub(crate) fn little_endian(bytes: &[u8], size: usize) -> Option<u64> {
    let mut word = [0; 8];
    word.get_mut(..size)?.copy_from_slice(bytes.get(..size)?);
    Some(u64::from_le_bytes(word))
}
