//! C layout rules of the two x86 ABIs, as constant functions.
//!
//! System V AMD64 aligns every scalar to its size. The i386 ABI aligns 8-byte integers to 4 bytes, which is why
//! Xen's headers have `uint64_aligned_t`; longs and ordinary guest handles are 4 bytes there.

use crate::types::{Array, Field, Handle, Int, Struct, Type, Union};

/// Which of the two x86 ABIs a caller uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Width {
    /// 64-bit mode: arguments in RDI, RSI, RDX, R10, R8, R9.
    Bits64,
    /// 32-bit or compatibility mode: arguments in EBX, ECX, EDX, ESI, EDI, EBP.
    Bits32,
}

impl Width {
    /// Bytes of a `long`, a pointer and an ordinary guest handle.
    #[must_use]
    pub const fn word_bytes(self) -> u32 {
        match self {
            Self::Bits64 => 8,
            Self::Bits32 => 4,
        }
    }

    pub(crate) const fn index(self) -> usize {
        match self {
            Self::Bits64 => 0,
            Self::Bits32 => 1,
        }
    }
}

/// Size and alignment in bytes.
#[derive(Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) size: u32,
    pub(crate) align: u32,
}

const fn scalar(size: u32) -> Shape {
    Shape { size, align: size }
}

pub(crate) const fn int_shape(int: Int, width: Width) -> Shape {
    match int {
        Int::U8 | Int::S8 => scalar(1),
        Int::U16 | Int::S16 => scalar(2),
        Int::U32 | Int::S32 => scalar(4),
        Int::Ulong | Int::Slong => scalar(width.word_bytes()),
        Int::U64Aligned => scalar(8),
        Int::U64Packed => Shape { size: 8, align: 4 },
        Int::U64 | Int::S64 => Shape { size: 8, align: width.word_bytes() },
    }
}

const fn handle_shape(handle: &Handle, width: Width) -> Shape {
    if handle.wide { scalar(8) } else { scalar(width.word_bytes()) }
}

pub(crate) const fn type_shape(ty: &Type, width: Width) -> Shape {
    match ty {
        Type::Int(scalar) => int_shape(scalar.int, width),
        Type::Handle(handle) => handle_shape(handle, width),
        Type::Struct(structure) => struct_shape(structure, width),
        Type::Union(union) => union_shape(union, width),
        Type::Array(Array { of, len }) => {
            let element = type_shape(of, width);
            Shape { size: element.size * *len, align: element.align }
        }
        Type::Chars(len) | Type::Bytes(len) => Shape { size: *len, align: 1 },
        Type::PerWidth(types) => type_shape(&types[width.index()], width),
        Type::Tail(handle) => Shape { size: 0, align: type_shape(handle.to, width).align },
    }
}

const fn struct_shape(structure: &Struct, width: Width) -> Shape {
    Shape { size: structure.size[width.index()], align: structure.align[width.index()] }
}

const fn union_shape(union: &Union, width: Width) -> Shape {
    let mut shape = Shape { size: 0, align: 1 };
    let mut i = 0;
    while i < union.cases.len() {
        let case = type_shape(&union.cases[i].ty, width);
        if case.size > shape.size {
            shape.size = case.size;
        }
        if case.align > shape.align {
            shape.align = case.align;
        }
        i += 1;
    }
    if union.min_size > shape.size {
        shape.size = union.min_size;
    }
    Shape { size: round_up(shape.size, shape.align), align: shape.align }
}

pub(crate) const fn round_up(value: u32, align: u32) -> u32 {
    value.div_ceil(align) * align
}

/// Offsets of `N` fields laid out one after another, and the size and alignment of the whole.
pub(crate) struct Layout<const N: usize> {
    pub(crate) offsets: [u32; N],
    pub(crate) shape: Shape,
}

pub(crate) const fn lay_out<const N: usize>(fields: &[Field], width: Width) -> Layout<N> {
    let mut offsets = [0; N];
    let mut end = 0;
    let mut align = 1;
    let mut i = 0;
    while i < N {
        let shape = type_shape(&fields[i].ty, width);
        end = round_up(end, shape.align);
        offsets[i] = end;
        end += shape.size;
        if shape.align > align {
            align = shape.align;
        }
        i += 1;
    }
    Layout { offsets, shape: Shape { size: round_up(end, align), align } }
}
