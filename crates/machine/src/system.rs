//! Registers of a processor of L1 that decide what its hypervisor runs and who may do what.

use crate::Gva;

/// A descriptor table's place: GDTR or IDTR (AMD APM vol. 2, §4.6).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DescriptorTable {
    /// Its first byte.
    pub base: Gva,
    /// Its last byte, counted from the first.
    pub limit: u16,
}

/// The task register (AMD APM vol. 2, §4.6.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TaskRegister {
    /// Its selector.
    pub selector: u16,
    /// Where the task-state segment begins.
    pub base: Gva,
    /// Its last byte, counted from the first.
    pub limit: u32,
}

/// What one processor of L1 holds in its system registers, as far as the source tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SystemRegisters {
    /// Where it is.
    pub rip: Gva,
    /// Its stack pointer.
    pub rsp: Gva,
    /// Its code segment's selector; the lowest two bits are the privilege level.
    pub cs: u16,
    /// CR0.
    pub cr0: u64,
    /// CR2.
    pub cr2: u64,
    /// CR3.
    pub cr3: u64,
    /// CR4.
    pub cr4: u64,
    /// GDTR.
    pub gdt: DescriptorTable,
    /// IDTR.
    pub idt: DescriptorTable,
    /// TR.
    pub task: TaskRegister,
    /// EFER.
    pub efer: Option<u64>,
    /// DR0 to DR3, and DR7.
    pub breakpoints: Option<([u64; 4], u64)>,
    /// Where SYSCALL enters from 64-bit code (MSR LSTAR).
    pub lstar: Option<Gva>,
}

impl SystemRegisters {
    /// The current privilege level, 0 to 3.
    #[must_use]
    pub const fn privilege_level(&self) -> u16 {
        self.cs & 3
    }
}
