//! `xenoprof_op` (Xen public/xenoprof.h). The sample buffers (`struct xenoprof_buf`) that guest and Xen share
//! are no arguments of the call and so not described here.

use super::prelude::*;

structure!(INIT = "struct xenoprof_init" {
    field("num_events", Type::S32),
    field("is_primary", Type::int(Int::S32, Show::Bool)),
    field("cpu_type", Type::Chars(64)),
});
structure!(GET_BUFFER = "struct xenoprof_get_buffer" {
    field("max_samples", Type::S32),
    field("nbuf", Type::S32).out(),
    field("bufsize", Type::S32).out(),
    field("buf_gmaddr", Type::ADDRESS64).inout(),
});
structure!(COUNTER = "struct xenoprof_counter" {
    field("ind", Type::U32),
    field("count", Type::U64),
    field("enabled", Type::BOOL32),
    field("event", Type::HEX32),
    field("hypervisor", Type::BOOL32),
    field("kernel", Type::BOOL32),
    field("user", Type::BOOL32),
    field("unit_mask", Type::HEX64),
});
structure!(PASSIVE = "xenoprof_passive_t" {
    field("domain_id", Type::DOMID),
    field("max_samples", Type::S32),
    field("nbuf", Type::S32).out(),
    field("bufsize", Type::S32).out(),
    field("buf_gmaddr", Type::ADDRESS64).inout(),
});
structure!(IBS_COUNTER = "struct xenoprof_ibs_counter" {
    field("op_enabled", Type::int(Int::U64, Show::Bool)),
    field("fetch_enabled", Type::int(Int::U64, Show::Bool)),
    field("max_cnt_fetch", Type::U64),
    field("max_cnt_op", Type::U64),
    field("rand_en", Type::int(Int::U64, Show::Bool)),
    field("dispatched_ops", Type::U64),
});

const CMD: Arg = arg("op", Type::S32);

macro_rules! xenoprof {
    ($number:literal, $name:literal) => {
        op($number, $name, &[CMD])
    };
    ($number:literal, $name:literal, $direction:ident $ty:expr) => {
        op($number, $name, &[CMD, arg("arg", handle!($direction, $ty, Count::One))])
    };
}

pub(super) const XENOPROF_OP: Hypercall = Hypercall {
    number: 31,
    name: "xenoprof_op",
    args: &[CMD, arg("arg", Type::ADDRESS)],
    returns: Show::Errno,
    sub_ops: Some(SubOps {
        from: SubOpFrom::Arg { index: 0, mask: u32::MAX as u64 },
        ops: &[
            xenoprof!(0, "XENOPROF_init", Out Type::Struct(&INIT)),
            xenoprof!(1, "XENOPROF_reset_active_list"),
            xenoprof!(2, "XENOPROF_reset_passive_list"),
            xenoprof!(3, "XENOPROF_set_active", In Type::DOMID),
            xenoprof!(4, "XENOPROF_set_passive", InOut Type::Struct(&PASSIVE)),
            xenoprof!(5, "XENOPROF_reserve_counters"),
            xenoprof!(6, "XENOPROF_counter", In Type::Struct(&COUNTER)),
            xenoprof!(7, "XENOPROF_setup_events"),
            xenoprof!(8, "XENOPROF_enable_virq"),
            xenoprof!(9, "XENOPROF_start"),
            xenoprof!(10, "XENOPROF_stop"),
            xenoprof!(11, "XENOPROF_disable_virq"),
            xenoprof!(12, "XENOPROF_release_counters"),
            xenoprof!(13, "XENOPROF_shutdown"),
            xenoprof!(14, "XENOPROF_get_buffer", InOut Type::Struct(&GET_BUFFER)),
            xenoprof!(15, "XENOPROF_set_backtrace", In Type::U32),
            xenoprof!(16, "XENOPROF_get_ibs_caps", Out Type::HEX32),
            xenoprof!(17, "XENOPROF_ibs_counter", In Type::Struct(&IBS_COUNTER)),
        ],
    }),
};
