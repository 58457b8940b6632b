//! `hypfs_op` (Xen public/hypfs.h).

use super::prelude::*;

enumeration!(TYPE = "XEN_HYPFS_TYPE_*" {
    0 => "XEN_HYPFS_TYPE_DIR", 1 => "XEN_HYPFS_TYPE_BLOB", 2 => "XEN_HYPFS_TYPE_STRING",
    3 => "XEN_HYPFS_TYPE_UINT", 4 => "XEN_HYPFS_TYPE_INT", 5 => "XEN_HYPFS_TYPE_BOOL",
});
enumeration!(ENCODING = "XEN_HYPFS_ENC_*" { 0 => "XEN_HYPFS_ENC_PLAIN", 1 => "XEN_HYPFS_ENC_GZIP" });

// What a read leaves: a `struct xen_hypfs_direntry` and the contents behind it. The contents of a directory
// are `struct xen_hypfs_dirlistentry` one behind the other, each as long as it says: they are shown as bytes.
// After -ENOBUFS only the first part is Xen's.
structure!(ENTRY = "" {
    field("type", Type::enumeration(Int::U8, &TYPE)),
    field("encoding", Type::enumeration(Int::U8, &ENCODING)),
    field("pad", Type::U16),
    field("content_len", Type::U32),
    field("max_write_len", Type::U32),
    field("content", tail!(Out, Type::Bytes(1), Count::Field("content_len"))),
});

const CMD: Arg = arg("cmd", Type::U32);
/// `XEN_HYPFS_MAX_PATHLEN`; the length in arg2 counts the NUL.
const PATH: Arg = arg("path", handle!(In, Type::Chars(1), Count::Text(1024)));
const PATH_LEN: Arg = arg("path_len", Type::ULONG);
const DATA_LEN: Arg = arg("data_len", Type::ULONG);
const DATA: Count = Count::Arg { index: 4, mask: u64::MAX };

pub(super) const HYPFS_OP: Hypercall = Hypercall {
    number: 42,
    name: "hypfs_op",
    args: &[
        CMD,
        arg("arg1", Type::ADDRESS),
        arg("arg2", Type::ULONG),
        arg("arg3", Type::ADDRESS),
        arg("arg4", Type::ULONG),
    ],
    returns: Show::Errno,
    sub_ops: Some(SubOps {
        from: SubOpFrom::Arg { index: 0, mask: u32::MAX as u64 },
        ops: &[
            op(0, "XEN_HYPFS_OP_get_version", &[CMD]).returning(Show::Dec),
            op(
                1,
                "XEN_HYPFS_OP_read",
                &[CMD, PATH, PATH_LEN, arg("data", handle!(Out, Type::Struct(&ENTRY), Count::One)), DATA_LEN],
            ),
            op(
                2,
                "XEN_HYPFS_OP_write_contents",
                &[CMD, PATH, PATH_LEN, arg("data", handle!(In, Type::Bytes(1), DATA)), DATA_LEN],
            ),
        ],
    }),
};
