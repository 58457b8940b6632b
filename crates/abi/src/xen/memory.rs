//! `memory_op` (Xen public/memory.h).

use super::prelude::*;

flag_set!(MEMF = "XENMEMF_*: how to allocate" {
    0x1_0000 => "XENMEMF_populate_on_demand",
    0x2_0000 => "XENMEMF_exact_node_request",
    0x4_0000 => "XENMEMF_vnode",
} parts { 0xff => "address_bits", 0xff00 => "node_plus_1" });

structure!(pub(super) RESERVATION = "struct xen_memory_reservation" {
    field("extent_start", handle!(InOut, Type::PFN, Count::Field("nr_extents"))),
    field("nr_extents", Type::ULONG),
    field("extent_order", Type::U32),
    field("mem_flags", Type::flags(Int::U32, &MEMF)),
    field("domid", Type::DOMID),
});

structure!(EXCHANGE = "struct xen_memory_exchange" {
    field("in", Type::Struct(&RESERVATION)),
    field("out", Type::Struct(&RESERVATION)),
    field("nr_exchanged", Type::ULONG).inout(),
});

const CMD: Arg = arg("cmd", Type::U32);

/// Bits above these carry the extent a continuation goes on from (`MEMOP_EXTENT_SHIFT`).
const MEMOP_CMD_MASK: u64 = 0x3f;

pub(super) const MEMORY_OP: Hypercall = Hypercall {
    number: 12,
    name: "memory_op",
    args: &[CMD, arg("arg", Type::ADDRESS)],
    returns: Show::Dec,
    sub_ops: Some(SubOps {
        from: SubOpFrom::Arg { index: 0, mask: MEMOP_CMD_MASK },
        ops: &[
            op(
                0,
                "XENMEM_increase_reservation",
                &[CMD, arg("arg", handle!(InOut, Type::Struct(&RESERVATION), Count::One))],
            )
            .returning(Show::Dec),
            op(
                11,
                "XENMEM_exchange",
                &[CMD, arg("arg", handle!(InOut, Type::Struct(&EXCHANGE), Count::One))],
            ),
        ],
    }),
};
