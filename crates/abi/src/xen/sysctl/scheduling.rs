//! Schedulers and pools of processors (Xen public/sysctl.h).

use crate::xen::bitmap::BITMAP_OUT;
use crate::xen::domctl::scheduling::SCHEDULER;
use crate::xen::prelude::*;

const SCHEDULER_NUMBER: Type = Type::enumeration(Int::U32, &SCHEDULER);

structure!(pub(super) SCHED_ID = "struct xen_sysctl_sched_id" { field("sched_id", SCHEDULER_NUMBER).out() });

enumeration!(CPUPOOL_CMD = "XEN_SYSCTL_CPUPOOL_OP_*" {
    1 => "XEN_SYSCTL_CPUPOOL_OP_CREATE", 2 => "XEN_SYSCTL_CPUPOOL_OP_DESTROY",
    3 => "XEN_SYSCTL_CPUPOOL_OP_INFO", 4 => "XEN_SYSCTL_CPUPOOL_OP_ADDCPU",
    5 => "XEN_SYSCTL_CPUPOOL_OP_RMCPU", 6 => "XEN_SYSCTL_CPUPOOL_OP_MOVEDOMAIN",
    7 => "XEN_SYSCTL_CPUPOOL_OP_FREEINFO",
});
enumeration!(ANY = "a number, or any" { 0xffff_ffff => "XEN_SYSCTL_CPUPOOL_PAR_ANY" });
structure!(pub(super) CPUPOOL_OP = "struct xen_sysctl_cpupool_op" {
    field("op", Type::enumeration(Int::U32, &CPUPOOL_CMD)),
    field("cpupool_id", Type::enumeration(Int::U32, &ANY)).inout(),
    field("sched_id", SCHEDULER_NUMBER).inout(),
    field("domid", Type::DOMID32),
    field("cpu", Type::enumeration(Int::U32, &ANY)),
    field("n_dom", Type::U32).out(),
    field("cpumap", Type::Struct(&BITMAP_OUT)),
});

structure!(ARINC653_ENTRY = "struct xen_sysctl_arinc653_schedule.sched_entries[0]" {
    field("dom_handle", Type::Bytes(16)),
    field("vcpu_id", Type::VCPU),
    field("runtime", Type::NANOSECONDS_A),
});
// Both ways, and so each field: which one it is depends on the command of the struct that leads here.
structure!(ARINC653 = "struct xen_sysctl_arinc653_schedule" {
    field("major_frame", Type::NANOSECONDS_A).inout(),
    field("num_sched_entries", Type::U8).inout(),
    field("sched_entries", Type::array(&Type::Struct(&ARINC653_ENTRY), 64)).inout(),
});
structure!(SCHED_ARINC653 = "struct xen_sysctl_sched_arinc653" {
    field("schedule", handle64!(InOut, Type::Struct(&ARINC653), Count::One)),
});
structure!(CREDIT = "struct xen_sysctl_credit_schedule" {
    field("tslice_ms", Type::U32).inout(),
    field("ratelimit_us", Type::U32).inout(),
    field("vcpu_migr_delay_us", Type::U32).inout(),
});
structure!(CREDIT2 = "struct xen_sysctl_credit2_schedule" { field("ratelimit_us", Type::U32).inout() });

enumeration!(SCHEDOP = "XEN_SYSCTL_SCHEDOP_*" {
    0 => "XEN_SYSCTL_SCHEDOP_putinfo", 1 => "XEN_SYSCTL_SCHEDOP_getinfo",
});
structure!(pub(super) SCHEDULER_OP = "struct xen_sysctl_scheduler_op" {
    field("cpupool_id", Type::U32),
    field("sched_id", SCHEDULER_NUMBER),
    field("cmd", Type::enumeration(Int::U32, &SCHEDOP)),
    field("u", Type::Union(&Union { tag: Tag::Field("sched_id"), min_size: 0, cases: &[
        case(&[7], "sched_arinc653", Type::Struct(&SCHED_ARINC653)),
        case(&[5], "sched_credit", Type::Struct(&CREDIT)),
        case(&[6], "sched_credit2", Type::Struct(&CREDIT2)),
    ] })),
});
