//! L1's own setting of system registers, and VMRUNs that are not its own: seen as the instruction is about to be executed.

use core::ffi::{c_uint, c_void};
use std::sync::atomic::Ordering;

use hypovisor_event::control::{Hook, HookKind, SystemRegister};
use hypovisor_machine::{Gva, VirtualMemory};
use hypovisor_sensor::{Register, Vcpu as _, watched_msr};

use super::{Hooks, Plugin, guarded};
use crate::sys::Instruction;
use crate::system::{self, SystemInstruction};
use crate::vcpu::{Registers, TcgVcpu};

extern "C" fn on_system(vcpu: c_uint, userdata: *mut c_void) {
    guarded(|plugin| {
        if let Some(instruction) = SystemInstruction::from_number(userdata.addr()) {
            plugin.system_instruction(vcpu, instruction);
        }
    });
}

/// What an instruction sets, and to what; `None` if that is of no interest.
fn set_by(instruction: SystemInstruction, registers: &mut Registers) -> Option<(SystemRegister, u64)> {
    const RAX: u8 = 0;
    const RCX: u8 = 1;
    const RDX: u8 = 2;
    match instruction {
        SystemInstruction::Wrmsr => {
            let register = watched_msr(registers.general(RCX)? & u64::from(u32::MAX))?;
            let low = registers.general(RAX)? & u64::from(u32::MAX);
            Some((register, registers.general(RDX)? << 32 | low))
        }
        SystemInstruction::Vmrun => Some((SystemRegister::Vmcb, registers.general(RAX)?)),
        SystemInstruction::SetCr0(general) => Some((SystemRegister::Cr0, registers.general(general)?)),
        SystemInstruction::SetCr4(general) => Some((SystemRegister::Cr4, registers.general(general)?)),
    }
}

impl Plugin {
    /// L1's own VMRUN is a hook; any other one is somebody else's.
    pub(super) fn watch_system_instruction(&self, hooks: &Hooks, instruction: Instruction) {
        let mut bytes = [0; system::MAX_BYTES];
        let bytes = instruction.bytes(&mut bytes);
        if let Some(bypass) = &self.bypass {
            bypass.watch(instruction, bytes);
        }
        let Some(found) = SystemInstruction::read(bytes) else { return };
        let is_hook = |hook: &Hook| hook.kind == HookKind::Vmrun && hook.gva.0 == instruction.address();
        if found != SystemInstruction::Vmrun || !hooks.hooks.iter().any(is_hook) {
            instruction.on_execute(on_system, found.number());
        }
    }

    /// A vCPU is about to execute such an instruction.
    fn system_instruction(&self, index: c_uint, instruction: SystemInstruction) {
        let Some(vcpu) = self.any_vcpu(index) else { return };
        let registers = &mut vcpu.registers;
        let Some((register, value)) = set_by(instruction, registers) else { return };
        let rip = registers.read_register(Register::Rip).unwrap_or(0);
        if self.is_l1_kernel(index) {
            self.control.l1_sets(register, value, Gva(rip));
        }
    }

    /// A vCPU whose registers a callback may read: every vCPU has the same handles, and reads its own registers with them.
    #[expect(clippy::mut_from_ref, reason = "callbacks of one vCPU do not nest")]
    pub(super) fn any_vcpu(&self, index: c_uint) -> Option<&mut TcgVcpu> {
        let index = if self.stacks.is_one_thread() { 0 } else { index as usize };
        // SAFETY: QEMU calls on the vCPU's own thread, of which there may be one for all; callbacks do not nest.
        unsafe { &mut *self.vcpus.get(index)?.0.get() }.as_mut()
    }

    /// Whether L1 itself runs, at privilege level 0.
    pub(super) fn is_l1_kernel(&self, index: c_uint) -> bool {
        let level = self.any_vcpu(index).and_then(|vcpu| vcpu.registers.privilege_level());
        level == Some(0) && self.is_l1(index)
    }

    /// Whether L1 itself runs, and not a hardware-virtualised guest of it: none runs on that processor by what was seen; or the page tables
    /// have L1's code where that was at the first hypercall. (L1 can change its own; a guest that knows L1's well can imitate them.)
    pub(super) fn is_l1(&self, index: c_uint) -> bool {
        let known = self.l1_code.load(Ordering::Acquire);
        // Until its first hypercall its guests are yet to come.
        known == 0
            || !self.may_run_guest(index)
            || self.any_vcpu(index).is_some_and(|vcpu| self.code_address(&mut vcpu.registers) == known)
    }

    /// The physical address of the first hook by the page tables in use; 0 if there is none.
    pub(super) fn code_address(&self, registers: &mut Registers) -> u64 {
        let (Some(ram), Some(hooks)) = (self.control.ram(), self.hooks.get()) else { return 0 };
        let Some(cr3) = registers.read_register(Register::Cr3) else { return 0 };
        VirtualMemory::new(ram, cr3).translate(Gva(hooks.low)).map_or(0, |gpa| gpa.0)
    }
}
