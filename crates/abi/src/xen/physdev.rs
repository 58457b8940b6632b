//! `physdev_op` and `physdev_op_compat` (Xen public/physdev.h).

use super::commands::commands;
use super::prelude::*;

structure!(EOI = "struct physdev_eoi" { field("irq", Type::U32) });
structure!(PIRQ_EOI_GMFN = "struct physdev_pirq_eoi_gmfn" { field("gmfn", Type::PFN) });
flag_set!(IRQSTAT = "XENIRQSTAT_*" { 1 => "XENIRQSTAT_needs_eoi", 2 => "XENIRQSTAT_shared" });
structure!(IRQ_STATUS_QUERY = "struct physdev_irq_status_query" {
    field("irq", Type::U32),
    field("flags", Type::flags(Int::U32, &IRQSTAT)).out(),
});
structure!(SET_IOPL = "struct physdev_set_iopl" { field("iopl", Type::U32) });
structure!(SET_IOBITMAP = "struct physdev_set_iobitmap" {
    field("bitmap", handle!(In, Type::Bytes(1), Count::FieldBits("nr_ports"))),
    field("nr_ports", Type::U32),
});
structure!(APIC = "struct physdev_apic" {
    field("apic_physbase", Type::ADDRESS),
    field("reg", Type::HEX32),
    field("value", Type::HEX32).inout(),
});
structure!(IRQ = "struct physdev_irq" {
    field("irq", Type::U32),
    field("vector", Type::HEX32).inout(),
});

enumeration!(PIRQ_TYPE = "MAP_PIRQ_TYPE_*" {
    0 => "MAP_PIRQ_TYPE_MSI", 1 => "MAP_PIRQ_TYPE_GSI", 2 => "MAP_PIRQ_TYPE_UNKNOWN",
    3 => "MAP_PIRQ_TYPE_MSI_SEG", 4 => "MAP_PIRQ_TYPE_MULTI_MSI",
});
flag_set!(SEGMENT_AND_BUS = "a PCI bus, with the segment above it" {
} parts { 0xffff => "bus", 0xffff_0000 => "segment" });
structure!(MAP_PIRQ = "struct physdev_map_pirq" {
    field("domid", Type::DOMID),
    field("type", Type::enumeration(Int::S32, &PIRQ_TYPE)),
    field("index", Type::S32),
    field("pirq", Type::S32).inout(),
    field("bus", Type::flags(Int::S32, &SEGMENT_AND_BUS)),
    field("devfn", Type::int(Int::S32, Show::Hex)),
    field("entry_nr", Type::S32).inout(),
    field("table_base", Type::ADDRESS64),
});
structure!(UNMAP_PIRQ = "struct physdev_unmap_pirq" {
    field("domid", Type::DOMID),
    field("pirq", Type::S32),
});

structure!(MANAGE_PCI = "struct physdev_manage_pci" {
    field("bus", Type::HEX8),
    field("devfn", Type::HEX8),
});
structure!(RESTORE_MSI = "struct physdev_restore_msi" {
    field("bus", Type::HEX8),
    field("devfn", Type::HEX8),
});
structure!(MANAGE_PHYSFN = "struct physdev_manage_pci_ext.physfn" {
    field("bus", Type::HEX8),
    field("devfn", Type::HEX8),
});
structure!(MANAGE_PCI_EXT = "struct physdev_manage_pci_ext" {
    field("bus", Type::HEX8),
    field("devfn", Type::HEX8),
    field("is_extfn", Type::BOOL32),
    field("is_virtfn", Type::BOOL32),
    field("physfn", Type::Struct(&MANAGE_PHYSFN)),
});
structure!(SETUP_GSI = "struct physdev_setup_gsi" {
    field("gsi", Type::S32),
    field("triggering", Type::U8),
    field("polarity", Type::U8),
});
structure!(GET_FREE_PIRQ = "struct physdev_get_free_pirq" {
    field("type", Type::enumeration(Int::S32, &PIRQ_TYPE)),
    field("pirq", Type::U32).out(),
});

flag_set!(MMCFG_FLAGS = "XEN_PCI_MMCFG_*" { 1 => "XEN_PCI_MMCFG_RESERVED" });
structure!(PCI_MMCFG_RESERVED = "struct physdev_pci_mmcfg_reserved" {
    field("address", Type::ADDRESS64),
    field("segment", Type::HEX16),
    field("start_bus", Type::HEX8),
    field("end_bus", Type::HEX8),
    field("flags", Type::flags(Int::U32, &MMCFG_FLAGS)),
});

const PXM: u64 = 4;
flag_set!(PCI_DEV_FLAGS = "XEN_PCI_DEV_*" {
    1 => "XEN_PCI_DEV_EXTFN", 2 => "XEN_PCI_DEV_VIRTFN", PXM => "XEN_PCI_DEV_PXM",
});
structure!(PHYSFN = "struct physdev_pci_device_add.physfn" {
    field("bus", Type::HEX8),
    field("devfn", Type::HEX8),
});
structure!(PCI_DEVICE_ADD = "struct physdev_pci_device_add" {
    field("seg", Type::HEX16),
    field("bus", Type::HEX8),
    field("devfn", Type::HEX8),
    field("flags", Type::flags(Int::U32, &PCI_DEV_FLAGS)),
    field("physfn", Type::Struct(&PHYSFN)),
    // The one element that is defined is the proximity domain, if the flag says that it is there.
    field("optarr", Type::Union(&Union {
        tag: Tag::Bits { field: "flags", mask: PXM },
        min_size: 0,
        cases: &[case(&[PXM], "", tail!(In, Type::U32, Count::Fixed(1)))],
    })),
});
structure!(
    /// A PCI device by its address.
    pub(super) PCI_DEVICE = "struct physdev_pci_device" {
        field("seg", Type::HEX16),
        field("bus", Type::HEX8),
        field("devfn", Type::HEX8),
    }
);
const RESET_KIND: u64 = 3;
/// `PCI_DEVICE_RESET_*`: a kind in the lowest two bits.
const RESET_FLAGS: FlagSet = FlagSet {
    name: "PCI_DEVICE_RESET_*",
    bits: &[
        (RESET_KIND, 0, "PCI_DEVICE_RESET_COLD"),
        (RESET_KIND, 1, "PCI_DEVICE_RESET_WARM"),
        (RESET_KIND, 2, "PCI_DEVICE_RESET_HOT"),
        (RESET_KIND, 3, "PCI_DEVICE_RESET_FLR"),
    ],
    parts: &[],
};
structure!(PCI_DEVICE_RESET = "struct pci_device_reset" {
    field("dev", Type::Struct(&PCI_DEVICE)),
    field("flags", Type::flags(Int::U32, &RESET_FLAGS)),
});

enumeration!(DBGP = "PHYSDEVOP_DBGP_*: what" {
    1 => "PHYSDEVOP_DBGP_RESET_PREPARE", 2 => "PHYSDEVOP_DBGP_RESET_DONE",
});
enumeration!(DBGP_BUS = "PHYSDEVOP_DBGP_*: where" {
    0 => "PHYSDEVOP_DBGP_BUS_UNKNOWN", 1 => "PHYSDEVOP_DBGP_BUS_PCI",
});
structure!(DBGP_OP = "struct physdev_dbgp_op" {
    field("op", Type::enumeration(Int::U8, &DBGP)),
    field("bus", Type::enumeration(Int::U8, &DBGP_BUS)),
    field("u", Type::Union(&Union { tag: Tag::Field("bus"), min_size: 0, cases: &[
        case(&[1], "pci", Type::Struct(&PCI_DEVICE)),
    ] })),
});

const CMD: Arg = arg("cmd", Type::S32);

macro_rules! physdev {
    ($number:literal, $name:literal, $direction:ident $structure:ident) => {
        op($number, $name, &[CMD, arg("arg", handle!($direction, Type::Struct(&$structure), Count::One))])
    };
}

pub(super) const PHYSDEV_OP: Hypercall = Hypercall {
    number: 33,
    name: "physdev_op",
    args: &[CMD, arg("arg", Type::ADDRESS)],
    returns: Show::Errno,
    sub_ops: Some(SubOps {
        from: SubOpFrom::Arg { index: 0, mask: u32::MAX as u64 },
        ops: &[
            op(4, "PHYSDEVOP_IRQ_UNMASK_NOTIFY", &[CMD]),
            physdev!(5, "PHYSDEVOP_irq_status_query", InOut IRQ_STATUS_QUERY),
            physdev!(6, "PHYSDEVOP_set_iopl", In SET_IOPL),
            physdev!(7, "PHYSDEVOP_set_iobitmap", In SET_IOBITMAP),
            physdev!(8, "PHYSDEVOP_apic_read", InOut APIC),
            physdev!(9, "PHYSDEVOP_apic_write", In APIC),
            physdev!(10, "PHYSDEVOP_alloc_irq_vector", InOut IRQ),
            physdev!(11, "PHYSDEVOP_free_irq_vector", In IRQ),
            physdev!(12, "PHYSDEVOP_eoi", In EOI),
            physdev!(13, "PHYSDEVOP_map_pirq", InOut MAP_PIRQ),
            physdev!(14, "PHYSDEVOP_unmap_pirq", In UNMAP_PIRQ),
            physdev!(15, "PHYSDEVOP_manage_pci_add", In MANAGE_PCI),
            physdev!(16, "PHYSDEVOP_manage_pci_remove", In MANAGE_PCI),
            physdev!(17, "PHYSDEVOP_pirq_eoi_gmfn_v1", In PIRQ_EOI_GMFN),
            physdev!(19, "PHYSDEVOP_restore_msi", In RESTORE_MSI),
            physdev!(20, "PHYSDEVOP_manage_pci_add_ext", In MANAGE_PCI_EXT),
            physdev!(21, "PHYSDEVOP_setup_gsi", In SETUP_GSI),
            physdev!(23, "PHYSDEVOP_get_free_pirq", InOut GET_FREE_PIRQ),
            physdev!(24, "PHYSDEVOP_pci_mmcfg_reserved", In PCI_MMCFG_RESERVED),
            physdev!(25, "PHYSDEVOP_pci_device_add", In PCI_DEVICE_ADD),
            physdev!(26, "PHYSDEVOP_pci_device_remove", In PCI_DEVICE),
            physdev!(27, "PHYSDEVOP_restore_msi_ext", In PCI_DEVICE),
            physdev!(28, "PHYSDEVOP_pirq_eoi_gmfn_v2", In PIRQ_EOI_GMFN),
            physdev!(29, "PHYSDEVOP_dbgp_op", In DBGP_OP),
            physdev!(30, "PHYSDEVOP_prepare_msix", In PCI_DEVICE),
            physdev!(31, "PHYSDEVOP_release_msix", In PCI_DEVICE),
            // 4.17 does not have it.
            physdev!(32, "PHYSDEVOP_pci_device_reset", In PCI_DEVICE_RESET),
        ],
    }),
};

commands!(COMPAT_CMD, COMPAT_OPS = "PHYSDEVOP_* of the compat call", &[COMPAT_ARG], {
    4 => "PHYSDEVOP_IRQ_UNMASK_NOTIFY", 5 => "PHYSDEVOP_irq_status_query", 6 => "PHYSDEVOP_set_iopl",
    7 => "PHYSDEVOP_set_iobitmap", 8 => "PHYSDEVOP_apic_read", 9 => "PHYSDEVOP_apic_write",
    10 => "PHYSDEVOP_alloc_irq_vector", 11 => "PHYSDEVOP_free_irq_vector",
});
structure!(COMPAT = "struct physdev_op" {
    field("cmd", Type::enumeration(Int::U32, &COMPAT_CMD)),
    field("u", Type::Union(&Union { tag: Tag::Field("cmd"), min_size: 0, cases: &[
        case(&[5], "irq_status_query", Type::Struct(&IRQ_STATUS_QUERY)),
        case(&[6], "set_iopl", Type::Struct(&SET_IOPL)),
        case(&[7], "set_iobitmap", Type::Struct(&SET_IOBITMAP)),
        case(&[8, 9], "apic_op", Type::Struct(&APIC)),
        case(&[10, 11], "irq_op", Type::Struct(&IRQ)),
    ] })),
});

const COMPAT_ARG: Arg = arg("op", handle!(InOut, Type::Struct(&COMPAT), Count::One));

pub(super) const PHYSDEV_OP_COMPAT: Hypercall = Hypercall {
    number: 19,
    name: "physdev_op_compat",
    args: &[COMPAT_ARG],
    returns: Show::Errno,
    sub_ops: Some(SubOps { from: SubOpFrom::Memory { index: 0 }, ops: COMPAT_OPS }),
};
