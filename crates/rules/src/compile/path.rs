//! Where the value behind a path stands: in a register, or so many pointers and bytes away.
//!
//! A path follows the types of the call's arguments, for one width of caller. Everything inside one piece of captured
//! memory has a fixed distance from the piece's start (or, in a loop, from the element's start), the *base*; the cursor
//! stays there until a value is loaded, so that the field that selects a union's member is found from there too.
//!
//! A path may lead to several places of which at most one is live, when the same name stands in several members of a
//! union. Which side of the call a value belongs to follows from the directions in the tables, as in
//! `hypovisor_abi::decode`.

use hypovisor_abi::SubOpFrom;
use hypovisor_abi::types::{Handle, Scalar, Show, Type};

use super::names::Names;
use super::scope::Scope;
use crate::suggest::{did_you_mean, some_of};

mod fields;
mod place;
mod pointers;

use self::fields::{field, no_field};
pub(crate) use self::fields::{member, names_in, of_field};
use self::place::Code;
pub(crate) use self::place::{Memory, Rule};
pub(crate) use self::pointers::{elements, first_buffer, pointee};

/// The largest index in a path.
const MAX_INDEX: u32 = 8191;
/// The most members of unions that one path may mean.
const MAX_PLACES: usize = 16;

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

/// One step of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Field(String),
    Index(u32),
}

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
