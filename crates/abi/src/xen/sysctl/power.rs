//! Power management of processors (Xen public/sysctl.h).

use crate::xen::prelude::*;

structure!(PX_VAL = "struct pm_px_val" {
    field("freq", Type::U64A),
    field("residency", Type::U64A),
    field("count", Type::U64A),
});
structure!(PX_STAT = "struct pm_px_stat" {
    field("total", Type::U8).inout(),
    field("usable", Type::U8).out(),
    field("last", Type::U8).out(),
    field("cur", Type::U8).out(),
    field("trans_pt", handle64!(Out, Type::U64, Count::Product("total", "total"))),
    field("pt", handle64!(Out, Type::Struct(&PX_VAL), Count::Field("total"))),
});
structure!(CX_STAT = "struct pm_cx_stat" {
    field("nr", Type::U32).inout(),
    field("last", Type::U32).out(),
    field("idle_time", Type::NANOSECONDS_A).out(),
    field("triggers", handle64!(Out, Type::U64, Count::Field("nr"))),
    field("residencies", handle64!(Out, Type::U64, Count::Field("nr"))),
    field("nr_pc", Type::U32).inout(),
    field("nr_cc", Type::U32).inout(),
    field("pc", handle64!(Out, Type::U64, Count::Field("nr_pc"))),
    field("cc", handle64!(Out, Type::U64, Count::Field("nr_cc"))),
});
enumeration!(PMSTAT = "PMSTAT_*" {
    0x11 => "PMSTAT_get_max_px", 0x12 => "PMSTAT_get_pxstat", 0x13 => "PMSTAT_reset_pxstat",
    0x21 => "PMSTAT_get_max_cx", 0x22 => "PMSTAT_get_cxstat", 0x23 => "PMSTAT_reset_cxstat",
});
structure!(pub(super) GET_PMSTAT = "struct xen_sysctl_get_pmstat" {
    field("type", Type::enumeration(Int::U32, &PMSTAT)),
    field("cpuid", Type::U32),
    field("u", Type::Union(&Union { tag: Tag::Field("type"), min_size: 0, cases: &[
        case(&[0x11, 0x12, 0x13], "getpx", Type::Struct(&PX_STAT)),
        case(&[0x21, 0x22, 0x23], "getcx", Type::Struct(&CX_STAT)),
    ] })),
});

enumeration!(HOTPLUG = "XEN_SYSCTL_CPU_HOTPLUG_*" {
    0 => "XEN_SYSCTL_CPU_HOTPLUG_ONLINE", 1 => "XEN_SYSCTL_CPU_HOTPLUG_OFFLINE",
    2 => "XEN_SYSCTL_CPU_HOTPLUG_SMT_ENABLE", 3 => "XEN_SYSCTL_CPU_HOTPLUG_SMT_DISABLE",
});
structure!(pub(super) CPU_HOTPLUG = "struct xen_sysctl_cpu_hotplug" {
    field("cpu", Type::U32),
    field("op", Type::enumeration(Int::U32, &HOTPLUG)),
});

structure!(USERSPACE = "struct xen_userspace" { field("scaling_setspeed", Type::U32).out() });
structure!(ONDEMAND = "struct xen_ondemand" {
    field("sampling_rate_max", Type::U32).out(),
    field("sampling_rate_min", Type::U32).out(),
    field("sampling_rate", Type::U32).out(),
    field("up_threshold", Type::U32).out(),
});
flag_set!(CPPC_FEAT = "XEN_SYSCTL_CPPC_FEAT_*" { 1 => "XEN_SYSCTL_CPPC_FEAT_ACT_WINDOW" });
flag_set!(ACT_WINDOW = "microseconds: mantissa times a power of ten" {
} parts { 0x7f => "mantissa", 0x380 => "exponent" });
structure!(CPPC_PARA = "struct xen_cppc_para" {
    field("features", Type::flags(Int::U32, &CPPC_FEAT)).out(),
    field("lowest", Type::U32).out(),
    field("lowest_nonlinear", Type::U32).out(),
    field("nominal", Type::U32).out(),
    field("highest", Type::U32).out(),
    field("minimum", Type::U32).out(),
    field("maximum", Type::U32).out(),
    field("desired", Type::U32).out(),
    field("energy_perf", Type::U32).out(),
    field("activity_window", Type::flags(Int::U32, &ACT_WINDOW)).out(),
});

/// A text's first eight bytes, as a tag that is a `char[]` compares them.
const fn first_eight(text: &[u8; 8]) -> u64 {
    u64::from_le_bytes(*text)
}

structure!(SCALING = "struct xen_get_cpufreq_para.u.s" {
    field("scaling_cur_freq", Type::U32).out(),
    field("scaling_governor", Type::Chars(16)).out(),
    field("scaling_max_freq", Type::U32).out(),
    field("scaling_min_freq", Type::U32).out(),
    field("u", Type::Union(&Union { tag: Tag::Field("scaling_governor"), min_size: 0, cases: &[
        case(&[first_eight(b"userspac")], "userspace", Type::Struct(&USERSPACE)),
        case(&[first_eight(b"ondemand")], "ondemand", Type::Struct(&ONDEMAND)),
    ] })),
});
// 4.17 has the members of `s` in the struct itself; the layout is the same.
structure!(GET_CPUFREQ_PARA = "struct xen_get_cpufreq_para" {
    field("cpu_num", Type::U32).inout(),
    field("freq_num", Type::U32).inout(),
    field("gov_num", Type::U32).inout(),
    field("affected_cpus", handle64!(Out, Type::U32, Count::Field("cpu_num"))),
    field("scaling_available_frequencies", handle64!(Out, Type::U32, Count::Field("freq_num"))),
    field("scaling_available_governors", handle64!(Out, Type::Chars(16), Count::Field("gov_num"))),
    field("scaling_driver", Type::Chars(16)).out(),
    field("cpuinfo_cur_freq", Type::U32).out(),
    field("cpuinfo_max_freq", Type::U32).out(),
    field("cpuinfo_min_freq", Type::U32).out(),
    field("u", Type::Union(&Union { tag: Tag::Field("scaling_driver"), min_size: 0, cases: &[
        case(&[first_eight(b"hwp\0\0\0\0\0")], "cppc_para", Type::Struct(&CPPC_PARA)),
        case(&[], "s", Type::Struct(&SCALING)),
    ] })),
    field("turbo_enabled", Type::int(Int::S32, Show::Bool)).out(),
});

structure!(SET_GOV = "struct xen_set_cpufreq_gov" { field("scaling_governor", Type::Chars(16)) });
enumeration!(CTRL_TYPE = "what SET_CPUFREQ_PARA sets" {
    1 => "SCALING_MAX_FREQ", 2 => "SCALING_MIN_FREQ", 3 => "SCALING_SETSPEED", 4 => "SAMPLING_RATE",
    5 => "UP_THRESHOLD",
});
structure!(SET_PARA = "struct xen_set_cpufreq_para" {
    field("ctrl_type", Type::enumeration(Int::U32, &CTRL_TYPE)),
    field("ctrl_value", Type::U32),
});

const PRESET: u64 = 0xf000_0000;
/// `XEN_SYSCTL_CPPC_SET_*`: single bits, and a preset in the highest four.
const CPPC_SET: FlagSet = FlagSet {
    name: "XEN_SYSCTL_CPPC_SET_*",
    bits: &[
        (0x1, 0x1, "XEN_SYSCTL_CPPC_SET_MINIMUM"),
        (0x2, 0x2, "XEN_SYSCTL_CPPC_SET_MAXIMUM"),
        (0x4, 0x4, "XEN_SYSCTL_CPPC_SET_DESIRED"),
        (0x8, 0x8, "XEN_SYSCTL_CPPC_SET_ENERGY_PERF"),
        (0x10, 0x10, "XEN_SYSCTL_CPPC_SET_ACT_WINDOW"),
        (PRESET, 0, "XEN_SYSCTL_CPPC_SET_PRESET_NONE"),
        (PRESET, 0x1000_0000, "XEN_SYSCTL_CPPC_SET_PRESET_BALANCE"),
        (PRESET, 0x2000_0000, "XEN_SYSCTL_CPPC_SET_PRESET_POWERSAVE"),
        (PRESET, 0x3000_0000, "XEN_SYSCTL_CPPC_SET_PRESET_PERFORMANCE"),
    ],
    parts: &[],
};
structure!(SET_CPPC = "struct xen_set_cppc_para" {
    field("set_params", Type::flags(Int::U32, &CPPC_SET)).inout(),
    field("minimum", Type::U32),
    field("maximum", Type::U32),
    field("desired", Type::U32),
    field("energy_perf", Type::U32),
    field("activity_window", Type::flags(Int::U32, &ACT_WINDOW)),
});

enumeration!(PM_CMD = "commands of XEN_SYSCTL_pm_op" {
    0x11 => "GET_CPUFREQ_PARA", 0x12 => "SET_CPUFREQ_GOV", 0x13 => "SET_CPUFREQ_PARA",
    0x14 => "GET_CPUFREQ_AVGFREQ", 0x15 => "SET_CPUFREQ_CPPC",
    0x21 => "XEN_SYSCTL_pm_op_set_sched_opt_smt", 0x22 => "XEN_SYSCTL_pm_op_get_max_cstate",
    0x23 => "XEN_SYSCTL_pm_op_set_max_cstate", 0x24 => "XEN_SYSCTL_pm_op_set_vcpu_migration_delay",
    0x25 => "XEN_SYSCTL_pm_op_get_vcpu_migration_delay", 0x26 => "XEN_SYSCTL_pm_op_enable_turbo",
    0x27 => "XEN_SYSCTL_pm_op_disable_turbo",
});
enumeration!(CSTATE = "a C-state" { 0xffff_ffff => "XEN_SYSCTL_CX_UNLIMITED" });
structure!(pub(super) PM_OP = "struct xen_sysctl_pm_op" {
    field("cmd", Type::enumeration(Int::U32, &PM_CMD)),
    field("cpuid", Type::U32),
    field("u", Type::Union(&Union { tag: Tag::Field("cmd"), min_size: 0, cases: &[
        case(&[0x11], "get_para", Type::Struct(&GET_CPUFREQ_PARA)),
        case(&[0x12], "set_gov", Type::Struct(&SET_GOV)),
        case(&[0x13], "set_para", Type::Struct(&SET_PARA)),
        case(&[0x15], "set_cppc", Type::Struct(&SET_CPPC)),
        case(&[0x14], "get_avgfreq", Type::U64A).out(),
        // Xen leaves the setting there that was in force before.
        case(&[0x21], "set_sched_opt_smt", Type::U32),
        case(&[0x22], "get_max_cstate", Type::enumeration(Int::U32, &CSTATE)).out(),
        case(&[0x23], "set_max_cstate", Type::enumeration(Int::U32, &CSTATE)),
    ] })),
});
