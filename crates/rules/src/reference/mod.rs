//! `docs/rules.md`, `docs/rules.schema.json` and the tables of a pack's README, generated from what the loader checks by.
//!
//! The fields of a file come from its schema, names and functions from the tables of the compiler, calls and their
//! arguments from the ABI.

use std::fmt::Write as _;

use hypovisor_abi::types::{Case, Direction, Struct, Tag, Type, Union};
use hypovisor_abi::xen::XEN;
use hypovisor_abi::{Arg, Hypercall, SubOpFrom};

use crate::compile::{CONSTANTS, FUNCTIONS, VALUES};
use crate::schema::{self, Keys};

mod pack;

pub use self::pack::renew_pack;

const INTRODUCTION: &str = include_str!("introduction.md");
/// Structs inside structs that the list of calls shows.
const MAX_DEPTH: usize = 6;

/// The JSON schema of a rule file, with a line end.
#[must_use]
pub fn json_schema() -> String {
    let mut text = serde_json::to_string_pretty(&schema::schema()).unwrap_or_default();
    text.push('\n');
    text
}

/// The reference for people.
#[must_use]
pub fn markdown() -> String {
    let mut out = String::from("<!-- Generated: cargo run -p hypovisor-rules --example docs -->\n\n");
    out.push_str(INTRODUCTION);
    out.push_str("\n## Fields of a rule file\n");
    table_of_keys(&mut out, "", &Keys::of_file());
    for (part, title) in
        [("Rate", "`rate`"), ("Sequence", "`sequence`"), ("Step", "A step"), ("Exception", "An exception")]
    {
        table_of_keys(&mut out, title, &Keys::of_part(part));
    }
    out.push_str("\n## Names\n\n| name | meaning |\n| --- | --- |\n");
    for (name, meaning) in VALUES.iter().chain(CONSTANTS) {
        let _ = writeln!(out, "| `{name}` | {meaning} |");
    }
    out.push_str("\n## Functions\n\n| function | meaning |\n| --- | --- |\n");
    for (signature, meaning) in FUNCTIONS {
        let _ = writeln!(out, "| `{signature}` | {meaning} |");
    }
    calls(&mut out);
    out
}

fn table_of_keys(out: &mut String, title: &str, keys: &Keys) {
    if !title.is_empty() {
        let _ = write!(out, "\n{title}:\n");
    }
    out.push_str("\n| field | needed | meaning |\n| --- | --- | --- |\n");
    for (key, required, meaning) in &keys.0 {
        let _ = writeln!(out, "| `{key}` | {} | {meaning} |", if *required { "yes" } else { "" });
    }
}

const CALLS: &str = "
## Calls

Each call with its arguments, as 64-bit callers have them. `x: {…}` is a struct; `x → …` a pointer, `x → […]` one to several elements; `x(a | b)` has
one of these members; `x^` is written by Xen, so it is known at return.
";

fn calls(out: &mut String) {
    out.push_str(CALLS);
    for call in XEN.calls.iter().flatten() {
        let _ = write!(out, "\n### `{}` ({})\n\n", call.name, call.number);
        let Some(ops) = call.sub_ops else {
            let _ = writeln!(out, "{}", code(&arguments(call, call.args, None)));
            continue;
        };
        for op in ops.ops {
            let args = if matches!(ops.from, SubOpFrom::Arg { .. }) { op.args } else { call.args };
            let shown = arguments(call, args, Some(op.number));
            let _ = writeln!(out, "- `{}` ({}): {}", op.name, op.number, code(&shown));
        }
    }
}

fn code(text: &str) -> String {
    if text.is_empty() { "no arguments".to_owned() } else { format!("`{text}`") }
}

fn arguments(call: &Hypercall, args: &[Arg], sub_op: Option<u64>) -> String {
    let show = Show { sub_op };
    let mut shown: Vec<String> = args.iter().map(|arg| show.named(arg.name, &arg.ty, false, 0)).collect();
    if let Some(SubOpFrom::FirstBuffer { ty, .. }) = call.sub_ops.map(|ops| ops.from) {
        shown.push(show.named("op", ty, false, 0));
    }
    shown.join(", ")
}

/// Shows types for one sub-op.
struct Show {
    sub_op: Option<u64>,
}

impl Show {
    fn named(&self, name: &str, ty: &Type, out: bool, depth: usize) -> String {
        let mark = if out { "^" } else { "" };
        match ty {
            Type::Handle(handle) | Type::Tail(handle) => {
                let many = !matches!(handle.count, hypovisor_abi::Count::One);
                let inner = self.inner(handle.to, depth + 1);
                let mark = if handle.direction == Direction::Out { "^" } else { mark };
                match (inner.as_str(), many) {
                    ("", false) => format!("{name}{mark} →"),
                    ("", true) => format!("{name}{mark} → […]"),
                    (inner, false) => format!("{name}{mark} → {inner}"),
                    (inner, true) => format!("{name}{mark} → [{inner}…]"),
                }
            }
            Type::Union(union) => self.union(name, union, out, depth),
            _ => {
                let inner = self.inner(ty, depth + 1);
                if inner.is_empty() { format!("{name}{mark}") } else { format!("{name}{mark}: {inner}") }
            }
        }
    }

    /// What stands inside a type, if it has parts with names.
    fn inner(&self, ty: &Type, depth: usize) -> String {
        if depth > MAX_DEPTH {
            return "…".into();
        }
        match ty {
            Type::Struct(structure) => format!("{{{}}}", self.fields(structure, depth)),
            Type::Array(array) => format!("[{}…]", self.inner(array.of, depth)),
            Type::PerWidth(types) => self.inner(&types[0], depth),
            Type::Union(union) => self.union("", union, false, depth),
            Type::Bytes(_) => "[…]".into(),
            _ => String::new(),
        }
    }

    fn fields(&self, structure: &Struct, depth: usize) -> String {
        let shown = structure.fields.iter().filter_map(|field| {
            let out = field.direction == Direction::Out;
            match &field.ty {
                _ if ["pad", "_pad"].iter().any(|pad| field.name.starts_with(pad)) => None,
                Type::Struct(inner) if field.name.is_empty() => Some(self.fields(inner, depth)),
                ty => Some(self.named(field.name, ty, out, depth)).filter(|shown| !shown.is_empty()),
            }
        });
        shown.collect::<Vec<_>>().join(", ")
    }

    fn union(&self, name: &str, union: &Union, out: bool, depth: usize) -> String {
        let live = |case: &&Case| match (union.tag, self.sub_op) {
            (Tag::SubOp | Tag::Field("cmd" | "op"), Some(number)) => self.selects(union, case, number),
            _ => true,
        };
        let cases: Vec<String> = union
            .cases
            .iter()
            .filter(live)
            .map(|case| self.named(case.name, &case.ty, out || case.direction == Direction::Out, depth))
            .filter(|case| !case.is_empty())
            .collect();
        match cases.as_slice() {
            [] => String::new(),
            [only] if name.is_empty() => only.clone(),
            cases => format!("{name}({})", cases.join(" | ")),
        }
    }

    fn selects(&self, union: &Union, case: &Case, number: u64) -> bool {
        let named = union.cases.iter().any(|case| case.when.contains(&number));
        case.when.contains(&number) || (case.when.is_empty() && !named)
    }
}
