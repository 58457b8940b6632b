//! `grant_table_op` (Xen public/grant_table.h).

use super::prelude::*;

// Negative numbers in an int16_t.
enumeration!(STATUS = "enum grant_status" {
    0 => "GNTST_okay",
    0xffff => "GNTST_general_error",
    0xfffe => "GNTST_bad_domain",
    0xfffd => "GNTST_bad_gntref",
    0xfffc => "GNTST_bad_handle",
    0xfffb => "GNTST_bad_virt_addr",
    0xfffa => "GNTST_bad_dev_addr",
    0xfff9 => "GNTST_no_device_space",
    0xfff8 => "GNTST_permission_denied",
    0xfff7 => "GNTST_bad_page",
    0xfff6 => "GNTST_bad_copy_arg",
    0xfff5 => "GNTST_address_too_big",
    0xfff4 => "GNTST_eagain",
    0xfff3 => "GNTST_no_space",
});

const STATUS_FIELD: Field = field("status", Type::enumeration(Int::S16, &STATUS)).out();

flag_set!(MAP_FLAGS = "GNTMAP_*" {
    1 => "GNTMAP_device_map",
    2 => "GNTMAP_host_map",
    4 => "GNTMAP_readonly",
    8 => "GNTMAP_application_map",
    0x10 => "GNTMAP_contains_pte",
} parts { 0xffff_0000 => "guest_avail" });

structure!(MAP_GRANT_REF = "struct gnttab_map_grant_ref" {
    field("host_addr", Type::ADDRESS64),
    field("flags", Type::flags(Int::U32, &MAP_FLAGS)),
    field("ref", Type::GRANT_REF),
    field("dom", Type::DOMID),
    STATUS_FIELD,
    field("handle", Type::U32).out(),
    field("dev_bus_addr", Type::ADDRESS64).out(),
});

structure!(UNMAP_GRANT_REF = "struct gnttab_unmap_grant_ref" {
    field("host_addr", Type::ADDRESS64),
    field("dev_bus_addr", Type::ADDRESS64),
    field("handle", Type::U32),
    STATUS_FIELD,
});

structure!(SETUP_TABLE = "struct gnttab_setup_table" {
    field("dom", Type::DOMID),
    field("nr_frames", Type::U32),
    STATUS_FIELD,
    field("frame_list", handle!(Out, Type::PFN, Count::Field("nr_frames"))),
});

structure!(DUMP_TABLE = "struct gnttab_dump_table" {
    field("dom", Type::DOMID),
    STATUS_FIELD,
});

structure!(TRANSFER = "struct gnttab_transfer" {
    field("mfn", Type::PFN),
    field("domid", Type::DOMID),
    field("ref", Type::GRANT_REF),
    STATUS_FIELD,
});

flag_set!(COPY_FLAGS = "GNTCOPY_*" { 1 => "GNTCOPY_source_gref", 2 => "GNTCOPY_dest_gref" });

/// Source or destination of a copy: a bit of the copy's flags says whether it is a grant or a frame.
macro_rules! copy_ptr {
    ($name:ident, $gref:literal) => {
        structure!($name = "struct gnttab_copy_ptr" {
            field("u", Type::Union(&Union {
                tag: Tag::Bits { field: "flags", mask: $gref },
                min_size: 0,
                cases: &[case(&[$gref], "ref", Type::GRANT_REF), case(&[0], "gmfn", Type::PFN)],
            })),
            field("domid", Type::DOMID),
            field("offset", Type::U16),
        });
    };
}
copy_ptr!(COPY_SOURCE, 1);
copy_ptr!(COPY_DEST, 2);

structure!(COPY = "struct gnttab_copy" {
    field("source", Type::Struct(&COPY_SOURCE)),
    field("dest", Type::Struct(&COPY_DEST)),
    field("len", Type::U16),
    field("flags", Type::flags(Int::U16, &COPY_FLAGS)),
    STATUS_FIELD,
});

structure!(QUERY_SIZE = "struct gnttab_query_size" {
    field("dom", Type::DOMID),
    field("nr_frames", Type::U32).out(),
    field("max_nr_frames", Type::U32).out(),
    STATUS_FIELD,
});

structure!(UNMAP_AND_REPLACE = "struct gnttab_unmap_and_replace" {
    field("host_addr", Type::ADDRESS64),
    field("new_addr", Type::ADDRESS64),
    field("handle", Type::U32),
    STATUS_FIELD,
});

structure!(SET_VERSION = "struct gnttab_set_version" { field("version", Type::U32).inout() });

structure!(GET_STATUS_FRAMES = "struct gnttab_get_status_frames" {
    field("nr_frames", Type::U32),
    field("dom", Type::DOMID),
    STATUS_FIELD,
    field("frame_list", handle!(Out, Type::FRAME64, Count::Field("nr_frames"))),
});

structure!(GET_VERSION = "struct gnttab_get_version" {
    field("dom", Type::DOMID),
    field("pad", Type::U16),
    field("version", Type::U32).out(),
});

structure!(SWAP_GRANT_REF = "struct gnttab_swap_grant_ref" {
    field("ref_a", Type::GRANT_REF),
    field("ref_b", Type::GRANT_REF),
    STATUS_FIELD,
});

const SOURCE_GREF: u64 = 1 << 31;

flag_set!(CACHE_OPS = "GNTTAB_CACHE_*" {
    1 => "GNTTAB_CACHE_CLEAN", 2 => "GNTTAB_CACHE_INVAL", SOURCE_GREF => "GNTTAB_CACHE_SOURCE_GREF",
});

structure!(CACHE_FLUSH = "struct gnttab_cache_flush" {
    field("a", Type::Union(&Union { tag: Tag::Bits { field: "op", mask: SOURCE_GREF }, min_size: 0, cases: &[
        case(&[0], "dev_bus_addr", Type::ADDRESS64),
        case(&[SOURCE_GREF], "ref", Type::GRANT_REF),
    ] })),
    field("offset", Type::U16),
    field("length", Type::U16),
    field("op", Type::flags(Int::U32, &CACHE_OPS)),
});

const CMD: Arg = arg("cmd", Type::U32);
const COUNT: Arg = arg("count", Type::U32);

/// Bits above these carry the state of a continued cache flush (`GNTTABOP_CONTINUATION_ARG_SHIFT`).
const GNTTABOP_CMD_MASK: u64 = 0xfff;

/// Every command takes `count` elements of its own struct.
macro_rules! gnttab {
    ($number:literal, $name:literal, $direction:ident $structure:ident) => {
        op(
            $number,
            $name,
            &[
                CMD,
                arg(
                    "uop",
                    handle!(
                        $direction,
                        Type::Struct(&$structure),
                        Count::Arg { index: 2, mask: u32::MAX as u64 }
                    ),
                ),
                COUNT,
            ],
        )
    };
}

pub(super) const GRANT_TABLE_OP: Hypercall = Hypercall {
    number: 20,
    name: "grant_table_op",
    args: &[CMD, arg("uop", Type::ADDRESS), COUNT],
    returns: Show::Errno,
    sub_ops: Some(SubOps {
        from: SubOpFrom::Arg { index: 0, mask: GNTTABOP_CMD_MASK },
        ops: &[
            gnttab!(0, "GNTTABOP_map_grant_ref", InOut MAP_GRANT_REF),
            gnttab!(1, "GNTTABOP_unmap_grant_ref", InOut UNMAP_GRANT_REF),
            gnttab!(2, "GNTTABOP_setup_table", InOut SETUP_TABLE),
            gnttab!(3, "GNTTABOP_dump_table", InOut DUMP_TABLE),
            gnttab!(4, "GNTTABOP_transfer", InOut TRANSFER),
            gnttab!(5, "GNTTABOP_copy", InOut COPY),
            gnttab!(6, "GNTTABOP_query_size", InOut QUERY_SIZE),
            gnttab!(7, "GNTTABOP_unmap_and_replace", InOut UNMAP_AND_REPLACE),
            gnttab!(8, "GNTTABOP_set_version", InOut SET_VERSION),
            gnttab!(9, "GNTTABOP_get_status_frames", InOut GET_STATUS_FRAMES),
            gnttab!(10, "GNTTABOP_get_version", InOut GET_VERSION),
            gnttab!(11, "GNTTABOP_swap_grant_ref", InOut SWAP_GRANT_REF),
            gnttab!(12, "GNTTABOP_cache_flush", In CACHE_FLUSH),
        ],
    }),
};
