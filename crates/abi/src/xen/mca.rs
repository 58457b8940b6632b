//! `mca` (Xen public/arch-x86/xen-mca.h, which defines `__HYPERVISOR_mca` as `__HYPERVISOR_arch_0`).

use super::bitmap::BITMAP_IN;
use super::commands::commands;
use super::prelude::*;

flag_set!(FETCH_FLAGS = "what to fetch, or an acknowledgement" {
    1 => "XEN_MC_NONURGENT", 2 => "XEN_MC_URGENT", 4 => "XEN_MC_ACK",
});
flag_set!(FETCH_RESULT = "how it went" {
    1 => "XEN_MC_FETCHFAILED", 2 => "XEN_MC_NODATA", 4 => "XEN_MC_NOMATCH",
    8 => "XEN_MC_CANNOTHANDLE", 0x10 => "XEN_MC_NOTDELIVERED",
});
flag_set!(INFO_FLAGS = "MCINFO_FLAGS_*" { 1 => "MCINFO_FLAGS_UNCOMPLETE" });
// The records in `mi_data` (`struct mcinfo_global`, `_bank`, `_extended`, `_recovery`) follow one another, each
// as long as its own header says; they are shown as words.
structure!(INFO = "struct mc_info" {
    field("mi_nentries", Type::U32),
    field("flags", Type::flags(Int::U32, &INFO_FLAGS)),
    field("mi_data", Type::array(&Type::HEX64, 95)),
});
/// The same bits mean one thing on the way in and another one on the way out.
const FLAGS: Type = Type::Union(&Union {
    tag: Tag::SubOp,
    min_size: 0,
    cases: &[
        case(&[], "", Type::flags(Int::U32, &FETCH_FLAGS)),
        case(&[], "result", Type::flags(Int::U32, &FETCH_RESULT)).out(),
    ],
});
structure!(FETCH = "struct xen_mc_fetch" {
    field("flags", FLAGS),
    field("_pad0", Type::U32),
    field("fetch_id", Type::U64).inout(),
    field("data", handle!(Out, Type::Struct(&INFO), Count::One)),
});

enumeration!(VCPUID = "a vCPU, or none" { 0xffff => "XEN_MC_VCPUID_INVALID" });
structure!(NOTIFYDOMAIN = "struct xen_mc_notifydomain" {
    field("mc_domid", Type::DOMID),
    field("mc_vcpuid", Type::enumeration(Int::U16, &VCPUID)),
    field("flags", Type::Union(&Union { tag: Tag::SubOp, min_size: 0, cases: &[
        case(&[], "", Type::HEX32),
        case(&[], "result", Type::flags(Int::U32, &FETCH_RESULT)).out(),
    ] })),
});

structure!(MSR = "struct mcinfo_msr" {
    field("reg", Type::HEX64),
    field("value", Type::HEX64),
});
structure!(LOGICAL_CPU = "xen_mc_logical_cpu_t" {
    field("mc_cpunr", Type::U32),
    field("mc_chipid", Type::U32),
    field("mc_coreid", Type::U16),
    field("mc_threadid", Type::U16),
    field("mc_apicid", Type::U32),
    field("mc_clusterid", Type::U32),
    field("mc_ncores", Type::U32),
    field("mc_ncores_active", Type::U32),
    field("mc_nthreads", Type::U32),
    field("mc_cpuid_level", Type::S32),
    field("mc_family", Type::U32),
    field("mc_vendor", Type::U32),
    field("mc_model", Type::U32),
    field("mc_step", Type::U32),
    field("mc_vendorid", Type::Chars(16)),
    field("mc_brandid", Type::Chars(64)),
    field("mc_cpu_caps", Type::array(&Type::HEX32, 7)),
    field("mc_cache_size", Type::U32),
    field("mc_cache_alignment", Type::U32),
    field("mc_nmsrvals", Type::S32),
    field("mc_msrvalues", Type::array(&Type::Struct(&MSR), 8)),
});
structure!(PHYSCPUINFO = "struct xen_mc_physcpuinfo" {
    field("ncpus", Type::U32).inout(),
    field("_pad0", Type::U32),
    field("info", handle!(Out, Type::Struct(&LOGICAL_CPU), Count::Field("ncpus"))),
});

flag_set!(MSRINJ_FLAGS = "MC_MSRINJ_F_*" { 1 => "MC_MSRINJ_F_INTERPOSE", 2 => "MC_MSRINJ_F_GPADDR" });
structure!(MSRINJECT = "struct xen_mc_msrinject" {
    field("mcinj_cpunr", Type::U32),
    field("mcinj_flags", Type::flags(Int::U32, &MSRINJ_FLAGS)),
    field("mcinj_count", Type::U32),
    field("mcinj_domid", Type::DOMID),
    field("_pad0", Type::U16),
    field("mcinj_msr", Type::array(&Type::Struct(&MSR), 8)),
});
structure!(MCEINJECT = "struct xen_mc_mceinject" { field("mceinj_cpunr", Type::U32) });

const INJECT_TYPE: u64 = 7;
/// `XEN_MC_INJECT_*`: a type in the lowest three bits, and a flag.
const INJECT_FLAGS: FlagSet = FlagSet {
    name: "XEN_MC_INJECT_*",
    bits: &[
        (INJECT_TYPE, 0, "XEN_MC_INJECT_TYPE_MCE"),
        (INJECT_TYPE, 1, "XEN_MC_INJECT_TYPE_CMCI"),
        (INJECT_TYPE, 2, "XEN_MC_INJECT_TYPE_LMCE"),
        (8, 8, "XEN_MC_INJECT_CPU_BROADCAST"),
    ],
    parts: &[(INJECT_TYPE, "type")],
};
structure!(INJECT_V2 = "struct xen_mc_inject_v2" {
    field("flags", Type::flags(Int::U32, &INJECT_FLAGS)),
    field("cpumap", Type::Struct(&BITMAP_IN)),
});

commands!(CMD, OPS = "XEN_MC_*", &[ARG], {
    1 => "XEN_MC_fetch", 2 => "XEN_MC_notifydomain", 3 => "XEN_MC_physcpuinfo", 4 => "XEN_MC_msrinject",
    5 => "XEN_MC_mceinject", 6 => "XEN_MC_inject_v2",
});
structure!(MC = "struct xen_mc" {
    field("cmd", Type::enumeration(Int::U32, &CMD)),
    field("interface_version", Type::HEX32),
    field("u", Type::Union(&Union { tag: Tag::Field("cmd"), min_size: 0, cases: &[
        case(&[1], "mc_fetch", Type::Struct(&FETCH)),
        case(&[2], "mc_notifydomain", Type::Struct(&NOTIFYDOMAIN)),
        case(&[3], "mc_physcpuinfo", Type::Struct(&PHYSCPUINFO)),
        case(&[4], "mc_msrinject", Type::Struct(&MSRINJECT)),
        case(&[5], "mc_mceinject", Type::Struct(&MCEINJECT)),
        case(&[6], "mc_inject_v2", Type::Struct(&INJECT_V2)),
    ] })),
});

const ARG: Arg = arg("u_xen_mc", handle!(InOut, Type::Struct(&MC), Count::One));

pub(super) const MCA: Hypercall = Hypercall {
    number: 48,
    name: "mca",
    args: &[ARG],
    returns: Show::Errno,
    sub_ops: Some(SubOps { from: SubOpFrom::Memory { index: 0 }, ops: OPS }),
};
