//! When QEMU sets a vCPU back to its first instruction: it sets the registers for that, in two steps and either order.
//!
//! A processor begins so after a reset or an INIT (AMD APM vol. 2, §14.1.3). Other processors than the first do while they wait to be
//! started, and are set so again when QEMU has only looked at them: only the first one's tells that the machine begins anew.

use std::sync::atomic::{AtomicBool, Ordering};

use kvm_bindings::{kvm_regs, kvm_sregs};

/// The offset of the first instruction in its code segment, and the segment's base.
const RIP: u64 = 0xfff0;
const CODE_BASE: u64 = 0xffff_0000;
/// CR0.PE.
const PROTECTED_MODE: u64 = 1;

/// What QEMU has set of a vCPU last.
#[derive(Debug, Default)]
pub(crate) struct FirstInstruction {
    rip: AtomicBool,
    mode: AtomicBool,
}

impl FirstInstruction {
    /// QEMU has set general registers. Whether the vCPU begins anew.
    pub(crate) fn set_registers(&self, registers: &kvm_regs) -> bool {
        self.rip.store(registers.rip == RIP, Ordering::Relaxed);
        self.is_complete()
    }

    /// QEMU has set system registers.
    pub(crate) fn set_system_registers(&self, registers: &kvm_sregs) -> bool {
        let is_real_mode = registers.efer == 0 && registers.cr0 & PROTECTED_MODE == 0;
        self.mode.store(is_real_mode && registers.cs.base == CODE_BASE, Ordering::Relaxed);
        self.is_complete()
    }

    fn is_complete(&self) -> bool {
        let is_complete = self.rip.load(Ordering::Relaxed) && self.mode.load(Ordering::Relaxed);
        if is_complete {
            self.rip.store(false, Ordering::Relaxed);
            self.mode.store(false, Ordering::Relaxed);
        }
        is_complete
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(rip: u64) -> kvm_regs {
        kvm_regs { rip, ..kvm_regs::default() }
    }

    fn segment(base: u64, cr0: u64, efer: u64) -> kvm_sregs {
        let mut registers = kvm_sregs { cr0, efer, ..kvm_sregs::default() };
        registers.cs.base = base;
        registers
    }

    #[test]
    fn a_processor_begins_anew_by_both_in_either_order() {
        let vcpu = FirstInstruction::default();
        assert!(!vcpu.set_system_registers(&segment(CODE_BASE, 0x6000_0010, 0)));
        assert!(vcpu.set_registers(&at(RIP)));
        assert!(!vcpu.set_registers(&at(RIP)));
        assert!(vcpu.set_system_registers(&segment(CODE_BASE, 0x6000_0010, 0)));
    }

    #[test]
    fn a_guest_that_is_at_such_an_address_does_not() {
        let vcpu = FirstInstruction::default();
        assert!(!vcpu.set_system_registers(&segment(0, 0x8005_0033, 0xd01)));
        assert!(!vcpu.set_registers(&at(RIP)));
        assert!(!vcpu.set_system_registers(&segment(0xf_0000, 0x10, 0)), "firmware's, in real mode");
        assert!(!vcpu.set_registers(&at(RIP)));
    }
}
