//! A domain's memory: kinds of pages, dirty pages, limits, NUMA (Xen public/domctl.h).

use crate::xen::memory::resource::VMEMRANGE;
use crate::xen::prelude::*;

// Of the pair "pinned, and a table of this level" each combination is listed, because the codes of pages that
// are no tables have the bit of pinned ones too. XEN_DOMCTL_PFINFO_NOTAB is 0.
const PFINFO_LTAB_MASK: u64 = 0xf << 28;
const PFINFO: FlagSet = FlagSet {
    name: "a frame number, or XEN_DOMCTL_PFINFO_*",
    bits: &[
        (PFINFO_LTAB_MASK, 0x1 << 28, "XEN_DOMCTL_PFINFO_L1TAB"),
        (PFINFO_LTAB_MASK, 0x2 << 28, "XEN_DOMCTL_PFINFO_L2TAB"),
        (PFINFO_LTAB_MASK, 0x3 << 28, "XEN_DOMCTL_PFINFO_L3TAB"),
        (PFINFO_LTAB_MASK, 0x4 << 28, "XEN_DOMCTL_PFINFO_L4TAB"),
        (PFINFO_LTAB_MASK, 0x8 << 28, "XEN_DOMCTL_PFINFO_LPINTAB"),
        (PFINFO_LTAB_MASK, 0x9 << 28, "XEN_DOMCTL_PFINFO_L1TAB|XEN_DOMCTL_PFINFO_LPINTAB"),
        (PFINFO_LTAB_MASK, 0xa << 28, "XEN_DOMCTL_PFINFO_L2TAB|XEN_DOMCTL_PFINFO_LPINTAB"),
        (PFINFO_LTAB_MASK, 0xb << 28, "XEN_DOMCTL_PFINFO_L3TAB|XEN_DOMCTL_PFINFO_LPINTAB"),
        (PFINFO_LTAB_MASK, 0xc << 28, "XEN_DOMCTL_PFINFO_L4TAB|XEN_DOMCTL_PFINFO_LPINTAB"),
        (PFINFO_LTAB_MASK, 0xd << 28, "XEN_DOMCTL_PFINFO_BROKEN"),
        (PFINFO_LTAB_MASK, 0xe << 28, "XEN_DOMCTL_PFINFO_XALLOC"),
        (PFINFO_LTAB_MASK, 0xf << 28, "XEN_DOMCTL_PFINFO_XTAB"),
    ],
    parts: &[],
};
// When Xen interrupts the call, it moves both on; what is shown then is what the guest began with.
structure!(pub(super) GETPAGEFRAMEINFO3 = "struct xen_domctl_getpageframeinfo3" {
    field("num", Type::U64A).inout(),
    field("array", handle64!(InOut, Type::flags(Int::Ulong, &PFINFO), Count::Field("num"))),
});

enumeration!(SHADOW_OPS = "XEN_DOMCTL_SHADOW_OP_*" {
    0 => "XEN_DOMCTL_SHADOW_OP_OFF", 1 => "XEN_DOMCTL_SHADOW_OP_ENABLE_TEST",
    2 => "XEN_DOMCTL_SHADOW_OP_ENABLE_LOGDIRTY",
    // No longer supported.
    3 => "XEN_DOMCTL_SHADOW_OP_ENABLE_TRANSLATE",
    11 => "XEN_DOMCTL_SHADOW_OP_CLEAN", 12 => "XEN_DOMCTL_SHADOW_OP_PEEK", 30 => "XEN_DOMCTL_SHADOW_OP_GET_ALLOCATION",
    31 => "XEN_DOMCTL_SHADOW_OP_SET_ALLOCATION", 32 => "XEN_DOMCTL_SHADOW_OP_ENABLE",
});
const CLEAN: u64 = 11;
const PEEK: u64 = 12;
const ENABLE: u64 = 32;
flag_set!(SHADOW_ENABLE = "XEN_DOMCTL_SHADOW_ENABLE_*" {
    0x2 => "XEN_DOMCTL_SHADOW_ENABLE_REFCOUNT", 0x4 => "XEN_DOMCTL_SHADOW_ENABLE_LOG_DIRTY",
    0x8 => "XEN_DOMCTL_SHADOW_ENABLE_TRANSLATE", 0x10 => "XEN_DOMCTL_SHADOW_ENABLE_EXTERNAL",
});
flag_set!(LOGDIRTY = "XEN_DOMCTL_SHADOW_LOGDIRTY_*" { 1 => "XEN_DOMCTL_SHADOW_LOGDIRTY_FINAL" });
structure!(SHADOW_OP_STATS = "struct xen_domctl_shadow_op_stats" {
    field("fault_count", Type::U32),
    field("dirty_count", Type::U32),
});
structure!(pub(super) SHADOW_OP = "struct xen_domctl_shadow_op" {
    field("op", Type::enumeration(Int::U32, &SHADOW_OPS)),
    field("mode", Type::Union(&Union { tag: Tag::Field("op"), min_size: 0, cases: &[
        case(&[ENABLE], "", Type::flags(Int::U32, &SHADOW_ENABLE)),
        case(&[CLEAN, PEEK], "", Type::flags(Int::U32, &LOGDIRTY)),
        case(&[], "", Type::HEX32),
    ] })),
    field("mb", Type::U32).inout(),
    field("dirty_bitmap", handle64!(Out, Type::Bytes(1), Count::FieldBits("pages"))),
    field("pages", Type::U64A).inout(),
    field("stats", Type::Struct(&SHADOW_OP_STATS)).out(),
});

structure!(pub(super) MAX_MEM = "struct xen_domctl_max_mem" { field("max_memkb", Type::U64A) });
structure!(pub(super) HYPERCALL_INIT = "struct xen_domctl_hypercall_init" { field("gmfn", Type::FRAME64A) });

enumeration!(SHARING_OPS = "XEN_DOMCTL_MEM_SHARING_*" { 0 => "XEN_DOMCTL_MEM_SHARING_CONTROL" });
structure!(pub(super) MEM_SHARING_OP = "struct xen_domctl_mem_sharing_op" {
    field("op", Type::enumeration(Int::U8, &SHARING_OPS)),
    field("u", Type::Union(&Union { tag: Tag::Field("op"), min_size: 0, cases: &[
        case(&[0], "enable", Type::BOOL8),
    ] })),
});

structure!(pub(super) AUDIT_P2M = "struct xen_domctl_audit_p2m" {
    field("orphans", Type::U64).out(),
    field("m2p_bad", Type::U64).out(),
    field("p2m_bad", Type::U64).out(),
});
structure!(pub(super) SET_BROKEN_PAGE_P2M = "struct xen_domctl_set_broken_page_p2m" {
    field("pfn", Type::FRAME64A),
});
structure!(pub(super) CACHEFLUSH = "struct xen_domctl_cacheflush" {
    field("start_pfn", Type::PFN),
    field("nr_pfns", Type::ULONG),
});
structure!(pub(super) PAGING_MEMPOOL = "struct xen_domctl_paging_mempool" { field("size", Type::U64A) });

structure!(pub(super) VNUMA = "struct xen_domctl_vnuma" {
    field("nr_vnodes", Type::U32),
    field("nr_vmemranges", Type::U32),
    field("nr_vcpus", Type::U32),
    field("pad", Type::U32),
    field("vdistance", handle64!(In, Type::U32, Count::Product("nr_vnodes", "nr_vnodes"))),
    field("vcpu_to_vnode", handle64!(In, Type::U32, Count::Field("nr_vcpus"))),
    field("vnode_to_pnode", handle64!(In, Type::U32, Count::Field("nr_vnodes"))),
    field("vmemrange", handle64!(In, Type::Struct(&VMEMRANGE), Count::Field("nr_vmemranges"))),
});

structure!(pub(super) SET_LLC_COLORS = "struct xen_domctl_set_llc_colors" {
    field("num_llc_colors", Type::U32),
    field("pad", Type::U32),
    field("llc_colors", handle64!(In, Type::U32, Count::Field("num_llc_colors"))),
});
