//! `platform_op` (Xen public/platform.h).
//!
//! 4.20 added the commands from 64 on; all else is as in 4.17.

mod firmware;
mod power;

use super::commands::commands;
use super::prelude::*;

structure!(SETTIME32 = "struct xenpf_settime32" {
    field("secs", Type::U32),
    field("nsecs", Type::U32),
    field("system_time", Type::NANOSECONDS),
});
structure!(SETTIME64 = "struct xenpf_settime64" {
    field("secs", Type::U64),
    field("nsecs", Type::U32),
    field("mbz", Type::U32),
    field("system_time", Type::NANOSECONDS),
});

structure!(ADD_MEMTYPE = "struct xenpf_add_memtype" {
    field("mfn", Type::PFN),
    field("nr_mfns", Type::U64),
    field("type", Type::U32),
    field("handle", Type::U32).out(),
    field("reg", Type::U32).out(),
});
structure!(DEL_MEMTYPE = "struct xenpf_del_memtype" {
    field("handle", Type::U32),
    field("reg", Type::U32),
});
structure!(READ_MEMTYPE = "struct xenpf_read_memtype" {
    field("reg", Type::U32),
    field("mfn", Type::PFN).out(),
    field("nr_mfns", Type::U64).out(),
    field("type", Type::U32).out(),
});

structure!(MICROCODE_UPDATE = "struct xenpf_microcode_update" {
    field("data", handle!(In, Type::Bytes(1), Count::Field("length"))),
    field("length", Type::U32),
});
enumeration!(QUIRK = "QUIRK_*" {
    1 => "QUIRK_NOIRQBALANCING", 2 => "QUIRK_IOAPIC_BAD_REGSEL", 3 => "QUIRK_IOAPIC_GOOD_REGSEL",
});
structure!(PLATFORM_QUIRK = "struct xenpf_platform_quirk" {
    field("quirk_id", Type::enumeration(Int::U32, &QUIRK)),
});

flag_set!(PCPU_FLAGS = "XEN_PCPU_FLAGS_*" { 1 => "XEN_PCPU_FLAGS_ONLINE", 2 => "XEN_PCPU_FLAGS_INVALID" });
structure!(PCPUINFO = "struct xenpf_pcpuinfo" {
    field("xen_cpuid", Type::U32),
    field("max_present", Type::U32).out(),
    field("flags", Type::flags(Int::U32, &PCPU_FLAGS)).out(),
    field("apic_id", Type::U32).out(),
    field("acpi_id", Type::U32).out(),
});
structure!(PCPU_VERSION = "struct xenpf_pcpu_version" {
    field("xen_cpuid", Type::U32),
    field("max_present", Type::U32).out(),
    field("vendor_id", Type::Chars(12)).out(),
    field("family", Type::U32).out(),
    field("model", Type::U32).out(),
    field("stepping", Type::U32).out(),
});
structure!(CPU_OL = "struct xenpf_cpu_ol" { field("cpuid", Type::U32) });
structure!(CPU_HOTADD = "struct xenpf_cpu_hotadd" {
    field("apic_id", Type::U32),
    field("acpi_id", Type::U32),
    field("pxm", Type::U32),
});
structure!(MEM_HOTADD = "struct xenpf_mem_hotadd" {
    field("spfn", Type::FRAME64),
    field("epfn", Type::FRAME64),
    field("pxm", Type::U32),
    field("flags", Type::HEX32),
});

enumeration!(RESOURCE_CMD = "XEN_RESOURCE_OP_*" {
    0 => "XEN_RESOURCE_OP_MSR_READ", 1 => "XEN_RESOURCE_OP_MSR_WRITE",
});
structure!(RESOURCE_ENTRY = "struct xenpf_resource_entry" {
    // Of the entry that failed Xen replaces the command by the error.
    field("u", Type::Union(&Union { tag: Tag::SubOp, min_size: 0, cases: &[
        case(&[], "cmd", Type::enumeration(Int::U32, &RESOURCE_CMD)),
        case(&[], "ret", Type::ERRNO32).out(),
    ] })),
    field("rsvd", Type::U32),
    field("idx", Type::HEX64),
    field("val", Type::HEX64).inout(),
});
structure!(RESOURCE_OP = "struct xenpf_resource_op" {
    field("nr_entries", Type::U32),
    field("cpu", Type::U32),
    field("entries", handle!(InOut, Type::Struct(&RESOURCE_ENTRY), Count::Field("nr_entries"))),
});

structure!(SYMDATA = "struct xenpf_symdata" {
    field("namelen", Type::U32).inout(),
    field("symnum", Type::U32).inout(),
    field("name", handle!(Out, Type::Chars(1), Count::Field("namelen"))),
    field("address", Type::ADDRESS64).out(),
    field("type", Type::Chars(1)).out(),
});

enumeration!(VIDEO_TYPE = "XEN_VGATYPE_*" {
    0x03 => "XEN_VGATYPE_TEXT_MODE_3", 0x23 => "XEN_VGATYPE_VESA_LFB", 0x70 => "XEN_VGATYPE_EFI_LFB",
});
structure!(TEXT_MODE_3 = "dom0_vga_console_info_t.u.text_mode_3" {
    field("font_height", Type::U16),
    field("cursor_x", Type::U16),
    field("cursor_y", Type::U16),
    field("rows", Type::U16),
    field("columns", Type::U16),
});
structure!(VESA_LFB = "dom0_vga_console_info_t.u.vesa_lfb" {
    field("width", Type::U16),
    field("height", Type::U16),
    field("bytes_per_line", Type::U16),
    field("bits_per_pixel", Type::U16),
    field("lfb_base", Type::int(Int::U32, Show::Address)),
    field("lfb_size", Type::U32),
    field("red_pos", Type::U8),
    field("red_size", Type::U8),
    field("green_pos", Type::U8),
    field("green_size", Type::U8),
    field("blue_pos", Type::U8),
    field("blue_size", Type::U8),
    field("rsvd_pos", Type::U8),
    field("rsvd_size", Type::U8),
    field("gbl_caps", Type::HEX32),
    field("mode_attrs", Type::HEX16),
    field("pad", Type::U16),
    field("ext_lfb_base", Type::HEX32),
});
structure!(DOM0_CONSOLE = "dom0_vga_console_info_t" {
    field("video_type", Type::enumeration(Int::U8, &VIDEO_TYPE)).out(),
    field("u", Type::Union(&Union { tag: Tag::Field("video_type"), min_size: 0, cases: &[
        case(&[0x03], "text_mode_3", Type::Struct(&TEXT_MODE_3)),
        case(&[0x23, 0x70], "vesa_lfb", Type::Struct(&VESA_LFB)),
    ] })).out(),
});

structure!(UCODE_REVISION = "struct xenpf_ucode_revision" {
    field("cpu", Type::U32),
    field("signature", Type::HEX32).out(),
    field("pf", Type::HEX32).out(),
    field("revision", Type::HEX32).out(),
});
flag_set!(UCODE_FLAGS = "XENPF_UCODE_*" { 1 => "XENPF_UCODE_FORCE" });
structure!(MICROCODE_UPDATE2 = "struct xenpf_microcode_update2" {
    field("flags", Type::flags(Int::U32, &UCODE_FLAGS)),
    field("length", Type::U32),
    field("data", handle!(In, Type::Bytes(1), Count::Field("length"))),
});

commands!(CMD, OPS = "XENPF_*", &[ARG], {
    17 => "XENPF_settime32", 31 => "XENPF_add_memtype", 32 => "XENPF_del_memtype",
    33 => "XENPF_read_memtype", 35 => "XENPF_microcode_update", 39 => "XENPF_platform_quirk",
    48 => "XENPF_get_cpu_version", 49 => "XENPF_efi_runtime_call", 50 => "XENPF_firmware_info",
    51 => "XENPF_enter_acpi_sleep", 52 => "XENPF_change_freq", 53 => "XENPF_getidletime",
    54 => "XENPF_set_processor_pminfo", 55 => "XENPF_get_cpuinfo", 56 => "XENPF_cpu_online",
    57 => "XENPF_cpu_offline", 58 => "XENPF_cpu_hotadd", 59 => "XENPF_mem_hotadd",
    60 => "XENPF_core_parking", 61 => "XENPF_resource_op" returns Dec, 62 => "XENPF_settime64",
    63 => "XENPF_get_symbol", 64 => "XENPF_get_dom0_console" returns Dec, 65 => "XENPF_get_ucode_revision",
    66 => "XENPF_microcode_update2",
});

structure!(PLATFORM = "struct xen_platform_op" {
    field("cmd", Type::enumeration(Int::U32, &CMD)),
    field("interface_version", Type::HEX32),
    field("u", Type::Union(&Union { tag: Tag::Field("cmd"), min_size: 128, cases: &[
        case(&[17], "settime32", Type::Struct(&SETTIME32)),
        case(&[62], "settime64", Type::Struct(&SETTIME64)),
        case(&[31], "add_memtype", Type::Struct(&ADD_MEMTYPE)),
        case(&[32], "del_memtype", Type::Struct(&DEL_MEMTYPE)),
        case(&[33], "read_memtype", Type::Struct(&READ_MEMTYPE)),
        case(&[35], "microcode", Type::Struct(&MICROCODE_UPDATE)),
        case(&[39], "platform_quirk", Type::Struct(&PLATFORM_QUIRK)),
        case(&[49], "efi_runtime_call", Type::Struct(&firmware::EFI_RUNTIME_CALL)),
        case(&[50], "firmware_info", Type::Struct(&firmware::FIRMWARE_INFO)),
        case(&[51], "enter_acpi_sleep", Type::Struct(&power::ENTER_ACPI_SLEEP)),
        case(&[52], "change_freq", Type::Struct(&power::CHANGE_FREQ)),
        case(&[53], "getidletime", Type::Struct(&power::GETIDLETIME)),
        case(&[54], "set_pminfo", Type::Struct(&power::SET_PROCESSOR_PMINFO)),
        case(&[55], "pcpu_info", Type::Struct(&PCPUINFO)),
        case(&[48], "pcpu_version", Type::Struct(&PCPU_VERSION)),
        case(&[56, 57], "cpu_ol", Type::Struct(&CPU_OL)),
        case(&[58], "cpu_add", Type::Struct(&CPU_HOTADD)),
        case(&[59], "mem_add", Type::Struct(&MEM_HOTADD)),
        case(&[60], "core_parking", Type::Struct(&power::CORE_PARKING)),
        case(&[61], "resource_op", Type::Struct(&RESOURCE_OP)),
        case(&[63], "symdata", Type::Struct(&SYMDATA)),
        case(&[64], "dom0_console", Type::Struct(&DOM0_CONSOLE)),
        case(&[65], "ucode_revision", Type::Struct(&UCODE_REVISION)),
        case(&[66], "microcode2", Type::Struct(&MICROCODE_UPDATE2)),
    ] })),
});

const ARG: Arg = arg("u_xenpf_op", handle!(InOut, Type::Struct(&PLATFORM), Count::One));

pub(super) const PLATFORM_OP: Hypercall = Hypercall {
    number: 7,
    name: "platform_op",
    args: &[ARG],
    returns: Show::Errno,
    sub_ops: Some(SubOps { from: SubOpFrom::Memory { index: 0 }, ops: OPS }),
};
