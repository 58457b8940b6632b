//! Which arguments a policy limits: flags, and numbers that say how many or how large.
//!
//! A path is that of a condition in a rule, without `args.`; `[]` stands behind a list: `uop[].flags`. Fields of lists
//! within lists are not limited, because conditions do not reach them.

use hypovisor_abi::decode::{Group, Missing, Sink, Value};
use hypovisor_abi::xen::XEN;
use hypovisor_abi::{FlagSet, Int, Scalar, Show, SubOp, SubOpFrom, Type, Width};

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

/// The field that a path leads to.
pub(super) fn find(operation: Operation, path: &str) -> Option<&'static Scalar> {
    let call = XEN.call(operation.number)?;
    let args =
        operation.sub_op.and_then(|number| call.sub_op(number)).map_or(call.args, |sub_op| sub_op.args);
    let parts: Vec<&str> = path.split('.').collect();
    let (first, rest) = parts.split_first()?;
    let named = args.iter().filter(|arg| arg.name == plain(first));
    let in_args = named.filter_map(|arg| within(&arg.ty, rest, operation)).next();
    in_args.or_else(|| match call.sub_ops?.from {
        SubOpFrom::FirstBuffer { ty, .. } if *first == "op" => within(ty, rest, operation),
        _ => None,
    })
}

/// A part of a path without the mark of a list.
fn plain(part: &str) -> &str {
    part.strip_suffix(LIST).unwrap_or(part)
}

/// The recursion follows the tables, which have no circle.
fn within(ty: &'static Type, rest: &[&str], operation: Operation) -> Option<&'static Scalar> {
    match ty {
        Type::Int(scalar) => rest.is_empty().then_some(scalar),
        Type::Handle(handle) | Type::Tail(handle) => within(handle.to, rest, operation),
        Type::Array(array) => within(array.of, rest, operation),
        Type::PerWidth(types) => types.iter().find_map(|ty| within(ty, rest, operation)),
        Type::Struct(structure) => {
            let mut fields = structure.fields.iter();
            fields.find_map(|field| member(field.name, &field.ty, rest, operation))
        }
        Type::Union(union) => {
            union.cases.iter().find_map(|case| member(case.name, &case.ty, rest, operation))
        }
        Type::Chars(_) | Type::Bytes(_) => None,
    }
}

/// A field or case; one without a name lends its place to what is in it, and so does the field that is a union, whose
/// cases have names of their own.
fn member(name: &str, ty: &'static Type, rest: &[&str], operation: Operation) -> Option<&'static Scalar> {
    let (first, further) = rest.split_first()?;
    let own = (name == plain(first)).then(|| within(ty, further, operation)).flatten();
    let lends = name.is_empty() || matches!(ty, Type::Union(_));
    own.or_else(|| lends.then(|| within(ty, rest, operation)).flatten())
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
