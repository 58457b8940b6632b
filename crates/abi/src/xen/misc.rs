//! Small calls that have no header of their own: `multicall`, `xen_version`.

use super::prelude::*;

structure!(MULTICALL_ENTRY = "struct multicall_entry" {
    field("op", Type::ULONG),
    field("result", Type::SLONG).out(),
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

const CMD: Arg = arg("cmd", Type::S32);

pub(super) const XEN_VERSION: Hypercall = Hypercall {
    number: 17,
    name: "xen_version",
    args: &[CMD, arg("arg", Type::ADDRESS)],
    returns: Show::Hex,
    sub_ops: Some(SubOps {
        from: SubOpFrom::Arg { index: 0, mask: u32::MAX as u64 },
        ops: &[
            op(0, "XENVER_version", &[CMD]).returning(Show::Hex),
            op(1, "XENVER_extraversion", &[CMD, arg("arg", handle!(Out, Type::Chars(16), Count::One))]),
        ],
    }),
};
