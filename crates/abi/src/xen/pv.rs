//! The processor as a PV guest sees it: traps, segments, debug registers, time, callbacks
//! (Xen public/xen.h, arch-x86/xen.h, nmi.h, callback.h).

use super::guest_context::{CALLBACK, TRAP_INFO};
use super::prelude::*;

/// A call without sub-ops that returns zero or an errno.
const fn plain(number: u64, name: &'static str, args: &'static [Arg]) -> Hypercall {
    Hypercall { number, name, args, returns: Show::Errno, sub_ops: None }
}

/// A trap table has at most one entry per vector, and the entry that ends it.
const MAX_TRAPS: u32 = 257;

pub(super) const SET_TRAP_TABLE: Hypercall = plain(
    0,
    "set_trap_table",
    &[arg("traps", handle!(In, Type::Struct(&TRAP_INFO), Count::Until { field: "address", max: MAX_TRAPS }))],
);

/// Descriptors of 8 bytes in a page.
const DESCRIPTORS_PER_FRAME: u32 = 512;

pub(super) const SET_GDT: Hypercall = plain(
    2,
    "set_gdt",
    &[
        arg("frame_list", handle!(In, Type::PFN, Count::ArgPer { index: 1, per: DESCRIPTORS_PER_FRAME })),
        arg("entries", Type::U32),
    ],
);

pub(super) const STACK_SWITCH: Hypercall =
    plain(3, "stack_switch", &[arg("ss", Type::HEXLONG), arg("esp", Type::ADDRESS)]);

pub(super) const SET_CALLBACKS: Hypercall = plain(
    4,
    "set_callbacks",
    &[
        arg("event_selector", Type::HEXLONG).only32(),
        arg("event_address", Type::ADDRESS),
        arg("failsafe_selector", Type::HEXLONG).only32(),
        arg("failsafe_address", Type::ADDRESS),
        arg("syscall_address", Type::ADDRESS).only64(),
    ],
);

pub(super) const FPU_TASKSWITCH: Hypercall = plain(5, "fpu_taskswitch", &[arg("set", Type::BOOL32)]);

const REGISTER: Arg = arg("reg", Type::S32);

pub(super) const SET_DEBUGREG: Hypercall = plain(8, "set_debugreg", &[REGISTER, arg("value", Type::HEXLONG)]);

pub(super) const GET_DEBUGREG: Hypercall =
    Hypercall { number: 9, name: "get_debugreg", args: &[REGISTER], returns: Show::Hex, sub_ops: None };

pub(super) const UPDATE_DESCRIPTOR: Hypercall =
    plain(10, "update_descriptor", &[arg("pa", Type::ADDRESS64), arg("desc", Type::HEX64)]);

pub(super) const SET_TIMER_OP: Hypercall = plain(15, "set_timer_op", &[arg("timeout", Type::NANOSECONDS)]);

/// What it restores stands on the guest's stack: `struct iret_context`.
pub(super) const IRET: Hypercall = plain(23, "iret", &[]);

enumeration!(SEGMENT_BASE = "SEGBASE_*" {
    0 => "SEGBASE_FS", 1 => "SEGBASE_GS_USER", 2 => "SEGBASE_GS_KERNEL", 3 => "SEGBASE_GS_USER_SEL",
});

pub(super) const SET_SEGMENT_BASE: Hypercall = plain(
    25,
    "set_segment_base",
    &[arg("which", Type::enumeration(Int::U32, &SEGMENT_BASE)), arg("base", Type::ADDRESS)],
);

enumeration!(ASSIST = "VMASST_TYPE_*" {
    0 => "VMASST_TYPE_4gb_segments", 1 => "VMASST_TYPE_4gb_segments_notify",
    2 => "VMASST_TYPE_writable_pagetables", 3 => "VMASST_TYPE_pae_extended_cr3",
    4 => "VMASST_TYPE_architectural_iopl", 5 => "VMASST_TYPE_runstate_update_flag",
    32 => "VMASST_TYPE_m2p_strict",
});

const CMD: Arg = arg("cmd", Type::U32);
const VM_ASSIST_ARGS: &[Arg] = &[CMD, arg("type", Type::enumeration(Int::U32, &ASSIST))];

const BY_CMD: SubOpFrom = SubOpFrom::Arg { index: 0, mask: u32::MAX as u64 };

pub(super) const VM_ASSIST: Hypercall = Hypercall {
    number: 21,
    name: "vm_assist",
    args: VM_ASSIST_ARGS,
    returns: Show::Errno,
    sub_ops: Some(SubOps {
        from: BY_CMD,
        ops: &[op(0, "VMASST_CMD_enable", VM_ASSIST_ARGS), op(1, "VMASST_CMD_disable", VM_ASSIST_ARGS)],
    }),
};

structure!(NMI_CALLBACK = "struct xennmi_callback" {
    field("handler_address", Type::ADDRESS),
    field("pad", Type::ULONG),
});

pub(super) const NMI_OP: Hypercall = Hypercall {
    number: 28,
    name: "nmi_op",
    args: &[CMD, arg("arg", Type::ADDRESS)],
    returns: Show::Errno,
    sub_ops: Some(SubOps {
        from: BY_CMD,
        ops: &[
            op(
                0,
                "XENNMI_register_callback",
                &[CMD, arg("arg", handle!(In, Type::Struct(&NMI_CALLBACK), Count::One))],
            ),
            op(1, "XENNMI_unregister_callback", &[CMD]),
        ],
    }),
};

enumeration!(CALLBACK_TYPE = "CALLBACKTYPE_*" {
    0 => "CALLBACKTYPE_event", 1 => "CALLBACKTYPE_failsafe", 2 => "CALLBACKTYPE_syscall",
    3 => "CALLBACKTYPE_sysenter_deprecated", 4 => "CALLBACKTYPE_nmi", 5 => "CALLBACKTYPE_sysenter",
    7 => "CALLBACKTYPE_syscall32",
});

flag_set!(CALLBACK_FLAGS = "CALLBACKF_*" { 1 => "CALLBACKF_mask_events" });

structure!(CALLBACK_REGISTER = "struct callback_register" {
    field("type", Type::enumeration(Int::U16, &CALLBACK_TYPE)),
    field("flags", Type::flags(Int::U16, &CALLBACK_FLAGS)),
    field("address", CALLBACK),
});

structure!(CALLBACK_UNREGISTER = "struct callback_unregister" {
    field("type", Type::enumeration(Int::U16, &CALLBACK_TYPE)),
    field("_unused", Type::U16),
});

const CALLBACK_CMD: Arg = arg("cmd", Type::S32);

pub(super) const CALLBACK_OP: Hypercall = Hypercall {
    number: 30,
    name: "callback_op",
    args: &[CALLBACK_CMD, arg("arg", Type::ADDRESS)],
    returns: Show::Errno,
    sub_ops: Some(SubOps {
        from: BY_CMD,
        ops: &[
            op(
                0,
                "CALLBACKOP_register",
                &[CALLBACK_CMD, arg("arg", handle!(In, Type::Struct(&CALLBACK_REGISTER), Count::One))],
            ),
            op(
                1,
                "CALLBACKOP_unregister",
                &[CALLBACK_CMD, arg("arg", handle!(In, Type::Struct(&CALLBACK_UNREGISTER), Count::One))],
            ),
        ],
    }),
};
