//! Events that Xen reports about a domain: the rings, and what goes there (Xen public/domctl.h).

use crate::xen::prelude::*;

enumeration!(RING_OPS = "XEN_VM_EVENT_*" {
    0 => "XEN_VM_EVENT_ENABLE", 1 => "XEN_VM_EVENT_DISABLE", 2 => "XEN_VM_EVENT_RESUME",
    3 => "XEN_VM_EVENT_GET_VERSION",
});
enumeration!(RING_MODE = "XEN_DOMCTL_VM_EVENT_OP_*" {
    1 => "XEN_DOMCTL_VM_EVENT_OP_PAGING", 2 => "XEN_DOMCTL_VM_EVENT_OP_MONITOR",
    3 => "XEN_DOMCTL_VM_EVENT_OP_SHARING",
});
structure!(RING_ENABLE = "struct xen_domctl_vm_event_op.u.enable" { field("port", Type::PORT).out() });
structure!(pub(super) VM_EVENT_OP = "struct xen_domctl_vm_event_op" {
    field("op", Type::enumeration(Int::U32, &RING_OPS)),
    field("mode", Type::enumeration(Int::U32, &RING_MODE)),
    field("u", Type::Union(&Union { tag: Tag::Field("op"), min_size: 0, cases: &[
        case(&[0], "enable", Type::Struct(&RING_ENABLE)),
        case(&[3], "version", Type::U32).out(),
    ] })),
});

structure!(pub(super) SET_ACCESS_REQUIRED = "struct xen_domctl_set_access_required" {
    field("access_required", Type::BOOL8),
});

enumeration!(MONITOR_OPS = "XEN_DOMCTL_MONITOR_OP_*" {
    0 => "XEN_DOMCTL_MONITOR_OP_ENABLE", 1 => "XEN_DOMCTL_MONITOR_OP_DISABLE",
    2 => "XEN_DOMCTL_MONITOR_OP_GET_CAPABILITIES", 3 => "XEN_DOMCTL_MONITOR_OP_EMULATE_EACH_REP",
    4 => "XEN_DOMCTL_MONITOR_OP_CONTROL_REGISTERS",
});
const ENABLE: u64 = 0;
const DISABLE: u64 = 1;
const GET_CAPABILITIES: u64 = 2;
const EMULATE_EACH_REP: u64 = 3;
const CONTROL_REGISTERS: u64 = 4;

enumeration!(EVENT = "XEN_DOMCTL_MONITOR_EVENT_*" {
    0 => "XEN_DOMCTL_MONITOR_EVENT_WRITE_CTRLREG", 1 => "XEN_DOMCTL_MONITOR_EVENT_MOV_TO_MSR",
    2 => "XEN_DOMCTL_MONITOR_EVENT_SINGLESTEP", 3 => "XEN_DOMCTL_MONITOR_EVENT_SOFTWARE_BREAKPOINT",
    4 => "XEN_DOMCTL_MONITOR_EVENT_GUEST_REQUEST", 5 => "XEN_DOMCTL_MONITOR_EVENT_DEBUG_EXCEPTION",
    6 => "XEN_DOMCTL_MONITOR_EVENT_CPUID", 7 => "XEN_DOMCTL_MONITOR_EVENT_PRIVILEGED_CALL",
    8 => "XEN_DOMCTL_MONITOR_EVENT_INTERRUPT", 9 => "XEN_DOMCTL_MONITOR_EVENT_DESC_ACCESS",
    10 => "XEN_DOMCTL_MONITOR_EVENT_EMUL_UNIMPLEMENTED", 11 => "XEN_DOMCTL_MONITOR_EVENT_INGUEST_PAGEFAULT",
    12 => "XEN_DOMCTL_MONITOR_EVENT_VMEXIT", 13 => "XEN_DOMCTL_MONITOR_EVENT_IO",
});
flag_set!(CAPABILITIES = "bits 1 << XEN_DOMCTL_MONITOR_EVENT_*" {
    1 << 0 => "XEN_DOMCTL_MONITOR_EVENT_WRITE_CTRLREG", 1 << 1 => "XEN_DOMCTL_MONITOR_EVENT_MOV_TO_MSR",
    1 << 2 => "XEN_DOMCTL_MONITOR_EVENT_SINGLESTEP",
    1 << 3 => "XEN_DOMCTL_MONITOR_EVENT_SOFTWARE_BREAKPOINT",
    1 << 4 => "XEN_DOMCTL_MONITOR_EVENT_GUEST_REQUEST", 1 << 5 => "XEN_DOMCTL_MONITOR_EVENT_DEBUG_EXCEPTION",
    1 << 6 => "XEN_DOMCTL_MONITOR_EVENT_CPUID", 1 << 7 => "XEN_DOMCTL_MONITOR_EVENT_PRIVILEGED_CALL",
    1 << 8 => "XEN_DOMCTL_MONITOR_EVENT_INTERRUPT", 1 << 9 => "XEN_DOMCTL_MONITOR_EVENT_DESC_ACCESS",
    1 << 10 => "XEN_DOMCTL_MONITOR_EVENT_EMUL_UNIMPLEMENTED",
    1 << 11 => "XEN_DOMCTL_MONITOR_EVENT_INGUEST_PAGEFAULT", 1 << 12 => "XEN_DOMCTL_MONITOR_EVENT_VMEXIT",
    1 << 13 => "XEN_DOMCTL_MONITOR_EVENT_IO",
});

enumeration!(CONTROL_REGISTER = "VM_EVENT_X86_*" {
    0 => "VM_EVENT_X86_CR0", 1 => "VM_EVENT_X86_CR3", 2 => "VM_EVENT_X86_CR4", 3 => "VM_EVENT_X86_XCR0",
});
structure!(MOV_TO_CR = "struct xen_domctl_monitor_op.u.mov_to_cr" {
    field("index", Type::enumeration(Int::U8, &CONTROL_REGISTER)),
    field("sync", Type::BOOL8),
    field("onchangeonly", Type::BOOL8),
    field("pad1", Type::U8),
    field("pad2", Type::U32),
    field("bitmask", Type::HEX64A),
});
structure!(MOV_TO_MSR = "struct xen_domctl_monitor_op.u.mov_to_msr" {
    field("msr", Type::HEX32),
    field("onchangeonly", Type::BOOL8),
});
structure!(GUEST_REQUEST = "struct xen_domctl_monitor_op.u.guest_request" {
    field("sync", Type::BOOL8),
    field("allow_userspace", Type::BOOL8),
});
structure!(DEBUG_EXCEPTION = "struct xen_domctl_monitor_op.u.debug_exception" { field("sync", Type::BOOL8) });
structure!(VMEXIT = "struct xen_domctl_monitor_op.u.vmexit" { field("sync", Type::BOOL8) });

const OPTIONS: Type = Type::Union(&Union {
    tag: Tag::Field("event"),
    min_size: 0,
    cases: &[
        case(&[0], "mov_to_cr", Type::Struct(&MOV_TO_CR)),
        case(&[1], "mov_to_msr", Type::Struct(&MOV_TO_MSR)),
        case(&[4], "guest_request", Type::Struct(&GUEST_REQUEST)),
        case(&[5], "debug_exception", Type::Struct(&DEBUG_EXCEPTION)),
        case(&[12], "vmexit", Type::Struct(&VMEXIT)),
    ],
});
structure!(pub(super) MONITOR_OP = "struct xen_domctl_monitor_op" {
    field("op", Type::enumeration(Int::U32, &MONITOR_OPS)),
    field("event", Type::Union(&Union { tag: Tag::Field("op"), min_size: 0, cases: &[
        case(&[ENABLE, DISABLE], "", Type::enumeration(Int::U32, &EVENT)),
        case(&[GET_CAPABILITIES], "", Type::flags(Int::U32, &CAPABILITIES)).out(),
        case(&[EMULATE_EACH_REP], "", Type::BOOL32),
        case(&[CONTROL_REGISTERS], "", Type::HEX32),
    ] })),
    field("u", Type::Union(&Union { tag: Tag::Field("op"), min_size: 0, cases: &[
        case(&[ENABLE, DISABLE], "", OPTIONS),
    ] })),
});
