//! Calls into the firmware and what it has told Xen (Xen public/platform.h).

use crate::xen::prelude::*;

enumeration!(EFI_FUNCTION = "XEN_EFI_*" {
    1 => "XEN_EFI_get_time", 2 => "XEN_EFI_set_time", 3 => "XEN_EFI_get_wakeup_time",
    4 => "XEN_EFI_set_wakeup_time", 5 => "XEN_EFI_get_next_high_monotonic_count",
    6 => "XEN_EFI_get_variable", 7 => "XEN_EFI_set_variable", 8 => "XEN_EFI_get_next_variable_name",
    9 => "XEN_EFI_query_variable_info", 10 => "XEN_EFI_query_capsule_capabilities",
    11 => "XEN_EFI_update_capsule",
});

structure!(EFI_TIME = "struct xenpf_efi_time" {
    field("year", Type::U16),
    field("month", Type::U8),
    field("day", Type::U8),
    field("hour", Type::U8),
    field("min", Type::U8),
    field("sec", Type::U8),
    field("ns", Type::U32),
    field("tz", Type::S16),
    field("daylight", Type::U8),
});
structure!(EFI_GUID = "struct xenpf_efi_guid" {
    field("data1", Type::HEX32),
    field("data2", Type::HEX16),
    field("data3", Type::HEX16),
    field("data4", Type::array(&Type::HEX8, 8)),
});
structure!(GET_TIME = "struct xenpf_efi_runtime_call.u.get_time" {
    field("time", Type::Struct(&EFI_TIME)).out(),
    field("resolution", Type::U32).out(),
    field("accuracy", Type::U32).out(),
});

/// UTF-16 units of a variable's name that are looked at.
const NAME: Count = Count::WideText(256);
structure!(GET_VARIABLE = "struct xenpf_efi_runtime_call.u.get_variable" {
    field("name", handle!(In, Type::U16, NAME)),
    field("size", Type::ULONG).inout(),
    field("data", handle!(Out, Type::Bytes(1), Count::Field("size"))),
    field("vendor_guid", Type::Struct(&EFI_GUID)),
});
structure!(SET_VARIABLE = "struct xenpf_efi_runtime_call.u.set_variable" {
    field("name", handle!(In, Type::U16, NAME)),
    field("size", Type::ULONG),
    field("data", handle!(In, Type::Bytes(1), Count::Field("size"))),
    field("vendor_guid", Type::Struct(&EFI_GUID)),
});
structure!(GET_NEXT_VARIABLE_NAME = "struct xenpf_efi_runtime_call.u.get_next_variable_name" {
    field("size", Type::ULONG).inout(),
    field("name", handle!(InOut, Type::U16, NAME)),
    field("vendor_guid", Type::Struct(&EFI_GUID)).inout(),
});
structure!(QUERY_VARIABLE_INFO = "struct xenpf_efi_runtime_call.u.query_variable_info" {
    field("attr", Type::flags(Int::U32, &VARIABLE)),
    field("max_store_size", Type::U64).out(),
    field("remain_store_size", Type::U64).out(),
    field("max_size", Type::U64).out(),
});
structure!(QUERY_CAPSULE_CAPABILITIES = "struct xenpf_efi_runtime_call.u.query_capsule_capabilities" {
    field("capsule_header_array", handle!(In, Type::ADDRESS, Count::Field("capsule_count"))),
    field("capsule_count", Type::ULONG),
    field("max_capsule_size", Type::U64).out(),
    field("reset_type", Type::U32).out(),
});
structure!(UPDATE_CAPSULE = "struct xenpf_efi_runtime_call.u.update_capsule" {
    field("capsule_header_array", handle!(In, Type::ADDRESS, Count::Field("capsule_count"))),
    field("capsule_count", Type::ULONG),
    field("sg_list", Type::ADDRESS64),
});

flag_set!(VARIABLE = "XEN_EFI_VARIABLE_*" {
    1 => "XEN_EFI_VARIABLE_NON_VOLATILE", 2 => "XEN_EFI_VARIABLE_BOOTSERVICE_ACCESS",
    4 => "XEN_EFI_VARIABLE_RUNTIME_ACCESS",
});
flag_set!(GET_TIME_FLAGS = "XEN_EFI_GET_TIME_*" { 1 => "XEN_EFI_GET_TIME_SET_CLEARS_NS" });
flag_set!(GET_WAKEUP_FLAGS = "XEN_EFI_GET_WAKEUP_TIME_*" {
    1 => "XEN_EFI_GET_WAKEUP_TIME_ENABLED", 2 => "XEN_EFI_GET_WAKEUP_TIME_PENDING",
});
flag_set!(SET_WAKEUP_FLAGS = "XEN_EFI_SET_WAKEUP_TIME_*" {
    1 => "XEN_EFI_SET_WAKEUP_TIME_ENABLE", 2 => "XEN_EFI_SET_WAKEUP_TIME_ENABLE_ONLY",
});
flag_set!(VARINFO_FLAGS = "XEN_EFI_VARINFO_*" { 1 => "XEN_EFI_VARINFO_BOOT_SNAPSHOT" });

structure!(pub(super) EFI_RUNTIME_CALL = "struct xenpf_efi_runtime_call" {
    field("function", Type::enumeration(Int::U32, &EFI_FUNCTION)),
    field("misc", Type::Union(&Union { tag: Tag::Field("function"), min_size: 0, cases: &[
        case(&[1], "", Type::flags(Int::U32, &GET_TIME_FLAGS)),
        case(&[3], "", Type::flags(Int::U32, &GET_WAKEUP_FLAGS)),
        case(&[4], "", Type::flags(Int::U32, &SET_WAKEUP_FLAGS)),
        case(&[6, 7], "", Type::flags(Int::U32, &VARIABLE)),
        case(&[9], "", Type::flags(Int::U32, &VARINFO_FLAGS)),
        // The count itself, for get_next_high_monotonic_count.
        case(&[], "", Type::U32),
    ] })).inout(),
    field("status", Type::HEXLONG).out(),
    field("u", Type::Union(&Union { tag: Tag::Field("function"), min_size: 0, cases: &[
        case(&[1], "get_time", Type::Struct(&GET_TIME)),
        case(&[2], "set_time", Type::Struct(&EFI_TIME)),
        case(&[3], "get_wakeup_time", Type::Struct(&EFI_TIME)).out(),
        case(&[4], "set_wakeup_time", Type::Struct(&EFI_TIME)),
        case(&[6], "get_variable", Type::Struct(&GET_VARIABLE)),
        case(&[7], "set_variable", Type::Struct(&SET_VARIABLE)),
        case(&[8], "get_next_variable_name", Type::Struct(&GET_NEXT_VARIABLE_NAME)),
        case(&[9], "query_variable_info", Type::Struct(&QUERY_VARIABLE_INFO)),
        case(&[10], "query_capsule_capabilities", Type::Struct(&QUERY_CAPSULE_CAPABILITIES)),
        case(&[11], "update_capsule", Type::Struct(&UPDATE_CAPSULE)),
    ] })),
});

enumeration!(FIRMWARE_TYPE = "XEN_FW_*" {
    1 => "XEN_FW_DISK_INFO", 2 => "XEN_FW_DISK_MBR_SIGNATURE", 3 => "XEN_FW_VBEDDC_INFO",
    4 => "XEN_FW_EFI_INFO", 5 => "XEN_FW_KBD_SHIFT_FLAGS",
});
enumeration!(EFI_INFO_INDEX = "XEN_FW_EFI_*" {
    0 => "XEN_FW_EFI_VERSION", 1 => "XEN_FW_EFI_CONFIG_TABLE", 2 => "XEN_FW_EFI_VENDOR",
    3 => "XEN_FW_EFI_MEM_INFO", 4 => "XEN_FW_EFI_RT_VERSION", 5 => "XEN_FW_EFI_PCI_ROM",
    6 => "XEN_FW_EFI_APPLE_PROPERTIES",
});
structure!(DISK_INFO = "struct xenpf_firmware_info.u.disk_info" {
    field("device", Type::HEX8).out(),
    field("version", Type::HEX8).out(),
    field("interface_support", Type::HEX16).out(),
    field("legacy_max_cylinder", Type::U16).out(),
    field("legacy_max_head", Type::U8).out(),
    field("legacy_sectors_per_track", Type::U8).out(),
    // The buffer begins with its size. 74 bytes are what EDD 3 defines for INT 13h, AH=48h.
    field("edd_params", handle!(InOut, Type::Bytes(1), Count::Fixed(74))),
});
structure!(DISK_MBR_SIGNATURE = "struct xenpf_firmware_info.u.disk_mbr_signature" {
    field("device", Type::HEX8).out(),
    field("mbr_signature", Type::HEX32).out(),
});
structure!(VBEDDC_INFO = "struct xenpf_firmware_info.u.vbeddc_info" {
    field("capabilities", Type::HEX8).out(),
    field("edid_transfer_time", Type::U8).out(),
    field("edid", handle!(Out, Type::Bytes(1), Count::Fixed(128))),
});
structure!(EFI_CFG = "union xenpf_efi_info.cfg" {
    field("addr", Type::ADDRESS64).out(),
    field("nent", Type::U32).out(),
});
structure!(EFI_VENDOR = "union xenpf_efi_info.vendor" {
    field("revision", Type::HEX32).out(),
    field("bufsz", Type::U32),
    field("name", handle!(Out, Type::U16, NAME)),
});
structure!(EFI_MEM = "union xenpf_efi_info.mem" {
    field("addr", Type::ADDRESS64).inout(),
    field("size", Type::U64).inout(),
    field("attr", Type::HEX64).out(),
    field("type", Type::U32).out(),
});
structure!(EFI_PCI_ROM = "union xenpf_efi_info.pci_rom" {
    field("segment", Type::HEX16),
    field("bus", Type::HEX8),
    field("devfn", Type::HEX8),
    field("vendor", Type::HEX16),
    field("devid", Type::HEX16),
    field("address", Type::ADDRESS64).out(),
    field("size", Type::ULONG).out(),
});
structure!(EFI_APPLE_PROPERTIES = "union xenpf_efi_info.apple_properties" {
    field("address", Type::ADDRESS64).out(),
    field("size", Type::ULONG).out(),
});
const EFI_INFO: Type = Type::Union(&Union {
    tag: Tag::Field("index"),
    min_size: 0,
    cases: &[
        case(&[0, 4], "version", Type::HEX32).out(),
        case(&[1], "cfg", Type::Struct(&EFI_CFG)),
        case(&[2], "vendor", Type::Struct(&EFI_VENDOR)),
        case(&[3], "mem", Type::Struct(&EFI_MEM)),
        case(&[5], "pci_rom", Type::Struct(&EFI_PCI_ROM)),
        case(&[6], "apple_properties", Type::Struct(&EFI_APPLE_PROPERTIES)),
    ],
});
structure!(pub(super) FIRMWARE_INFO = "struct xenpf_firmware_info" {
    field("type", Type::enumeration(Int::U32, &FIRMWARE_TYPE)),
    field("index", Type::Union(&Union { tag: Tag::Field("type"), min_size: 0, cases: &[
        case(&[4], "", Type::enumeration(Int::U32, &EFI_INFO_INDEX)),
        case(&[], "", Type::U32),
    ] })),
    field("u", Type::Union(&Union { tag: Tag::Field("type"), min_size: 0, cases: &[
        case(&[1], "disk_info", Type::Struct(&DISK_INFO)),
        case(&[2], "disk_mbr_signature", Type::Struct(&DISK_MBR_SIGNATURE)),
        case(&[3], "vbeddc_info", Type::Struct(&VBEDDC_INFO)),
        case(&[4], "efi_info", EFI_INFO),
        case(&[5], "kbd_shift_flags", Type::HEX8).out(),
    ] })),
});
