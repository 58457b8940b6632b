//! `vcpu_op` (Xen public/vcpu.h).

use super::guest_context::VCPU_GUEST_CONTEXT;
use super::prelude::*;

enumeration!(RUNSTATE = "RUNSTATE_*" {
    0 => "RUNSTATE_running", 1 => "RUNSTATE_runnable", 2 => "RUNSTATE_blocked", 3 => "RUNSTATE_offline",
});

structure!(RUNSTATE_INFO = "struct vcpu_runstate_info" {
    field("state", Type::enumeration(Int::S32, &RUNSTATE)).out(),
    field("state_entry_time", Type::NANOSECONDS).out(),
    field("time", Type::array(&Type::NANOSECONDS, 4)).out(),
});

// Xen keeps the address and writes there later, so it is not followed.
structure!(RUNSTATE_AREA = "struct vcpu_register_runstate_memory_area" {
    field("addr", Type::Union(&Union { tag: Tag::SubOp, min_size: 0, cases: &[
        case(&[5], "h", Type::ADDRESS),
        case(&[14], "p", Type::ADDRESS64),
    ] })),
});

structure!(TIME_AREA = "struct vcpu_register_time_memory_area" {
    field("addr", Type::Union(&Union { tag: Tag::SubOp, min_size: 0, cases: &[
        case(&[13], "h", Type::ADDRESS),
        case(&[15], "p", Type::ADDRESS64),
    ] })),
});

structure!(PERIODIC_TIMER = "struct vcpu_set_periodic_timer" { field("period_ns", Type::NANOSECONDS) });

flag_set!(SINGLESHOT_FLAGS = "VCPU_SSHOTTMR_*" { 1 => "VCPU_SSHOTTMR_future" });
structure!(SINGLESHOT_TIMER = "struct vcpu_set_singleshot_timer" {
    field("timeout_abs_ns", Type::NANOSECONDS),
    field("flags", Type::flags(Int::U32, &SINGLESHOT_FLAGS)),
});

structure!(VCPU_INFO = "struct vcpu_register_vcpu_info" {
    field("mfn", Type::FRAME64),
    field("offset", Type::HEX32),
    field("rsvd", Type::U32),
});

const PHYSICAL_ID: FlagSet = FlagSet {
    name: "a physical processor",
    bits: &[],
    parts: &[(0xffff_ffff, "apic_id"), (0xffff_ffff_0000_0000, "acpi_id")],
};
structure!(PHYSID = "struct vcpu_get_physid" { field("phys_id", Type::flags(Int::U64, &PHYSICAL_ID)).out() });

const CMD: Arg = arg("cmd", Type::S32);
const VCPUID: Arg = arg("vcpuid", Type::VCPU);

macro_rules! vcpu {
    ($number:literal, $name:literal) => {
        op($number, $name, &[CMD, VCPUID])
    };
    ($number:literal, $name:literal, $direction:ident $ty:expr) => {
        op($number, $name, &[CMD, VCPUID, arg("extra_args", handle!($direction, $ty, Count::One))])
    };
}

// HVM guests pass a `struct vcpu_hvm_context` to VCPUOP_initialise (public/hvm/hvm_vcpu.h). Nothing in the call
// tells the two apart, and the kernels of today start HVM processors as hardware does; the PV form is shown.
pub(super) const VCPU_OP: Hypercall = Hypercall {
    number: 24,
    name: "vcpu_op",
    args: &[CMD, VCPUID, arg("extra_args", Type::ADDRESS)],
    returns: Show::Errno,
    sub_ops: Some(SubOps {
        from: SubOpFrom::Arg { index: 0, mask: u32::MAX as u64 },
        ops: &[
            vcpu!(0, "VCPUOP_initialise", In VCPU_GUEST_CONTEXT),
            vcpu!(1, "VCPUOP_up"),
            vcpu!(2, "VCPUOP_down"),
            vcpu!(3, "VCPUOP_is_up").returning(Show::Bool),
            vcpu!(4, "VCPUOP_get_runstate_info", Out Type::Struct(&RUNSTATE_INFO)),
            vcpu!(5, "VCPUOP_register_runstate_memory_area", In Type::Struct(&RUNSTATE_AREA)),
            vcpu!(6, "VCPUOP_set_periodic_timer", In Type::Struct(&PERIODIC_TIMER)),
            vcpu!(7, "VCPUOP_stop_periodic_timer"),
            vcpu!(8, "VCPUOP_set_singleshot_timer", In Type::Struct(&SINGLESHOT_TIMER)),
            vcpu!(9, "VCPUOP_stop_singleshot_timer"),
            vcpu!(10, "VCPUOP_register_vcpu_info", In Type::Struct(&VCPU_INFO)),
            vcpu!(11, "VCPUOP_send_nmi"),
            vcpu!(12, "VCPUOP_get_physid", Out Type::Struct(&PHYSID)),
            vcpu!(13, "VCPUOP_register_vcpu_time_memory_area", In Type::Struct(&TIME_AREA)),
            // New after 4.17.
            vcpu!(14, "VCPUOP_register_runstate_phys_area", In Type::Struct(&RUNSTATE_AREA)),
            vcpu!(15, "VCPUOP_register_vcpu_time_phys_area", In Type::Struct(&TIME_AREA)),
        ],
    }),
};
