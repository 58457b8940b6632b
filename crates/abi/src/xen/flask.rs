//! `xsm_op`, the operations of Flask (Xen public/xsm/flask_op.h).

use super::commands::commands;
use super::prelude::*;

structure!(LOAD = "struct xen_flask_load" {
    field("buffer", handle!(In, Type::Bytes(1), Count::Field("size"))),
    field("size", Type::U32),
});
structure!(SETENFORCE = "struct xen_flask_setenforce" { field("enforcing", Type::BOOL32) });
structure!(CONTEXT_TO_SID = "struct xen_flask_sid_context" {
    field("sid", Type::U32).out(),
    field("size", Type::U32),
    field("context", handle!(In, Type::Chars(1), Count::Field("size"))),
});
structure!(SID_TO_CONTEXT = "struct xen_flask_sid_context" {
    field("sid", Type::U32),
    field("size", Type::U32).inout(),
    field("context", handle!(Out, Type::Chars(1), Count::Field("size"))),
});
structure!(ACCESS = "struct xen_flask_access" {
    field("ssid", Type::U32),
    field("tsid", Type::U32),
    field("tclass", Type::U32),
    field("req", Type::HEX32),
    field("allowed", Type::HEX32).out(),
    field("audit_allow", Type::HEX32).out(),
    field("audit_deny", Type::HEX32).out(),
    field("seqno", Type::U32).out(),
});
structure!(TRANSITION = "struct xen_flask_transition" {
    field("ssid", Type::U32),
    field("tsid", Type::U32),
    field("tclass", Type::U32),
    field("newsid", Type::U32).out(),
});
// The answer, a list of ids, went where the name was; it is no longer given.
structure!(USERLIST = "struct xen_flask_userlist" {
    field("start_sid", Type::U32),
    field("size", Type::U32).inout(),
    field("u", Type::Union(&Union { tag: Tag::SubOp, min_size: 0, cases: &[
        case(&[], "user", handle!(In, Type::Chars(1), Count::Field("size"))),
        case(&[], "sids", handle!(Out, Type::U32, Count::Field("size"))),
    ] })),
});

enumeration!(BOOL_ID = "a boolean's number, or none" { 0xffff_ffff => "by_name" });
structure!(GETBOOL = "struct xen_flask_boolean" {
    field("bool_id", Type::enumeration(Int::U32, &BOOL_ID)).inout(),
    field("enforcing", Type::BOOL8).out(),
    field("pending", Type::BOOL8).out(),
    field("new_value", Type::BOOL8),
    field("commit", Type::BOOL8),
    field("size", Type::U32).inout(),
    field("name", handle!(InOut, Type::Chars(1), Count::Field("size"))),
});
structure!(SETBOOL = "struct xen_flask_boolean" {
    field("bool_id", Type::enumeration(Int::U32, &BOOL_ID)).inout(),
    field("enforcing", Type::BOOL8).out(),
    field("pending", Type::BOOL8).out(),
    field("new_value", Type::BOOL8),
    field("commit", Type::BOOL8),
    field("size", Type::U32),
    field("name", handle!(In, Type::Chars(1), Count::Field("size"))),
});
structure!(SETAVC_THRESHOLD = "struct xen_flask_setavc_threshold" { field("threshold", Type::U32) });
structure!(HASH_STATS = "struct xen_flask_hash_stats" {
    field("entries", Type::U32).out(),
    field("buckets_used", Type::U32).out(),
    field("buckets_total", Type::U32).out(),
    field("max_chain_len", Type::U32).out(),
});
structure!(CACHE_STATS = "struct xen_flask_cache_stats" {
    field("cpu", Type::U32),
    field("lookups", Type::U32).out(),
    field("hits", Type::U32).out(),
    field("misses", Type::U32).out(),
    field("allocations", Type::U32).out(),
    field("reclaims", Type::U32).out(),
    field("frees", Type::U32).out(),
});
// `ocon` says what the range is of: interrupts, I/O ports, memory, PCI devices. The names are Xen's own.
structure!(OCONTEXT = "struct xen_flask_ocontext" {
    field("ocon", Type::U32),
    field("sid", Type::U32),
    field("low", Type::HEX64),
    field("high", Type::HEX64),
});
structure!(PEERSID = "struct xen_flask_peersid" {
    field("evtchn", Type::PORT),
    field("sid", Type::U32).out(),
});
structure!(RELABEL = "struct xen_flask_relabel" {
    field("domid", Type::DOMID32),
    field("sid", Type::U32),
});
structure!(DEVICETREE_LABEL = "struct xen_flask_devicetree_label" {
    field("sid", Type::U32),
    field("length", Type::U32),
    field("path", handle!(In, Type::Chars(1), Count::Field("length"))),
});

commands!(CMD, OPS = "FLASK_*", &[ARG], {
    1 => "FLASK_LOAD", 2 => "FLASK_GETENFORCE" returns Bool, 3 => "FLASK_SETENFORCE",
    4 => "FLASK_CONTEXT_TO_SID", 5 => "FLASK_SID_TO_CONTEXT", 6 => "FLASK_ACCESS", 7 => "FLASK_CREATE",
    8 => "FLASK_RELABEL", 9 => "FLASK_USER", 10 => "FLASK_POLICYVERS" returns Dec, 11 => "FLASK_GETBOOL",
    12 => "FLASK_SETBOOL", 13 => "FLASK_COMMITBOOLS", 14 => "FLASK_MLS" returns Bool, 15 => "FLASK_DISABLE",
    16 => "FLASK_GETAVC_THRESHOLD" returns Dec, 17 => "FLASK_SETAVC_THRESHOLD", 18 => "FLASK_AVC_HASHSTATS",
    19 => "FLASK_AVC_CACHESTATS", 20 => "FLASK_MEMBER", 21 => "FLASK_ADD_OCONTEXT",
    22 => "FLASK_DEL_OCONTEXT", 23 => "FLASK_GET_PEER_SID", 24 => "FLASK_RELABEL_DOMAIN",
    25 => "FLASK_DEVICETREE_LABEL",
});

structure!(FLASK_OP = "struct xen_flask_op" {
    field("cmd", Type::enumeration(Int::U32, &CMD)),
    field("interface_version", Type::U32),
    field("u", Type::Union(&Union { tag: Tag::Field("cmd"), min_size: 0, cases: &[
        case(&[1], "load", Type::Struct(&LOAD)),
        case(&[3], "enforce", Type::Struct(&SETENFORCE)),
        case(&[4], "sid_context", Type::Struct(&CONTEXT_TO_SID)),
        case(&[5], "sid_context", Type::Struct(&SID_TO_CONTEXT)),
        case(&[6], "access", Type::Struct(&ACCESS)),
        case(&[7, 8, 20], "transition", Type::Struct(&TRANSITION)),
        case(&[9], "userlist", Type::Struct(&USERLIST)),
        case(&[11], "boolean", Type::Struct(&GETBOOL)),
        case(&[12], "boolean", Type::Struct(&SETBOOL)),
        case(&[17], "setavc_threshold", Type::Struct(&SETAVC_THRESHOLD)),
        case(&[18], "hash_stats", Type::Struct(&HASH_STATS)),
        case(&[19], "cache_stats", Type::Struct(&CACHE_STATS)),
        case(&[21, 22], "ocontext", Type::Struct(&OCONTEXT)),
        case(&[23], "peersid", Type::Struct(&PEERSID)),
        case(&[24], "relabel", Type::Struct(&RELABEL)),
        case(&[25], "devicetree_label", Type::Struct(&DEVICETREE_LABEL)),
    ] })),
});

const ARG: Arg = arg("u_flask_op", handle!(InOut, Type::Struct(&FLASK_OP), Count::One));

pub(super) const XSM_OP: Hypercall = Hypercall {
    number: 27,
    name: "xsm_op",
    args: &[ARG],
    returns: Show::Errno,
    sub_ops: Some(SubOps { from: SubOpFrom::Memory { index: 0 }, ops: OPS }),
};
