//! Where memory stands: the physmap, the e820 map, the machine-to-phys table (Xen public/memory.h).

use crate::xen::prelude::*;

structure!(pub(super) MACHPHYS_MFN_LIST = "struct xen_machphys_mfn_list" {
    field("max_extents", Type::U32),
    field("extent_start", handle!(Out, Type::PFN, Count::Field("nr_extents"))),
    field("nr_extents", Type::U32).out(),
});

structure!(pub(super) MACHPHYS_MAPPING = "struct xen_machphys_mapping" {
    field("v_start", Type::ADDRESS).out(),
    field("v_end", Type::ADDRESS).out(),
    field("max_mfn", Type::PFN).out(),
});

enumeration!(SPACE = "enum phys_map_space" {
    0 => "XENMAPSPACE_shared_info", 1 => "XENMAPSPACE_grant_table", 2 => "XENMAPSPACE_gmfn",
    3 => "XENMAPSPACE_gmfn_range", 4 => "XENMAPSPACE_gmfn_foreign", 5 => "XENMAPSPACE_dev_mmio",
});
const XENMAPSPACE_GRANT_TABLE: u64 = 1;
const XENMAPSPACE_GMFN_FOREIGN: u64 = 4;

const GRANT_TABLE_INDEX: FlagSet = FlagSet {
    name: "index into the grant table's pages",
    bits: &[(0x8000_0000, 0x8000_0000, "XENMAPIDX_grant_table_status")],
    parts: &[(0x7fff_ffff, "")],
};

structure!(pub(super) ADD_TO_PHYSMAP = "struct xen_add_to_physmap" {
    field("domid", Type::DOMID),
    field("size", Type::U16),
    field("space", Type::enumeration(Int::U32, &SPACE)),
    field("idx", Type::Union(&Union { tag: Tag::Field("space"), min_size: 0, cases: &[
        case(&[XENMAPSPACE_GRANT_TABLE], "", Type::flags(Int::Ulong, &GRANT_TABLE_INDEX)),
        case(&[], "", Type::HEXLONG),
    ] })),
    field("gpfn", Type::PFN),
});

structure!(pub(super) ADD_TO_PHYSMAP_BATCH = "struct xen_add_to_physmap_batch" {
    field("domid", Type::DOMID),
    field("space", Type::enumeration(Int::U16, &SPACE)),
    field("size", Type::U16),
    field("u", Type::Union(&Union { tag: Tag::Field("space"), min_size: 0, cases: &[
        case(&[XENMAPSPACE_GMFN_FOREIGN], "foreign_domid", Type::DOMID),
        case(&[], "res0", Type::U16),
    ] })),
    field("idxs", handle!(In, Type::HEXLONG, Count::Field("size"))),
    field("gpfns", handle!(In, Type::PFN, Count::Field("size"))),
    field("errs", handle!(Out, Type::ERRNO32, Count::Field("size"))),
});

structure!(pub(super) REMOVE_FROM_PHYSMAP = "struct xen_remove_from_physmap" {
    field("domid", Type::DOMID),
    field("gpfn", Type::PFN),
});

enumeration!(E820_TYPE = "what a range of memory is (ACPI 6.5 §15, AddressRangeType)" {
    1 => "ram", 2 => "reserved", 3 => "acpi", 4 => "nvs", 5 => "unusable",
});

// The BIOS's packed format (INT 15h, E820h), which Xen's public headers do not declare.
structure!(E820_ENTRY = "e820entry" {
    field("addr", Type::int(Int::U64Packed, Show::Address)),
    field("size", Type::int(Int::U64Packed, Show::Hex)),
    field("type", Type::enumeration(Int::U32, &E820_TYPE)),
});

structure!(pub(super) MEMORY_MAP = "struct xen_memory_map" {
    field("nr_entries", Type::U32).inout(),
    field("buffer", handle!(Out, Type::Struct(&E820_ENTRY), Count::Field("nr_entries"))),
});

structure!(MEMORY_MAP_TO_SET = "struct xen_memory_map" {
    field("nr_entries", Type::U32),
    field("buffer", handle!(In, Type::Struct(&E820_ENTRY), Count::Field("nr_entries"))),
});

structure!(pub(super) FOREIGN_MEMORY_MAP = "struct xen_foreign_memory_map" {
    field("domid", Type::DOMID),
    field("map", Type::Struct(&MEMORY_MAP_TO_SET)),
});
