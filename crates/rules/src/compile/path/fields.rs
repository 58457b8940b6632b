//! Fields by name: of structs, of unions by their tags, of what has no name.

use hypovisor_abi::types::{Case, Direction, Field, Struct, Tag, Type, Union};

use super::{Code, Memory, Rule, Spot};
use crate::compile::scope::Scope;
use crate::suggest::{did_you_mean, some_of};

/// The fields of this name in a struct or union, with all that is inside it without a name.
pub(super) fn field(scope: &Scope, memory: &Memory, ty: &'static Type, name: &str) -> Vec<Spot> {
    match ty {
        Type::Struct(structure) => in_struct(scope, memory, structure, name),
        Type::Union(union) => in_union(scope, memory, union, name, true),
        _ => Vec::new(),
    }
}

fn in_struct(scope: &Scope, memory: &Memory, structure: &'static Struct, name: &str) -> Vec<Spot> {
    let named = structure.fields.iter().position(|field| field.name == name && !name.is_empty());
    if let Some(index) = named {
        let memory = of_field(scope, memory, structure, index);
        return vec![Spot::Memory { memory, ty: structure.fields[index].ty.for_width(scope.width) }];
    }
    let mut found = Vec::new();
    for (index, Field { name: own, ty, .. }) in structure.fields.iter().enumerate() {
        let ty = ty.for_width(scope.width);
        match ty {
            Type::Struct(inner) if own.is_empty() => {
                found.extend(in_struct(scope, &of_field(scope, memory, structure, index), inner, name));
            }
            Type::Union(union) => {
                let memory = of_field(scope, memory, structure, index);
                found.extend(in_union(scope, &memory, union, name, own.is_empty()));
            }
            _ => {}
        }
    }
    found
}

/// The members of this name; with `inside` also what stands in members without a name.
fn in_union(scope: &Scope, memory: &Memory, union: &'static Union, name: &str, inside: bool) -> Vec<Spot> {
    let mut found = Vec::new();
    for case in union.cases {
        if case.name == name {
            found.extend(member(scope, memory, union, case));
        } else if case.name.is_empty()
            && inside
            && let Some(Spot::Memory { memory, ty }) = member(scope, memory, union, case)
        {
            found.extend(field(scope, &memory, ty, name));
        }
    }
    found
}

pub(crate) fn of_field(scope: &Scope, memory: &Memory, structure: &'static Struct, index: usize) -> Memory {
    let field = &structure.fields[index];
    let mut inner = memory.at(structure.offset(index, scope.width));
    inner.holders.push((memory.offset, structure));
    inner.rule = memory.rule.with(field.direction, is_aggregate(scope, &field.ty));
    inner
}

fn is_aggregate(scope: &Scope, ty: &'static Type) -> bool {
    match ty.for_width(scope.width) {
        Type::Struct(_) | Type::Union(_) => true,
        Type::Array(array) => is_aggregate(scope, array.of),
        _ => false,
    }
}

/// A member of a union, behind a check of the tag; `None` if it is never live for these calls.
pub(crate) fn member(
    scope: &Scope,
    memory: &Memory,
    union: &'static Union,
    case: &'static Case,
) -> Option<Spot> {
    let left = case.direction == Direction::Out;
    let rivals = union.cases.iter().filter(|rival| (rival.direction == Direction::Out) == left);
    let negate = case.when.is_empty();
    let values: Vec<u64> =
        if negate { rivals.flat_map(|rival| rival.when).copied().collect() } else { case.when.to_vec() };
    let mut inner = memory.clone();
    if !(negate && values.is_empty()) {
        inner.code.extend(tag_check(scope, memory, union.tag, values, negate)?);
    }
    let ty = case.ty.for_width(scope.width);
    let replaced = !left && union.cases.iter().any(|rival| rival.direction == Direction::Out);
    inner.rule = match (is_aggregate(scope, &case.ty), inner.rule) {
        (_, rule) if left => rule.with(Direction::Out, true),
        (false, Rule::Marked | Rule::Both) if replaced => Rule::Entry,
        (_, rule) => rule,
    };
    Some(Spot::Memory { memory: inner, ty })
}

/// The check that a member is live: nothing if it always is, `None` if it never is.
fn tag_check(
    scope: &Scope,
    memory: &Memory,
    tag: Tag,
    values: Vec<u64>,
    negate: bool,
) -> Option<Option<Code>> {
    let decide = |number: u64| (values.contains(&number) != negate).then_some(None);
    let (name, mask) = match tag {
        Tag::SubOp => {
            if let Some(number) = scope.sub_op_number {
                return decide(number);
            }
            let values = values.into_iter().map(i128::from).collect();
            return Some(Some(Code::TagSubOp { negate, values }));
        }
        Tag::Field(name) => (name, u64::MAX),
        Tag::Bits { field, mask } => (field, mask),
    };
    let holder = memory.holders.iter().rev().find_map(|(offset, structure)| {
        let index = structure.position(name)?;
        let bytes = scope.bytes(&structure.fields[index].ty).min(8) as u8;
        Some((offset.checked_add(structure.offset(index, scope.width))?, bytes))
    });
    // Without the field the tag is unknown: the member without a condition is the live one.
    let Some((offset, bytes)) = holder else { return negate.then_some(None) };
    if let Some(number) = scope.sub_op_number
        && memory.sub_op_here
        && offset == 0
        && bytes == 4
    {
        return decide(number & mask);
    }
    let values = std::iter::once(mask).chain(values).map(i128::from).collect();
    // Moves that the code before has made count from the base.
    Some(Some(Code::Tag { bytes, negate, relative: i32::try_from(offset).ok()?, values }))
}

pub(super) fn no_field(scope: &Scope, ty: &'static Type, name: &str) -> String {
    let known = names_in(ty.for_width(scope.width));
    let what = match ty {
        Type::Struct(structure) if !structure.c_name.is_empty() => structure.c_name,
        Type::Struct(_) => "this struct",
        Type::Union(_) => "this union",
        _ => return format!("a number has no field `{name}`"),
    };
    if known.contains(&name) {
        return format!("`{name}` belongs to other sub-ops of {what}");
    }
    let suggestion = did_you_mean(name, known.iter().copied());
    let suggestion =
        if suggestion.is_empty() { format!("; there are {}", some_of(known)) } else { suggestion };
    format!("{what} has no field `{name}`{suggestion}")
}

/// The names that can follow a struct or union in a path.
pub(crate) fn names_in(ty: &'static Type) -> Vec<&'static str> {
    let mut names = Vec::new();
    match ty {
        Type::Struct(structure) => {
            for field in structure.fields {
                names.push(field.name);
                match &field.ty {
                    Type::Union(_) => names.extend(names_in(&field.ty)),
                    Type::Struct(_) if field.name.is_empty() => names.extend(names_in(&field.ty)),
                    _ => {}
                }
            }
        }
        Type::Union(union) => {
            for case in union.cases {
                names.push(case.name);
                if case.name.is_empty() {
                    names.extend(names_in(&case.ty));
                }
            }
        }
        Type::PerWidth(types) => names.extend(names_in(&types[0])),
        _ => {}
    }
    names.retain(|name| !name.is_empty());
    names
}
