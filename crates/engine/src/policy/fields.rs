//! Which arguments a policy limits: flags, and numbers that say how many or how large.
//!
//! A path is that of a condition in a rule, without `args.`; `[]` stands behind a list: `uop[].flags`. Fields of lists
//! within lists are not limited, because conditions do not reach them.

use hypovisor_abi::decode::{Group, Missing, Sink, Value};
use hypovisor_abi::xen::XEN;
use hypovisor_abi::{Case, FlagSet, Hypercall, Int, Scalar, Show, SubOp, SubOpFrom, Tag, Type, Union, Width};

use crate::profile::Operation;

/// Takes a call's limited fields.
pub(super) struct Fields<'f> {
    path: Vec<&'static str>,
    /// Open lists.
    lists: usize,
    found: &'f mut dyn FnMut(String, Limited, u64),
}

/// How a field is limited.
#[derive(Clone, Copy, Debug)]
pub(super) enum Limited {
    /// It says how many or how large.
    Size,
    /// It is a set of flags.
    Flags(&'static FlagSet),
}

impl<'f> Fields<'f> {
    /// `found` gets path and value of each.
    pub(super) fn new(found: &'f mut dyn FnMut(String, Limited, u64)) -> Self {
        Self { path: Vec::new(), lists: 0, found }
    }

    fn path_to(&self, name: &'static str) -> String {
        let mut path = String::new();
        for part in self.path.iter().copied().chain([name]).filter(|part| !part.is_empty()) {
            if !path.is_empty() && part != LIST {
                path.push('.');
            }
            path.push_str(part);
        }
        path
    }
}

/// Stands behind a list in a path.
const LIST: &str = "[]";

impl Sink for Fields<'_> {
    fn open(&mut self, name: &'static str, group: Group) {
        self.path.push(name);
        if group == Group::Array {
            self.path.push(LIST);
            self.lists += 1;
        }
    }

    fn close(&mut self, group: Group) {
        self.path.pop();
        if group == Group::Array {
            self.path.pop();
            self.lists -= 1;
        }
    }

    fn scalar(&mut self, name: &'static str, scalar: &Scalar, value: Value) {
        let field = self.path.iter().rev().copied().find(|part| *part != LIST && !part.is_empty());
        let field = if name.is_empty() { field.unwrap_or("") } else { name };
        if let (Some(limited), Some(value), true) = (limited(field, scalar), value.before, self.lists <= 1) {
            let path = self.path_to(name);
            (self.found)(path, limited, value);
        }
    }

    fn sub_op(&mut self, _: &'static str, _: u64, _: Option<&'static SubOp>) {}
    fn text(&mut self, _: &'static str, _: &[u8]) {}
    fn bytes(&mut self, _: &'static str, _: &[u8], _: u64) {}
    fn pointer(&mut self, _: &'static str, _: u64, _: Missing) {}
    fn elided(&mut self, _: u64) {}
}

/// Whether and how a field of this name is limited.
fn limited(name: &str, scalar: &Scalar) -> Option<Limited> {
    match scalar.show {
        Show::Flags(set) => Some(Limited::Flags(set)),
        Show::Dec if !scalar.int.is_signed() && is_size(name) => Some(Limited::Size),
        _ => None,
    }
}

/// Whether the name is one of those that Xen's headers have for numbers and sizes of things.
fn is_size(name: &str) -> bool {
    let whole = ["nr", "num", "count", "size", "order", "len", "length", "max"];
    let ends = ["_nr", "_num", "_count", "_size", "_order", "_len", "_length", "_bytes", "_bits"];
    whole.contains(&name)
        || ["nr_", "num_", "max_"].iter().any(|start| name.starts_with(start))
        || ends.iter().any(|end| name.ends_with(end))
}

/// The field of the guest's that a path leads to. `None` if there is none, or several that differ: members of a union that go by one
/// name.
pub(super) fn find(operation: Operation, path: &str) -> Option<&'static Scalar> {
    let call = XEN.call(operation.number)?;
    let args =
        operation.sub_op.and_then(|number| call.sub_op(number)).map_or(call.args, |sub_op| sub_op.args);
    let parts: Vec<&str> = path.split('.').collect();
    let (first, rest) = parts.split_first()?;
    let (mut found, operation) = (Vec::new(), Selected::of(call, operation));
    for arg in args.iter().filter(|arg| arg.name == plain(first)) {
        within(&arg.ty, rest, operation, &mut found);
    }
    if let Some(SubOpFrom::FirstBuffer { ty, .. }) = call.sub_ops.map(|sub_ops| sub_ops.from)
        && *first == "op"
    {
        within(ty, rest, operation, &mut found);
    }
    let (one, others) = found.split_first()?;
    others.iter().all(|other| is_same(one, other)).then_some(*one)
}

fn is_same(one: &Scalar, other: &Scalar) -> bool {
    match (one.show, other.show) {
        (Show::Flags(one), Show::Flags(other)) => std::ptr::eq(one, other),
        (Show::Dec, Show::Dec) => true,
        _ => false,
    }
}

/// A part of a path without the mark of a list.
fn plain(part: &str) -> &str {
    part.strip_suffix(LIST).unwrap_or(part)
}

/// Collects the integers that the rest of a path leads to. The recursion follows the tables, which have no circle.
fn within(ty: &'static Type, rest: &[&str], operation: Selected, found: &mut Vec<&'static Scalar>) {
    match ty {
        Type::Int(scalar) if rest.is_empty() => found.push(scalar),
        Type::Int(_) | Type::Chars(_) | Type::Bytes(_) => {}
        Type::Handle(handle) | Type::Tail(handle) if handle.direction.is_in() => {
            within(handle.to, rest, operation, found);
        }
        Type::Handle(_) | Type::Tail(_) => {}
        Type::Array(array) => within(array.of, rest, operation, found),
        Type::PerWidth(types) => types.iter().for_each(|ty| within(ty, rest, operation, found)),
        Type::Struct(structure) => {
            let supplied = structure.fields.iter().filter(|field| field.direction.is_in());
            supplied.for_each(|field| member(field.name, &field.ty, rest, operation, found));
        }
        Type::Union(union) => live_cases(union, operation).for_each(|case| match case.name {
            // It goes by the name of the field that is the union.
            "" => within(&case.ty, rest, operation, found),
            name => member(name, &case.ty, rest, operation, found),
        }),
    }
}

/// A field or case; one without a name lends its place to what is in it, and so does the field that is a union, whose
/// cases have names of their own.
fn member(
    name: &str,
    ty: &'static Type,
    rest: &[&str],
    operation: Selected,
    found: &mut Vec<&'static Scalar>,
) {
    let Some((first, further)) = rest.split_first() else { return };
    if name == plain(first) {
        within(ty, further, operation, found);
    }
    if name.is_empty() || matches!(ty, Type::Union(_)) {
        within(ty, rest, operation, found);
    }
}

/// A sub-op, as what selects the members of unions.
#[derive(Clone, Copy)]
struct Selected {
    number: Option<u64>,
    /// The field that holds it, if it stands in memory.
    field: Option<&'static str>,
}

impl Selected {
    fn of(call: &'static Hypercall, operation: Operation) -> Self {
        let holder = match call.sub_ops.map(|sub_ops| sub_ops.from) {
            Some(SubOpFrom::Memory { index }) => call.args.get(usize::from(index)).map(|arg| &arg.ty),
            Some(SubOpFrom::FirstBuffer { ty, .. }) => Some(ty),
            _ => None,
        };
        let holder = match holder {
            Some(Type::Handle(handle)) => Some(handle.to),
            other => other,
        };
        let field = match holder {
            Some(Type::Struct(structure)) => structure.fields.first().map(|field| field.name),
            _ => None,
        };
        Self { number: operation.sub_op, field }
    }

    fn selects(self, union: &Union) -> Option<u64> {
        match union.tag {
            Tag::SubOp => self.number,
            Tag::Field(field) if self.field == Some(field) => self.number,
            Tag::Bits { field, mask } if self.field == Some(field) => self.number.map(|number| number & mask),
            Tag::Field(_) | Tag::Bits { .. } => None,
        }
    }
}

/// The members that the guest can supply: all, unless the sub-op says which.
fn live_cases(union: &'static Union, operation: Selected) -> impl Iterator<Item = &'static Case> {
    let tag = operation.selects(union);
    let selects = move |case: &Case| tag.is_some_and(|tag| case.when.contains(&tag));
    let any = union.cases.iter().any(selects);
    let supplied = union.cases.iter().filter(|case| case.direction.is_in());
    supplied.filter(move |case| tag.is_none() || selects(case) || (!any && case.when.is_empty()))
}

/// The names of what is set in `word`.
pub(super) fn flag_names(set: &FlagSet, word: u64) -> Vec<String> {
    let (names, parts, rest) = set.split(word);
    let numbered =
        parts.map(|(name, value)| if name.is_empty() { format!("{value:#x}") } else { name.to_owned() });
    let mut all: Vec<String> = names.map(str::to_owned).chain(numbered).collect();
    if rest != 0 {
        all.push(format!("{rest:#x}"));
    }
    all
}

/// The bits that a name stands for; a part with a number in it stands for all of its bits.
pub(super) fn flag_bits(set: &FlagSet, name: &str) -> Option<u64> {
    let named = set.bits.iter().find(|(.., known)| *known == name).map(|(_, value, _)| *value);
    let part = || set.parts.iter().find(|(_, known)| *known == name).map(|(mask, _)| *mask);
    let number = || u64::from_str_radix(name.strip_prefix("0x")?, 16).ok();
    named.or_else(part).or_else(number)
}

/// All bits of an integer.
pub(super) const fn all_bits(int: Int) -> u64 {
    match int.bytes(Width::Bits64) {
        8.. => u64::MAX,
        bytes => (1 << (8 * bytes)) - 1,
    }
}

/// All paths of an operation that a learner could limit.
#[cfg(test)]
pub(super) fn limited_paths(operation: Operation) -> Vec<String> {
    fn collect(
        ty: &'static Type,
        name: &'static str,
        path: &str,
        lists: usize,
        of: Selected,
        paths: &mut Vec<String>,
    ) {
        let below = |name: &str| match (path, name) {
            (path, "") => path.to_owned(),
            ("", name) => name.to_owned(),
            (path, name) => format!("{path}.{name}"),
        };
        match ty {
            Type::Int(scalar) if limited(name, scalar).is_some() && lists <= 1 => paths.push(path.to_owned()),
            Type::Int(_) | Type::Chars(_) | Type::Bytes(_) => {}
            Type::Handle(handle) | Type::Tail(handle) => {
                let list = !matches!(handle.count, hypovisor_abi::Count::One);
                let path = if list { format!("{path}[]") } else { path.to_owned() };
                collect(handle.to, name, &path, lists + usize::from(list), of, paths);
            }
            Type::Array(array) => collect(array.of, name, &format!("{path}[]"), lists + 1, of, paths),
            Type::PerWidth(types) => collect(&types[0], name, path, lists, of, paths),
            Type::Struct(structure) => {
                structure.fields.iter().filter(|field| field.direction.is_in()).for_each(|field| match field
                    .ty
                {
                    Type::Union(_) => collect(&field.ty, field.name, path, lists, of, paths),
                    _ => collect(&field.ty, field.name, &below(field.name), lists, of, paths),
                })
            }
            Type::Union(union) => live_cases(union, of).for_each(|case| {
                let own = if case.name.is_empty() { name } else { case.name };
                collect(&case.ty, own, &below(own), lists, of, paths);
            }),
        }
    }
    let Some(call) = XEN.call(operation.number) else { return Vec::new() };
    let args =
        operation.sub_op.and_then(|number| call.sub_op(number)).map_or(call.args, |sub_op| sub_op.args);
    let mut paths = Vec::new();
    args.iter()
        .for_each(|arg| collect(&arg.ty, arg.name, arg.name, 0, Selected::of(call, operation), &mut paths));
    paths.retain(|path| find(operation, path).is_some());
    paths
}
