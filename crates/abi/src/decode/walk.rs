//! The walk through a call's arguments and the memory behind them.

use super::bytes::{Bytes, Rule, is_aggregate};
use super::{Call, Group, Identity, Missing, Sink, Value, little_endian};
use crate::call::{SubOpFrom, cut_to_width};
use crate::capture::{self, Segment};
use crate::layout::Width;
use crate::types::{Case, Count, Direction, Field, Handle, Int, Scalar, Show, Struct, Tag, Type, Union};

/// The struct that holds a value, for the sibling fields that counts and tags name.
#[derive(Clone, Copy)]
struct Holder<'a, 'h> {
    structure: &'static Struct,
    bytes: Bytes<'a>,
    /// The struct around it, in the same memory.
    around: Option<&'h Holder<'a, 'h>>,
}

pub(super) struct Walk<'a, S> {
    call: &'a Call<'a>,
    identity: Identity,
    /// The buffer that holds the sub-op: shown by itself, and so not where the list of buffers names it.
    first_buffer: Option<u64>,
    sink: &'a mut S,
}

impl<'a, S: Sink> Walk<'a, S> {
    pub(super) fn new(call: &'a Call<'a>, identity: Identity, sink: &'a mut S) -> Self {
        let first_buffer = match identity.call.and_then(|call| call.sub_ops).map(|ops| ops.from) {
            Some(SubOpFrom::FirstBuffer { index, .. }) => super::first_buffer(call, index),
            _ => None,
        };
        Self { call, identity, first_buffer, sink }
    }

    fn width(&self) -> Width {
        self.call.registers.width
    }

    /// One argument, of which `index` is the (first) register.
    pub(super) fn argument(&mut self, name: &'static str, ty: &'static Type, index: u8) {
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

    /// What the first of a list of buffers holds.
    pub(super) fn first_buffer(&mut self, ty: &'static Type) {
        let Some(gva) = self.first_buffer else { return };
        let in_segments = |segments: capture::Segments<'a>| {
            segments.find(gva).map(|segment| segment.bytes).filter(|bytes| !bytes.is_empty())
        };
        let (entry, exit) = (in_segments(self.call.entry), in_segments(self.call.exit));
        let bytes = Bytes { gva, entry, exit, rule: Rule::Marked };
        if bytes.at_hand() {
            self.value("op", ty, bytes, None);
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
        if holder.is_some() && Some(gva) == self.first_buffer {
            return self.sink.pointer(name, gva, Missing::NotCaptured);
        }
        let entry = self.call.entry.find(gva).filter(|_| handle.direction.is_in());
        let exit = self.call.exit.find(gva).filter(|_| handle.direction.is_out());
        let sides = || [entry, exit].into_iter().flatten();
        let missing = if sides().any(|segment| segment.unreadable) {
            Missing::Unreadable
        } else {
            Missing::NotCaptured
        };
        let kept = |side: Option<Segment<'a>>| side.map(|s| s.bytes).filter(|bytes| !bytes.is_empty());
        let rule = if handle.direction == Direction::InOut { Rule::Marked } else { Rule::All };
        let bytes = Bytes { gva, entry: kept(entry), exit: kept(exit), rule };
        if !bytes.at_hand() {
            return self.sink.pointer(name, gva, missing);
        }
        let requested = sides().map(|segment| u64::from(segment.requested)).max().unwrap_or(0);
        if !self.elements(name, handle, bytes, requested, holder) {
            self.sink.pointer(name, gva, missing);
        }
    }

    /// False if too little was captured to show anything.
    fn elements(
        &mut self,
        name: &'static str,
        handle: &'static Handle,
        bytes: Bytes<'a>,
        requested: u64,
        holder: Option<&Holder<'a, '_>>,
    ) -> bool {
        match (handle.to, handle.count) {
            (_, Count::Text(_)) => self.sink.text(name, until_nul(bytes.any())),
            (_, Count::WideText(_)) => self.sink.text(name, &narrow(bytes.any())),
            (Type::Chars(1), _) => self.sink.text(name, without_padding(bytes.any())),
            (Type::Bytes(1), _) => self.sink.bytes(name, bytes.any(), requested),
            (ty, Count::One) => return self.value(name, ty, bytes, holder),
            (Type::Struct(structure), Count::Until { field, .. }) => {
                let count = self.count_until(structure, field, bytes);
                self.array(name, handle.to, bytes, count, None);
            }
            (ty, _) => {
                let size = u64::from(ty.bytes(self.width())).max(1);
                self.array(name, ty, bytes, requested / size, None);
            }
        }
        true
    }

    /// How many elements stand before the first whose `field` is zero.
    fn count_until(&self, structure: &'static Struct, field: &str, bytes: Bytes<'a>) -> u64 {
        let size = (structure.size[self.width().index()] as usize).max(1);
        let ends = |index: &usize| {
            let holder = Holder { structure, bytes: bytes.at(*index * size), around: None };
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

    /// Shows a value as far as it is at hand; false if that is not far enough to show anything.
    fn value(
        &mut self,
        name: &'static str,
        ty: &'static Type,
        bytes: Bytes<'a>,
        holder: Option<&Holder<'a, '_>>,
    ) -> bool {
        let size = ty.bytes(self.width()) as usize;
        if bytes.len() == 0 && size > 0 {
            return false;
        }
        match ty.for_width(self.width()) {
            Type::Int(scalar) => return self.integer(name, scalar, bytes),
            Type::Handle(handle) => {
                let read = |bytes: Option<&[u8]>| bytes.and_then(|bytes| little_endian(bytes, size));
                let Some(gva) = read(bytes.entry).or_else(|| read(bytes.exit)) else { return false };
                self.pointee(name, handle, cut_to_width(gva, self.width()), holder);
            }
            Type::Tail(handle) => {
                let gva = cut_to_width(bytes.gva, self.width());
                if self.call.entry.find(gva).or_else(|| self.call.exit.find(gva)).is_some() {
                    self.pointee(name, handle, gva, holder);
                }
            }
            Type::Struct(structure) => self.structure(name, structure, bytes, holder),
            Type::Union(union) => return self.union(name, union, bytes, holder, Direction::In),
            Type::Array(array) => self.array(name, array.of, bytes, u64::from(array.len), holder),
            Type::Chars(_) => self.sink.text(name, until_nul(cut(bytes.any(), size))),
            Type::Bytes(_) => self.sink.bytes(name, cut(bytes.any(), size), size as u64),
            // `for_width` has resolved it.
            Type::PerWidth(_) => {}
        }
        true
    }

    fn integer(&mut self, name: &'static str, scalar: &Scalar, bytes: Bytes<'a>) -> bool {
        let size = scalar.int.bytes(self.width()) as usize;
        let read = |bytes: Option<&[u8]>| bytes.and_then(|bytes| little_endian(bytes, size));
        let value = Value { before: read(bytes.entry), after: read(bytes.exit) };
        if value == (Value { before: None, after: None }) {
            return false;
        }
        self.sink.scalar(name, scalar, value);
        true
    }

    fn structure(
        &mut self,
        name: &'static str,
        structure: &'static Struct,
        bytes: Bytes<'a>,
        around: Option<&Holder<'a, '_>>,
    ) {
        self.sink.open(name, Group::Struct);
        let missing = self.fields(structure, bytes, around);
        if missing > 0 {
            self.sink.elided(missing);
        }
        self.sink.close(Group::Struct);
    }

    /// Shows the fields; returns how many of them the capture does not reach.
    fn fields(
        &mut self,
        structure: &'static Struct,
        bytes: Bytes<'a>,
        around: Option<&Holder<'a, '_>>,
    ) -> u64 {
        let holder = Holder { structure, bytes, around };
        let mut missing = 0;
        for (index, field) in structure.fields.iter().enumerate() {
            let field_bytes = bytes.for_field(field, self.width());
            // Who supplies it has not done so yet, or that was not captured at all.
            if is_padding(field, self.width()) || !field_bytes.at_hand() {
                continue;
            }
            let at = field_bytes.at(structure.offset(index, self.width()) as usize);
            let reached = at.len() > 0 || field.ty.bytes(self.width()) == 0;
            missing += if reached { self.field(field, at, &holder) } else { 1 };
        }
        missing
    }

    /// Shows a field; returns how many fields are missing, if it is an anonymous struct.
    fn field(&mut self, field: &'static Field, bytes: Bytes<'a>, holder: &Holder<'a, '_>) -> u64 {
        let holder = Some(holder);
        let shown = match (field.name, field.ty.for_width(self.width())) {
            ("", Type::Struct(inner)) => return self.fields(inner, bytes, holder),
            (name, Type::Union(union)) => self.union(name, union, bytes, holder, field.direction),
            (name, _) => self.value(name, &field.ty, bytes, holder),
        };
        u64::from(!shown)
    }

    fn union(
        &mut self,
        name: &'static str,
        union: &'static Union,
        bytes: Bytes<'a>,
        holder: Option<&Holder<'a, '_>>,
        direction: Direction,
    ) -> bool {
        let sibling = |field| holder.and_then(|holder| self.sibling(holder, field));
        let tag = match union.tag {
            Tag::SubOp => self.identity.sub_op_number,
            Tag::Field(field) => sibling(field),
            Tag::Bits { field, mask } => sibling(field).map(|value| value & mask),
        };
        let supplied = capture::select_case(union, tag, |case| case.direction != Direction::Out);
        let left = capture::select_case(union, tag, |case| case.direction == Direction::Out);
        let mut shown = true;
        if let Some(case) = supplied.filter(|_| left.is_none() || bytes.entry.is_some()) {
            let bytes = match (is_aggregate(&case.ty, self.width()), left) {
                (true, _) => bytes,
                // The other one says what Xen leaves there.
                (false, Some(_)) => bytes.directed(Direction::In),
                // Unless Xen supplies it, both: nobody says that Xen leaves it alone.
                (false, None) if direction == Direction::Out => bytes.directed(Direction::Out),
                (false, None) => bytes,
            };
            shown &= self.case(name, case, bytes, holder);
        }
        if let Some(case) = left {
            shown &= self.case(name, case, bytes.within(Direction::Out), holder);
        }
        shown
    }

    fn case(
        &mut self,
        name: &'static str,
        case: &'static Case,
        bytes: Bytes<'a>,
        holder: Option<&Holder<'a, '_>>,
    ) -> bool {
        let name = if case.name.is_empty() { name } else { case.name };
        if !bytes.at_hand() && case.ty.bytes(self.width()) > 0 {
            return true;
        }
        match case.ty.for_width(self.width()) {
            Type::Struct(inner) if name.is_empty() => self.fields(inner, bytes, holder) == 0,
            _ => self.value(name, &case.ty, bytes, holder),
        }
    }

    /// The field called `name` of `holder`, or of the nearest struct around it. What Xen supplies is not known
    /// before the call returns.
    fn sibling(&self, holder: &Holder<'a, '_>, name: &str) -> Option<u64> {
        let mut next = Some(holder);
        while let Some(&Holder { structure, bytes, around }) = next {
            if let Some(index) = structure.position(name) {
                let field = &structure.fields[index];
                let size = field.ty.bytes(self.width()).min(8) as usize;
                let at = bytes.directed(field.direction).at(structure.offset(index, self.width()) as usize);
                let read = |bytes: Option<&[u8]>| bytes.and_then(|bytes| little_endian(bytes, size));
                return read(at.entry).or_else(|| read(at.exit));
            }
            next = around;
        }
        None
    }
}

/// Fields the headers have only to fill space.
fn is_padding(field: &'static Field, width: Width) -> bool {
    let members = matches!(field.ty.for_width(width), Type::Union(_) | Type::Struct(_));
    let space = ["pad", "_pad"].iter().any(|prefix| field.name.starts_with(prefix));
    !members && (space || field.name.is_empty())
}

fn cut(bytes: &[u8], len: usize) -> &[u8] {
    bytes.get(..len).unwrap_or(bytes)
}

fn until_nul(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| *byte == 0).next().unwrap_or(&[])
}

/// UTF-16 up to its NUL, as UTF-8.
fn narrow(bytes: &[u8]) -> Vec<u8> {
    let units = bytes.chunks_exact(2).filter_map(|pair| Some(u16::from_le_bytes(pair.try_into().ok()?)));
    let text: String = char::decode_utf16(units.take_while(|unit| *unit != 0))
        .map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER))
        .collect();
    text.into_bytes()
}

/// Text in a buffer of its own length, without the NULs that fill it up.
fn without_padding(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    bytes.get(..end).unwrap_or(bytes)
}
