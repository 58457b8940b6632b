//! Which guest memory belongs to a call, and how a copy of it is kept.
//!
//! The walk follows the handles among a call's arguments, as the tables describe them, and asks a [`Reader`]
//! for each piece. It runs in the sensor while the vCPU waits, on memory that a hostile guest wrote: pieces,
//! bytes and elements are bounded ([`MAX_SEGMENTS`], [`MAX_SEGMENT_BYTES`], [`MAX_FOLLOWED_ELEMENTS`]), nothing is
//! allocated, and the depth is that of the static types.
//!
//! A captured piece is a *segment*: it names the guest address it came from, so a decoder finds the bytes
//! behind a pointer by the pointer's value and needs no copy of the plan. On the wire:
//!
//! ```text
//!  0        8           12          16                       16 + captured, padded to 8
//!  +--------+-----------+-----------+------------------------+
//!  | gva    | requested | captured  | bytes …                |   all little-endian
//!  +--------+-----------+-----------+------------------------+
//! ```
//!
//! `captured < requested` means cut short by a bound; bit 31 of `captured` means that the memory could not be
//! read beyond that many bytes.

mod plan;

pub use plan::{Plan, Wanted};

use std::ops::Range;

use crate::call::{Abi, Arg, Hypercall, SubOpFrom, cut_to_width};
use crate::layout::Width;
use crate::types::{Case, Count, Direction, Handle, Struct, Tag, Type, Union};

/// The most segments one capture holds.
pub const MAX_SEGMENTS: usize = 24;
/// The most bytes one segment holds: enough for the largest struct of the ABI (`vcpu_guest_context`, 5168 bytes).
pub const MAX_SEGMENT_BYTES: u32 = 8192;
/// Handles are followed inside this many elements of an array.
pub const MAX_FOLLOWED_ELEMENTS: u64 = 8;
/// Bytes of a segment before its data.
pub const SEGMENT_HEADER_BYTES: usize = 16;
/// Set in `captured` when the guest memory ended there.
pub const UNREADABLE: u32 = 1 << 31;

/// A hypercall's registers, as far as decoding and capturing need them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Registers {
    /// (E)RAX at entry.
    pub number: u64,
    /// The argument registers in ABI order.
    pub args: [u64; 6],
    /// The caller's ABI.
    pub width: Width,
}

impl Registers {
    /// Argument `index`, cut to the caller's width; 0 beyond the last.
    #[must_use]
    pub fn arg(&self, index: u8) -> u64 {
        let value = self.args.get(usize::from(index)).copied().unwrap_or(0);
        cut_to_width(value, self.width)
    }
}

/// When the capture is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Before L1 runs the call: what the guest supplies.
    Entry,
    /// After it: what Xen has written.
    Exit,
}

/// Names a captured piece while the walk goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece(pub usize);

/// Copies guest memory into the event under construction.
pub trait Reader {
    /// Captures up to `len` bytes at `gva`. `None`: no room is left.
    fn capture(&mut self, gva: u64, len: u64) -> Option<Piece>;

    /// As [`Reader::capture`] for a NUL-terminated text: stops behind the NUL.
    fn capture_text(&mut self, gva: u64, max: u32) -> Option<Piece>;

    /// A little-endian integer of `bytes` bytes at `offset` in a captured piece, if it was captured so far.
    fn integer(&self, piece: Piece, offset: u64, bytes: u32) -> Option<u64>;
}

/// The arguments a caller of this width passes, each with its (first) register.
pub(crate) fn placed(args: &'static [Arg], width: Width) -> impl Iterator<Item = (u8, &'static Arg)> {
    let mut next = 0;
    args.iter().filter_map(move |arg| {
        let taken = arg.registers(width);
        let at = next;
        next += taken;
        (taken > 0).then_some((at, arg))
    })
}

fn handle_wants(handle: &Handle, phase: Phase) -> bool {
    let travels = match phase {
        Phase::Entry => handle.direction.is_in(),
        Phase::Exit => handle.direction.is_out(),
    };
    travels || handle.to.has_handles()
}

/// Walks the call's arguments and captures what stands behind them.
pub fn capture(abi: &Abi, registers: &Registers, phase: Phase, reader: &mut impl Reader) {
    let Some(call) = abi.call(registers.number) else { return };
    let sub_op = register_sub_op(call, registers);
    let mut walk = Walk { registers, phase, reader, sub_op, asked: 0, full: false };
    for (index, arg) in placed(arguments(call, registers), registers.width) {
        if let Type::Handle(handle) = arg.ty.for_width(registers.width) {
            walk.argument(call, index, handle);
        }
    }
}

/// The arguments that apply: the sub-op's own if the number stands in a register, else the call's.
#[must_use]
pub fn arguments(call: &'static Hypercall, registers: &Registers) -> &'static [Arg] {
    register_sub_op(call, registers).and_then(|number| call.sub_op(number)).map_or(call.args, |op| op.args)
}

/// The sub-op number if a register holds it.
#[must_use]
pub fn register_sub_op(call: &Hypercall, registers: &Registers) -> Option<u64> {
    match call.sub_ops?.from {
        SubOpFrom::Arg { index, mask } => Some(registers.arg(index) & mask),
        SubOpFrom::Memory { .. } | SubOpFrom::FirstBuffer { .. } => None,
    }
}

/// A place in a captured piece.
#[derive(Clone, Copy)]
struct Place {
    piece: Piece,
    /// Where the piece stood in the guest.
    gva: u64,
    offset: u64,
}

impl Place {
    const fn further(mut self, bytes: u64) -> Self {
        self.offset += bytes;
        self
    }
}

/// The struct that holds a handle or union, for sibling fields.
#[derive(Clone, Copy)]
struct Holder<'h> {
    structure: &'static Struct,
    place: Place,
    /// The struct around it, in the same memory.
    around: Option<&'h Holder<'h>>,
}

struct Walk<'a, R> {
    registers: &'a Registers,
    phase: Phase,
    reader: &'a mut R,
    sub_op: Option<u64>,
    /// Pieces asked for. One more than [`MAX_SEGMENTS`] are, so that the reader can note the loss.
    asked: usize,
    /// The reader has no room left.
    full: bool,
}

impl<R: Reader> Walk<'_, R> {
    fn argument(&mut self, call: &Hypercall, index: u8, handle: &Handle) {
        let gva = self.registers.arg(index);
        let Some((piece, count)) = self.copy(handle, gva, None) else { return };
        match call.sub_ops.map(|sub_ops| sub_ops.from) {
            Some(SubOpFrom::Memory { index: at }) if at == index => {
                self.sub_op = self.reader.integer(piece, 0, 4);
                self.elements(handle, piece, gva, 0..count);
            }
            Some(SubOpFrom::FirstBuffer { index: at, ty }) if at == index => {
                self.first_buffer(piece, ty);
                self.elements(handle, piece, gva, 1..count);
            }
            _ => self.elements(handle, piece, gva, 0..count),
        }
    }

    fn first_buffer(&mut self, list: Piece, ty: &'static Type) {
        let width = self.registers.width;
        let Some(gva) = self.reader.integer(list, 0, width.word_bytes()).filter(|gva| *gva != 0) else {
            return;
        };
        if let Some(piece) = self.ask(|reader| reader.capture(gva, u64::from(ty.bytes(width)))) {
            self.sub_op = self.reader.integer(piece, 0, 4);
            self.inside(ty, Place { piece, gva, offset: 0 }, None);
        }
    }

    fn follow(&mut self, handle: &Handle, gva: u64, holder: Option<&Holder<'_>>) {
        if let Some((piece, count)) = self.copy(handle, gva, holder) {
            self.elements(handle, piece, gva, 0..count);
        }
    }

    /// Captures what a handle leads to; returns how many elements that should be.
    fn copy(&mut self, handle: &Handle, gva: u64, holder: Option<&Holder<'_>>) -> Option<(Piece, u64)> {
        if gva == 0 || !handle_wants(handle, self.phase) {
            return None;
        }
        let count = self.count(handle.count, holder).filter(|count| *count != 0)?;
        let size = u64::from(handle.to.bytes(self.registers.width));
        let piece = match handle.count {
            Count::Text(max) => self.ask(|reader| reader.capture_text(gva, max)),
            _ => self.ask(|reader| reader.capture(gva, size.saturating_mul(count))),
        }?;
        Some((piece, count))
    }

    fn ask(&mut self, question: impl FnOnce(&mut R) -> Option<Piece>) -> Option<Piece> {
        if self.full {
            return None;
        }
        let piece = question(self.reader).filter(|_| self.asked < MAX_SEGMENTS);
        self.asked += 1;
        self.full = piece.is_none();
        piece
    }

    fn elements(&mut self, handle: &Handle, piece: Piece, gva: u64, which: Range<u64>) {
        if handle.to.has_handles() {
            let size = u64::from(handle.to.bytes(self.registers.width));
            for element in which.start..which.end.min(MAX_FOLLOWED_ELEMENTS) {
                self.inside(handle.to, Place { piece, gva, offset: element * size }, None);
            }
        }
    }

    fn inside(&mut self, ty: &'static Type, place: Place, holder: Option<&Holder<'_>>) {
        let width = self.registers.width;
        match ty.for_width(width) {
            Type::Handle(handle) => {
                let bytes = ty.bytes(width);
                if let Some(gva) = self.reader.integer(place.piece, place.offset, bytes) {
                    self.follow(handle, cut_to_width(gva, width), holder);
                }
            }
            Type::Tail(handle) => {
                let gva = place.gva.wrapping_add(place.offset);
                self.follow(handle, cut_to_width(gva, width), holder);
            }
            Type::Struct(structure) => self.fields(structure, place, holder),
            Type::Union(union) => {
                if let Some(case) = self.live_case(union, holder) {
                    self.inside(case, place, holder);
                }
            }
            Type::Array(array) if array.of.has_handles() => {
                let size = u64::from(array.of.bytes(width));
                for element in 0..u64::from(array.len).min(MAX_FOLLOWED_ELEMENTS) {
                    self.inside(array.of, place.further(element * size), holder);
                }
            }
            Type::Int(_) | Type::Array(_) | Type::Chars(_) | Type::Bytes(_) | Type::PerWidth(_) => {}
        }
    }

    fn fields(&mut self, structure: &'static Struct, place: Place, around: Option<&Holder<'_>>) {
        let holder = Holder { structure, place, around };
        for (index, field) in structure.fields.iter().enumerate() {
            if field.ty.has_handles() {
                let at = place.further(u64::from(structure.offset(index, self.registers.width)));
                self.inside(&field.ty, at, Some(&holder));
            }
        }
    }

    fn live_case(&self, union: &Union, holder: Option<&Holder<'_>>) -> Option<&'static Type> {
        let tag = match union.tag {
            Tag::SubOp => self.sub_op,
            Tag::Field(name) => self.sibling(name, holder),
            Tag::Bits { field, mask } => self.sibling(field, holder).map(|value| value & mask),
        };
        // Pointers are the guest's: what Xen leaves in their place is none.
        select_case(union, tag, |case| case.direction != Direction::Out).map(|case| &case.ty)
    }

    /// The field called `name` of the struct that holds a value, or of the nearest one around it.
    fn sibling(&self, name: &str, holder: Option<&Holder<'_>>) -> Option<u64> {
        let mut next = holder;
        while let Some(&Holder { structure, place, around }) = next {
            if let Some(index) = structure.position(name) {
                let bytes = structure.fields[index].ty.bytes(self.registers.width);
                let at = place.offset + u64::from(structure.offset(index, self.registers.width));
                return self.reader.integer(place.piece, at, bytes.min(8));
            }
            next = around;
        }
        None
    }

    fn count(&self, count: Count, holder: Option<&Holder<'_>>) -> Option<u64> {
        element_count(count, |index| self.registers.arg(index), |name| self.sibling(name, holder))
    }
}

/// The member that `tag` selects among those that `wanted` admits, else the one without a condition.
pub(crate) fn select_case(
    union: &Union,
    tag: Option<u64>,
    wanted: impl Fn(&Case) -> bool,
) -> Option<&'static Case> {
    let mut cases = union.cases.iter().filter(|case| wanted(case));
    let tagged = tag.and_then(|tag| cases.clone().find(|case| case.when.contains(&tag)));
    tagged.or_else(|| cases.find(|case| case.when.is_empty()))
}

/// The number of elements behind a handle; `None` when it depends on a value that is not at hand.
pub(crate) fn element_count(
    count: Count,
    arg: impl Fn(u8) -> u64,
    sibling: impl Fn(&str) -> Option<u64>,
) -> Option<u64> {
    Some(match count {
        Count::One => 1,
        Count::Fixed(n) | Count::Text(n) | Count::Until { max: n, .. } => u64::from(n),
        Count::Arg { index, mask } => arg(index) & mask,
        Count::ArgPer { index, per } => arg(index).div_ceil(u64::from(per)),
        Count::Field(name) => sibling(name)?,
        Count::FieldBits(name) => sibling(name)?.div_ceil(8),
        Count::FieldTimes(name, times) => sibling(name)?.saturating_mul(u64::from(times)),
        Count::FieldPer(name, per) => sibling(name)? / u64::from(per).max(1),
        Count::Least(one, other) => sibling(one)?.min(sibling(other)?),
        Count::Span(first, last) => sibling(last)?.checked_sub(sibling(first)?)?.saturating_add(1),
        Count::WideText(units) => u64::from(units),
        Count::Product(one, other) => sibling(one)?.saturating_mul(sibling(other)?),
    })
}

/// One captured piece of guest memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment<'a> {
    /// Where it stood in the guest.
    pub gva: u64,
    /// How many bytes the call refers to, cut to 32 bits.
    pub requested: u32,
    /// What was copied.
    pub bytes: &'a [u8],
    /// The guest's memory could not be read any further.
    pub unreadable: bool,
}

/// The segments of one capture, in their wire form.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Segments<'a>(pub &'a [u8]);

impl<'a> Segments<'a> {
    /// The segments in capture order; stops at the first that does not fit.
    pub fn iter(self) -> impl Iterator<Item = Segment<'a>> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let (segment, after) = split_segment(rest)?;
            rest = after;
            Some(segment)
        })
    }

    /// The segment that starts at `gva`.
    #[must_use]
    pub fn find(self, gva: u64) -> Option<Segment<'a>> {
        self.iter().find(|segment| segment.gva == gva)
    }
}

fn split_segment(bytes: &[u8]) -> Option<(Segment<'_>, &[u8])> {
    let (header, rest) = bytes.split_at_checked(SEGMENT_HEADER_BYTES)?;
    let gva = u64::from_le_bytes(header.get(..8)?.try_into().ok()?);
    let requested = u32::from_le_bytes(header.get(8..12)?.try_into().ok()?);
    let captured = u32::from_le_bytes(header.get(12..16)?.try_into().ok()?);
    let len = (captured & !UNREADABLE) as usize;
    let (padded, after) = rest.split_at_checked(len.checked_next_multiple_of(8)?)?;
    let segment =
        Segment { gva, requested, bytes: padded.get(..len)?, unreadable: captured & UNREADABLE != 0 };
    Some((segment, after))
}

#[cfg(test)]
mod tests;
