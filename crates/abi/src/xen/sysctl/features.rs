//! What the host's processors can do: cache allocation, CPUID levelling and policies (Xen public/sysctl.h).

use crate::xen::prelude::*;

enumeration!(PSR_CMT_CMD = "XEN_SYSCTL_PSR_CMT_*" {
    0 => "XEN_SYSCTL_PSR_CMT_get_total_rmid", 1 => "XEN_SYSCTL_PSR_CMT_get_l3_upscaling_factor",
    2 => "XEN_SYSCTL_PSR_CMT_get_l3_cache_size", 3 => "XEN_SYSCTL_PSR_CMT_enabled",
    4 => "XEN_SYSCTL_PSR_CMT_get_l3_event_mask",
});
structure!(L3_CACHE = "struct xen_sysctl_psr_cmt_op.u.l3_cache" {
    field("cpu", Type::U32),
    field("rsvd", Type::U32),
});
structure!(pub(super) PSR_CMT_OP = "struct xen_sysctl_psr_cmt_op" {
    field("cmd", Type::enumeration(Int::U32, &PSR_CMT_CMD)),
    field("flags", Type::HEX32),
    field("u", Type::Union(&Union { tag: Tag::Field("cmd"), min_size: 0, cases: &[
        case(&[2], "l3_cache", Type::Struct(&L3_CACHE)),
        case(&[0, 1, 2, 3, 4], "data", Type::U64).out(),
    ] })),
});

enumeration!(PSR_CMD = "XEN_SYSCTL_PSR_*" {
    0 => "XEN_SYSCTL_PSR_get_l3_info", 1 => "XEN_SYSCTL_PSR_get_l2_info",
    2 => "XEN_SYSCTL_PSR_get_mba_info",
});
flag_set!(CAT_FLAGS = "XEN_SYSCTL_PSR_CAT_*" { 1 => "XEN_SYSCTL_PSR_CAT_L3_CDP" });
flag_set!(MBA_FLAGS = "XEN_SYSCTL_PSR_MBA_*" { 1 => "XEN_SYSCTL_PSR_MBA_LINEAR" });
structure!(CAT_INFO = "struct xen_sysctl_psr_alloc.u.cat_info" {
    field("cbm_len", Type::U32).out(),
    field("cos_max", Type::U32).out(),
    field("flags", Type::flags(Int::U32, &CAT_FLAGS)).out(),
});
structure!(MBA_INFO = "struct xen_sysctl_psr_alloc.u.mba_info" {
    field("thrtl_max", Type::U32).out(),
    field("cos_max", Type::U32).out(),
    field("flags", Type::flags(Int::U32, &MBA_FLAGS)).out(),
});
structure!(pub(super) PSR_ALLOC = "struct xen_sysctl_psr_alloc" {
    field("cmd", Type::enumeration(Int::U32, &PSR_CMD)),
    field("target", Type::U32),
    field("u", Type::Union(&Union { tag: Tag::Field("cmd"), min_size: 0, cases: &[
        case(&[0, 1], "cat_info", Type::Struct(&CAT_INFO)),
        case(&[2], "mba_info", Type::Struct(&MBA_INFO)),
    ] })),
});

flag_set!(LEVELCAP = "XEN_SYSCTL_CPU_LEVELCAP_*" {
    0x1 => "XEN_SYSCTL_CPU_LEVELCAP_faulting", 0x2 => "XEN_SYSCTL_CPU_LEVELCAP_ecx",
    0x4 => "XEN_SYSCTL_CPU_LEVELCAP_edx", 0x8 => "XEN_SYSCTL_CPU_LEVELCAP_extd_ecx",
    0x10 => "XEN_SYSCTL_CPU_LEVELCAP_extd_edx", 0x20 => "XEN_SYSCTL_CPU_LEVELCAP_xsave_eax",
    0x40 => "XEN_SYSCTL_CPU_LEVELCAP_thermal_ecx", 0x80 => "XEN_SYSCTL_CPU_LEVELCAP_l7s0_eax",
    0x100 => "XEN_SYSCTL_CPU_LEVELCAP_l7s0_ebx",
});
structure!(pub(super) CPU_LEVELLING_CAPS = "struct xen_sysctl_cpu_levelling_caps" {
    field("caps", Type::flags(Int::U32, &LEVELCAP)).out(),
});

enumeration!(FEATURESET = "XEN_SYSCTL_cpu_featureset_*" {
    0 => "XEN_SYSCTL_cpu_featureset_raw", 1 => "XEN_SYSCTL_cpu_featureset_host",
    2 => "XEN_SYSCTL_cpu_featureset_pv", 3 => "XEN_SYSCTL_cpu_featureset_hvm",
    4 => "XEN_SYSCTL_cpu_featureset_pv_max", 5 => "XEN_SYSCTL_cpu_featureset_hvm_max",
});
structure!(pub(super) CPU_FEATURESET = "struct xen_sysctl_cpu_featureset" {
    field("index", Type::enumeration(Int::U32, &FEATURESET)),
    field("nr_features", Type::U32).inout(),
    field("features", handle64!(Out, Type::HEX32, Count::Field("nr_features"))),
});

enumeration!(POLICY = "XEN_SYSCTL_cpu_policy_*" {
    0 => "XEN_SYSCTL_cpu_policy_raw", 1 => "XEN_SYSCTL_cpu_policy_host",
    2 => "XEN_SYSCTL_cpu_policy_pv_max", 3 => "XEN_SYSCTL_cpu_policy_hvm_max",
    4 => "XEN_SYSCTL_cpu_policy_pv_default", 5 => "XEN_SYSCTL_cpu_policy_hvm_default",
});
enumeration!(pub(in crate::xen) SUBLEAF = "a CPUID subleaf" { 0xffff_ffff => "XEN_CPUID_NO_SUBLEAF" });
structure!(pub(in crate::xen) CPUID_LEAF = "xen_cpuid_leaf_t" {
    field("leaf", Type::HEX32),
    field("subleaf", Type::enumeration(Int::U32, &SUBLEAF)),
    field("a", Type::HEX32),
    field("b", Type::HEX32),
    field("c", Type::HEX32),
    field("d", Type::HEX32),
});
structure!(pub(in crate::xen) MSR_ENTRY = "xen_msr_entry_t" {
    field("idx", Type::HEX32),
    field("flags", Type::HEX32),
    field("val", Type::HEX64),
});
structure!(pub(super) CPU_POLICY = "struct xen_sysctl_cpu_policy" {
    field("index", Type::enumeration(Int::U32, &POLICY)),
    field("nr_leaves", Type::U32).inout(),
    field("nr_msrs", Type::U32).inout(),
    field("_rsvd", Type::U32),
    field("leaves", handle64!(Out, Type::Struct(&CPUID_LEAF), Count::Field("nr_leaves"))),
    field("msrs", handle64!(Out, Type::Struct(&MSR_ENTRY), Count::Field("nr_msrs"))),
});
