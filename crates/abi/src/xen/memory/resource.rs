//! Resources to map, virtual NUMA, and memory that devices reserve (Xen public/memory.h).

use crate::xen::physdev::PCI_DEVICE;
use crate::xen::prelude::*;

flag_set!(RDM = "XENMEM_RDM_*" { 1 => "XENMEM_RDM_ALL" });

structure!(RESERVED_DEVICE_MEMORY = "struct xen_reserved_device_memory" {
    field("start_pfn", Type::PFN),
    field("nr_pages", Type::ULONG),
});

structure!(pub(super) RESERVED_DEVICE_MEMORY_MAP = "struct xen_reserved_device_memory_map" {
    field("flags", Type::flags(Int::U32, &RDM)),
    field("nr_entries", Type::U32).inout(),
    field("buffer", handle!(Out, Type::Struct(&RESERVED_DEVICE_MEMORY), Count::Field("nr_entries"))),
    // Ignored when all regions are asked for.
    field("dev", Type::Union(&Union { tag: Tag::Bits { field: "flags", mask: 1 }, min_size: 0, cases: &[
        case(&[0], "pci", Type::Struct(&PCI_DEVICE)),
    ] })),
});

enumeration!(RESOURCE = "XENMEM_resource_*" {
    0 => "XENMEM_resource_ioreq_server", 1 => "XENMEM_resource_grant_table", 2 => "XENMEM_resource_vmtrace_buf",
});
const XENMEM_RESOURCE_IOREQ_SERVER: u64 = 0;
const XENMEM_RESOURCE_GRANT_TABLE: u64 = 1;

enumeration!(GRANT_TABLE_ID = "XENMEM_resource_grant_table_id_*" {
    0 => "XENMEM_resource_grant_table_id_shared", 1 => "XENMEM_resource_grant_table_id_status",
});

// The first frame is the one of buffered requests, the others follow it.
enumeration!(IOREQ_SERVER_FRAME = "XENMEM_resource_ioreq_server_frame_*" {
    0 => "XENMEM_resource_ioreq_server_frame_bufioreq",
});

structure!(pub(super) ACQUIRE_RESOURCE = "struct xen_mem_acquire_resource" {
    field("domid", Type::DOMID),
    field("type", Type::enumeration(Int::U16, &RESOURCE)),
    field("id", Type::Union(&Union { tag: Tag::Field("type"), min_size: 0, cases: &[
        case(&[XENMEM_RESOURCE_GRANT_TABLE], "", Type::enumeration(Int::U32, &GRANT_TABLE_ID)),
        case(&[], "", Type::U32),
    ] })),
    field("nr_frames", Type::U32).inout(),
    field("pad", Type::U32),
    field("frame", Type::Union(&Union { tag: Tag::Field("type"), min_size: 0, cases: &[
        case(&[XENMEM_RESOURCE_IOREQ_SERVER], "", Type::enumeration(Int::U64, &IOREQ_SERVER_FRAME)),
        case(&[], "", Type::U64),
    ] })).inout(),
    field("frame_list", handle!(InOut, Type::PFN, Count::Field("nr_frames"))),
});

structure!(pub(in crate::xen) VMEMRANGE = "struct xen_vmemrange" {
    field("start", Type::ADDRESS64),
    field("end", Type::ADDRESS64),
    field("flags", Type::HEX32),
    field("nid", Type::U32),
});

/// `union { XEN_GUEST_HANDLE(…) h; uint64_t pad; }`: the handle is the member that counts.
macro_rules! padded_handle {
    ($to:expr, $count:expr) => {
        Type::Union(&Union {
            tag: Tag::Field("domid"),
            min_size: 0,
            cases: &[case(&[u64::MAX], "pad", Type::U64), case(&[], "", handle!(Out, $to, $count))],
        })
    };
}

structure!(pub(super) VNUMA_TOPOLOGY_INFO = "struct xen_vnuma_topology_info" {
    field("domid", Type::DOMID),
    field("pad", Type::U16),
    field("nr_vnodes", Type::U32).inout(),
    field("nr_vcpus", Type::U32).inout(),
    field("nr_vmemranges", Type::U32).inout(),
    field("vdistance", padded_handle!(Type::U32, Count::Product("nr_vnodes", "nr_vnodes"))),
    field("vcpu_to_vnode", padded_handle!(Type::U32, Count::Field("nr_vcpus"))),
    field("vmemrange", padded_handle!(Type::Struct(&VMEMRANGE), Count::Field("nr_vmemranges"))),
});
