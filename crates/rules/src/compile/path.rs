//! Where the value behind a path stands: in a register, or so many pointers and bytes away.
//!
//! A path follows the types of the call's arguments, for one width of caller. Everything inside one piece of captured
//! memory has a fixed distance from the piece's start (or, in a loop, from the element's start), the *base*; the cursor
//! stays there until a value is loaded, so that the field that selects a union's member is found from there too.
//!
//! A path may lead to several places of which at most one is live, when the same name stands in several members of a
//! union. Which side of the call a value belongs to follows from the directions in the tables, as in
//! `hypovisor_abi::decode`.

use hypovisor_abi::types::{Direction, Handle, Scalar, Show, Struct, Type};
use hypovisor_abi::{Arg, Count, Hypercall, SubOp, SubOpFrom, Width};
use hypovisor_verdict::{Op, Side};

use super::assembler::Assembler;
use super::names::Names;
use crate::suggest::{did_you_mean, some_of};

mod fields;

use self::fields::{field, no_field};
pub(crate) use self::fields::{member, names_in, of_field};

/// The largest index in a path.
const MAX_INDEX: u32 = 8191;
/// The most members of unions that one path may mean.
const MAX_PLACES: usize = 16;

/// What a condition is compiled for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scope {
    pub(crate) call: Option<&'static Hypercall>,
    pub(crate) sub_op: Option<&'static SubOp>,
    pub(crate) sub_op_number: Option<u64>,
    pub(crate) width: Width,
}

impl Scope {
    pub(crate) fn args(&self) -> &'static [Arg] {
        let Some(call) = self.call else { return &[] };
        match (call.sub_ops.map(|ops| ops.from), self.sub_op) {
            (Some(SubOpFrom::Arg { .. }), Some(op)) => op.args,
            _ => call.args,
        }
    }

    /// The arguments that a caller of this width passes, each with its first register.
    pub(crate) fn placed(&self) -> Vec<(u8, &'static Arg)> {
        let mut next = 0;
        let mut placed = Vec::new();
        for arg in self.args() {
            let taken = arg.registers(self.width);
            if taken > 0 {
                placed.push((next, arg));
            }
            next += taken;
        }
        placed
    }

    pub(crate) fn sub_op_from(&self) -> Option<SubOpFrom> {
        self.call?.sub_ops.map(|ops| ops.from)
    }

    pub(crate) fn bytes(&self, ty: &Type) -> u32 {
        ty.bytes(self.width)
    }
}

/// An instruction whose constants have no place yet.
#[derive(Clone, Debug)]
pub(crate) enum Code {
    Op(Op),
    /// The first value is the mask.
    Tag {
        bytes: u8,
        negate: bool,
        relative: i32,
        values: Vec<i128>,
    },
    TagSubOp {
        negate: bool,
        values: Vec<i128>,
    },
}

/// Which side of the call a value belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rule {
    /// Only what was captured at entry.
    Entry,
    /// Only what was captured after the call.
    Exit,
    /// What each field's direction says.
    Marked,
    /// As `Marked`, but what the guest supplies Xen also changes.
    Both,
}

impl Rule {
    /// What a field, or a member of a union, with this direction has.
    const fn with(self, direction: Direction, aggregate: bool) -> Self {
        match (self, direction) {
            (Self::Entry | Self::Exit, _) => self,
            (_, Direction::Out) => Self::Exit,
            (_, Direction::InOut) => Self::Both,
            (Self::Marked, Direction::In) => {
                if aggregate {
                    self
                } else {
                    Self::Entry
                }
            }
            (Self::Both, Direction::In) => self,
        }
    }

    pub(crate) const fn before(self) -> bool {
        !matches!(self, Self::Exit)
    }
}

/// A place in captured memory.
#[derive(Clone, Debug)]
pub(crate) struct Memory {
    /// Puts the cursor on the base.
    pub(crate) code: Vec<Code>,
    /// From the base.
    pub(crate) offset: u32,
    /// The structs around it with their offsets, innermost last.
    holders: Vec<(u32, &'static Struct)>,
    pub(crate) rule: Rule,
    /// Captured after the call as well.
    pub(crate) exit: bool,
    /// The base is what begins with the sub-op number.
    sub_op_here: bool,
}

impl Memory {
    fn at(&self, offset: u32) -> Self {
        Self { offset: self.offset.saturating_add(offset), ..self.clone() }
    }

    /// The element of a loop.
    pub(crate) fn element(slot: u8, rule: Rule, exit: bool) -> Self {
        let code = vec![Code::Op(Op::Element { slot })];
        Self { code, offset: 0, holders: Vec::new(), rule, exit, sub_op_here: false }
    }

    /// No place at all: following a null pointer leaves none.
    pub(crate) fn nowhere(rule: Rule, exit: bool) -> Self {
        let code = vec![Code::Op(Op::Absent {}), Code::Op(Op::Follow { entry: true, exit: true })];
        Self { code, offset: 0, holders: Vec::new(), rule, exit, sub_op_here: false }
    }

    /// Puts the cursor there.
    pub(crate) fn emit(&self, assembler: &mut Assembler) {
        for code in &self.code {
            match code {
                Code::Op(op) => assembler.emit(*op),
                Code::Tag { bytes, negate, relative, values } => {
                    let (start, len) = (assembler.constants(values), values.len() as u8);
                    let (bytes, negate, relative) = (*bytes, *negate, *relative);
                    assembler.emit(Op::Tag { bytes, negate, len, relative, values: start });
                }
                Code::TagSubOp { negate, values } => {
                    let (start, len) = (assembler.constants(values), values.len() as u8);
                    assembler.emit(Op::TagSubOp { negate: *negate, len, values: start });
                }
            }
        }
        if self.offset > 0 {
            assembler.emit(Op::Move { bytes: self.offset });
        }
    }
}

/// What a path leads to.
#[derive(Clone, Debug)]
pub(crate) enum Spot {
    /// An integer in a register.
    Register { index: u8, bytes: u8, signed: bool, mask: Option<u64>, names: Names, truth: bool },
    /// A pointer in a register.
    Pointer { index: u8, handle: &'static Handle },
    /// Something in memory.
    Memory { memory: Memory, ty: &'static Type },
}

/// Elements in a row.
pub(crate) struct Elements {
    pub(crate) memory: Memory,
    pub(crate) ty: &'static Type,
    /// `None`: only the capture says.
    pub(crate) limit: Option<u32>,
    /// The field that is zero in the element that ends the list.
    pub(crate) until: Option<(u32, u8)>,
}

/// One step of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Field(String),
    Index(u32),
}

/// A single byte of a larger run.
pub(crate) const BYTE: &Type = &Type::HEX8;

/// Where a path below `args` leads.
pub(crate) fn resolve(scope: &Scope, steps: &[Step]) -> Result<Vec<Spot>, String> {
    let Some((first, rest)) = steps.split_first() else {
        return Err("`args` alone is no value; name an argument".into());
    };
    let Step::Field(name) = first else {
        return Err("arguments have names, not numbers; see `raw_args`".into());
    };
    let spot = argument(scope, name)?;
    follow_steps(scope, vec![spot], rest)
}

/// Goes on from one place along the steps.
pub(crate) fn follow_steps(scope: &Scope, mut spots: Vec<Spot>, steps: &[Step]) -> Result<Vec<Spot>, String> {
    for step in steps {
        let mut next = Vec::new();
        let mut refusal = None;
        for spot in &spots {
            match one_step(scope, spot, step) {
                Ok(found) => next.extend(found),
                Err(message) => refusal = Some(message),
            }
        }
        if next.is_empty() {
            return Err(refusal.unwrap_or_else(|| "there is nothing there for these calls".into()));
        }
        if next.len() > MAX_PLACES {
            return Err("this means too many members of unions".into());
        }
        spots = next;
    }
    let ends = spots.iter().flat_map(|spot| members_at_end(scope, spot)).collect::<Vec<_>>();
    if ends.is_empty() { Err(unnamed_union(scope, &spots)) } else { Ok(ends) }
}

fn unnamed_union(scope: &Scope, spots: &[Spot]) -> String {
    let names = spots.iter().flat_map(|spot| match spot {
        Spot::Memory { ty, .. } => names_in(ty.for_width(scope.width)),
        _ => Vec::new(),
    });
    format!("this is a union; name a member: {}", some_of(names))
}

/// A union at the end of a path stands for its members without names.
fn members_at_end(scope: &Scope, spot: &Spot) -> Vec<Spot> {
    match spot {
        Spot::Memory { memory, ty } => match ty.for_width(scope.width) {
            Type::Union(union) => {
                let unnamed = union.cases.iter().filter(|case| case.name.is_empty());
                unnamed.filter_map(|case| member(scope, memory, union, case)).collect()
            }
            _ => vec![spot.clone()],
        },
        _ => vec![spot.clone()],
    }
}

fn argument(scope: &Scope, name: &str) -> Result<Spot, String> {
    let Some(call) = scope.call else {
        return Err("only calls named in `on` have arguments with names; use `raw_args[i]`".into());
    };
    if let Some(SubOpFrom::FirstBuffer { index, ty }) = scope.sub_op_from()
        && name == "op"
    {
        return Ok(first_buffer(scope, index, ty));
    }
    let placed = scope.placed();
    let Some((index, arg)) = placed.iter().find(|(_, arg)| arg.name == name).copied() else {
        let known = || scope.args().iter().map(|arg| arg.name);
        let suggestion = did_you_mean(name, known());
        let of = scope.sub_op.map_or_else(|| call.name.to_owned(), |op| format!("{}/{}", call.name, op.name));
        let suggestion =
            if suggestion.is_empty() { format!("; there are {}", some_of(known())) } else { suggestion };
        return Err(format!("{of} has no argument `{name}`{suggestion}"));
    };
    Ok(match arg.ty.for_width(scope.width) {
        Type::Handle(handle) => Spot::Pointer { index, handle },
        Type::Int(scalar) => in_register(scope, index, scalar),
        _ => in_register(scope, index, &Scalar { int: hypovisor_abi::Int::Ulong, show: Show::Hex }),
    })
}

fn in_register(scope: &Scope, index: u8, scalar: &Scalar) -> Spot {
    let (mut mask, mut names) = (None, Names::of(scalar, scope.width));
    if let (Some(SubOpFrom::Arg { index: at, mask: bits }), Some(call)) = (scope.sub_op_from(), scope.call)
        && at == index
    {
        mask = Some(bits);
        names = Names::SubOps(call.sub_ops.map_or(&[], |ops| ops.ops));
    }
    let bytes = if mask.is_some() { 8 } else { scalar.int.bytes(scope.width) as u8 };
    // Eight bytes of a 32-bit caller would take the next register too.
    let bytes = if mask.is_some() { bytes.min(scope.width.word_bytes() as u8) } else { bytes };
    let signed = scalar.int.is_signed();
    Spot::Register { index, bytes, signed, mask, names, truth: matches!(scalar.show, Show::Bool) }
}

pub(super) fn first_buffer(scope: &Scope, index: u8, ty: &'static Type) -> Spot {
    let word = scope.width.word_bytes() as u8;
    let code = vec![
        Code::Op(Op::RawArg { index }),
        Code::Op(Op::Follow { entry: true, exit: true }),
        Code::Op(Op::Load { bytes: word, signed: false, side: Side::Either }),
        Code::Op(Op::Follow { entry: true, exit: true }),
    ];
    let memory =
        Memory { code, offset: 0, holders: Vec::new(), rule: Rule::Marked, exit: true, sub_op_here: true };
    Spot::Memory { memory, ty }
}

/// What a pointer leads to.
pub(super) fn pointee(scope: &Scope, spot: &Spot) -> Option<(Memory, &'static Handle)> {
    let (mut code, handle, mut sub_op_here) = match spot {
        Spot::Pointer { index, handle } => {
            let here = matches!(scope.sub_op_from(), Some(SubOpFrom::Memory { index: at }) if at == *index);
            (vec![Code::Op(Op::RawArg { index: *index })], *handle, here)
        }
        Spot::Memory { memory, ty } => match ty.for_width(scope.width) {
            Type::Handle(handle) => {
                let mut code = memory.code.clone();
                if memory.offset > 0 {
                    code.push(Code::Op(Op::Move { bytes: memory.offset }));
                }
                // Of a wide handle a 32-bit caller's lower half counts.
                let bytes = scope.width.word_bytes() as u8;
                code.push(Code::Op(Op::Load { bytes, signed: false, side: Side::Either }));
                (code, *handle, false)
            }
            Type::Tail(handle) => {
                let mut code = memory.code.clone();
                code.push(Code::Op(Op::Move { bytes: memory.offset }));
                code.push(Code::Op(Op::Place {}));
                (code, *handle, false)
            }
            _ => return None,
        },
        Spot::Register { .. } => return None,
    };
    let direction = handle.direction;
    let entry = direction.is_in() || handle.to.has_handles();
    code.push(Code::Op(Op::Follow { entry, exit: direction.is_out() }));
    sub_op_here &= direction.is_in();
    let rule = match direction {
        Direction::In => Rule::Entry,
        Direction::Out => Rule::Exit,
        Direction::InOut => Rule::Marked,
    };
    let exit = direction.is_out();
    Some((Memory { code, offset: 0, holders: Vec::new(), rule, exit, sub_op_here }, handle))
}

/// The elements that a handle, array or run of bytes has.
pub(crate) fn elements(scope: &Scope, spot: &Spot) -> Option<Elements> {
    if let Some((memory, handle)) = pointee(scope, spot) {
        let ty = handle.to.for_width(scope.width);
        let until = match (handle.count, ty) {
            (Count::Until { field, .. }, Type::Struct(structure)) => structure.position(field).map(|index| {
                let bytes = scope.bytes(&structure.fields[index].ty).clamp(1, 8) as u8;
                (structure.offset(index, scope.width), bytes)
            }),
            (Count::Text(_) | Count::WideText(_), _) => return None,
            (Count::One, Type::Array(_) | Type::Bytes(_)) => {
                return elements(scope, &Spot::Memory { memory, ty });
            }
            (Count::One, _) | (_, Type::Chars(_)) => return None,
            _ => None,
        };
        let ty = if matches!(ty, Type::Bytes(1)) { BYTE } else { ty };
        return Some(Elements { memory, ty, limit: None, until });
    }
    let Spot::Memory { memory, ty } = spot else { return None };
    let (ty, len) = match ty.for_width(scope.width) {
        Type::Array(array) => (array.of.for_width(scope.width), array.len),
        Type::Bytes(len) => (BYTE, *len),
        _ => return None,
    };
    let memory = Memory { holders: Vec::new(), ..memory.clone() };
    Some(Elements { memory, ty, limit: Some(len), until: None })
}

fn one_step(scope: &Scope, spot: &Spot, step: &Step) -> Result<Vec<Spot>, String> {
    match step {
        Step::Index(index) => element(scope, spot, *index).map(|spot| vec![spot]),
        Step::Field(name) => {
            let (memory, ty) = match (pointee(scope, spot), spot) {
                (Some((memory, handle)), _) => (memory, handle.to.for_width(scope.width)),
                (None, Spot::Memory { memory, ty }) => (memory.clone(), ty.for_width(scope.width)),
                (None, _) => return Err(format!("a number has no field `{name}`")),
            };
            let found = field(scope, &memory, ty, name);
            if found.is_empty() { Err(no_field(scope, ty, name)) } else { Ok(found) }
        }
    }
}

fn element(scope: &Scope, spot: &Spot, index: u32) -> Result<Spot, String> {
    let Some(elements) = elements(scope, spot) else {
        return Err("this is no list or array, so it has no elements".into());
    };
    if index > MAX_INDEX || elements.limit.is_some_and(|limit| index >= limit) {
        let limit = elements.limit.unwrap_or(MAX_INDEX + 1);
        return Err(format!("index {index} is out of range; there are {limit} at most"));
    }
    let offset = index.saturating_mul(scope.bytes(elements.ty));
    let memory = Memory { holders: Vec::new(), sub_op_here: false, ..elements.memory.at(offset) };
    Ok(Spot::Memory { memory, ty: elements.ty })
}
