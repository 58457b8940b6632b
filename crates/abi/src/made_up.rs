//! A small ABI and a guest for the unit tests: every kind of type once, and nothing of Xen's.

use crate::call::{Abi, Arg, Hypercall, SubOp, SubOpFrom, SubOps};
use crate::capture::{self, Phase, Registers, Segments};
use crate::decode::Call;
use crate::fuzzing::{Copier, Rendered};
use crate::layout::Width;
use crate::types::{Case, Count, Direction, Int, Show, Tag, Type, Union, field};
use crate::{enumeration, flag_set, handle, handle64, structure, tail};

const fn arg(name: &'static str, ty: Type) -> Arg {
    Arg { name, ty, only: None }
}

const fn case(when: &'static [u64], name: &'static str, ty: Type) -> Case {
    Case { when, name, ty, direction: Direction::In }
}

const fn call(number: u64, name: &'static str, args: &'static [Arg]) -> Hypercall {
    Hypercall { number, name, args, sub_ops: None, returns: Show::Errno }
}

enumeration!(KIND = "kinds" { 0 => "KIND_none", 1 => "KIND_number", 2 => "KIND_text" });
flag_set!(FLAGS = "flags" { 1 => "FLAG_a", 2 => "FLAG_b" } parts { 0xf0 => "level" });

structure!(ITEM = "struct item" {
    field("id", Type::U32),
    field("data", handle!(In, Type::Bytes(1), Count::Field("id"))),
});
structure!(LIST = "struct list" {
    field("items", handle!(In, Type::Struct(&ITEM), Count::Field("nr"))),
    field("nr", Type::U32),
    field("kind", Type::enumeration(Int::U32, &KIND)),
    field("u", Type::Union(&Union { tag: Tag::Field("kind"), min_size: 0, cases: &[
        case(&[1], "number", Type::S32),
        case(&[2], "text", handle!(In, Type::Chars(1), Count::Text(16))),
    ] })),
});

structure!(PAIR = "struct pair" { field("given", Type::U32), field("got", Type::U32).out() });
structure!(PLAIN = "struct plain" { field("x", Type::U16), field("y", Type::U16) });
structure!(BOTH = "struct both" {
    field("request", Type::U32),
    field("reply", Type::U32).out(),
    field("changed", Type::U32).inout(),
    field("pad", Type::U32),
    field("name", Type::Chars(4)).out(),
    field("pairs", Type::array(&Type::Struct(&PAIR), 2)),
    field("all_out", Type::Struct(&PLAIN)).out(),
    field("all_inout", Type::Struct(&PLAIN)).inout(),
    field("by_reply", Type::Union(&Union { tag: Tag::Field("reply"), min_size: 4, cases: &[
        case(&[7], "seven", Type::U32),
        case(&[8], "eight", Type::U32),
    ] })).out(),
    field("twins", Type::Union(&Union { tag: Tag::Field("request"), min_size: 4, cases: &[
        case(&[], "ask", Type::U32),
        case(&[], "answer", Type::S32).out(),
    ] })),
    field("", Type::Struct(&PLAIN)),
});

structure!(WIDE = "struct wide" {
    field("nr", Type::ULONG),
    field("list", handle64!(In, Type::U16, Count::Field("nr"))),
    field("stamp", Type::U64),
    field("aligned", Type::U64A),
    field("flags", Type::flags(Int::U32, &FLAGS)),
});
structure!(TAILED = "struct tailed" {
    field("nr", Type::U32),
    field("rest", tail!(InOut, Type::Struct(&PAIR), Count::Field("nr"))),
});
structure!(COMMAND = "struct command" {
    field("cmd", Type::U32),
    field("nr", Type::U32),
    field("u", Type::Union(&Union { tag: Tag::SubOp, min_size: 0, cases: &[
        case(&[5], "numbers", handle!(In, Type::U8, Count::Field("nr"))),
    ] })),
});
structure!(BUFFER = "struct buffer" {
    field("at", handle!(InOut, Type::Bytes(1), Count::Field("size"))),
    field("size", Type::ULONG),
});
structure!(FIRST = "struct first" {
    field("op", Type::U32),
    field("u", Type::Union(&Union { tag: Tag::SubOp, min_size: 0, cases: &[
        case(&[3], "pair", Type::Struct(&PAIR)),
    ] })),
});

const CMD: Arg = arg("cmd", Type::U32);

pub(crate) const LISTS: u64 = 0;
pub(crate) const IN_OUT: u64 = 1;
pub(crate) const REGISTER: u64 = 2;
pub(crate) const MEMORY: u64 = 3;
pub(crate) const BUFFERS: u64 = 4;
pub(crate) const PIECES: u64 = 5;
pub(crate) const WIDTHS: u64 = 6;
pub(crate) const TAIL: u64 = 7;
pub(crate) const ROWS: u64 = 8;
pub(crate) const UNKNOWN: u64 = 9;

const fn count(index: u8) -> Count {
    Count::Arg { index, mask: u64::MAX }
}

const CALLS: &[Option<&Hypercall>] = &[
    Some(&call(
        LISTS,
        "lists",
        &[arg("lists", handle!(In, Type::Struct(&LIST), count(1))), arg("nr", Type::U32)],
    )),
    Some(&call(IN_OUT, "in_out", &[arg("arg", handle!(InOut, Type::Struct(&BOTH), Count::One))])),
    Some(&Hypercall {
        number: REGISTER,
        name: "register",
        args: &[CMD, arg("arg", Type::ADDRESS)],
        sub_ops: Some(SubOps {
            from: SubOpFrom::Arg { index: 0, mask: 0xff },
            ops: &[SubOp {
                number: 1,
                name: "OP_one",
                args: &[CMD, arg("dom", Type::DOMID), arg("byte", Type::U8), arg("ok", Type::BOOL8)],
                returns: Show::Dec,
            }],
        }),
        returns: Show::Errno,
    }),
    Some(&Hypercall {
        number: MEMORY,
        name: "memory",
        args: &[arg("op", handle!(InOut, Type::Struct(&COMMAND), Count::One))],
        sub_ops: Some(SubOps {
            from: SubOpFrom::Memory { index: 0 },
            ops: &[SubOp { number: 5, name: "OP_five", args: &[], returns: Show::Errno }],
        }),
        returns: Show::Errno,
    }),
    Some(&Hypercall {
        number: BUFFERS,
        name: "buffers",
        args: &[
            arg("dom", Type::DOMID),
            arg("nr", Type::U32),
            arg("bufs", handle!(In, Type::Struct(&BUFFER), count(1))),
        ],
        sub_ops: Some(SubOps {
            from: SubOpFrom::FirstBuffer { index: 2, ty: &Type::Struct(&FIRST) },
            ops: &[SubOp { number: 3, name: "OP_three", args: &[], returns: Show::Errno }],
        }),
        returns: Show::Errno,
    }),
    Some(&call(
        PIECES,
        "pieces",
        &[
            arg("text", handle!(In, Type::Chars(1), Count::Text(400))),
            arg("chars", handle!(In, Type::Chars(1), Count::Fixed(4))),
            arg("bytes", handle!(In, Type::Bytes(1), count(5))),
            arg("numbers", handle!(In, Type::U32, count(5))),
            arg("wide", handle!(In, Type::U16, Count::WideText(8))),
            arg("n", Type::ULONG),
        ],
    )),
    Some(&call(
        WIDTHS,
        "widths",
        &[arg("wide", handle!(In, Type::Struct(&WIDE), Count::One)), arg("long", Type::HEXLONG)],
    )),
    Some(&call(TAIL, "tail", &[arg("tailed", handle!(InOut, Type::Struct(&TAILED), Count::One))])),
    Some(&call(
        ROWS,
        "rows",
        &[arg("rows", handle!(In, Type::array(&Type::U8, 20), count(1))), arg("nr", Type::U32)],
    )),
];

/// The made-up ABI.
pub(crate) static ABI: Abi = Abi { name: "made up", calls: CALLS };

/// Guest memory in pieces; what is not there cannot be read.
#[derive(Clone, Default)]
pub(crate) struct Guest(Vec<(u64, Vec<u8>)>);

impl Guest {
    pub(crate) fn with(mut self, gva: u64, bytes: impl AsRef<[u8]>) -> Self {
        self.0.push((gva, bytes.as_ref().to_vec()));
        self
    }

    pub(crate) fn words(self, gva: u64, words: &[u32]) -> Self {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        self.with(gva, bytes)
    }

    fn byte(&self, gva: u64) -> Option<u8> {
        self.0.iter().find_map(|(start, bytes)| bytes.get(gva.checked_sub(*start)? as usize).copied())
    }

    pub(crate) fn capture(&self, registers: &Registers, phase: Phase) -> Vec<u8> {
        let mut copier = Copier::new(|gva| self.byte(gva));
        capture::capture(&ABI, registers, phase, &mut copier);
        copier.out
    }

    /// The call, as long as it has not returned.
    pub(crate) fn enters(&self, number: u64, args: &[u64]) -> Rendered {
        self.calls(registers(number, args), None)
    }

    /// The call, when it has made `after` of the memory.
    pub(crate) fn returns(&self, number: u64, args: &[u64], after: &Self) -> Rendered {
        self.calls(registers(number, args), Some(after))
    }

    pub(crate) fn calls(&self, registers: Registers, after: Option<&Self>) -> Rendered {
        let entry = self.capture(&registers, Phase::Entry);
        let exit = after.map(|guest| guest.capture(&registers, Phase::Exit)).unwrap_or_default();
        Rendered::of(&ABI, &Call { registers, entry: Segments(&entry), exit: Segments(&exit) })
    }
}

/// A 64-bit caller's registers.
pub(crate) fn registers(number: u64, args: &[u64]) -> Registers {
    let mut all = [0; 6];
    all[..args.len()].copy_from_slice(args);
    Registers { number, args: all, width: Width::Bits64 }
}

/// A 32-bit caller's registers.
pub(crate) fn narrow(number: u64, args: &[u64]) -> Registers {
    Registers { width: Width::Bits32, ..registers(number, args) }
}
