//! Operations of the tools: paging out, access rights, sharing and forking (Xen public/memory.h).

use crate::xen::prelude::*;

enumeration!(PAGING = "XENMEM_paging_op_*" {
    0 => "XENMEM_paging_op_nominate", 1 => "XENMEM_paging_op_evict", 2 => "XENMEM_paging_op_prep",
});

const PAGE_BYTES: u32 = 4096;

structure!(pub(super) PAGING_OP = "struct xen_mem_paging_op" {
    field("op", Type::enumeration(Int::U8, &PAGING)),
    field("domain", Type::DOMID),
    field("buffer", handle64!(In, Type::Bytes(1), Count::Fixed(PAGE_BYTES))),
    field("gfn", Type::FRAME64A),
});

enumeration!(ACCESS_OPS = "XENMEM_access_op_*" {
    0 => "XENMEM_access_op_set_access", 1 => "XENMEM_access_op_get_access",
    4 => "XENMEM_access_op_set_access_multi",
});

// 4.17 has no XENMEM_access_r_pw: there, 10 is XENMEM_access_default. Nothing in the call tells which.
enumeration!(pub(in crate::xen) ACCESS = "xenmem_access_t" {
    0 => "XENMEM_access_n", 1 => "XENMEM_access_r", 2 => "XENMEM_access_w", 3 => "XENMEM_access_rw",
    4 => "XENMEM_access_x", 5 => "XENMEM_access_rx", 6 => "XENMEM_access_wx", 7 => "XENMEM_access_rwx",
    8 => "XENMEM_access_rx2rw", 9 => "XENMEM_access_n2rwx", 10 => "XENMEM_access_r_pw",
    11 => "XENMEM_access_default",
});

structure!(pub(super) ACCESS_OP = "struct xen_mem_access_op" {
    field("op", Type::enumeration(Int::U8, &ACCESS_OPS)),
    field("access", Type::enumeration(Int::U8, &ACCESS)).inout(),
    field("domid", Type::DOMID),
    field("nr", Type::U32),
    field("pfn", Type::FRAME64A),
    field("pfn_list", handle!(In, Type::FRAME64, Count::Field("nr"))),
    field("access_list", handle!(In, Type::enumeration(Int::U8, &ACCESS), Count::Field("nr"))),
});

enumeration!(SHARING = "XENMEM_sharing_op_*" {
    0 => "XENMEM_sharing_op_nominate_gfn", 1 => "XENMEM_sharing_op_nominate_gref",
    2 => "XENMEM_sharing_op_share", 3 => "XENMEM_sharing_op_debug_gfn", 4 => "XENMEM_sharing_op_debug_mfn",
    5 => "XENMEM_sharing_op_debug_gref", 6 => "XENMEM_sharing_op_add_physmap",
    7 => "XENMEM_sharing_op_audit", 8 => "XENMEM_sharing_op_range_share", 9 => "XENMEM_sharing_op_fork",
    10 => "XENMEM_sharing_op_fork_reset",
});

structure!(NOMINATE = "struct mem_sharing_op_nominate" {
    field("u", Type::Union(&Union { tag: Tag::Field("op"), min_size: 0, cases: &[
        case(&[0], "gfn", Type::FRAME64A),
        case(&[1], "grant_ref", Type::GRANT_REF),
    ] })),
    field("handle", Type::HEX64A).out(),
});

flag_set!(GFN_OR_GREF = "a frame number, or a grant reference" {
    1 << 62 => "XENMEM_SHARING_OP_FIELD_IS_GREF_FLAG",
});
const GFN: Type = Type::flags(Int::U64Aligned, &GFN_OR_GREF);

structure!(SHARE = "struct mem_sharing_op_share" {
    field("source_gfn", GFN),
    field("source_handle", Type::HEX64A),
    field("client_gfn", GFN),
    field("client_handle", Type::HEX64A),
    field("client_domain", Type::DOMID),
});

structure!(RANGE = "struct mem_sharing_op_range" {
    field("first_gfn", Type::FRAME64A),
    field("last_gfn", Type::FRAME64A),
    field("opaque", Type::HEX64A),
    field("client_domain", Type::DOMID),
    field("_pad", Type::array(&Type::U16, 3)),
});

structure!(DEBUG = "struct mem_sharing_op_debug" {
    field("u", Type::Union(&Union { tag: Tag::Field("op"), min_size: 0, cases: &[
        case(&[3], "gfn", Type::FRAME64A),
        case(&[4], "mfn", Type::FRAME64A),
        case(&[5], "gref", Type::GRANT_REF),
    ] })),
});

flag_set!(FORK_FLAGS = "XENMEM_FORK_*" {
    1 => "XENMEM_FORK_WITH_IOMMU_ALLOWED", 2 => "XENMEM_FORK_BLOCK_INTERRUPTS",
    4 => "XENMEM_FORK_RESET_STATE", 8 => "XENMEM_FORK_RESET_MEMORY",
});
structure!(FORK = "struct mem_sharing_op_fork" {
    field("parent_domain", Type::DOMID),
    field("flags", Type::flags(Int::U16, &FORK_FLAGS)),
    field("pad", Type::U32),
});

structure!(pub(super) SHARING_OP = "struct xen_mem_sharing_op" {
    field("op", Type::enumeration(Int::U8, &SHARING)),
    field("domain", Type::DOMID),
    field("u", Type::Union(&Union { tag: Tag::Field("op"), min_size: 0, cases: &[
        case(&[0, 1], "nominate", Type::Struct(&NOMINATE)),
        case(&[2, 6], "share", Type::Struct(&SHARE)),
        case(&[8], "range", Type::Struct(&RANGE)),
        case(&[3, 4, 5], "debug", Type::Struct(&DEBUG)),
        case(&[9, 10], "fork", Type::Struct(&FORK)),
    ] })),
});
