//! What pointers lead to, and the elements that stand there or in an array.

use hypovisor_abi::types::{Direction, Handle, Type};
use hypovisor_abi::{Count, SubOpFrom};
use hypovisor_verdict::{Op, Side};

use super::{Code, Memory, Rule, Spot};
use crate::compile::scope::Scope;

/// A single byte of a larger run.
pub(crate) const BYTE: &Type = &Type::HEX8;

/// Elements in a row.
pub(crate) struct Elements {
    pub(crate) memory: Memory,
    pub(crate) ty: &'static Type,
    /// `None`: only the capture says.
    pub(crate) limit: Option<u32>,
    /// The field that is zero in the element that ends the list.
    pub(crate) until: Option<(u32, u8)>,
}

pub(crate) fn first_buffer(scope: &Scope, index: u8, ty: &'static Type) -> Spot {
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
pub(crate) fn pointee(scope: &Scope, spot: &Spot) -> Option<(Memory, &'static Handle)> {
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
