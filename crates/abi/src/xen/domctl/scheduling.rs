//! How a domain is scheduled (Xen public/domctl.h).

use crate::xen::prelude::*;

enumeration!(
    /// Numbers of the schedulers.
    pub(in crate::xen) SCHEDULER = "XEN_SCHEDULER_*" {
        5 => "XEN_SCHEDULER_CREDIT", 6 => "XEN_SCHEDULER_CREDIT2", 7 => "XEN_SCHEDULER_ARINC653",
        8 => "XEN_SCHEDULER_RTDS", 9 => "XEN_SCHEDULER_NULL",
    }
);
const CREDIT_NUMBER: u64 = 5;
const CREDIT2_NUMBER: u64 = 6;
const RTDS_NUMBER: u64 = 8;

structure!(CREDIT = "struct xen_domctl_sched_credit" {
    field("weight", Type::U16),
    field("cap", Type::U16),
});
structure!(CREDIT2 = "struct xen_domctl_sched_credit2" {
    field("weight", Type::U16),
    field("cap", Type::U16),
});
flag_set!(RTDS_FLAGS = "XEN_DOMCTL_SCHEDRT_*" { 1 => "XEN_DOMCTL_SCHEDRT_extra" });
structure!(RTDS = "struct xen_domctl_sched_rtds" {
    field("period", Type::U32),
    field("budget", Type::U32),
    field("flags", Type::flags(Int::U32, &RTDS_FLAGS)),
});

const OF_DOMAIN: Type = Type::Union(&Union {
    tag: Tag::Field("sched_id"),
    min_size: 0,
    cases: &[
        case(&[CREDIT_NUMBER], "credit", Type::Struct(&CREDIT)),
        case(&[CREDIT2_NUMBER], "credit2", Type::Struct(&CREDIT2)),
        case(&[RTDS_NUMBER], "rtds", Type::Struct(&RTDS)),
    ],
});

// Of the schedulers only this one has parameters for each vCPU: the others' members are there for their size.
const OF_VCPU: Type = Type::Union(&Union {
    tag: Tag::Field("vcpuid"),
    min_size: 0,
    cases: &[
        case(&[], "rtds", Type::Struct(&RTDS)),
        case(&[], "credit", Type::Struct(&CREDIT)),
        case(&[], "credit2", Type::Struct(&CREDIT2)),
    ],
});
structure!(PUT_SCHEDPARAM_VCPU = "struct xen_domctl_schedparam_vcpu" {
    field("u", OF_VCPU),
    field("vcpuid", Type::VCPU),
});
structure!(GET_SCHEDPARAM_VCPU = "struct xen_domctl_schedparam_vcpu" {
    field("u", OF_VCPU).out(),
    field("vcpuid", Type::VCPU),
});
structure!(PUT_VCPUS = "struct xen_domctl_scheduler_op.u.v" {
    field("vcpus", handle64!(In, Type::Struct(&PUT_SCHEDPARAM_VCPU), Count::Field("nr_vcpus"))),
    field("nr_vcpus", Type::U32).inout(),
    field("padding", Type::U32),
});
structure!(GET_VCPUS = "struct xen_domctl_scheduler_op.u.v" {
    field("vcpus", handle64!(InOut, Type::Struct(&GET_SCHEDPARAM_VCPU), Count::Field("nr_vcpus"))),
    field("nr_vcpus", Type::U32).inout(),
    field("padding", Type::U32),
});

enumeration!(SCHEDOP = "XEN_DOMCTL_SCHEDOP_*" {
    0 => "XEN_DOMCTL_SCHEDOP_putinfo", 1 => "XEN_DOMCTL_SCHEDOP_getinfo",
    2 => "XEN_DOMCTL_SCHEDOP_putvcpuinfo", 3 => "XEN_DOMCTL_SCHEDOP_getvcpuinfo",
});
structure!(pub(super) SCHEDULER_OP = "struct xen_domctl_scheduler_op" {
    field("sched_id", Type::enumeration(Int::U32, &SCHEDULER)),
    field("cmd", Type::enumeration(Int::U32, &SCHEDOP)),
    field("u", Type::Union(&Union { tag: Tag::Field("cmd"), min_size: 0, cases: &[
        case(&[0], "", OF_DOMAIN),
        case(&[1], "", OF_DOMAIN).out(),
        case(&[2], "v", Type::Struct(&PUT_VCPUS)),
        case(&[3], "v", Type::Struct(&GET_VCPUS)),
    ] })),
});
