//! Devices, interrupts and I/O ranges that a domain may use (Xen public/domctl.h).

use crate::xen::prelude::*;

structure!(pub(super) IRQ_PERMISSION = "struct xen_domctl_irq_permission" {
    field("pirq", Type::U32),
    field("allow_access", Type::BOOL8),
    field("pad", Type::Bytes(3)),
});
const GSI_ACTION: FlagSet = FlagSet {
    name: "XEN_DOMCTL_GSI_*",
    bits: &[(1, 0, "XEN_DOMCTL_GSI_REVOKE"), (1, 1, "XEN_DOMCTL_GSI_GRANT")],
    parts: &[],
};
structure!(pub(super) GSI_PERMISSION = "struct xen_domctl_gsi_permission" {
    field("gsi", Type::U32),
    field("flags", Type::flags(Int::U32, &GSI_ACTION)),
});
structure!(pub(super) IOMEM_PERMISSION = "struct xen_domctl_iomem_permission" {
    field("first_mfn", Type::FRAME64A),
    field("nr_mfns", Type::U64A),
    field("allow_access", Type::BOOL8),
});
structure!(pub(super) IOPORT_PERMISSION = "struct xen_domctl_ioport_permission" {
    field("first_port", Type::HEX32),
    field("nr_ports", Type::U32),
    field("allow_access", Type::BOOL8),
});

enumeration!(DEV = "XEN_DOMCTL_DEV_*" { 0 => "XEN_DOMCTL_DEV_PCI", 1 => "XEN_DOMCTL_DEV_DT" });
flag_set!(DEV_FLAGS = "how a device is assigned" { 1 => "XEN_DOMCTL_DEV_RDM_RELAXED" });
structure!(DEV_PCI = "struct xen_domctl_assign_device.u.pci" { field("machine_sbdf", Type::HEX32) });
structure!(DEV_DT = "struct xen_domctl_assign_device.u.dt" {
    field("size", Type::U32),
    field("path", handle64!(In, Type::Chars(1), Count::Field("size"))),
});
structure!(pub(super) ASSIGN_DEVICE = "struct xen_domctl_assign_device" {
    field("dev", Type::enumeration(Int::U32, &DEV)),
    field("flags", Type::flags(Int::U32, &DEV_FLAGS)),
    field("u", Type::Union(&Union { tag: Tag::Field("dev"), min_size: 0, cases: &[
        case(&[0], "pci", Type::Struct(&DEV_PCI)),
        case(&[1], "dt", Type::Struct(&DEV_DT)),
    ] })),
});
structure!(pub(super) GET_DEVICE_GROUP = "struct xen_domctl_get_device_group" {
    field("machine_sbdf", Type::HEX32),
    field("max_sdevs", Type::U32),
    field("num_sdevs", Type::U32).out(),
    field("sdev_array", handle64!(Out, Type::HEX32, Count::Least("max_sdevs", "num_sdevs"))),
});

enumeration!(PT_IRQ_TYPE = "enum pt_irq_type" {
    0 => "PT_IRQ_TYPE_PCI", 1 => "PT_IRQ_TYPE_ISA", 2 => "PT_IRQ_TYPE_MSI", 3 => "PT_IRQ_TYPE_MSI_TRANSLATE",
    4 => "PT_IRQ_TYPE_SPI",
});
flag_set!(VMSI = "XEN_DOMCTL_VMSI_X86_*" {
    0x100 => "XEN_DOMCTL_VMSI_X86_RH_MASK", 0x200 => "XEN_DOMCTL_VMSI_X86_DM_MASK",
    0x8000 => "XEN_DOMCTL_VMSI_X86_TRIG_MASK", 0x1_0000 => "XEN_DOMCTL_VMSI_X86_UNMASKED",
} parts { 0xff => "dest_id", 0x7000 => "deliv" });
structure!(PT_ISA = "struct xen_domctl_bind_pt_irq.u.isa" { field("isa_irq", Type::U8) });
structure!(PT_PCI = "struct xen_domctl_bind_pt_irq.u.pci" {
    field("bus", Type::HEX8),
    field("device", Type::HEX8),
    field("intx", Type::U8),
});
structure!(PT_MSI = "struct xen_domctl_bind_pt_irq.u.msi" {
    field("gvec", Type::HEX8),
    field("gflags", Type::flags(Int::U32, &VMSI)),
    field("gtable", Type::ADDRESS64A),
});
structure!(PT_SPI = "struct xen_domctl_bind_pt_irq.u.spi" { field("spi", Type::U16) });
structure!(pub(super) BIND_PT_IRQ = "struct xen_domctl_bind_pt_irq" {
    field("machine_irq", Type::U32),
    field("irq_type", Type::enumeration(Int::U32, &PT_IRQ_TYPE)),
    field("u", Type::Union(&Union { tag: Tag::Field("irq_type"), min_size: 0, cases: &[
        case(&[1], "isa", Type::Struct(&PT_ISA)),
        case(&[0, 3], "pci", Type::Struct(&PT_PCI)),
        case(&[2], "msi", Type::Struct(&PT_MSI)),
        case(&[4], "spi", Type::Struct(&PT_SPI)),
    ] })),
});

enumeration!(MAPPING = "DPCI_*" { 0 => "DPCI_REMOVE_MAPPING", 1 => "DPCI_ADD_MAPPING" });
structure!(pub(super) MEMORY_MAPPING = "struct xen_domctl_memory_mapping" {
    field("first_gfn", Type::FRAME64A),
    field("first_mfn", Type::FRAME64A),
    field("nr_mfns", Type::U64A),
    field("add_mapping", Type::enumeration(Int::U32, &MAPPING)),
    field("padding", Type::U32),
});
structure!(pub(super) IOPORT_MAPPING = "struct xen_domctl_ioport_mapping" {
    field("first_gport", Type::HEX32),
    field("first_mport", Type::HEX32),
    field("nr_ports", Type::U32),
    field("add_mapping", Type::enumeration(Int::U32, &MAPPING)),
});
