//! Parameters of an HVM domain (Xen public/hvm/params.h).

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

/// `HVM_PARAM_CALLBACK_IRQ_TYPE_MASK`
const CALLBACK_TYPE: u64 = 0xff << 56;
/// `HVM_PARAM_CALLBACK_TYPE_*` in the topmost byte: 1 a PCI INTx line, 2 a vector, 0 a GSI, which is a bare
/// number (and 0 is: no callback).
const CALLBACK: FlagSet = FlagSet {
    name: "HVM_PARAM_CALLBACK_IRQ",
    bits: &[(CALLBACK_TYPE, 1 << 56, "pci_intx"), (CALLBACK_TYPE, 2 << 56, "vector")],
    parts: &[(!CALLBACK_TYPE, "")],
};
flag_set!(VIRIDIAN = "HVMPV_*" {
    1 => "HVMPV_base_freq", 2 => "HVMPV_no_freq", 4 => "HVMPV_time_ref_count", 8 => "HVMPV_reference_tsc",
    0x10 => "HVMPV_hcall_remote_tlb_flush", 0x20 => "HVMPV_apic_assist", 0x40 => "HVMPV_crash_ctl",
    0x80 => "HVMPV_synic", 0x100 => "HVMPV_stimer", 0x200 => "HVMPV_hcall_ipi",
    0x400 => "HVMPV_ex_processor_masks", 0x800 => "HVMPV_no_vp_limit", 0x1000 => "HVMPV_cpu_hotplug",
});
enumeration!(TIMER_MODE = "HVMPTM_*" {
    0 => "HVMPTM_delay_for_missed_ticks", 1 => "HVMPTM_no_delay_for_missed_ticks",
    2 => "HVMPTM_no_missed_ticks_pending", 3 => "HVMPTM_one_missed_tick_pending",
});
enumeration!(ALTP2M = "XEN_ALTP2M_*" {
    0 => "XEN_ALTP2M_disabled", 1 => "XEN_ALTP2M_mixed", 2 => "XEN_ALTP2M_external", 3 => "XEN_ALTP2M_limited",
});
flag_set!(MCA_CAP = "XEN_HVM_MCA_CAP_*" { 1 => "XEN_HVM_MCA_CAP_LMCE" });

const fn value(show: Show) -> Type {
    Type::int(Int::U64, show)
}

const VALUE: Union = Union {
    tag: Tag::Field("index"),
    min_size: 0,
    cases: &[
        case(&[0], "", value(Show::Flags(&CALLBACK))),
        case(&[1, 5, 6, 17, 27, 28, 29, 32], "", value(Show::Frame)),
        case(&[2, 18, 26], "", value(Show::Port)),
        case(&[4, 11, 16, 24], "", value(Show::Bool)),
        case(&[9], "", value(Show::Flags(&VIRIDIAN))),
        case(&[10], "", value(Show::Enum(&TIMER_MODE))),
        case(&[12, 15, 34], "", value(Show::Address)),
        case(&[13], "", value(Show::Domain)),
        case(&[14, 19, 33, 36], "", value(Show::Dec)),
        case(&[31], "", value(Show::Enum(&SHUTDOWN))),
        case(&[35], "", value(Show::Enum(&ALTP2M))),
        case(&[38], "", value(Show::Flags(&MCA_CAP))),
        // Those of the old event rings, whose meaning is undefined now, and HVM_PARAM_VM86_TSS_SIZED: an
        // address below a size.
        case(&[], "", value(Show::Hex)),
    ],
};

structure!(
    /// What both calls take: `HVMOP_get_param` fills in the value.
    pub(super) PARAM = "struct xen_hvm_param" {
        field("domid", Type::DOMID),
        field("pad", Type::U16),
        field("index", Type::enumeration(Int::U32, &INDEX)),
        field("value", Type::Union(&VALUE)).out(),
    }
);
