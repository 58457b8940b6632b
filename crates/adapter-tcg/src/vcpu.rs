//! One vCPU under TCG: its registers by QEMU's handles, and its sensor.

use std::time::Instant;

use hypovisor_sensor::{Register, Vcpu, VcpuSensor};

use crate::sys::{RegisterBuffer, RegisterHandle};

/// Reads a register by handle; differs between API levels.
pub(crate) type ReadRegister = fn(RegisterHandle, &mut RegisterBuffer) -> Option<u64>;

/// How many registers are read.
pub(crate) const REGISTERS: usize = 20;

/// QEMU's names of the registers that are read, in the order of [`Registers::handles`].
pub(crate) const REGISTER_NAMES: [&core::ffi::CStr; REGISTERS] = [
    c"rdi", c"rax", c"cr3", c"rip", c"rsp", c"cs", c"rcx", c"rdx", c"rbx", c"rbp", c"rsi", c"r8", c"r9",
    c"r10", c"r11", c"r12", c"r13", c"r14", c"r15", c"efer",
];
/// Where the code segment's selector and EFER stand among them.
const CS: usize = 5;
const EFER: usize = 19;
/// Where the general registers stand, in the order of the numbers that instructions have for them (AMD APM vol. 3, §1.4.1).
const GENERAL: [usize; 16] = [1, 6, 7, 8, 4, 9, 10, 0, 11, 12, 13, 14, 15, 16, 17, 18];

/// The registers of one vCPU.
pub(crate) struct Registers {
    pub(crate) handles: [Option<RegisterHandle>; REGISTERS],
    pub(crate) buffer: RegisterBuffer,
    pub(crate) read: ReadRegister,
}

impl Registers {
    /// A general register by the number that instructions have for it: 0 is RAX, 1 RCX, 2 RDX.
    pub(crate) fn general(&mut self, number: u8) -> Option<u64> {
        let index = *GENERAL.get(usize::from(number))?;
        (self.read)(self.handles[index]?, &mut self.buffer)
    }

    /// The level that the vCPU runs at, 0 to 3.
    pub(crate) fn privilege_level(&mut self) -> Option<u64> {
        (self.read)(self.handles[CS]?, &mut self.buffer).map(|selector| selector & 3)
    }

    /// The register with long mode's and SVM's switches.
    pub(crate) fn efer(&mut self) -> Option<u64> {
        (self.read)(self.handles[EFER]?, &mut self.buffer)
    }
}

impl Vcpu for Registers {
    fn read_register(&mut self, register: Register) -> Option<u64> {
        let index = match register {
            Register::Rdi => 0,
            Register::Rax => 1,
            Register::Cr3 => 2,
            Register::Rip => 3,
            Register::Rsp => 4,
        };
        (self.read)(self.handles[index]?, &mut self.buffer)
    }

    fn now_ticks(&self) -> u64 {
        hypovisor_machine::clock::now_ticks()
    }
}

/// One vCPU: registers and sensor, and what is known of the guest on it.
pub(crate) struct TcgVcpu {
    pub(crate) registers: Registers,
    pub(crate) sensor: VcpuSensor,
    /// The control block of the guest that runs was changed for QEMU's sake.
    pub(crate) mended: bool,
    /// Guests in a row that have not left to the instruction behind VMRUN.
    pub(crate) lost_exits: u64,
    /// When one was told last.
    pub(crate) exit_told: Option<Instant>,
    /// How often the machine had been reset when this vCPU was last at a hook.
    pub(crate) resets: u64,
}

impl TcgVcpu {
    /// The machine was reset, for the `resets`th time.
    #[cold]
    pub(crate) fn forget(&mut self, resets: u64) {
        self.sensor.l1_was_reset();
        (self.mended, self.lost_exits, self.resets) = (false, 0, resets);
    }
}
