//! `xenpmu_op` (Xen public/pmu.h). The page of `struct xen_pmu_data` that guest and Xen share is no argument
//! of the call and so not described here.

use super::prelude::*;

structure!(VERSION = "struct xen_pmu_params.version" {
    field("maj", Type::U32).inout(),
    field("min", Type::U32).inout(),
});
flag_set!(MODE = "XENPMU_MODE_*" { 1 => "XENPMU_MODE_SELF", 2 => "XENPMU_MODE_HV", 4 => "XENPMU_MODE_ALL" });
flag_set!(FEATURE = "XENPMU_FEATURE_*" {
    1 => "XENPMU_FEATURE_INTEL_BTS", 2 => "XENPMU_FEATURE_IPC_ONLY", 4 => "XENPMU_FEATURE_ARCH_ONLY",
});
structure!(PARAMS = "struct xen_pmu_params" {
    field("version", Type::Struct(&VERSION)),
    field("val", Type::Union(&Union { tag: Tag::SubOp, min_size: 0, cases: &[
        case(&[0, 1], "", Type::flags(Int::U64, &MODE)),
        case(&[2, 3], "", Type::flags(Int::U64, &FEATURE)),
        // The frame of the shared page.
        case(&[4, 5], "", Type::FRAME64),
        case(&[], "", Type::HEX64),
    ] })).inout(),
    field("vcpu", Type::VCPU),
    field("pad", Type::U32),
});

const CMD: Arg = arg("op", Type::U32);
const ARGS: &[Arg] = &[CMD, arg("arg", handle!(InOut, Type::Struct(&PARAMS), Count::One))];

pub(super) const XENPMU_OP: Hypercall = Hypercall {
    number: 40,
    name: "xenpmu_op",
    args: &[CMD, arg("arg", Type::ADDRESS)],
    returns: Show::Errno,
    sub_ops: Some(SubOps {
        from: SubOpFrom::Arg { index: 0, mask: u32::MAX as u64 },
        ops: &[
            op(0, "XENPMU_mode_get", ARGS),
            op(1, "XENPMU_mode_set", ARGS),
            op(2, "XENPMU_feature_get", ARGS),
            op(3, "XENPMU_feature_set", ARGS),
            op(4, "XENPMU_init", ARGS),
            op(5, "XENPMU_finish", ARGS),
            op(6, "XENPMU_lvtpc_set", ARGS),
            op(7, "XENPMU_flush", ARGS),
        ],
    }),
};
