//! What the host and its domains are like, and what Xen has counted (Xen public/sysctl.h).

use crate::xen::domctl::info::GETDOMAININFO;
use crate::xen::physdev::PCI_DEVICE;
use crate::xen::prelude::*;

flag_set!(PHYSCAP = "XEN_SYSCTL_PHYSCAP_*" {
    0x1 => "XEN_SYSCTL_PHYSCAP_hvm", 0x2 => "XEN_SYSCTL_PHYSCAP_pv", 0x4 => "XEN_SYSCTL_PHYSCAP_directio",
    0x8 => "XEN_SYSCTL_PHYSCAP_hap", 0x10 => "XEN_SYSCTL_PHYSCAP_shadow",
    0x20 => "XEN_SYSCTL_PHYSCAP_iommu_hap_pt_share", 0x40 => "XEN_SYSCTL_PHYSCAP_vmtrace",
    0x80 => "XEN_SYSCTL_PHYSCAP_vpmu", 0x100 => "XEN_SYSCTL_PHYSCAP_gnttab_v1",
    0x200 => "XEN_SYSCTL_PHYSCAP_gnttab_v2",
});
structure!(pub(super) PHYSINFO = "struct xen_sysctl_physinfo" {
    field("threads_per_core", Type::U32).out(),
    field("cores_per_socket", Type::U32).out(),
    field("nr_cpus", Type::U32).out(),
    field("max_cpu_id", Type::U32).out(),
    field("nr_nodes", Type::U32).out(),
    field("max_node_id", Type::U32).out(),
    field("cpu_khz", Type::U32).out(),
    field("capabilities", Type::flags(Int::U32, &PHYSCAP)).out(),
    field("arch_capabilities", Type::HEX32).out(),
    field("pad", Type::U32),
    field("total_pages", Type::U64A).out(),
    field("free_pages", Type::U64A).out(),
    field("scrub_pages", Type::U64A).out(),
    field("outstanding_pages", Type::U64A).out(),
    field("max_mfn", Type::FRAME64A).out(),
    field("hw_cap", Type::array(&Type::HEX32, 8)).out(),
});

enumeration!(PERFCOP = "XEN_SYSCTL_PERFCOP_*" {
    1 => "XEN_SYSCTL_PERFCOP_reset", 2 => "XEN_SYSCTL_PERFCOP_query",
});
structure!(PERFC_DESC = "struct xen_sysctl_perfc_desc" {
    field("name", Type::Chars(80)),
    field("nr_vals", Type::U32),
});
structure!(pub(super) PERFC_OP = "struct xen_sysctl_perfc_op" {
    field("cmd", Type::enumeration(Int::U32, &PERFCOP)),
    field("nr_counters", Type::U32).out(),
    field("nr_vals", Type::U32).out(),
    field("desc", handle64!(Out, Type::Struct(&PERFC_DESC), Count::Field("nr_counters"))),
    field("val", handle64!(Out, Type::U32, Count::Field("nr_vals"))),
});

structure!(pub(super) GETDOMAININFOLIST = "struct xen_sysctl_getdomaininfolist" {
    field("first_domain", Type::DOMID),
    field("max_domains", Type::U32),
    field("buffer", handle64!(Out, Type::Struct(&GETDOMAININFO), Count::Field("num_domains"))),
    field("num_domains", Type::U32).out(),
});

structure!(CPUINFO = "struct xen_sysctl_cpuinfo" { field("idletime", Type::NANOSECONDS_A) });
structure!(pub(super) GETCPUINFO = "struct xen_sysctl_getcpuinfo" {
    field("max_cpus", Type::U32),
    field("info", handle64!(Out, Type::Struct(&CPUINFO), Count::Field("nr_cpus"))),
    field("nr_cpus", Type::U32).out(),
});

structure!(pub(super) AVAILHEAP = "struct xen_sysctl_availheap" {
    field("min_bitwidth", Type::U32),
    field("max_bitwidth", Type::U32),
    field("node", Type::S32),
    field("avail_bytes", Type::U64A).out(),
});

enumeration!(PAGE_OFFLINE_CMD = "commands of XEN_SYSCTL_page_offline_op" {
    1 => "sysctl_page_offline", 2 => "sysctl_page_online", 3 => "sysctl_query_page_offline",
});
flag_set!(OFFLINE_RESULT = "PG_OFFLINE_*" {
    0x1 => "PG_OFFLINE_INVALID", 0x2 => "PG_OFFLINE_OFFLINED", 0x4 => "PG_OFFLINE_PENDING",
    0x8 => "PG_OFFLINE_FAILED", 0x10 => "PG_OFFLINE_AGAIN", 0x100 => "PG_OFFLINE_XENPAGE",
    0x200 => "PG_OFFLINE_DOM0PAGE", 0x400 => "PG_OFFLINE_ANONYMOUS", 0x800 => "PG_OFFLINE_NOT_CONV_RAM",
    0x1000 => "PG_OFFLINE_OWNED", 0x2000 => "PG_OFFLINE_BROKEN",
} parts { 0xffff_0000 => "owner" });
flag_set!(ONLINE_RESULT = "PG_ONLINE_*" {
    0x1 => "PG_OFFLINE_INVALID", 0x2 => "PG_ONLINE_ONLINED", 0x8 => "PG_ONLINE_FAILED",
    0x2000 => "PG_ONLINE_BROKEN",
} parts { 0xffff_0000 => "owner" });
flag_set!(QUERY_RESULT = "PG_OFFLINE_STATUS_*" {
    0x2 => "PG_OFFLINE_STATUS_OFFLINED", 0x4 => "PG_OFFLINE_STATUS_ONLINE",
    0x8 => "PG_OFFLINE_STATUS_OFFLINE_PENDING", 0x10 => "PG_OFFLINE_STATUS_BROKEN",
} parts { 0xffff_0000 => "owner" });
const PAGES: Count = Count::Span("start", "end");
structure!(pub(super) PAGE_OFFLINE_OP = "struct xen_sysctl_page_offline_op" {
    field("cmd", Type::enumeration(Int::U32, &PAGE_OFFLINE_CMD)),
    field("start", Type::int(Int::U32, Show::Frame)),
    field("end", Type::int(Int::U32, Show::Frame)),
    field("status", Type::Union(&Union { tag: Tag::Field("cmd"), min_size: 0, cases: &[
        case(&[1], "", handle!(Out, Type::flags(Int::U32, &OFFLINE_RESULT), PAGES)),
        case(&[2], "", handle!(Out, Type::flags(Int::U32, &ONLINE_RESULT), PAGES)),
        case(&[3], "", handle!(Out, Type::flags(Int::U32, &QUERY_RESULT), PAGES)),
    ] })),
});

enumeration!(LOCKPROF_CMD = "XEN_SYSCTL_LOCKPROF_*" {
    1 => "XEN_SYSCTL_LOCKPROF_reset", 2 => "XEN_SYSCTL_LOCKPROF_query",
});
enumeration!(LOCKPROF_TYPE = "LOCKPROF_TYPE_*" { 0 => "LOCKPROF_TYPE_GLOBAL", 1 => "LOCKPROF_TYPE_PERDOM" });
structure!(LOCKPROF_DATA = "struct xen_sysctl_lockprof_data" {
    field("name", Type::Chars(40)),
    field("type", Type::enumeration(Int::S32, &LOCKPROF_TYPE)),
    field("idx", Type::S32),
    field("lock_cnt", Type::U64A),
    field("block_cnt", Type::U64A),
    field("lock_time", Type::NANOSECONDS_A),
    field("block_time", Type::NANOSECONDS_A),
});
structure!(pub(super) LOCKPROF_OP = "struct xen_sysctl_lockprof_op" {
    field("cmd", Type::enumeration(Int::U32, &LOCKPROF_CMD)),
    field("max_elem", Type::U32),
    field("nr_elem", Type::U32).out(),
    field("time", Type::NANOSECONDS_A).out(),
    field("data", handle64!(Out, Type::Struct(&LOCKPROF_DATA), Count::Least("max_elem", "nr_elem"))),
});

enumeration!(CORE = "a core, or none" { 0xffff_ffff => "XEN_INVALID_CORE_ID" });
enumeration!(SOCKET = "a socket, or none" { 0xffff_ffff => "XEN_INVALID_SOCKET_ID" });
enumeration!(NODE = "a NUMA node, or none" { 0xffff_ffff => "XEN_INVALID_NODE_ID" });
structure!(CPUTOPO = "struct xen_sysctl_cputopo" {
    field("core", Type::enumeration(Int::U32, &CORE)),
    field("socket", Type::enumeration(Int::U32, &SOCKET)),
    field("node", Type::enumeration(Int::U32, &NODE)),
});
structure!(pub(super) CPUTOPOINFO = "struct xen_sysctl_cputopoinfo" {
    field("num_cpus", Type::U32).inout(),
    field("cputopo", handle64!(Out, Type::Struct(&CPUTOPO), Count::Field("num_cpus"))),
});

structure!(MEMINFO = "struct xen_sysctl_meminfo" {
    field("memsize", Type::U64),
    field("memfree", Type::U64),
});
enumeration!(DISTANCE = "a distance, or none" { 0xffff_ffff => "XEN_INVALID_NODE_DIST" });
structure!(pub(super) NUMAINFO = "struct xen_sysctl_numainfo" {
    field("num_nodes", Type::U32).inout(),
    field("meminfo", handle64!(Out, Type::Struct(&MEMINFO), Count::Field("num_nodes"))),
    field("distance", handle64!(
        Out, Type::enumeration(Int::U32, &DISTANCE), Count::Product("num_nodes", "num_nodes")
    )),
});

enumeration!(DEVICE_NODE = "a device's NUMA node, or none" {
    0xffff_ffff => "XEN_INVALID_NODE_ID", 0xffff_fffe => "XEN_INVALID_DEV",
});
structure!(pub(super) PCITOPOINFO = "struct xen_sysctl_pcitopoinfo" {
    field("num_devs", Type::U32).inout(),
    field("devs", handle64!(In, Type::Struct(&PCI_DEVICE), Count::Field("num_devs"))),
    field("nodes", handle64!(Out, Type::enumeration(Int::U32, &DEVICE_NODE), Count::Field("num_devs"))),
});
