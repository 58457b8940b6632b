//! Power states of the machine and its processors (Xen public/platform.h).

use crate::xen::prelude::*;

flag_set!(SLEEP_FLAGS = "XENPF_ACPI_SLEEP_*" { 1 => "XENPF_ACPI_SLEEP_EXTENDED" });
structure!(pub(super) ENTER_ACPI_SLEEP = "struct xenpf_enter_acpi_sleep" {
    field("val_a", Type::HEX16),
    field("val_b", Type::HEX16),
    field("sleep_state", Type::U32),
    field("flags", Type::flags(Int::U32, &SLEEP_FLAGS)),
});
structure!(pub(super) CHANGE_FREQ = "struct xenpf_change_freq" {
    field("flags", Type::HEX32),
    field("cpu", Type::U32),
    field("freq", Type::U64),
});
structure!(pub(super) GETIDLETIME = "struct xenpf_getidletime" {
    field("cpumap_bitmap", handle!(InOut, Type::Bytes(1), Count::FieldBits("cpumap_nr_cpus"))),
    field("cpumap_nr_cpus", Type::U32),
    field("idletime", handle!(Out, Type::NANOSECONDS, Count::Field("cpumap_nr_cpus"))),
    field("now", Type::NANOSECONDS).out(),
});

structure!(POWER_REGISTER = "struct xen_power_register" {
    field("space_id", Type::U32),
    field("bit_width", Type::U32),
    field("bit_offset", Type::U32),
    field("access_size", Type::U32),
    field("address", Type::ADDRESS64),
});
structure!(CSD = "struct xen_processor_csd" {
    field("domain", Type::U32),
    // As ACPI numbers it.
    field("coord_type", Type::HEX32),
    field("num", Type::U32),
});
structure!(CX = "struct xen_processor_cx" {
    field("reg", Type::Struct(&POWER_REGISTER)),
    field("type", Type::U8),
    field("latency", Type::U32),
    field("power", Type::U32),
    field("dpcnt", Type::U32),
    field("dp", handle!(In, Type::Struct(&CSD), Count::Field("dpcnt"))),
});
/// The bit fields of `struct xen_processor_flags`.
const PROCESSOR_FLAGS: FlagSet = FlagSet {
    name: "struct xen_processor_flags",
    bits: &[
        (0x1, 0x1, "bm_control"),
        (0x2, 0x2, "bm_check"),
        (0x4, 0x4, "has_cst"),
        (0x8, 0x8, "power_setup_done"),
        (0x10, 0x10, "bm_rld_set"),
    ],
    parts: &[],
};
structure!(POWER = "struct xen_processor_power" {
    field("count", Type::U32),
    field("flags", Type::flags(Int::U32, &PROCESSOR_FLAGS)),
    field("states", handle!(In, Type::Struct(&CX), Count::Field("count"))),
});

structure!(PCT_REGISTER = "struct xen_pct_register" {
    field("descriptor", Type::HEX8),
    field("length", Type::U16),
    field("space_id", Type::U8),
    field("bit_width", Type::U8),
    field("bit_offset", Type::U8),
    field("reserved", Type::HEX8),
    field("address", Type::ADDRESS64),
});
structure!(PX = "struct xen_processor_px" {
    field("core_frequency", Type::U64),
    field("power", Type::U64),
    field("transition_latency", Type::U64),
    field("bus_master_latency", Type::U64),
    field("control", Type::HEX64),
    field("status", Type::HEX64),
});
structure!(PSD_PACKAGE = "struct xen_psd_package" {
    field("num_entries", Type::U64),
    field("revision", Type::U64),
    field("domain", Type::U64),
    field("coord_type", Type::HEX64),
    field("num_processors", Type::U64),
});
flag_set!(PX_FLAGS = "XEN_PX_*" {
    1 => "XEN_PX_PCT", 2 => "XEN_PX_PSS", 4 => "XEN_PX_PPC", 8 => "XEN_PX_PSD",
});
enumeration!(COORDINATION = "XEN_CPUPERF_SHARED_TYPE_*" {
    1 => "XEN_CPUPERF_SHARED_TYPE_HW", 2 => "XEN_CPUPERF_SHARED_TYPE_ALL",
    3 => "XEN_CPUPERF_SHARED_TYPE_ANY",
});
structure!(PERFORMANCE = "struct xen_processor_performance" {
    field("flags", Type::flags(Int::U32, &PX_FLAGS)),
    field("platform_limit", Type::U32),
    field("control_register", Type::Struct(&PCT_REGISTER)),
    field("status_register", Type::Struct(&PCT_REGISTER)),
    field("state_count", Type::U32),
    field("states", handle!(In, Type::Struct(&PX), Count::Field("state_count"))),
    field("domain_info", Type::Struct(&PSD_PACKAGE)),
    field("shared_type", Type::enumeration(Int::U32, &COORDINATION)),
});

enumeration!(PM_TYPE = "XEN_PM_*" { 0 => "XEN_PM_CX", 1 => "XEN_PM_PX", 2 => "XEN_PM_TX", 3 => "XEN_PM_PDC" });
structure!(pub(super) SET_PROCESSOR_PMINFO = "struct xenpf_set_processor_pminfo" {
    field("id", Type::U32),
    field("type", Type::enumeration(Int::U32, &PM_TYPE)),
    field("u", Type::Union(&Union { tag: Tag::Field("type"), min_size: 0, cases: &[
        case(&[0], "power", Type::Struct(&POWER)),
        case(&[1], "perf", Type::Struct(&PERFORMANCE)),
        // ACPI's _PDC: a revision, a number of words, and the one word that Xen reads and changes.
        case(&[3], "pdc", handle!(InOut, Type::HEX32, Count::Fixed(3))),
    ] })),
});

enumeration!(CORE_PARKING_TYPE = "XEN_CORE_PARKING_*" {
    1 => "XEN_CORE_PARKING_SET", 2 => "XEN_CORE_PARKING_GET",
});
structure!(pub(super) CORE_PARKING = "struct xenpf_core_parking" {
    field("type", Type::enumeration(Int::U32, &CORE_PARKING_TYPE)),
    field("idle_nums", Type::U32).inout(),
});
