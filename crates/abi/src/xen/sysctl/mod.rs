//! `sysctl` (Xen public/sysctl.h).
//!
//! 4.17 and 4.20 have the same `interface_version` (0x15) and the same layouts: 4.20 put the governor's part of
//! `xen_get_cpufreq_para` into a union with `cppc_para`, gave the padding of `xen_sysctl_livepatch_op` the name
//! `flags`, and added `SET_CPUFREQ_CPPC` and, for Arm, `XEN_SYSCTL_dt_overlay`.

pub(super) mod features;
mod info;
mod livepatch;
mod power;
mod scheduling;

use super::bitmap::BITMAP_IN;
use super::commands::commands;
use super::prelude::*;

structure!(READCONSOLE = "struct xen_sysctl_readconsole" {
    field("clear", Type::BOOL8),
    field("incremental", Type::BOOL8),
    field("pad0", Type::U8),
    field("pad1", Type::U8),
    field("index", Type::U32).inout(),
    field("buffer", handle64!(Out, Type::Chars(1), Count::Field("count"))),
    field("count", Type::U32).inout(),
});

enumeration!(TBUF_CMD = "XEN_SYSCTL_TBUFOP_*" {
    0 => "XEN_SYSCTL_TBUFOP_get_info", 1 => "XEN_SYSCTL_TBUFOP_set_cpu_mask",
    2 => "XEN_SYSCTL_TBUFOP_set_evt_mask", 3 => "XEN_SYSCTL_TBUFOP_set_size",
    4 => "XEN_SYSCTL_TBUFOP_enable", 5 => "XEN_SYSCTL_TBUFOP_disable",
});
structure!(TBUF_OP = "struct xen_sysctl_tbuf_op" {
    field("cmd", Type::enumeration(Int::U32, &TBUF_CMD)),
    field("cpu_mask", Type::Struct(&BITMAP_IN)),
    field("evt_mask", Type::HEX32).inout(),
    field("buffer_mfn", Type::FRAME64A).out(),
    field("size", Type::U32).inout(),
});

structure!(DEBUG_KEYS = "struct xen_sysctl_debug_keys" {
    field("keys", handle64!(In, Type::Chars(1), Count::Field("nr_keys"))),
    field("nr_keys", Type::U32),
});

enumeration!(COVERAGE_CMD = "XEN_SYSCTL_COVERAGE_*" {
    0 => "XEN_SYSCTL_COVERAGE_get_size", 1 => "XEN_SYSCTL_COVERAGE_read", 2 => "XEN_SYSCTL_COVERAGE_reset",
});
structure!(COVERAGE_OP = "struct xen_sysctl_coverage_op" {
    field("cmd", Type::enumeration(Int::U32, &COVERAGE_CMD)),
    field("size", Type::U32).inout(),
    field("buffer", handle64!(Out, Type::Bytes(1), Count::Field("size"))),
});

commands!(CMD, OPS = "XEN_SYSCTL_*", &[ARG], {
    1 => "XEN_SYSCTL_readconsole", 2 => "XEN_SYSCTL_tbuf_op", 3 => "XEN_SYSCTL_physinfo",
    4 => "XEN_SYSCTL_sched_id", 5 => "XEN_SYSCTL_perfc_op", 6 => "XEN_SYSCTL_getdomaininfolist",
    7 => "XEN_SYSCTL_debug_keys", 8 => "XEN_SYSCTL_getcpuinfo", 9 => "XEN_SYSCTL_availheap",
    10 => "XEN_SYSCTL_get_pmstat", 11 => "XEN_SYSCTL_cpu_hotplug", 12 => "XEN_SYSCTL_pm_op",
    14 => "XEN_SYSCTL_page_offline_op", 15 => "XEN_SYSCTL_lockprof_op", 16 => "XEN_SYSCTL_cputopoinfo",
    17 => "XEN_SYSCTL_numainfo", 18 => "XEN_SYSCTL_cpupool_op", 19 => "XEN_SYSCTL_scheduler_op",
    20 => "XEN_SYSCTL_coverage_op", 21 => "XEN_SYSCTL_psr_cmt_op", 22 => "XEN_SYSCTL_pcitopoinfo",
    23 => "XEN_SYSCTL_psr_alloc", 25 => "XEN_SYSCTL_get_cpu_levelling_caps",
    26 => "XEN_SYSCTL_get_cpu_featureset", 27 => "XEN_SYSCTL_livepatch_op" returns Dec,
    29 => "XEN_SYSCTL_get_cpu_policy", 30 => "XEN_SYSCTL_dt_overlay",
});

structure!(SYSCTL_STRUCT = "struct xen_sysctl" {
    field("cmd", Type::enumeration(Int::U32, &CMD)),
    field("interface_version", Type::HEX32),
    field("u", Type::Union(&Union { tag: Tag::Field("cmd"), min_size: 128, cases: &[
        case(&[1], "readconsole", Type::Struct(&READCONSOLE)),
        case(&[2], "tbuf_op", Type::Struct(&TBUF_OP)),
        case(&[3], "physinfo", Type::Struct(&info::PHYSINFO)),
        case(&[4], "sched_id", Type::Struct(&scheduling::SCHED_ID)),
        case(&[5], "perfc_op", Type::Struct(&info::PERFC_OP)),
        case(&[6], "getdomaininfolist", Type::Struct(&info::GETDOMAININFOLIST)),
        case(&[7], "debug_keys", Type::Struct(&DEBUG_KEYS)),
        case(&[8], "getcpuinfo", Type::Struct(&info::GETCPUINFO)),
        case(&[9], "availheap", Type::Struct(&info::AVAILHEAP)),
        case(&[10], "get_pmstat", Type::Struct(&power::GET_PMSTAT)),
        case(&[11], "cpu_hotplug", Type::Struct(&power::CPU_HOTPLUG)),
        case(&[12], "pm_op", Type::Struct(&power::PM_OP)),
        case(&[14], "page_offline", Type::Struct(&info::PAGE_OFFLINE_OP)),
        case(&[15], "lockprof_op", Type::Struct(&info::LOCKPROF_OP)),
        case(&[16], "cputopoinfo", Type::Struct(&info::CPUTOPOINFO)),
        case(&[17], "numainfo", Type::Struct(&info::NUMAINFO)),
        case(&[18], "cpupool_op", Type::Struct(&scheduling::CPUPOOL_OP)),
        case(&[19], "scheduler_op", Type::Struct(&scheduling::SCHEDULER_OP)),
        case(&[20], "coverage_op", Type::Struct(&COVERAGE_OP)),
        case(&[21], "psr_cmt_op", Type::Struct(&features::PSR_CMT_OP)),
        case(&[22], "pcitopoinfo", Type::Struct(&info::PCITOPOINFO)),
        case(&[23], "psr_alloc", Type::Struct(&features::PSR_ALLOC)),
        case(&[25], "cpu_levelling_caps", Type::Struct(&features::CPU_LEVELLING_CAPS)),
        case(&[26], "cpu_featureset", Type::Struct(&features::CPU_FEATURESET)),
        case(&[27], "livepatch", Type::Struct(&livepatch::LIVEPATCH_OP)),
        case(&[29], "cpu_policy", Type::Struct(&features::CPU_POLICY)),
        // 30, dt_overlay, is for Arm: the x86 headers do not have its struct.
    ] })),
});

const ARG: Arg = arg("u_sysctl", handle!(InOut, Type::Struct(&SYSCTL_STRUCT), Count::One));

pub(super) const SYSCTL: Hypercall = Hypercall {
    number: 35,
    name: "sysctl",
    args: &[ARG],
    returns: Show::Errno,
    sub_ops: Some(SubOps { from: SubOpFrom::Memory { index: 0 }, ops: OPS }),
};
