//! One vCPU under TCG: its registers by QEMU's handles, and its sensor.

use hypovisor_sensor::{Register, Vcpu, VcpuSensor};

use crate::sys::{RegisterBuffer, RegisterHandle};

/// Reads a register by handle; differs between API levels.
pub(crate) type ReadRegister = fn(RegisterHandle, &mut RegisterBuffer) -> Option<u64>;

/// How many registers a sensor reads.
pub(crate) const REGISTERS: usize = 5;

/// QEMU's names of the registers a sensor reads, in the order of [`Registers::handles`].
pub(crate) const REGISTER_NAMES: [&core::ffi::CStr; REGISTERS] = [c"rdi", c"rax", c"cr3", c"rip", c"rsp"];

/// The registers of one vCPU.
pub(crate) struct Registers {
    pub(crate) handles: [Option<RegisterHandle>; REGISTERS],
    pub(crate) buffer: RegisterBuffer,
    pub(crate) read: ReadRegister,
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

/// One vCPU: registers and sensor.
pub(crate) struct TcgVcpu {
    pub(crate) registers: Registers,
    pub(crate) sensor: VcpuSensor,
}
