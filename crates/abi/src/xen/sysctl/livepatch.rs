//! Live patches (Xen public/sysctl.h, `XEN_SYSCTL_livepatch_op`).

use crate::xen::prelude::*;

structure!(NAME = "struct xen_livepatch_name" {
    field("name", handle64!(In, Type::Chars(1), Count::Field("size"))),
    field("size", Type::U16),
    field("pad", Type::array(&Type::U16, 3)),
});

structure!(UPLOAD = "struct xen_sysctl_livepatch_upload" {
    field("name", Type::Struct(&NAME)),
    field("size", Type::U64),
    field("payload", handle64!(In, Type::Bytes(1), Count::Field("size"))),
});

enumeration!(STATE = "LIVEPATCH_STATE_*" { 1 => "LIVEPATCH_STATE_CHECKED", 2 => "LIVEPATCH_STATE_APPLIED" });
structure!(STATUS = "struct xen_livepatch_status" {
    field("state", Type::enumeration(Int::U32, &STATE)).out(),
    field("rc", Type::ERRNO32).out(),
});
structure!(GET = "struct xen_sysctl_livepatch_get" {
    field("name", Type::Struct(&NAME)),
    field("status", Type::Struct(&STATUS)),
});

// `nr` comes back as the number of patches that are left: what the arrays hold is the call's result, which the
// capture cannot know. So of a list in several steps all are shown, of the last step only the texts.
structure!(LIST = "struct xen_sysctl_livepatch_list" {
    field("version", Type::U32).out(),
    field("idx", Type::U32),
    field("nr", Type::U32).inout(),
    field("pad", Type::U32),
    field("name_total_size", Type::U32).out(),
    field("metadata_total_size", Type::U32).out(),
    field("status", handle64!(Out, Type::Struct(&STATUS), Count::Field("nr"))),
    field("name", handle64!(Out, Type::Chars(1), Count::Field("name_total_size"))),
    field("len", handle64!(Out, Type::U32, Count::Field("nr"))),
    field("metadata", handle64!(Out, Type::Chars(1), Count::Field("metadata_total_size"))),
    field("metadata_len", handle64!(Out, Type::U32, Count::Field("nr"))),
});

enumeration!(ACTION_CMD = "LIVEPATCH_ACTION_*" {
    1 => "LIVEPATCH_ACTION_UNLOAD", 2 => "LIVEPATCH_ACTION_REVERT", 3 => "LIVEPATCH_ACTION_APPLY",
    4 => "LIVEPATCH_ACTION_REPLACE",
});
flag_set!(ACTION_FLAGS = "flags of an action" { 1 => "LIVEPATCH_ACTION_APPLY_NODEPS" });
structure!(ACTION = "struct xen_sysctl_livepatch_action" {
    field("name", Type::Struct(&NAME)),
    field("cmd", Type::enumeration(Int::U32, &ACTION_CMD)),
    field("timeout", Type::int(Int::U32, Show::Nanoseconds)),
    field("flags", Type::flags(Int::U32, &ACTION_FLAGS)),
    field("pad", Type::U32),
});

enumeration!(LIVEPATCH_CMD = "XEN_SYSCTL_LIVEPATCH_*" {
    0 => "XEN_SYSCTL_LIVEPATCH_UPLOAD", 1 => "XEN_SYSCTL_LIVEPATCH_GET", 2 => "XEN_SYSCTL_LIVEPATCH_LIST",
    3 => "XEN_SYSCTL_LIVEPATCH_ACTION",
});
flag_set!(LIVEPATCH_FLAGS = "LIVEPATCH_FLAG_*" { 1 => "LIVEPATCH_FLAG_FORCE" });
structure!(pub(super) LIVEPATCH_OP = "struct xen_sysctl_livepatch_op" {
    field("cmd", Type::enumeration(Int::U32, &LIVEPATCH_CMD)),
    // Padding in 4.17.
    field("flags", Type::flags(Int::U32, &LIVEPATCH_FLAGS)),
    field("u", Type::Union(&Union { tag: Tag::Field("cmd"), min_size: 0, cases: &[
        case(&[0], "upload", Type::Struct(&UPLOAD)),
        case(&[1], "get", Type::Struct(&GET)),
        case(&[2], "list", Type::Struct(&LIST)),
        case(&[3], "action", Type::Struct(&ACTION)),
    ] })),
});
