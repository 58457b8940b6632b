//! `kexec_op` (Xen public/kexec.h).

use super::prelude::*;

enumeration!(TYPE = "KEXEC_TYPE_*" { 0 => "KEXEC_TYPE_DEFAULT", 1 => "KEXEC_TYPE_CRASH" });

structure!(EXEC = "xen_kexec_exec_t" { field("type", Type::enumeration(Int::S32, &TYPE)) });

structure!(IMAGE = "xen_kexec_image_t" {
    field("page_list", Type::array(&Type::ADDRESS, 17)),
    field("indirection_page", Type::ADDRESS),
    field("start_address", Type::ADDRESS),
});
structure!(LOAD_V1 = "xen_kexec_load_v1_t" {
    field("type", Type::enumeration(Int::S32, &TYPE)),
    field("image", Type::Struct(&IMAGE)),
});

enumeration!(RANGE_KIND = "KEXEC_RANGE_MA_*" {
    0 => "KEXEC_RANGE_MA_CRASH", 1 => "KEXEC_RANGE_MA_XEN", 2 => "KEXEC_RANGE_MA_CPU",
    3 => "KEXEC_RANGE_MA_XENHEAP", 4 => "KEXEC_RANGE_MA_BOOT_PARAM", 5 => "KEXEC_RANGE_MA_EFI_MEMMAP",
    6 => "KEXEC_RANGE_MA_VMCOREINFO",
});
structure!(RANGE = "xen_kexec_range_t" {
    field("range", Type::enumeration(Int::S32, &RANGE_KIND)),
    field("nr", Type::S32),
    field("size", Type::ULONG).out(),
    field("start", Type::ADDRESS).out(),
});

structure!(SEGMENT = "xen_kexec_segment_t" {
    field("buf", Type::Union(&Union { tag: Tag::SubOp, min_size: 8, cases: &[
        case(&[], "", handle!(In, Type::Bytes(1), Count::Field("buf_size"))),
    ] })),
    field("buf_size", Type::U64),
    field("dest_maddr", Type::ADDRESS64),
    field("dest_size", Type::U64),
});
enumeration!(MACHINE = "ELF machine types (EM_*)" { 3 => "i386", 62 => "x86_64" });
structure!(LOAD = "xen_kexec_load_t" {
    field("type", Type::enumeration(Int::U8, &TYPE)),
    field("_pad", Type::U8),
    field("arch", Type::enumeration(Int::U16, &MACHINE)),
    field("nr_segments", Type::U32),
    field("segments", Type::Union(&Union { tag: Tag::SubOp, min_size: 8, cases: &[
        case(&[], "", handle!(In, Type::Struct(&SEGMENT), Count::Field("nr_segments"))),
    ] })),
    field("entry_maddr", Type::ADDRESS64),
});
structure!(UNLOAD = "xen_kexec_unload_t" { field("type", Type::enumeration(Int::U8, &TYPE)) });
structure!(STATUS = "xen_kexec_status_t" { field("type", Type::enumeration(Int::U8, &TYPE)) });

const CMD: Arg = arg("cmd", Type::ULONG);

macro_rules! kexec {
    ($number:literal, $name:literal, $direction:ident $structure:ident) => {
        op($number, $name, &[CMD, arg("args", handle!($direction, Type::Struct(&$structure), Count::One))])
    };
}

pub(super) const KEXEC_OP: Hypercall = Hypercall {
    number: 37,
    name: "kexec_op",
    args: &[CMD, arg("args", Type::ADDRESS)],
    returns: Show::Errno,
    sub_ops: Some(SubOps {
        from: SubOpFrom::Arg { index: 0, mask: u64::MAX },
        ops: &[
            kexec!(0, "KEXEC_CMD_kexec", In EXEC),
            kexec!(1, "KEXEC_CMD_kexec_load_v1", In LOAD_V1),
            kexec!(2, "KEXEC_CMD_kexec_unload_v1", In LOAD_V1),
            kexec!(3, "KEXEC_CMD_kexec_get_range", InOut RANGE),
            kexec!(4, "KEXEC_CMD_kexec_load", In LOAD),
            kexec!(5, "KEXEC_CMD_kexec_unload", In UNLOAD),
            kexec!(6, "KEXEC_CMD_kexec_status", In STATUS).returning(Show::Bool),
        ],
    }),
};
