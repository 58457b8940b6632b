//! Small calls that have no header of their own: `multicall`, `console_io`, and numbers without a meaning
//! (Xen public/xen.h).

use super::prelude::*;

structure!(MULTICALL_ENTRY = "struct multicall_entry" {
    field("op", Type::ULONG),
    field("result", Type::int(Int::Slong, Show::Errno)).out(),
    field("args", Type::array(&Type::HEXLONG, 6)),
});

pub(super) const MULTICALL: Hypercall = Hypercall {
    number: 13,
    name: "multicall",
    args: &[
        arg(
            "call_list",
            handle!(InOut, Type::Struct(&MULTICALL_ENTRY), Count::Arg { index: 1, mask: u32::MAX as u64 }),
        ),
        arg("nr_calls", Type::U32),
    ],
    returns: Show::Errno,
    sub_ops: None,
};

const CMD: Arg = arg("cmd", Type::U32);
const COUNT: Arg = arg("count", Type::U32);

macro_rules! console {
    ($number:literal, $name:literal, $direction:ident) => {
        op(
            $number,
            $name,
            &[
                CMD,
                COUNT,
                arg(
                    "buffer",
                    handle!($direction, Type::Chars(1), Count::Arg { index: 1, mask: u32::MAX as u64 }),
                ),
            ],
        )
    };
}

pub(super) const CONSOLE_IO: Hypercall = Hypercall {
    number: 18,
    name: "console_io",
    args: &[CMD, COUNT, arg("buffer", Type::ADDRESS)],
    returns: Show::Errno,
    sub_ops: Some(SubOps {
        from: SubOpFrom::Arg { index: 0, mask: u32::MAX as u64 },
        ops: &[console!(0, "CONSOLEIO_write", In), console!(1, "CONSOLEIO_read", Out).returning(Show::Dec)],
    }),
};

const RAW_ARGS: &[Arg] = &[
    arg("arg1", Type::HEXLONG),
    arg("arg2", Type::HEXLONG),
    arg("arg3", Type::HEXLONG),
    arg("arg4", Type::HEXLONG),
    arg("arg5", Type::HEXLONG),
];

/// A number that Xen's x86 has no meaning for, or no longer.
const fn raw(number: u64, name: &'static str) -> Hypercall {
    Hypercall { number, name, args: RAW_ARGS, returns: Show::Hex, sub_ops: None }
}

/// Transcendent memory, removed in 4.13 (public/tmem.h).
pub(super) const TMEM_OP: Hypercall = raw(38, "tmem_op");

pub(super) const ARCH_1: Hypercall = raw(49, "arch_1");
pub(super) const ARCH_2: Hypercall = raw(50, "arch_2");
pub(super) const ARCH_3: Hypercall = raw(51, "arch_3");
pub(super) const ARCH_4: Hypercall = raw(52, "arch_4");
pub(super) const ARCH_5: Hypercall = raw(53, "arch_5");
pub(super) const ARCH_6: Hypercall = raw(54, "arch_6");
pub(super) const ARCH_7: Hypercall = raw(55, "arch_7");
