//! `xen_version` (Xen public/version.h, features.h).

use super::prelude::*;

structure!(COMPILE_INFO = "struct xen_compile_info" {
    field("compiler", Type::Chars(64)).out(),
    field("compile_by", Type::Chars(16)).out(),
    field("compile_domain", Type::Chars(32)).out(),
    field("compile_date", Type::Chars(32)).out(),
});

structure!(PLATFORM_PARAMETERS = "struct xen_platform_parameters" { field("virt_start", Type::ADDRESS).out() });

flag_set!(FEATURES = "XENFEAT_*" {
    1 => "XENFEAT_writable_page_tables",
    1 << 1 => "XENFEAT_writable_descriptor_tables",
    1 << 2 => "XENFEAT_auto_translated_physmap",
    1 << 3 => "XENFEAT_supervisor_mode_kernel",
    1 << 4 => "XENFEAT_pae_pgdir_above_4gb",
    1 << 5 => "XENFEAT_mmu_pt_update_preserve_ad",
    1 << 6 => "XENFEAT_highmem_assist",
    1 << 7 => "XENFEAT_gnttab_map_avail_bits",
    1 << 8 => "XENFEAT_hvm_callback_vector",
    1 << 9 => "XENFEAT_hvm_safe_pvclock",
    1 << 10 => "XENFEAT_hvm_pirqs",
    1 << 11 => "XENFEAT_dom0",
    1 << 12 => "XENFEAT_grant_map_identity",
    1 << 13 => "XENFEAT_memory_op_vnode_supported",
    1 << 14 => "XENFEAT_ARM_SMCCC_supported",
    1 << 15 => "XENFEAT_linux_rsdp_unrestricted",
    1 << 16 => "XENFEAT_not_direct_mapped",
    1 << 17 => "XENFEAT_direct_mapped",
    1 << 18 => "XENFEAT_runstate_phys_area",
    1 << 19 => "XENFEAT_vcpu_time_phys_area",
    1 << 20 => "XENFEAT_dm_msix_all_writes",
});

structure!(FEATURE_INFO = "struct xen_feature_info" {
    field("submap_idx", Type::U32),
    field("submap", Type::Union(&Union { tag: Tag::Field("submap_idx"), min_size: 0, cases: &[
        case(&[0], "", Type::flags(Int::U32, &FEATURES)),
        case(&[], "", Type::HEX32),
    ] })).out(),
});

structure!(BUILD_ID = "struct xen_build_id" {
    field("len", Type::U32),
    field("buf", tail!(Out, Type::Bytes(1), Count::Field("len"))),
});

structure!(VARBUF = "struct xen_varbuf" {
    field("len", Type::U32),
    field("buf", tail!(Out, Type::Chars(1), Count::Field("len"))),
});

const CMD: Arg = arg("cmd", Type::S32);

macro_rules! version {
    ($number:literal, $name:literal) => {
        op($number, $name, &[CMD])
    };
    ($number:literal, $name:literal, $direction:ident $ty:expr) => {
        op($number, $name, &[CMD, arg("arg", handle!($direction, $ty, Count::One))])
    };
}

pub(super) const XEN_VERSION: Hypercall = Hypercall {
    number: 17,
    name: "xen_version",
    args: &[CMD, arg("arg", Type::ADDRESS)],
    returns: Show::Hex,
    sub_ops: Some(SubOps {
        from: SubOpFrom::Arg { index: 0, mask: u32::MAX as u64 },
        ops: &[
            // Major and minor, 16 bits each.
            version!(0, "XENVER_version").returning(Show::Hex),
            version!(1, "XENVER_extraversion", Out Type::Chars(16)),
            version!(2, "XENVER_compile_info", Out Type::Struct(&COMPILE_INFO)),
            version!(3, "XENVER_capabilities", Out Type::Chars(1024)),
            version!(4, "XENVER_changeset", Out Type::Chars(64)),
            version!(5, "XENVER_platform_parameters", Out Type::Struct(&PLATFORM_PARAMETERS)),
            version!(6, "XENVER_get_features", InOut Type::Struct(&FEATURE_INFO)),
            version!(7, "XENVER_pagesize").returning(Show::Dec),
            version!(8, "XENVER_guest_handle", Out Type::Bytes(16)),
            version!(9, "XENVER_commandline", Out Type::Chars(1024)),
            // These return how many bytes they wrote, or would write. All but the first are new after 4.17.
            version!(10, "XENVER_build_id", In Type::Struct(&BUILD_ID)).returning(Show::Dec),
            version!(11, "XENVER_extraversion2", In Type::Struct(&VARBUF)).returning(Show::Dec),
            version!(12, "XENVER_capabilities2", In Type::Struct(&VARBUF)).returning(Show::Dec),
            version!(13, "XENVER_changeset2", In Type::Struct(&VARBUF)).returning(Show::Dec),
            version!(14, "XENVER_commandline2", In Type::Struct(&VARBUF)).returning(Show::Dec),
        ],
    }),
};
