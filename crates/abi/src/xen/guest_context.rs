//! The registers of a PV vCPU (Xen public/arch-x86/xen.h, xen-x86_64.h, xen-x86_32.h).
//!
//! `domctl` and `vcpu_op` pass them. Most of these structs have different fields for 64-bit and 32-bit callers.

use super::prelude::*;

flag_set!(TRAP_FLAGS = "TI_*" { 4 => "disable_events" } parts { 3 => "dpl" });

structure!(pub(super) TRAP_INFO = "struct trap_info" {
    field("vector", Type::U8),
    field("flags", Type::flags(Int::U8, &TRAP_FLAGS)),
    field("cs", Type::HEX16),
    field("address", Type::ADDRESS),
});

structure!(CALLBACK_32 = "struct xen_callback" {
    field("cs", Type::HEXLONG),
    field("eip", Type::ADDRESS),
});

/// `xen_callback_t`: where Xen enters the guest.
pub(super) const CALLBACK: Type = Type::PerWidth(&[Type::ADDRESS, Type::Struct(&CALLBACK_32)]);

structure!(USER_REGS_64 = "struct cpu_user_regs" {
    field("r15", Type::HEX64),
    field("r14", Type::HEX64),
    field("r13", Type::HEX64),
    field("r12", Type::HEX64),
    field("rbp", Type::HEX64),
    field("rbx", Type::HEX64),
    field("r11", Type::HEX64),
    field("r10", Type::HEX64),
    field("r9", Type::HEX64),
    field("r8", Type::HEX64),
    field("rax", Type::HEX64),
    field("rcx", Type::HEX64),
    field("rdx", Type::HEX64),
    field("rsi", Type::HEX64),
    field("rdi", Type::HEX64),
    field("error_code", Type::HEX32),
    field("entry_vector", Type::HEX32),
    field("rip", Type::ADDRESS64),
    field("cs", Type::HEX16),
    field("_pad0", Type::array(&Type::U16, 1)),
    field("saved_upcall_mask", Type::U8),
    field("_pad1", Type::array(&Type::U8, 3)),
    field("rflags", Type::HEX64),
    field("rsp", Type::ADDRESS64),
    field("ss", Type::HEX16),
    field("_pad2", Type::array(&Type::U16, 3)),
    field("es", Type::HEX16),
    field("_pad3", Type::array(&Type::U16, 3)),
    field("ds", Type::HEX16),
    field("_pad4", Type::array(&Type::U16, 3)),
    field("fs", Type::HEX16),
    field("_pad5", Type::array(&Type::U16, 3)),
    field("gs", Type::HEX16),
    field("_pad6", Type::array(&Type::U16, 3)),
});

structure!(USER_REGS_32 = "struct cpu_user_regs" {
    field("ebx", Type::HEX32),
    field("ecx", Type::HEX32),
    field("edx", Type::HEX32),
    field("esi", Type::HEX32),
    field("edi", Type::HEX32),
    field("ebp", Type::HEX32),
    field("eax", Type::HEX32),
    field("error_code", Type::HEX16),
    field("entry_vector", Type::HEX16),
    field("eip", Type::HEX32),
    field("cs", Type::HEX16),
    field("saved_upcall_mask", Type::U8),
    field("_pad0", Type::U8),
    field("eflags", Type::HEX32),
    field("esp", Type::HEX32),
    field("ss", Type::HEX16),
    field("_pad1", Type::U16),
    field("es", Type::HEX16),
    field("_pad2", Type::U16),
    field("ds", Type::HEX16),
    field("_pad3", Type::U16),
    field("fs", Type::HEX16),
    field("_pad4", Type::U16),
    field("gs", Type::HEX16),
    field("_pad5", Type::U16),
});

flag_set!(CONTEXT_FLAGS = "VGCF_*" {
    1 => "VGCF_i387_valid", 4 => "VGCF_in_kernel", 8 => "VGCF_failsafe_disables_events",
    0x10 => "VGCF_syscall_disables_events", 0x20 => "VGCF_online", 0x100 => "VGCF_in_syscall",
});

flag_set!(VM_ASSIST_BITS = "VMASST_TYPE_* as a bitmap" {
    1 => "VMASST_TYPE_4gb_segments", 2 => "VMASST_TYPE_4gb_segments_notify",
    4 => "VMASST_TYPE_writable_pagetables", 8 => "VMASST_TYPE_pae_extended_cr3",
    0x10 => "VMASST_TYPE_architectural_iopl", 0x20 => "VMASST_TYPE_runstate_update_flag",
    1 << 32 => "VMASST_TYPE_m2p_strict",
});

const FPU_CTXT: Field = field("fpu_ctxt", Type::Bytes(512));
const CONTEXT_FLAGS_FIELD: Field = field("flags", Type::flags(Int::Ulong, &CONTEXT_FLAGS));
const TRAP_CTXT: Field = field("trap_ctxt", Type::array(&Type::Struct(&TRAP_INFO), 256));
const LDT_BASE: Field = field("ldt_base", Type::ADDRESS);
const LDT_ENTS: Field = field("ldt_ents", Type::ULONG);
const GDT_FRAMES: Field = field("gdt_frames", Type::array(&Type::PFN, 16));
const GDT_ENTS: Field = field("gdt_ents", Type::ULONG);
const KERNEL_SS: Field = field("kernel_ss", Type::HEXLONG);
const KERNEL_SP: Field = field("kernel_sp", Type::ADDRESS);
const CTRLREG: Field = field("ctrlreg", Type::array(&Type::HEXLONG, 8));
const DEBUGREG: Field = field("debugreg", Type::array(&Type::HEXLONG, 8));
const VM_ASSIST: Field = field("vm_assist", Type::flags(Int::Ulong, &VM_ASSIST_BITS));

structure!(CONTEXT_64 = "struct vcpu_guest_context" {
    FPU_CTXT,
    CONTEXT_FLAGS_FIELD,
    field("user_regs", Type::Struct(&USER_REGS_64)),
    TRAP_CTXT,
    LDT_BASE,
    LDT_ENTS,
    GDT_FRAMES,
    GDT_ENTS,
    KERNEL_SS,
    KERNEL_SP,
    CTRLREG,
    DEBUGREG,
    field("event_callback_eip", Type::ADDRESS),
    field("failsafe_callback_eip", Type::ADDRESS),
    field("syscall_callback_eip", Type::ADDRESS),
    VM_ASSIST,
    field("fs_base", Type::ADDRESS64),
    field("gs_base_kernel", Type::ADDRESS64),
    field("gs_base_user", Type::ADDRESS64),
});

structure!(CONTEXT_32 = "struct vcpu_guest_context" {
    FPU_CTXT,
    CONTEXT_FLAGS_FIELD,
    field("user_regs", Type::Struct(&USER_REGS_32)),
    TRAP_CTXT,
    LDT_BASE,
    LDT_ENTS,
    GDT_FRAMES,
    GDT_ENTS,
    KERNEL_SS,
    KERNEL_SP,
    CTRLREG,
    DEBUGREG,
    field("event_callback_cs", Type::HEXLONG),
    field("event_callback_eip", Type::ADDRESS),
    field("failsafe_callback_cs", Type::HEXLONG),
    field("failsafe_callback_eip", Type::ADDRESS),
    VM_ASSIST,
});

/// `struct vcpu_guest_context`.
pub(super) const VCPU_GUEST_CONTEXT: Type =
    Type::PerWidth(&[Type::Struct(&CONTEXT_64), Type::Struct(&CONTEXT_32)]);
