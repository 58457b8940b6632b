//! Where the fields of Xen's structures are that tell who is running and what was asked.
//!
//! ```text
//!   regs --> +------------------------+  struct cpu_info, at the top of the physical CPU's stack
//!            | guest frame            |  struct cpu_user_regs
//!            +------------------------+
//!            | processor_id           |
//!            | current_vcpu ----------+--> struct vcpu { vcpu_id, domain ---+ }
//!            +------------------------+                                     v
//!                                              struct domain { domain_id, options, vcpu[] }
//! ```
//!
//! All offsets are in bytes. Those of [`Layout`] itself count from the frame's start.

use serde::{Deserialize, Serialize};

/// Where a layout comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LayoutSource {
    /// The symbol file's DWARF.
    Dwarf,
    /// Found in the memory of the running L1, with the help of its own code.
    Discovered,
}

/// Offsets of the structures that lead from a hypercall's frame to its maker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layout {
    /// How these offsets were learned.
    pub source: LayoutSource,
    /// The saved registers.
    pub frame: FrameLayout,
    /// `cpu_info.processor_id` (32 bits).
    pub processor_id: u32,
    /// `cpu_info.current_vcpu` (a pointer).
    pub current_vcpu: u32,
    /// `struct vcpu`.
    pub vcpu: VcpuLayout,
    /// `struct domain`.
    pub domain: DomainLayout,
    /// The `call` (a public `multicall_entry`: op, result, six arguments of 8 bytes) in the `struct
    /// mc_state` that the inner function of a multicall gets in RDI.
    pub multicall_call: Option<u32>,
}

/// Offsets in the saved registers, `struct cpu_user_regs`.
///
/// The general registers, RIP, RFLAGS and RSP are 8 bytes; the error code and vector 4; selectors 2.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct FrameLayout {
    pub r15: u32,
    pub r14: u32,
    pub r13: u32,
    pub r12: u32,
    pub rbp: u32,
    pub rbx: u32,
    pub r11: u32,
    pub r10: u32,
    pub r9: u32,
    pub r8: u32,
    pub rax: u32,
    pub rcx: u32,
    pub rdx: u32,
    pub rsi: u32,
    pub rdi: u32,
    pub error_code: u32,
    pub entry_vector: u32,
    pub rip: u32,
    pub cs: u32,
    pub rflags: u32,
    pub rsp: u32,
    pub ss: u32,
    /// Size of the whole frame in bytes.
    pub size: u32,
}

impl FrameLayout {
    /// The frame as Xen's public ABI orders it: `struct cpu_user_regs` of public/arch-x86/xen-x86_64.h.
    #[must_use]
    pub const fn public_abi() -> Self {
        // Fifteen general registers, then what a processor exception pushes, then ss, es, ds, fs and gs.
        Self {
            r15: 0,
            r14: 8,
            r13: 16,
            r12: 24,
            rbp: 32,
            rbx: 40,
            r11: 48,
            r10: 56,
            r9: 64,
            r8: 72,
            rax: 80,
            rcx: 88,
            rdx: 96,
            rsi: 104,
            rdi: 112,
            error_code: 120,
            entry_vector: 124,
            rip: 128,
            cs: 136,
            rflags: 144,
            rsp: 152,
            ss: 160,
            size: 200,
        }
    }
}

/// Offsets in `struct vcpu`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VcpuLayout {
    /// `vcpu_id` (32 bits): its number within the domain.
    pub vcpu_id: u32,
    /// `processor` (32 bits): the physical CPU it runs on.
    pub processor: u32,
    /// `domain` (a pointer).
    pub domain: u32,
    /// `arch.hvm.svm.vmcb_pa` (64 bits): the physical address of its VMCB.
    pub vmcb_pa: Option<u32>,
}

/// Offsets in `struct domain`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DomainLayout {
    /// `domain_id` (16 bits).
    pub domain_id: u32,
    /// `vcpu`: a pointer to the array of pointers to its vCPUs.
    pub vcpus: Option<u32>,
    /// `options` (32 bits): how it was created; bit 0 is `XEN_DOMCTL_CDF_hvm` (public/domctl.h): an HVM or
    /// PVH guest.
    pub options: Option<u32>,
    /// `arch.emulation_flags` (32 bits): the emulated devices; an HVM guest has an IO-APIC and a VGA, a PVH
    /// guest has not.
    pub emulation_flags: Option<u32>,
    /// `next_in_list` (a pointer): the next domain by ascending number.
    pub next_in_list: Option<u32>,
    /// `handle` (16 bytes): the UUID that the toolstack gave it.
    pub handle: Option<u32>,
}
