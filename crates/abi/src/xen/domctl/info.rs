//! What a domain is like (Xen public/domctl.h, public/arch-x86/xen.h). `sysctl` lists domains in the same form.

use crate::xen::prelude::*;

flag_set!(DOMINF = "XEN_DOMINF_*" {
    0x1 => "XEN_DOMINF_dying", 0x2 => "XEN_DOMINF_hvm_guest", 0x4 => "XEN_DOMINF_shutdown",
    0x8 => "XEN_DOMINF_paused", 0x10 => "XEN_DOMINF_blocked", 0x20 => "XEN_DOMINF_running",
    0x40 => "XEN_DOMINF_debugged", 0x80 => "XEN_DOMINF_xs_domain", 0x100 => "XEN_DOMINF_hap",
} parts { 0xff_0000 => "shutdown_code" });

flag_set!(EMULATION = "XEN_X86_EMU_*" {
    0x1 => "XEN_X86_EMU_LAPIC", 0x2 => "XEN_X86_EMU_HPET", 0x4 => "XEN_X86_EMU_PM", 0x8 => "XEN_X86_EMU_RTC",
    0x10 => "XEN_X86_EMU_IOAPIC", 0x20 => "XEN_X86_EMU_PIC", 0x40 => "XEN_X86_EMU_VGA",
    0x80 => "XEN_X86_EMU_IOMMU", 0x100 => "XEN_X86_EMU_PIT", 0x200 => "XEN_X86_EMU_USE_PIRQ",
    0x400 => "XEN_X86_EMU_VPCI",
});
flag_set!(MISC = "miscellaneous flags of a domain" { 1 => "XEN_X86_MSR_RELAXED" });
structure!(pub(super) ARCH_CONFIG = "struct xen_arch_domainconfig" {
    field("emulation_flags", Type::flags(Int::U32, &EMULATION)),
    field("misc_flags", Type::flags(Int::U32, &MISC)),
});

enumeration!(MAX_VCPU_ID = "the largest vCPU number, if there is one" {
    0xffff_ffff => "XEN_INVALID_MAX_VCPU_ID",
});
structure!(pub(in crate::xen) GETDOMAININFO = "struct xen_domctl_getdomaininfo" {
    field("domain", Type::DOMID),
    field("pad1", Type::U16),
    field("flags", Type::flags(Int::U32, &DOMINF)),
    field("tot_pages", Type::U64A),
    field("max_pages", Type::U64A),
    field("outstanding_pages", Type::U64A),
    field("shr_pages", Type::U64A),
    field("paged_pages", Type::U64A),
    field("shared_info_frame", Type::FRAME64A),
    field("cpu_time", Type::NANOSECONDS_A),
    field("nr_online_vcpus", Type::U32),
    field("max_vcpu_id", Type::enumeration(Int::U32, &MAX_VCPU_ID)),
    field("ssidref", Type::U32),
    field("handle", Type::Bytes(16)),
    field("cpupool", Type::U32),
    field("gpaddr_bits", Type::U8),
    field("pad2", Type::Bytes(7)),
    field("arch_config", Type::Struct(&ARCH_CONFIG)),
});
