//! `argo_op` (Xen public/argo.h).

use super::prelude::*;

structure!(IOV = "xen_argo_iov_t" {
    field("iov_hnd", handle!(In, Type::Bytes(1), Count::Field("iov_len"))),
    field("iov_len", Type::U32),
    field("pad", Type::U32),
});
structure!(ADDR = "xen_argo_addr_t" {
    field("aport", Type::U32),
    field("domain_id", Type::DOMID),
    field("pad", Type::U16),
});
structure!(SEND_ADDR = "xen_argo_send_addr_t" {
    field("src", Type::Struct(&ADDR)),
    field("dst", Type::Struct(&ADDR)),
});
// DOMID_INVALID as the partner means any: XEN_ARGO_DOMID_ANY.
structure!(REGISTER_RING = "xen_argo_register_ring_t" {
    field("aport", Type::U32),
    field("partner_id", Type::DOMID),
    field("pad", Type::U16),
    field("len", Type::U32),
});
structure!(UNREGISTER_RING = "xen_argo_unregister_ring_t" {
    field("aport", Type::U32),
    field("partner_id", Type::DOMID),
    field("pad", Type::U16),
});

flag_set!(RING_FLAGS = "XEN_ARGO_RING_*" {
    0x1 => "XEN_ARGO_RING_EXISTS", 0x2 => "XEN_ARGO_RING_SHARED", 0x4 => "XEN_ARGO_RING_EMPTY",
    0x8 => "XEN_ARGO_RING_SUFFICIENT", 0x10 => "XEN_ARGO_RING_EMSGSIZE", 0x20 => "XEN_ARGO_RING_EBUSY",
});
structure!(RING_DATA_ENT = "xen_argo_ring_data_ent_t" {
    field("ring", Type::Struct(&ADDR)),
    field("flags", Type::flags(Int::U16, &RING_FLAGS)).out(),
    field("pad", Type::U16),
    field("space_required", Type::U32),
    field("max_message_size", Type::U32).out(),
});
structure!(RING_DATA = "xen_argo_ring_data_t" {
    field("nent", Type::U32),
    field("pad", Type::U32),
    field("data", tail!(InOut, Type::Struct(&RING_DATA_ENT), Count::Field("nent"))),
});

flag_set!(REGISTER_FLAGS = "XEN_ARGO_REGISTER_FLAG_*" { 1 => "XEN_ARGO_REGISTER_FLAG_FAIL_EXIST" });

const CMD: Arg = arg("cmd", Type::U32);
const UNUSED_3: Arg = arg("arg3", Type::ULONG);
const UNUSED_4: Arg = arg("arg4", Type::HEXLONG);
const ALL: u64 = u64::MAX;

pub(super) const ARGO_OP: Hypercall = Hypercall {
    number: 39,
    name: "argo_op",
    args: &[CMD, arg("arg1", Type::ADDRESS), arg("arg2", Type::ADDRESS), UNUSED_3, UNUSED_4],
    returns: Show::Errno,
    sub_ops: Some(SubOps {
        from: SubOpFrom::Arg { index: 0, mask: u32::MAX as u64 },
        ops: &[
            op(
                1,
                "XEN_ARGO_OP_register_ring",
                &[
                    CMD,
                    arg("reg", handle!(In, Type::Struct(&REGISTER_RING), Count::One)),
                    arg("gfns", handle!(In, Type::FRAME64, Count::Arg { index: 3, mask: ALL })),
                    arg("npages", Type::ULONG),
                    arg("flags", Type::flags(Int::Ulong, &REGISTER_FLAGS)),
                ],
            ),
            op(
                2,
                "XEN_ARGO_OP_unregister_ring",
                &[
                    CMD,
                    arg("unreg", handle!(In, Type::Struct(&UNREGISTER_RING), Count::One)),
                    arg("arg2", Type::ADDRESS),
                    UNUSED_3,
                    UNUSED_4,
                ],
            ),
            op(
                3,
                "XEN_ARGO_OP_sendv",
                &[
                    CMD,
                    arg("send_addr", handle!(In, Type::Struct(&SEND_ADDR), Count::One)),
                    arg("iovs", handle!(In, Type::Struct(&IOV), Count::Arg { index: 3, mask: ALL })),
                    arg("niov", Type::ULONG),
                    arg("message_type", Type::HEXLONG),
                ],
            )
            .returning(Show::Dec),
            op(
                4,
                "XEN_ARGO_OP_notify",
                &[
                    CMD,
                    arg("ring_data", handle!(InOut, Type::Struct(&RING_DATA), Count::One)),
                    arg("arg2", Type::ADDRESS),
                    UNUSED_3,
                    UNUSED_4,
                ],
            ),
        ],
    }),
};
