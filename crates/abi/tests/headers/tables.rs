//! Everything in the tables that has a counterpart in the headers, for callers of one width.

use std::collections::BTreeSet;

use hypovisor_abi::{Abi, Int, Scalar, Show, Struct, SubOpFrom, Type, Width};

use crate::c::Question;
use crate::exceptions;

/// One form of a struct: its size and members as the tables have them.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Form {
    /// The C name, or a dotted path to a member whose type it is.
    pub(crate) c_name: &'static str,
    size: u32,
    members: Vec<Member>,
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Member {
    path: String,
    offset: u32,
    /// `None` for a flexible array.
    size: Option<u32>,
    /// Whether it is a signed integer, where the tables mean to say.
    signed: Option<bool>,
}

impl Form {
    /// First the size, then everything about the members.
    pub(crate) fn questions(&self) -> Vec<Question> {
        let ty = type_expression(self.c_name);
        let mut questions = vec![Question {
            expression: format!("sizeof({ty})"),
            expected: u64::from(self.size),
            what: "the size".to_owned(),
            subject: String::new(),
        }];
        for Member { path, offset, size, signed } in &self.members {
            if exceptions::MEMBERS.iter().any(|(of, member, _)| *of == self.c_name && member == path) {
                continue;
            }
            let mut ask = |expression: String, expected: u32, what: &str| {
                let what = format!("{what} of {path}");
                let expected = u64::from(expected);
                questions.push(Question { expression, expected, what, subject: path.clone() });
            };
            ask(format!("__builtin_offsetof({ty}, {path})"), *offset, "the offset");
            let member = format!("(({ty} *)0)->{path}");
            if let Some(size) = size {
                ask(format!("sizeof({member})"), *size, "the size");
            }
            if let Some(signed) = signed {
                let generic = "signed char: 1, short: 1, int: 1, long: 1, long long: 1, default: 0";
                ask(format!("_Generic({member}, {generic})"), u32::from(*signed), "whether signed");
            }
        }
        questions
    }
}

/// `struct a.u.b` is the type of member `u.b` of `struct a`.
fn type_expression(c_name: &str) -> String {
    match c_name.split_once('.') {
        Some((base, path)) => format!("__typeof__((({base} *)0)->{path})"),
        None => c_name.to_owned(),
    }
}

/// A named value, of an enumeration or of a set of flags.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Constant {
    /// The header's name.
    pub(crate) name: &'static str,
    /// What list it is in.
    pub(crate) list: &'static str,
    value: u64,
    mask: u64,
    /// A flag's constant may also be the number of its bit.
    flag: bool,
}

impl Constant {
    /// Whether the constant has the value: 1, or 0.
    pub(crate) fn question(&self) -> Question {
        let Self { name, list, value, mask, flag } = self;
        let mut expression = format!("((((unsigned long long)({name})) & {mask:#x}ull) == {value:#x}ull)");
        if *flag && value.is_power_of_two() {
            expression += &format!(" || ((unsigned long long)({name})) == {}", value.trailing_zeros());
        }
        let what = format!("{name} ({list}) is not {value:#x}");
        Question { expression: format!("({expression})"), expected: 1, what, subject: (*name).to_owned() }
    }

    /// Whether the name is meant to be one of the headers': it has an upper-case prefix.
    pub(crate) fn looks_like_c(&self) -> bool {
        self.name.starts_with(|c: char| c.is_ascii_uppercase() || c == '_') && self.name.contains('_')
    }
}

/// What is to be compared.
#[derive(Default)]
pub(crate) struct Tables {
    /// Every form of every struct.
    pub(crate) forms: Vec<Form>,
    /// Every named value.
    pub(crate) constants: BTreeSet<Constant>,
    seen: BTreeSet<Form>,
}

impl Tables {
    /// Walks every type that an argument of any call leads to.
    pub(crate) fn of(abi: &Abi, width: Width) -> Self {
        let mut tables = Self::default();
        for call in abi.calls.iter().copied().flatten() {
            let sub_args = call.sub_ops.iter().flat_map(|ops| ops.ops).flat_map(|op| op.args);
            for arg in call.args.iter().chain(sub_args) {
                tables.walk(&arg.ty, width);
            }
            if let Some(SubOpFrom::FirstBuffer { ty, .. }) = call.sub_ops.map(|ops| ops.from) {
                tables.walk(ty, width);
            }
        }
        tables
    }

    fn walk(&mut self, ty: &'static Type, width: Width) {
        match ty.for_width(width) {
            Type::Int(scalar) => self.names(scalar, width),
            Type::Handle(handle) | Type::Tail(handle) => self.walk(handle.to, width),
            Type::Array(array) => self.walk(array.of, width),
            Type::Union(union) => union.cases.iter().for_each(|case| self.walk(&case.ty, width)),
            Type::Struct(structure) => self.structure(structure, width),
            Type::Chars(_) | Type::Bytes(_) | Type::PerWidth(_) => {}
        }
    }

    fn structure(&mut self, structure: &'static Struct, width: Width) {
        let mut members = Vec::new();
        add_members(structure, width, 0, &mut members);
        let size = Type::Struct(structure).bytes(width);
        let form = Form { c_name: structure.c_name, size, members };
        let new = self.seen.insert(form.clone());
        // An anonymous struct is compared as part of the one it stands in.
        if new
            && !structure.c_name.is_empty()
            && !exceptions::STRUCTS.iter().any(|(name, _)| *name == form.c_name)
        {
            self.forms.push(form);
        }
        if new || structure.c_name.is_empty() {
            structure.fields.iter().for_each(|field| self.walk(&field.ty, width));
        }
    }

    fn names(&mut self, scalar: &Scalar, width: Width) {
        let bits = 8 * scalar.int.bytes(width);
        let whole = if bits >= 64 { u64::MAX } else { (1 << bits) - 1 };
        match scalar.show {
            Show::Enum(list) => {
                self.constants.extend(list.values.iter().map(|&(value, name)| Constant {
                    name,
                    list: list.name,
                    value,
                    mask: whole,
                    flag: false,
                }));
            }
            Show::Flags(set) => {
                self.constants.extend(set.bits.iter().map(|&(_, value, name)| Constant {
                    name,
                    list: set.name,
                    value,
                    mask: whole,
                    flag: true,
                }));
            }
            _ => {}
        }
    }
}

/// Adds the named members of a struct, those of anonymous structs and unions in it included.
fn add_members(structure: &'static Struct, width: Width, base: u32, members: &mut Vec<Member>) {
    for (index, field) in structure.fields.iter().enumerate() {
        let offset = base + structure.offset(index, width);
        let mut add = |path: &str, ty: &'static Type| members.push(member(path, ty, offset, width));
        match (field.name, field.ty.for_width(width)) {
            ("", Type::Struct(inner)) => add_members(inner, width, offset, members),
            ("", Type::Union(union)) => {
                named_cases(union).for_each(|(name, ty)| add(name, ty));
            }
            ("", _) => {}
            (name, _) if name.starts_with("pad") || name.starts_with("_pad") => {}
            (name, Type::Union(union)) => {
                add(name, &field.ty);
                named_cases(union).for_each(|(case, ty)| add(&format!("{name}.{case}"), ty));
            }
            (name, _) => add(name, &field.ty),
        }
    }
}

/// The members of a union. None if a case has no name: then C has one member there, with several meanings.
fn named_cases(union: &'static hypovisor_abi::Union) -> impl Iterator<Item = (&'static str, &'static Type)> {
    let is_c = union.cases.iter().all(|case| !case.name.is_empty());
    union.cases.iter().filter(move |_| is_c).map(|case| (case.name, &case.ty))
}

fn member(path: &str, ty: &'static Type, offset: u32, width: Width) -> Member {
    let size = Some(ty.bytes(width)).filter(|size| *size > 0);
    let signed = match ty.for_width(width) {
        Type::Int(Scalar { int: Int::U8 | Int::S8, .. }) => None,
        Type::Int(Scalar { int, show: Show::Dec }) => Some(int.is_signed()),
        _ => None,
    };
    Member { path: path.to_owned(), offset, size, signed }
}
