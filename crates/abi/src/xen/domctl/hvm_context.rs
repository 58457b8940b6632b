//! The saved state of an HVM domain (Xen public/domctl.h, public/hvm/save.h).
//!
//! The state is a sequence of records of many types, each behind a descriptor. It is shown as bytes.

use crate::xen::prelude::*;

structure!(pub(super) GET_HVMCONTEXT = "struct xen_domctl_hvmcontext" {
    field("size", Type::U32).inout(),
    field("buffer", handle64!(Out, Type::Bytes(1), Count::Field("size"))),
});
structure!(pub(super) SET_HVMCONTEXT = "struct xen_domctl_hvmcontext" {
    field("size", Type::U32),
    field("buffer", handle64!(In, Type::Bytes(1), Count::Field("size"))),
});

// The header's DECLARE_HVM_SAVE_TYPE gives most names their number.
enumeration!(RECORD = "types of records in a saved state" {
    0 => "END", 1 => "HEADER", 2 => "CPU", 3 => "PIC", 4 => "IOAPIC", 5 => "LAPIC", 6 => "LAPIC_REGS",
    7 => "PCI_IRQ", 8 => "ISA_IRQ", 9 => "PCI_LINK", 10 => "PIT", 11 => "RTC", 12 => "HPET", 13 => "PMTIMER",
    14 => "MTRR", 15 => "VIRIDIAN_DOMAIN", 16 => "CPU_XSAVE_CODE", 17 => "VIRIDIAN_VCPU", 18 => "VMCE_VCPU", 19 => "TSC_ADJUST",
    20 => "CPU_MSR_CODE",
});
structure!(pub(super) HVMCONTEXT_PARTIAL = "struct xen_domctl_hvmcontext_partial" {
    field("type", Type::enumeration(Int::U32, &RECORD)),
    field("instance", Type::U32),
    field("bufsz", Type::U64A).inout(),
    field("buffer", handle64!(Out, Type::Bytes(1), Count::Field("bufsz"))),
});
