//! `dm_op`, for device models (Xen public/hvm/dm_op.h).
//!
//! The first buffer holds the operation; further ones hold what does not fit there.

use super::commands::commands;
use super::hvm::MEM_TYPE;
use super::prelude::*;
use super::sched::SHUTDOWN;

const SERVER_ID: Type = Type::U16;
const MEM_TYPE_16: Type = Type::enumeration(Int::U16, &MEM_TYPE);

enumeration!(BUFIOREQ = "HVM_IOREQSRV_BUFIOREQ_*" {
    0 => "HVM_IOREQSRV_BUFIOREQ_OFF", 1 => "HVM_IOREQSRV_BUFIOREQ_LEGACY",
    2 => "HVM_IOREQSRV_BUFIOREQ_ATOMIC",
});
structure!(CREATE_IOREQ_SERVER = "struct xen_dm_op_create_ioreq_server" {
    field("handle_bufioreq", Type::enumeration(Int::U8, &BUFIOREQ)),
    field("pad", Type::Bytes(3)),
    field("id", SERVER_ID).out(),
});
flag_set!(INFO_FLAGS = "XEN_DMOP_no_gfns" { 1 => "XEN_DMOP_no_gfns" });
structure!(GET_IOREQ_SERVER_INFO = "struct xen_dm_op_get_ioreq_server_info" {
    field("id", SERVER_ID),
    field("flags", Type::flags(Int::U16, &INFO_FLAGS)),
    field("bufioreq_port", Type::PORT).out(),
    field("ioreq_gfn", Type::FRAME64A).out(),
    field("bufioreq_gfn", Type::FRAME64A).out(),
});
enumeration!(RANGE_TYPE = "XEN_DMOP_IO_RANGE_*" {
    0 => "XEN_DMOP_IO_RANGE_PORT", 1 => "XEN_DMOP_IO_RANGE_MEMORY", 2 => "XEN_DMOP_IO_RANGE_PCI",
});
flag_set!(SBDF = "XEN_DMOP_PCI_SBDF" {} parts {
    0xffff_0000 => "segment", 0xff00 => "bus", 0xf8 => "device", 0x7 => "function",
});
/// A port, an address or a PCI device.
const BOUND: Type = Type::Union(&Union {
    tag: Tag::Field("type"),
    min_size: 0,
    cases: &[case(&[2], "", Type::flags(Int::U64Aligned, &SBDF)), case(&[], "", Type::HEX64A)],
});
structure!(IOREQ_SERVER_RANGE = "struct xen_dm_op_ioreq_server_range" {
    field("id", SERVER_ID),
    field("pad", Type::U16),
    field("type", Type::enumeration(Int::U32, &RANGE_TYPE)),
    field("start", BOUND),
    field("end", BOUND),
});
structure!(SET_IOREQ_SERVER_STATE = "struct xen_dm_op_set_ioreq_server_state" {
    field("id", SERVER_ID),
    field("enabled", Type::BOOL8),
    field("pad", Type::U8),
});
structure!(DESTROY_IOREQ_SERVER = "struct xen_dm_op_destroy_ioreq_server" {
    field("id", SERVER_ID),
    field("pad", Type::U16),
});
structure!(TRACK_DIRTY_VRAM = "struct xen_dm_op_track_dirty_vram" {
    field("nr", Type::U32),
    field("pad", Type::U32),
    field("first_pfn", Type::FRAME64A),
});
structure!(SET_PCI_INTX_LEVEL = "struct xen_dm_op_set_pci_intx_level" {
    field("domain", Type::HEX16),
    field("bus", Type::HEX8),
    field("device", Type::HEX8),
    field("intx", Type::U8),
    field("level", Type::BOOL8),
});
structure!(SET_ISA_IRQ_LEVEL = "struct xen_dm_op_set_isa_irq_level" {
    field("isa_irq", Type::U8),
    field("level", Type::BOOL8),
});
structure!(SET_PCI_LINK_ROUTE = "struct xen_dm_op_set_pci_link_route" {
    field("link", Type::U8),
    field("isa_irq", Type::U8),
});
structure!(MODIFIED_MEMORY = "struct xen_dm_op_modified_memory" {
    field("nr_extents", Type::U32).inout(),
    field("opaque", Type::U32).inout(),
});
structure!(MODIFIED_MEMORY_EXTENT = "struct xen_dm_op_modified_memory_extent" {
    field("nr", Type::U32),
    field("pad", Type::U32),
    field("first_pfn", Type::FRAME64A),
});
// When Xen interrupts the call, it moves both on.
structure!(SET_MEM_TYPE = "struct xen_dm_op_set_mem_type" {
    field("nr", Type::U32).inout(),
    field("mem_type", MEM_TYPE_16),
    field("pad", Type::U16),
    field("first_pfn", Type::FRAME64A).inout(),
});
enumeration!(EVENT_TYPE = "XEN_DMOP_EVENT_*" {
    0 => "XEN_DMOP_EVENT_ext_int", 2 => "XEN_DMOP_EVENT_nmi", 3 => "XEN_DMOP_EVENT_hw_exc",
    4 => "XEN_DMOP_EVENT_sw_int", 5 => "XEN_DMOP_EVENT_pri_sw_exc", 6 => "XEN_DMOP_EVENT_sw_exc",
});
structure!(INJECT_EVENT = "struct xen_dm_op_inject_event" {
    field("vcpuid", Type::VCPU),
    field("vector", Type::HEX8),
    field("type", Type::enumeration(Int::U8, &EVENT_TYPE)),
    field("insn_len", Type::U8),
    field("pad0", Type::U8),
    field("error_code", Type::HEX32),
    field("pad1", Type::U32),
    field("cr2", Type::ADDRESS64A),
});
structure!(INJECT_MSI = "struct xen_dm_op_inject_msi" {
    field("data", Type::HEX32),
    field("pad", Type::U32),
    field("addr", Type::ADDRESS64A),
});
flag_set!(MEM_ACCESS = "XEN_DMOP_IOREQ_MEM_ACCESS_*" {
    1 => "XEN_DMOP_IOREQ_MEM_ACCESS_READ", 2 => "XEN_DMOP_IOREQ_MEM_ACCESS_WRITE",
});
structure!(MAP_MEM_TYPE = "struct xen_dm_op_map_mem_type_to_ioreq_server" {
    field("id", SERVER_ID),
    field("type", MEM_TYPE_16),
    field("flags", Type::flags(Int::U32, &MEM_ACCESS)),
    field("opaque", Type::HEX64).inout(),
});
structure!(REMOTE_SHUTDOWN = "struct xen_dm_op_remote_shutdown" {
    field("reason", Type::enumeration(Int::U32, &SHUTDOWN)),
});
// What Xen leaves there is undefined.
structure!(RELOCATE_MEMORY = "struct xen_dm_op_relocate_memory" {
    field("size", Type::U32),
    field("pad", Type::U32),
    field("src_gfn", Type::FRAME64A),
    field("dst_gfn", Type::FRAME64A),
});
enumeration!(CACHEATTR = "XEN_DMOP_MEM_CACHEATTR_*" {
    0 => "XEN_DMOP_MEM_CACHEATTR_UC", 1 => "XEN_DMOP_MEM_CACHEATTR_WC", 4 => "XEN_DMOP_MEM_CACHEATTR_WT",
    5 => "XEN_DMOP_MEM_CACHEATTR_WP", 6 => "XEN_DMOP_MEM_CACHEATTR_WB", 7 => "XEN_DMOP_MEM_CACHEATTR_UCM",
    0xffff_ffff => "XEN_DMOP_DELETE_MEM_CACHEATTR",
});
structure!(PIN_MEMORY_CACHEATTR = "struct xen_dm_op_pin_memory_cacheattr" {
    field("start", Type::FRAME64A),
    field("end", Type::FRAME64A),
    field("type", Type::enumeration(Int::U32, &CACHEATTR)),
    field("pad", Type::U32),
});
structure!(SET_IRQ_LEVEL = "struct xen_dm_op_set_irq_level" {
    field("irq", Type::U32),
    field("level", Type::BOOL8),
    field("pad", Type::Bytes(3)),
});
structure!(NR_VCPUS = "struct xen_dm_op_nr_vcpus" { field("vcpus", Type::U32).out() });

const TRACK_DIRTY_VRAM_NUMBER: u64 = 7;
const MODIFIED_MEMORY_NUMBER: u64 = 11;
commands!(NAMES, OPS = "XEN_DMOP_*", ARGS, {
    1 => "XEN_DMOP_create_ioreq_server", 2 => "XEN_DMOP_get_ioreq_server_info",
    3 => "XEN_DMOP_map_io_range_to_ioreq_server", 4 => "XEN_DMOP_unmap_io_range_from_ioreq_server",
    5 => "XEN_DMOP_set_ioreq_server_state", 6 => "XEN_DMOP_destroy_ioreq_server",
    7 => "XEN_DMOP_track_dirty_vram", 8 => "XEN_DMOP_set_pci_intx_level", 9 => "XEN_DMOP_set_isa_irq_level",
    10 => "XEN_DMOP_set_pci_link_route", 11 => "XEN_DMOP_modified_memory", 12 => "XEN_DMOP_set_mem_type",
    13 => "XEN_DMOP_inject_event", 14 => "XEN_DMOP_inject_msi",
    15 => "XEN_DMOP_map_mem_type_to_ioreq_server", 16 => "XEN_DMOP_remote_shutdown",
    17 => "XEN_DMOP_relocate_memory", 18 => "XEN_DMOP_pin_memory_cacheattr", 19 => "XEN_DMOP_set_irq_level",
    20 => "XEN_DMOP_nr_vcpus",
});

structure!(DM_OP_STRUCT = "struct xen_dm_op" {
    field("op", Type::enumeration(Int::U32, &NAMES)),
    field("pad", Type::U32),
    field("u", Type::Union(&Union { tag: Tag::Field("op"), min_size: 0, cases: &[
        case(&[1], "create_ioreq_server", Type::Struct(&CREATE_IOREQ_SERVER)),
        case(&[2], "get_ioreq_server_info", Type::Struct(&GET_IOREQ_SERVER_INFO)),
        case(&[3], "map_io_range_to_ioreq_server", Type::Struct(&IOREQ_SERVER_RANGE)),
        case(&[4], "unmap_io_range_from_ioreq_server", Type::Struct(&IOREQ_SERVER_RANGE)),
        case(&[5], "set_ioreq_server_state", Type::Struct(&SET_IOREQ_SERVER_STATE)),
        case(&[6], "destroy_ioreq_server", Type::Struct(&DESTROY_IOREQ_SERVER)),
        case(&[TRACK_DIRTY_VRAM_NUMBER], "track_dirty_vram", Type::Struct(&TRACK_DIRTY_VRAM)),
        case(&[8], "set_pci_intx_level", Type::Struct(&SET_PCI_INTX_LEVEL)),
        case(&[9], "set_isa_irq_level", Type::Struct(&SET_ISA_IRQ_LEVEL)),
        case(&[19], "set_irq_level", Type::Struct(&SET_IRQ_LEVEL)),
        case(&[10], "set_pci_link_route", Type::Struct(&SET_PCI_LINK_ROUTE)),
        case(&[MODIFIED_MEMORY_NUMBER], "modified_memory", Type::Struct(&MODIFIED_MEMORY)),
        case(&[12], "set_mem_type", Type::Struct(&SET_MEM_TYPE)),
        case(&[13], "inject_event", Type::Struct(&INJECT_EVENT)),
        case(&[14], "inject_msi", Type::Struct(&INJECT_MSI)),
        case(&[15], "map_mem_type_to_ioreq_server", Type::Struct(&MAP_MEM_TYPE)),
        case(&[16], "remote_shutdown", Type::Struct(&REMOTE_SHUTDOWN)),
        case(&[17], "relocate_memory", Type::Struct(&RELOCATE_MEMORY)),
        case(&[18], "pin_memory_cacheattr", Type::Struct(&PIN_MEMORY_CACHEATTR)),
        case(&[20], "nr_vcpus", Type::Struct(&NR_VCPUS)),
    ] })),
});

const EXTENT_BYTES: u32 = MODIFIED_MEMORY_EXTENT.size[0];

// What the second buffer holds; the first is not shown as one of these.
structure!(DM_OP_BUF = "struct xen_dm_op_buf" {
    field("h", Type::Union(&Union { tag: Tag::SubOp, min_size: 0, cases: &[
        case(&[TRACK_DIRTY_VRAM_NUMBER], "", handle!(Out, Type::Bytes(1), Count::Field("size"))),
        case(&[MODIFIED_MEMORY_NUMBER], "", handle!(
            In,
            Type::Struct(&MODIFIED_MEMORY_EXTENT),
            Count::FieldPer("size", EXTENT_BYTES)
        )),
        case(&[], "", handle!(InOut, Type::Bytes(1), Count::Field("size"))),
    ] })),
    field("size", Type::ULONG),
});

const ARGS: &[Arg] = &[
    arg("domid", Type::DOMID),
    arg("nr_bufs", Type::U32),
    arg("bufs", handle!(In, Type::Struct(&DM_OP_BUF), Count::Arg { index: 1, mask: u32::MAX as u64 })),
];

pub(super) const DM_OP: Hypercall = Hypercall {
    number: 41,
    name: "dm_op",
    args: ARGS,
    returns: Show::Errno,
    sub_ops: Some(SubOps {
        from: SubOpFrom::FirstBuffer { index: 2, ty: &Type::Struct(&DM_OP_STRUCT) },
        ops: OPS,
    }),
};
