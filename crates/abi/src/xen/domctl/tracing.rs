//! Debugging a domain and tracing its processor (Xen public/domctl.h).

use crate::xen::prelude::*;

enumeration!(DEBUG_OPS = "XEN_DOMCTL_DEBUG_OP_*" {
    0 => "XEN_DOMCTL_DEBUG_OP_SINGLE_STEP_OFF", 1 => "XEN_DOMCTL_DEBUG_OP_SINGLE_STEP_ON",
});
structure!(pub(super) DEBUG_OP = "struct xen_domctl_debug_op" {
    field("op", Type::enumeration(Int::U32, &DEBUG_OPS)),
    field("vcpu", Type::VCPU),
});

// `uva` is the caller's buffer: the domain's memory goes there, or comes from there.
structure!(pub(super) GDBSX_MEMIO = "struct xen_domctl_gdbsx_memio" {
    field("pgd3val", Type::HEX64A),
    field("gva", Type::ADDRESS64A),
    field("uva", Type::Union(&Union { tag: Tag::Field("gwr"), min_size: 0, cases: &[
        case(&[0], "", handle64!(Out, Type::Bytes(1), Count::Field("len"))),
        case(&[], "", handle64!(In, Type::Bytes(1), Count::Field("len"))),
    ] })),
    field("len", Type::U32),
    field("gwr", Type::BOOL8),
    field("remain", Type::U32).out(),
});
structure!(pub(super) GDBSX_PAUSEUNP_VCPU = "struct xen_domctl_gdbsx_pauseunp_vcpu" {
    field("vcpu", Type::VCPU),
});
structure!(pub(super) GDBSX_DOMSTATUS = "struct xen_domctl_gdbsx_domstatus" {
    field("paused", Type::BOOL8).out(),
    field("vcpu_id", Type::VCPU).out(),
    field("vcpu_ev", Type::U32).out(),
});

enumeration!(VMTRACE_CMD = "XEN_DOMCTL_vmtrace_*" {
    1 => "XEN_DOMCTL_vmtrace_enable", 2 => "XEN_DOMCTL_vmtrace_disable",
    3 => "XEN_DOMCTL_vmtrace_reset_and_enable", 4 => "XEN_DOMCTL_vmtrace_output_position",
    5 => "XEN_DOMCTL_vmtrace_get_option", 6 => "XEN_DOMCTL_vmtrace_set_option",
});
structure!(pub(super) VMTRACE_OP = "struct xen_domctl_vmtrace_op" {
    field("cmd", Type::enumeration(Int::U32, &VMTRACE_CMD)),
    field("vcpu", Type::VCPU),
    field("key", Type::HEX64A),
    field("value", Type::Union(&Union { tag: Tag::Field("cmd"), min_size: 0, cases: &[
        case(&[1, 2, 3, 6], "", Type::HEX64A),
        case(&[4, 5], "", Type::HEX64A).out(),
    ] })),
});
