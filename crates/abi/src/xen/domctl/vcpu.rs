//! A domain's vCPUs: registers, affinity, what their processor looks like (Xen public/domctl.h).

use crate::xen::bitmap::{BITMAP_IN, BITMAP_OUT};
use crate::xen::guest_context::VCPU_GUEST_CONTEXT;
use crate::xen::prelude::*;
use crate::xen::sysctl::features::{CPUID_LEAF, MSR_ENTRY, SUBLEAF};

structure!(pub(super) MAX_VCPUS = "struct xen_domctl_max_vcpus" { field("max", Type::U32) });
structure!(pub(super) ADDRESS_SIZE = "struct xen_domctl_address_size" { field("size", Type::U32) });

enumeration!(TRIGGER = "XEN_DOMCTL_SENDTRIGGER_*" {
    0 => "XEN_DOMCTL_SENDTRIGGER_NMI", 1 => "XEN_DOMCTL_SENDTRIGGER_RESET",
    2 => "XEN_DOMCTL_SENDTRIGGER_INIT", 3 => "XEN_DOMCTL_SENDTRIGGER_POWER",
    4 => "XEN_DOMCTL_SENDTRIGGER_SLEEP",
});
structure!(pub(super) SENDTRIGGER = "struct xen_domctl_sendtrigger" {
    field("trigger", Type::enumeration(Int::U32, &TRIGGER)),
    field("vcpu", Type::VCPU),
});

// Between a 64-bit toolstack and a 32-bit PV domain the context has the domain's layout, not the caller's.
// Nothing in the call tells.
structure!(pub(super) SET_VCPUCONTEXT = "struct xen_domctl_vcpucontext" {
    field("vcpu", Type::VCPU),
    field("ctxt", handle64!(In, VCPU_GUEST_CONTEXT, Count::One)),
});
structure!(pub(super) GET_VCPUCONTEXT = "struct xen_domctl_vcpucontext" {
    field("vcpu", Type::VCPU),
    field("ctxt", handle64!(Out, VCPU_GUEST_CONTEXT, Count::One)),
});
structure!(pub(super) GETVCPUINFO = "struct xen_domctl_getvcpuinfo" {
    field("vcpu", Type::VCPU),
    field("online", Type::BOOL8).out(),
    field("blocked", Type::BOOL8).out(),
    field("running", Type::BOOL8).out(),
    field("cpu_time", Type::NANOSECONDS_A).out(),
    field("cpu", Type::U32).out(),
});

structure!(pub(super) SET_NODEAFFINITY = "struct xen_domctl_nodeaffinity" {
    field("nodemap", Type::Struct(&BITMAP_IN)),
});
structure!(pub(super) GET_NODEAFFINITY = "struct xen_domctl_nodeaffinity" {
    field("nodemap", Type::Struct(&BITMAP_OUT)),
});

flag_set!(AFFINITY = "XEN_VCPUAFFINITY_*" {
    1 => "XEN_VCPUAFFINITY_HARD", 2 => "XEN_VCPUAFFINITY_SOFT", 4 => "XEN_VCPUAFFINITY_FORCE",
});
// Xen leaves the affinity that comes into effect in the maps. What was asked for is shown.
structure!(pub(super) SET_VCPUAFFINITY = "struct xen_domctl_vcpuaffinity" {
    field("vcpu", Type::VCPU),
    field("flags", Type::flags(Int::U32, &AFFINITY)),
    field("cpumap_hard", Type::Struct(&BITMAP_IN)),
    field("cpumap_soft", Type::Struct(&BITMAP_IN)),
});
structure!(pub(super) GET_VCPUAFFINITY = "struct xen_domctl_vcpuaffinity" {
    field("vcpu", Type::VCPU),
    field("flags", Type::flags(Int::U32, &AFFINITY)),
    field("cpumap_hard", Type::Struct(&BITMAP_OUT)),
    field("cpumap_soft", Type::Struct(&BITMAP_OUT)),
});

structure!(VMCE_VCPU = "struct hvm_vmce_vcpu" {
    field("caps", Type::HEX64),
    field("mci_ctl2_bank0", Type::HEX64),
    field("mci_ctl2_bank1", Type::HEX64),
    field("mcg_ext_ctl", Type::HEX64),
});
/// The capabilities come first in `vmce` too; the other member is their name of old.
const VMCE: Type = Type::Union(&Union {
    tag: Tag::Field("vcpu"),
    min_size: 0,
    cases: &[case(&[], "vmce", Type::Struct(&VMCE_VCPU)), case(&[], "mcg_cap", Type::HEX64A)],
});
structure!(pub(super) SET_EXT_VCPUCONTEXT = "struct xen_domctl_ext_vcpucontext" {
    field("vcpu", Type::VCPU),
    field("size", Type::U32),
    field("syscall32_callback_eip", Type::ADDRESS64A),
    field("sysenter_callback_eip", Type::ADDRESS64A),
    field("syscall32_callback_cs", Type::HEX16),
    field("sysenter_callback_cs", Type::HEX16),
    field("syscall32_disables_events", Type::BOOL8),
    field("sysenter_disables_events", Type::BOOL8),
    field("", VMCE),
});
structure!(pub(super) GET_EXT_VCPUCONTEXT = "struct xen_domctl_ext_vcpucontext" {
    field("vcpu", Type::VCPU),
    field("size", Type::U32).out(),
    field("syscall32_callback_eip", Type::ADDRESS64A).out(),
    field("sysenter_callback_eip", Type::ADDRESS64A).out(),
    field("syscall32_callback_cs", Type::HEX16).out(),
    field("sysenter_callback_cs", Type::HEX16).out(),
    field("syscall32_disables_events", Type::BOOL8).out(),
    field("sysenter_disables_events", Type::BOOL8).out(),
    field("", VMCE).out(),
});

// The state is that of the XSAVE instruction (Intel SDM vol. 1 §13.4), behind two words that say what it has.
structure!(pub(super) SET_VCPUEXTSTATE = "struct xen_domctl_vcpuextstate" {
    field("vcpu", Type::VCPU),
    field("xfeature_mask", Type::HEX64A),
    field("size", Type::U64A),
    field("buffer", handle64!(In, Type::Bytes(1), Count::Field("size"))),
});
structure!(pub(super) GET_VCPUEXTSTATE = "struct xen_domctl_vcpuextstate" {
    field("vcpu", Type::VCPU),
    field("xfeature_mask", Type::HEX64A).inout(),
    field("size", Type::U64A).inout(),
    field("buffer", handle64!(Out, Type::Bytes(1), Count::Field("size"))),
});

structure!(VCPU_MSR = "struct xen_domctl_vcpu_msr" {
    field("index", Type::HEX32),
    field("reserved", Type::HEX32),
    field("value", Type::HEX64A),
});
structure!(pub(super) GET_VCPU_MSRS = "struct xen_domctl_vcpu_msrs" {
    field("vcpu", Type::VCPU),
    field("msr_count", Type::U32).inout(),
    field("msrs", handle64!(Out, Type::Struct(&VCPU_MSR), Count::Field("msr_count"))),
});
// When Xen refuses an entry, the count comes back as its index.
structure!(pub(super) SET_VCPU_MSRS = "struct xen_domctl_vcpu_msrs" {
    field("vcpu", Type::VCPU),
    field("msr_count", Type::U32).inout(),
    field("msrs", handle64!(In, Type::Struct(&VCPU_MSR), Count::Field("msr_count"))),
});

structure!(pub(super) GET_CPU_POLICY = "struct xen_domctl_cpu_policy" {
    field("nr_leaves", Type::U32).inout(),
    field("nr_msrs", Type::U32).inout(),
    field("leaves", handle64!(Out, Type::Struct(&CPUID_LEAF), Count::Field("nr_leaves"))),
    field("msrs", handle64!(Out, Type::Struct(&MSR_ENTRY), Count::Field("nr_msrs"))),
    field("err_leaf", Type::HEX32),
    field("err_subleaf", Type::enumeration(Int::U32, &SUBLEAF)),
    field("err_msr", Type::HEX32),
});
structure!(pub(super) SET_CPU_POLICY = "struct xen_domctl_cpu_policy" {
    field("nr_leaves", Type::U32),
    field("nr_msrs", Type::U32),
    field("leaves", handle64!(In, Type::Struct(&CPUID_LEAF), Count::Field("nr_leaves"))),
    field("msrs", handle64!(In, Type::Struct(&MSR_ENTRY), Count::Field("nr_msrs"))),
    field("err_leaf", Type::HEX32).out(),
    field("err_subleaf", Type::enumeration(Int::U32, &SUBLEAF)).out(),
    field("err_msr", Type::HEX32).out(),
});

enumeration!(TSC_MODE = "XEN_CPUID_TSC_MODE_*" {
    0 => "XEN_CPUID_TSC_MODE_DEFAULT", 1 => "XEN_CPUID_TSC_MODE_ALWAYS_EMULATE",
    2 => "XEN_CPUID_TSC_MODE_NEVER_EMULATE", 3 => "XEN_CPUID_TSC_MODE_PVRDTSCP",
});
structure!(pub(super) TSC_INFO = "struct xen_domctl_tsc_info" {
    field("tsc_mode", Type::enumeration(Int::U32, &TSC_MODE)),
    field("gtsc_khz", Type::U32),
    field("incarnation", Type::U32),
    field("pad", Type::U32),
    field("elapsed_nsec", Type::NANOSECONDS_A),
});

enumeration!(CMT_CMD = "XEN_DOMCTL_PSR_CMT_OP_*" {
    0 => "XEN_DOMCTL_PSR_CMT_OP_DETACH", 1 => "XEN_DOMCTL_PSR_CMT_OP_ATTACH",
    2 => "XEN_DOMCTL_PSR_CMT_OP_QUERY_RMID",
});
structure!(pub(super) PSR_CMT_OP = "struct xen_domctl_psr_cmt_op" {
    field("cmd", Type::enumeration(Int::U32, &CMT_CMD)),
    field("data", Type::Union(&Union { tag: Tag::Field("cmd"), min_size: 0, cases: &[
        case(&[0, 1], "", Type::U32),
        case(&[2], "", Type::U32).out(),
    ] })),
});
enumeration!(PSR_CMD = "XEN_DOMCTL_PSR_*" {
    0 => "XEN_DOMCTL_PSR_SET_L3_CBM", 1 => "XEN_DOMCTL_PSR_GET_L3_CBM", 2 => "XEN_DOMCTL_PSR_SET_L3_CODE",
    3 => "XEN_DOMCTL_PSR_SET_L3_DATA", 4 => "XEN_DOMCTL_PSR_GET_L3_CODE", 5 => "XEN_DOMCTL_PSR_GET_L3_DATA",
    6 => "XEN_DOMCTL_PSR_SET_L2_CBM", 7 => "XEN_DOMCTL_PSR_GET_L2_CBM", 8 => "XEN_DOMCTL_PSR_SET_MBA_THRTL",
    9 => "XEN_DOMCTL_PSR_GET_MBA_THRTL",
});
// A mask of parts of the cache, or how much memory bandwidth is held back.
structure!(pub(super) PSR_ALLOC = "struct xen_domctl_psr_alloc" {
    field("cmd", Type::enumeration(Int::U32, &PSR_CMD)),
    field("target", Type::U32),
    field("data", Type::Union(&Union { tag: Tag::Field("cmd"), min_size: 0, cases: &[
        case(&[0, 2, 3, 6], "", Type::HEX64),
        case(&[1, 4, 5, 7], "", Type::HEX64).out(),
        case(&[8], "", Type::U64),
        case(&[9], "", Type::U64).out(),
    ] })),
});
