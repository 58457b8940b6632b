//! `domctl` (Xen public/domctl.h).
//!
//! 4.17 has `interface_version` 0x15, 4.20 has 0x17. Of the layouts only that of `xen_domctl_createdomain` differs:
//! 0x17 put `altp2m_opts` in the middle. 4.20 also added `XEN_DOMCTL_gsi_permission`,
//! `XEN_DOMCTL_set_llc_colors`, `XEN_DOMCTL_dt_overlay` (for Arm) and `XEN_DOMCTL_MONITOR_EVENT_IO`.
//!
//! Operations that come in pairs, to set and to get, share a struct: it stands here once for each way.

mod create;
mod device;
mod events;
mod hvm_context;
pub(super) mod info;
mod memory;
pub(super) mod scheduling;
mod tracing;
mod vcpu;

use super::commands::commands;
use super::prelude::*;

structure!(SETDOMAINHANDLE = "struct xen_domctl_setdomainhandle" { field("handle", Type::Bytes(16)) });
structure!(SETDEBUGGING = "struct xen_domctl_setdebugging" { field("enable", Type::BOOL8) });
// The header has an int64_aligned_t.
structure!(SETTIMEOFFSET = "struct xen_domctl_settimeoffset" { field("time_offset_seconds", Type::S64) });
structure!(SET_TARGET = "struct xen_domctl_set_target" { field("target", Type::DOMID) });
structure!(SUBSCRIBE = "struct xen_domctl_subscribe" { field("port", Type::PORT) });
structure!(SET_VIRQ_HANDLER = "struct xen_domctl_set_virq_handler" {
    field("virq", Type::enumeration(Int::U32, &super::event_channel::VIRQ)),
});

enumeration!(VUART_CMD = "XEN_DOMCTL_VUART_OP_*" { 0 => "XEN_DOMCTL_VUART_OP_INIT" });
enumeration!(VUART_TYPE = "XEN_DOMCTL_VUART_TYPE_*" { 0 => "XEN_DOMCTL_VUART_TYPE_VPL011" });
structure!(VUART_OP = "struct xen_domctl_vuart_op" {
    field("cmd", Type::enumeration(Int::U32, &VUART_CMD)),
    field("type", Type::enumeration(Int::U32, &VUART_TYPE)),
    field("gfn", Type::FRAME64A),
    field("console_domid", Type::DOMID),
    field("pad", Type::Bytes(2)),
    field("evtchn", Type::PORT).out(),
});

commands!(CMD, OPS = "XEN_DOMCTL_*", &[ARG], {
    1 => "XEN_DOMCTL_createdomain", 2 => "XEN_DOMCTL_destroydomain", 3 => "XEN_DOMCTL_pausedomain",
    4 => "XEN_DOMCTL_unpausedomain", 5 => "XEN_DOMCTL_getdomaininfo", 9 => "XEN_DOMCTL_setvcpuaffinity",
    10 => "XEN_DOMCTL_shadow_op", 11 => "XEN_DOMCTL_max_mem", 12 => "XEN_DOMCTL_setvcpucontext",
    13 => "XEN_DOMCTL_getvcpucontext", 14 => "XEN_DOMCTL_getvcpuinfo", 15 => "XEN_DOMCTL_max_vcpus",
    16 => "XEN_DOMCTL_scheduler_op", 17 => "XEN_DOMCTL_setdomainhandle", 18 => "XEN_DOMCTL_setdebugging",
    19 => "XEN_DOMCTL_irq_permission", 20 => "XEN_DOMCTL_iomem_permission",
    21 => "XEN_DOMCTL_ioport_permission", 22 => "XEN_DOMCTL_hypercall_init",
    // Only Xen itself calls it so, when it goes on with a reset that it interrupted.
    23 => "XEN_DOMCTL_soft_reset_cont",
    24 => "XEN_DOMCTL_settimeoffset", 25 => "XEN_DOMCTL_getvcpuaffinity",
    26 => "XEN_DOMCTL_real_mode_area", 27 => "XEN_DOMCTL_resumedomain", 28 => "XEN_DOMCTL_sendtrigger",
    29 => "XEN_DOMCTL_subscribe", 33 => "XEN_DOMCTL_gethvmcontext", 34 => "XEN_DOMCTL_sethvmcontext",
    35 => "XEN_DOMCTL_set_address_size", 36 => "XEN_DOMCTL_get_address_size",
    37 => "XEN_DOMCTL_assign_device", 38 => "XEN_DOMCTL_bind_pt_irq",
    // When it stops early, the number of frames that are done.
    39 => "XEN_DOMCTL_memory_mapping" returns Dec,
    40 => "XEN_DOMCTL_ioport_mapping", 42 => "XEN_DOMCTL_set_ext_vcpucontext",
    43 => "XEN_DOMCTL_get_ext_vcpucontext", 44 => "XEN_DOMCTL_set_opt_feature",
    45 => "XEN_DOMCTL_test_assign_device", 46 => "XEN_DOMCTL_set_target", 47 => "XEN_DOMCTL_deassign_device",
    48 => "XEN_DOMCTL_unbind_pt_irq", 50 => "XEN_DOMCTL_get_device_group", 54 => "XEN_DOMCTL_debug_op",
    55 => "XEN_DOMCTL_gethvmcontext_partial", 56 => "XEN_DOMCTL_vm_event_op",
    57 => "XEN_DOMCTL_mem_sharing_op", 59 => "XEN_DOMCTL_gettscinfo", 60 => "XEN_DOMCTL_settscinfo",
    61 => "XEN_DOMCTL_getpageframeinfo3", 62 => "XEN_DOMCTL_setvcpuextstate",
    63 => "XEN_DOMCTL_getvcpuextstate", 64 => "XEN_DOMCTL_set_access_required", 65 => "XEN_DOMCTL_audit_p2m",
    66 => "XEN_DOMCTL_set_virq_handler", 67 => "XEN_DOMCTL_set_broken_page_p2m",
    68 => "XEN_DOMCTL_setnodeaffinity", 69 => "XEN_DOMCTL_getnodeaffinity", 71 => "XEN_DOMCTL_cacheflush",
    72 => "XEN_DOMCTL_get_vcpu_msrs", 73 => "XEN_DOMCTL_set_vcpu_msrs", 74 => "XEN_DOMCTL_setvnumainfo",
    75 => "XEN_DOMCTL_psr_cmt_op", 77 => "XEN_DOMCTL_monitor_op", 78 => "XEN_DOMCTL_psr_alloc",
    79 => "XEN_DOMCTL_soft_reset", 81 => "XEN_DOMCTL_vuart_op", 82 => "XEN_DOMCTL_get_cpu_policy",
    83 => "XEN_DOMCTL_set_cpu_policy", 84 => "XEN_DOMCTL_vmtrace_op",
    85 => "XEN_DOMCTL_get_paging_mempool_size", 86 => "XEN_DOMCTL_set_paging_mempool_size",
    // New after 4.17.
    87 => "XEN_DOMCTL_dt_overlay", 88 => "XEN_DOMCTL_gsi_permission", 89 => "XEN_DOMCTL_set_llc_colors",
    1000 => "XEN_DOMCTL_gdbsx_guestmemio", 1001 => "XEN_DOMCTL_gdbsx_pausevcpu",
    1002 => "XEN_DOMCTL_gdbsx_unpausevcpu", 1003 => "XEN_DOMCTL_gdbsx_domstatus",
});

structure!(DOMCTL_STRUCT = "struct xen_domctl" {
    field("cmd", Type::enumeration(Int::U32, &CMD)),
    field("interface_version", Type::HEX32),
    // Creating a domain returns its id here; getdomaininfo returns that of the domain it found.
    field("domain", Type::DOMID).inout(),
    field("_pad", Type::array(&Type::U16, 3)),
    field("u", Type::Union(&Union { tag: Tag::Field("cmd"), min_size: 128, cases: &[
        case(&[1], "createdomain", create::CREATEDOMAIN),
        case(&[5], "getdomaininfo", Type::Struct(&info::GETDOMAININFO)).out(),
        case(&[61], "getpageframeinfo3", Type::Struct(&memory::GETPAGEFRAMEINFO3)),
        case(&[68], "nodeaffinity", Type::Struct(&vcpu::SET_NODEAFFINITY)),
        case(&[69], "nodeaffinity", Type::Struct(&vcpu::GET_NODEAFFINITY)),
        case(&[9], "vcpuaffinity", Type::Struct(&vcpu::SET_VCPUAFFINITY)),
        case(&[25], "vcpuaffinity", Type::Struct(&vcpu::GET_VCPUAFFINITY)),
        case(&[10], "shadow_op", Type::Struct(&memory::SHADOW_OP)),
        case(&[11], "max_mem", Type::Struct(&memory::MAX_MEM)),
        case(&[12], "vcpucontext", Type::Struct(&vcpu::SET_VCPUCONTEXT)),
        case(&[13], "vcpucontext", Type::Struct(&vcpu::GET_VCPUCONTEXT)),
        case(&[14], "getvcpuinfo", Type::Struct(&vcpu::GETVCPUINFO)),
        case(&[15], "max_vcpus", Type::Struct(&vcpu::MAX_VCPUS)),
        case(&[16], "scheduler_op", Type::Struct(&scheduling::SCHEDULER_OP)),
        case(&[17], "setdomainhandle", Type::Struct(&SETDOMAINHANDLE)),
        case(&[18], "setdebugging", Type::Struct(&SETDEBUGGING)),
        case(&[19], "irq_permission", Type::Struct(&device::IRQ_PERMISSION)),
        case(&[88], "gsi_permission", Type::Struct(&device::GSI_PERMISSION)),
        case(&[20], "iomem_permission", Type::Struct(&device::IOMEM_PERMISSION)),
        case(&[21], "ioport_permission", Type::Struct(&device::IOPORT_PERMISSION)),
        case(&[22], "hypercall_init", Type::Struct(&memory::HYPERCALL_INIT)),
        case(&[24], "settimeoffset", Type::Struct(&SETTIMEOFFSET)),
        case(&[60], "tsc_info", Type::Struct(&vcpu::TSC_INFO)),
        case(&[59], "tsc_info", Type::Struct(&vcpu::TSC_INFO)).out(),
        case(&[33], "hvmcontext", Type::Struct(&hvm_context::GET_HVMCONTEXT)),
        case(&[34], "hvmcontext", Type::Struct(&hvm_context::SET_HVMCONTEXT)),
        case(&[55], "hvmcontext_partial", Type::Struct(&hvm_context::HVMCONTEXT_PARTIAL)),
        case(&[35], "address_size", Type::Struct(&vcpu::ADDRESS_SIZE)),
        case(&[36], "address_size", Type::Struct(&vcpu::ADDRESS_SIZE)).out(),
        case(&[28], "sendtrigger", Type::Struct(&vcpu::SENDTRIGGER)),
        case(&[50], "get_device_group", Type::Struct(&device::GET_DEVICE_GROUP)),
        case(&[37, 45, 47], "assign_device", Type::Struct(&device::ASSIGN_DEVICE)),
        case(&[38, 48], "bind_pt_irq", Type::Struct(&device::BIND_PT_IRQ)),
        case(&[39], "memory_mapping", Type::Struct(&device::MEMORY_MAPPING)),
        case(&[40], "ioport_mapping", Type::Struct(&device::IOPORT_MAPPING)),
        case(&[42], "ext_vcpucontext", Type::Struct(&vcpu::SET_EXT_VCPUCONTEXT)),
        case(&[43], "ext_vcpucontext", Type::Struct(&vcpu::GET_EXT_VCPUCONTEXT)),
        case(&[46], "set_target", Type::Struct(&SET_TARGET)),
        case(&[29], "subscribe", Type::Struct(&SUBSCRIBE)),
        case(&[54], "debug_op", Type::Struct(&tracing::DEBUG_OP)),
        case(&[56], "vm_event_op", Type::Struct(&events::VM_EVENT_OP)),
        case(&[57], "mem_sharing_op", Type::Struct(&memory::MEM_SHARING_OP)),
        case(&[82], "cpu_policy", Type::Struct(&vcpu::GET_CPU_POLICY)),
        case(&[83], "cpu_policy", Type::Struct(&vcpu::SET_CPU_POLICY)),
        case(&[62], "vcpuextstate", Type::Struct(&vcpu::SET_VCPUEXTSTATE)),
        case(&[63], "vcpuextstate", Type::Struct(&vcpu::GET_VCPUEXTSTATE)),
        case(&[72], "vcpu_msrs", Type::Struct(&vcpu::GET_VCPU_MSRS)),
        case(&[73], "vcpu_msrs", Type::Struct(&vcpu::SET_VCPU_MSRS)),
        case(&[64], "access_required", Type::Struct(&events::SET_ACCESS_REQUIRED)),
        case(&[65], "audit_p2m", Type::Struct(&memory::AUDIT_P2M)),
        case(&[66], "set_virq_handler", Type::Struct(&SET_VIRQ_HANDLER)),
        case(&[1000], "gdbsx_guest_memio", Type::Struct(&tracing::GDBSX_MEMIO)),
        case(&[67], "set_broken_page_p2m", Type::Struct(&memory::SET_BROKEN_PAGE_P2M)),
        case(&[71], "cacheflush", Type::Struct(&memory::CACHEFLUSH)),
        case(&[1001, 1002], "gdbsx_pauseunp_vcpu", Type::Struct(&tracing::GDBSX_PAUSEUNP_VCPU)),
        case(&[1003], "gdbsx_domstatus", Type::Struct(&tracing::GDBSX_DOMSTATUS)),
        case(&[74], "vnuma", Type::Struct(&memory::VNUMA)),
        case(&[75], "psr_cmt_op", Type::Struct(&vcpu::PSR_CMT_OP)),
        case(&[77], "monitor_op", Type::Struct(&events::MONITOR_OP)),
        case(&[78], "psr_alloc", Type::Struct(&vcpu::PSR_ALLOC)),
        case(&[81], "vuart_op", Type::Struct(&VUART_OP)),
        case(&[84], "vmtrace_op", Type::Struct(&tracing::VMTRACE_OP)),
        case(&[86], "paging_mempool", Type::Struct(&memory::PAGING_MEMPOOL)),
        case(&[85], "paging_mempool", Type::Struct(&memory::PAGING_MEMPOOL)).out(),
        case(&[89], "set_llc_colors", Type::Struct(&memory::SET_LLC_COLORS)),
        // 87, dt_overlay, is for Arm: the x86 headers do not have its struct.
    ] })),
});

const ARG: Arg = arg("u_domctl", handle!(InOut, Type::Struct(&DOMCTL_STRUCT), Count::One));

pub(super) const DOMCTL: Hypercall = Hypercall {
    number: 36,
    name: "domctl",
    args: &[ARG],
    returns: Show::Errno,
    sub_ops: Some(SubOps { from: SubOpFrom::Memory { index: 0 }, ops: OPS }),
};
