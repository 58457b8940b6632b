//! Parameters of HVM guests, `HVM_PARAM_*` (Xen public/hvm/params.h): what each one's value means.

use crate::xen::prelude::*;
use crate::xen::sched::SHUTDOWN;

enumeration!(INDEX = "HVM_PARAM_*" {
    0 => "HVM_PARAM_CALLBACK_IRQ", 1 => "HVM_PARAM_STORE_PFN", 2 => "HVM_PARAM_STORE_EVTCHN",
    4 => "HVM_PARAM_PAE_ENABLED", 5 => "HVM_PARAM_IOREQ_PFN", 6 => "HVM_PARAM_BUFIOREQ_PFN",
    9 => "HVM_PARAM_VIRIDIAN", 10 => "HVM_PARAM_TIMER_MODE", 11 => "HVM_PARAM_HPET_ENABLED",
    12 => "HVM_PARAM_IDENT_PT", 13 => "HVM_PARAM_DM_DOMAIN", 14 => "HVM_PARAM_ACPI_S_STATE",
    15 => "HVM_PARAM_VM86_TSS", 16 => "HVM_PARAM_VPT_ALIGN", 17 => "HVM_PARAM_CONSOLE_PFN",
    18 => "HVM_PARAM_CONSOLE_EVTCHN", 19 => "HVM_PARAM_ACPI_IOPORTS_LOCATION",
    20 => "HVM_PARAM_MEMORY_EVENT_CR0", 21 => "HVM_PARAM_MEMORY_EVENT_CR3",
    22 => "HVM_PARAM_MEMORY_EVENT_CR4", 23 => "HVM_PARAM_MEMORY_EVENT_INT3", 24 => "HVM_PARAM_NESTEDHVM",
    25 => "HVM_PARAM_MEMORY_EVENT_SINGLE_STEP", 26 => "HVM_PARAM_BUFIOREQ_EVTCHN",
    27 => "HVM_PARAM_PAGING_RING_PFN", 28 => "HVM_PARAM_MONITOR_RING_PFN",
    29 => "HVM_PARAM_SHARING_RING_PFN", 30 => "HVM_PARAM_MEMORY_EVENT_MSR",
    31 => "HVM_PARAM_TRIPLE_FAULT_REASON", 32 => "HVM_PARAM_IOREQ_SERVER_PFN",
    33 => "HVM_PARAM_NR_IOREQ_SERVER_PAGES", 34 => "HVM_PARAM_VM_GENERATION_ID_ADDR",
    35 => "HVM_PARAM_ALTP2M", 36 => "HVM_PARAM_X87_FIP_WIDTH", 37 => "HVM_PARAM_VM86_TSS_SIZED",
    38 => "HVM_PARAM_MCA_CAP",
});

// HVM_PARAM_CALLBACK_TYPE_GSI, _PCI_INTX and _VECTOR, in the topmost byte.
const GSI: u64 = 0 << 56;
const PCI_INTX: u64 = 1 << 56;
const VECTOR: u64 = 2 << 56;
const TYPE_MASK: u64 = 0xff << 56;
flag_set!(CALLBACK_GSI = "a GSI, or nothing" {} parts { !TYPE_MASK => "gsi" });
const CALLBACK_PCI_INTX: FlagSet = FlagSet {
    name: "a PCI interrupt line",
    bits: &[(TYPE_MASK, PCI_INTX, "pci_intx")],
    parts: &[
        (0xffff_0000_0000, "domain"),
        (0xffff_0000, "bus"),
        (0xf800, "device"),
        (0x700, "function"),
        (0x3, "intx"),
    ],
};
const CALLBACK_VECTOR: FlagSet =
    FlagSet { name: "an interrupt vector", bits: &[(TYPE_MASK, VECTOR, "vector")], parts: &[(0xff, "")] };
const CALLBACK: Type = Type::Union(&Union {
    tag: Tag::Bits { field: "value", mask: TYPE_MASK },
    min_size: 0,
    cases: &[
        case(&[GSI], "", Type::flags(Int::U64, &CALLBACK_GSI)),
        case(&[PCI_INTX], "", Type::flags(Int::U64, &CALLBACK_PCI_INTX)),
        case(&[VECTOR], "", Type::flags(Int::U64, &CALLBACK_VECTOR)),
        case(&[], "", Type::HEX64),
    ],
});

flag_set!(VIRIDIAN = "HVMPV_*" {
    0x1 => "HVMPV_base_freq", 0x2 => "HVMPV_no_freq", 0x4 => "HVMPV_time_ref_count",
    0x8 => "HVMPV_reference_tsc", 0x10 => "HVMPV_hcall_remote_tlb_flush", 0x20 => "HVMPV_apic_assist",
    0x40 => "HVMPV_crash_ctl", 0x80 => "HVMPV_synic", 0x100 => "HVMPV_stimer", 0x200 => "HVMPV_hcall_ipi",
    0x400 => "HVMPV_ex_processor_masks", 0x800 => "HVMPV_no_vp_limit", 0x1000 => "HVMPV_cpu_hotplug",
});
enumeration!(TIMER_MODE = "HVMPTM_*" {
    0 => "HVMPTM_delay_for_missed_ticks", 1 => "HVMPTM_no_delay_for_missed_ticks",
    2 => "HVMPTM_no_missed_ticks_pending", 3 => "HVMPTM_one_missed_tick_pending",
});
enumeration!(ALTP2M = "XEN_ALTP2M_*" {
    0 => "XEN_ALTP2M_disabled", 1 => "XEN_ALTP2M_mixed", 2 => "XEN_ALTP2M_external",
    3 => "XEN_ALTP2M_limited",
});
flag_set!(TSS_SIZED = "where the TSS is, and its size" {} parts {
    0xffff_ffff => "address", 0xffff_ffff_0000_0000 => "size",
});
flag_set!(MCA_CAP = "XEN_HVM_MCA_CAP_*" { 1 => "XEN_HVM_MCA_CAP_LMCE" });

const VALUE: Type = Type::Union(&Union {
    tag: Tag::Field("index"),
    min_size: 0,
    cases: &[
        case(&[0], "", CALLBACK),
        case(&[1, 5, 6, 17, 27, 28, 29, 32], "", Type::FRAME64),
        case(&[2, 18, 26], "", Type::int(Int::U64, Show::Port)),
        case(&[4, 11, 16, 24], "", Type::int(Int::U64, Show::Bool)),
        case(&[9], "", Type::flags(Int::U64, &VIRIDIAN)),
        case(&[10], "", Type::enumeration(Int::U64, &TIMER_MODE)),
        case(&[12, 15, 34], "", Type::ADDRESS64),
        case(&[13], "", Type::int(Int::U64, Show::Domain)),
        case(&[14, 19, 33, 36], "", Type::U64),
        case(&[31], "", Type::enumeration(Int::U64, &SHUTDOWN)),
        case(&[35], "", Type::enumeration(Int::U64, &ALTP2M)),
        case(&[37], "", Type::flags(Int::U64, &TSS_SIZED)),
        case(&[38], "", Type::flags(Int::U64, &MCA_CAP)),
        case(&[], "", Type::HEX64),
    ],
});

structure!(pub(super) SET = "struct xen_hvm_param" {
    field("domid", Type::DOMID),
    field("pad", Type::U16),
    field("index", Type::enumeration(Int::U32, &INDEX)),
    field("value", VALUE),
});
structure!(pub(super) GET = "struct xen_hvm_param" {
    field("domid", Type::DOMID),
    field("pad", Type::U16),
    field("index", Type::enumeration(Int::U32, &INDEX)),
    field("value", VALUE).out(),
});
