//! `hvm_op` (Xen public/hvm/hvm_op.h).

mod altp2m;
mod params;

use super::prelude::*;

enumeration!(
    /// `hvmmem_type_t`: what kind of memory a page of the guest is.
    pub(super) MEM_TYPE = "hvmmem_type_t" {
        0 => "HVMMEM_ram_rw", 1 => "HVMMEM_ram_ro", 2 => "HVMMEM_mmio_dm", 3 => "HVMMEM_unused",
        4 => "HVMMEM_ioreq_server",
    }
);

// 2 to 4 moved to dm_op in 4.9; older device models still use them.
structure!(SET_PCI_INTX_LEVEL = "struct xen_hvm_set_pci_intx_level" {
    field("domid", Type::DOMID),
    field("domain", Type::HEX8),
    field("bus", Type::HEX8),
    field("device", Type::HEX8),
    field("intx", Type::U8),
    field("level", Type::BOOL8),
});
structure!(SET_ISA_IRQ_LEVEL = "struct xen_hvm_set_isa_irq_level" {
    field("domid", Type::DOMID),
    field("isa_irq", Type::U8),
    field("level", Type::BOOL8),
});
structure!(SET_PCI_LINK_ROUTE = "struct xen_hvm_set_pci_link_route" {
    field("domid", Type::DOMID),
    field("link", Type::U8),
    field("isa_irq", Type::U8),
});

structure!(PAGETABLE_DYING = "struct xen_hvm_pagetable_dying" {
    field("domid", Type::DOMID),
    field("pad", Type::array(&Type::U16, 3)),
    field("gpa", Type::ADDRESS64),
});
structure!(GET_TIME = "struct xen_hvm_get_time" { field("now", Type::NANOSECONDS) });
structure!(XENTRACE = "struct xen_hvm_xentrace" {
    field("event", Type::HEX16),
    field("extra_bytes", Type::U16),
    field("extra", Type::Bytes(28)),
});
structure!(GET_MEM_TYPE = "struct xen_hvm_get_mem_type" {
    field("domid", Type::DOMID),
    field("mem_type", Type::enumeration(Int::U16, &MEM_TYPE)).out(),
    field("pad", Type::array(&Type::U16, 2)),
    field("pfn", Type::FRAME64),
});
structure!(EVTCHN_UPCALL_VECTOR = "struct xen_hvm_evtchn_upcall_vector" {
    field("vcpu", Type::VCPU),
    field("vector", Type::HEX8),
});

const OP: Arg = arg("op", Type::ULONG);
/// What is to be null, or is not known.
const PLAIN: &[Arg] = &[OP, arg("arg", Type::ADDRESS)];

macro_rules! hvm {
    ($number:literal, $name:literal, $direction:ident $structure:expr) => {
        op($number, $name, &[OP, arg("arg", handle!($direction, Type::Struct(&$structure), Count::One))])
    };
}

pub(super) const HVM_OP: Hypercall = Hypercall {
    number: 34,
    name: "hvm_op",
    args: PLAIN,
    returns: Show::Errno,
    sub_ops: Some(SubOps {
        from: SubOpFrom::Arg { index: 0, mask: u64::MAX },
        ops: &[
            hvm!(0, "HVMOP_set_param", In params::SET),
            hvm!(1, "HVMOP_get_param", InOut params::GET),
            hvm!(2, "HVMOP_set_pci_intx_level", In SET_PCI_INTX_LEVEL),
            hvm!(3, "HVMOP_set_isa_irq_level", In SET_ISA_IRQ_LEVEL),
            hvm!(4, "HVMOP_set_pci_link_route", In SET_PCI_LINK_ROUTE),
            op(5, "HVMOP_flush_tlbs", PLAIN),
            hvm!(9, "HVMOP_pagetable_dying", In PAGETABLE_DYING),
            hvm!(10, "HVMOP_get_time", Out GET_TIME),
            hvm!(11, "HVMOP_xentrace", In XENTRACE),
            // XENMEM_access_op replaces these two; the headers no longer have their structs.
            op(12, "HVMOP_set_mem_access", PLAIN),
            op(13, "HVMOP_get_mem_access", PLAIN),
            hvm!(15, "HVMOP_get_mem_type", InOut GET_MEM_TYPE),
            hvm!(23, "HVMOP_set_evtchn_upcall_vector", In EVTCHN_UPCALL_VECTOR),
            op(24, "HVMOP_guest_request_vm_event", PLAIN),
            hvm!(25, "HVMOP_altp2m", InOut altp2m::ALTP2M_OP),
        ],
    }),
};
