//! How much memory a domain has: allocating, freeing and exchanging it (Xen public/memory.h).

use crate::xen::prelude::*;

flag_set!(MEMF = "XENMEMF_*: how to allocate" {
    0x1_0000 => "XENMEMF_populate_on_demand",
    0x2_0000 => "XENMEMF_exact_node_request",
    0x4_0000 => "XENMEMF_vnode",
} parts { 0xff => "address_bits", 0xff00 => "node_plus_1" });

/// One C struct, whose list of extents travels this way or that, depending on the call.
macro_rules! reservation {
    ($name:ident, $extent_start:expr) => {
        structure!(pub(super) $name = "struct xen_memory_reservation" {
            field("extent_start", $extent_start),
            field("nr_extents", Type::ULONG),
            field("extent_order", Type::U32),
            field("mem_flags", Type::flags(Int::U32, &MEMF)),
            field("domid", Type::DOMID),
        });
    };
}

reservation!(TO_ALLOCATE, handle!(Out, Type::PFN, Count::Field("nr_extents")));
reservation!(TO_FREE, handle!(In, Type::PFN, Count::Field("nr_extents")));
reservation!(TO_POPULATE, handle!(InOut, Type::PFN, Count::Field("nr_extents")));
// The handle must be null; `nr_extents` counts pages here.
reservation!(CLAIM, Type::ADDRESS);

structure!(pub(super) EXCHANGE = "struct xen_memory_exchange" {
    field("in", Type::Struct(&TO_FREE)),
    field("out", Type::Struct(&TO_POPULATE)),
    field("nr_exchanged", Type::ULONG).inout(),
});

structure!(pub(super) POD_TARGET = "struct xen_pod_target" {
    field("target_pages", Type::U64),
    field("tot_pages", Type::U64).out(),
    field("pod_cache_pages", Type::U64).out(),
    field("pod_entries", Type::U64).out(),
    field("domid", Type::DOMID),
});
