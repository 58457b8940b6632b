//! The tables make sense by themselves: names can be told apart and written, and what they refer to exists.

use std::collections::BTreeSet;

use hypovisor_abi::xen::XEN;
use hypovisor_abi::{
    Arg, Count, Direction, Handle, Hypercall, Show, Struct, SubOpFrom, Tag, Type, Union, Width,
};

/// Where the walk is, for messages, and the structs around it.
#[derive(Clone)]
struct Place {
    path: String,
    around: Vec<&'static Struct>,
    registers: u8,
    width: Width,
}

impl Place {
    fn inside(&self, name: &str) -> Self {
        Self { path: format!("{}.{name}", self.path), ..self.clone() }
    }

    fn knows(&self, field: &str) {
        let known = self.around.iter().any(|structure| structure.position(field).is_some());
        assert!(known, "{}: no struct around has a field {field}", self.path);
    }

    fn is_a_name(&self, name: &str) {
        let writable = |c: char| c.is_ascii_graphic() && !"\"\\{}[](),=".contains(c);
        assert!(!name.is_empty() && name.chars().all(writable), "{}: {name:?}", self.path);
    }
}

fn calls() -> impl Iterator<Item = &'static Hypercall> {
    XEN.calls.iter().copied().flatten()
}

#[test]
fn types_are_sound() {
    for width in [Width::Bits64, Width::Bits32] {
        for call in calls() {
            let ops = call.sub_ops.map_or(&[][..], |ops| ops.ops);
            arguments(call.name, call.args, width);
            for op in ops {
                arguments(op.name, op.args, width);
            }
            if let Some(SubOpFrom::FirstBuffer { ty, .. }) = call.sub_ops.map(|ops| ops.from) {
                let place = Place { path: call.name.to_owned(), around: Vec::new(), registers: 6, width };
                walk(ty, &place);
            }
        }
    }
}

fn arguments(name: &str, args: &'static [Arg], width: Width) {
    let registers = args.iter().map(|arg| arg.registers(width)).sum();
    assert!(registers <= 6, "{name}: {registers} registers");
    let place = Place { path: name.to_owned(), around: Vec::new(), registers, width };
    let mut names = BTreeSet::new();
    for arg in args {
        assert!(names.insert(arg.name) || arg.only.is_some(), "{name}: two arguments {}", arg.name);
        place.is_a_name(arg.name);
        walk(&arg.ty, &place.inside(arg.name));
    }
}

fn walk(ty: &'static Type, place: &Place) {
    match ty.for_width(place.width) {
        Type::Int(scalar) => named_values(scalar.show, place),
        Type::Handle(handle) | Type::Tail(handle) => follow(handle, place),
        Type::Array(array) => walk(array.of, place),
        Type::Struct(structure) => fields(structure, place),
        Type::Union(union) => cases(union, place),
        Type::Chars(_) | Type::Bytes(_) | Type::PerWidth(_) => {}
    }
}

fn named_values(show: Show, place: &Place) {
    match show {
        Show::Enum(list) => {
            let values: BTreeSet<u64> = list.values.iter().map(|(value, _)| *value).collect();
            assert_eq!(values.len(), list.values.len(), "{}: {} has a value twice", place.path, list.name);
            list.values.iter().for_each(|(_, name)| place.is_a_name(name));
        }
        Show::Flags(set) => {
            set.bits.iter().for_each(|(_, _, name)| place.is_a_name(name));
            // A part without a name is a plain number.
            set.parts.iter().filter(|part| !part.1.is_empty()).for_each(|part| place.is_a_name(part.1));
            let unmasked = set.bits.iter().find(|(mask, value, _)| value & !mask != 0);
            assert!(unmasked.is_none(), "{}: {unmasked:?} of {}", place.path, set.name);
        }
        _ => {}
    }
}

fn follow(handle: &'static Handle, place: &Place) {
    match handle.count {
        Count::Arg { index, .. } | Count::ArgPer { index, .. } => {
            assert!(index < place.registers, "{}: no argument register {index}", place.path);
        }
        Count::Field(name)
        | Count::FieldBits(name)
        | Count::FieldTimes(name, _)
        | Count::FieldPer(name, _) => {
            place.knows(name);
        }
        Count::Product(one, other) | Count::Least(one, other) | Count::Span(one, other) => {
            place.knows(one);
            place.knows(other);
        }
        Count::Until { field, .. } => match handle.to {
            Type::Struct(structure) => assert!(structure.position(field).is_some(), "{}", place.path),
            other => panic!("{}: until a field of {other:?}", place.path),
        },
        Count::One | Count::Fixed(_) | Count::Text(_) | Count::WideText(_) => {}
    }
    // Beyond a pointer, the structs on this side of it are out of reach.
    walk(handle.to, &Place { around: Vec::new(), ..place.clone() });
}

fn fields(structure: &'static Struct, place: &Place) {
    let mut place = place.clone();
    place.around.push(structure);
    let mut names = BTreeSet::new();
    shown_names(structure, &place, &mut names);
    for field in structure.fields {
        walk(&field.ty, &place.inside(field.name));
    }
}

/// Names that stand side by side, whichever members of unions are live.
fn shown_names(structure: &'static Struct, place: &Place, names: &mut BTreeSet<&'static str>) {
    for field in structure.fields {
        match (field.name, field.ty.for_width(place.width)) {
            ("", Type::Struct(inner)) => shown_names(inner, place, names),
            (name, Type::Union(union)) => {
                let mut of_union = BTreeSet::new();
                for case in union.cases {
                    match (case.name, name, case.ty.for_width(place.width)) {
                        ("", "", Type::Struct(inner)) => shown_names(inner, place, &mut of_union),
                        ("", name, _) | (name, _, _) => {
                            of_union.insert(name);
                        }
                    }
                }
                of_union.into_iter().for_each(|name| add(name, place, names));
            }
            ("", Type::Bytes(_)) => {}
            (name, _) => add(name, place, names),
        }
    }
}

fn add(name: &'static str, place: &Place, names: &mut BTreeSet<&'static str>) {
    if name.starts_with("pad") || name.starts_with("_pad") {
        return;
    }
    place.is_a_name(name);
    assert!(names.insert(name), "{}: two fields {name} side by side", place.path);
}

fn cases(union: &'static Union, place: &Place) {
    match union.tag {
        Tag::Field(name) | Tag::Bits { field: name, .. } => place.knows(name),
        Tag::SubOp => {}
    }
    for out in [false, true] {
        let mut tags = BTreeSet::new();
        let same = union.cases.iter().filter(|case| (case.direction == Direction::Out) == out);
        for tag in same.flat_map(|case| case.when) {
            assert!(tags.insert(tag), "{}: two members for {tag}", place.path);
        }
    }
    for case in union.cases {
        walk(&case.ty, &place.inside(case.name));
    }
}

#[test]
fn sub_ops_can_be_told_apart() {
    for call in calls() {
        let Some(sub_ops) = call.sub_ops else { continue };
        let mut numbers = BTreeSet::new();
        for op in sub_ops.ops {
            assert!(numbers.insert(op.number), "{}: two sub-ops {}", call.name, op.number);
            assert!(call.sub_op(op.number).is_some_and(|found| found.name == op.name), "{}", op.name);
        }
        let index = match sub_ops.from {
            SubOpFrom::Arg { index, mask } => {
                let beyond = sub_ops.ops.iter().find(|op| op.number & !mask != 0);
                assert!(beyond.is_none(), "{}: {beyond:?} does not fit the mask", call.name);
                index
            }
            SubOpFrom::Memory { index } | SubOpFrom::FirstBuffer { index, .. } => {
                assert!(matches!(call.args[usize::from(index)].ty, Type::Handle(_)), "{}", call.name);
                index
            }
        };
        assert!(usize::from(index) < call.args.len(), "{}", call.name);
    }
}
